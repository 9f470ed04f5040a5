//! What a section of the configuration says of itself: its servers, secrets and files, and the key
//! that a failure is about.
//!
//! Each transport of the event bus and each store of the second tier implements
//! [`SectionDescription`] beside its module. Those who read, check and examine a configuration ask
//! the description, so that they name no transport and no store.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// A section of the configuration that names a server or a file.
pub trait SectionDescription {
    /// The key of the section in the section above it.
    fn name(&self) -> &'static str;

    /// The addresses of its servers, as they are configured. Empty: it has no server.
    fn servers(&self) -> Vec<&str>;

    /// The settings that hold secrets.
    fn secrets(&mut self) -> Vec<SectionSecret<'_>>;

    /// The files that it names, except those that hold secrets. They are relative to the folder of
    /// the configuration until the caller has made them absolute.
    fn files(&mut self) -> Vec<&mut PathBuf>;

    /// The key, below this section, to look at after a failure that is about this.
    fn key_of(&self, subject: FailureSubject) -> &'static str;
}

/// A secret and the file that may hold it.
pub struct SectionSecret<'a> {
    /// The key of the secret itself. The key of its file has `_file` appended.
    pub key: &'static str,
    pub value: &'a mut Option<String>,
    pub file: &'a Option<PathBuf>,
}

/// What a failure is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureSubject {
    Address,
    User,
    Certificates,
    Vhost,
    Exchange,
    Queue,
    Mode,
    Stream,
    Size,
}

/// A setting that is not valid, and why. It is told in the words of the error that it is made of.
#[derive(Debug)]
pub struct InvalidSetting {
    key: &'static str,
    why: Box<dyn Error + Send + Sync>,
}

impl InvalidSetting {
    /// `key` is the key of the setting, below the section that was checked.
    pub fn new(key: &'static str, why: impl Error + Send + Sync + 'static) -> Self {
        let why = Box::new(why);
        Self { key, why }
    }

    /// The key of the setting, below the section that was checked.
    pub fn key(&self) -> &'static str {
        self.key
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl Error for InvalidSetting {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.why.source()
    }
}

/// The table of the sections of one configuration that are described alike. Each section is an
/// `Option` under its key.
///
/// `described_sections! { BusConfig, TransportDescription, TRANSPORTS, transports, transports_mut: redis, nats }`
/// gives the type the keys as a constant, and two methods that return the sections which are given.
#[macro_export]
macro_rules! described_sections {
    (
        $config:ty, $description:path, $keys:ident, $given:ident, $given_mut:ident:
        $($section:ident),*
    ) => {
        impl $config {
            /// The keys of all these sections.
            pub const $keys: &'static [&'static str] = &[$(stringify!($section)),*];

            /// The sections that are given.
            pub fn $given(&self) -> Vec<&dyn $description> {
                let mut given: Vec<&dyn $description> = Vec::new();
                $(if let Some(section) = &self.$section { given.push(section); })*
                given
            }

            /// The sections that are given, to complete them.
            pub fn $given_mut(&mut self) -> Vec<&mut dyn $description> {
                let mut given: Vec<&mut dyn $description> = Vec::new();
                $(if let Some(section) = &mut self.$section { given.push(section); })*
                given
            }
        }
    };
}
