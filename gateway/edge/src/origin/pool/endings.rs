//! When a connection is not used for a further request, however well it stands.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::limits::PoolLimits;
use crate::origin::spread::random_fraction;

/// The addresses that connections may stay open to.
#[derive(Default)]
pub(super) struct WantedAddresses(RwLock<Option<Vec<IpAddr>>>);

/// When a connection was opened, and to which address.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionOrigin {
    opened: Instant,
    peer: Option<IpAddr>,
    /// Which part of `max_age` is its own: a tenth more or less, so that connections that were
    /// opened together do not end together.
    lifetime: f64,
}

impl WantedAddresses {
    /// Wants these addresses alone. Returns whether others were wanted before.
    pub(super) fn replace(&self, addresses: Vec<IpAddr>) -> bool {
        let mut wanted = self.0.write();
        let changes = wanted.as_ref() != Some(&addresses);
        *wanted = Some(addresses);
        changes
    }

    fn contains(&self, peer: Option<IpAddr>) -> bool {
        match &*self.0.read() {
            // Until a name has changed, all are.
            None => true,
            Some(wanted) => peer.is_some_and(|peer| wanted.contains(&peer)),
        }
    }

    /// Whether the connection may take one more request.
    pub(super) fn admit(
        &self,
        connection: ConnectionOrigin,
        limits: PoolLimits,
        now: Instant,
    ) -> bool {
        connection.age(now) < limits.max_age.mul_f64(connection.lifetime)
            && self.contains(connection.peer)
    }
}

impl ConnectionOrigin {
    /// A connection to this address that is opened now.
    pub(super) fn new(peer: Option<IpAddr>, now: Instant) -> Self {
        Self {
            opened: now,
            peer,
            lifetime: 0.9 + 0.2 * random_fraction(),
        }
    }

    fn age(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::config::UpstreamConfig;

    #[test]
    fn connections_that_were_opened_together_do_not_end_together() {
        let upstream = UpstreamConfig::from_url("http://a");
        let limits = PoolLimits {
            max_age: Duration::from_secs(1_000),
            ..PoolLimits::new(&upstream)
        };
        let (opened, wanted) = (Instant::now(), WantedAddresses::default());
        let connections: Vec<_> = (0..200)
            .map(|_| ConnectionOrigin::new(None, opened))
            .collect();
        let left = |seconds| {
            let now = opened + Duration::from_secs(seconds);
            let left = connections.iter();
            left.filter(|one| wanted.admit(**one, limits, now)).count()
        };
        assert_eq!((left(899), left(1_100)), (200, 0));
        assert!((40..=160).contains(&left(1_000)), "{}", left(1_000));
        assert!(left(950) > left(1_050));
    }
}
