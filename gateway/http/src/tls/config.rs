//! The configuration of TLS on a listener, as written in YAML.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use super::names::ServerNamePattern;
use crate::units::ConfigDuration;

/// TLS of a listener. Without it the listener speaks clear text.
#[derive(PartialEq, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTlsConfig {
    /// Certificates with their keys. The one is taken whose names cover the name that the client asks for (SNI): an exact name goes before a wildcard. Of several for one name the first counts that the client can use, ECDSA before RSA.
    pub certificates: Vec<CertificateSource>,
    /// The `cert` of the certificate for clients that send no name, or one that no certificate covers. Without it such clients are refused.
    #[serde(default)]
    pub default: Option<PathBuf>,
    /// Whether clients without a name, or with an unknown one, are refused although there is a `default`.
    #[serde(default)]
    pub strict_sni: bool,
    /// The lowest version of TLS.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Cipher suites that are offered, in order of preference, by their names in the IANA registry, as in `TLS13_AES_256_GCM_SHA384`; empty offers all that are considered safe, and the client's favourite is taken.
    #[serde(default)]
    pub ciphers: Vec<String>,
    /// Groups for the key exchange, of which the client's favourite is taken: `x25519mlkem768`, `x25519`, `secp256r1`, `secp384r1`; empty offers all of these.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What some names need otherwise.
    #[serde(default)]
    pub policies: Vec<TlsPolicyConfig>,
    /// Session tickets, with which a client resumes an earlier session.
    #[serde(default)]
    pub tickets: TicketConfig,
    /// Requests over HTTP/3 that come with the first packet of a resumed session, before the handshake is complete (0-RTT). Whoever recorded them can send them again.
    #[serde(default)]
    pub early_data: EarlyDataMode,
    /// Time for the whole handshake, from the first byte that the client may send.
    #[serde(default = "handshake_timeout")]
    pub handshake_timeout: ConfigDuration,
    /// Handshakes at once on this listener, over all workers. Above it the oldest unfinished one is cut.
    #[serde(default = "max_handshakes")]
    pub max_handshakes: usize,
    /// How often the files of certificates, policies and tickets are looked at for changes; 0 only at a reload.
    #[serde(default = "reload_interval")]
    pub reload_interval: ConfigDuration,
    /// Whether `match.tls.ja4`, keys and plugins see the fingerprint of the client's software (JA4), as the field `client-ja4`. Origins do not get it; the access log has it always.
    #[serde(default)]
    pub ja4: FingerprintField,
    /// Whether the secrets of all sessions are written to the file that the environment variable `SSLKEYLOGFILE` names, so that recorded traffic can be decrypted. For debugging alone.
    #[serde(default)]
    pub keylog: KeyLogSwitch,
}

impl ListenerTlsConfig {
    /// The files and folders that it names.
    pub fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let sources = self.certificates.iter_mut();
        let certificates = sources.flat_map(|source| {
            let all = [&mut source.cert, &mut source.key, &mut source.dir];
            let local = source.local.as_mut().map(|local| &mut local.dir);
            all.into_iter().flatten().chain(local)
        });
        let policies = self.policies.iter_mut();
        let clients = policies.filter_map(|policy| policy.client_auth.as_mut());
        let clients = clients.flat_map(|auth| std::iter::once(&mut auth.ca).chain(&mut auth.crl));
        certificates
            .chain(&mut self.default)
            .chain(clients)
            .chain(&mut self.tickets.keys)
    }
}

