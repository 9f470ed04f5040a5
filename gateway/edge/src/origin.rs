//! Named upstreams: choosing a target, sending the request, enforcing deadlines.
//!
//! The parts: `admission` limits how many requests an upstream gets at once, `target` chooses the
//! server, `pool` keeps its connections, which `connect` opens as `stream`s, with `tls`, `verify`
//! and `watch` where a target has TLS. `outgoing` is a request that may have to be sent again,
//! `response` refuses ambiguous heads, `exchange` watches the request body and the response body,
//! `error` names what went wrong, `check` asks targets how they are, `control` is
//! what operators want of them, `status` what operators see, `trial` connects for `lamina doctor`. The caller has already made
//! the request as the origin shall see it; this module sets only `Host` (by `host_header`) and the
//! address, and adds nothing.
//!
//! Decision: a request is sent again, without counting as a retry, where the origin has not
//! processed it: a connection was closed before anything was sent, the origin said so (HTTP/2), or
//! it closed a connection that had served before, without a byte of an answer, and the request may
//! be repeated (RFC 9110 §9.2.2).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use self::admission::{AdmissionPermit, UpstreamAdmission};
use self::budget::RetryBudget;
use self::call_deadline::CallDeadline;
use self::check::HealthCheck;
use self::config::{HashSource, HostHeader, RetryConfig, UpstreamConfig, UpstreamTimeouts};
use self::delivery::{DeliveredResponse, RequestDelivery};
use self::metrics::UpstreamMetrics;
use self::outgoing::OutgoingRequest;
use self::target::OriginTarget;
use self::targets::{OriginTargets, stable_hash};
use self::watch::UpstreamTlsWatch;
use crate::http::body::{Body, BoundedBody};
use crate::http::memory::ConnectionMemory;
use crate::http::{forward, media};

mod admission;
mod attempt;
mod budget;
mod call_deadline;
mod check;
pub mod config;
mod connect;
mod control;
mod delivery;
mod error;
mod exchange;
mod health;
mod latency;
pub mod metrics;
mod outgoing;
mod pool;
pub mod response;
mod status;
mod stream;
mod target;
mod targets;
#[cfg(test)]
mod tests;
mod tls;
pub mod trial;
mod verify;
mod watch;

pub use self::attempt::{Attempt, AttemptOutcome, OnAttempt};
pub use self::control::AdministrativeState;
pub use self::delivery::FailureFallback;
pub use self::error::{BuildError, OriginError, OverloadReason, SendError, TimeoutPhase};
pub use self::health::{HealthStatus, ObservedState};
pub use self::metrics::OriginFamilies;
pub use self::outgoing::RequestClient;
pub use self::response::OnInterim;
pub use self::status::{TargetOrder, TargetOrderError, TargetStatus, UpstreamStatus};
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
    retry: RetryConfig,
    budget: RetryBudget,
    hash: Option<HashSource>,
    check: Option<HealthCheck>,
}

/// How often connections are looked at that nobody uses.
const MAINTENANCE: Duration = Duration::from_secs(1);

impl Origins {
    /// Reads the targets; does not connect yet.
    ///
    /// # Errors
    /// Returns which upstream or target cannot be used, and why.
    pub fn new(
        upstreams: &BTreeMap<String, UpstreamConfig>,
        tls: &OriginTlsWatch,
        families: &Arc<OriginFamilies>,
    ) -> Result<Self, BuildError> {
        let origins = upstreams.iter().map(|(name, upstream)| {
            let origin = Arc::new(Origin::new(name, upstream, tls, families.of(name))?);
            if let Some(before) = families.latest(name) {
                origin.take_over_orders(&before);
            }
            families.add(&origin);
            Ok((name.clone(), origin))
        });
        origins.collect::<Result<_, _>>().map(Self)
    }

    pub fn get(&self, name: &str) -> Option<Arc<Origin>> {
        self.0.get(name).cloned()
    }

