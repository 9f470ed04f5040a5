//! What YAML says about the event bus.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Duration};

/// The event bus: how this node tells the others what to forget, and hears it from them.
/// The names and defaults are those of `lazy-layers-cache`, in snake case.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bus {
    /// Redis Pub/Sub.
    pub redis: Option<super::redis::config::Redis>,
    /// NATS, core or JetStream.
    pub nats: Option<super::nats::config::Nats>,
    /// RabbitMQ, plain or durable.
    pub rabbitmq: Option<super::rabbitmq::config::Config>,
    /// Whom events are for: nodes with another namespace, or none, ignore them.
    pub namespace: Option<String>,
    /// This node's name, one for each; unset takes `$HOSTNAME`, else one is made up.
    pub source: Option<String>,
    /// Off: this node tells and does not listen.
    pub subscribe_to_events: bool,
    /// Whether values that were loaded here are told.
    pub broadcast_set: bool,
    /// Bytes of such a value at most. Of a larger one the others hear that it changed: who
    /// holds another has it validated. At most 768KiB, as an event has 1 MiB.
    pub broadcast_set_max_bytes: ByteSize,
    /// Which values of peers are taken in.
    pub priming: Priming,
    /// When publishing is not even tried.
    pub circuit_breaker: CircuitBreaker,
    /// Purges that could not be published yet.
    pub retry_queue: RetryQueue,
    /// Events that are decoded side by side; they are applied in their order.
    pub handler_concurrency: usize,
    /// Events that are remembered, so that a second delivery does nothing.
    pub event_dedupe_max_entries: usize,
    /// How long, in milliseconds.
    pub event_dedupe_ttl_ms: u64,
    /// How often this node says that it is there, and how many purges it has told: a lost one
    /// is noticed after so long at most.
    pub heartbeat_interval: Duration,
    /// Deadline of a publish.
    pub publish_timeout: Duration,
    /// What a pattern of a foreign publisher reaches that is not one of URLs.
    pub foreign_patterns: ForeignPatterns,
}

/// Which values of peers are taken in.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priming {
    /// Those of keys that are held here, or were asked for within a minute.
    #[default]
    Resident,
    Always,
    Off,
}

/// What a pattern of a foreign publisher, as `user:*`, reaches. Names are kept as hashes,
/// which no pattern can be compared with.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ForeignPatterns {
    /// Everything, to be safe.
    #[default]
    All,
    /// URLs that match it, which may be none.
    Urls,
}

/// When publishing is not even tried.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// Failures in a row that open it; 0 is never.
    pub failure_threshold: u32,
    /// How long it stays open before one publish tries, in milliseconds. A reconnect
    /// closes it sooner.
    pub cooldown_ms: u64,
}

/// Purges that could not be published yet.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryQueue {
    /// Off: what can't be published at once is lost to the other nodes, which notice.
    pub enabled: bool,
    /// Purges that wait at most; beyond them one purge of everything takes their place.
    pub max_size: usize,
    /// Bytes that wait at most; values are dropped first.
    pub max_bytes: ByteSize,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            redis: None,
            nats: None,
            rabbitmq: None,
            namespace: None,
            source: None,
            subscribe_to_events: true,
            broadcast_set: true,
            broadcast_set_max_bytes: ByteSize::kib(32),
            priming: Priming::default(),
            circuit_breaker: CircuitBreaker::default(),
            retry_queue: RetryQueue::default(),
            handler_concurrency: 1,
            event_dedupe_max_entries: 10_000,
            event_dedupe_ttl_ms: 300_000,
            heartbeat_interval: Duration::secs(1),
            publish_timeout: Duration::secs(2),
            foreign_patterns: ForeignPatterns::default(),
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_threshold: 3,
            cooldown_ms: 30_000,
        }
    }
}

impl Default for RetryQueue {
    fn default() -> Self {
        Self {
            enabled: true,
            max_size: 10_000,
            max_bytes: ByteSize::mib(16),
        }
    }
}
