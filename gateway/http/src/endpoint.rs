//! Where a listener can be reached: a TCP address, or a Unix socket by its path.
//!
//! Neighbours: the admin listener is configured with one, `server` opens it, and the commands that
//! query a running gateway connect to one.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A TCP address, as in `127.0.0.1:9180`, or a Unix socket, as in `unix:/run/lamina/admin.sock`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The permissions of a Unix socket's file, written in octal, as in `"0660"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketMode(u32);

/// Why a text is not an endpoint or a mode, and what is expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error(
        "not an address; expected an IP address and a port, as in 127.0.0.1:9180, \
         or a Unix socket, as in unix:/run/lamina/admin.sock"
    )]
    Form,
    #[error("the path of the Unix socket is not absolute; expected unix:/…")]
    Relative,
    #[error("the path of the Unix socket is longer than 107 bytes; expected a shorter one")]
    Long,
    #[error(
        "{0:?} is not the mode of a socket; expected three octal digits in which the owner \
         has read and write, as in \"0600\" or \"0660\""
    )]
    Mode(String),
}

const SCHEME: &str = "unix:";

/// The most bytes that the kernel accepts for the path of a socket (`sun_path` without its NUL).
const MAX_PATH: usize = 107;

impl Endpoint {
    /// The TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether only processes of this machine can reach it.
    pub fn is_local(&self) -> bool {
        self.tcp()
            .is_none_or(|address| address.ip().to_canonical().is_loopback())
    }
}

impl SocketMode {
    /// The permission bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Default for SocketMode {
    /// Only the user of the process may connect.
    fn default() -> Self {
        Self(0o600)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let Some(path) = text.strip_prefix(SCHEME) else {
            let address = text.parse().map_err(|_| EndpointError::Form)?;
            return Ok(Self::Tcp(address));
        };
        match path {
            _ if !path.starts_with('/') => Err(EndpointError::Relative),
            _ if path.len() > MAX_PATH => Err(EndpointError::Long),
            _ => Ok(Self::Unix(PathBuf::from(path))),
        }
    }
}

impl FromStr for SocketMode {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let octal = text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let bits = u32::from_str_radix(text, 8).ok().filter(|_| octal);
        bits.filter(|bits| *bits <= 0o777 && bits & 0o600 == 0o600)
            .map(Self)
            .ok_or_else(|| EndpointError::Mode(text.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{SCHEME}{}", path.display()),
        }
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// Both types are texts in YAML, and in its schema.
macro_rules! is_a_text {
    ($type:ty, $name:literal, $description:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "description": $description})
            }
        }
    };
}

is_a_text!(
    Endpoint,
    "Endpoint",
    "A TCP address, as in 127.0.0.1:9180, or a Unix socket, as in unix:/run/lamina/admin.sock."
);
is_a_text!(
    SocketMode,
    "SocketMode",
    "The permissions of a Unix socket's file, written in octal, as in \"0660\"."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_printed() {
        for text in ["127.0.0.1:9180", "[::1]:80", "unix:/run/a.sock"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        let long = format!("unix:/{}", "x".repeat(MAX_PATH));
        for (text, error) in [
            ("localhost:1", EndpointError::Form),
            ("", EndpointError::Form),
            ("unix:", EndpointError::Relative),
            ("unix:a.sock", EndpointError::Relative),
            (&long, EndpointError::Long),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_mode_is_octal_and_leaves_the_owner_in() {
        for (text, bits) in [("0600", 0o600), ("660", 0o660), ("0777", 0o777)] {
            assert_eq!(text.parse::<SocketMode>().unwrap().bits(), bits);
        }
        for text in ["", "0", "0060", "0400", "1600", "888", "+600", "rw", "06 0"] {
            assert!(text.parse::<SocketMode>().is_err(), "{text:?}");
        }
        assert_eq!(SocketMode::default().to_string(), "0600");
    }
}