    /// Closes connections that are not needed any more, checks targets and ends what operators have
    /// ordered for some time. Never ends.
    pub async fn maintain(&self) {
        let checks = self.0.values().map(|origin| check::repeat(origin));
        tokio::join!(
            self.maintain_targets(),
            futures_util::future::join_all(checks)
        );
    }

    async fn maintain_targets(&self) {
        let mut turns = tokio::time::interval(MAINTENANCE);
        loop {
            turns.tick().await;
            for origin in self.0.values() {
                origin.maintain_targets();
            }
        }
    }
}

impl Origin {
    fn new(
        name: &str,
        upstream: &UpstreamConfig,
        tls: &OriginTlsWatch,
        metrics: UpstreamMetrics,
    ) -> Result<Self, BuildError> {
        let watch = Arc::new(UpstreamTlsWatch::new(name, &upstream.tls));
        let targets = OriginTargets::parse(name, upstream, &watch, metrics)?;
        let active = upstream.health.active.as_ref();
        let check = active
            .map(|rules| HealthCheck::new(name, rules))
            .transpose()?;
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
            budget: RetryBudget::new(&upstream.retry, std::time::Instant::now()),
            retry: upstream.retry.clone(),
            hash: upstream.balance.hash.clone(),
            check,
        })
    }

    /// The name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it needs to know the client of each request ([`RequestClient`]).
    pub fn chooses_by_client(&self) -> bool {
        self.hash == Some(HashSource::Client)
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
        let fallback = request.extensions_mut().remove::<FailureFallback>();
        let silence = request.extensions_mut().remove::<StreamSilence>();
        let silence = silence.unwrap_or(StreamSilence(self.timeouts.stream_idle.0));
        let call = CallDeadline::of(request.headers());
        let place = self.admission.enter().await?;
        let deadline = self.deadline();
        let outgoing = OutgoingRequest::new(request);
        let fallback = fallback.unwrap_or_default();
        let delivered = RequestDelivery::new(self, outgoing, told.as_ref(), fallback);
        let delivered = delivered.within(call).run().await?;
        Ok(self.hold((delivered, silence), place, deadline, memory))
    }

    /// When an exchange that begins now must have ended; `None` for `total: 0`.
    fn deadline(&self) -> Option<Instant> {
        let total = self.timeouts.total.0;
        Instant::now()
            .checked_add(total)
            .filter(|_| !total.is_zero())
    }

    /// The time limit of an attempt to the head of its response.
    fn head_limit(&self) -> Duration {
        let first_byte = self.timeouts.first_byte.0;
        match self.retry.per_try.0 {
            Duration::ZERO => first_byte,
            per_try => per_try.min(first_byte),
        }
    }

    /// A hash of what the configuration chooses targets by, if the request has it.
    fn hash_of(&self, headers: &HeaderMap, client: Option<IpAddr>) -> Option<u64> {
        match self.hash.as_ref()? {
            HashSource::Client => client.map(|client| stable_hash(client.to_string().as_bytes())),
            HashSource::Header(name) => {
                headers.get(name).map(|value| stable_hash(value.as_bytes()))
            }
            HashSource::Cookie(name) => cookie(headers, name).map(stable_hash),
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
        (delivered, silence): (DeliveredResponse, StreamSilence),
        place: AdmissionPermit,
        deadline: Option<Instant>,
        memory: Option<Arc<ConnectionMemory>>,
    ) -> Response<Body> {
        let DeliveredResponse {
            mut response,
            upload,
            in_flight,
        } = delivered;
        let named = forward::end_response_hop(response.status(), response.headers_mut());
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let http2 = response.version() == Version::HTTP_2;
        let upload = upload.under_way();
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
            Body::boxed(exchange::AdmittedBody::new(
                body,
                (place, in_flight),
                memory,
            ))
        })
    }
}

/// The value of a cookie.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
