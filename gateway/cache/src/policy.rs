//! Whether a response may be stored, and for how long (RFC 9111 §3, §4.2; a route's `policy`).
//!
//! Pure: the clock and the random number for the jitter are arguments. The result is
//! [`StorageTerms`], or an [`UncacheableReason`] that `Cache-Status`, `explain` and the tests read.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, SET_COOKIE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::config;
use crate::http::cache_control::{FieldForm, RequestDirectives, ResponseDirectives};
use crate::http::media;
use crate::http::vary::Vary;
use crate::key::CacheKeyTemplate;
use crate::tags::TagFields;
use crate::units;

mod lifetimes;
mod other_key;
mod requester;
mod stated;
mod terms;

pub use lifetimes::LifetimeRule;
pub use requester::concerns_requester_alone;
pub use terms::{
    CameWith, CredentialPresence, Credentials, HttpExchange, Lifetime, LifetimeSource,
    StorageTerms, UncacheableReason,
};

use other_key::sets_other_key;
use stated::{explicit, heuristic, never_unvalidated};

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
    /// The cookies that the key contains by their names.
    pub keyed_cookies: Box<[Box<str>]>,
}

/// Whether our rules may give a response a lifetime that it did not state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OurLifetime {
    Counts,
    Withheld,
}

/// Statuses to which a route's `ttl` applies, unless `statuses` says otherwise.
const TTL_STATUSES: [u16; 4] = [200, 203, 301, 308];
/// The target that every CDN reads (RFC 9213 §3.1); it is the default.
const CDN_CACHE_CONTROL: &str = "cdn-cache-control";
/// How the content types of gRPC begin.
const GRPC: &[u8] = b"application/grpc";

impl Policy {
    /// Combines the route's settings with the defaults; the route's take precedence.
    pub fn new(
        route: &config::CachePolicyConfig,
        defaults: &config::CachePolicyConfig,
        key: &CacheKeyTemplate,
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
            keyed_by_authorization: key.covers(&AUTHORIZATION),
            keyed_cookies: key.cookies().into(),
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
            && (self.set_cookie == config::SetCookie::Private
                || sets_other_key(&self.keyed_cookies, exchange.request, exchange.response))
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
