//! What a route does natively to requests and answers, beside caching: who may ask, what is answered
//! here, what the origin is asked for and what the client sees of an answer.
//!
//! The order of the steps is fixed. A request that has found its route goes through
//! [`RouteRules::admit`]:
//!
//! 1. [`access`]: may this address ask at all
//! 2. [`cors`]: a browser's preflight is answered
//! 3. [`auth`]: who sends it, by a password, a token or the word of a service
//!
//! and then on to the request plugin, the key and the cache. The answer, whoever made it, goes
//! through [`AnswerRules::apply`] when it is delivered.
//!
//! Two laws hold for all of them. A stored answer is never shown to a request that a rule would
//! refuse. What a rule does to an answer is not stored: after a change of the configuration it shows
//! at once, without a purge.

pub mod access;
pub mod auth;
pub mod cors;

use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;

use super::arrived::ArrivedRequest;
use super::config::RouteConfig;
use super::metrics::RequestOutcome;
use super::route::{RouteDependencies, RouteError};
use super::{CountedResponse, respond};
use access::AccessList;
use auth::RouteAuth;
use cors::{BrowserOrigin, CorsRules};

/// The compiled rules of a route.
pub struct RouteRules {
    access: Option<AccessList>,
    cors: Option<CorsRules>,
    auth: Option<RouteAuth>,
}

/// What the rules of a route do to one answer: the rules, and what of the request they need.
pub struct AnswerRules {
    rules: Arc<RouteRules>,
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
        let access = AccessList::new(&config.access);
        let cors = config.cors.as_ref().map(CorsRules::new);
        let auth = RouteAuth::new(config, label, parts)?;
        let has_any = access.is_some() || cors.is_some() || auth.is_some();
        Ok(has_any.then(|| Arc::new(Self { access, cors, auth })))
    }

    /// Whether a request may have to wait for somebody else before it is admitted.
    pub fn may_wait(&self, request: &ArrivedRequest) -> bool {
        let auth = self.auth.as_ref();
        auth.is_some_and(|auth| auth.may_wait(request))
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
        Admission::Admitted
    }

    /// What becomes of the answer to this request, by what the client has sent.
    pub fn for_answer(self: &Arc<Self>, request: &ArrivedRequest) -> Box<AnswerRules> {
        let cors = self.cors.as_ref();
        Box::new(AnswerRules {
            rules: Arc::clone(self),
            browser: cors.map(|_| BrowserOrigin::of(&request.parts)),
        })
    }

    /// The steps that this route has, in their order and in words.
    pub fn describe(&self) -> Vec<String> {
        let access = self.access.as_ref().map(AccessList::describe);
        let cors = self.cors.as_ref().map(CorsRules::describe);
        let auth = self.auth.as_ref().map(RouteAuth::describe);
        access.into_iter().chain(cors).chain(auth).collect()
    }
}

impl AnswerRules {
    /// Applies the rules for answers.
    pub fn apply(self, mut served: CountedResponse) -> CountedResponse {
        if let (Some(cors), Some(browser)) = (&self.rules.cors, &self.browser) {
            cors.apply(browser, served.response.headers_mut());
        }
        served
    }
}
