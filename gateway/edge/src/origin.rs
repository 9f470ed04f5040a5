//! Named upstreams: choosing a target, sending the request, enforcing deadlines.
//!
//! The parts: `admission` limits how many requests an upstream gets at once, `target` chooses the
//! server, `pool` keeps its connections, which `connect` opens as `stream`s, with `tls`, `verify`
//! and `watch` where a target has TLS. `outgoing` is a request that may have to be sent again,
//! `response` refuses ambiguous heads, `exchange` watches the request body and the response body,
//! `error` names what went wrong, `trial` connects for `lamina doctor`. The caller has already made
//! the request as the origin shall see it; this module sets only `Host` (by `host_header`) and the
//! address, and adds nothing.
//!
//! Decision: a request is sent again, without counting as a retry, where the origin has not
//! processed it: a connection was closed before anything was sent, the origin said so (HTTP/2), or
//! it closed a connection that had served before, without a byte of an answer, and the request may
//! be repeated (RFC 9110 §9.2.2).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use self::admission::{AdmissionPermit, UpstreamAdmission};
use self::attempt::PendingAttempt;
use self::config::{HostHeader, UpstreamConfig, UpstreamTimeouts};
use self::exchange::OriginUploadState;
use self::outgoing::OutgoingRequest;
use self::pool::body::OriginBody;
use self::pool::{ConnectionChoice, RequestProgress, SendFailure};
use self::target::{OriginTarget, OriginTargets};
use self::watch::UpstreamTlsWatch;
use crate::http::body::{Body, BoundedBody};
use crate::http::memory::ConnectionMemory;
use crate::http::{forward, media};

mod admission;
mod attempt;
pub mod config;
mod connect;
mod error;
mod exchange;
mod outgoing;
mod pool;
pub mod response;
mod stream;
mod target;
#[cfg(test)]
mod tests;
mod tls;
pub mod trial;
mod verify;
mod watch;

pub use self::attempt::{Attempt, AttemptOutcome, OnAttempt};
pub use self::error::{BuildError, OriginError, OverloadReason, SendError, TimeoutPhase};
pub use self::response::OnInterim;
pub use self::watch::OriginTlsWatch;

/// The longest silence of a stream, in place of the upstream's `timeouts.stream_idle`. It is
/// attached to a request as an extension.
#[derive(Clone, Copy, Debug)]
pub struct StreamSilence(pub Duration);

/// All upstreams by name.
pub struct Origins(HashMap<String, Arc<Origin>>);

/// One upstream.
pub struct Origin {
    name: Arc<str>,
    host_header: HostHeader,
    timeouts: UpstreamTimeouts,
    admission: UpstreamAdmission,
    targets: OriginTargets,
}

/// The head of a response with its body, and how far the request's own body is.
type OriginExchange = (Response<OriginBody>, OriginUploadState);

/// An attempt without a response.
struct FailedAttempt {
    error: OriginError,
    progress: RequestProgress,
}

/// How often connections are looked at that nobody uses.
const MAINTENANCE: Duration = Duration::from_secs(1);

/// How often a request is sent again because no origin has processed it.
const REPEATS: u32 = 3;

impl From<OriginError> for FailedAttempt {
    fn from(error: OriginError) -> Self {
        Self {
            error,
            progress: RequestProgress::Unknown,
        }
    }
}

impl Origins {
    /// Reads the targets; does not connect yet.
    ///
    /// # Errors
    /// Returns which upstream or target cannot be used, and why.
    pub fn new(
        upstreams: &BTreeMap<String, UpstreamConfig>,
        tls: &OriginTlsWatch,
    ) -> Result<Self, BuildError> {
        let origins = upstreams.iter().map(|(name, upstream)| {
            let origin = Origin::new(name, upstream, tls)?;
            Ok((name.clone(), Arc::new(origin)))
        });
        origins.collect::<Result<_, _>>().map(Self)
    }

    pub fn get(&self, name: &str) -> Option<Arc<Origin>> {
        self.0.get(name).cloned()
    }

    /// Closes connections that are not needed any more, from time to time. Never ends.
    pub async fn maintain(&self) {
        let mut turns = tokio::time::interval(MAINTENANCE);
        loop {
            turns.tick().await;
            for origin in self.0.values() {
                origin.targets.close_unused();
            }
        }
    }
}

impl Origin {
    fn new(
        name: &str,
        upstream: &UpstreamConfig,
        tls: &OriginTlsWatch,
    ) -> Result<Self, BuildError> {
        let watch = Arc::new(UpstreamTlsWatch::new(name, &upstream.tls));
        let targets = OriginTargets::parse(name, upstream, &watch)?;
        if targets.iter().any(|target| target.tls.is_some()) {
            watch.warn_of_unverified();
            tls.add(&watch);
        }
        Ok(Self {
            name: name.into(),
            host_header: upstream.host_header,
            timeouts: upstream.timeouts.clone(),
            admission: UpstreamAdmission::new(&upstream.load),
            targets,
        })
    }

    /// The name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long a tunnel to this upstream may be silent.
    pub fn tunnel_timeout(&self) -> Duration {
        self.timeouts.tunnel.0
    }

