//! The YAML configuration of Redis as the event bus.

use crate::redis::config::RedisTargetError;

lamina_base::redis_section! {
    /// Redis Pub/Sub (at most once): one server, a Sentinel group or a Cluster.
    pub struct RedisBusConfig {
        /// The channel to which nodes publish and subscribe; the same on all of them.
        pub channel: String = "lamina:events".to_owned(),
        /// Sharded Pub/Sub (Redis 7): in a Cluster, messages then pass only through the nodes of one
        /// shard. The same on all nodes.
        pub sharded: bool = false,
        times;
    }
}

/// Why Redis can't be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum RedisBusOpenError {
    #[error(transparent)]
    Server(#[from] RedisTargetError),
    #[error(
        "{0:?} is empty or the name of a channel of Redis itself; expected a channel for Lamina \
         alone, as `lamina:events`"
    )]
    Channel(String),
}

impl RedisBusOpenError {
    /// The key of the configuration that the error is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Server(error) => error.key(),
            Self::Channel(_) => "channel",
        }
    }
}
