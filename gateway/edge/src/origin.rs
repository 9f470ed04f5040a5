//! Named upstreams: choosing a target, sending the request, enforcing deadlines.
//!
//! The parts: `admission` limits how many requests an upstream gets at once, `target` chooses the
//! server, `connect` opens connections, with `tls`, `verify` and `watch` where a target has TLS, `client`
//! holds them, `response` refuses ambiguous heads, `exchange` watches
//! the request body and the response body, `error` names what went wrong, `trial` connects for `lamina doctor`. The caller has already
//! made the request as the origin shall see it; this module sets only `Host` (by `host_header`) and
//! the address, and adds nothing.
//!
//! Decision: a request is sent a second time only if nothing of it was sent the first time: because
//! a pooled connection turned out to be closed, or because a target could not be connected to while
//! there is another one and the request has no body.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use self::admission::{AdmissionPermit, UpstreamAdmission};
use self::attempt::PendingAttempt;
use self::client::OriginClientPools;
use self::config::{HostHeader, UpstreamConfig, UpstreamTimeouts};
use self::exchange::OriginUploadState;
use self::target::{OriginTarget, OriginTargets};
use self::watch::UpstreamTlsWatch;
use crate::http::body::{Body, BoundedBody};
use crate::http::memory::ConnectionMemory;
use crate::http::{forward, media};

mod admission;
mod attempt;
mod client;
pub mod config;
mod connect;
mod error;
mod exchange;
mod http2;
pub mod response;
mod target;
#[cfg(test)]
mod tests;
mod tls;
pub mod trial;
mod verify;
mod watch;

pub use self::attempt::{Attempt, AttemptOutcome, OnAttempt};
pub use self::client::SendError;
pub use self::error::{BuildError, OriginError, OverloadReason, TimeoutPhase};
pub use self::response::OnInterim;
pub use self::watch::OriginTlsWatch;

/// All upstreams by name.
pub struct Origins(HashMap<String, Arc<Origin>>);

/// One upstream.
pub struct Origin {
    name: Arc<str>,
    host_header: HostHeader,
    timeouts: UpstreamTimeouts,
    admission: UpstreamAdmission,
    targets: OriginTargets,
    clients: OriginClientPools,
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
            clients: OriginClientPools::new(upstream, &targets.tls()),
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
    /// request may carry the extensions [`OnInterim`] and [`OnAttempt`], and an
    /// `Arc<ConnectionMemory>` that the answer's memory is charged to. It must not carry the
    /// extensions of a client's request, since hyper reads these, too.
    ///
    /// # Errors
    /// See [`OriginError`]; [`OriginError::status`] is the status that the client gets.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, OriginError> {
        let memory = request.extensions_mut().remove::<Arc<ConnectionMemory>>();
        let told = request.extensions_mut().remove::<OnAttempt>();
        let told = told.as_ref();
        let place = self.admission.enter().await?;
        let deadline = self.deadline();
        let again = (self.targets.len() > 1)
            .then(|| bodiless_copy(&request))
            .flatten();
        let target = self.targets.next();
        let response = match (self.attempt(request, target, told).await, again) {
            (Err(error), Some(request)) if error.is_before_the_request() => {
                self.attempt(request, self.targets.next(), told).await
            }
            (outcome, _) => outcome,
        };
        response.map(|(response, sending)| self.hold(response, sending, place, deadline, memory))
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
        told: Option<&OnAttempt>,
    ) -> Result<(Response<hyper::body::Incoming>, OriginUploadState), OriginError> {
        let pending = PendingAttempt::begin(told, &self.name, &target.authority);
        let outcome = self.exchange(request, target).await;
        pending.ended(outcome.as_ref().map(|(response, _)| response));
        outcome
    }

    /// Sends one request to one target and waits for the response's head.
    async fn exchange(
        &self,
        mut request: Request<Body>,
        target: &OriginTarget,
    ) -> Result<(Response<hyper::body::Incoming>, OriginUploadState), OriginError> {
        self.address(&mut request, target)?;
        let began = std::time::Instant::now();
        let (request, sending) = exchange::watched(request);
        let response = self.clients.send(request, target);
        match sending.limit(response, self.timeouts.first_byte.0).await {
            None => Err(OriginError::Timeout {
                phase: TimeoutPhase::FirstByte,
            }),
            Some(Ok(response)) => Ok((response, sending)),
            Some(Err(error)) => {
                let tls = target.tls.as_ref();
                let alert = tls.and_then(|tls| tls.alert_since(began));
                let error = error::classify(error).because_of(alert.as_ref());
                if error.is_before_the_request() {
                    self.targets.failed(target);
                    tracing::warn!(upstream = &*self.name, target = %target.authority, %error, "cannot connect to an origin");
                }
                Err(error)
            }
        }
    }

    /// Sets the address of the request and its `Host`.
    fn address(
        &self,
        request: &mut Request<Body>,
        target: &OriginTarget,
    ) -> Result<(), OriginError> {
        let uri = target
            .uri(request.uri())
            .map_err(|_| OriginError::Request)?;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        if self.host_header == HostHeader::Upstream || !headers.contains_key(HOST) {
            headers.insert(HOST, target.host.clone());
        }
        Ok(())
    }

    /// Removes the connection's fields from the response's head, and adds the deadlines and the
    /// place among `max_concurrent` to its body.
    fn hold(
        &self,
        mut response: Response<hyper::body::Incoming>,
        sending: OriginUploadState,
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
                true => self.timeouts.stream_idle.0,
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

/// A copy of the request to send again, if it has no body.
fn bodiless_copy(request: &Request<Body>) -> Option<Request<Body>> {
    request.body().is_empty().then(|| {
        let mut copy = Request::new(Body::empty());
        *copy.method_mut() = Method::clone(request.method());
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = HeaderMap::clone(request.headers());
        *copy.extensions_mut() = request.extensions().clone();
        copy
    })
}
