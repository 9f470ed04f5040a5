//! The YAML configuration of NATS as the event bus.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NatsOpenError;
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

impl NatsConfig {
    /// Checks whether the configuration is valid, as far as that is known without reading files or
    /// using the network.
    ///
    /// # Errors
    /// The first setting that is not valid.
    pub fn check(&self) -> Result<(), NatsOpenError> {
        if self.servers.is_empty() {
            return Err(NatsOpenError::Servers);
        }
        for server in &self.servers {
            super::link::address(server)?;
        }
        let subjects = [
            ("subject", &self.subject),
            ("inbox_prefix", &self.inbox_prefix),
        ];
        for (key, given) in subjects {
            if !is_subject(given) {
                let given = given.clone();
                return Err(NatsOpenError::Subject { key, given });
            }
        }
        let ways = [
            self.username.is_some() || self.password.is_some() || self.password_file.is_some(),
            self.token.is_some() || self.token_file.is_some(),
            self.credentials_file.is_some(),
        ];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err(NatsOpenError::Ways);
        }
        if self.ping_interval == ConfigDuration::ZERO {
            return Err(NatsOpenError::Ping);
        }
        match self.mode {
            NatsMode::Core => Ok(()),
            NatsMode::Jetstream => self.jetstream.check(),
        }
    }
}

impl JetStreamConfig {
    fn check(&self) -> Result<(), NatsOpenError> {
        let durable = self.durable_name.as_ref();
        let durable = durable.ok_or(NatsOpenError::DurableName)?;
        for (key, given) in [("stream", &self.stream), ("durable_name", durable)] {
            if !is_name(given) {
                let given = given.clone();
                return Err(NatsOpenError::Name { key, given });
            }
        }
        let numbers = [
            ("replicas", (1..=5).contains(&self.replicas)),
            ("max_deliver", self.max_deliver > 0),
            ("ack_wait_ms", self.ack_wait_ms > 0),
            ("max_age_ms", self.max_age_ms != Some(0)),
            ("max_msgs", self.max_msgs == -1 || self.max_msgs > 0),
        ];
        match numbers.into_iter().find(|(_, fits)| !fits) {
            Some((key, _)) => Err(NatsOpenError::Number(key)),
            None => Ok(()),
        }
    }
}

/// Whether it is one subject, without wildcards.
fn is_subject(text: &str) -> bool {
    let token =
        |t: &str| !t.is_empty() && t.chars().all(|c| !c.is_whitespace() && !"*>".contains(c));
    text.split('.').all(token)
}

/// Whether it can be the name of a stream or consumer.
fn is_name(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !".*>/\\".contains(c);
    !text.is_empty() && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(change: impl FnOnce(&mut NatsConfig)) -> Option<&'static str> {
        let mut nats = NatsConfig {
            mode: NatsMode::Jetstream,
            ..NatsConfig::default()
        };
        nats.jetstream.durable_name = Some("node-1".to_owned());
        change(&mut nats);
        nats.check().err().map(|error| error.key())
    }

    #[test]
    fn what_can_be_no_nats_is_told_with_its_key() {
        assert_eq!(key(|_| {}), None);
        assert_eq!(key(|n| n.servers.clear()), Some("servers"));
        for wrong in ["", "http://a", "nats://me:pw@a", "nats://me@a", "nats://"] {
            assert_eq!(
                key(|n| n.servers[0] = wrong.to_owned()),
                Some("servers"),
                "{wrong}"
            );
        }
        for fine in ["a", "a:4223", "tls://a:1", "nats://[::1]:4222"] {
            assert_eq!(key(|n| n.servers[0] = fine.to_owned()), None, "{fine}");
        }
        for wrong in ["", "a..b", "a.*", ">", "a b", "a.\r\nPUB"] {
            assert_eq!(
                key(|n| n.subject = wrong.to_owned()),
                Some("subject"),
                "{wrong}"
            );
        }
        assert_eq!(
            key(|n| n.inbox_prefix = String::new()),
            Some("inbox_prefix")
        );
        let two = |n: &mut NatsConfig| {
            n.username = Some("a".to_owned());
            n.token = Some("b".to_owned());
        };
        assert_eq!(key(two), Some("username"));
        assert_eq!(
            key(|n| n.ping_interval = ConfigDuration::ZERO),
            Some("ping_interval")
        );
        assert_eq!(
            key(|n| n.jetstream.durable_name = None),
            Some("jetstream.durable_name")
        );
        assert_eq!(
            key(|n| n.jetstream.durable_name = Some("a.b".to_owned())),
            Some("jetstream.durable_name")
        );
        assert_eq!(
            key(|n| n.jetstream.stream = "a/b".to_owned()),
            Some("jetstream.stream")
        );
        assert_eq!(
            key(|n| n.jetstream.replicas = 0),
            Some("jetstream.replicas")
        );
        assert_eq!(
            key(|n| n.jetstream.max_deliver = 0),
            Some("jetstream.max_deliver")
        );
        assert_eq!(
            key(|n| n.jetstream.max_msgs = 0),
            Some("jetstream.max_msgs")
        );
        let core = |n: &mut NatsConfig| {
            n.mode = NatsMode::Core;
            n.jetstream.durable_name = None;
        };
        assert_eq!(key(core), None, "only JetStream needs a durable name");
    }
}
