//! Whether a response may be stored, and for how long (RFC 9111 §3, §4.2; a route's `policy`).
//!
//! Pure: the clock and the random number for the jitter are arguments. The result is
//! [`StorageTerms`], or an [`UncacheableReason`] that `Cache-Status`, `explain` and the tests read.

use std::time::{Duration, SystemTime};

use http::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, DATE, ETAG, EXPIRES, LAST_MODIFIED, SET_COOKIE, TRAILER,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::config;
use crate::http::cache_control::{FieldForm, RequestDirectives, ResponseDirectives};
use crate::http::date::{self, FieldDate};
use crate::http::media;
use crate::http::vary::Vary;
use crate::tags::TagFields;
use crate::units;

mod lifetimes;
mod requester;

pub use lifetimes::LifetimeRule;
pub use requester::concerns_requester_alone;

/// A route's policy with the defaults filled in.
#[derive(Clone, Debug)]
pub struct Policy {
    pub mode: config::TtlMode,
    pub ttl: Option<Duration>,
    /// Lifetimes in place of `ttl`; the first that applies counts.
    pub lifetimes: Box<[LifetimeRule]>,
    /// The `ttl` for the second tier.
    pub ttl_l2: Option<Duration>,
    /// How long L1 keeps what came from the second tier, if the route says so.
    pub l1_cap: Option<Duration>,
    pub while_revalidate: Option<Duration>,
    pub if_error: Option<Duration>,
    pub statuses: Box<[StatusCode]>,
    pub negative: Option<(Duration, Box<[StatusCode]>)>,
    pub jitter: u8,
    pub soft_timeout: Option<Duration>,
    pub hard_timeout: Option<Duration>,
    pub set_cookie: config::SetCookie,
    /// None: the mode decides.
    pub cookies: Option<config::RequestCookiePolicy>,
    /// Whether the response to a POST may be stored for later GETs.
    pub store_post: bool,
    pub request_directives: config::RequestDirectivePolicy,
    /// The age up to which an entry is served without validation while the purges of other nodes
    /// are not heard.
    pub max_staleness: Option<Duration>,
    pub ranges: config::RangeLoadMode,
    /// Fields that replace `Cache-Control` and `Expires`; the first valid one counts (RFC 9213).
    pub targeted: Box<[HeaderName]>,
    /// The fields that name tags.
    pub tags_from: TagFields,
    /// The fields that say whether an answer came from the cache.
    pub debug_headers: Box<[config::DebugHeader]>,
    /// The key covers `Authorization`, so an answer to one user is never served to another.
    pub keyed_by_authorization: bool,
}

/// What is known when a response's head has arrived.
pub struct HttpExchange<'a> {
    pub request: &'a HeaderMap,
    /// The path of the request in its normal form.
    pub path: &'a str,
    pub status: StatusCode,
    pub response: &'a HeaderMap,
    /// The length of the content, if it is known.
    pub length: Option<u64>,
    pub received: SystemTime,
    /// The lifetime that a plugin set. It takes precedence over everything else.
    pub plugin_ttl: Option<Duration>,
    pub credentials: Credentials,
    /// Whether the client sent `Authorization`.
    pub authorization: CredentialPresence,
}

/// Whether a credential came with a request, and whether it is still there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum CredentialPresence {
    #[default]
    Not,
    /// It came with the request and goes to the origin.
    Here,
    /// A request plugin removed or replaced it, and the key does not contain what the plugin made
    /// of it, so no key can distinguish it any more.
    Taken,
}

/// The credentials that a request came with.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CameWith {
    pub authorization: CredentialPresence,
    pub cookies: CredentialPresence,
}

impl CredentialPresence {
    fn of(request: &HeaderMap, name: HeaderName) -> Self {
        match request.contains_key(name) {
            true => Self::Here,
            false => Self::Not,
        }
    }
}

impl CameWith {
    /// The credentials in this request head.
    pub fn of(request: &HeaderMap) -> Self {
        Self {
            authorization: CredentialPresence::of(request, AUTHORIZATION),
            cookies: CredentialPresence::of(request, COOKIE),
        }
    }
}

/// What the request said about its user beyond what the cache key contains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Credentials {
    /// Nothing, or the key contains all of it.
    Keyed,
    /// Cookies that the key does not contain.
    Cookies,
    /// `Authorization` that the key does not contain.
    Authorization,
}

