//! A request whose route is not known yet: [`UnroutedRequest`]. Answers that need no route are given
//! here: of challenges, purges, redirects to https, and refusals.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use tokio::sync::oneshot;

use super::counted::CountedResponse;
use super::delivery::PendingAnswer;
use super::generation::Generation;
use super::metrics::RequestOutcome;
use super::purge_method::PurgeMethodRequest;
use super::record::{PendingRecord, RecordBeginning, RequestRecorder};
use super::target::{PathRefusal, RoutingOutcome};
use super::{Proxy, challenge, context, respond, to_https};
use crate::cache::l2::store::LogNumber;
use crate::cache::successor::SuccessorKnowledge;
use crate::http::body::{Body, collect};
use crate::http::forward::RequestSender;
use crate::http::path::{PathFault, PathRules, PathSpelling};
use crate::http::server::HandlerAnswer;
use crate::http::tls::TlsSession;
use crate::http::tls::config::RedirectTarget;

/// A request whose route is not known yet.
#[derive(Clone, Copy)]
pub(super) struct UnroutedRequest<'a> {
    pub(super) parts: &'a Parts,
    pub(super) said: SaidInBody<'a>,
    pub(super) host: &'a str,
    pub(super) caller: &'a RequestSender,
    pub(super) tls: Option<&'a Arc<TlsSession>>,
    /// What `X-Host` said, in which requests to purge name whose pages they mean.
    pub(super) named_host: Option<&'a HeaderValue>,
    pub(super) path_rules: PathRules,
    pub(super) started: Instant,
}

/// What the body of a request to purge says, if it says something.
#[derive(Clone, Copy)]
pub(super) struct SaidInBody<'a>(&'a [u8]);

/// A refresh whose page is stale on this node already.
pub(super) struct BegunRefresh {
    logged: Vec<oneshot::Receiver<LogNumber>>,
}

/// How long a refresh waits for the second tier's log before it loads its page.
const PATIENCE_OF_REFRESH: Duration = Duration::from_secs(1);

/// The most bytes of the body of a request to purge that are read.
const MOST_SAID: usize = 4 << 10;

impl<'a> SaidInBody<'a> {
    /// What a body says that was read before ([`read_before_purge`]).
    pub(super) fn of(body: &'a Body) -> Self {
        Self(match body {
            Body::Full(Some(content)) => content,
            Body::Boxed(_) if !body.is_empty() => UNREAD,
            Body::Empty | Body::Full(None) | Body::Boxed(_) => &[],
        })
    }
}

/// What is too large to be read, or broke off, says something.
const UNREAD: &[u8] = b"?";

/// The body of a request to purge as far as it matters whether it says something.
pub(super) async fn read_before_purge(body: Body) -> Body {
    let said = collect(body, MOST_SAID).await;
    Body::full(said.unwrap_or(Bytes::from_static(UNREAD)))
}

impl BegunRefresh {
    /// Whether the second tier's log has yet to take it.
    pub(super) fn is_to_be_logged(&self) -> bool {
        !self.logged.is_empty()
    }

    /// Waits until the second tier's log has taken it, or has had time to.
    pub(super) async fn logged(self) {
        let logged = join_all(self.logged);
        // Without the log's answer the page is stale once more when that comes.
        let _ = tokio::time::timeout(PATIENCE_OF_REFRESH, logged).await;
    }
}

/// An answer that needs no route.
pub(super) enum UnroutedAnswer {
    Whole(CountedResponse),
    /// To a purge, of which another process is to hear first.
    Purged(CountedResponse),
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
    ) -> Option<UnroutedAnswer> {
        let Self { parts, host, .. } = *self;
        if let Some(text) = challenge {
            return Some(UnroutedAnswer::Whole(challenge::answer(&text)));
        }
        let purge_method = &generation.purge_method;
        if purge_method.takes(parts) {
            let (content, rules) = ((parts, self.said.0), self.path_rules);
            let asked = PurgeMethodRequest::new(content, host, self.caller, self.named_host, rules);
            let answer = purge_method.answer(generation, &proxy.cache, &asked);
            let served = CountedResponse::new(answer, RequestOutcome::Pass);
            return Some(match proxy.passes_on() {
                true => UnroutedAnswer::Purged(served),
                false => UnroutedAnswer::Whole(served),
            });
        }
        let answer = to_https::answer(redirect?, parts, host, &generation.routes, &proxy.tls);
        answer.map(UnroutedAnswer::Whole)
    }

    /// Lets the page be loaded again for everybody, if the request asks for that and may.
    pub(super) fn begin_refresh(
        &self,
        proxy: &Proxy,
        generation: &Generation,
    ) -> Option<BegunRefresh> {
        let purge_method = &generation.purge_method;
        let refreshes = purge_method.is_refresh(self.parts, self.caller);
        let begin = || {
            let (cache, host) = (&proxy.cache, self.host);
            purge_method.begin_refresh(generation, cache, self.parts, host, self.caller)
        };
        refreshes.then(|| BegunRefresh { logged: begin() })
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

    /// Gives an answer that needed no route. That to a purge, while another process takes the place
    /// of this one, waits until the purge holds there.
    pub(super) fn give(
        &self,
        proxy: &Arc<Proxy>,
        recorder: &RequestRecorder,
        answer: UnroutedAnswer,
    ) -> HandlerAnswer {
        let served = match answer {
            UnroutedAnswer::Whole(served) => {
                return HandlerAnswer::Now(self.finish(recorder, served));
            }
            UnroutedAnswer::Purged(served) => served,
        };
        let (proxy, record) = (Arc::clone(proxy), self.record(recorder));
        let pending = PendingAnswer::new(record, context::dialect(self.parts));
        HandlerAnswer::later(async move {
            let is_known = proxy.cache.successor_knows().await == SuccessorKnowledge::Knows;
            let served = match is_known || !proxy.passes_on() {
                true => served,
                false => CountedResponse::new(held_here_alone(), RequestOutcome::Error),
            };
            pending.give(served)
        })
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

/// The answer to a purge that the process which has taken over does not confirm.
fn held_here_alone() -> Response<Body> {
    let text = "503 another process takes purges now: connect again\n";
    respond::plain(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// The answer to a request for which there is no route.
pub(super) fn nowhere() -> CountedResponse {
    let answer = respond::plain(StatusCode::NOT_FOUND, "404 no route\n");
    CountedResponse::new(answer, RequestOutcome::Error)
}
