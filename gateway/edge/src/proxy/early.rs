//! Requests that come before the handshake of their connection is complete (RFC 8470).
//!
//! Whoever has recorded them can send them again. So only what changes nothing is answered at once:
//! GET and HEAD for which a fresh entry of L1 is the answer, on a route without plugins and rules. All else
//! waits for the handshake, and tells the origin that it came early.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use super::delivery::PendingAnswer;
use super::lookup::{CacheLookupOutcome, HitSample, RoutedRequest, look};
use super::metrics::RequestOutcome;
use super::record::RecordBeginning;
use super::target::RoutingOutcome;
use super::{Proxy, context, path, respond};
use crate::http::body::Body;
use crate::http::forward::ForwardingContext;
use crate::http::server::{
    AwaitedHandshake, EarlyRequest, HandlerAnswer, InterimChannel, RequestArrival,
};

/// Tells a server that a request came early somewhere on its way (RFC 8470 §5.1).
const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

impl Proxy {
    /// Answers an early request at once if a fresh entry does, otherwise after the handshake.
    pub(super) fn handle_early(
        self: &Arc<Self>,
        early: EarlyRequest,
        (mut parts, body): (Parts, Body),
        entered: RequestArrival,
        channel: &InterimChannel,
    ) -> HandlerAnswer {
        if let Some(answer) = self.early_hit(&parts, &body, &entered, channel.began()) {
            return HandlerAnswer::Now(answer);
        }
        let (proxy, channel) = (Arc::clone(self), channel.clone());
        HandlerAnswer::later(async move {
            if early.handshake().await == AwaitedHandshake::Failed {
                return respond::plain(StatusCode::TOO_EARLY, "425 the handshake has failed\n");
            }
            let value = HeaderValue::from_static("1");
            parts.headers.insert(EARLY_DATA, value);
            match proxy.handle(parts, body, entered, &channel) {
                HandlerAnswer::Now(response) => response,
                HandlerAnswer::Later(response) => response.await,
            }
        })
    }

    /// The answer of a fresh entry.
    fn early_hit(
        &self,
        parts: &Parts,
        body: &Body,
        entered: &RequestArrival,
        started: Instant,
    ) -> Option<Response<Body>> {
        let generation = self.generation.load();
        let is_read = matches!(parts.method, Method::GET | Method::HEAD) && body.is_empty();
        if !is_read || entered.peer.redirect.is_some() {
            return None;
        }
        let mut parts = parts.clone();
        let spelling = path::arrive(&mut parts.uri).ok()?;
        if generation.purge_method.takes(&parts) {
            return None;
        }
        let ForwardingContext { caller, wishes, .. } = &entered.received;
        if generation.purge_method.is_refresh(&parts, caller) {
            return None;
        }
        let scheme = caller.scheme();
        let host = context::host(&parts, scheme);
        let rules = entered.peer.path_rules;
        let target = generation.routes.target(&host, &parts, spelling, rules);
        let RoutingOutcome::Route(route) = target else {
            return None;
        };
        if route.has_plugins()
            || route.rules.is_some()
            || route.split.is_some()
            || route.esi.is_some()
            || route.maintenance.may_be_on()
        {
            return None;
        }
        let found = look(
            self,
            &RoutedRequest {
                parts: &parts,
                body,
                host: &host,
                scheme,
                wishes,
                route,
                started,
                trail: None,
                sample: HitSample::LeftOut,
                codings: None,
            },
        );
        let served = match found {
            CacheLookupOutcome::Answer(served) if served.outcome == RequestOutcome::Hit => served,
            _ => return None,
        };
        let beginning = RecordBeginning::of(&parts, &host, caller, Some(route.recorded()), started);
        let record = generation
            .recorder
            .of_perhaps_a_hit(beginning.over(entered.tls.as_ref()));
        let answer = PendingAnswer::new(record, context::dialect(&parts));
        Some(answer.finish(route, served, started))
    }
}
