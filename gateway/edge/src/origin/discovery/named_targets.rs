//! The targets that one name leads to.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::origin::address::TargetAddresses;
use crate::origin::config::{TargetConfig, TargetScheme};
use crate::origin::health::ObservedState;
use crate::origin::names::{NameState, NamedEndpoint, ResolvedName};
use crate::origin::target::{OriginTarget, TargetDescription};

/// The targets that a name leads to.
pub(super) struct NamedTargets {
    pub(super) config: TargetConfig,
    pub(super) scheme: TargetScheme,
    /// None: SRV records say it.
    pub(super) port: Option<u16>,
    pub(super) name: Arc<ResolvedName>,
    /// Whether it has led to targets before: then a new one begins with less than its share.
    pub(super) has_led: AtomicBool,
    /// Addresses that do not answer, and that name servers have not confirmed for `resolver.hold`.
    pub(super) dropped: Mutex<HashSet<NamedEndpoint>>,
}

impl NamedTargets {
    /// The target that this endpoint is. None: its host can't be one.
    pub(super) fn describe(&self, endpoint: &NamedEndpoint) -> Option<TargetDescription> {
        let service = endpoint.service.as_ref();
        let port = service.map(|service| service.port).or(self.port)?;
        let host = service.map_or(&*self.name.question().name, |service| &service.host);
        let address = SocketAddr::new(endpoint.address, port);
        Some(TargetDescription {
            name: address.to_string().into(),
            scheme: self.scheme,
            authority: match port == self.scheme.usual_port() {
                true => host.parse().ok()?,
                false => format!("{host}:{port}").parse().ok()?,
            },
            addresses: TargetAddresses::Fixed(address),
            weight: match service {
                // RFC 2782: "a very small chance".
                Some(service) => f64::from(service.weight).max(0.01),
                None => f64::from(self.config.weight.get()),
            },
            priority: service.map_or(self.config.priority.into(), |service| service.priority),
        })
    }

    /// Drops addresses that do not answer, once name servers have not confirmed them for `hold`.
    pub(super) fn drop_silent(
        &self,
        targets: &[Arc<OriginTarget>],
        hold: Duration,
        now: Instant,
    ) -> bool {
        let NameState { answer, failure } = self.name.state();
        let mut dropped = self.dropped.lock();
        let unconfirmed =
            failure.is_some_and(|failure| now.saturating_duration_since(failure.since) >= hold);
        if !unconfirmed {
            let changes = !dropped.is_empty();
            dropped.clear();
            return changes;
        }
        let before = dropped.len();
        let endpoints = answer.iter().flat_map(|answer| &answer.endpoints);
        for endpoint in endpoints {
            let target = self
                .describe(endpoint)
                .and_then(|described| targets.iter().find(|target| target.matches(&described)));
            if target.is_some_and(|target| target.is_silent(now)) {
                dropped.insert(endpoint.clone());
            }
        }
        dropped.len() > before
    }
}

impl OriginTarget {
    /// Whether it has answered no request lately, as far as it was asked.
    fn is_silent(&self, now: Instant) -> bool {
        let health = self.health.status(now);
        health.failures > 0
            || matches!(
                health.observed,
                ObservedState::Ejected | ObservedState::Down
            )
    }
}
