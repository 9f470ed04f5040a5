//! A request that has found its route, as the rules of the route see it: before its key is derived,
//! and before anybody has answered it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Response};

use super::context::RequestContext;
use super::counted::CountedResponse;
use super::delivery::PendingAnswer;
use super::lookup::{HitSample, RoutedRequest};
use super::record::trail::{RequestTrail, TrailEvent};
use super::record::{PendingRecord, RecordBeginning, RequestRecorder};
use super::route::Route;
use super::rules::compress::ClientCodings;
use super::rules::request_id::RequestId;
use super::{Generation, plan};
use crate::http::body::Body;
use crate::http::forward::{HopWishes, RequestSender};
use crate::http::path::PathRules;
use crate::http::tls::TlsSession;
use crate::rate_limit::LimitVerdict;

/// A request that has found its route.
pub struct ArrivedRequest {
    pub parts: Parts,
    pub body: Body,
    /// The host that it is addressed to, in its normal form.
    pub host: String,
    pub scheme: &'static str,
    pub caller: RequestSender,
    pub wishes: HopWishes,
    /// How the listener that received it reads paths.
    pub path_rules: PathRules,
    pub tls: Option<Arc<TlsSession>>,
    pub started: Instant,
    /// The limits that it is above, which its record does not tell yet.
    pub(super) above_limits: Vec<(Arc<str>, LimitVerdict)>,
    /// Its answer, which is to be counted, logged and brought into the client's form.
    pub(super) answer: PendingAnswer,
}

impl ArrivedRequest {
    /// The client's address, also behind trusted proxies. None: they hide it.
    pub fn client(&self) -> Option<IpAddr> {
        self.caller.client()
    }

    /// The name that its route gives it.
    pub fn id(&self) -> Option<&HeaderValue> {
        self.answer.rules.as_ref()?.request_id()
    }

    /// Attaches its name to its head, where those find it that do not know the request.
    pub fn attach_name(&mut self) {
        if let Some(id) = self.id() {
            let id = RequestId(id.clone());
            self.parts.extensions.insert(id);
        }
    }

    /// Attaches to its head what the rules of its route know of it, for those who go on with the
    /// request. A hit is answered without: the map that it takes would cost more than all of it.
    pub(super) fn attach_what_is_known(&mut self, route: &Route) {
        self.attach_name();
        if let Some(codings) = self.codings_of_stored(route) {
            let codings = Arc::new(codings.clone());
            self.parts.extensions.insert(codings);
        }
    }

    /// What its client said of codings, as far as that chooses the form of a stored answer. A page that
    /// is put together here has no marks in a coded form.
    fn codings_of_stored(&self, route: &Route) -> Option<&ClientCodings> {
        let rules = self.answer.rules.as_ref().filter(|_| route.esi.is_none());
        rules?.codings()
    }

    /// The request as the look-up sees it.
    pub(super) fn routed<'a>(
        &'a self,
        route: &'a Arc<Route>,
        trail: Option<&'a RequestTrail>,
        sample: HitSample,
    ) -> RoutedRequest<'a> {
        RoutedRequest {
            parts: &self.parts,
            body: &self.body,
            host: &self.host,
            scheme: self.scheme,
            wishes: &self.wishes,
            route,
            started: self.started,
            trail,
            sample,
            codings: self.codings_of_stored(route),
        }
    }

    /// The request as an origin would hear of it, for a request beside its own: nobody reads its
    /// trail, and no connection holds its answer.
    pub(super) fn context(
        &self,
        generation: &Arc<Generation>,
        route: &Arc<Route>,
    ) -> RequestContext {
        let mut parts = self.parts.clone();
        if let Some(id) = self.id() {
            parts.extensions.insert(RequestId(id.clone()));
        }
        RequestContext {
            generation: Arc::clone(generation),
            parts,
            host: self.host.clone(),
            scheme: self.scheme,
            caller: self.caller.clone(),
            wishes: self.wishes.clone(),
            path_rules: self.path_rules,
            route: Arc::clone(route),
            started: self.started,
            interim: None,
            memory: None,
            trail: None,
        }
    }

    /// Keeps the head on the record, if a key plugin sees it: another version of the plugin can be
    /// asked about it later.
    pub(super) fn keep_head(&mut self, route: &Route) {
        if let Some((plugin, _)) = &route.key_plugin
            && plan::asks_key_plugin(route, &self.parts)
            && let Some(record) = &mut self.answer.record
        {
            record.keep_head(plugin.name(), &self.parts, &self.host);
        }
    }

    /// The record of the request, if one is kept even should it be a hit.
    pub(super) fn record_of_perhaps_a_hit(
        &self,
        recorder: &RequestRecorder,
        route: &Route,
    ) -> Option<PendingRecord> {
        recorder.of_perhaps_a_hit(self.beginning(route))
    }

    /// Begins the record of the request, which is no hit, unless it has one.
    pub(super) fn begin_record(&mut self, recorder: &RequestRecorder, route: &Route) {
        if self.answer.record.is_none() {
            self.answer.record = recorder.begin(self.beginning(route));
            self.tell_of_limits();
        }
    }

    /// Notes on its record that it is above the limit of this name.
    pub fn is_above(&mut self, limit: Arc<str>, verdict: LimitVerdict) {
        self.above_limits.push((limit, verdict));
        self.tell_of_limits();
    }

    fn tell_of_limits(&mut self) {
        if self.above_limits.is_empty() {
            return;
        }
        let record = self.answer.record.as_mut();
        if let Some(trail) = record.and_then(PendingRecord::trail) {
            for (limit, verdict) in self.above_limits.drain(..) {
                trail.note(TrailEvent::Limited(limit, verdict));
            }
        }
    }

    fn beginning<'a>(&'a self, route: &'a Route) -> RecordBeginning<'a> {
        let (parts, host) = (&self.parts, &*self.host);
        let of = RecordBeginning::of(
            parts,
            host,
            &self.caller,
            Some(route.recorded()),
            self.started,
        );
        of.over(self.tls.as_ref()).named(self.id())
    }

    /// The answer to a request that goes no further.
    pub(super) fn refused(
        mut self,
        recorder: &RequestRecorder,
        route: &Route,
        served: CountedResponse,
    ) -> Response<Body> {
        self.begin_record(recorder, route);
        self.answer.finish(route, served, self.started)
    }
}
