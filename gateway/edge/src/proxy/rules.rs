//! What a route does natively to requests and answers, beside caching: who may ask, what is answered
//! here, what the origin is asked for and what the client sees of an answer.
//!
//! The order of the steps is fixed. A request that has found its route goes through
//! [`RouteRules::admit`]:
//!
//! 1. [`access`]: may this address ask at all
//! 2. [`maintenance`]: is the route closed
//! 3. [`redirect`], [`trailing_slash`], [`direct`]: is it answered here
//! 4. [`limits`]: has it asked too often
//! 5. [`cors`]: a browser's preflight is answered
//! 6. [`auth`]: who sends it, by a password, a token or the word of a service
//! 7. [`cleaning`]: what makes no difference is removed, and what is not for the cache is marked;
//!    [`cors`] removes `Origin`
//! 8. [`compress`]: `Accept-Encoding` is replaced by what the origin is asked for
//!
//! and then on to the request plugin, the key and the cache. If an origin is asked, it gets what
//! [`RouteRules::for_origin`] makes of the request: another path ([`rewrite`]) and other fields
//! ([`headers`]), of which neither key nor `Vary` know. The answer, whoever made it, goes through
//! [`AnswerRules::apply`] when it is delivered: a coding that its client does not take is undone
//! ([`compress`]), then error page ([`pages`]), [`security_headers`], fields.
//!
//! Two laws hold for all of them. A stored answer is never shown to a request that a rule would
//! refuse. What a rule does to an answer is not stored: after a change of the configuration it shows
//! at once, without a purge.

pub mod access;
mod answer_rules;
pub mod auth;
pub mod cleaning;
pub mod compress;
pub mod config;
pub mod cors;
pub mod direct;
pub mod headers;
mod lifetime_claim;
pub mod limits;
pub mod maintenance;
pub mod pages;
pub mod present;
pub mod redirect;
pub mod request_id;
pub mod rewrite;
pub mod security_headers;
pub mod template;
pub mod trailing_slash;

pub use answer_rules::AnswerRules;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};

use super::arrived::ArrivedRequest;
use super::config::{OnOffSwitch, RouteConfig, SecurityHeaders};
use super::context::RequestContext;
use super::counted::{AnsweringRule, CountedResponse};
use super::metrics::{DroppedValueCount, RequestOutcome};
use super::respond;
use super::route::{RouteDependencies, RouteError};
use crate::cache::coalesce::LoadFailure;
use crate::http::body::Body;
use crate::http::forward::{HopWishes, REQUEST_ID};
use crate::http::vary::Vary;
use crate::rate_limit::config::LimitPlace;
use access::AccessList;
use auth::RouteAuth;
use cleaning::{BypassesCache, RequestCleaning};
use compress::CompressRules;
use cors::{CorsRules, SiteOfRequests};
use direct::DirectAnswer;
use headers::HeaderChanges;
use lifetime_claim::PageAssembly;
use limits::RouteLimits;
use maintenance::RouteMaintenance;
use pages::ErrorPages;
use redirect::RouteRedirect;
use rewrite::{AnswerOrigin, PathRewrite};
use template::TemplateSource;
use trailing_slash::config::TrailingSlash;

/// The compiled rules of a route.
pub struct RouteRules {
    route: Arc<str>,
    access: Option<AccessList>,
    cleaning: Option<RequestCleaning>,
    compress: Option<Arc<CompressRules>>,
    limits: Option<RouteLimits>,
    cors: Option<CorsRules>,
    site: SiteOfRequests,
    auth: Option<RouteAuth>,
    maintenance: Arc<RouteMaintenance>,
    redirect: Option<RouteRedirect>,
    trailing_slash: TrailingSlash,
    direct: Option<DirectAnswer>,
    rewrite: Option<PathRewrite>,
    /// What is done to the fields of a request for the origin.
    request: Option<HeaderChanges>,
    /// What is done to the fields of an answer.
    response: Option<HeaderChanges>,
    pages: Option<ErrorPages>,
    request_id: OnOffSwitch,
    security_headers: SecurityHeaders,
    puts_pages_together: PageAssembly,
    dropped: DroppedValueCount,
}

/// What the rules say of a request.
pub enum RuleAdmission {
    /// It goes on to the request plugin, the key and the cache.
    Admitted,
    /// It has its answer.
    Answered(CountedResponse),
}

impl RuleAdmission {
    /// What is said of a request if a step waits that is said never to wait: nobody is let in by
    /// mistake.
    pub fn unable() -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let answer = respond::plain(status, respond::text(status));
        Self::Answered(CountedResponse::new(answer, RequestOutcome::Error))
    }
}

impl RouteRules {
    /// What answers on a closed route, in words.
    pub const CLOSED: &'static str = "maintenance (503)";

