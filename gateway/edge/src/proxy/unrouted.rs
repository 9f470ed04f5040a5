//! A request whose route is not known yet: [`UnroutedRequest`]. Answers that need no route are given
//! here: of challenges, purges, redirects to https, and refusals.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};

use super::counted::CountedResponse;
use super::delivery::PendingAnswer;
use super::generation::Generation;
use super::metrics::RequestOutcome;
use super::purge_method::{PageRefresh, PurgeMethodRequest};
use super::record::{PendingRecord, RecordBeginning, RequestRecorder};
use super::target::{PathRefusal, RoutingOutcome};
use super::{Proxy, challenge, context, respond, to_https};
use crate::http::body::Body;
use crate::http::forward::RequestSender;
use crate::http::path::{PathFault, PathRules, PathSpelling};
use crate::http::tls::TlsSession;
use crate::http::tls::config::RedirectTarget;

/// A request whose route is not known yet.
#[derive(Clone, Copy)]
pub(super) struct UnroutedRequest<'a> {
    pub(super) parts: &'a Parts,
    pub(super) host: &'a str,
    pub(super) caller: &'a RequestSender,
    pub(super) tls: Option<&'a Arc<TlsSession>>,
    /// What `X-Host` said, in which requests to purge name whose pages they mean.
    pub(super) named_host: Option<&'a HeaderValue>,
    pub(super) started: Instant,
}

impl UnroutedRequest<'_> {
    /// The answer that needs no route. `challenge` is the text that proves a name to an authority, and
    /// `redirect` where the listener sends its clients.
    pub(super) fn answer(
        &self,
        proxy: &Proxy,
        generation: &Generation,
        challenge: Option<Arc<str>>,
        redirect: Option<RedirectTarget>,
    ) -> Option<CountedResponse> {
        let Self { parts, host, .. } = *self;
        if let Some(text) = challenge {
            return Some(challenge::answer(&text));
        }
        let purge_method = &generation.purge_method;
        if purge_method.takes(parts) {
            let answer = match proxy.passes_on() {
                true => respond::plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "503 another process takes purges now: connect again\n",
                ),
                false => {
                    let named = self.named_host;
                    let asked = PurgeMethodRequest::new(parts, host, self.caller, named);
                    purge_method.answer(generation, &proxy.cache, &asked)
                }
            };
            return Some(CountedResponse::new(answer, RequestOutcome::Pass));
        }
        to_https::answer(redirect?, parts, host, &generation.routes, &proxy.tls)
    }

    /// Lets the page be loaded again for everybody. None if the request does not ask for that, or may
    /// not.
    pub(super) fn begin_refresh(
        &self,
        proxy: &Proxy,
        generation: &Generation,
    ) -> Option<PageRefresh> {
        let purge_method = &generation.purge_method;
        if !purge_method.is_refresh(self.parts, self.caller) {
            return None;
        }
        if proxy.passes_on() {
            return Some(PageRefresh::LeftToSuccessor);
        }
        let (cache, host) = (&proxy.cache, self.host);
        purge_method.begin_refresh(generation, cache, self.parts, host, self.caller);
        Some(PageRefresh::Begun)
    }

    /// The route of the request, whose path was spelled so when it arrived.
    pub(super) fn route<'g>(
        &self,
        generation: &'g Generation,
        spelling: Result<PathSpelling, PathFault>,
        rules: PathRules,
    ) -> RoutingOutcome<'g> {
        match spelling {
            Ok(spelling) => {
                let routes = &generation.routes;
                routes.target(self.host, self.parts, spelling, rules)
            }
            Err(fault) => RoutingOutcome::Refused(PathRefusal::Fault(fault)),
        }
    }

    /// Counts and logs an answer that no route has given.
    pub(super) fn finish(
        &self,
        recorder: &RequestRecorder,
        served: CountedResponse,
    ) -> Response<Body> {
        self.finish_recorded(self.record(recorder), served)
    }

    /// The answer to a request with a refused path. The log has details that the client does not
    /// get.
    pub(super) fn refuse(&self, generation: &Generation, why: &PathRefusal) -> Response<Body> {
        if let Some(dropped) = generation.refused_paths.admit(self.started) {
            tracing::warn!(reason = %why, dropped, "a request was refused for its path");
        }
        let text = format!("400 {}\n", why.reason());
        let answer = respond::plain(StatusCode::BAD_REQUEST, text);
        let record = self.record(&generation.recorder);
        let record = record.map(|record| record.because(why));
        self.finish_recorded(record, CountedResponse::new(answer, RequestOutcome::Error))
    }

    fn record(&self, recorder: &RequestRecorder) -> Option<PendingRecord> {
        let Self { parts, caller, .. } = *self;
        let beginning = RecordBeginning::of(parts, self.host, caller, None, self.started);
        recorder.begin(beginning.over(self.tls))
    }

    fn finish_recorded(
        &self,
        record: Option<PendingRecord>,
        served: CountedResponse,
    ) -> Response<Body> {
        PendingAnswer::new(record, context::dialect(self.parts)).give(served)
    }
}

/// The answer to a request for which there is no route.
pub(super) fn nowhere() -> CountedResponse {
    let answer = respond::plain(StatusCode::NOT_FOUND, "404 no route\n");
    CountedResponse::new(answer, RequestOutcome::Error)
}
