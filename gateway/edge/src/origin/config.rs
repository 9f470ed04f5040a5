//! The configuration of upstreams.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

mod active_health;
mod adaptive;
mod balance;
mod failures;
mod hedge;
mod listed_target;
mod name_resolution;
mod sticky;

pub use self::active_health::{ActiveHealthConfig, StatusRange};
pub use self::adaptive::AdaptiveLimitConfig;
pub use self::balance::{BalanceConfig, BalanceMethod, HashSource};
pub use self::failures::{FailureKind, HealthConfig, PassiveHealthConfig, RetryConfig};
pub use self::hedge::{HedgeConfig, HedgeDelay};
pub use self::listed_target::{
    NamedLocation, ServiceLocation, TargetConfig, TargetLocation, TargetScheme,
};
pub use self::name_resolution::{NameResolutionConfig, NameServerAddress};
pub use self::sticky::StickyConfig;
use crate::http::tls::config::TlsVersion;
use crate::units::{ByteSize, ConfigDuration};

/// A named group of origin servers: a URL alone, or a map.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamConfig {
    pub targets: Vec<TargetConfig>,
    pub targets_file: Option<PathBuf>,
    pub resolver: NameResolutionConfig,
    pub balance: BalanceConfig,
    pub health: HealthConfig,
    pub retry: RetryConfig,
    pub protocol: OriginProtocol,
    pub host_header: HostHeader,
    pub tls: OriginTlsConfig,
    pub timeouts: UpstreamTimeouts,
    pub pool: UpstreamPoolConfig,
    pub load: UpstreamLoadLimits,
}

/// The long form of an upstream.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UpstreamLongForm {
    /// The servers: URLs (`http://host:port`, or `https://host:port` for TLS), or maps.
    #[serde(default)]
    targets: Vec<TargetConfig>,
    /// A YAML file with a list of further targets, in the same form. It is read again when it changes; if it can't be used then, the targets stay as they are.
    #[serde(default)]
    targets_file: Option<PathBuf>,
    /// How the names of targets are resolved.
    #[serde(default)]
    resolver: NameResolutionConfig,
    /// How requests are distributed over the targets.
    #[serde(default)]
    balance: BalanceConfig,
    /// When a target counts as sick.
    #[serde(default)]
    health: HealthConfig,
    /// Which requests are sent to another target after a failure.
    #[serde(default)]
    retry: RetryConfig,
    /// What the origin speaks. `auto` is what a target with TLS agrees to, HTTP/2 or else HTTP/1.1, and HTTP/1.1 in clear text.
    #[serde(default)]
    protocol: OriginProtocol,
    /// The `Host` that the origin gets.
    #[serde(default)]
    host_header: HostHeader,
    /// TLS to targets with `https://`.
    #[serde(default)]
    tls: OriginTlsConfig,
    /// Deadlines of one exchange.
    #[serde(default)]
    timeouts: UpstreamTimeouts,
    /// The connections to each target.
    #[serde(default)]
    pool: UpstreamPoolConfig,
    /// How many requests this upstream gets at the same time.
    #[serde(default)]
    load: UpstreamLoadLimits,
}

/// What an origin speaks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OriginProtocol {
    /// With TLS what the origin agrees to (ALPN): HTTP/2, or else HTTP/1.1. In clear text HTTP/1.1.
    #[default]
    Auto,
    Http1,
    /// In clear text by prior knowledge.
    Http2,
}

/// TLS to the targets of an upstream.
#[derive(Clone, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OriginTlsConfig {
    /// PEM file with the authorities that origins are verified against; unset takes those of the system.
    pub ca_file: Option<PathBuf>,
    /// The name that origins must have in their certificate, and that they are asked for (SNI); unset takes the host of the target. It is never the client's `Host`.
    pub server_name: Option<String>,
    /// The certificate that origins are shown.
    pub client: Option<OriginClientCertificate>,
    /// The lowest version of TLS.
    pub min_version: TlsVersion,
    /// SHA-256 of public keys (SPKI) in base64, of which the origin's own certificate must have one, in addition to all else.
    pub pins: Vec<String>,
    /// Whether the origin's certificate is verified. `off` needs `insecure`.
    pub verify: OriginVerification,
    /// Why origins are not verified. Demanded by `verify: off`, and told in the log.
    pub insecure: Option<String>,
    /// What its files held when the configuration was read: their keys, and the beginnings of their
    /// digests.
    #[serde(skip)]
    pub contents: Vec<(&'static str, String)>,
}

/// A certificate that origins are shown. The files are looked at again when they change.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OriginClientCertificate {
    /// PEM file with the certificate, and those of the authorities between it and the root.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// Whether the certificate of an origin is verified.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OriginVerification {
    #[default]
    On,
    Off,
}

impl OriginTlsConfig {
    /// The files that it names, by their keys.
    pub fn named_files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let client = self.client.iter();
        let client =
            client.flat_map(|client| [("client.cert", &client.cert), ("client.key", &client.key)]);
        client.chain(self.ca_file.iter().map(|file| ("ca_file", file)))
    }

    /// The files that it names.
    pub fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let client = self.client.iter_mut();
        let client = client.flat_map(|client| [&mut client.cert, &mut client.key]);
        client.chain(&mut self.ca_file)
    }
}

/// The `Host` that the origin gets.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// The target's own host and port.
    Upstream,
}

