//! What YAML says about RabbitMQ as the bus.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::ConfigDuration;

/// An exchange that all nodes publish to, and a queue of each node's own bound to it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RabbitMqConfig {
    /// Where: `amqp://host:5672`, or several servers of one cluster, tried in turn:
    /// `amqp://a:5672,b:5672`; `amqps` speaks TLS.
    pub url: String,
    /// The virtual host.
    pub vhost: String,
    /// Who we are; unset is `guest`, whom RabbitMQ takes over loopback only.
    pub username: Option<String>,
    /// The password; unset is `guest`.
    pub password: Option<String>,
    /// A file with the password, in place of `password`.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) that vouch for the servers, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The exchange; all nodes name the same.
    pub exchange: String,
    /// `fanout` reaches every queue; `topic` and `direct` those whose key matches, for
    /// several caches on one exchange.
    pub exchange_type: ExchangeType,
    /// No message is missed while this node is away or the broker restarts: turns on `durable`
    /// and `persistent`, turns off `exclusive_queue` and `auto_delete_queue`, needs `queue_name`.
    pub durable_invalidation_mode: bool,
    /// The exchange (and a named queue) survives the broker's restart; unset follows the mode.
    pub durable: Option<bool>,
    /// Messages survive the broker's restart; unset follows `durable`.
    pub persistent: Option<bool>,
    /// This node's own queue, another name on each node and always the same; unset lets the
    /// broker choose, anew with each connection.
    pub queue_name: Option<String>,
    /// The queue ends with our connection; unset is true unless in durable mode.
    pub exclusive_queue: Option<bool>,
    /// The queue ends with its last consumer; unset is true unless in durable mode.
    pub auto_delete_queue: Option<bool>,
    /// What messages are published and the queue is bound with; `fanout` ignores it.
    pub routing_key: String,
    /// Messages that may be on their way or being applied; more wait in the broker.
    pub prefetch: u16,
    /// A queue that nobody consumes for so long is deleted; unset is 7d in durable mode and
    /// never otherwise, `0` is never.
    pub queue_expires: Option<ConfigDuration>,
    /// A message that can't be applied is tried again so many times, then given up.
    pub max_redeliveries: u32,
    /// To connect, introduce ourselves, declare what we need and begin to consume.
    pub connect_timeout: ConfigDuration,
    /// A broker that is silent for twice as long is given up; whole seconds.
    pub heartbeat: ConfigDuration,
    /// The broker confirms what was published within this.
    pub confirm_timeout: ConfigDuration,
    /// Between two attempts to connect; they begin at 200 ms and double, with jitter, to this.
    pub reconnect_max: ConfigDuration,
}

/// How an exchange chooses queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeType {
    /// Every queue.
    Fanout,
    /// By patterns of dotted words.
    Topic,
    /// By the exact key.
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

    /// After how long without a consumer the queue is deleted.
    pub fn expires(&self) -> Option<std::time::Duration> {
        let unset = self.durable_invalidation_mode.then_some(A_WEEK);
        let expires = self.queue_expires.or(unset)?;
        (expires != ConfigDuration::ZERO).then_some(expires.0)
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