/// Whether our rules may give a response a lifetime that it did not state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OurLifetime {
    Counts,
    Withheld,
}

/// For how long a response is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StorageTerms {
    /// Counted from when the origin generated the response, like `Age`, or from its arrival.
    pub lifetime: Lifetime,
    pub while_revalidate: Duration,
    pub if_error: Duration,
    pub must_revalidate: bool,
    pub source: LifetimeSource,
}

/// From when a lifetime counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lifetime {
    /// By HTTP's rules: the age that the response had on arrival is already used up.
    OfResponse(Duration),
    /// By a route or a plugin: counted from arrival.
    FromArrival(Duration),
}

/// Which rule gave the lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LifetimeSource {
    Plugin,
    Route,
    /// One of the policy's `lifetimes`.
    Listed,
    Negative,
    SMaxage,
    MaxAge,
    Expires,
    Heuristic,
    /// No freshness at all: the response is kept for validation.
    Validator,
}

/// Why a response is not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UncacheableReason {
    RequestNoStore,
    NoStore,
    Private,
    SetCookie,
    Authorization,
    /// The request had cookies or `Authorization` that the key does not contain, and only our own
    /// rules would have given the response a lifetime.
    Credentials,
    Status,
    VaryAny,
    NoFreshness,
    /// A stream that continues as long as somebody listens, and the origin did not say that others
    /// may have it.
    Endless,
    TooLarge,
    /// A part that does not say which part it is, or an answer to a range that others can't use.
    Part,
    /// A plugin decided it.
    Plugin,
    /// The loader read something that the key does not cover, and the route does not allow that.
    Unkeyed,
    /// It announces trailers, or means nothing without them. Entries have no trailers.
    Trailers,
}

impl UncacheableReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestNoStore => "request-no-store",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::SetCookie => "set-cookie",
            Self::Authorization => "authorization",
            Self::Credentials => "credentials",
            Self::Status => "status",
            Self::VaryAny => "vary-any",
            Self::NoFreshness => "no-freshness",
            Self::Endless => "endless",
            Self::TooLarge => "too-large",
            Self::Part => "part",
            Self::Plugin => "plugin",
            Self::Unkeyed => "unkeyed",
            Self::Trailers => "trailers",
        }
    }
}

impl LifetimeSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Route => "route",
            Self::Listed => "lifetimes",
            Self::Negative => "negative",
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::Validator => "validator",
        }
    }
}

/// Statuses that a cache may keep without explicit freshness (RFC 9110 §15.1), except 206: parts
/// are stored by rules of their own.
const HEURISTIC: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
/// Statuses to which a route's `ttl` applies, unless `statuses` says otherwise.
const TTL_STATUSES: [u16; 4] = [200, 203, 301, 308];
/// The target that every CDN reads (RFC 9213 §3.1); it is the default.
const CDN_CACHE_CONTROL: &str = "cdn-cache-control";
/// How the content types of gRPC begin.
const GRPC: &[u8] = b"application/grpc";
/// The heuristic share of the time since `Last-Modified` (RFC 9111 §4.2.2), as a divisor, and its
/// upper bound.
const HEURISTIC_SHARE: u32 = 10;
const HEURISTIC_MAX: Duration = Duration::from_secs(86_400);

