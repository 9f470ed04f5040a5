//! The YAML configuration of the event bus.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, ConfigDuration};

/// The event bus: over it this node tells the other nodes what to purge, and learns what they
/// purge. The names and defaults are those of `lazy-layers-cache`, in snake case.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// Redis Pub/Sub.
    pub redis: Option<super::redis::config::RedisBusConfig>,
    /// NATS, core or JetStream.
    pub nats: Option<super::nats::config::NatsConfig>,
    /// RabbitMQ, plain or durable.
    pub rabbitmq: Option<super::rabbitmq::config::RabbitMqConfig>,
    /// The group of nodes that the events are for: nodes with another namespace, or none, ignore
    /// them.
    pub namespace: Option<String>,
    /// This node's name, unique among the nodes. Unset takes `$HOSTNAME`; without that, a name is
    /// generated.
    pub source: Option<String>,
    /// Off: this node publishes events and ignores those of others.
    pub subscribe_to_events: bool,
    /// Whether values that were loaded here are published to the other nodes.
    pub broadcast_set: bool,
    /// The largest value in bytes that is published. Of a larger one, the other nodes only learn
    /// that it changed: a node that holds another value has it validated. At most 768KiB, as an
    /// event has at most 1 MiB.
    pub broadcast_set_max_bytes: ByteSize,
    /// Which values of other nodes are accepted.
    pub priming: Priming,
    /// When values are not published for a while because publishing fails. Purges are not affected:
    /// they have retries of their own.
    pub circuit_breaker: CircuitBreaker,
    /// The queue of purges that could not be published yet.
    pub retry_queue: RetryQueue,
    /// How many events are decoded in parallel; they are applied in their order.
    pub handler_concurrency: usize,
    /// How many events are remembered, so that a second delivery has no effect.
    pub event_dedupe_max_entries: usize,
    /// How long events are remembered, in milliseconds.
    pub event_dedupe_ttl_ms: u64,
    /// How often this node announces that it is there, and how many purges it has published. A lost
    /// purge is noticed after this time at the latest.
    pub heartbeat_interval: ConfigDuration,
    /// The time limit for publishing.
    pub publish_timeout: ConfigDuration,
    /// What a pattern of another service purges, if it is not a pattern of URLs.
    pub foreign_patterns: ForeignPatterns,
    /// A secret that all nodes share. It seals events, so that only events of these nodes are
    /// accepted, and each only once. At least 16 bytes. Unset takes `cache.l2.seal_key`, if there
    /// is one.
    pub seal_key: Option<String>,
    /// A file with that secret, instead of `seal_key`.
    pub seal_key_file: Option<PathBuf>,
    /// A second secret: seals made with it are accepted, but none are made with it. For the time
    /// while nodes change from one key to another.
    pub accepted_seal_key: Option<String>,
    /// A file with that secret, instead of `accepted_seal_key`.
    pub accepted_seal_key_file: Option<PathBuf>,
    /// Events of nodes without a seal, where there is a `seal_key`: `refuse`, or `accept` while
    /// nodes without the key are still being replaced.
    pub unsealed_events: EventAdmission,
    /// Events of services that run `lazy-layers-cache`, which have no seals: `accept` or `refuse`.
    /// Unset accepts them where there is no `seal_key`, and refuses them where there is one.
    pub foreign_events: Option<EventAdmission>,
    /// How much the clocks of nodes may differ. Where there is a `seal_key`, an event of a node is
    /// refused when it was made more than this before this node began (except purges that a durable
    /// bus kept for a node with a shared purge log), or more than this in the future by the clock
    /// of this node.
    pub clock_tolerance: ConfigDuration,
    /// The most other nodes that are remembered.
    pub max_nodes: usize,
    /// How many nodes there are, including this one: `purge --wait` then reports those that were
    /// never heard as missing. Unset: only nodes that were heard count.
    pub expect: Option<usize>,
    /// How long nodes that were heard are remembered.
    pub nodes: RememberedNodes,
}

/// How long nodes that were heard are remembered.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RememberedNodes {
    /// For this long after it was last heard, a silent node still belongs to the others:
    /// `purge --wait` waits for it, and reports it as silent.
    pub forget_after: ConfigDuration,
}

/// Whether events of a kind are accepted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventAdmission {
    Accept,
    /// They are counted and have no effect.
    #[default]
    Refuse,
}

/// Which values of other nodes are accepted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priming {
    /// Those of keys that are held here, or were requested within the last minute.
    #[default]
    Resident,
    Always,
    Off,
}

/// What a pattern of another service, like `user:*`, purges. Names are kept as hashes, which can't
/// be compared with a pattern.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ForeignPatterns {
    /// Everything, to be safe.
    #[default]
    All,
    /// Only URLs that match it; there may be none.
    Urls,
}

/// When values are not published for a while.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// Failures in a row after which it opens; 0 is never.
    pub failure_threshold: u32,
    /// How long it stays open before one attempt is made, in milliseconds. A reconnect closes it
    /// earlier.
    pub cooldown_ms: u64,
}

/// The queue of purges that could not be published yet.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryQueue {
    /// Off: a purge that can't be published at once is lost to the other nodes; they notice the
    /// loss.
    pub enabled: bool,
    /// The most purges that wait; when there are more, one purge of everything replaces them.
    pub max_size: usize,
    /// The most bytes that wait; values are dropped first.
    pub max_bytes: ByteSize,
}

impl Default for BusConfig {
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
            heartbeat_interval: ConfigDuration::secs(1),
            publish_timeout: ConfigDuration::secs(2),
            foreign_patterns: ForeignPatterns::default(),
            seal_key: None,
            seal_key_file: None,
            accepted_seal_key: None,
            accepted_seal_key_file: None,
            unsealed_events: EventAdmission::default(),
            foreign_events: None,
            clock_tolerance: ConfigDuration::secs(30),
            max_nodes: 1_000,
            expect: None,
            nodes: RememberedNodes::default(),
        }
    }
}

impl Default for RememberedNodes {
    fn default() -> Self {
        Self {
            forget_after: ConfigDuration::secs(600),
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
