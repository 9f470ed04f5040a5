//! The connections of a reserved listener, so that clients that only wait cannot keep others
//! out.
//!
//! Neighbours: `accept` asks for room when the places are taken, `connection` adds what happens
//! on a connection once its protocol is known.
//!
//! Decision: the connection that is cut is the one whose last request began the longest ago,
//! among those that are not being answered: half-open connections, slow heads, idle connections
//! and clients that do not read are treated alike. Preferring one kind would be worse: a
//! connection that was accepted just now is half-open for a moment, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::activity::{ConnectionActivity, ConnectionPhase};
use crate::telemetry::limit::LineLimiter;

/// The connections of one listener.
pub(super) struct ConnectionRoster {
    members: Mutex<BTreeMap<u64, RosterMember>>,
    next: AtomicU64,
    /// Limits the warnings about cut connections.
    warnings: LineLimiter,
}

struct RosterMember {
    accepted: Instant,
    /// `None` until the protocol is known.
    activity: Option<Arc<ConnectionActivity>>,
    /// The task that serves it, once there is one.
    task: Option<AbortHandle>,
}

/// A connection's entry in the roster; dropping it removes the entry.
pub(super) struct RosterMembership {
    roster: Arc<ConnectionRoster>,
    number: u64,
}

impl ConnectionRoster {
    pub(super) fn new() -> Self {
        Self {
            members: Mutex::default(),
            next: AtomicU64::new(0),
            warnings: LineLimiter::new(Instant::now()),
        }
    }

    /// Adds a connection that was accepted just now.
    pub(super) fn seat(self: &Arc<Self>) -> RosterMembership {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let member = RosterMember {
            accepted: Instant::now(),
            activity: None,
            task: None,
        };
        self.members.lock().insert(number, member);
        RosterMembership {
            roster: Arc::clone(self),
            number,
        }
    }

    /// Names the task that serves the connection, and that may be aborted.
    pub(super) fn served_by(&self, number: u64, task: AbortHandle) {
        if let Some(member) = self.members.lock().get_mut(&number) {
            member.task = Some(task);
        }
    }

    /// Cuts the connection that has waited the longest; none if all are being answered.
    pub(super) fn make_room(&self) {
        let mut members = self.members.lock();
        let waiting = members.iter().filter(|(_, member)| member.waits());
        let longest = waiting.min_by_key(|(_, member)| member.since());
        let Some(number) = longest.map(|(number, _)| *number) else {
            return;
        };
        let cut = members.remove(&number);
        drop(members);
        if let Some(task) = cut.and_then(|member| member.task) {
            task.abort();
        }
        if let Some(dropped) = self.warnings.admit(Instant::now()) {
            tracing::warn!(
                dropped,
                "all connections of the listener are in use; the one that waited the longest was \
                 closed"
            );
        }
    }
}

impl RosterMember {
    /// Whether the connection waits for its client.
    fn waits(&self) -> bool {
        let phase = self.activity.as_ref().map(|activity| activity.phase());
        self.task.is_some() && phase != Some(ConnectionPhase::Serving)
    }

    /// When its last request began; before the first one, when it was accepted.
    fn since(&self) -> Instant {
        let activity = self.activity.as_ref();
        activity.map_or(self.accepted, |activity| activity.began())
    }
}

impl RosterMembership {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// From now on the roster sees what happens on the connection.
    pub(super) fn shows(&self, activity: &Arc<ConnectionActivity>) {
        if let Some(member) = self.roster.members.lock().get_mut(&self.number) {
            member.activity = Some(Arc::clone(activity));
        }
    }
}

impl Drop for RosterMembership {
    fn drop(&mut self) {
        self.roster.members.lock().remove(&self.number);
    }
}
