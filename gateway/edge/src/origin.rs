//! Named upstreams: choosing a target, sending the request, enforcing deadlines.
//!
//! The parts: `admission` limits how many requests an upstream gets at once, `target` chooses the
//! server among those that `discovery` finds (with `names` and `targets_file`), `pool` keeps its connections, which `connect` opens as `stream`s, with `tls`, `verify`
//! and `watch` where a target has TLS. `outgoing` is a request that may have to be sent again,
//! `standing` is an upstream with its periodic work, `response` refuses ambiguous heads, `exchange` watches the request body and the response body,
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
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, Version};
use lamina_base::turn_clock;
use tokio::time::Instant;

use self::admission::{AdmissionPermit, UpstreamAdmission};
use self::budget::RetryBudget;
use self::call_deadline::CallDeadline;
use self::check::HealthCheck;
use self::config::{HashSource, HostHeader, RetryConfig, UpstreamConfig, UpstreamTimeouts};
use self::delivery::{AwaitedLoad, DeliveredResponse, RequestDelivery};
use self::outgoing::OutgoingRequest;
use self::standing::{StandingUpstream, UpstreamSettings};
use self::target::OriginTarget;
use self::targets::OriginTargets;
use self::tls_report::UpstreamTlsReport;
use crate::http::body::{Body, BoundedBody};
use crate::http::memory::ConnectionMemory;
use crate::http::{cookies, forward, media};
use crate::telemetry::metrics::Registry;

mod address;
mod admission;
mod attempt;
mod budget;
mod call_deadline;
mod check;
mod concurrency;
pub mod config;
mod connect;
mod control;
mod delivery;
mod discovery;
mod error;
mod exchange;
mod health;
mod latency;
pub mod metrics;
mod names;
mod outgoing;
mod pool;
pub mod response;
mod spread;
mod standing;
mod status;
mod sticky;
mod stream;
mod target;
mod targets;
mod targets_file;
#[cfg(test)]
mod tests;
mod tls;
mod tls_report;
pub mod trial;
mod verify;

pub use self::attempt::{Attempt, AttemptOutcome, OnAttempt};
pub use self::control::{AdministrativeState, OrderLifetime, TargetOrders};
pub use self::error::{BuildError, OriginError, OverloadReason, SendError, TimeoutPhase};
pub use self::health::{HealthStatus, ObservedState};
pub use self::metrics::OriginFamilies;
pub use self::names::{NameStatus, OriginNames};
pub use self::outgoing::{AnswerReaders, FailureFallback, LoadAudience, SendTerms};
pub use self::response::OnInterim;
pub use self::spread::stable_hash;
pub use self::status::{TargetOrder, TargetOrderError, TargetStatus, UpstreamStatus};
pub use self::sticky::{StickyCookie, StickyPin};
pub use self::target::OpenTunnel;
pub use self::targets_file::TargetsFileReader;
pub use self::tls_report::OriginTlsReport;

/// All upstreams by name.
pub struct Origins {
    by_name: HashMap<String, Arc<StandingUpstream>>,
    shared: SharedOriginState,
}

/// What the upstreams of all generations share.
#[derive(Clone, Default)]
pub struct SharedOriginState {
    pub tls: Arc<OriginTlsReport>,
    pub families: Arc<OriginFamilies>,
    pub names: Arc<OriginNames>,
    pub orders: Arc<TargetOrders>,
    pub read_targets: TargetsFileReader,
}

impl SharedOriginState {
    /// Creates the metrics and registers them. `kept_orders` is the file with the orders about
    /// targets that outlive the process.
    ///
    /// # Errors
    /// If the registry has families of these names already.
    pub fn register(
        registry: &Registry,
        kept_orders: Option<PathBuf>,
        read_targets: TargetsFileReader,
    ) -> prometheus::Result<Self> {
        Ok(Self {
            tls: OriginTlsReport::register(registry)?,
            families: OriginFamilies::register(registry)?,
            names: OriginNames::register(registry)?,
            orders: Arc::new(TargetOrders::open(kept_orders)),
            read_targets,
        })
    }

    /// Brings the gauges up to date, before a scrape.
    pub fn update(&self) {
        self.tls.update();
        self.families.update();
        self.names.update();
    }
}

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
    sticky: Option<StickyCookie>,
    check: Option<HealthCheck>,
}

impl Origins {
    /// Reads the targets; does not connect yet. Upstreams of the configuration `before` whose
    /// settings have not changed are used further, with all that they know.
    ///
    /// # Errors
    /// Returns which upstream or target cannot be used, and why.
    pub fn new(
        upstreams: &BTreeMap<String, UpstreamConfig>,
        shared: &SharedOriginState,
        before: Option<&Self>,
    ) -> Result<Self, BuildError> {
        let origins = upstreams.iter().map(|(name, upstream)| {
            let settings = UpstreamSettings::of(upstream);
            let standing = before.and_then(|before| before.by_name.get(name));
            let origin = match standing.filter(|standing| standing.has(&settings)) {
                Some(standing) => Arc::clone(standing),
                None => Arc::new(StandingUpstream::new(name, (upstream, settings), shared)?),
            };
            Ok((name.clone(), origin))
        });
        Ok(Self {
            by_name: origins.collect::<Result<_, _>>()?,
            shared: shared.clone(),
        })
    }

    pub fn get(&self, name: &str) -> Option<Arc<Origin>> {
        let standing = self.by_name.get(name)?;
        Some(Arc::clone(&standing.origin))
    }

