//! From the configuration to what a connection needs, or why the configuration is not valid.
//!
//! Credentials in the URL are refused: a URL is shown in dumps and logs, a password never is.
//! Settings that contradict the durable mode are refused too: they would promise what the broker
//! then does not keep.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lamina_base::redis::driver::rustls::pki_types::CertificateDer;
use lamina_base::redis::driver::rustls::pki_types::pem::PemObject;
use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};

use super::config::RabbitMqConfig;
use super::declare::MOMENT;
use crate::units::host_and_port;

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

/// The longest short string of AMQP.
const NAME_MAX: usize = 255;
/// The most that Erlang's timers, and so RabbitMQ's `x-expires`, can hold: 2^32 ms, rounded down to
/// whole days.
const EXPIRES_MAX: Duration = Duration::from_secs(49 * 24 * 60 * 60);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);
/// Each connection's buffers hold 32 frames of this size in both directions.
const FRAME: u32 = 32 << 10;

impl RabbitMqConfig {
    /// Checks whether the configuration is valid, as far as that is known without reading files or
    /// using the network.
    ///
    /// # Errors
    /// The first setting that is not valid.
    pub fn check(&self) -> Result<(), RabbitMqOpenError> {
        read(&self.url)?;
        self.check_names()?;
        self.check_mode()?;
        if self.prefetch == 0 {
            return Err(RabbitMqOpenError::Prefetch);
        }
        let heartbeat = self.heartbeat.0;
        let whole = heartbeat.subsec_nanos() == 0 && !heartbeat.is_zero();
        if !whole || heartbeat > HEARTBEAT_MAX {
            return Err(RabbitMqOpenError::Heartbeat(heartbeat));
        }
        match self.expires() {
            Some(expires) if expires > EXPIRES_MAX => Err(RabbitMqOpenError::Expires(expires)),
            _ => Ok(()),
        }
    }

    fn check_names(&self) -> Result<(), RabbitMqOpenError> {
        let queue = self.queue_name.as_deref().map(str::len);
        let fit = [
            ("vhost", self.vhost.len(), 1..=NAME_MAX),
            ("exchange", self.exchange.len(), 1..=NAME_MAX - MOMENT.len()),
            ("queue_name", queue.unwrap_or(1), 1..=NAME_MAX),
            ("routing_key", self.routing_key.len(), 0..=NAME_MAX),
        ];
        let wrong = fit.iter().find(|(_, length, fits)| !fits.contains(length));
        wrong.map_or(Ok(()), |(key, ..)| Err(RabbitMqOpenError::Name(key)))
    }

    fn check_mode(&self) -> Result<(), RabbitMqOpenError> {
        if !self.durable_invalidation_mode {
            return Ok(());
        }
        if self.queue_name.is_none() {
            return Err(RabbitMqOpenError::NoQueue);
        }
        let set = [
            ("durable", self.durable, false),
            ("persistent", self.persistent, false),
            ("exclusive_queue", self.exclusive_queue, true),
            ("auto_delete_queue", self.auto_delete_queue, true),
        ];
        let wrong = set.into_iter().find(|(_, set, bad)| *set == Some(*bad));
        wrong.map_or(Ok(()), |(key, _, value)| {
            Err(RabbitMqOpenError::Contradiction { key, value })
        })
    }
}

/// The servers, and how to connect to each.
pub(super) struct RabbitMqTarget {
    hosts: Vec<(String, u16)>,
    user: AMQPUserInfo,
    vhost: String,
    heartbeat: u16,
    pub(super) tls: Option<RustlsConnector>,
}

impl RabbitMqTarget {
    pub(super) fn new(config: &RabbitMqConfig) -> Result<Self, RabbitMqOpenError> {
        config.check()?;
        let (tls, hosts) = read(&config.url)?;
        let guest = || "guest".to_owned();
        Ok(Self {
            hosts,
            user: AMQPUserInfo {
                username: config.username.clone().unwrap_or_else(guest),
                password: config.password.clone().unwrap_or_else(guest),
            },
            vhost: config.vhost.clone(),
            heartbeat: u16::try_from(config.heartbeat.0.as_secs()).unwrap_or(1),
            tls: tls
                .then(|| connector(config.ca_file.as_deref()))
                .transpose()?,
        })
    }

    /// The number of servers.
    pub(super) fn servers(&self) -> usize {
        self.hosts.len()
    }

    /// The address for this attempt: the servers take turns.
    pub(super) fn uri(&self, attempt: usize) -> AMQPUri {
        let (host, port) = self.hosts[attempt % self.hosts.len()].clone();
        AMQPUri {
            // We begin TLS ourselves, before the protocol.
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: self.user.clone(),
                host,
                port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                frame_max: Some(FRAME),
                heartbeat: Some(self.heartbeat),
                ..AMQPQueryString::default()
            },
        }
    }
}

type BrokerHosts = Vec<(String, u16)>;

