//! The YAML configuration of Redis as the event bus.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RedisBusOpenError;
use crate::redis::{self, RedisConnectionSettings};
use crate::units::ConfigDuration;

/// Redis Pub/Sub (at most once): one server, a Sentinel group or a Cluster.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisBusConfig {
    /// The server: `redis://host:6379`, `redis-sentinel://s1:26379,s2:26379` or
    /// `redis-cluster://n1:6379,n2:6379`; `rediss…` uses TLS.
    pub url: String,
    /// The name under which Sentinel knows the master.
    pub service: String,
    /// An ACL user; unset is Redis's `default`.
    pub username: Option<String>,
    /// The password of the servers.
    pub password: Option<String>,
    /// A file with the password, instead of `password`.
    pub password_file: Option<PathBuf>,
    /// An ACL user of the Sentinels.
    pub sentinel_username: Option<String>,
    /// The password of the Sentinels.
    pub sentinel_password: Option<String>,
    /// A file with the password of the Sentinels, instead of `sentinel_password`.
    pub sentinel_password_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that the servers are verified with, instead of the
    /// system's.
    pub ca_file: Option<PathBuf>,
    /// The channel to which nodes publish and subscribe; the same on all of them.
    pub channel: String,
    /// Sharded Pub/Sub (Redis 7): in a Cluster, messages then pass only through the nodes of one
    /// shard. The same on all nodes.
    pub sharded: bool,
    /// The time limit for connecting and logging in.
    pub connect_timeout: ConfigDuration,
    /// A connection without an answer for this long is given up.
    pub silence_timeout: ConfigDuration,
    /// The longest pause between two attempts to connect; pauses begin at a tenth of a second and
    /// grow, with jitter, up to this.
    pub reconnect_max: ConfigDuration,
}

/// Channels that Redis itself, and our client library, use for key notifications.
const RESERVED: [&str; 2] = ["__keyspace@", "__keyevent@"];

impl RedisBusConfig {
    /// Checks whether the configuration is valid, as far as that is known without reading files or
    /// using the network.
    ///
    /// # Errors
    /// The first setting that is not valid.
    pub fn check(&self) -> Result<(), RedisBusOpenError> {
        let reserved = RESERVED.iter().any(|r| self.channel.starts_with(r));
        if self.channel.is_empty() || reserved {
            return Err(RedisBusOpenError::Channel(self.channel.clone()));
        }
        Ok(redis::check(&self.url)?)
    }

    /// What is needed to connect.
    pub(super) fn settings(&self) -> RedisConnectionSettings<'_> {
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

impl Default for RedisBusConfig {
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
            channel: "lamina:events".to_owned(),
            sharded: false,
            connect_timeout: ConfigDuration::secs(2),
            silence_timeout: ConfigDuration::secs(2),
            reconnect_max: ConfigDuration::millis(500),
        }
    }
}
