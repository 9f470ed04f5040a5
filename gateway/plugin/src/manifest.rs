//! What a plugin says about itself, after validation.

use http::HeaderName;
use http::header::COOKIE;

use super::bindings::types;
use super::declared::KeyRules;
use super::error::PluginFault;
use super::names::{self, NamePattern};
use super::reads::DeclaredReads;
use super::seen::SeenField;

/// The most bytes of a name or version.
const MAX_NAME: usize = 64;
/// The most names in one list of a manifest.
const MAX_NAMES: usize = 64;

/// A plugin's manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Its own name, for logs.
    pub name: String,
    /// Its own version, for logs.
    pub version: String,
    /// What its key depends on.
    pub needs: KeyNeeds,
    /// The rules by which the gateway derives the key without calling the plugin.
    pub declarative: Option<KeyRules>,
    /// What its other hooks see of a request's headers.
    pub reads: DeclaredReads,
}

/// The parts of a request from which a key is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyNeeds {
    pub method: bool,
    pub host: bool,
    pub path: bool,
    pub query: QueryNeed,
    pub headers: Vec<HeaderNeed>,
    pub cookies: Vec<NamePattern>,
}

/// How much of the query a key needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueryNeed {
    None,
    Whole,
    Parameters(Vec<NamePattern>),
}

/// One header, or all headers whose names begin with a prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeaderNeed {
    Exact(HeaderName),
    Prefix(Box<str>),
}

impl Manifest {
    /// Validates what a guest returned.
    pub fn read(given: types::Manifest) -> Result<Self, PluginFault> {
        let printable = |s: &str| s.len() <= MAX_NAME && !s.chars().any(char::is_control);
        if given.name.is_empty() || !printable(&given.name) || !printable(&given.version) {
            return Err(bad(
                "name and version must have at most 64 bytes and no control characters, and the \
                 name must not be empty",
            ));
        }
        Ok(Self {
            name: given.name,
            version: given.version,
            needs: KeyNeeds::read(given.inputs)?,
            declarative: given.declarative.map(KeyRules::read).transpose()?,
            reads: DeclaredReads::read(&given.reads)?,
        })
    }
}

impl HeaderNeed {
    /// Whether this is the header, or one of the headers, that is needed.
    pub(super) fn matches(&self, name: &HeaderName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.as_str().starts_with(&**prefix),
        }
    }
}

impl KeyNeeds {
    /// Whether the key may depend on this part of a request.
    pub(super) fn covers(&self, field: &SeenField) -> bool {
        let header = |name| self.headers.iter().any(|need| need.matches(name));
        match field {
            SeenField::Header(name) => header(name),
            SeenField::Cookie(name) => {
                header(&COOKIE) || self.cookies.iter().any(|n| n.matches(name))
            }
            SeenField::Parameter(piece) => match &self.query {
                QueryNeed::None => false,
                QueryNeed::Whole => true,
                QueryNeed::Parameters(wanted) => {
                    let is = |name: &[u8]| wanted.iter().any(|n| n.matches(name));
                    names::parameters(piece, is).next().is_some()
                }
            },
        }
    }

    /// The pieces of a query that a key with these needs may contain.
    pub(super) fn pieces<'a>(&self, query: &'a str) -> Vec<&'a str> {
        match &self.query {
            QueryNeed::None => Vec::new(),
            QueryNeed::Whole => vec![query],
            QueryNeed::Parameters(wanted) => {
                let is = |name: &[u8]| wanted.iter().any(|n| n.matches(name));
                names::parameters(query, is).collect()
            }
        }
    }

    fn read(given: types::KeyNeeds) -> Result<Self, PluginFault> {
        Ok(Self {
            method: given.method,
            host: given.host,
            path: given.path,
            query: match given.query {
                types::QueryNeed::None => QueryNeed::None,
                types::QueryNeed::Whole => QueryNeed::Whole,
                types::QueryNeed::Parameters(names) => QueryNeed::Parameters(patterns(&names)?),
            },
            headers: headers(&given.headers)?,
            cookies: patterns(&given.cookies)?,
        })
    }
}

/// Reads a list of names of parameters or cookies.
pub(super) fn patterns(names: &[String]) -> Result<Vec<NamePattern>, PluginFault> {
    read_all(names, NamePattern::parse)
}

/// Reads a list of names of headers.
pub(super) fn headers(names: &[String]) -> Result<Vec<HeaderNeed>, PluginFault> {
    read_all(names, |name| match NamePattern::parse(name)? {
        NamePattern::Exact(name) => HeaderName::from_bytes(name.as_bytes())
            .ok()
            .map(HeaderNeed::Exact),
        NamePattern::Prefix(prefix) => Some(HeaderNeed::Prefix(prefix.to_ascii_lowercase().into())),
    })
}

fn read_all<T>(names: &[String], read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, PluginFault> {
    if names.len() > MAX_NAMES {
        return Err(bad(&format!(
            "a list has {} names; at most {MAX_NAMES} are accepted",
            names.len()
        )));
    }
    names
        .iter()
        .map(|name| read(name).ok_or_else(|| bad(&format!("{name:?} is not a name"))))
        .collect()
}

fn bad(what: &str) -> PluginFault {
    PluginFault::Manifest(what.to_owned())
}
