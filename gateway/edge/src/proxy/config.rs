//! The configuration of routes.

pub mod paths;

pub use crate::proxy::rules::auth::config as auth;
pub use crate::proxy::rules::cors::config as cors;

use std::collections::BTreeMap;
use std::fmt;

use http::HeaderName;
use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::cache::config::{CacheKeyConfig, CachePolicyConfig};
use crate::http::forward;
use crate::http::path::PathRuleOverrides;
use crate::proxy::rules::access::config::AccessConfig;
use crate::proxy::rules::auth::config::AuthConfig;
use crate::proxy::rules::cors::config::CorsConfig;
use crate::units::{ByteSize, ConfigDuration};

/// One route: which requests it takes, where they go, and what is stored. The first route that
/// matches a request is used.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The name in metrics, logs and purges; unique.
    pub name: String,
    /// Which requests the route takes; empty means all.
    #[serde(default, rename = "match")]
    pub matches: RouteMatchConfig,
    /// The name of the upstream to which the requests go.
    #[serde(default)]
    pub upstream: Option<String>,
    /// `off` passes everything through.
    #[serde(default)]
    pub cache: OnOffSwitch,
    /// `on` answers `TRACE` and passes it on, without the fields that may carry a secret; `off` refuses it (405), since its answer repeats the request.
    #[serde(default = "off")]
    pub trace: OnOffSwitch,
    /// How paths are read, in place of the listener's `path`.
    #[serde(default)]
    pub path: PathRuleOverrides,
    /// Which client addresses may send requests.
    #[serde(default)]
    pub access: AccessConfig,
    /// How a request must show who sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthConfig>,
    /// Which sites may read the answers in a browser (CORS). The origin's own fields for this are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsConfig>,
    /// The limits of a request, in place of those in the listener's `limits`.
    #[serde(default)]
    pub limits: RequestLimits,
    /// How long streams may be silent, in place of the upstream's `timeouts`.
    #[serde(default)]
    pub timeouts: RouteTimeouts,
    /// What is stored and for how long, in place of `defaults`.
    #[serde(default)]
    pub policy: CachePolicyConfig,
    /// What the cache key is made of.
    #[serde(default)]
    pub key: CacheKeyConfig,
    /// The plugin that loads a missing value, in place of a plain request to the upstream.
    #[serde(default)]
    pub loader: Option<RoutePluginConfig>,
    /// What happens where the loader or the response plugin sees something of a request (headers, cookies, query parameters), or the request plugin sets a header, that neither the key nor the response's `Vary` covers, or the origin gets a query parameter that makes no difference to the key of a key plugin: two requests that differ in it share an answer.
    #[serde(default)]
    pub unkeyed: UnkeyedAction,
    /// The plugin that is called for each request before its key is derived.
    #[serde(default)]
    pub request: Option<RoutePluginConfig>,
    /// The plugin that is called for each response before it is decided whether it is stored.
    #[serde(default)]
    pub response: Option<RoutePluginConfig>,
    /// Tags that each entry of this route carries.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What a successful unsafe request purges.
    #[serde(default)]
    pub invalidate: Vec<InvalidateConfig>,
}

/// The limits of a request, in place of those in the `limits` of its listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestLimits {
    /// The most bytes of a request body (413 above this); it can be lower or higher than that of
    /// the listener.
    pub max_body_bytes: Option<ByteSize>,
    /// How long a request body may make no progress.
    pub body_timeout: Option<ConfigDuration>,
    /// The time within which a whole request body must arrive.
    pub upload_timeout: Option<ConfigDuration>,
    /// The bytes per second that a client must send of a request body while the gateway waits for
    /// it; 0 means no minimum.
    pub min_rate: Option<ByteSize>,
    /// The time over which `min_rate` is measured.
    pub min_rate_grace: Option<ConfigDuration>,
}

/// How long streams may be silent, in place of the `timeouts` of the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// The longest silence on both sides while the request's body is still being sent, and in
    /// answers without an end (`text/event-stream`, `multipart/x-mixed-replace`, gRPC).
    pub stream_idle: Option<ConfigDuration>,
    /// The longest silence on both sides after a switch of protocols (WebSocket).
    pub tunnel: Option<ConfigDuration>,
}

/// What happens when a plugin sees something that the key does not cover.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnkeyedAction {
    /// The response is stored; the log gets one line for each field.
    #[default]
    Warn,
    /// The field's name is added to the response's `Vary`. For a query parameter, which `Vary`
    /// can't contain, the same as `refuse_store`.
    Vary,
    /// The response is not stored.
    RefuseStore,
    /// Nothing.
    Allow,
}

impl UnkeyedAction {
    /// The word in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Vary => "vary",
            Self::RefuseStore => "refuse_store",
            Self::Allow => "allow",
        }
    }
}

