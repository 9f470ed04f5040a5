//! One server of an upstream.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed,
};
use std::time::Instant;

use http::HeaderValue;
use http::uri::{Authority, Scheme};

use super::address::TargetAddresses;
use super::config::{OriginProtocol, TargetScheme, UpstreamConfig};
use super::control::{AdministrativeState, TargetControl};
use super::error::BuildError;
use super::health::{ObservedState, TargetHealth};
use super::latency::LatencyEstimate;
use super::metrics::TargetLabel;
use super::pool::TargetConnections;
use super::pool::limits::PoolLimits;
use super::spread::stable_hash;
use super::sticky::StickyPin;
use super::tls::{OriginTls, SpokenProtocol};
use super::tls_report::UpstreamTlsReport;

/// Times below this are taken to be equal.
const EQUAL_BELOW: f64 = 0.001;

/// Which protocols a connection is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WantedProtocol {
    /// HTTP/1.1 alone: the request asks for another protocol (`Upgrade`), or the target speaks no
    /// other.
    Http1,
    /// What the target agrees to, within the upstream's `protocol`.
    Any,
}

pub(super) struct OriginTarget {
    /// The name in logs and for operators.
    pub(super) name: Arc<str>,
    /// The name in metrics.
    pub(super) label: TargetLabel,
    pub(super) addresses: TargetAddresses,
    pub(super) authority: Authority,
    /// None: clear text.
    pub(super) tls: Option<Arc<OriginTls>>,
    /// What is spoken without TLS.
    clear: SpokenProtocol,
    /// The authority as a value of `Host`.
    pub(super) host: HeaderValue,
    rank: TargetRank,
    /// The same for the same target in each process.
    pub(super) identity: u64,
    /// Its name in cookies.
    pub(super) pin: StickyPin,
    pub(super) connections: TargetConnections,
    pub(super) health: TargetHealth,
    pub(super) control: TargetControl,
    pub(super) latency: LatencyEstimate,
    in_flight: AtomicU32,
    /// Whether somebody checks it from time to time.
    is_checked: AtomicBool,
    /// What the target is owed when targets take turns.
    pub(super) credit: AtomicI64,
}

/// What operators or SRV records say of a target in comparison with others. It may change while the
/// target stays the same.
struct TargetRank {
    /// The bits of a floating-point number.
    weight: AtomicU64,
    priority: AtomicU16,
}

/// A target that is to be made.
#[derive(Clone, Debug)]
pub(super) struct TargetDescription {
    pub(super) name: Arc<str>,
    pub(super) scheme: TargetScheme,
    pub(super) authority: Authority,
    pub(super) addresses: TargetAddresses,
    pub(super) weight: f64,
    pub(super) priority: u16,
}

/// Counts a request at a target until it is dropped, which is when its response has ended.
pub(super) struct InFlightRequest(Arc<OriginTarget>);

impl OriginTarget {
    /// Reads the files of the upstream's TLS, if the target speaks TLS; does not connect yet.
    pub(super) fn new(
        described: TargetDescription,
        label: TargetLabel,
        upstream: (&str, &UpstreamConfig),
        watch: &Arc<UpstreamTlsReport>,
    ) -> Result<Self, BuildError> {
        let (upstream_name, upstream) = upstream;
        let TargetDescription {
            name,
            scheme,
            authority,
            addresses,
            weight,
            priority,
        } = described;
        let tls = match scheme {
            TargetScheme::Http => None,
            TargetScheme::Https => {
                let host = authority.host();
                let tls = OriginTls::new(&upstream.tls, upstream.protocol, host, watch);
                Some(tls.map_err(|source| BuildError::Tls {
                    upstream: upstream_name.to_owned(),
                    source,
                })?)
            }
        };
        let host = HeaderValue::from_str(authority.as_str());
        Ok(Self {
            host: host.map_err(|_| BuildError::Target {
                upstream: upstream_name.to_owned(),
                target: name.to_string(),
            })?,
            label,
            addresses,
            authority,
            tls: tls.map(Arc::new),
            clear: match upstream.protocol {
                OriginProtocol::Http2 => SpokenProtocol::Http2,
                OriginProtocol::Http1 | OriginProtocol::Auto => SpokenProtocol::Http1,
            },
            rank: TargetRank {
                weight: AtomicU64::new(weight.to_bits()),
                priority: AtomicU16::new(priority),
            },
            identity: stable_hash(name.as_bytes()),
            pin: StickyPin::of(upstream_name, &name),
            name,
            connections: TargetConnections::new(PoolLimits::new(upstream)),
            health: TargetHealth::new(),
            control: TargetControl::new(),
            latency: LatencyEstimate::new(Instant::now()),
            in_flight: AtomicU32::new(0),
            is_checked: AtomicBool::new(false),
            credit: AtomicI64::new(0),
        })
    }

