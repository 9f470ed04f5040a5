//! From the configuration to what a connection needs.
//!
//! Credentials in the URL are refused: a URL is shown in dumps and logs, a password never is.

use std::path::Path;

use lamina_base::redis::driver::rustls::pki_types::CertificateDer;
use lamina_base::redis::driver::rustls::pki_types::pem::PemObject;
use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};

use super::check::check;
use super::config::{RabbitMqConfig, RabbitMqOpenError};
use crate::tls::read_regular;
use crate::units::host_and_port;

/// Each connection's buffers hold 32 frames of this size in both directions.
const FRAME: u32 = 32 << 10;

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
        check(config)?;
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

    /// The servers, beginning with that of this attempt.
    pub(super) fn places(&self, attempt: usize) -> BrokerHosts {
        let mut places = self.hosts.clone();
        places.rotate_left(attempt % self.hosts.len());
        places
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

pub(super) type BrokerHosts = Vec<(String, u16)>;

/// Whether TLS is used, and the servers.
pub(super) fn read(url: &str) -> Result<(bool, BrokerHosts), RabbitMqOpenError> {
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
    let text = read_regular(file).map_err(|e| wrong(e.to_string()))?;
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
}
