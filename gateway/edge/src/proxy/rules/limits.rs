//! The rate limits of a route: those of every request, before the cache, and those of what goes to the
//! origin.

use std::sync::Arc;
use std::time::Instant;

use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::cache::coalesce::{LoadFailure, LoadFailureScope};
use crate::proxy::arrived::ArrivedRequest;
use crate::proxy::context::RequestContext;
use crate::proxy::counted::CountedResponse;
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::record::trail::TrailEvent;
use crate::proxy::respond;
use crate::rate_limit::config::LimitPlace;
use crate::rate_limit::{
    LimitDecision, LimitSubject, LimitVerdict, RateLimit, RateLimitSet, seconds,
};

/// Which allowance there is, and what is left of it (draft-ietf-httpapi-ratelimit-headers-10).
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// The limits that a route names, in their order.
pub struct RouteLimits {
    route: Arc<str>,
    edge: Box<[Arc<RateLimit>]>,
    origin: Box<[Arc<RateLimit>]>,
}

/// What the limits of every request say of one.
pub struct LimitedRequest {
    /// What the answer tells the client. None: nothing.
    pub fields: Option<Box<HeaderMap>>,
    /// The answer, if it is refused.
    pub refusal: Option<CountedResponse>,
}

impl RouteLimits {
    /// None: the route names no limits.
    pub fn new(route: &str, names: &[String], limits: &RateLimitSet) -> Option<Self> {
        let named = |place| -> Box<[Arc<RateLimit>]> {
            let named = names.iter().filter_map(|name| limits.get(name));
            named.filter(|limit| limit.counted_at() == place).collect()
        };
        (!names.is_empty()).then(|| Self {
            route: route.into(),
            edge: named(LimitPlace::Edge),
            origin: named(LimitPlace::Origin),
        })
    }

    /// Whether a request may have to wait for the store that nodes share.
    pub fn may_wait(&self) -> bool {
        self.edge.iter().any(|limit| limit.may_wait())
    }

    /// Whether loads and passes of the route are limited.
    pub fn limits_origin(&self) -> bool {
        !self.origin.is_empty()
    }

    /// Judges a request by the limits of every request. The first that refuses it decides; those
    /// before it have counted it.
    pub async fn judge(&self, request: &mut ArrivedRequest) -> LimitedRequest {
        let mut fields = None;
        let mut refusal = None;
        let now = request.started;
        for limit in &self.edge {
            let subject = LimitSubject {
                parts: &request.parts,
                client: request.caller.client(),
                route: &self.route,
            };
            let decision = limit.judge(subject, now).await;
            limit.log(&decision, subject);
            tell(limit, &decision, &mut fields);
            if decision.verdict != LimitVerdict::Admitted {
                request.is_above(Arc::clone(limit.name()), decision.verdict);
            }
            if let LimitVerdict::Refused(wait) = decision.verdict {
                refusal = Some(refused(seconds(wait)));
                break;
            }
        }
        LimitedRequest { fields, refusal }
    }

    /// Counts a request that goes to the origin or the loader.
    ///
    /// # Errors
    /// If a limit refuses it.
    pub async fn admit_to_origin(&self, ask: &RequestContext) -> Result<(), LoadFailure> {
        for limit in &self.origin {
            let subject = self.subject(ask);
            let decision = limit.judge(subject, Instant::now()).await;
            limit.log(&decision, subject);
            if decision.verdict != LimitVerdict::Admitted {
                ask.note(|| TrailEvent::Limited(Arc::clone(limit.name()), decision.verdict));
            }
            if let LimitVerdict::Refused(wait) = decision.verdict {
                let mut fields = None;
                tell(limit, &decision, &mut fields);
                return Err(failure(limit, seconds(wait), fields));
            }
        }
        Ok(())
    }

    /// Whether a request would not go to the origin, as far as that is known.
    pub fn would_refuse(&self, ask: &RequestContext) -> bool {
        let subject = self.subject(ask);
        self.origin.iter().any(|limit| limit.is_used_up(subject))
    }

    /// The limits that count there, in words.
    pub fn describe(&self, place: LimitPlace) -> impl Iterator<Item = String> {
        let limits = match place {
            LimitPlace::Edge => &self.edge,
            LimitPlace::Origin => &self.origin,
        };
        limits.iter().map(|limit| limit.describe())
    }

    fn subject<'a>(&'a self, ask: &'a RequestContext) -> LimitSubject<'a> {
        LimitSubject {
            parts: &ask.parts,
            client: ask.caller.client(),
            route: &self.route,
        }
    }
}

/// Counts a request, which is about to go to the origin or the loader, by the limits of its route.
///
/// # Errors
/// If a limit refuses it.
pub async fn admit_to_origin(ask: &RequestContext) -> Result<(), LoadFailure> {
    match ask
        .route
        .rules
        .as_ref()
        .and_then(|rules| rules.origin_limits())
    {
        // In a box: the future of every load would grow by it.
        Some(limits) => Box::pin(limits.admit_to_origin(ask)).await,
        None => Ok(()),
    }
}

/// Whether a failure is that of a limit, and this request would meet it as well.
pub fn shares_refusal(ask: &RequestContext, failure: &LoadFailure) -> bool {
    let limits = ask
        .route
        .rules
        .as_ref()
        .and_then(|rules| rules.origin_limits());
    is_refusal(failure) && limits.is_some_and(|limits| limits.would_refuse(ask))
}

/// Whether a failure is that of a limit: nothing is wrong with the origin.
pub fn is_refusal(failure: &LoadFailure) -> bool {
    failure.status == StatusCode::TOO_MANY_REQUESTS
}

fn refused(seconds: u64) -> CountedResponse {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let mut response = respond::plain(status, respond::text(status));
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, seconds.into());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    CountedResponse::new(response, RequestOutcome::Error)
}

/// A stale copy that may be shown when the origin fails is better than the refusal.
fn failure(limit: &RateLimit, seconds: u64, fields: Option<Box<HeaderMap>>) -> LoadFailure {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let detail = format!("the rate limit {} refused it", limit.name());
    let blame = match limit.is_of_the_url() {
        true => LoadFailureScope::AnyRequest,
        false => LoadFailureScope::PerhapsThisRequest,
    };
    LoadFailure {
        retry_after: Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
        blame,
        fields,
        ..LoadFailure::new(status, "http_request_denied", detail)
    }
}

/// Adds what an answer tells the client of a limit.
fn tell(limit: &RateLimit, decision: &LimitDecision, fields: &mut Option<Box<HeaderMap>>) {
    if let Some((policy, left)) = limit.told(decision) {
        let fields = fields.get_or_insert_default();
        fields.append(POLICY, policy);
        fields.append(LEFT, left);
    }
}
