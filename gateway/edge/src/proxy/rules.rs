//! What a route does natively to requests and answers, beside caching: who may ask, what is answered
//! here, what the origin is asked for and what the client sees of an answer.
//!
//! The order of the steps is fixed. A request that has found its route goes through
//! [`RouteRules::admit`]:
//!
//! 1. [`access`]: may this address ask at all
//! 2. [`maintenance`]: is the route closed
//! 3. [`redirect`], [`direct`]: is it answered here
//!
//! and then on to the request plugin, the key and the cache. If an origin is asked, it gets what
//! [`RouteRules::for_origin`] makes of the request: another path ([`rewrite`]) and other fields
//! ([`headers`]), of which neither key nor `Vary` know. The answer, whoever made it, goes through
//! [`AnswerRules::apply`] when it is delivered: error page ([`pages`]), [`security_headers`], fields.
//!
//! Two laws hold for all of them. A stored answer is never shown to a request that a rule would
//! refuse. What a rule does to an answer is not stored: after a change of the configuration it shows
//! at once, without a purge.

pub mod access;
pub mod config;
pub mod direct;
pub mod headers;
pub mod maintenance;
pub mod pages;
pub mod redirect;
pub mod request_id;
pub mod rewrite;
pub mod security_headers;
pub mod template;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};

use super::arrived::ArrivedRequest;
use super::config::{OnOffSwitch, RouteConfig, SecurityHeaders};
use super::context::RequestContext;
use super::metrics::{DroppedValueCount, RequestFamilies, RequestOutcome};
use super::miss::source;
use super::{CountedResponse, respond};
use crate::cache::coalesce::LoadFailure;
use crate::http::body::Body;
use crate::http::forward::REQUEST_ID;
use crate::http::grpc::AnswerDialect;
use crate::http::server::Peer;
use crate::http::vary::Vary;
use access::AccessList;
use direct::DirectAnswer;
use headers::{HeaderChanges, MadeValues};
use maintenance::RouteMaintenance;
use pages::{ErrorPages, PageReader};
use redirect::RouteRedirect;
use request_id::RequestId;
use rewrite::{AnswerOrigin, PathRewrite};
use template::TemplateSource;

/// The compiled rules of a route.
pub struct RouteRules {
    route: Arc<str>,
    access: Option<AccessList>,
    maintenance: Arc<RouteMaintenance>,
    redirect: Option<RouteRedirect>,
    direct: Option<DirectAnswer>,
    rewrite: Option<PathRewrite>,
    /// What is done to the fields of a request for the origin.
    request: Option<HeaderChanges>,
    /// What is done to the fields of an answer.
    response: Option<HeaderChanges>,
    pages: Option<ErrorPages>,
    request_id: OnOffSwitch,
    security_headers: SecurityHeaders,
    dropped: DroppedValueCount,
}

