//! What a route does natively to requests and answers, beside caching: who may ask, what is answered
//! here, what the origin is asked for and what the client sees of an answer.
//!
//! The order of the steps is fixed. A request that has found its route goes through
//! [`RouteRules::admit`]:
//!
//! 1. [`access`]: may this address ask at all
//! 2. [`limits`]: has it asked too often
//! 3. [`cors`]: a browser's preflight is answered
//! 4. [`auth`]: who sends it, by a password, a token or the word of a service
//! 5. [`cleaning`]: what makes no difference is removed, and what is not for the cache is marked
//! 6. [`compress`]: `Accept-Encoding` is replaced by what the origin is asked for
//!
//! and then on to the request plugin, the key and the cache. The answer, whoever made it, goes
//! through [`AnswerRules::apply`] when it is delivered.
//!
//! Two laws hold for all of them. A stored answer is never shown to a request that a rule would
//! refuse. What a rule does to an answer is not stored: after a change of the configuration it shows
//! at once, without a purge.

pub mod access;
pub mod auth;
pub mod cleaning;
pub mod compress;
pub mod cors;
pub mod limits;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::arrived::ArrivedRequest;
use super::config::RouteConfig;
use super::metrics::RequestOutcome;
use super::route::{RouteDependencies, RouteError};
use super::{CountedResponse, respond};
use access::AccessList;
use auth::RouteAuth;
use cleaning::RequestCleaning;
use compress::{ClientCodings, CompressRules};
use cors::{BrowserOrigin, CorsRules};
use limits::RouteLimits;

/// The compiled rules of a route.
pub struct RouteRules {
    access: Option<AccessList>,
    cleaning: Option<RequestCleaning>,
    compress: Option<Arc<CompressRules>>,
    limits: Option<RouteLimits>,
    cors: Option<CorsRules>,
    auth: Option<RouteAuth>,
}

/// What the rules of a route do to one answer: the rules, and what of the request they need.
pub struct AnswerRules {
    rules: Arc<RouteRules>,
    /// What the client said of codings, if the route compresses.
    codings: Option<Arc<ClientCodings>>,
    /// What the rate limits tell the client.
    limit_fields: Option<Box<HeaderMap>>,
    browser: Option<BrowserOrigin>,
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
    ///
    /// # Errors
    /// If an upstream does not exist.
    pub fn new(
        config: &RouteConfig,
        label: &Arc<str>,
        parts: &RouteDependencies<'_>,
    ) -> Result<Option<Arc<Self>>, RouteError> {
        let rules = Self {
            access: AccessList::new(&config.access),
            limits: RouteLimits::new(&config.name, &config.limit, parts.limits),
            cors: config.cors.as_ref().map(CorsRules::new),
            auth: RouteAuth::new(config, label, parts)?,
            cleaning: RequestCleaning::new(config),
            compress: CompressRules::new(config.compress.as_ref(), &parts.compress),
        };
        Ok((!rules.are_none()).then(|| Arc::new(rules)))
    }

    fn are_none(&self) -> bool {
        self.access.is_none()
            && self.limits.is_none()
            && self.cors.is_none()
            && self.auth.is_none()
            && self.cleaning.is_none()
            && self.compress.is_none()
    }

    /// Whether a request may have to wait for somebody else before it is admitted.
    pub fn may_wait(&self, request: &ArrivedRequest) -> bool {
        let (limits, auth) = (self.limits.as_ref(), self.auth.as_ref());
        limits.is_some_and(RouteLimits::may_wait) || auth.is_some_and(|auth| auth.may_wait(request))
    }

    /// The limits of what goes to the origin. None: there are none.
    pub fn origin_limits(&self) -> Option<&RouteLimits> {
        self.limits.as_ref().filter(|limits| limits.limits_origin())
    }

    /// Whether the origin learns something from the rules that no client has sent.
    pub fn tell_origin(&self) -> bool {
        self.auth.as_ref().is_some_and(RouteAuth::tells_origin)
    }

    /// Begins what is done from time to time.
    pub fn begin_work(&self) {
        self.auth.iter().for_each(RouteAuth::begin_work);
    }

    /// Makes of a request that nobody has sent what would go on of it.
    pub fn pretend(&self, parts: &mut Parts) {
        self.auth.iter().for_each(|auth| auth.pretend(parts));
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
        if let Some(cors) = &self.cors
            && let Some(answer) = cors.answer(&request.parts)
        {
            return Admission::Answered(answer);
        }
        if let Some(auth) = &self.auth
            && let Err(refusal) = auth.admit(request).await
        {
            return Admission::Answered(refusal);
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
        let (compress, cors) = (self.compress.as_ref(), self.cors.as_ref());
        Box::new(AnswerRules {
            rules: Arc::clone(self),
            codings: compress.map(|compress| compress.client(&request.parts)),
            limit_fields: None,
            browser: cors.map(|_| BrowserOrigin::of(&request.parts)),
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
        let cors = self.cors.as_ref().map(CorsRules::describe);
        let auth = self.auth.as_ref().map(RouteAuth::describe);
        let cleaning = self.cleaning.as_ref().map(RequestCleaning::describe);
        let compress = self.compress.as_ref().map(|compress| compress.describe());
        access
            .into_iter()
            .chain(limits)
            .chain(cors)
            .chain(auth)
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
        if let (Some(cors), Some(browser)) = (&self.rules.cors, &self.browser) {
            cors.apply(browser, served.response.headers_mut());
        }
        match self.codings {
            Some(codings) => codings.deliver(served),
            None => served,
        }
    }
}