impl Policy {
    /// Combines the route's settings with the defaults; the route's take precedence.
    pub fn new(
        route: &config::CachePolicyConfig,
        defaults: &config::CachePolicyConfig,
        keyed_by_authorization: bool,
    ) -> Self {
        let ttl = |p: &config::CachePolicyConfig| p.l1.map(|tier| tier.ttl).or(p.ttl);
        let second_tier_ttl = |p: &config::CachePolicyConfig| p.l2.map(|tier| tier.ttl).or(p.ttl);
        let negative = route
            .negative_cache
            .as_ref()
            .or(defaults.negative_cache.as_ref());
        let timeout = |which: fn(&config::LoadWaitTimeouts) -> Option<units::ConfigDuration>| {
            let of = |p: &config::CachePolicyConfig| p.timeouts.as_ref().and_then(which);
            of(route).or(of(defaults)).map(Into::into)
        };
        let statuses = route
            .statuses
            .as_deref()
            .or(defaults.statuses.as_deref())
            .unwrap_or(&TTL_STATUSES);
        let lifetimes = route.lifetimes.as_ref().or(defaults.lifetimes.as_ref());
        let lifetimes = lifetimes.map_or(&[][..], Vec::as_slice);
        Self {
            lifetimes: lifetimes.iter().map(LifetimeRule::new).collect(),
            mode: route.mode.or(defaults.mode).unwrap_or_default(),
            ttl: ttl(route).or(ttl(defaults)).map(Into::into),
            ttl_l2: second_tier_ttl(route)
                .or(second_tier_ttl(defaults))
                .map(Into::into),
            l1_cap: route.l1.or(defaults.l1).map(|tier| tier.ttl.into()),
            while_revalidate: route
                .stale_while_revalidate
                .or(defaults.stale_while_revalidate)
                .map(Into::into),
            if_error: route
                .stale_if_error
                .or(defaults.stale_if_error)
                .map(Into::into),
            statuses: codes(statuses),
            negative: negative
                .filter(|n| !n.ttl.0.is_zero())
                .map(|n| (n.ttl.into(), codes(&n.statuses))),
            jitter: route.jitter.or(defaults.jitter).unwrap_or(0),
            soft_timeout: timeout(|t| t.soft),
            hard_timeout: timeout(|t| t.hard),
            set_cookie: route.set_cookie.or(defaults.set_cookie).unwrap_or_default(),
            cookies: route.cookies.or(defaults.cookies),
            store_post: route.store_post.or(defaults.store_post).unwrap_or(false),
            request_directives: route
                .request_directives
                .or(defaults.request_directives)
                .unwrap_or_default(),
            max_staleness: route
                .max_staleness
                .or(defaults.max_staleness)
                .map(Into::into),
            ranges: route.ranges.or(defaults.ranges).unwrap_or_default(),
            targeted: targets(route.targeted.as_ref().or(defaults.targeted.as_ref())),
            tags_from: TagFields::new(route.tags_from.as_deref().or(defaults.tags_from.as_deref())),
            debug_headers: route
                .debug_headers
                .as_ref()
                .or(defaults.debug_headers.as_ref())
                .map_or_else(Box::default, |names| names.clone().into()),
            keyed_by_authorization,
        }
    }

    /// Judges a response. `random` is a random number that decides the jitter.
    pub fn judge(
        &self,
        exchange: &HttpExchange<'_>,
        random: u32,
    ) -> Result<StorageTerms, UncacheableReason> {
        let directives = self.directives(exchange.response);
        let ours = self.our_lifetime(exchange.credentials);
        let mut rules = self.lifetimes.iter();
        let rule = rules.find(|rule| rule.applies(exchange, &self.statuses));
        self.may_store(exchange, &directives, ours, rule)?;
        let (lifetime, source) = self.lifetime(exchange, &directives, ours, rule)?;
        let by_route = matches!(lifetime, Lifetime::FromArrival(_));
        let while_revalidate = rule.and_then(|rule| rule.while_revalidate);
        let while_revalidate = while_revalidate.or(self.while_revalidate);
        let if_error = rule.and_then(|rule| rule.if_error).or(self.if_error);
        Ok(StorageTerms {
            lifetime: self.jittered(lifetime, random),
            while_revalidate: self.window(directives.stale_while_revalidate, while_revalidate),
            if_error: self.window(directives.stale_if_error, if_error),
            must_revalidate: !by_route && forbids_stale(&directives),
            source,
        })
    }

    /// The terms in the second tier for a response that has these terms in L1.
    pub fn for_second_tier(&self, terms: &StorageTerms) -> StorageTerms {
        let lifetime = match (terms.source, self.ttl_l2) {
            (LifetimeSource::Route, Some(ttl)) => Lifetime::FromArrival(ttl),
            _ => terms.lifetime,
        };
        StorageTerms { lifetime, ..*terms }
    }

    /// The directives that apply to a response on this route. All code that needs them must use
    /// this.
    pub fn directives(&self, response: &HeaderMap) -> ResponseDirectives {
        ResponseDirectives::governing(response, &self.targeted)
    }