/// What the rules of a route do to one answer: the rules, and what of the request they need.
pub struct AnswerRules {
    rules: Arc<RouteRules>,
    scheme: &'static str,
    /// The values of fields that depend on the request.
    made: MadeValues,
    /// None: there are no error pages for it.
    reader: Option<PageReader>,
    request_id: Option<HeaderValue>,
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
        route: &Arc<str>,
        maintenance: &Arc<RouteMaintenance>,
        metrics: &RequestFamilies,
    ) -> Option<Arc<Self>> {
        let rules = Self {
            access: AccessList::new(&config.access),
            maintenance: Arc::clone(maintenance),
            redirect: config.redirect.as_ref().and_then(RouteRedirect::new),
            direct: config.respond.as_ref().and_then(DirectAnswer::new),
            rewrite: PathRewrite::new(&config.rewrite),
            request: HeaderChanges::new(&config.headers.request),
            response: HeaderChanges::new(&config.headers.response),
            pages: ErrorPages::new(&config.errors),
            request_id: config.request_id,
            security_headers: config.security_headers,
            route: Arc::clone(route),
            dropped: metrics.dropped_values(route),
        };
        let has_any = !rules.describe().is_empty();
        has_any.then(|| Arc::new(rules))
    }

    /// Whether a request may have to wait for somebody else before it is admitted.
    pub fn may_wait(&self) -> bool {
        false
    }

    /// Gives a request its name, before anything is written about it.
    pub fn name(&self, request: &mut ArrivedRequest, peer: &Peer) {
        if self.request_id == OnOffSwitch::On {
            let id = RequestId::of(&request.parts.headers, peer);
            request.parts.extensions.insert(id);
        }
    }

    /// Takes a request through the steps before its key is derived.
    pub async fn admit(&self, request: &mut ArrivedRequest) -> Admission {
        if let Some(access) = &self.access
            && let Some(refusal) = access.refuse(request.client())
        {
            return Admission::Answered(refusal);
        }
        let (client, started) = (request.client(), request.started);
        if let Some(page) = self.maintenance.answer(&mut request.parts, client, started) {
            return Admission::Answered(page);
        }
        if let Some(redirect) = &self.redirect {
            let answer = redirect.answer(self.source(request, &request.host()));
            let outcome = match answer.status().is_redirection() {
                true => RequestOutcome::Pass,
                false => RequestOutcome::Error,
            };
            return Admission::Answered(CountedResponse::new(answer, outcome));
        }
        if let Some(direct) = &self.direct {
            let answer = direct.answer(&request.parts);
            return Admission::Answered(CountedResponse::new(answer, RequestOutcome::Pass));
        }
        Admission::Admitted
    }

    /// By which step all requests of the route are answered here, if they are.
    pub fn answer_here(&self) -> Option<&'static str> {
        match (&self.redirect, &self.direct) {
            (Some(_), _) => Some("a redirect"),
            (None, Some(_)) => Some("the route itself"),
            (None, None) => None,
        }
    }

    fn source<'a>(&'a self, request: &'a ArrivedRequest, host: &'a str) -> TemplateSource<'a> {
        TemplateSource {
            parts: &request.parts,
            host,
            scheme: request.scheme,
            client: request.client(),
            route: &self.route,
            request_id: request.parts.extensions.get().map(|RequestId(id)| id),
        }
    }

    /// Makes of a request for the origin what the rules say. Its head was that of the client, and
    /// what identifies both hops has been added.
    ///
    /// # Errors
    /// If no origin may get what comes out.
    pub fn for_origin(
        &self,
        ask: &RequestContext,
        request: &mut Request<Body>,
    ) -> Result<(), LoadFailure> {
        let source = ask.template_source();
        if let Some(rewrite) = &self.rewrite {
            rewrite.tell_prefix(&ask.parts.uri, request.headers_mut());
            let target = rewrite.target(request.uri(), source);
            let target = target.map_err(|_| source::unsafe_rewrite())?;
            *request.uri_mut() = Uri::from(target);
        }
        if let Some(id) = source.request_id {
            request.headers_mut().insert(REQUEST_ID, id.clone());
        }
        if let Some(changes) = &self.request {
            let made = changes.made(source, &self.dropped);
            changes.change_request(request.headers_mut(), made);
        }
        Ok(())
    }

    /// Whether the origin is asked for another path than the client has asked for.
    pub fn rewrites(&self) -> bool {
        self.rewrite.is_some()
    }

    /// Brings an answer to what the origin was asked for into the client's space.
    pub fn bring_back(&self, ask: &RequestContext, headers: &mut HeaderMap, asked: &Uri) {
        if let Some(rewrite) = &self.rewrite {
            let origin = AnswerOrigin {
                parts: &ask.parts,
                host: &ask.host,
                scheme: ask.scheme,
                asked,
            };
            rewrite.bring_back(headers, origin);
        }
    }

    /// Whether an answer varies by a field that the rules make of what differs between requests
    /// that are the same to the cache. `Vary` is compared with the clients' requests, which lack
    /// that field.
    pub fn tell_of_the_client(&self, response: &HeaderMap) -> bool {
        let Some(changes) = &self.request else {
            return false;
        };
        match Vary::parse(response) {
            Vary::Fields(fields) => fields.iter().any(|name| changes.tells_of_the_client(name)),
            Vary::None | Vary::Any => false,
        }
    }

    /// What becomes of the answer to this request, by what the client has sent.
    pub fn for_answer(self: &Arc<Self>, request: &ArrivedRequest) -> Box<AnswerRules> {
        let headers = &request.parts.headers;
        let id = request.parts.extensions.get::<RequestId>();
        let id = id.map(|RequestId(id)| id.clone());
        let reads_pages = self.pages.is_some() && request.answer.dialect == AnswerDialect::Http;
        let made = self.response.as_ref().map(|changes| {
            let host = request.host();
            changes.made(self.source(request, &host), &self.dropped)
        });
        Box::new(AnswerRules {
            rules: Arc::clone(self),
            scheme: request.scheme,
            made: made.unwrap_or_default(),
            reader: reads_pages.then(|| PageReader::of(headers, id.clone())),
            request_id: id,
        })
    }

    /// The steps that this route has, in their order and in words.
    pub fn describe(&self) -> Vec<String> {
        let mut steps = Vec::new();
        steps.extend(self.access.as_ref().map(AccessList::describe));
        steps.extend(self.redirect.as_ref().map(RouteRedirect::describe));
        steps.extend(self.direct.as_ref().map(DirectAnswer::describe));
        steps.extend(self.rewrite.as_ref().map(PathRewrite::describe));
        let changes = |of: &str, changes: &HeaderChanges| format!("{of}: {}", changes.describe());
        let request = self.request.as_ref();
        steps.extend(request.map(|these| changes("headers for the origin", these)));
        steps.extend(self.pages.iter().flat_map(ErrorPages::describe));
        if self.security_headers == SecurityHeaders::Basic {
            steps.push("security headers: basic".to_owned());
        }
        if self.request_id == OnOffSwitch::On {
            steps.push("request id: x-request-id".to_owned());
        }
        let response = self.response.as_ref();
        steps.extend(response.map(|these| changes("headers of answers", these)));
        steps
    }
}

impl AnswerRules {
    /// Applies the rules for answers.
    pub fn apply(self, mut served: CountedResponse) -> CountedResponse {
        let rules = &*self.rules;
        if let (Some(pages), Some(reader)) = (&rules.pages, &self.reader) {
            served = pages.apply(served, reader);
        }
        let headers = served.response.headers_mut();
        if rules.security_headers == SecurityHeaders::Basic {
            security_headers::set_basic(headers, self.scheme);
        }
        if let Some(id) = self.request_id {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(changes) = &rules.response {
            changes.change(headers, self.made);
        }
        served
    }
}