/// Which requests a route takes. Every part that is given must match.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteMatchConfig {
    /// Host names; `*` is a wildcard, as in `*.example.com`.
    pub host: Option<OneOrMany>,
    /// Paths; `*` matches any number of characters, `?` matches one, and `\` makes the next
    /// character literal.
    pub path: Option<OneOrMany>,
    /// Methods, in capitals.
    pub method: Option<OneOrMany>,
    /// Header fields and what their value must match: a pattern, a list of patterns of which one
    /// must match, or `{any: …, case: ignore}`.
    pub header: BTreeMap<String, ValueMatchConfig>,
    /// Query parameters: patterns for their names, and what the value of one such parameter must
    /// match, as for `header`. `{"*": "*"}` matches any query.
    pub query: BTreeMap<String, ValueMatchConfig>,
    /// What is known of the client's TLS. A request without TLS, or over HTTP/3, does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMatchConfig>,
}

/// What is known of a client's TLS.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsMatchConfig {
    /// The fingerprint of the client's software (JA4): a pattern, or a list of patterns of which one
    /// must match, as in `t13d1516h2_*`. A listener must have `tls.ja4: on`.
    pub ja4: OneOrMany,
}

impl TlsMatchConfig {
    /// The field by which the listener tells the fingerprint, which clients can't set, and what it
    /// must match.
    pub fn field(&self) -> (HeaderName, ValueMatchConfig) {
        let patterns = ValueMatchConfig::Any(self.ja4.clone());
        (forward::CLIENT_JA4, patterns)
    }
}

/// What a value must match.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ValueMatchConfig {
    /// One of these patterns, with upper and lower case as written.
    Any(OneOrMany),
    Worded(DetailedValueMatch),
}

/// What a value must match, and how it is compared.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetailedValueMatch {
    /// A pattern, or a list of patterns of which one must match.
    pub any: OneOrMany,
    /// Whether capital and small letters of ASCII are the same.
    #[serde(default)]
    pub case: LetterCase,
}

/// Whether capital and small letters of ASCII are the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LetterCase {
    /// They differ.
    #[default]
    Exact,
    /// They are the same.
    Ignore,
}

impl ValueMatchConfig {
    /// The patterns, one of which must match.
    pub fn patterns(&self) -> &OneOrMany {
        match self {
            Self::Any(any) => any,
            Self::Worded(worded) => &worded.any,
        }
    }

    /// How they are compared.
    pub fn case(&self) -> LetterCase {
        match self {
            Self::Any(_) => LetterCase::Exact,
            Self::Worded(worded) => worded.case,
        }
    }
}

impl From<&str> for ValueMatchConfig {
    fn from(pattern: &str) -> Self {
        Self::Any(OneOrMany::One(pattern.to_owned()))
    }
}

/// One text or a list of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnOffSwitch {
    #[default]
    On,
    Off,
}

/// A plugin that a route uses.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoutePluginConfig {
    /// Name of the plugin.
    pub plugin: String,
}

/// What a successful unsafe request to this route purges.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvalidateConfig {
    /// Which methods.
    #[serde(default = "unsafe_methods")]
    pub on: Vec<String>,
    /// What is purged, several at once if given. `{path}`, `{path.N}` (the Nth segment, from 1), `{query.NAME}`, `{header.NAME}` and `{host}` are taken from the request.
    pub purge: Vec<PurgeRule>,
    /// Mark stale instead of removing.
    #[serde(default)]
    pub soft: bool,
}

/// A selector template.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PurgeRule {
    Url(String),
    Prefix(String),
    Pattern(String),
    Tag(String),
    Route(String),
}

/// The `PURGE` method on the listeners. Off unless given.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeMethodConfig {
    /// Whether `PURGE` is answered (405 otherwise).
    pub enabled: bool,
    /// Addresses (CIDR) that may purge.
    pub allow: Vec<String>,
    /// A token that requests must send as `Authorization: Bearer …`. Unset: only the address
    /// decides.
    pub token: Option<String>,
    /// A file with that token.
    pub token_file: Option<std::path::PathBuf>,
}

impl OneOrMany {
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Written by hand, since serde's untagged enums lose the reason and the position of an error.
impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextOrList)
    }
}

/// Written by hand, for the same reason as for [`OneOrMany`].
impl<'de> Deserialize<'de> for ValueMatchConfig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextListOrMap)
    }
}

struct TextListOrMap;

impl<'de> Visitor<'de> for TextListOrMap {
    type Value = ValueMatchConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list of texts, or a map with `any` and `case`")
    }

    fn visit_str<E>(self, text: &str) -> Result<ValueMatchConfig, E> {
        Ok(ValueMatchConfig::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ValueMatchConfig, A::Error> {
        let many = Deserialize::deserialize(SeqAccessDeserializer::new(list));
        many.map(|many| ValueMatchConfig::Any(OneOrMany::Many(many)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ValueMatchConfig, A::Error> {
        Deserialize::deserialize(MapAccessDeserializer::new(map)).map(ValueMatchConfig::Worded)
    }
}

struct TextOrList;

impl<'de> Visitor<'de> for TextOrList {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMany, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany::Many)
    }
}

fn off() -> OnOffSwitch {
    OnOffSwitch::Off
}

fn unsafe_methods() -> Vec<String> {
    ["POST", "PUT", "PATCH", "DELETE"]
        .map(str::to_owned)
        .to_vec()
}
