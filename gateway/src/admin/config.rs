//! What YAML says about the admin listener.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The admin listener: health, metrics, purge.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port. Beyond loopback a token is required.
    pub address: SocketAddr,
    /// Token that changes must bring as `Authorization: Bearer …`.
    pub token: Option<String>,
    /// A file with that token.
    pub token_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9180)),
            token: None,
            token_file: None,
        }
    }
}
