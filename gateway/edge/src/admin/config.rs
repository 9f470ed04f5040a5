//! The configuration of the admin listener.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::endpoint::{Endpoint, SocketMode};
use crate::proxy::config::{OnOffSwitch, OneOrMany};

/// The admin listener: health, metrics, purge.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address and port, or a Unix socket as in `unix:/run/lamina/admin.sock`. Beyond
    /// loopback a token is required.
    pub address: Endpoint,
    /// Permissions of the Unix socket, in octal: whoever can write to it can connect.
    pub socket_mode: SocketMode,
    /// Further names (`Host`) by which the listener can be reached, without a port, as in
    /// `*.svc.cluster.local`; `*` and `?` are wildcards. Loopback names and the listener's own
    /// address are always accepted; a request for any other name gets 421.
    pub hosts: Vec<String>,
    /// A token with every right, which requests send as `Authorization: Bearer …`.
    pub token: Option<String>,
    /// A file with that token.
    pub token_file: Option<PathBuf>,
    /// Further tokens, each with a name for the audit lines and with the rights that it has.
    pub tokens: Vec<NamedToken>,
    /// The purge APIs of other caches that are answered here, for clients that speak them.
    pub purge_apis: PurgeApisConfig,
}

/// The purge APIs of other caches, for tokens with the right `purge`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeApisConfig {
    /// Fastly: the ids of services, and what `purge_all` reaches there: names of routes, or `*` for
    /// everything. The id `*` stands for all that are not listed.
    pub fastly: BTreeMap<String, OneOrMany>,
    /// Cloudflare: the ids of zones, and what `purge_everything` reaches there, in the same form.
    pub cloudflare: BTreeMap<String, OneOrMany>,
    /// Souin: on or off.
    pub souin: OnOffSwitch,
}

impl Default for PurgeApisConfig {
    fn default() -> Self {
        Self {
            fastly: BTreeMap::new(),
            cloudflare: BTreeMap::new(),
            souin: OnOffSwitch::Off,
        }
    }
}

/// A token with a name and some rights.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedToken {
    /// The name that audit lines show for actions with this token.
    pub name: String,
    /// The token, at least 8 characters.
    #[serde(default)]
    pub token: Option<String>,
    /// A file with the token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// The rights of the token.
    pub can: Vec<AdminRight>,
}

/// A right that a token can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdminRight {
    /// To read what may be private: failed plugin calls, keys of the second tier, targets of upstreams, explain.
    Read,
    /// To purge.
    Purge,
    /// To reload plugins, to put them in quarantine and to resume them.
    Plugins,
    /// To renew and revoke automatic certificates.
    Certificates,
    /// To drain targets of upstreams, to take them out and to make them ready again.
    Targets,
    /// To take up the configuration file again, to see what that would do, and to switch the maintenance of routes.
    Config,
}

impl AdminRight {
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Purge,
        Self::Plugins,
        Self::Certificates,
        Self::Targets,
        Self::Config,
    ];

    /// The word in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Purge => "purge",
            Self::Plugins => "plugins",
            Self::Certificates => "certificates",
            Self::Targets => "targets",
            Self::Config => "config",
        }
    }
}

impl AdminConfig {
    /// Whether any token is configured.
    pub fn has_tokens(&self) -> bool {
        self.token.is_some() || !self.tokens.is_empty()
    }

    /// A token with this right: the one with every right, or the first that has this one.
    pub fn token_for(&self, right: AdminRight) -> Option<&str> {
        let named = self.tokens.iter().find(|token| token.can.contains(&right));
        let named = named.and_then(|token| token.token.as_deref());
        self.token.as_deref().or(named)
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            address: Endpoint::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9180))),
            socket_mode: SocketMode::default(),
            hosts: Vec::new(),
            token: None,
            token_file: None,
            tokens: Vec::new(),
            purge_apis: PurgeApisConfig::default(),
        }
    }
}
