//! The configuration of automatic certificates, as written in YAML.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::ConfigDuration;

/// Certificates that are obtained from certificate authorities by ACME (RFC 8555), and renewed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeConfig {
    /// Where accounts, certificates and orders are kept: a folder, or `redis` for the one of `cache.l2.redis`, which all nodes share.
    pub storage: AcmeStorageConfig,
    /// A secret that all nodes share. It seals what is kept in Redis, which has private keys.
    #[serde(default)]
    pub seal_key: Option<String>,
    /// A file that contains the secret.
    #[serde(default)]
    pub seal_key_file: Option<PathBuf>,
    /// Certificate authorities by name. Sources of certificates name them.
    pub issuers: BTreeMap<String, AcmeIssuerConfig>,
    /// Pauses after failures.
    #[serde(default)]
    pub retry: AcmeRetryConfig,
    /// Orders at once on this node.
    #[serde(default = "max_orders")]
    pub max_orders: usize,
    /// The time for one order, from its beginning to the certificate.
    #[serde(default = "order_timeout")]
    pub order_timeout: ConfigDuration,
    /// The time for one request to a certificate authority.
    #[serde(default = "request_timeout")]
    pub request_timeout: ConfigDuration,
    /// How long the turn of the node that orders a certificate holds without renewal; it is renewed after a third of this time.
    #[serde(default = "lease")]
    pub lease: ConfigDuration,
    /// How often the storage is looked at for what other nodes have obtained.
    #[serde(default = "poll_interval")]
    pub poll_interval: ConfigDuration,
    /// Certificates for names that nobody lists, when clients ask for them. Unset: none. Sources of certificates with `acme` and without `names` use it.
    #[serde(default)]
    pub on_demand: Option<AcmeOnDemandConfig>,
}

/// Certificates for names that nobody lists.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeOnDemandConfig {
    /// The URL that says whether a certificate for a name may be obtained: it is asked by GET with the query `domain=NAME`, and 200 to 299 is yes. Required.
    #[serde(default)]
    pub ask: String,
    /// The most orders that this node begins within a minute.
    #[serde(default = "on_demand_per_minute")]
    pub per_minute: usize,
    /// The most names at once that are asked about or ordered.
    #[serde(default = "on_demand_max_pending")]
    pub max_pending: usize,
    /// How long a handshake waits for its certificate. The order goes on.
    #[serde(default = "on_demand_wait")]
    pub wait: ConfigDuration,
}

/// Where accounts, certificates and orders are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AcmeStorageConfig {
    /// The Redis of the second tier.
    Redis,
    /// A folder, which nodes may share.
    Folder(PathBuf),
}

/// Pauses after failures: the first one is `min`, each further one twice as long, up to `max`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AcmeRetryConfig {
    /// The pause after the first failure.
    pub min: ConfigDuration,
    /// The longest pause.
    pub max: ConfigDuration,
}

/// A certificate authority.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeIssuerConfig {
    /// The URL of its directory (RFC 8555 §7.1.1), which begins with `https://`.
    pub directory: String,
    /// The directory of its staging environment. After two failures a certificate is ordered there first, which spares the limits of the real one. Unset takes that of Let's Encrypt for Let's Encrypt, else none.
    #[serde(default)]
    pub staging: Option<String>,
    /// PEM file with the authorities that its server is verified against; unset takes those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Where it can reach the operator, as in `mailto:ops@example.com`.
    #[serde(default)]
    pub contact: Vec<String>,
    /// That the operator agrees to its terms of service: `true`, or nothing can be ordered.
    #[serde(default)]
    pub agree_to_terms: bool,
    /// An account with it outside of ACME that the account is bound to (RFC 8555 §7.3.4).
    #[serde(default)]
    pub eab: Option<AcmeAccountBinding>,
    /// One of its profiles, as in `shortlived`.
    #[serde(default)]
    pub profile: Option<String>,
    /// The common name of the topmost issuer of the chain that is taken if it offers several.
    #[serde(default)]
    pub preferred_chain: Option<String>,
    /// How it is shown that the names are ours.
    #[serde(default)]
    pub challenge: AcmeChallengeConfig,
    /// The kind of the certificates' keys.
    #[serde(default)]
    pub key: AcmeKeyKind,
}

/// An account outside of ACME.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeAccountBinding {
    /// The name of the key that the certificate authority has given out.
    pub kid: String,
    /// The key, in base64url.
    #[serde(default)]
    pub hmac: Option<String>,
    /// A file that contains the key.
    #[serde(default)]
    pub hmac_file: Option<PathBuf>,
}

/// The kind of a certificate's key.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AcmeKeyKind {
    #[default]
    EcdsaP256,
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// A certificate of each kind.
    Both,
}

/// How it is shown that names are ours.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcmeChallengeConfig {
    /// The certificate authority asks a clear-text listener for a file, at port 80.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// It does a handshake with a listener of TLS, at port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// It looks for a record of the DNS.
    #[serde(rename = "dns-01")]
    Dns01(AcmeDnsChallenge),
}

