//! Named upstreams: choose a target, send, keep deadlines.
//!
//! Inside: `admission` bounds what an upstream is asked at once, `target` goes round the
//! servers, `client` holds the connections, `response` refuses heads that are ambiguous,
//! `exchange` watches the body that goes out and the one that comes back, `error` names
//! what went wrong. The caller has already made
//! the request what the origin shall see; here only `Host` (by `host_header`) and the
//! address are set, nothing is added.
//!
//! Decision: a request is sent twice only when nothing of it was sent the first time: a
//! pooled connection that turned out closed, or a target that could not be connected to
//! while another is there and the request has no body.

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
use crate::http::body::{Body, BoundedBody};
use crate::http::memory::ConnectionMemory;
use crate::http::{forward, media};

mod admission;
mod attempt;
mod client;
pub mod config;
mod error;
mod exchange;
mod http2;
pub mod response;
mod target;
#[cfg(test)]
mod tests;

pub use self::attempt::{Attempt, AttemptOutcome, OnAttempt};
pub use self::client::SendError;
pub use self::error::{BuildError, OriginError, OverloadReason, TimeoutPhase};
pub use self::response::OnInterim;

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
    /// Reads the targets; connects to nothing yet.
    ///
    /// # Errors
    /// Which upstream and target cannot be used, and why.
    pub fn new(upstreams: &BTreeMap<String, UpstreamConfig>) -> Result<Self, BuildError> {
        let origins = upstreams.iter().map(|(name, upstream)| {
            let origin = Origin::new(name, upstream)?;
            Ok((name.clone(), Arc::new(origin)))
        });
        origins.collect::<Result<_, _>>().map(Self)
    }

    pub fn get(&self, name: &str) -> Option<Arc<Origin>> {
        self.0.get(name).cloned()
    }
}

impl Origin {
    fn new(name: &str, upstream: &UpstreamConfig) -> Result<Self, BuildError> {
        Ok(Self {
            name: name.into(),
            host_header: upstream.host_header,
            timeouts: upstream.timeouts.clone(),
            admission: UpstreamAdmission::new(&upstream.load),
            targets: OriginTargets::parse(name, &upstream.targets)?,
            clients: OriginClientPools::new(upstream),
        })
    }

    /// The name that the configuration gives.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long a tunnel to it may be silent.
    pub fn tunnel_timeout(&self) -> Duration {
        self.timeouts.tunnel.0
    }

    /// Sends a request, whose URI needs a path only, and returns the response's head, without
    /// what is for the connection alone, with a body that streams. The place among
    /// `max_concurrent` is held until that body ends or is dropped; a 101 gives it back at
    /// once. Of extensions [`OnInterim`] and [`OnAttempt`] are known, and an
    /// `Arc<ConnectionMemory>` on whose account the answer is held; those of a client's request must not be in it, since hyper
    /// looks there, too.
    ///
    /// # Errors
    /// What [`OriginError`] lists; [`OriginError::status`] says what the client gets.
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
            (Err(OriginError::Connect { .. }), Some(request)) => {
                self.attempt(request, self.targets.next(), told).await
            }
            (outcome, _) => outcome,
        };
        response.map(|(response, sending)| self.hold(response, sending, place, deadline, memory))
    }

    /// When the exchange that begins now has to be over; `None` for `total: 0`.
    fn deadline(&self) -> Option<Instant> {
        let total = self.timeouts.total.0;
        Instant::now()
            .checked_add(total)
            .filter(|_| !total.is_zero())
    }

    /// One request to one target, which `told` hears of.
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

    /// One request to one target, up to the response's head.
    async fn exchange(
        &self,
        mut request: Request<Body>,
        target: &OriginTarget,
    ) -> Result<(Response<hyper::body::Incoming>, OriginUploadState), OriginError> {
        self.address(&mut request, target)?;
        let (request, sending) = exchange::watched(request);
        let response = self.clients.send(request, target);
        match sending.limit(response, self.timeouts.first_byte.0).await {
            None => Err(OriginError::Timeout {
                phase: TimeoutPhase::FirstByte,
            }),
            Some(Ok(response)) => Ok((response, sending)),
            Some(Err(error)) => {
                let error = error::classify(error);
                if matches!(error, OriginError::Connect { .. }) {
                    self.targets.failed(target);
                    tracing::warn!(upstream = &*self.name, target = %target.authority, %error, "cannot connect to an origin");
                }
                Err(error)
            }
        }
    }

    /// Sets where the request goes and which host it names.
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
        *request.version_mut() = self.clients.version();
        Ok(())
    }

    /// Ends the hop of the response's head, and puts the deadlines and the place around its body.
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
        // Either side of a stream may be silent for long.
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

/// The same request once more, if it has no body.
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