    /// Whether our rules may give a lifetime to the response to a request with these credentials.
    fn our_lifetime(&self, credentials: Credentials) -> OurLifetime {
        let default = match self.mode {
            config::TtlMode::Override => config::RequestCookiePolicy::Ignore,
            config::TtlMode::Respect | config::TtlMode::Cap => config::RequestCookiePolicy::Private,
        };
        let overriding = self.mode == config::TtlMode::Override && self.cookies.is_none();
        match (credentials, self.cookies.unwrap_or(default)) {
            (Credentials::Keyed, _)
            | (Credentials::Cookies, config::RequestCookiePolicy::Ignore) => OurLifetime::Counts,
            (Credentials::Authorization, _) if overriding => OurLifetime::Counts,
            (Credentials::Cookies | Credentials::Authorization, _) => OurLifetime::Withheld,
        }
    }

    /// Whether the response to such a request may get a lifetime that it does not state.
    pub fn gives_lifetime(&self, credentials: Credentials) -> bool {
        self.our_lifetime(credentials) == OurLifetime::Counts
    }

    /// Whether the route's `ttl` takes precedence over what the response says.
    fn overrides(&self, ours: OurLifetime) -> bool {
        self.mode == config::TtlMode::Override && ours == OurLifetime::Counts
    }

    /// The conditions of RFC 9111 §3, in its order.
    fn may_store(
        &self,
        exchange: &HttpExchange<'_>,
        d: &ResponseDirectives,
        ours: OurLifetime,
        rule: Option<&LifetimeRule>,
    ) -> Result<(), UncacheableReason> {
        let overriding = self.overrides(ours);
        if self.honors_requests() && RequestDirectives::parse(exchange.request).no_store {
            return Err(UncacheableReason::RequestNoStore);
        }
        if !storable_status(exchange.status) || (d.must_understand && !understood(exchange.status))
        {
            return Err(UncacheableReason::Status);
        }
        // Otherwise one client could replace a page for all others.
        if concerns_requester_alone(exchange.status)
            && exchange.plugin_ttl.is_none()
            && !self.names(exchange.status)
            && !rule.is_some_and(|rule| rule.statuses.contains(&exchange.status))
        {
            return Err(UncacheableReason::Status);
        }
        if d.no_store && !d.must_understand && !overriding {
            return Err(UncacheableReason::NoStore);
        }
        if d.private == FieldForm::Whole && !overriding {
            return Err(UncacheableReason::Private);
        }
        let shared = d.public || d.s_maxage.is_some() || d.must_revalidate;
        let keyed = match exchange.authorization {
            CredentialPresence::Not => true,
            CredentialPresence::Here => self.keyed_by_authorization,
            CredentialPresence::Taken => false,
        };
        if !keyed && !shared {
            return Err(UncacheableReason::Authorization);
        }
        if exchange.response.contains_key(SET_COOKIE)
            && self.set_cookie == config::SetCookie::Private
        {
            return Err(UncacheableReason::SetCookie);
        }
        if Vary::parse(exchange.response) == Vary::Any {
            return Err(UncacheableReason::VaryAny);
        }
        match needs_trailers(exchange.response) {
            true => Err(UncacheableReason::Trailers),
            false => Ok(()),
        }
    }

    fn lifetime(
        &self,
        exchange: &HttpExchange<'_>,
        d: &ResponseDirectives,
        ours: OurLifetime,
        rule: Option<&LifetimeRule>,
    ) -> Result<(Lifetime, LifetimeSource), UncacheableReason> {
        if let Some(ttl) = exchange.plugin_ttl {
            return Ok((Lifetime::FromArrival(ttl), LifetimeSource::Plugin));
        }
        let endless = media::is_endless(exchange.response);
        let route = match rule {
            Some(rule) => Some((rule.ttl, LifetimeSource::Listed)),
            None => self.route_ttl(exchange.status),
        };
        let route = route.filter(|_| !endless);
        let is_kept_out = route == Some((Duration::ZERO, LifetimeSource::Listed));
        match (self.overrides(ours), route) {
            (true, _) if is_kept_out => return Err(UncacheableReason::NoFreshness),
            (true, Some((ttl, source))) => return Ok((Lifetime::FromArrival(ttl), source)),
            _ => {}
        }
        let stated = explicit(exchange, d);
        if endless && stated.is_none_or(|(ttl, _)| ttl.is_zero()) {
            return Err(UncacheableReason::Endless);
        }
        let cap = rule.map(|rule| rule.ttl).or(self.ttl);
        if let Some((ttl, source)) = stated {
            return Ok((self.capped(Lifetime::OfResponse(ttl), cap), source));
        }
        if is_kept_out {
            return Err(UncacheableReason::NoFreshness);
        }
        if d.no_cache == FieldForm::Whole {
            return never_unvalidated(exchange, d).ok_or(UncacheableReason::NoFreshness);
        }
        let invented = self.invented(exchange, d, route);
        let (lifetime, source) = invented.ok_or(UncacheableReason::NoFreshness)?;
        match ours {
            OurLifetime::Counts => Ok((self.capped(lifetime, cap), source)),
            OurLifetime::Withheld => Err(UncacheableReason::Credentials),
        }
    }