    /// Whether it is the target of this description, with whatever weight and priority.
    pub(super) fn matches(&self, described: &TargetDescription) -> bool {
        self.name == described.name
            && self.authority == described.authority
            && self.addresses == described.addresses
    }

    /// Its share of the requests, compared with the weights of the others.
    pub(super) fn weight(&self) -> f64 {
        f64::from_bits(self.rank.weight.load(Relaxed))
    }

    /// Targets with a smaller number come first.
    pub(super) fn priority(&self) -> u16 {
        self.rank.priority.load(Relaxed)
    }

    /// Gives it another weight and priority; all else stays.
    pub(super) fn rank(&self, weight: f64, priority: u16) {
        self.rank.weight.store(weight.to_bits(), Relaxed);
        self.rank.priority.store(priority, Relaxed);
    }

    /// What connections speak without TLS: there is no way to agree on it.
    pub(super) fn clear_protocol(&self) -> SpokenProtocol {
        self.clear
    }

    /// What a connection for this speaks, as far as it is known before it stands.
    pub(super) fn spoken(&self, wanted: WantedProtocol) -> SpokenProtocol {
        let spoken = self.tls.as_ref().map_or(self.clear, |tls| tls.spoken());
        match (wanted, spoken) {
            (WantedProtocol::Http1, SpokenProtocol::Unknown) => SpokenProtocol::Http1,
            (WantedProtocol::Http1, SpokenProtocol::Http2) if self.may_speak_http1() => {
                SpokenProtocol::Http1
            }
            (_, spoken) => spoken,
        }
    }

    /// Whether the configuration leaves the protocol to the target.
    fn may_speak_http1(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.may_speak_http1())
    }

    pub(super) fn scheme(&self) -> Scheme {
        match self.tls {
            Some(_) => Scheme::HTTPS,
            None => Scheme::HTTP,
        }
    }

    /// The URL for operators.
    pub(super) fn url(&self) -> String {
        match self.addresses {
            TargetAddresses::Socket(_) => self.name.to_string(),
            _ => format!("{}://{}", self.scheme(), self.authority),
        }
    }

    /// Whether operators let it get new requests.
    pub(super) fn is_ready(&self) -> bool {
        self.control.state() == AdministrativeState::Ready
    }

    /// Whether it can get new requests.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        let well = match self.health.observed(now) {
            ObservedState::Usable | ObservedState::Rests => true,
            ObservedState::Ejected | ObservedState::Down => false,
        };
        well && self.is_ready()
    }

    /// Whether it can get new requests, and has not asked for fewer.
    pub(super) fn is_unburdened(&self, now: Instant) -> bool {
        self.is_ready() && self.health.observed(now) == ObservedState::Usable
    }

    /// Whether its checks are to be begun; true only once.
    pub(super) fn needs_checks(&self) -> bool {
        !self.is_checked.swap(true, Relaxed)
    }

    /// How many requests it is working on.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Counts a request that begins.
    pub(super) fn begin_request(self: &Arc<Self>) -> InFlightRequest {
        self.in_flight.fetch_add(1, Relaxed);
        InFlightRequest(Arc::clone(self))
    }

    /// Whether a request is better sent here than to `other`: by the requests under way for the
    /// weight, and by the time to the answers where one takes twice as long as the other.
    pub(super) fn costs_less_than(&self, other: &Self, now: Instant) -> bool {
        let load = |target: &Self| f64::from(target.in_flight()) / target.weight() + 1.0;
        let time = |target: &Self| target.latency.seconds(now).max(EQUAL_BELOW);
        let (here, there) = (time(self), time(other));
        let ratio = here / there;
        let ratio = if (0.5..=2.0).contains(&ratio) {
            1.0
        } else {
            ratio
        };
        load(self) * ratio < load(other)
    }
}

/// Counts a tunnel at its target until the last copy is dropped. It is an extension of the response
/// that switches protocols.
#[derive(Clone)]
pub struct OpenTunnel {
    _counted: Arc<InFlightRequest>,
}

impl OpenTunnel {
    pub(super) fn new(request: InFlightRequest) -> Self {
        Self {
            _counted: Arc::new(request),
        }
    }
}

impl InFlightRequest {
    /// The target that works on it.
    pub(super) fn target(&self) -> &OriginTarget {
        &self.0
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