    /// The rules of a route. None: it has none, so that its requests skip all these steps.
    ///
    /// # Errors
    /// If an upstream does not exist.
    pub fn new(
        config: &RouteConfig,
        label: &Arc<str>,
        maintenance: &Arc<RouteMaintenance>,
        parts: &RouteDependencies<'_>,
    ) -> Result<Option<Arc<Self>>, RouteError> {
        let rules = Self {
            route: Arc::clone(label),
            access: AccessList::new(&config.access),
            maintenance: Arc::clone(maintenance),
            redirect: config.redirect.as_ref().and_then(RouteRedirect::new),
            trailing_slash: config.trailing_slash,
            direct: config.respond.as_ref().and_then(DirectAnswer::new),
            limits: RouteLimits::new(&config.name, &config.limit, parts.limits),
            cors: config.cors.as_ref().map(CorsRules::new),
            site: SiteOfRequests::of(config),
            auth: RouteAuth::new(config, label, parts)?,
            cleaning: RequestCleaning::new(config),
            compress: CompressRules::new(config.compress.as_ref(), &parts.compress),
            rewrite: PathRewrite::new(&config.rewrite),
            request: HeaderChanges::new(&config.headers.request),
            response: HeaderChanges::new(&config.headers.response),
            pages: ErrorPages::new(&config.errors),
            request_id: config.request_id,
            security_headers: config.security_headers,
            puts_pages_together: match config.esi {
                Some(_) => PageAssembly::On,
                None => PageAssembly::Off,
            },
            dropped: parts.metrics.dropped_values(label),
        };
        Ok((!rules.does_nothing()).then(|| Arc::new(rules)))
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

    /// Whether the rules may change what the record of a request shows of its head: fields of a
    /// service or of the device may have any name.
    pub fn change_what_is_recorded(&self) -> bool {
        let cleaning = self.cleaning.as_ref();
        self.auth.is_some() || cleaning.is_some_and(RequestCleaning::tells_device)
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
        self.auth
            .iter()
            .for_each(|auth| auth.pretend(parts, |parts| self.mark_bypass(parts)));
    }

    /// Takes a request through the steps before its key is derived.
    pub async fn admit(&self, request: &mut ArrivedRequest) -> RuleAdmission {
        if let Some(access) = &self.access
            && let Some(refusal) = access.refuse(request.client())
        {
            return RuleAdmission::Answered(refusal.by(AnsweringRule::Access));
        }
        if self.maintenance.may_be_on() {
            request.attach_name();
            let (client, started) = (request.client(), request.started);
            if let Some(page) = self.maintenance.answer(&mut request.parts, client, started) {
                return RuleAdmission::Answered(page);
            }
        }
        if let Some(redirect) = &self.redirect {
            let answer = redirect.answer(self.source(request, request.id()));
            let outcome = match answer.status().is_redirection() {
                true => RequestOutcome::Pass,
                false => RequestOutcome::Error,
            };
            let answer = CountedResponse::new(answer, outcome);
            return RuleAdmission::Answered(answer.by(AnsweringRule::Redirect));
        }
        if let Some(redirect) = self.trailing_slash.answer(&request.parts, &request.wishes) {
            let answer = CountedResponse::new(redirect, RequestOutcome::Pass);
            return RuleAdmission::Answered(answer.by(AnsweringRule::TrailingSlash));
        }
        if let Some(direct) = &self.direct {
            let answer = direct.answer(&request.parts);
            let answer = CountedResponse::new(answer, RequestOutcome::Pass);
            return RuleAdmission::Answered(answer.by(AnsweringRule::Respond));
        }
        if let Some(limits) = &self.limits {
            let limited = limits.judge(request).await;
            if let Some(rules) = &mut request.answer.rules {
                rules.limit_fields = limited.fields;
            }
            if let Some(refusal) = limited.refusal {
                return RuleAdmission::Answered(refusal.by(AnsweringRule::Limit));
            }
        }
        if let Some(cors) = &self.cors
            && let Some(answer) = cors.answer(&request.parts)
        {
            return RuleAdmission::Answered(answer.by(AnsweringRule::Cors));
        }
        if let Some(auth) = &self.auth
            && let Err(refusal) = auth.admit(request, |parts| self.mark_bypass(parts)).await
        {
            return RuleAdmission::Answered(refusal.by(AnsweringRule::Auth));
        }
        self.clean(&mut request.parts, request.wishes.upgrade.is_some());
        RuleAdmission::Admitted
    }

    /// Marks a request that is not for the cache by what it still shows of its sender.
    fn mark_bypass(&self, parts: &mut Parts) {
        if let Some(cleaning) = &self.cleaning {
            cleaning.mark_bypass(parts);
        }
    }

    /// Makes the same in the head of a request what makes no difference. `upgrades` says that it
    /// wants another protocol.
    pub fn clean(&self, parts: &mut Parts, upgrades: bool) {
        if let Some(cleaning) = &self.cleaning {
            cleaning.clean(parts, upgrades);
        }
        self.site.clean(parts, upgrades);
        if let Some(compress) = &self.compress {
            compress.clean(parts);
        }
    }

    /// Whether the route asks nobody, whatever a request is.
    pub fn asks_nobody(&self) -> bool {
        self.redirect.is_some() || self.direct.is_some()
    }

    /// Whether no request with this head, which was cleaned, is looked up in the cache, whoever sends
    /// it.
    pub fn keep_from_cache(&self, parts: &Parts) -> bool {
        let wishes = HopWishes::default();
        self.asks_nobody()
            || self.trailing_slash.answer(parts, &wishes).is_some()
            || parts.extensions.get::<BypassesCache>().is_some()
    }

    /// Which step answers a request of this client before the cache, if one does whose answer needs
    /// no allowance, no password and nobody else: the same ones as in [`admit`](Self::admit), in
    /// their order. Nothing is said of the networks of a client who is unknown.
    pub fn answer_here(
        &self,
        parts: &mut Parts,
        client: Option<IpAddr>,
        wishes: &HopWishes,
    ) -> Option<String> {
        let access = self.access.as_ref();
        if client.is_some() && access.is_some_and(|access| access.refuse(client).is_some()) {
            return Some("access (403)".to_owned());
        }
        if self
            .maintenance
            .answer(parts, client, Instant::now())
            .is_some()
        {
            return Some(Self::CLOSED.to_owned());
        }
        if self.redirect.is_some() {
            return Some("a redirect".to_owned());
        }
        if let Some(redirect) = self.trailing_slash.answer(parts, wishes) {
            let status = redirect.status().as_u16();
            return Some(format!("a redirect of trailing_slash ({status})"));
        }
        if self.direct.is_some() {
            return Some("the route itself".to_owned());
        }
        let cors = self.cors.as_ref().and_then(|cors| cors.answer(parts));
        cors.map(|_| "cors, since it is a browser's preflight (204)".to_owned())
    }

    fn source<'a>(
        &'a self,
        request: &'a ArrivedRequest,
        request_id: Option<&'a HeaderValue>,
    ) -> TemplateSource<'a> {
        TemplateSource {
            parts: &request.parts,
            host: &request.host,
            scheme: request.scheme,
            client: request.client(),
            route: &self.route,
            request_id,
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
            let target = rewrite.target(request.uri(), source)?;
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

    /// Whether the origin gets a field `name` that the rules make of what the key does not hold.
    pub fn make_of_what_is_unkeyed(
        &self,
        name: &HeaderName,
        is_keyed: &dyn Fn(&HeaderName) -> bool,
    ) -> bool {
        let changes = self.request.as_ref();
        changes.is_some_and(|changes| changes.make_of_what_is_unkeyed(name, is_keyed))
    }

    /// The same for a head of which no more is known than what its key held.
    pub fn clean_known(&self, parts: &mut Parts) {
        if let Some(cleaning) = &self.cleaning {
            cleaning.clean_known(parts, false);
        }
        self.site.clean(parts, false);
        if let Some(compress) = &self.compress {
            compress.clean(parts);
        }
    }

    /// The steps before the request plugin, the key and the cache, in their order and in words.
    /// `closed` is what is said of the maintenance of the route.
    pub fn describe_admission(&self, closed: Option<String>) -> Vec<String> {
        let mut steps = Vec::new();
        if self.request_id == OnOffSwitch::On {
            steps.push("request id: x-request-id".to_owned());
        }
        steps.extend(self.access.as_ref().map(AccessList::describe));
        steps.extend(closed);
        steps.extend(self.redirect.as_ref().map(RouteRedirect::describe));
        steps.extend(self.trailing_slash.describe());
        steps.extend(self.direct.as_ref().map(DirectAnswer::describe));
        let edge = LimitPlace::Edge;
        steps.extend(self.limits.iter().flat_map(|limits| limits.describe(edge)));
        steps.extend(self.cors.as_ref().map(CorsRules::describe));
        steps.extend(self.auth.as_ref().map(RouteAuth::describe));
        steps.extend(self.cleaning.iter().flat_map(RequestCleaning::describe));
        steps
    }

    /// The steps on the way to the origin.
    pub fn describe_origin(&self) -> Vec<String> {
        let mut steps = Vec::new();
        let origin = LimitPlace::Origin;
        steps.extend(
            self.limits
                .iter()
                .flat_map(|limits| limits.describe(origin)),
        );
        steps.extend(self.rewrite.as_ref().map(PathRewrite::describe));
        steps.extend(self.request.as_ref().map(|changes| {
            let changes = changes.describe();
            format!("headers for the origin: {changes}")
        }));
        steps
    }

    /// The steps of an answer that is delivered.
    pub fn describe_delivery(&self) -> Vec<String> {
        let mut steps = Vec::new();
        steps.extend(self.pages.iter().flat_map(ErrorPages::describe));
        if self.security_headers == SecurityHeaders::Basic {
            steps.push("security headers: basic".to_owned());
        }
        steps.extend(self.response.as_ref().map(|changes| {
            let changes = changes.describe();
            format!("headers of answers: {changes}")
        }));
        steps.extend(self.compress.as_ref().map(|compress| compress.describe()));
        steps
    }

    fn does_nothing(&self) -> bool {
        let steps = [
            self.describe_admission(None),
            self.describe_origin(),
            self.describe_delivery(),
        ];
        steps.iter().all(Vec::is_empty)
    }
}
