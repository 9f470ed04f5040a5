//! The part of the YAML configuration for Redis as the second tier.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RedisStoreOpenError;
use crate::redis::{self, RedisConnectionSettings};
use crate::units::ConfigDuration;

/// One server, a Sentinel group or a Cluster.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisTierConfig {
    /// The address: `redis://host:6379/0`, `redis-sentinel://s1:26379,s2:26379/0` or
    /// `redis-cluster://n1:6379,n2:6379`; `rediss…` uses TLS.
    pub url: String,
    /// The name under which Sentinel knows the master.
    pub service: String,
    /// An ACL user. Unset: Redis's `default`.
    pub username: Option<String>,
    /// The password of the servers.
    pub password: Option<String>,
    /// A file that contains the password, in place of `password`.
    pub password_file: Option<PathBuf>,
    /// An ACL user of the Sentinels.
    pub sentinel_username: Option<String>,
    /// The password of the Sentinels.
    pub sentinel_password: Option<String>,
    /// A file that contains the password of the Sentinels, in place of `sentinel_password`.
    pub sentinel_password_file: Option<PathBuf>,
    /// Certificates (PEM) by which the servers are verified, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The beginning of every key; other keys are never touched. Unset: `lamina:`, and with a
    /// `bus.namespace`, `lamina:NAMESPACE:`.
    pub prefix: Option<String>,
    /// The number of connections for reading and writing; one more waits for purges, and one for
    /// released leases.
    pub connections: usize,
    /// The time in which a connection must be opened and set up.
    pub connect_timeout: ConfigDuration,
    /// A connection that gives no answer for this time is given up.
    pub silence_timeout: ConfigDuration,
    /// The longest pause between two attempts to connect. The pauses begin at a tenth of a second
    /// and grow, with jitter, up to this.
    pub reconnect_max: ConfigDuration,
    /// The approximate number of purges that the shared log keeps.
    pub purge_log_length: u64,
    /// An index of the records, for listing and for freeing what purges hide.
    pub index: RedisIndexConfig,
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

/// The largest number of shards, because a listing looks at each of them.
const MAX_SHARDS: u16 = 1_024;

impl RedisTierConfig {
    /// Checks whether this can describe a Redis, without files and network.
    ///
    /// # Errors
    /// The setting that is not valid.
    pub fn check(&self) -> Result<(), RedisStoreOpenError> {
        if self.connections == 0 {
            return Err(RedisStoreOpenError::Connections);
        }
        if let Some(prefix) = self
            .prefix
            .as_ref()
            .filter(|prefix| prefix.contains(['{', '}']))
        {
            return Err(RedisStoreOpenError::Prefix(prefix.clone()));
        }
        if !(1..=MAX_SHARDS).contains(&self.index.shards) {
            return Err(RedisStoreOpenError::Shards(self.index.shards));
        }
        Ok(redis::check(&self.url)?)
    }

    /// The prefix of every key of nodes with this namespace. Braces in a namespace are escaped, and
    /// so is the escape character, so that no two namespaces share keys.
    pub fn prefix_for(&self, namespace: Option<&str>) -> String {
        match (&self.prefix, namespace) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(namespace)) => {
                let escaped = namespace.replace('%', "%25").replace('{', "%7B");
                format!("lamina:{}:", escaped.replace('}', "%7D"))
            }
            (None, None) => "lamina:".to_owned(),
        }
    }

    /// The settings that are needed to connect.
    pub fn settings(&self) -> RedisConnectionSettings<'_> {
        RedisConnectionSettings {
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

impl Default for RedisTierConfig {
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
            prefix: None,
            connections: 2,
            connect_timeout: ConfigDuration::secs(2),
            silence_timeout: ConfigDuration::secs(2),
            reconnect_max: ConfigDuration::millis(500),
            purge_log_length: 100_000,
            index: RedisIndexConfig::default(),
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