/// Where certificates come from: one pair of files, all pairs of a folder, a local authority, or a certificate authority that is asked for them.
#[derive(PartialEq, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateSource {
    /// PEM file with the certificate of the server first, then those of the authorities between it and the root.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// PEM file with the private key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// A folder: every `NAME.crt` with its `NAME.key`, and every folder in it with `tls.crt` and `tls.key`, as Kubernetes mounts secrets.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// A certificate for this machine, of an authority that is made on the spot. Nobody trusts it who was not told to.
    #[serde(default)]
    pub local: Option<LocalCertificateConfig>,
    /// A certificate authority of `acme.issuers` that the certificate is obtained from and renewed by; of several the first is asked, and the next if that fails.
    #[serde(default)]
    pub acme: Option<IssuerNames>,
    /// The only names that the certificate is used for; empty uses it for all names that stand in it. A name that does not stand in the certificate is an error. With `acme`: the names that it is obtained for; empty obtains certificates for names that clients ask for, by `acme.on_demand`.
    #[serde(default)]
    pub names: Vec<String>,
}

/// The name of a certificate authority, or a list of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum IssuerNames {
    One(String),
    Many(Vec<String>),
}

impl IssuerNames {
    /// The names, in the order in which the authorities are asked.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Written by hand, since serde's untagged enums lose the reason and the position of an error.
impl<'de> Deserialize<'de> for IssuerNames {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(NameOrNames)
    }
}

struct NameOrNames;

impl<'de> Visitor<'de> for NameOrNames {
    type Value = IssuerNames;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an issuer, or a list of them")
    }

    fn visit_str<E>(self, text: &str) -> Result<IssuerNames, E> {
        Ok(IssuerNames::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<IssuerNames, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(IssuerNames::Many)
    }
}

/// A certificate for local use.
#[derive(PartialEq, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalCertificateConfig {
    /// Names and addresses, as in `[localhost, 127.0.0.1]`.
    pub names: Vec<String>,
    /// The folder of the authority and of the certificate; it is made. Clients must trust the `ca.pem` in it.
    pub dir: PathBuf,
}

impl LocalCertificateConfig {
    /// The files of the certificate and of its key.
    pub fn files(&self) -> (PathBuf, PathBuf) {
        (self.dir.join("local.pem"), self.dir.join("local.key"))
    }

    /// Whether the certificate was made already.
    pub fn is_issued(&self) -> bool {
        let (cert, key) = self.files();
        cert.is_file() && key.is_file()
    }
}

impl CertificateSource {
    /// Whether it obtains certificates for names that nobody lists, when clients ask for them.
    pub fn is_on_demand(&self) -> bool {
        self.acme.is_some() && self.names.is_empty()
    }

    /// Whether it is of a local authority that has not made the certificate yet.
    pub fn is_unissued(&self) -> bool {
        self.local.as_ref().is_some_and(|local| !local.is_issued())
    }
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// What the names of a policy need otherwise than the listener.
#[derive(PartialEq, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsPolicyConfig {
    /// Names that a client asks for, as in `api.example.com` or `*.example.com`, where `*` is exactly one label.
    pub names: Vec<String>,
    /// Certificates that clients must or may show.
    #[serde(default)]
    pub client_auth: Option<ClientAuthConfig>,
    /// The lowest version of TLS; unset takes that of the listener.
    #[serde(default)]
    pub min_version: Option<TlsVersion>,
}

/// Certificates of clients.
#[derive(PartialEq, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuthConfig {
    /// Whether a client must have a certificate.
    #[serde(default)]
    pub mode: ClientAuthMode,
    /// PEM file with the authorities that clients' certificates are verified against.
    pub ca: PathBuf,
    /// PEM file with lists of revoked certificates; unset checks none.
    #[serde(default)]
    pub crl: Option<PathBuf>,
    /// The field with the verified certificate that routes, plugins and the origin see (RFC 9440).
    #[serde(default)]
    pub forward: ClientCertificateField,
}

/// Whether a client must have a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthMode {
    /// A handshake without a valid certificate fails.
    #[default]
    Require,
    /// A client may do without one. One that it shows must be valid.
    Request,
}

/// Which field tells the certificate of a client.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificateField {
    /// No field.
    Off,
    /// `Client-Cert`, with the certificate of the client. What a request with this field gets is stored only on routes whose key holds `client-cert`.
    #[default]
    ClientCert,
    /// `Client-Cert-Chain` beside it, with the certificates of the authorities that it was verified by, from the issuer of the client's up to the one that `ca` has, which is left out.
    ClientCertChain,
}