/// Deadlines of one exchange with an origin.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTimeouts {
    /// The time limit for opening a connection.
    pub connect: ConfigDuration,
    /// The time limit from the end of the request to the head of the response.
    pub first_byte: ConfigDuration,
    /// The longest time between two pieces of a body.
    pub idle: ConfigDuration,
    /// The same for streams, in which silence is normal: the longest silence on both sides while
    /// the request's body is still being sent, and in answers without an end (`text/event-stream`,
    /// `multipart/x-mixed-replace`, gRPC).
    pub stream_idle: ConfigDuration,
    /// The time limit for the whole exchange, to the last byte of the body; 0 means no limit.
    pub total: ConfigDuration,
    /// The longest silence on both sides after a switch of protocols (WebSocket).
    pub tunnel: ConfigDuration,
}

/// The connections to each target.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamPoolConfig {
    /// The most idle connections that are kept for each target.
    pub max_idle: usize,
    /// How long an idle connection is kept. If the origin says that it keeps it for a shorter time
    /// (`Keep-Alive: timeout`), or is seen to, that counts.
    pub idle_timeout: ConfigDuration,
    /// How old a connection may be for a new request, so that none stays on an address that its
    /// name has left.
    pub max_age: ConfigDuration,
    /// The most requests at the same time on a connection over HTTP/2, if the origin takes as many;
    /// for more, further connections are opened.
    pub max_streams: NonZeroU32,
    /// How much of each response over HTTP/2 is read ahead of a slow reader.
    pub stream_window: ByteSize,
}

/// How many requests an upstream gets at the same time; further requests wait in a queue, and then
/// get a stale copy or 503.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamLoadLimits {
    /// The most requests at the same time.
    pub max_concurrent: usize,
    /// A limit below `max_concurrent` that is found out by the times of the answers; unset: `max_concurrent` alone.
    pub adaptive: Option<AdaptiveLimitConfig>,
    /// The most requests that wait.
    pub max_queued: usize,
    /// How long a request waits.
    pub queue_timeout: ConfigDuration,
}

impl From<UpstreamLongForm> for UpstreamConfig {
    fn from(full: UpstreamLongForm) -> Self {
        let UpstreamLongForm {
            targets,
            targets_file,
            resolver,
            balance,
            health,
            retry,
            protocol,
            host_header,
            tls,
            timeouts,
            pool,
            load,
        } = full;
        Self {
            targets,
            targets_file,
            resolver,
            balance,
            health,
            retry,
            protocol,
            host_header,
            tls,
            timeouts,
            pool,
            load,
        }
    }
}

impl UpstreamConfig {
    /// The files that it names.
    pub fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.tls.files().chain(&mut self.targets_file)
    }

    /// Whether it has a target with TLS, or may get one while the gateway runs.
    pub fn may_speak_tls(&self) -> bool {
        let secured = |target: &TargetConfig| target.url().starts_with("https:");
        self.targets_file.is_some() || self.targets.iter().any(secured)
    }

    /// Whether it has several targets, or may get them while the gateway runs.
    pub fn may_have_several_targets(&self) -> bool {
        let is_one_server =
            |target: &TargetConfig| matches!(target.location, TargetLocation::Url(_));
        match &self.targets[..] {
            [only] if self.targets_file.is_none() => !is_one_server(only),
            _ => true,
        }
    }

    /// An upstream with one target, and defaults for everything else.
    pub fn from_url(url: impl Into<String>) -> Self {
        Self {
            targets: vec![TargetConfig::from_url(url)],
            targets_file: None,
            resolver: NameResolutionConfig::default(),
            balance: BalanceConfig::default(),
            health: HealthConfig::default(),
            retry: RetryConfig::default(),
            protocol: OriginProtocol::default(),
            host_header: HostHeader::default(),
            tls: OriginTlsConfig::default(),
            timeouts: UpstreamTimeouts::default(),
            pool: UpstreamPoolConfig::default(),
            load: UpstreamLoadLimits::default(),
        }
    }
}

/// Written by hand, since serde's untagged enums lose the reason and the position of an error.
impl<'de> Deserialize<'de> for UpstreamConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(UrlOrMap)
    }
}

struct UrlOrMap;

impl<'de> Visitor<'de> for UrlOrMap {
    type Value = UpstreamConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL, as in http://127.0.0.1:9000, or a mapping with `targets`")
    }

    fn visit_str<E>(self, url: &str) -> Result<UpstreamConfig, E> {
        Ok(UpstreamConfig::from_url(url))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<UpstreamConfig, A::Error> {
        UpstreamLongForm::deserialize(MapAccessDeserializer::new(map)).map(UpstreamConfig::from)
    }
}

impl JsonSchema for UpstreamConfig {
    fn schema_name() -> Cow<'static, str> {
        "Upstream".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let full = generator.subschema_for::<UpstreamLongForm>();
        json_schema!({
            "description": "A named group of origin servers: a URL alone, or a map.",
            "anyOf": [{ "type": "string", "description": "The one target's URL, as in `http://127.0.0.1:9000`." }, full]
        })
    }
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: ConfigDuration::secs(2),
            first_byte: ConfigDuration::secs(60),
            idle: ConfigDuration::secs(60),
            stream_idle: ConfigDuration::secs(3_600),
            total: ConfigDuration::secs(24 * 3_600),
            tunnel: ConfigDuration::secs(600),
        }
    }
}

impl Default for UpstreamPoolConfig {
    fn default() -> Self {
        Self {
            max_idle: 64,
            idle_timeout: ConfigDuration::secs(60),
            max_age: ConfigDuration::secs(3_600),
            max_streams: NonZeroU32::new(100).unwrap_or(NonZeroU32::MIN),
            stream_window: ByteSize(512 << 10),
        }
    }
}

impl Default for UpstreamLoadLimits {
    fn default() -> Self {
        Self {
            max_concurrent: 512,
            adaptive: None,
            max_queued: 1_024,
            queue_timeout: ConfigDuration::secs(1),
        }
    }
}