    /// A lifetime that our own rules give to a response that does not state one.
    fn invented(
        &self,
        exchange: &HttpExchange<'_>,
        d: &ResponseDirectives,
        route: Option<(Duration, LifetimeSource)>,
    ) -> Option<(Lifetime, LifetimeSource)> {
        match (route, self.mode) {
            (Some((ttl, LifetimeSource::Negative)), _) => {
                Some((Lifetime::FromArrival(ttl), LifetimeSource::Negative))
            }
            (Some((ttl, source)), config::TtlMode::Respect | config::TtlMode::Override) => {
                Some((Lifetime::FromArrival(ttl), source))
            }
            (Some(_), config::TtlMode::Cap) | (None, _) => heuristic(exchange, d),
        }
    }

    /// Whether the configuration lists the status as one to store.
    fn names(&self, status: StatusCode) -> bool {
        let absent = self.negative.as_ref().map(|(_, statuses)| statuses);
        self.statuses.contains(&status) || absent.is_some_and(|all| all.contains(&status))
    }

    fn route_ttl(&self, status: StatusCode) -> Option<(Duration, LifetimeSource)> {
        match (&self.negative, self.ttl) {
            (Some((ttl, statuses)), _) if statuses.contains(&status) => {
                Some((*ttl, LifetimeSource::Negative))
            }
            (_, Some(ttl)) if self.statuses.contains(&status) => Some((ttl, LifetimeSource::Route)),
            _ => None,
        }
    }

    fn capped(&self, lifetime: Lifetime, cap: Option<Duration>) -> Lifetime {
        match (self.mode, cap, lifetime) {
            (config::TtlMode::Cap, Some(cap), Lifetime::OfResponse(ttl)) => {
                Lifetime::OfResponse(ttl.min(cap))
            }
            _ => lifetime,
        }
    }

    /// A stale window: the response's own value, otherwise the route's. In mode override the
    /// route's value comes first.
    fn window(&self, stated: Option<u32>, route: Option<Duration>) -> Duration {
        let stated = stated.map(|secs| Duration::from_secs(secs.into()));
        match self.mode {
            config::TtlMode::Override => route.or(stated),
            _ => stated.or(route),
        }
        .unwrap_or_default()
    }

    /// Spreads lifetimes. A lifetime that the origin stated is never exceeded, only a route's own.
    fn jittered(&self, lifetime: Lifetime, random: u32) -> Lifetime {
        let share = |ttl: Duration| ttl * u32::from(self.jitter.min(100)) / 100;
        let part = f64::from(random) / f64::from(u32::MAX);
        match lifetime {
            _ if self.jitter == 0 => lifetime,
            Lifetime::OfResponse(ttl) => Lifetime::OfResponse(ttl - share(ttl).mul_f64(part)),
            Lifetime::FromArrival(ttl) => {
                Lifetime::FromArrival(ttl - share(ttl) + (share(ttl) * 2).mul_f64(part))
            }
        }
    }

    pub fn honors_requests(&self) -> bool {
        self.request_directives == config::RequestDirectivePolicy::Honor
    }
}

/// Directives that forbid stale answers (RFC 9111 §4.2.4). A response that states a stale window of
/// its own beside `s-maxage` allows them (RFC 5861 §3).
fn forbids_stale(d: &ResponseDirectives) -> bool {
    let own_window = d.stale_while_revalidate.is_some() || d.stale_if_error.is_some();
    d.must_revalidate
        || d.proxy_revalidate
        || d.no_cache == FieldForm::Whole
        || (d.s_maxage.is_some() && !own_window)
}

