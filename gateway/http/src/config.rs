//! The configuration of a listener, as written in YAML.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, SocketMode};
use super::forward;
pub use super::forward::ClientField;
use super::path::PathRules;
pub use super::tls::config as tls;
use super::tls::config::{
    AltSvcConfig, ClientCertificateField, FingerprintField, HstsConfig, ListenerTlsConfig,
    RedirectToHttps,
};
use crate::units::{ByteSize, ConfigDuration};

/// One address that clients connect to.
#[derive(PartialEq, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Address and port, as in `0.0.0.0:8080`. Port 0 takes a free one and logs it.
    pub address: SocketAddr,
    /// Protocols that are spoken. Without TLS a client speaks HTTP/2 by prior knowledge, with TLS it is agreed on (ALPN).
    #[serde(default = "both_protocols")]
    pub protocols: Vec<Protocol>,
    /// Addresses (CIDR) of proxies in front of the gateway whose statements about the client's
    /// address (`X-Forwarded-For` or `Forwarded`) and scheme (`X-Forwarded-Proto`, or the `proto`
    /// of `Forwarded`) are trusted. The gateway itself writes both for the origin.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// In which field they name the client: `x-forwarded-for`, `forwarded`, or `both`. Proxies often
    /// write one of the two and pass the other on as the client wrote it; with `both` a client that
    /// adds the other one is unknown, and refused by every `access`.
    #[serde(default)]
    pub client_from: ClientField,
    /// Further fields that make a request stand for another one, such as `x-forwarded-prefix` or
    /// `x-original-url`, and that are trusted when a trusted proxy sends them: they reach routes,
    /// plugins and the origin, and are part of every key. If somebody else sends them, or if they
    /// are not listed, they are removed on arrival.
    #[serde(default)]
    pub trusted_headers: Vec<String>,
    /// Each connection begins with a PROXY protocol header (v1 or v2) that names the client;
    /// connections from others than `trusted_proxies` are refused.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// TLS: certificates, policies by name, client certificates. Unset speaks clear text.
    #[serde(default)]
    pub tls: Option<ListenerTlsConfig>,
    /// Sends the clients of a clear-text listener to HTTPS: `on`, `off`, or `{port: …, status: …}`.
    #[serde(default)]
    pub redirect_to_https: RedirectToHttps,
    /// `Strict-Transport-Security` on every response of a TLS listener that has none; unset sends none.
    #[serde(default)]
    pub hsts: Option<HstsConfig>,
    /// What clients are told of HTTP/3, where it is spoken.
    #[serde(default)]
    pub alt_svc: AltSvcConfig,
    /// The limits of connections and requests.
    #[serde(default)]
    pub limits: ListenerLimits,
    /// How paths are read; a route's own `path` takes precedence.
    #[serde(default)]
    pub path: PathRules,
}

/// Why no request has the field `Client-JA4`.
pub const NO_FINGERPRINTS: &str =
    "no listener tells the fingerprints of clients; expected `ja4: on` in the `tls` of one";

impl ListenerConfig {
    /// A listener of clear text at this address, with both protocols and the usual limits, that
    /// trusts nobody.
    pub fn clear_text(address: SocketAddr) -> Self {
        Self {
            address,
            protocols: both_protocols(),
            trusted_proxies: Vec::new(),
            client_from: ClientField::Both,
            trusted_headers: Vec::new(),
            proxy_protocol: false,
            tls: None,
            redirect_to_https: RedirectToHttps::default(),
            hsts: None,
            alt_svc: AltSvcConfig::default(),
            limits: ListenerLimits::default(),
            path: PathRules::default(),
        }
    }

    /// Whether requests of clients with a certificate get the field `Client-Cert`.
    fn tells_certificates(&self) -> bool {
        self.told_of_certificates()
            .any(|told| told != ClientCertificateField::Off)
    }

    /// Whether they get the field `Client-Cert-Chain`.
    fn tells_chains(&self) -> bool {
        self.told_of_certificates()
            .any(|told| told == ClientCertificateField::ClientCertChain)
    }

    fn told_of_certificates(&self) -> impl Iterator<Item = ClientCertificateField> {
        let policies = self.tls.iter().flat_map(|tls| &tls.policies);
        let auths = policies.filter_map(|policy| policy.client_auth.as_ref());
        auths.map(|auth| auth.forward)
    }

    /// Whether requests get the field `Client-JA4`.
    pub fn tells_fingerprints(&self) -> bool {
        let switch = self.tls.as_ref().map(|tls| tls.ja4);
        switch == Some(FingerprintField::On)
    }

    /// Whether `trusted_headers` of a listener may have this field.
    ///
    /// # Errors
    /// The reason why not.
    pub fn may_believe(name: &str) -> Result<(), String> {
        let name = forward::trusted_header(name);
        name.map(drop).map_err(|error| error.to_string())
    }