    /// Sends a request, whose URI needs only a path. Returns the response's head, without the
    /// fields for the connection, and a body that streams. The request holds its place among
    /// `max_concurrent` until that body ends or is dropped; a 101 gives the place back at once. The
    /// request may carry the extensions [`OnInterim`], [`OnAttempt`] and [`StreamSilence`], and an
    /// `Arc<ConnectionMemory>` that the answer's memory is charged to. It must not carry the
    /// extensions of a client's request, since hyper reads these, too.
    ///
    /// # Errors
    /// See [`OriginError`]; [`OriginError::status`] is the status that the client gets.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, OriginError> {
        let memory = request.extensions_mut().remove::<Arc<ConnectionMemory>>();
        let told = request.extensions_mut().remove::<OnAttempt>();
        let told = told.as_ref();
        let silence = request.extensions_mut().remove::<StreamSilence>();
        let silence = silence.unwrap_or(StreamSilence(self.timeouts.stream_idle.0));
        let place = self.admission.enter().await?;
        let deadline = self.deadline();
        let (response, sending) = self.deliver(OutgoingRequest::new(request), told).await?;
        Ok(self.hold(response, (sending, silence), place, deadline, memory))
    }

    /// Sends a request, and sends it again as long as no origin has processed it.
    async fn deliver(
        &self,
        mut outgoing: OutgoingRequest,
        told: Option<&OnAttempt>,
    ) -> Result<OriginExchange, OriginError> {
        let mut target = self.targets.next();
        let mut choice = ConnectionChoice::Standing;
        let mut left = REPEATS;
        let mut other_target = self.targets.len() > 1;
        loop {
            let request = outgoing.next().ok_or(OriginError::Request)?;
            let failed = match self.attempt(request, target, choice, told).await {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            match failed.progress {
                RequestProgress::NotConnected if other_target => {
                    other_target = false;
                    target = self.targets.next();
                }
                RequestProgress::NotProcessed if left > 0 => left -= 1,
                RequestProgress::ClosedWhileIdle
                    if left > 0 && target.tls.is_none() && outgoing.may_be_repeated() =>
                {
                    left -= 1;
                }
                _ => return Err(failed.error),
            }
            if failed.progress != RequestProgress::NotConnected {
                choice = ConnectionChoice::New;
            }
        }
    }

    /// When an exchange that begins now must have ended; `None` for `total: 0`.
    fn deadline(&self) -> Option<Instant> {
        let total = self.timeouts.total.0;
        Instant::now()
            .checked_add(total)
            .filter(|_| !total.is_zero())
    }

    /// Sends one request to one target, and reports the attempt to `told`.
    async fn attempt(
        &self,
        request: Request<Body>,
        target: &OriginTarget,
        choice: ConnectionChoice,
        told: Option<&OnAttempt>,
    ) -> Result<OriginExchange, FailedAttempt> {
        let pending = PendingAttempt::begin(told, &self.name, &target.authority);
        let outcome = self.exchange(request, target, choice).await;
        let known = outcome.as_ref();
        pending.ended(
            known
                .map(|(response, _)| response)
                .map_err(|failed| &failed.error),
        );
        outcome
    }

    /// Sends one request to one target and waits for the response's head.
    async fn exchange(
        &self,
        mut request: Request<Body>,
        target: &OriginTarget,
        choice: ConnectionChoice,
    ) -> Result<OriginExchange, FailedAttempt> {
        self.address(&mut request, target);
        let began = std::time::Instant::now();
        let (request, sending) = exchange::watched(request);
        let response = target.connections.send(request, target, choice);
        match sending.limit(response, self.timeouts.first_byte.0).await {
            None => Err(FailedAttempt::from(OriginError::Timeout {
                phase: TimeoutPhase::FirstByte,
            })),
            Some(Ok(mut response)) => {
                if sending.is_under_way() {
                    response.body_mut().work_in_a_task();
                }
                Ok((response, sending))
            }
            Some(Err(SendFailure { error, progress })) => {
                let tls = target.tls.as_ref();
                let alert = tls.and_then(|tls| tls.alert_since(began));
                let error = error::classify(error).because_of(alert.as_ref());
                if progress == RequestProgress::NotConnected {
                    self.targets.failed(target);
                    tracing::warn!(upstream = &*self.name, target = %target.authority, %error, "cannot connect to an origin");
                }
                Err(FailedAttempt { error, progress })
            }
        }
    }

    /// Leaves only the path in the request's URI, and sets `Host`.
    fn address(&self, request: &mut Request<Body>, target: &OriginTarget) {
        let root = PathAndQuery::from_static("/");
        let path = request.uri().path_and_query().cloned().unwrap_or(root);
        *request.uri_mut() = Uri::from(path);
        let headers = request.headers_mut();
        if self.host_header == HostHeader::Upstream || !headers.contains_key(HOST) {
            headers.insert(HOST, target.host.clone());
        }
    }

    /// Removes the connection's fields from the response's head, and adds the deadlines and the
    /// place among `max_concurrent` to its body.
    fn hold(
        &self,
        mut response: Response<OriginBody>,
        (sending, silence): (OriginUploadState, StreamSilence),
        place: AdmissionPermit,
        deadline: Option<Instant>,
        memory: Option<Arc<ConnectionMemory>>,
    ) -> Response<Body> {
        let named = forward::end_response_hop(response.status(), response.headers_mut());
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let http2 = response.version() == Version::HTTP_2;
        let upload = sending.under_way();
        // In a stream, either side may be silent for a long time.
        let streams = upload.is_some() || media::is_endless(response.headers());
        response.map(|incoming| {
            if switching || http_body::Body::is_end_stream(&incoming) {
                return Body::empty();
            }
            let pause = match streams {
                true => silence.0,
                false => self.timeouts.idle.0,
            };
            let mut body = BoundedBody::new(incoming, u64::MAX, pause)
                .with_marked_end(http2)
                .without_trailers(named);
            if let Some(upload) = upload {
                body = body.beside(upload.moved);
            }
            if let Some(deadline) = deadline {
                body = body.within(deadline.saturating_duration_since(Instant::now()));
            }
            Body::boxed(exchange::AdmittedBody::new(body, place, memory))
        })
    }
}
