//! The YAML configuration of RabbitMQ as the event bus.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::ConfigDuration;

/// An exchange to which all nodes publish, and a queue for each node that is bound to it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RabbitMqConfig {
    /// The server: `amqp://host:5672`, or several servers of one cluster, which take turns:
    /// `amqp://a:5672,b:5672`; `amqps` uses TLS.
    pub url: String,
    /// The virtual host.
    pub vhost: String,
    /// The user; unset is `guest`, which RabbitMQ accepts only over loopback.
    pub username: Option<String>,
    /// The password; unset is `guest`.
    pub password: Option<String>,
    /// A file with the password, instead of `password`.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that the servers are verified with, instead of the
    /// system's.
    pub ca_file: Option<PathBuf>,
    /// The exchange; the same on all nodes.
    pub exchange: String,
    /// `fanout` reaches every queue; `topic` and `direct` reach the queues whose key matches, for
    /// several caches on one exchange.
    pub exchange_type: ExchangeType,
    /// No message is missed while this node is away or the broker restarts. Turns on `durable` and
    /// `persistent`, turns off `exclusive_queue` and `auto_delete_queue`, and requires
    /// `queue_name`.
    pub durable_invalidation_mode: bool,
    /// The exchange (and a named queue) survives the broker's restart; unset follows the mode.
    pub durable: Option<bool>,
    /// Messages survive the broker's restart; unset follows `durable`.
    pub persistent: Option<bool>,
    /// This node's own queue, with a name that is unique among the nodes and always the same; unset
    /// lets the broker choose a new one for each connection.
    pub queue_name: Option<String>,
    /// The queue is deleted when this node's connection ends; unset is true, except in durable
    /// mode.
    pub exclusive_queue: Option<bool>,
    /// The queue is deleted when its last consumer ends; unset is true, except in durable mode.
    pub auto_delete_queue: Option<bool>,
    /// The key with which messages are published and the queue is bound; `fanout` ignores it.
    pub routing_key: String,
    /// The most messages that are on their way or being applied; more wait in the broker.
    pub prefetch: u16,
    /// A queue without a consumer for this long is deleted; unset is 7d in durable mode and never
    /// otherwise, `0` is never.
    pub queue_expires: Option<ConfigDuration>,
    /// How many times a message that can't be applied is tried again before it is given up.
    pub max_redeliveries: u32,
    /// The time limit for connecting, logging in, declaring what is needed and beginning to
    /// consume.
    pub connect_timeout: ConfigDuration,
    /// A broker that is silent for twice this time is given up; whole seconds.
    pub heartbeat: ConfigDuration,
    /// The time within which the broker must confirm what was published.
    pub confirm_timeout: ConfigDuration,
    /// The longest pause between two attempts to connect; pauses begin at 200 ms and double, with
    /// jitter, up to this.
    pub reconnect_max: ConfigDuration,
}

/// How an exchange chooses the queues for a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeType {
    /// Every queue.
    Fanout,
    /// The queues whose pattern of dotted words matches the key.
    Topic,
    /// The queues with exactly this key.
    Direct,
}

impl Default for RabbitMqConfig {
    fn default() -> Self {
        Self {
            url: "amqp://127.0.0.1:5672".to_owned(),
            vhost: "/".to_owned(),
            username: None,
            password: None,
            password_file: None,
            ca_file: None,
            exchange: "cache.invalidations".to_owned(),
            exchange_type: ExchangeType::Fanout,
            durable_invalidation_mode: false,
            durable: None,
            persistent: None,
            queue_name: None,
            exclusive_queue: None,
            auto_delete_queue: None,
            routing_key: String::new(),
            prefetch: 32,
            queue_expires: None,
            max_redeliveries: 10,
            connect_timeout: ConfigDuration::secs(5),
            heartbeat: ConfigDuration::secs(2),
            confirm_timeout: ConfigDuration::secs(5),
            reconnect_max: ConfigDuration::millis(500),
        }
    }
}

const A_WEEK: ConfigDuration = ConfigDuration::secs(7 * 24 * 60 * 60);

impl RabbitMqConfig {
    /// Whether the exchange survives the broker's restart.
    pub fn is_durable(&self) -> bool {
        self.durable.unwrap_or(self.durable_invalidation_mode)
    }

    /// Whether messages survive the broker's restart.
    pub fn is_persistent(&self) -> bool {
        self.persistent.unwrap_or(self.is_durable())
    }

    /// Whether the queue ends with the connection.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive_queue
            .unwrap_or(!self.durable_invalidation_mode)
    }

    /// Whether the queue ends with its consumer.
    pub fn is_auto_delete(&self) -> bool {
        self.auto_delete_queue
            .unwrap_or(!self.durable_invalidation_mode)
    }

    /// How long the queue may be without a consumer before it is deleted.
    pub fn expires(&self) -> Option<Duration> {
        let unset = self.durable_invalidation_mode.then_some(A_WEEK);
        let expires = self.queue_expires.or(unset)?;
        (expires != ConfigDuration::ZERO).then_some(expires.0)
    }
}

/// Why RabbitMQ can't be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum RabbitMqOpenError {
    #[error(
        "{0:?} is not the address of a RabbitMQ server; expected amqp://host:5672 or \
         amqp://a:5672,b:5672 (amqps for TLS), with the virtual host in `vhost`"
    )]
    Url(String),
    #[error("credentials in the URL; expected `username` and `password_file`")]
    Credentials,
    #[error(
        "durable_invalidation_mode without a `queue_name`: the broker would make a new queue with \
         each connection, and what waited in the old one would be lost"
    )]
    NoQueue,
    #[error("`{key}: {value}` contradicts durable_invalidation_mode: messages would be lost")]
    Contradiction { key: &'static str, value: bool },
    #[error("`{0}` is empty or too long; expected 1 to 255 bytes, as AMQP allows for a name")]
    Name(&'static str),
    #[error("`prefetch` is 0, which is no limit; expected 1 or more")]
    Prefetch,
    #[error("`heartbeat` of {0:?}; expected whole seconds from 1s to 60s")]
    Heartbeat(Duration),
    #[error("`queue_expires` of {0:?}; expected at most 49d, which is RabbitMQ's limit")]
    Expires(Duration),
    #[error("{file}: {reason}")]
    Certificates { file: String, reason: String },
    #[error("the system's certificates: {0}")]
    System(String),
}

impl RabbitMqOpenError {
    /// The key of the configuration that the error is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Url(_) | Self::Credentials | Self::System(_) => "url",
            Self::NoQueue => "queue_name",
            Self::Contradiction { key, .. } | Self::Name(key) => key,
            Self::Prefetch => "prefetch",
            Self::Heartbeat(_) => "heartbeat",
            Self::Expires(_) => "queue_expires",
            Self::Certificates { .. } => "ca_file",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unset_follows_the_mode() {
        let plain = RabbitMqConfig::default();
        assert!(!plain.is_durable() && !plain.is_persistent());
        assert!(plain.is_exclusive() && plain.is_auto_delete());
        assert_eq!(plain.expires(), None);

        let durable = RabbitMqConfig {
            durable_invalidation_mode: true,
            ..plain.clone()
        };
        assert!(durable.is_durable() && durable.is_persistent());
        assert!(!durable.is_exclusive() && !durable.is_auto_delete());
        assert_eq!(durable.expires(), Some(A_WEEK.0));

        let own_word = RabbitMqConfig {
            durable: Some(true),
            queue_expires: Some(ConfigDuration::ZERO),
            ..plain
        };
        assert!(own_word.is_persistent() && own_word.is_exclusive());
        assert_eq!(own_word.expires(), None);
    }
}