/// A program that changes records of the DNS.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeDnsChallenge {
    /// The program and its arguments; no shell reads them. It gets three more arguments: `present` or `cleanup`, the name of the record, and the text of the record.
    pub exec: Vec<String>,
    /// A file with lines `NAME=value`, the only environment of the program beside `PATH`. Nobody but its owner may have rights to it.
    #[serde(default)]
    pub environment_file: Option<PathBuf>,
    /// The time for one run of the program.
    #[serde(default = "dns_timeout")]
    pub timeout: ConfigDuration,
    /// How long the name servers may take until they show the record.
    #[serde(default = "dns_propagation")]
    pub propagation: ConfigDuration,
    /// Address and port of a resolver that finds the name servers; empty takes those of `/etc/resolv.conf`.
    #[serde(default)]
    pub resolvers: Vec<std::net::SocketAddr>,
}

/// The directories of Let's Encrypt, and of its staging environment.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

impl AcmeConfig {
    /// The files and folders that it names, except those with secrets.
    pub fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let folder = match &mut self.storage {
            AcmeStorageConfig::Redis => None,
            AcmeStorageConfig::Folder(folder) => Some(folder),
        };
        let issuers = self.issuers.values_mut();
        let of_issuers = issuers.flat_map(|issuer| {
            let environment = match &mut issuer.challenge {
                AcmeChallengeConfig::Dns01(dns) => dns.environment_file.as_mut(),
                AcmeChallengeConfig::Http01 | AcmeChallengeConfig::TlsAlpn01 => None,
            };
            issuer.ca_file.as_mut().into_iter().chain(environment)
        });
        folder.into_iter().chain(of_issuers)
    }
}

impl AcmeConfig {
    /// Whether there is something to read: a folder is made by the first gateway that uses it.
    pub fn is_storage_there(&self) -> bool {
        match &self.storage {
            AcmeStorageConfig::Redis => true,
            AcmeStorageConfig::Folder(folder) => folder.is_dir(),
        }
    }
}

impl AcmeIssuerConfig {
    /// The directory of the staging environment, if there is one.
    pub fn staging(&self) -> Option<&str> {
        let known = (self.directory == LETS_ENCRYPT).then_some(LETS_ENCRYPT_STAGING);
        self.staging.as_deref().or(known)
    }

    /// Whether it can give out certificates for wildcards: no other challenge is good for them.
    pub fn can_do_wildcards(&self) -> bool {
        matches!(self.challenge, AcmeChallengeConfig::Dns01(_))
    }
}

impl Default for AcmeRetryConfig {
    fn default() -> Self {
        Self {
            min: ConfigDuration::secs(60),
            max: ConfigDuration::secs(24 * 3_600),
        }
    }
}

impl Serialize for AcmeStorageConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Redis => serializer.serialize_str("redis"),
            Self::Folder(folder) => folder.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for AcmeStorageConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Ok(match text.as_str() {
            "redis" => Self::Redis,
            folder => Self::Folder(folder.into()),
        })
    }
}

impl JsonSchema for AcmeStorageConfig {
    fn schema_name() -> Cow<'static, str> {
        "AcmeStorage".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`redis`, or the path of a folder.",
            "type": "string"
        })
    }
}

/// Written by hand, since serde's untagged enums lose the reason and the position of an error.
impl<'de> Deserialize<'de> for AcmeChallengeConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(NameOrDnsChallenge)
    }
}

struct NameOrDnsChallenge;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DnsChallengeForm {
    /// The record is made and removed by a program.
    #[serde(rename = "dns-01")]
    dns_01: AcmeDnsChallenge,
}

impl<'de> Visitor<'de> for NameOrDnsChallenge {
    type Value = AcmeChallengeConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`http-01`, `tls-alpn-01`, or a mapping with `dns-01`")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<AcmeChallengeConfig, E> {
        match name {
            "http-01" => Ok(AcmeChallengeConfig::Http01),
            "tls-alpn-01" => Ok(AcmeChallengeConfig::TlsAlpn01),
            other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AcmeChallengeConfig, A::Error> {
        let form = DnsChallengeForm::deserialize(MapAccessDeserializer::new(map))?;
        Ok(AcmeChallengeConfig::Dns01(form.dns_01))
    }
}

impl JsonSchema for AcmeChallengeConfig {
    fn schema_name() -> Cow<'static, str> {
        "AcmeChallenge".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let dns = generator.subschema_for::<DnsChallengeForm>();
        json_schema!({
            "description": "How it is shown that names are ours.",
            "anyOf": [{ "type": "string", "enum": ["http-01", "tls-alpn-01"] }, dns]
        })
    }
}

fn on_demand_per_minute() -> usize {
    10
}

fn on_demand_max_pending() -> usize {
    20
}

fn on_demand_wait() -> ConfigDuration {
    ConfigDuration::secs(8)
}

fn max_orders() -> usize {
    4
}

fn order_timeout() -> ConfigDuration {
    ConfigDuration::secs(600)
}

fn request_timeout() -> ConfigDuration {
    ConfigDuration::secs(30)
}

fn lease() -> ConfigDuration {
    ConfigDuration::secs(30)
}

fn poll_interval() -> ConfigDuration {
    ConfigDuration::secs(2)
}

fn dns_timeout() -> ConfigDuration {
    ConfigDuration::secs(60)
}

fn dns_propagation() -> ConfigDuration {
    ConfigDuration::secs(300)
}
