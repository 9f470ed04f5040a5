//! What YAML says about the cache: its tiers here, a route's policy and key beside it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::l2::config::L2Config;
use crate::units::{ByteSize, ConfigDuration};

/// The cache as a whole.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// The tier in the process.
    pub l1: L1Config,
    /// The tier behind it: a store that nodes share, or a disk.
    pub l2: L2Config,
    /// Requests that wait for a load which is already running.
    pub inflight: CoalescingConfig,
    /// After a load failed with a stale copy at hand.
    pub backoff: LoadBackoffConfig,
    /// Purges by tag, prefix, pattern, route and all.
    pub purge_log: PurgeLogConfig,
}

/// The tier in the process.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct L1Config {
    /// Bytes in all: bodies, headers, keys and overhead.
    pub max_bytes: ByteSize,
    /// Entries in all; unset means bytes alone decide.
    pub max_entries: Option<u64>,
    /// Bytes of one object; a larger one streams through and is not stored.
    pub max_object_bytes: ByteSize,
}

/// Coalescing.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CoalescingConfig {
    /// How long a request waits for another one's load before it loads by itself.
    pub wait_timeout: ConfigDuration,
    /// How long a response that may not be shared is remembered, so that requests for it do not queue.
    pub hit_for_miss: ConfigDuration,
    /// How long a load goes on that nobody reads any more.
    pub unread_timeout: ConfigDuration,
}

/// How long a stale copy is served without asking the origin again after a failure.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadBackoffConfig {
    /// After the first failure; doubles with each further one.
    pub base: ConfigDuration,
    /// At most.
    pub max: ConfigDuration,
}

/// What purges and invalidations leave behind, for entries to be compared with.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeLogConfig {
    /// Records of purges by the admin API, `PURGE` and other nodes; when full, the older half
    /// goes, and what was stored before it.
    pub max_records: usize,
    /// Records of purges by `invalidate` rules, which requests of clients cause; when full,
    /// the older half is kept less precisely: a URL may then be purged with another's record.
    pub max_request_records: usize,
    /// Different patterns with a wildcard before their end, for each of the two kinds of
    /// records; of one too many the oldest becomes a purge of all URLs that begin as it does.
    pub max_patterns: usize,
    /// Places in which invalidations by unsafe requests (RFC 9111 §4.4, RFC 9875) are noted for
    /// loads under way; they leave no record.
    pub invalidation_buckets: usize,
    /// How often the sweep removes what purges hide, and then the records.
    pub sweep_interval: ConfigDuration,
}

/// A route's rules for what is stored and for how long.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CachePolicyConfig {
    /// Whose word counts.
    pub mode: Option<TtlMode>,
    /// Lifetime in every tier: the fallback (respect), the value (override) or the upper bound (cap).
    pub ttl: Option<ConfigDuration>,
    /// L1 alone.
    pub l1: Option<TierTtl>,
    /// L2 alone.
    pub l2: Option<TierTtl>,
    /// Serve stale this long after expiry while one request refreshes (RFC 5861).
    pub stale_while_revalidate: Option<ConfigDuration>,
    /// Serve stale this long after expiry when the load fails (RFC 5861).
    pub stale_if_error: Option<ConfigDuration>,
    /// Statuses that may be stored by `ttl` in mode override or respect. A status that concerns
    /// the requester alone (4xx but 404 and 410, also 510 and 511) is stored only when it is
    /// listed here or in `negative_cache`, even with freshness of its own.
    pub statuses: Option<Vec<u16>>,
    /// Answers that say *absent*.
    pub negative_cache: Option<NegativeCacheConfig>,
    /// Spread of lifetimes in percent, against mass expiry.
    pub jitter: Option<u8>,
    /// How long a client waits for a load.
    pub timeouts: Option<LoadWaitTimeouts>,
    /// What to do with a response that sets a cookie.
    pub set_cookie: Option<SetCookie>,
    /// What cookies of a request mean for a lifetime that the response does not state. Unset:
    /// `private`, and in mode override `ignore`.
    pub cookies: Option<RequestCookiePolicy>,
    /// Whether the response to a POST may be stored for later GETs (RFC 9110 §9.3.3). Unset: no.
    pub store_post: Option<bool>,
    /// Whether a request's own `Cache-Control` counts.
    pub request_directives: Option<RequestDirectivePolicy>,
    /// While what other nodes purge is not heard here: what is older than this is
    /// validated before it is served. Unset: it is served as ever.
    pub max_staleness: Option<ConfigDuration>,
    /// How a request for a range of what is not stored is loaded.
    pub ranges: Option<RangeLoadMode>,
    /// Fields of a response that replace its `Cache-Control` and `Expires`, the first valid one (RFC 9213).
    pub targeted: Option<Vec<String>>,
}

