//! A request that has found its route, as the rules of the route see it: before its key is derived,
//! and before anybody has answered it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::Response;
use http::request::Parts;

use super::context::RequestContext;
use super::counted::CountedResponse;
use super::delivery::PendingAnswer;
use super::lookup::{HitSample, RoutedRequest};
use super::record::trail::RequestTrail;
use super::record::{PendingRecord, RecordBeginning, RequestRecorder};
use super::route::Route;
use super::{Generation, context, plan};
use crate::http::body::Body;
use crate::http::forward::{HopWishes, RequestSender};
use crate::http::path::PathRules;
use crate::http::tls::TlsSession;

/// A request that has found its route.
pub struct ArrivedRequest {
    pub parts: Parts,
    pub body: Body,
    /// The host that it is addressed to, where it can't be read from `parts` any more. See
    /// [`host`](Self::host).
    pub(super) kept_host: Option<String>,
    pub scheme: &'static str,
    pub caller: RequestSender,
    pub wishes: HopWishes,
    /// How the listener that received it reads paths.
    pub path_rules: PathRules,
    pub tls: Option<Arc<TlsSession>>,
    pub started: Instant,
    /// Its answer, which is to be counted, logged and brought into the client's form.
    pub(super) answer: PendingAnswer,
}

impl ArrivedRequest {
    /// The host that it is addressed to, in its normal form.
    pub fn host(&self) -> Cow<'_, str> {
        match &self.kept_host {
            Some(host) => Cow::Borrowed(host),
            None => context::host(&self.parts, self.scheme),
        }
    }

    /// Keeps the host, since `parts` are about to change.
    pub(super) fn keep_host(&mut self) {
        if self.kept_host.is_none() {
            self.kept_host = Some(self.host().into_owned());
        }
    }

    /// The client's address, also behind trusted proxies. None: they hide it.
    pub fn client(&self) -> Option<IpAddr> {
        self.caller.client()
    }

    /// The request as the look-up sees it.
    pub(super) fn routed<'a>(
        &'a self,
        host: &'a str,
        route: &'a Arc<Route>,
        trail: Option<&'a RequestTrail>,
        sample: HitSample,
    ) -> RoutedRequest<'a> {
        RoutedRequest {
            parts: &self.parts,
            body: &self.body,
            host,
            scheme: self.scheme,
            wishes: &self.wishes,
            route,
            started: self.started,
            trail,
            sample,
        }
    }

    /// The request as an origin would hear of it, for a request beside its own: nobody reads its
    /// trail, and no connection holds its answer.
    pub(super) fn context(
        &self,
        generation: &Arc<Generation>,
        route: &Arc<Route>,
    ) -> RequestContext {
        RequestContext {
            generation: Arc::clone(generation),
            parts: self.parts.clone(),
            host: self.host().into_owned(),
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
        {
            let host = self.host().into_owned();
            if let Some(record) = &mut self.answer.record {
                record.keep_head(plugin.name(), &self.parts, &host);
            }
        }
    }

    /// The record of the request, if one is kept even should it be a hit.
    pub(super) fn record_of_perhaps_a_hit(
        &self,
        recorder: &RequestRecorder,
        route: &Route,
    ) -> Option<PendingRecord> {
        recorder.of_perhaps_a_hit(self.beginning(&self.host(), route))
    }

    /// Begins the record of the request, which is no hit, unless it has one.
    pub(super) fn begin_record(&mut self, recorder: &RequestRecorder, route: &Route) {
        if self.answer.record.is_none() {
            self.answer.record = recorder.begin(self.beginning(&self.host(), route));
        }
    }

    fn beginning<'a>(&'a self, host: &'a str, route: &'a Route) -> RecordBeginning<'a> {
        let of = RecordBeginning::of(
            &self.parts,
            host,
            &self.caller,
            Some(route.recorded()),
            self.started,
        );
        of.over(self.tls.as_ref())
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
