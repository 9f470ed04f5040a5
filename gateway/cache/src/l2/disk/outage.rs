//! While the disk takes no writes: what is answered, and when it is tried again.

use std::time::{Duration, Instant};

use crate::l2::store::StoreError;

/// Between two looks whether there is room.
const LOOK: Duration = Duration::from_secs(1);
/// Between two attempts that find room and fail nevertheless, growing.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// A failure so soon after the last one is one with it: the pauses go on growing.
const CALM: Duration = Duration::from_secs(60);

/// The disk takes no writes.
pub(super) struct Outage {
    pub(super) why: StoreError,
    pub(super) reads: Reads,
    next: Instant,
}

/// Whether what is in the file may be shown meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    GoOn,
    /// It may lack removals that were answered.
    Stop,
}

/// The time to the next attempt.
pub(super) struct Pauses {
    pause: Duration,
    failed: Option<Instant>,
}

impl Outage {
    pub(super) fn new(why: StoreError, reads: Reads, pauses: &mut Pauses) -> Self {
        Self {
            why,
            reads,
            next: Instant::now() + pauses.failed(),
        }
    }

    pub(super) fn until_next(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// There is no room yet.
    pub(super) fn look_again(&mut self) {
        self.next = Instant::now() + LOOK;
    }
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            pause: LOOK,
            failed: None,
        }
    }
}

impl Pauses {
    /// A write failed though there seemed to be room.
    fn failed(&mut self) -> Duration {
        let now = Instant::now();
        let is_soon = |last: Instant| now.duration_since(last) < self.pause + CALM;
        self.pause = match self.failed.is_some_and(is_soon) {
            true => (self.pause * 2).min(AGAIN_MAX),
            false => LOOK,
        };
        self.failed = Some(now);
        self.pause
    }
}