/// Whether a field tells the fingerprint of clients: `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FingerprintField {
    On,
    #[default]
    Off,
}

/// Session tickets.
#[derive(PartialEq, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TicketConfig {
    /// Whether tickets are given out.
    pub enabled: bool,
    /// How often the key that seals them changes. A ticket is good for up to twice that time.
    pub rotate: ConfigDuration,
    /// Files with secrets of at least 32 bytes, the same on all nodes that are to resume each other's sessions: the first seals tickets, all of them open tickets. Empty takes a random secret of the process.
    pub keys: Vec<PathBuf>,
    /// Whether nodes agree upon secrets in the Redis of `cache.l2.redis`, a new one for each `rotate`. What lies there is sealed by `cache.l2.seal_key`, or else by `acme.seal_key`.
    pub shared: bool,
}

impl Default for TicketConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            rotate: ConfigDuration::secs(12 * 3_600),
            keys: Vec::new(),
            shared: false,
        }
    }
}

/// What becomes of requests that come before the handshake is complete (RFC 8470).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EarlyDataMode {
    /// None are taken.
    #[default]
    Off,
    /// GET and HEAD are answered where a fresh copy in memory is the answer. All others wait until the handshake is complete, and reach the origin with `Early-Data: 1`.
    Safe,
}

/// `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyLogSwitch {
    On,
    #[default]
    Off,
}

/// How a clear-text listener sends clients to HTTPS: `on`, `off`, or a port and a status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RedirectToHttps {
    /// `on` is port 443 and status 308.
    Switch(RedirectSwitch),
    To(RedirectTarget),
}

/// `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedirectSwitch {
    On,
    #[default]
    Off,
}

/// Where a clear-text listener sends clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedirectTarget {
    /// The port of the HTTPS listener, as clients see it.
    pub port: u16,
    /// 308, or 301, which some clients change the method at; with 301 only GET and HEAD are redirected so, others by 308.
    pub status: u16,
}

impl Default for RedirectTarget {
    fn default() -> Self {
        Self {
            port: 443,
            status: 308,
        }
    }
}

impl Default for RedirectToHttps {
    fn default() -> Self {
        Self::Switch(RedirectSwitch::Off)
    }
}

impl RedirectToHttps {
    /// Where clients are sent. None if they are served here.
    pub fn target(&self) -> Option<RedirectTarget> {
        match self {
            Self::Switch(RedirectSwitch::Off) => None,
            Self::Switch(RedirectSwitch::On) => Some(RedirectTarget::default()),
            Self::To(target) => Some(*target),
        }
    }
}

/// `Strict-Transport-Security` (RFC 6797), which tells browsers to use HTTPS alone.
#[derive(PartialEq, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HstsConfig {
    /// How long browsers remember it.
    pub max_age: ConfigDuration,
    /// Whether it holds for all names below the host, too.
    #[serde(default)]
    pub include_subdomains: bool,
    /// Whether browsers may ship it in their lists. Can hardly be undone.
    #[serde(default)]
    pub preload: bool,
}

/// What clients are told of HTTP/3 (`Alt-Svc`, RFC 7838).
#[derive(PartialEq, Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AltSvcConfig {
    /// The UDP port as clients see it; unset takes that of the listener.
    pub port: Option<u16>,
    /// How long clients remember it; 0 tells nobody.
    pub max_age: ConfigDuration,
}

impl Default for AltSvcConfig {
    fn default() -> Self {
        Self {
            port: None,
            max_age: ConfigDuration::secs(24 * 3_600),
        }
    }
}

fn handshake_timeout() -> ConfigDuration {
    ConfigDuration::secs(10)
}

fn max_handshakes() -> usize {
    1_024
}

fn reload_interval() -> ConfigDuration {
    ConfigDuration::secs(2)
}