    /// Whether a rule may use this field, because it can be in a request that one of `listeners`
    /// passes on.
    ///
    /// # Errors
    /// The reason why it never is.
    pub fn arrives(name: &str, listeners: &[ListenerConfig]) -> Result<(), String> {
        let Ok(name) = http::HeaderName::from_bytes(name.as_bytes()) else {
            return Ok(());
        };
        let mut listed = listeners.iter().flat_map(|l| &l.trusted_headers);
        if listed.any(|listed| listed.eq_ignore_ascii_case(name.as_str())) {
            return Ok(());
        }
        let tells = |listener: &Self| match name.as_str() {
            "client-cert" => listener.tells_certificates(),
            "client-cert-chain" => listener.tells_chains(),
            "client-ja4" => listener.tells_fingerprints(),
            _ => false,
        };
        if listeners.iter().any(tells) {
            return Ok(());
        }
        if name == forward::CLIENT_JA4 {
            return Err(NO_FINGERPRINTS.to_owned());
        }
        if forward::is_hop_by_hop(&name) {
            return Err(format!(
                "`{name}` is for one connection alone and removed from every request on arrival; \
                 expected another field"
            ));
        }
        if !forward::is_posing(&name) {
            return Ok(());
        }
        Err(match forward::trusted_header(name.as_str()) {
            Ok(_) => format!(
                "`{name}` is removed from every request on arrival; expected it in `trusted_headers` \
                 of a listener, or another field"
            ),
            Err(_) => format!(
                "`{name}` is removed from every request on arrival; the key holds scheme and host by \
                 itself; expected another field"
            ),
        })
    }
}

/// A listener that answers when all others cannot; the admin listener is one.
#[derive(PartialEq, Clone, Debug)]
pub struct ReservedListener {
    pub endpoint: Endpoint,
    /// Permissions of the file, if it is a Unix socket.
    pub socket_mode: SocketMode,
    /// When `max_connections` is reached, the connection that has waited the longest is cut.
    pub limits: ListenerLimits,
}

/// A protocol of a listener or an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Http1,
    Http2,
    /// Over QUIC, on the UDP port with the number of the listener's. Needs `tls`, and another protocol beside it, by which clients learn of it (`Alt-Svc`).
    Http3,
}

/// The limits of connections and requests; a request that exceeds one gets a suitable error status.
#[derive(PartialEq, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerLimits {
    /// The most connections at the same time on this listener; when it is reached, no more are
    /// accepted for a while.
    pub max_connections: usize,
    /// The most bytes of the request line and headers together (431 above this).
    pub max_header_bytes: ByteSize,
    /// The most header fields of a request (431 above this).
    pub max_headers: usize,
    /// The most bytes of a request target (414 above this).
    pub max_uri_bytes: ByteSize,
    /// The most bytes of a request body (413 above this).
    pub max_body_bytes: ByteSize,
    /// The time within which the whole request head must arrive.
    pub header_timeout: ConfigDuration,
    /// How long a request body or a response may make no progress before its connection, or with
    /// HTTP/2 only its stream, is closed. The progress of a response is what the client has
    /// acknowledged.
    pub body_timeout: ConfigDuration,
    /// The bytes per second that a client must send of a body, or receive of a response, while the
    /// gateway waits for it; 0 means no minimum.
    pub min_rate: ByteSize,
    /// The time over which `min_rate` is measured; a client is not too slow before it has passed.
    /// What a client has taken of a response counts for the time that follows, up to
    /// `body_timeout`: clients open their windows in large steps.
    pub min_rate_grace: ConfigDuration,
    /// The time within which a whole request body must arrive. This, `body_timeout` and `min_rate`
    /// do not apply to a request body whose response has begun.
    pub upload_timeout: ConfigDuration,
    /// How long a kept-alive connection may be idle.
    pub idle_timeout: ConfigDuration,
    /// The most HTTP/2 streams at the same time on one connection.
    pub max_streams: u32,
    /// The most bytes that the answers of one connection may hold in memory beyond what the cache
    /// counts as its own: bodies that arrive for it, and stored bodies that were evicted while it
    /// reads them. Above this, its loads are no faster than it reads, and the answers whose bodies
    /// were evicted are cut.
    pub max_held_bytes: ByteSize,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_header_bytes: ByteSize::kib(32),
            max_headers: 100,
            max_uri_bytes: ByteSize::kib(8),
            max_body_bytes: ByteSize::mib(1024),
            header_timeout: ConfigDuration::secs(10),
            body_timeout: ConfigDuration::secs(60),
            min_rate: ByteSize(240),
            min_rate_grace: ConfigDuration::secs(10),
            upload_timeout: ConfigDuration::secs(3_600),
            idle_timeout: ConfigDuration::secs(75),
            max_streams: 128,
            max_held_bytes: ByteSize::mib(8),
        }
    }
}

fn both_protocols() -> Vec<Protocol> {
    vec![Protocol::Http1, Protocol::Http2]
}
