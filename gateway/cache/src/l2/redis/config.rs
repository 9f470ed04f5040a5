//! The part of the YAML configuration for Redis as the second tier.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::redis::config::RedisTargetError;

lamina_base::redis_section! {
    /// One server, a Sentinel group or a Cluster.
    pub struct RedisTierConfig {
        /// The beginning of every key; other keys are never touched. Unset: `lamina:`, and with a
        /// `bus.namespace`, `lamina:NAMESPACE:`.
        pub prefix: Option<String> = None,
        /// The number of connections for reading and writing; one more waits for purges, and one for
        /// released leases.
        pub connections: usize = 2,
        times;
        /// The approximate number of purges that the shared log keeps.
        pub purge_log_length: u64 = 100_000,
        /// An index of the records, for listing and for freeing what purges hide.
        pub index: RedisIndexConfig = RedisIndexConfig::default(),
    }
}

/// An index of the records, for listing and for freeing what purges hide.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisIndexConfig {
    /// Off: records can't be listed, and what a purge hides stays until it expires.
    pub enabled: bool,
    /// The number of sorted sets over which it is spread, 1 to 1024; it must be the same on all
    /// nodes.
    pub shards: u16,
}

/// Why Redis can't be used with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum RedisStoreOpenError {
    #[error(transparent)]
    Server(#[from] RedisTargetError),
    #[error(
        "prefix {0:?} contains braces, which would decide in which slot a Redis Cluster keeps a \
         key; expected a prefix without braces"
    )]
    Prefix(String),
    #[error("`connections` is 0; expected 1 or more")]
    Connections,
    #[error("`index.shards` is {0}; expected 1 to 1024")]
    Shards(u16),
}

impl RedisStoreOpenError {
    /// The configuration key that the error is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Server(error) => error.key(),
            Self::Prefix(_) => "prefix",
            Self::Connections => "connections",
            Self::Shards(_) => "index",
        }
    }
}

impl RedisTierConfig {
    /// The prefix of every key of nodes with this namespace. Braces in a namespace are escaped, and
    /// so is the escape character, so that no two namespaces share keys.
    pub(super) fn prefix_for(&self, namespace: Option<&str>) -> String {
        match (&self.prefix, namespace) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(namespace)) => {
                let escaped = namespace.replace('%', "%25").replace('{', "%7B");
                format!("lamina:{}:", escaped.replace('}', "%7D"))
            }
            (None, None) => "lamina:".to_owned(),
        }
    }
}

impl Default for RedisIndexConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            shards: 16,
        }
    }
}
