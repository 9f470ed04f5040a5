//! The configuration of routes.

mod defaults;
mod matching;
pub mod paths;

pub use defaults::RouteDefaults;
pub use matching::{
    DetailedValueMatch, LetterCase, OneOrMany, RouteMatchConfig, TlsMatchConfig, ValueMatchConfig,
    normal_host_pattern,
};

pub use crate::proxy::rules::auth::config as auth;
pub use crate::proxy::rules::cors::config as cors;

/// The configurations of rules, with what may stand in them.
pub mod rules {
    pub use crate::proxy::rules::access::config as access;
    pub use crate::proxy::rules::compress::config as compress;
    pub use crate::proxy::rules::config as common;
    pub use crate::proxy::rules::headers::config as headers;
    pub use crate::proxy::rules::maintenance::config as maintenance;
    pub use crate::proxy::rules::pages::config as pages;
    pub use crate::proxy::rules::redirect::config as redirect;
    pub use crate::proxy::rules::rewrite::config as rewrite;
    pub use crate::proxy::rules::template::{TemplatePiece, TextTemplate};
}

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cache::config::{CacheKeyConfig, CachePolicyConfig};
use crate::dialects::config::PurgeDialect;
use crate::http::path::PathRuleOverrides;
use crate::proxy::esi::config::EsiConfig;
use crate::proxy::mirror::config::MirrorConfig;
use crate::proxy::rules::access::config::AccessConfig;
use crate::proxy::rules::auth::config::AuthConfig;
use crate::proxy::rules::cleaning::config::{CacheBypassConfig, RequestCookiesConfig};
use crate::proxy::rules::config::AnswerFile;
use crate::proxy::rules::cors::config::CorsConfig;
use crate::proxy::rules::direct::config::DirectAnswerConfig;
use crate::proxy::rules::headers::config::HeaderRulesConfig;
use crate::proxy::rules::maintenance::config::MaintenanceConfig;
use crate::proxy::rules::pages::config::ErrorPageConfig;
use crate::proxy::rules::redirect::config::RedirectConfig;
use crate::proxy::rules::rewrite::config::RewriteConfig;
use crate::proxy::rules::trailing_slash::config::TrailingSlash;
use crate::proxy::split::config::SplitConfig;
use crate::units::{ByteSize, ConfigDuration};

pub use crate::proxy::rules::compress::config::{CompressConfig, OriginEncoding};
pub use crate::proxy::split::config::SplitBy;

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
    /// Several upstreams, in place of `upstream`.
    #[serde(default)]
    pub split: Option<SplitConfig>,
    /// Copies of the requests that go to the origin, for a second upstream.
    #[serde(default)]
    pub mirror: Option<MirrorConfig>,
    /// Pages are put together from fragments (Edge Side Includes). Unset: they are not.
    #[serde(default)]
    pub esi: Option<EsiConfig>,
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
    /// What clients get while the route is under maintenance.
    #[serde(default)]
    pub maintenance: MaintenanceConfig,
    /// A redirect that answers all requests of the route; it has no upstream.
    #[serde(default)]
    pub redirect: Option<RedirectConfig>,
    /// `add` or `remove` redirects GET and HEAD requests (308) whose path does not end with a slash, or does.
    #[serde(default)]
    pub trailing_slash: TrailingSlash,
    /// An answer to all requests of the route; it has no upstream.
    #[serde(default)]
    pub respond: Option<DirectAnswerConfig>,
    /// What the origin is asked for in place of the client's path.
    #[serde(default)]
    pub rewrite: RewriteConfig,
    /// What is done to header fields: as the origin gets a request, and as an answer goes out.
    #[serde(default)]
    pub headers: HeaderRulesConfig,
    /// How errors are told to clients; the first that is for an error counts.
    #[serde(default)]
    pub errors: Vec<ErrorPageConfig>,
    /// `on` gives each request a name (`X-Request-Id`, a UUID of version 7) for the origin, the log, error pages and the client; that of a trusted proxy is kept.
    #[serde(default = "off")]
    pub request_id: OnOffSwitch,
    /// `basic` sets `X-Content-Type-Options`, `Referrer-Policy`, `X-Frame-Options`, and over TLS `Strict-Transport-Security`, where the origin says nothing of it, and removes `Server` and `X-Powered-By`.
    #[serde(default)]
    pub security_headers: SecurityHeaders,
    /// The rate limits of its requests, by their names under `limits`; the first that refuses one decides (429).
    #[serde(default)]
    pub limit: Vec<String>,
    /// Requests that bypass the cache because of their head.
    #[serde(default)]
    pub bypass: CacheBypassConfig,
    /// Which cookies of a request count where its answer may come from the cache.
    #[serde(default)]
    pub cookies: RequestCookiesConfig,
    /// The languages that the site has. The one that suits the client best, or else the first one, replaces its `Accept-Language`, and is in the key.
    #[serde(default)]
    pub accept_language: Vec<String>,
    /// A header field that tells the origin the kind of device: `mobile`, `tablet` or `desktop`. It replaces what the client sends, and is in the key.
    #[serde(default)]
    pub device: Option<String>,
    /// Which answers are compressed, in place of `defaults.compress` as a whole.
    #[serde(default)]
    pub compress: Option<CompressConfig>,
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

impl RouteConfig {
    /// The files with answers of ours, by their keys below the route.
    pub fn answer_files(&mut self) -> impl Iterator<Item = (String, &mut AnswerFile)> {
        let pages = self.errors.iter_mut().enumerate();
        let pages = pages.filter_map(|(n, page)| {
            let file = page.file.as_mut()?;
            Some((format!("errors[{n}].file"), file))
        });
        let direct = self
            .respond
            .as_mut()
            .and_then(|direct| direct.file.as_mut());
        let direct = direct.map(|file| ("respond.file".to_owned(), file));
        let closed = self.maintenance.file.as_mut();
        let closed = closed.map(|file| ("maintenance.file".to_owned(), file));
        pages.chain(direct).chain(closed)
    }
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

/// `on` or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnOffSwitch {
    #[default]
    On,
    Off,
}

/// Which fields tell browsers to be careful.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecurityHeaders {
    /// Those of the origin.
    #[default]
    Off,
    /// Those that hardly any page can't live with.
    Basic,
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

/// Requests to purge on the listeners, as `PURGE`. Off unless given.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeMethodConfig {
    /// Whether `PURGE` and its kind are answered (405 otherwise).
    pub enabled: bool,
    /// Addresses (CIDR) that may purge.
    pub allow: Vec<String>,
    /// A token that requests must send as `Authorization: Bearer …`, or as `Fastly-Key` in the
    /// dialect `fastly`. Unset: only the address decides.
    pub token: Option<String>,
    /// A file with that token.
    pub token_file: Option<std::path::PathBuf>,
    /// The protocols of other caches that are understood.
    pub dialects: Vec<PurgeDialect>,
    /// The fields with tags in requests of the dialect `drupal`.
    pub drupal_headers: Vec<String>,
    /// What the paths of the dialect `nginx` begin with, from slash to slash.
    pub nginx_prefix: String,
    /// The most tags, pages and prefixes that one request may purge (400 above this).
    pub max_selectors: usize,
}

impl Default for PurgeMethodConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            allow: Vec::new(),
            token: None,
            token_file: None,
            dialects: PurgeDialect::USUAL.to_vec(),
            drupal_headers: ["Cache-Tags", "X-Cache-Tags", "Purge-Cache-Tags"]
                .map(str::to_owned)
                .to_vec(),
            nginx_prefix: "/purge/".to_owned(),
            max_selectors: 4_096,
        }
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
