//! The keys that every section of the YAML configuration with a Redis has, and what may be wrong
//! with them.
//!
//! Decision: the sections of the bus and of the second tier are made by a macro. A struct with
//! serde's `flatten` would be shorter, but it reads values before it knows their types: a variable
//! of digits would be no text for a password any more, and errors would lose their place in the
//! file.

use std::path::Path;
use std::time::Duration;

use crate::description::FailureSubject;

/// Where Redis is, and how we authenticate.
#[derive(Clone, Copy)]
pub struct RedisConnectionSettings<'a> {
    /// `redis://…`, `redis-sentinel://…` or `redis-cluster://…`; `rediss…` for TLS.
    pub url: &'a str,
    /// The name under which Sentinel knows the master.
    pub service: &'a str,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    pub sentinel_username: Option<&'a str>,
    pub sentinel_password: Option<&'a str>,
    /// Certificates that vouch for the servers, in place of the system's.
    pub ca_file: Option<&'a Path>,
    /// The time for opening a connection and authenticating.
    pub connect_timeout: Duration,
    /// A connection that gives no answer for this long is given up.
    pub silence_timeout: Duration,
    /// The longest pause between two attempts to connect.
    pub reconnect_max: Duration,
}

/// Why Redis can't be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum RedisTargetError {
    #[error(
        "{0:?} is not the address of a Redis server; expected redis://host:6379/0, \
         redis-sentinel://a:26379,b:26379/0 or redis-cluster://a:6379,b:6379 (rediss… for TLS)"
    )]
    Url(String),
    #[error("credentials in the URL; expected `username` and `password_file`")]
    Credentials,
    #[error("{file}: {reason}")]
    Certificates { file: String, reason: String },
    #[error("the system's certificates: {0}")]
    System(String),
}

impl RedisTargetError {
    /// The key of the configuration that the error is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Url(_) | Self::Credentials | Self::System(_) => "url",
            Self::Certificates { .. } => "ca_file",
        }
    }
}

/// Defines a section `redis` of the configuration: the keys of every such section, and those that
/// are given with their defaults. The word `times;` stands where the common time limits come, since
/// people see the order of the keys in messages. The section describes itself as
/// [`SectionDescription`](crate::description::SectionDescription).
#[macro_export]
macro_rules! redis_section {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $($(#[$doc:meta])* pub $key:ident: $type:ty = $default:expr,)*
            times;
            $($(#[$late_doc:meta])* pub $late_key:ident: $late_type:ty = $late_default:expr,)*
        }
    ) => {
        $(#[$about])*
        #[derive(
            Clone, PartialEq, Eq, Debug, ::serde::Deserialize, ::serde::Serialize,
            ::schemars::JsonSchema,
        )]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// The address: `redis://host:6379/0`, `redis-sentinel://s1:26379,s2:26379/0` or
            /// `redis-cluster://n1:6379,n2:6379`; `rediss…` uses TLS.
            pub url: String,
            /// The name under which Sentinel knows the master.
            pub service: String,
            /// An ACL user; unset is Redis's `default`.
            pub username: Option<String>,
            /// The password of the servers.
            pub password: Option<String>,
            /// A file with the password, instead of `password`.
            pub password_file: Option<::std::path::PathBuf>,
            /// An ACL user of the Sentinels.
            pub sentinel_username: Option<String>,
            /// The password of the Sentinels.
            pub sentinel_password: Option<String>,
            /// A file with the password of the Sentinels, instead of `sentinel_password`.
            pub sentinel_password_file: Option<::std::path::PathBuf>,
            /// Certificates (PEM) of the authorities that the servers are verified with, instead of
            /// the system's.
            pub ca_file: Option<::std::path::PathBuf>,
            $($(#[$doc])* pub $key: $type,)*
            /// The time limit for connecting and logging in.
            pub connect_timeout: $crate::units::ConfigDuration,
            /// A connection without an answer for this long is given up.
            pub silence_timeout: $crate::units::ConfigDuration,
            /// The longest pause between two attempts to connect; pauses begin at a tenth of a
            /// second and grow, with jitter, up to this.
            pub reconnect_max: $crate::units::ConfigDuration,
            $($(#[$late_doc])* pub $late_key: $late_type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    url: "redis://127.0.0.1:6379".to_owned(),
                    service: "mymaster".to_owned(),
                    username: None,
                    password: None,
                    password_file: None,
                    sentinel_username: None,
                    sentinel_password: None,
                    sentinel_password_file: None,
                    ca_file: None,
                    $($key: $default,)*
                    connect_timeout: $crate::units::ConfigDuration::secs(2),
                    silence_timeout: $crate::units::ConfigDuration::secs(2),
                    reconnect_max: $crate::units::ConfigDuration::millis(500),
                    $($late_key: $late_default,)*
                }
            }
        }

        impl $name {
            /// What is needed to connect.
            pub fn connection(&self) -> $crate::redis::RedisConnectionSettings<'_> {
                $crate::redis::RedisConnectionSettings {
                    url: &self.url,
                    service: &self.service,
                    username: self.username.as_deref(),
                    password: self.password.as_deref(),
                    sentinel_username: self.sentinel_username.as_deref(),
                    sentinel_password: self.sentinel_password.as_deref(),
                    ca_file: self.ca_file.as_deref(),
                    connect_timeout: self.connect_timeout.0,
                    silence_timeout: self.silence_timeout.0,
                    reconnect_max: self.reconnect_max.0,
                }
            }
        }

        impl $crate::description::SectionDescription for $name {
            fn name(&self) -> &'static str {
                "redis"
            }

            fn servers(&self) -> Vec<&str> {
                vec![&self.url]
            }

            fn secrets(&mut self) -> Vec<$crate::description::SectionSecret<'_>> {
                vec![
                    $crate::description::SectionSecret {
                        key: "password",
                        value: &mut self.password,
                        file: &self.password_file,
                    },
                    $crate::description::SectionSecret {
                        key: "sentinel_password",
                        value: &mut self.sentinel_password,
                        file: &self.sentinel_password_file,
                    },
                ]
            }

            fn files(&mut self) -> Vec<&mut ::std::path::PathBuf> {
                self.ca_file.iter_mut().collect()
            }

            fn key_of(&self, subject: $crate::description::FailureSubject) -> &'static str {
                $crate::redis::config::key_of(subject)
            }
        }
    };
}

/// The key of a section to look at after a failure that is about this.
pub fn key_of(subject: FailureSubject) -> &'static str {
    match subject {
        FailureSubject::User => "username",
        FailureSubject::Certificates => "ca_file",
        _ => "url",
    }
}
