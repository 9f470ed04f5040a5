//! The cache's part of the YAML configuration: the tiers, and a route's policy and key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::l2::config::L2Config;
use crate::units::{ByteSize, ConfigDuration};
pub use crate::warm::config::WarmConfig;

/// The cache as a whole.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// The first tier, in the memory of the process.
    pub l1: L1Config,
    /// The second tier: a store that nodes share, or a disk.
    pub l2: L2Config,
    /// Coalescing: requests that wait for a load which is already running.
    pub inflight: CoalescingConfig,
    /// Back-off after a load failed for which there is a stale copy.
    pub backoff: LoadBackoffConfig,
    /// The log of purges by tag, prefix, pattern, route and all.
    pub purge_log: PurgeLogConfig,
    /// What a restart begins with. Unset: it begins with an empty first tier.
    pub warm: Option<WarmConfig>,
}

/// The first tier, in the memory of the process.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct L1Config {
    /// Upper bound of all entries in bytes: bodies, headers, keys and overhead.
    pub max_bytes: ByteSize,
    /// Upper bound of the number of entries. Unset: only the bytes count.
    pub max_entries: Option<u64>,
    /// Upper bound of one object in bytes; a larger one streams through and is not stored.
    pub max_object_bytes: ByteSize,
}

/// Coalescing of requests.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CoalescingConfig {
    /// How long a request waits for another one's load before it loads by itself.
    pub wait_timeout: ConfigDuration,
    /// How long a response that may not be shared is remembered, so that requests for it do not
    /// wait for each other.
    pub hit_for_miss: ConfigDuration,
    /// How long a load continues when nobody reads it any more.
    pub unread_timeout: ConfigDuration,
}

/// Back-off: how long a stale copy is served without asking the origin again after a failure.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadBackoffConfig {
    /// The time after the first failure; it doubles with each further one.
    pub base: ConfigDuration,
    /// The longest time.
    pub max: ConfigDuration,
}

/// The records of purges and invalidations with which entries are compared.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeLogConfig {
    /// The largest number of records of purges by the admin API, `PURGE` and other nodes. When it
    /// is reached, the older half is removed, together with the entries that were stored before it
    /// and not requested since.
    pub max_records: usize,
    /// The largest number of records of purges by `invalidate` rules, which requests of clients
    /// cause. When it is reached, the older half is kept less precisely: a URL may then be purged
    /// by the record of another one.
    pub max_request_records: usize,
    /// The largest number of different patterns with a wildcard before their end, for each of the
    /// two kinds of records. When there is one too many, the oldest becomes a purge of all URLs
    /// that begin like it.
    pub max_patterns: usize,
    /// The number of buckets in which invalidations by unsafe requests (RFC 9111 §4.4, RFC 9875)
    /// are noted for loads under way; they leave no record.
    pub invalidation_buckets: usize,
    /// How often a sweep removes the entries that purges hide, and then the records.
    pub sweep_interval: ConfigDuration,
}

/// A route's rules for what is stored and for how long.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CachePolicyConfig {
    /// Whether the origin or the route decides about lifetimes.
    pub mode: Option<TtlMode>,
    /// Lifetime in every tier: the fallback (respect), the value (override) or the upper bound (cap).
    pub ttl: Option<ConfigDuration>,
    /// Lifetime in L1 alone.
    pub l1: Option<TierTtl>,
    /// Lifetime in L2 alone.
    pub l2: Option<TierTtl>,
    /// Lifetimes for some responses, in place of `ttl` and its kin: the first rule whose conditions
    /// all hold counts. Unset: those of `defaults`.
    pub lifetimes: Option<Vec<LifetimeRuleConfig>>,
    /// Serve stale this long after expiry while one request refreshes (RFC 5861).
    pub stale_while_revalidate: Option<ConfigDuration>,
    /// Serve stale this long after expiry when the load fails (RFC 5861).
    pub stale_if_error: Option<ConfigDuration>,
    /// Statuses that may be stored by `ttl` in mode override or respect. A status that concerns the
    /// requester alone (4xx except 404 and 410, also 510 and 511) is stored only when it is listed
    /// here or in `negative_cache`, even if the response states a lifetime.
    pub statuses: Option<Vec<u16>>,
    /// Answers that say that the content does not exist.
    pub negative_cache: Option<NegativeCacheConfig>,
    /// Random variation of lifetimes in percent, so that many entries do not expire at once.
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
    /// The largest age at which an entry is served without validation while this node cannot hear
    /// the purges of other nodes. Unset: there is no limit.
    pub max_staleness: Option<ConfigDuration>,
    /// How a request for a range is loaded if the content is not stored.
    pub ranges: Option<RangeLoadMode>,
    /// Fields of a response that replace its `Cache-Control` and `Expires`; the first valid one
    /// counts (RFC 9213).
    pub targeted: Option<Vec<String>>,
    /// Fields of a response that name its tags, beside the usual ones (see docs/purging.md), or with
    /// other separators than those.
    pub tags_from: Option<Vec<TagFieldConfig>>,
    /// Fields that say whether an answer came from the cache, for tools that look for them.
    pub debug_headers: Option<Vec<DebugHeader>>,
}