/// Whether TLS is used, and the servers.
fn read(url: &str) -> Result<(bool, BrokerHosts), RabbitMqOpenError> {
    let wrong = || RabbitMqOpenError::Url(url.to_owned());
    if url.contains('@') {
        return Err(RabbitMqOpenError::Credentials);
    }
    let (tls, port, hosts) = match url.split_once("://").ok_or_else(wrong)? {
        ("amqp", hosts) => (false, 5672, hosts),
        ("amqps", hosts) => (true, 5671, hosts),
        _ => return Err(wrong()),
    };
    let hosts = hosts.split(',').map(|one| host_and_port(one, port));
    let hosts = hosts.collect::<Option<_>>().ok_or_else(wrong)?;
    Ok((tls, hosts))
}

fn connector(ca_file: Option<&Path>) -> Result<RustlsConnector, RabbitMqOpenError> {
    let system = |e: std::io::Error| RabbitMqOpenError::System(e.to_string());
    let config = match ca_file {
        Some(file) => {
            RustlsConnectorConfig::default().with_parsable_certificates(certificates(file)?)
        }
        None => RustlsConnectorConfig::new_with_native_certs().map_err(system)?,
    };
    config.connector_with_no_client_auth().map_err(system)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, RabbitMqOpenError> {
    let wrong = |reason: String| RabbitMqOpenError::Certificates {
        file: file.display().to_string(),
        reason,
    };
    let text = fs::read(file).map_err(|e| wrong(e.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|e| wrong(e.to_string()))?;
    if found.is_empty() {
        return Err(wrong("it contains no certificate".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units;

    fn key(change: impl FnOnce(&mut RabbitMqConfig)) -> Option<&'static str> {
        let mut config = RabbitMqConfig::default();
        change(&mut config);
        config.check().err().map(|e| e.key())
    }

    #[test]
    fn a_url_says_where() {
        let at = |host: &str, port| (host.to_owned(), port);
        assert_eq!(read("amqp://r").unwrap(), (false, vec![at("r", 5672)]));
        assert_eq!(
            read("amqps://[::1]:7,b").unwrap(),
            (true, vec![at("::1", 7), at("b", 5671)])
        );
        for url in ["", "r", "http://r", "amqp://", "amqp://r/", "amqp://r/v"] {
            assert!(matches!(read(url), Err(RabbitMqOpenError::Url(_))), "{url}");
        }
        for url in [
            "amqp://r:0",
            "amqp://r:x",
            "amqp://r,,b",
            "amqp://r?heartbeat=1",
        ] {
            assert!(matches!(read(url), Err(RabbitMqOpenError::Url(_))), "{url}");
        }
        let secret = read("amqp://me:pw@r").unwrap_err();
        assert!(matches!(secret, RabbitMqOpenError::Credentials));
        assert!(!secret.to_string().contains("pw"));
    }

    #[test]
    fn hosts_are_tried_in_turn() {
        let target = RabbitMqTarget::new(&RabbitMqConfig {
            url: "amqp://a,b".to_owned(),
            ..RabbitMqConfig::default()
        });
        let target = target.unwrap();
        let hosts: Vec<_> = (0..3).map(|n| target.uri(n).authority.host).collect();
        assert_eq!(hosts, ["a", "b", "a"]);
    }

    #[test]
    fn what_cant_be_meant_is_told_with_its_key() {
        assert_eq!(key(|_| {}), None);
        assert_eq!(key(|c| c.vhost.clear()), Some("vhost"));
        assert_eq!(key(|c| c.exchange = "x".repeat(250)), Some("exchange"));
        assert_eq!(
            key(|c| c.queue_name = Some(String::new())),
            Some("queue_name")
        );
        assert_eq!(
            key(|c| c.routing_key = "x".repeat(256)),
            Some("routing_key")
        );
        assert_eq!(key(|c| c.prefetch = 0), Some("prefetch"));
        for heartbeat in [0, 1_500, 61_000] {
            let heartbeat = units::ConfigDuration::millis(heartbeat);
            assert_eq!(key(|c| c.heartbeat = heartbeat), Some("heartbeat"));
        }
        let months = Some(units::ConfigDuration::secs(50 * 86_400));
        assert_eq!(key(|c| c.queue_expires = months), Some("queue_expires"));
    }

    #[test]
    fn durable_mode_needs_a_queue_and_nothing_that_loses_messages() {
        let durable = |change: fn(&mut RabbitMqConfig)| {
            key(|c| {
                c.durable_invalidation_mode = true;
                c.queue_name = Some("node-1".to_owned());
                change(c);
            })
        };
        assert_eq!(durable(|_| {}), None);
        assert_eq!(durable(|c| c.queue_name = None), Some("queue_name"));
        assert_eq!(durable(|c| c.durable = Some(false)), Some("durable"));
        assert_eq!(durable(|c| c.persistent = Some(false)), Some("persistent"));
        assert_eq!(
            durable(|c| c.exclusive_queue = Some(true)),
            Some("exclusive_queue")
        );
        assert_eq!(
            durable(|c| c.auto_delete_queue = Some(true)),
            Some("auto_delete_queue")
        );
    }
}
