//! What YAML says about the event bus.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, ConfigDuration};

/// The event bus: how this node tells the others what to forget, and hears it from them.
/// The names and defaults are those of `lazy-layers-cache`, in snake case.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// Redis Pub/Sub.
    pub redis: Option<super::redis::config::RedisBusConfig>,
    /// NATS, core or JetStream.
    pub nats: Option<super::nats::config::NatsConfig>,
    /// RabbitMQ, plain or durable.
    pub rabbitmq: Option<super::rabbitmq::config::RabbitMqConfig>,
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
    /// When publishing values is not even tried; purges are, on a schedule of their own.
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
    pub heartbeat_interval: ConfigDuration,
    /// Deadline of a publish.
    pub publish_timeout: ConfigDuration,
    /// What a pattern of a foreign publisher reaches that is not one of URLs.
    pub foreign_patterns: ForeignPatterns,
    /// A secret that all nodes share and that seals events, so that nobody else's count and
    /// none counts twice; at least 16 bytes. Unset takes `cache.l2.seal_key`, if there is one.
    pub seal_key: Option<String>,
    /// A file with that secret, in place of `seal_key`.
    pub seal_key_file: Option<PathBuf>,
    /// A second secret whose seals are accepted and that seals nothing: while nodes change from
    /// one key to another.
    pub accepted_seal_key: Option<String>,
    /// A file with that secret, in place of `accepted_seal_key`.
    pub accepted_seal_key_file: Option<PathBuf>,
    /// Events of nodes that have no seal, where there is a `seal_key`: `refuse`, or `accept` while
    /// nodes without the key are still being replaced.
    pub unsealed_events: EventAdmission,
    /// Events of services that run `lazy-layers-cache`, which know no seal: `accept` or `refuse`.
    /// Unset accepts them where there is no `seal_key` and refuses them where there is one.
    pub foreign_events: Option<EventAdmission>,
    /// By how much the clocks of nodes may differ. Where there is a `seal_key`, what a node says
    /// of the moment is refused when it was made more than this before this node began, or more
    /// than this after the time here.
    pub clock_tolerance: ConfigDuration,
    /// Other nodes that are remembered at most.
    pub max_nodes: usize,
    /// How many nodes there are, this one included: `purge --wait` misses those that it never
    /// heard. Unset: those count that were heard.
    pub expect: Option<usize>,
    /// How long the nodes that were heard are remembered.
    pub nodes: RememberedNodes,
}

/// How long the nodes that were heard are remembered.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RememberedNodes {
    /// A node that went without a word belongs to the others for so long after its last sign of
    /// life: `purge --wait` waits for it, and names it as silent.
    pub forget_after: ConfigDuration,
}

/// Whether events of a kind are taken.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventAdmission {
    Accept,
    /// Counted, and without effect.
    #[default]
    Refuse,
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