    /// Begins what is done for upstreams from time to time.
    pub fn begin_work(&self) {
        let all = self.by_name.values();
        all.for_each(|standing| standing.begin_work());
    }
}

impl Origin {
    fn new(
        name: &str,
        upstream: &UpstreamConfig,
        shared: &SharedOriginState,
    ) -> Result<Self, BuildError> {
        let watch = Arc::new(UpstreamTlsReport::new(name, &upstream.tls));
        let metrics = shared.families.of(name);
        let targets = OriginTargets::parse(name, upstream, &watch, metrics, shared)?;
        let active = upstream.health.active.as_ref();
        let check = active
            .map(|rules| HealthCheck::new(name, rules))
            .transpose()?;
        if upstream.may_speak_tls() {
            watch.warn_of_unverified();
            shared.tls.add(&watch);
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
            sticky: upstream.balance.sticky.as_ref().map(StickyCookie::new),
            check,
        })
    }

    /// The name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it needs to know the client of each request ([`SendTerms::client`]).
    pub fn chooses_by_client(&self) -> bool {
        self.hash == Some(HashSource::Client)
    }

    /// Whether it needs to know the key of each request ([`SendTerms::key`]).
    pub fn chooses_by_key(&self) -> bool {
        self.hash == Some(HashSource::Key)
    }

    /// The cookie by which clients stay with their target, if there is one.
    pub fn sticky(&self) -> Option<&StickyCookie> {
        self.sticky.as_ref()
    }

    /// How long a tunnel to this upstream may be silent.
    pub fn tunnel_timeout(&self) -> Duration {
        self.timeouts.tunnel.0
    }

    /// Sends a request, whose URI needs only a path. Returns the response's head, without the
    /// fields for the connection, and a body that streams. The request holds its place among
    /// `max_concurrent` until that body ends or is dropped; a 101 gives the place back at once, and has
    /// the extension [`OpenTunnel`]. The request may carry the extensions [`OnInterim`] and
    /// [`SendTerms`]. It must not carry the extensions of a client's request, since hyper reads these,
    /// too.
    ///
    /// # Errors
    /// See [`OriginError`]; [`OriginError::status`] is the status that the client gets.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, OriginError> {
        let terms = request.extensions_mut().remove::<SendTerms>();
        let mut terms = terms.unwrap_or_default();
        let (memory, told) = (terms.memory.take(), terms.told.take());
        let (pinned, fallback) = (terms.pin, terms.fallback);
        let silence = terms.silence.unwrap_or(self.timeouts.stream_idle.0);
        let call = CallDeadline::of(request.headers());
        let awaited = AwaitedLoad::of(&terms);
        let place = call.bound(self.admission.enter()).await?;
        let deadline = self.deadline();
        let outgoing = OutgoingRequest::new(request, terms);
        let delivery = RequestDelivery::new(self, outgoing, told.as_ref(), fallback)
            .within(call)
            .while_awaited(awaited);
        let mut delivered = delivery.run().await?;
        self.pin(&mut delivered, pinned);
        Ok(self.hold((delivered, silence), place, deadline, memory))
    }

    /// When an exchange that begins now must have ended; `None` for `total: 0`.
    fn deadline(&self) -> Option<Instant> {
        let total = self.timeouts.total.0;
        match total.is_zero() {
            true => None,
            false => turn_clock::now_of_timers().checked_add(total),
        }
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
    fn hash_of(&self, request: &OutgoingRequest) -> Option<u64> {
        let headers = request.headers();
        match self.hash.as_ref()? {
            HashSource::Key => Some(request.key()),
            HashSource::Client => {
                let client = request.client()?;
                Some(stable_hash(client.to_string().as_bytes()))
            }
            HashSource::Header(name) => {
                headers.get(name).map(|value| stable_hash(value.as_bytes()))
            }
            HashSource::Cookie(name) => {
                let mut values = cookies::values(headers, name.as_bytes());
                values.next().map(stable_hash)
            }
        }
    }

    /// Tells which target the client is to stay with, unless it came with that one.
    fn pin(&self, delivered: &mut DeliveredResponse, came_with: Option<StickyPin>) {
        let pin = delivered.in_flight.target().pin;
        if self.sticky.is_some() && came_with != Some(pin) {
            delivered.response.extensions_mut().insert(pin);
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
        (delivered, silence): (DeliveredResponse, Duration),
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
        if switching {
            response.extensions_mut().insert(OpenTunnel::new(in_flight));
            return response.map(|_| Body::empty());
        }
        let http2 = response.version() == Version::HTTP_2;
        let upload = upload.under_way();
        // In a stream, either side may be silent for a long time.
        let streams = upload.is_some() || media::is_endless(response.headers());
        response.map(|incoming| {
            if http_body::Body::is_end_stream(&incoming) {
                return Body::empty();
            }
            let pause = match streams {
                true => silence,
                false => self.timeouts.idle.0,
            };
            let mut body = BoundedBody::new(incoming, u64::MAX, pause)
                .with_marked_end(http2)
                .without_trailers(named);
            if let Some(upload) = upload {
                body = body.beside(upload.moved);
            }
            if let Some(deadline) = deadline {
                body = body.within(deadline.saturating_duration_since(turn_clock::now_of_timers()));
            }
            Body::boxed(exchange::AdmittedBody::new(
                body,
                (place, in_flight),
                memory,
            ))
        })
    }
}