/// A field of a response that names tags.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TagFieldConfig {
    /// The name of the field.
    pub header: String,
    /// What stands between two tags.
    pub split: TagSplit,
    /// Whether clients get the field, too.
    #[serde(default)]
    pub keep: bool,
}

/// What stands between two tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
pub enum TagSplit {
    #[serde(rename = " ")]
    Spaces,
    #[serde(rename = ",")]
    Commas,
    /// Both are separators.
    #[serde(rename = ", ")]
    SpacesAndCommas,
    #[serde(rename = ";")]
    Semicolons,
}

/// A field that says whether an answer came from the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DebugHeader {
    /// `X-Cache: HIT` or `MISS`.
    XCache,
    /// `X-Varnish` with two numbers for a hit, and with one otherwise.
    XVarnish,
}

/// A lifetime for the responses of which all of these are true.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LifetimeRuleConfig {
    /// Content types without parameters, as in `image/*`; empty means all.
    #[serde(default)]
    pub types: Vec<String>,
    /// Patterns for the path of the request; empty means all.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Statuses; they may be stored then. Empty means those to which `ttl` applies.
    #[serde(default)]
    pub statuses: Vec<u16>,
    /// The fewest bytes of the content. A response that does not announce its length is not meant.
    #[serde(default)]
    pub min_bytes: Option<ByteSize>,
    /// The most bytes of the content. A response that does not announce its length is not meant.
    #[serde(default)]
    pub max_bytes: Option<ByteSize>,
    /// The lifetime in every tier, by the rules of `mode`; 0: such a response gets none from us.
    pub ttl: ConfigDuration,
    /// In place of the policy's `stale_while_revalidate`.
    #[serde(default)]
    pub stale_while_revalidate: Option<ConfigDuration>,
    /// In place of the policy's `stale_if_error`.
    #[serde(default)]
    pub stale_if_error: Option<ConfigDuration>,
}

/// Whether the origin or the route decides about lifetimes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TtlMode {
    /// HTTP semantics apply; the route's `ttl` is for responses without explicit freshness.
    #[default]
    Respect,
    /// The route's `ttl` applies, even over `no-store` and `private`.
    Override,
    /// HTTP semantics apply, but a lifetime is never longer than the route's `ttl`.
    Cap,
}

/// A lifetime for one tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TierTtl {
    pub ttl: ConfigDuration,
}

/// Answers that say that the content does not exist; they are kept for a short time of their own.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NegativeCacheConfig {
    /// Their lifetime if the response gives no explicit freshness. 0 switches it off.
    pub ttl: ConfigDuration,
    /// The statuses of such answers.
    #[serde(default = "absent_statuses")]
    pub statuses: Vec<u16>,
}

/// How long a client waits for a load.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadWaitTimeouts {
    /// If there is a stale copy: answer with it after this time, while the load continues.
    pub soft: Option<ConfigDuration>,
    /// The longest wait for the response's head in any case.
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
    /// The response may be meant for one user. It is stored only if it states a lifetime itself, or
    /// if the key contains every cookie of the request.
    Private,
    /// Cookies make no difference to responses on this route.
    Ignore,
}

/// Whether a request's own `Cache-Control` counts (RFC 9111 §5.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestDirectivePolicy {
    /// It does not count. This protects the origin from the public.
    #[default]
    Ignore,
    Honor,
}

/// How a request for a range is loaded if the content is not stored (RFC 9110 §14, RFC 9111 §3.3).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RangeLoadMode {
    /// Like `whole`, but like `parts` for objects that are larger than `cache.l1.max_object_bytes`.
    #[default]
    Auto,
    /// The whole is loaded once and answers every range.
    Whole,
    /// Only the range is loaded; parts are kept, added to, and completed.
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
    /// Which query the origin, a loader and a response plugin get for a request that is looked up
    /// in the cache.
    pub origin_query: OriginQuery,
}

/// Which query is sent to the origin for a request that is looked up in the cache.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OriginQuery {
    /// The part of the query that the key contains. Nothing that one client adds can then affect
    /// the page of another.
    #[default]
    AsKeyed,
    /// The whole query as the client sent it, with the parameters that the key leaves out. What the
    /// origin makes of them is then served to everybody.
    AsSent,
}

/// Which query parameters count in a key. A parameter that contains `;` always counts, because some
/// origins split parameters there.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyQueryConfig {
    /// Only these (`*` and `?` are wildcards).
    pub include: Option<Vec<String>>,
    /// All except these.
    pub drop: Vec<String>,
    /// Whether the parameters are sorted in alphabetical order.
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
