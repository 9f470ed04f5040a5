//! What a route does natively to requests and answers, beside caching: who may ask, what is answered
//! here, what the origin is asked for and what the client sees of an answer.
//!
//! The order of the steps is fixed. A request that has found its route goes through
//! [`RouteRules::admit`]:
//!
//! 1. [`access`]: may this address ask at all
//! 2. [`limits`]: has it asked too often
//! 3. [`cleaning`]: what makes no difference is removed, and what is not for the cache is marked
//! 4. [`compress`]: `Accept-Encoding` is replaced by what the origin is asked for
//!
//! and then on to the request plugin, the key and the cache. The answer, whoever made it, goes
//! through [`AnswerRules::apply`] when it is delivered.
//!
//! Two laws hold for all of them. A stored answer is never shown to a request that a rule would
//! refuse. What a rule does to an answer is not stored: after a change of the configuration it shows
//! at once, without a purge.

pub mod access;
pub mod cleaning;
pub mod compress;
pub mod limits;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::arrived::ArrivedRequest;
use super::config::RouteConfig;
use super::metrics::RequestOutcome;
use super::{CountedResponse, respond};
use crate::rate_limit::RateLimitSet;
use access::AccessList;
use cleaning::RequestCleaning;
use compress::{ClientCodings, CompressRules};
use limits::RouteLimits;

/// The compiled rules of a route.
pub struct RouteRules {
    access: Option<AccessList>,
    cleaning: Option<RequestCleaning>,
    compress: Option<Arc<CompressRules>>,
    limits: Option<RouteLimits>,
}

/// What the rules of a route do to one answer: the rules, and what of the request they need.
pub struct AnswerRules {
    _rules: Arc<RouteRules>,
    /// What the client said of codings, if the route compresses.
    codings: Option<Arc<ClientCodings>>,
    /// What the rate limits tell the client.
    limit_fields: Option<Box<HeaderMap>>,
}

/// What the rules say of a request.
pub enum Admission {
    /// It goes on to the request plugin, the key and the cache.
    Admitted,
    /// It has its answer.
    Answered(CountedResponse),
}

impl Admission {
    /// What is said of a request if a step waits that is said never to wait: nobody is let in by
    /// mistake.
    pub fn unable() -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let answer = respond::plain(status, respond::text(status));
        Self::Answered(CountedResponse::new(answer, RequestOutcome::Error))
    }
}

impl RouteRules {
    /// The rules of a route. None: it has none, so that its requests skip all these steps.
    pub fn new(
        config: &RouteConfig,
        compress: Option<Arc<CompressRules>>,
        limits: &RateLimitSet,
    ) -> Option<Arc<Self>> {
        let access = AccessList::new(&config.access);
        let limits = RouteLimits::new(&config.name, &config.limit, limits);
        let cleaning = RequestCleaning::new(config);
        let has_any =
            access.is_some() || limits.is_some() || cleaning.is_some() || compress.is_some();
        has_any.then(|| {
            Arc::new(Self {
                access,
                limits,
                cleaning,
                compress,
            })
        })
    }

    /// Whether a request may have to wait for somebody else before it is admitted.
    pub fn may_wait(&self) -> bool {
        self.limits.as_ref().is_some_and(RouteLimits::may_wait)
    }

    /// The limits of what goes to the origin. None: there are none.
    pub fn origin_limits(&self) -> Option<&RouteLimits> {
        self.limits.as_ref().filter(|limits| limits.limits_origin())
    }

    /// Takes a request through the steps before its key is derived.
    pub async fn admit(&self, request: &mut ArrivedRequest) -> Admission {
        if let Some(access) = &self.access
            && let Some(refusal) = access.refuse(request.client())
        {
            return Admission::Answered(refusal);
        }
        if let Some(limits) = &self.limits {
            let limited = limits.judge(request).await;
            if let Some(rules) = &mut request.answer.rules {
                rules.limit_fields = limited.fields;
            }
            if let Some(refusal) = limited.refusal {
                return Admission::Answered(refusal);
            }
        }
        let rules = request.answer.rules.as_ref();
        if let Some(codings) = rules.and_then(|rules| rules.codings.clone()) {
            request.parts.extensions.insert(codings);
        }
        self.clean(&mut request.parts, request.wishes.upgrade.is_some());
        Admission::Admitted
    }

    /// Makes the same in the head of a request what makes no difference. `upgrades` says that it
    /// wants another protocol.
    pub fn clean(&self, parts: &mut Parts, upgrades: bool) {
        if let Some(cleaning) = &self.cleaning {
            cleaning.clean(parts, upgrades);
        }
        if let Some(compress) = &self.compress {
            compress.clean(parts);
        }
    }

    /// What becomes of the answer to this request, by what the client has sent.
    pub fn for_answer(self: &Arc<Self>, request: &ArrivedRequest) -> Box<AnswerRules> {
        let compress = self.compress.as_ref();
        Box::new(AnswerRules {
            _rules: Arc::clone(self),
            codings: compress.map(|compress| compress.client(&request.parts)),
            limit_fields: None,
        })
    }

    /// The same for a head of which no more is known than what its key held.
    pub fn clean_known(&self, parts: &mut Parts) {
        if let Some(cleaning) = &self.cleaning {
            cleaning.clean_known(parts, false);
        }
        if let Some(compress) = &self.compress {
            compress.clean(parts);
        }
    }

    /// The steps that this route has, in their order and in words.
    pub fn describe(&self) -> Vec<String> {
        let access = self.access.as_ref().map(AccessList::describe);
        let limits = self.limits.iter().flat_map(RouteLimits::describe);
        let cleaning = self.cleaning.as_ref().map(RequestCleaning::describe);
        let compress = self.compress.as_ref().map(|compress| compress.describe());
        access
            .into_iter()
            .chain(limits)
            .chain(cleaning.into_iter().flatten())
            .chain(compress)
            .collect()
    }
}

impl AnswerRules {
    /// Applies the rules for answers. Compression comes last: it is about the octets that go out.
    pub fn apply(self, mut served: CountedResponse) -> CountedResponse {
        if let Some(fields) = self.limit_fields {
            served.response.headers_mut().extend(*fields);
        }
        match self.codings {
            Some(codings) => codings.deliver(served),
            None => served,
        }
    }
}
