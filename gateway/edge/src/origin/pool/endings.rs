//! When a connection is not used for a further request, however well it stands.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::PoolLimits;

/// The addresses that connections may stay open to.
#[derive(Default)]
pub(super) struct WantedAddresses(RwLock<Option<Vec<IpAddr>>>);

/// When a connection was opened, and to which address.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionOrigin {
    pub(super) opened: Instant,
    pub(super) peer: Option<IpAddr>,
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
        connection.age(now) < limits.max_age && self.contains(connection.peer)
    }
}

impl ConnectionOrigin {
    fn age(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }
}