/// Explicit freshness (RFC 9111 §4.2.1).
fn explicit(
    exchange: &HttpExchange<'_>,
    d: &ResponseDirectives,
) -> Option<(Duration, LifetimeSource)> {
    if d.no_cache == FieldForm::Whole {
        return None;
    }
    let secs = |n: u32| Duration::from_secs(n.into());
    if let Some(n) = d.s_maxage {
        return Some((secs(n), LifetimeSource::SMaxage));
    }
    if let Some(n) = d.max_age {
        return Some((secs(n), LifetimeSource::MaxAge));
    }
    if d.targeted {
        return None;
    }
    expires(exchange.response, exchange.received).map(|ttl| (ttl, LifetimeSource::Expires))
}

/// The terms for a response that must be validated before each use (RFC 9111 §5.2.2.4). It is
/// stored if §3 allows, and only with a validator, because nothing else can make it usable.
fn never_unvalidated(
    exchange: &HttpExchange<'_>,
    d: &ResponseDirectives,
) -> Option<(Lifetime, LifetimeSource)> {
    let explicit =
        d.max_age.is_some() || d.s_maxage.is_some() || exchange.response.contains_key(EXPIRES);
    let heuristic = d.public || HEURISTIC.contains(&exchange.status.as_u16());
    let validator = has_validator(exchange);
    ((explicit || heuristic) && validator).then_some((
        Lifetime::OfResponse(Duration::ZERO),
        LifetimeSource::Validator,
    ))
}

/// Whether it has a validator that a later request can send (RFC 9111 §4.3.1).
fn has_validator(exchange: &HttpExchange<'_>) -> bool {
    let modified = || date::field(exchange.response, &LAST_MODIFIED, exchange.received).at();
    exchange.response.contains_key(ETAG) || modified().is_some()
}

/// `Expires` minus `Date`. Several lines or an invalid one mean already expired (RFC 9111 §5.3).
fn expires(headers: &HeaderMap, received: SystemTime) -> Option<Duration> {
    match date::field(headers, &EXPIRES, received) {
        FieldDate::Absent => None,
        FieldDate::Invalid => Some(Duration::ZERO),
        FieldDate::At(at) => {
            let sent = date::field(headers, &DATE, received)
                .at()
                .unwrap_or(received);
            Some(at.duration_since(sent).unwrap_or_default())
        }
    }
}

/// Heuristic freshness (RFC 9111 §4.2.2); without it, a lifetime of zero if there is a validator.
fn heuristic(
    exchange: &HttpExchange<'_>,
    d: &ResponseDirectives,
) -> Option<(Lifetime, LifetimeSource)> {
    if !HEURISTIC.contains(&exchange.status.as_u16()) && !d.public {
        return None;
    }
    let headers = exchange.response;
    let modified = date::field(headers, &LAST_MODIFIED, exchange.received).at();
    let sent = date::field(headers, &DATE, exchange.received)
        .at()
        .unwrap_or(exchange.received);
    let share = modified
        .and_then(|at| sent.duration_since(at).ok())
        .map(|d| (d / HEURISTIC_SHARE).min(HEURISTIC_MAX));
    match share {
        Some(ttl) => Some((Lifetime::OfResponse(ttl), LifetimeSource::Heuristic)),
        None => has_validator(exchange).then_some((
            Lifetime::OfResponse(Duration::ZERO),
            LifetimeSource::Validator,
        )),
    }
}

/// Whether a client would miss trailers that a hit does not have: those that the sender announced
/// (RFC 9110 §6.6.2), and the status of a gRPC call. Other trailers may be discarded (RFC 9111
/// §3.1).
fn needs_trailers(response: &HeaderMap) -> bool {
    let kind = response.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    response.contains_key(TRAILER) || kind.is_some_and(|kind| kind.starts_with(GRPC))
}

/// Final statuses, except those of parts and of validation responses.
fn storable_status(status: StatusCode) -> bool {
    status.as_u16() >= 200 && !matches!(status.as_u16(), 206 | 304)
}

/// Statuses that we understand as a cache must (RFC 9111 §5.2.2.3).
fn understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 302 | 303 | 307 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// The targeted fields that a route reads. `config` has already checked the names.
fn targets(names: Option<&Vec<String>>) -> Box<[HeaderName]> {
    match names {
        Some(names) => names.iter().filter_map(|name| name.parse().ok()).collect(),
        None => Box::new([HeaderName::from_static(CDN_CACHE_CONTROL)]),
    }
}

fn codes(list: &[u16]) -> Box<[StatusCode]> {
    list.iter()
        .filter_map(|code| StatusCode::from_u16(*code).ok())
        .collect()
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