/// Whose word counts about lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TtlMode {
    /// HTTP semantics rule; the route's `ttl` is for responses without explicit freshness.
    #[default]
    Respect,
    /// The route's `ttl` rules, even over `no-store` and `private`.
    Override,
    /// HTTP semantics rule, but never longer than the route's `ttl`.
    Cap,
}

/// A lifetime for one tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TierTtl {
    pub ttl: ConfigDuration,
}

/// Answers that say *absent*, kept for a short time of their own.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NegativeCacheConfig {
    /// How long, where the response gives no explicit freshness. 0 switches it off.
    pub ttl: ConfigDuration,
    /// Which statuses.
    #[serde(default = "absent_statuses")]
    pub statuses: Vec<u16>,
}

/// How long a client waits for a load.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadWaitTimeouts {
    /// With a stale copy at hand: answer stale after this long while the load goes on.
    pub soft: Option<ConfigDuration>,
    /// Bounds the wait for the response's head in any case.
    pub hard: Option<ConfigDuration>,
}

/// What to do with a response that sets a cookie.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SetCookie {
    /// It is not stored.
    #[default]
    Private,
    /// The field is removed, then the response is stored.
    Strip,
    /// It is stored as it is, if HTTP's rules allow: everybody gets the same cookie (RFC 9111 §7.3).
    Keep,
}

/// What cookies of a request mean for a lifetime that the response does not state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestCookiePolicy {
    /// The response may be one user's own. It is stored only if it states a lifetime itself, or
    /// if the key holds every cookie of the request.
    Private,
    /// Cookies make no difference to responses on this route.
    Ignore,
}

/// Whether a request's own `Cache-Control` counts (RFC 9111 §5.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestDirectivePolicy {
    /// No: it protects the origin from the public.
    #[default]
    Ignore,
    Honor,
}

/// How a request for a range of what is not stored is loaded (RFC 9110 §14, RFC 9111 §3.3).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RangeLoadMode {
    /// As `whole`, and of what is larger than `cache.l1.max_object_bytes` as `parts`.
    #[default]
    Auto,
    /// The whole is loaded once and answers every range.
    Whole,
    /// The range alone is loaded; parts are kept, added to, and completed.
    Parts,
}

/// What a cache key is made of. The default: scheme, host, port, path, whole query.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheKeyConfig {
    /// Which query parameters count.
    pub query: KeyQueryConfig,
    /// Request headers that become part of the key.
    pub headers: Vec<String>,
    /// Cookies that become part of the key.
    pub cookies: Vec<String>,
    /// Name of the plugin that derives the key.
    pub plugin: Option<String>,
    /// Which query the origin, a loader and a response plugin get of what is looked up in the cache.
    pub origin_query: OriginQuery,
}

/// Which query goes on to the origin, of a request that is looked up in the cache.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OriginQuery {
    /// What the key holds of it: nothing that one client writes can get into the page of another.
    #[default]
    AsKeyed,
    /// As the client sent it, with the parameters that the key leaves out: what the origin makes of them is everybody's page.
    AsSent,
}

/// Which query parameters count in a key. One that holds `;` always does: some origins part parameters there.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyQueryConfig {
    /// Only these (`*` and `?` are wildcards).
    pub include: Option<Vec<String>>,
    /// All but these.
    pub drop: Vec<String>,
    /// In alphabetic order.
    pub sort: bool,
}

impl Default for L1Config {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize::mib(256),
            max_entries: None,
            max_object_bytes: ByteSize::mib(8),
        }
    }
}

impl Default for CoalescingConfig {
    fn default() -> Self {
        Self {
            wait_timeout: ConfigDuration::secs(10),
            hit_for_miss: ConfigDuration::secs(2),
            unread_timeout: ConfigDuration::secs(60),
        }
    }
}

impl Default for LoadBackoffConfig {
    fn default() -> Self {
        Self {
            base: ConfigDuration::secs(1),
            max: ConfigDuration::secs(30),
        }
    }
}

impl Default for PurgeLogConfig {
    fn default() -> Self {
        Self {
            max_records: 100_000,
            max_request_records: 100_000,
            max_patterns: 256,
            invalidation_buckets: 65_536,
            sweep_interval: ConfigDuration::secs(60),
        }
    }
}

fn absent_statuses() -> Vec<u16> {
    vec![404, 410]
}
