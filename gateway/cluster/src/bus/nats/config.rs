//! The YAML configuration of NATS as the event bus.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::ConfigDuration;

/// A NATS server or cluster, plain (at most once) or with JetStream (durable).
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NatsConfig {
    /// The servers: `nats://host:4222`, or `tls://…` for TLS; further servers of a cluster are
    /// found through them.
    pub servers: Vec<String>,
    /// `core` delivers at most once, to the nodes that are connected; `jetstream` keeps messages
    /// for each node until it has applied them.
    pub mode: NatsMode,
    /// The subject to which nodes publish and subscribe; the same on all of them. With JetStream,
    /// the subject with `.now` appended is used as well.
    pub subject: String,
    /// The name under which the server lists this node; unset is `lamina`.
    pub name: Option<String>,
    /// A user of the server.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A file with the password, instead of `password`.
    pub password_file: Option<PathBuf>,
    /// A token, instead of a user.
    pub token: Option<String>,
    /// A file with the token, instead of `token`.
    pub token_file: Option<PathBuf>,
    /// A credentials file (JWT and seed), read again for each connection.
    pub credentials_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that the servers are verified with, instead of the
    /// system's.
    pub ca_file: Option<PathBuf>,
    /// The subject prefix at which answers to this node arrive; its user needs the right to publish
    /// and to subscribe below it.
    pub inbox_prefix: String,
    /// The time limit for connecting to a server and logging in, for each server.
    pub connect_timeout: ConfigDuration,
    /// The time between two pings; a server that answers none of three is given up.
    pub ping_interval: ConfigDuration,
    /// The longest pause between two attempts to connect; pauses begin at a tenth of a second and
    /// grow, with jitter, up to this.
    pub reconnect_max: ConfigDuration,
    /// The settings for `mode: jetstream`.
    pub jetstream: JetStreamConfig,
}

/// How messages are delivered.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NatsMode {
    /// At most once, to the nodes that are connected.
    #[default]
    Core,
    /// Kept in a stream until each node has acknowledged them.
    Jetstream,
}

/// The stream that keeps messages, and this node's consumer.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JetStreamConfig {
    /// The name of the stream; one for all nodes.
    pub stream: String,
    /// The name of this node's consumer, unique among the nodes and the same after a restart: the
    /// node continues where it was. Required.
    pub durable_name: Option<String>,
    /// Where the stream is kept; `memory` is lost when the server ends.
    pub storage: StreamStorage,
    /// The number of servers of a cluster that keep the stream, 1 to 5.
    pub replicas: usize,
    /// Messages that are older than this, in milliseconds, are dropped; unset is never.
    pub max_age_ms: Option<u64>,
    /// The most messages that the stream keeps; -1 is without limit.
    pub max_msgs: i64,
    /// A message that this node has not acknowledged for this long, in milliseconds, is delivered
    /// again.
    pub ack_wait_ms: u64,
    /// The most deliveries of one message; then it is given up and counted as lost. The server's
    /// own limit is set one higher: the last delivery only reports the loss.
    pub max_deliver: u32,
    /// Whether a missing stream is created.
    pub ensure_stream: bool,
    /// Whether this node's consumer is created when it is missing, and changed to match this
    /// configuration.
    pub ensure_consumer: bool,
    /// The server forgets a node that was away for this long, so that its unread messages are not
    /// kept any longer.
    pub inactive_threshold: ConfigDuration,
}

/// Where a stream is kept.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamStorage {
    #[default]
    File,
    Memory,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            mode: NatsMode::Core,
            subject: "cache.invalidations".to_owned(),
            name: None,
            username: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            credentials_file: None,
            ca_file: None,
            inbox_prefix: "_INBOX".to_owned(),
            connect_timeout: ConfigDuration::secs(2),
            ping_interval: ConfigDuration::secs(2),
            reconnect_max: ConfigDuration::millis(500),
            jetstream: JetStreamConfig::default(),
        }
    }
}

impl Default for JetStreamConfig {
    fn default() -> Self {
        Self {
            stream: "CACHE_INVALIDATIONS".to_owned(),
            durable_name: None,
            storage: StreamStorage::File,
            replicas: 1,
            max_age_ms: None,
            max_msgs: -1,
            ack_wait_ms: 30_000,
            max_deliver: 10,
            ensure_stream: true,
            ensure_consumer: true,
            inactive_threshold: ConfigDuration::secs(24 * 60 * 60),
        }
    }
}

/// Why NATS can't be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum NatsOpenError {
    #[error("no servers; expected at least one, as in nats://host:4222")]
    Servers,
    #[error(
        "{0:?} is not the address of a NATS server; expected nats://host:4222, or tls://host:4222 \
         for TLS"
    )]
    Server(String),
    #[error("credentials in the URL; expected `username` and `password_file`, or `token_file`")]
    InUrl,
    #[error("{given:?} is not a subject; expected words with dots between them, without wildcards")]
    Subject { key: &'static str, given: String },
    #[error(
        "another login is given beside `username`, `token` or `credentials_file`; expected only \
         one of the three"
    )]
    Ways,
    #[error("`ping_interval` is 0; expected the time between two pings, as in 2s")]
    Ping,
    #[error(
        "no durable name; expected a name that only this node has and that stays the same after a \
         restart, since JetStream remembers under it what this node has read"
    )]
    DurableName,
    #[error(
        "{given:?} is not a name that the server accepts; expected a name without spaces and \
         without . * > / \\"
    )]
    Name { key: &'static str, given: String },
    #[error("`{0}` is out of its range; expected {range}", range = range_of(.0))]
    Number(&'static str),
    #[error("{file}: {reason}")]
    File {
        key: &'static str,
        file: String,
        reason: String,
    },
}

/// The values that a number of the JetStream configuration may have.
fn range_of(key: &str) -> &'static str {
    match key {
        "replicas" => "1 to 5",
        "max_msgs" => "-1 for no limit, or 1 or more",
        _ => "1 or more",
    }
}

impl NatsOpenError {
    /// The key of the configuration that the error is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Servers | Self::Server(_) | Self::InUrl => "servers",
            Self::Subject { key, .. } | Self::File { key, .. } => key,
            Self::Ways => "username",
            Self::Ping => "ping_interval",
            Self::DurableName
            | Self::Name {
                key: "durable_name",
                ..
            } => "jetstream.durable_name",
            Self::Name { .. } => "jetstream.stream",
            Self::Number("replicas") => "jetstream.replicas",
            Self::Number("max_deliver") => "jetstream.max_deliver",
            Self::Number("ack_wait_ms") => "jetstream.ack_wait_ms",
            Self::Number("max_age_ms") => "jetstream.max_age_ms",
            Self::Number(_) => "jetstream.max_msgs",
        }
    }
}
