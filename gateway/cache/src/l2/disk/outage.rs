//! What happens while the disk accepts no writes: what is answered, and when it is tried again.

use std::time::{Duration, Instant};

use crate::l2::store::StoreError;

/// The pause between two checks whether there is room.
const LOOK: Duration = Duration::from_secs(1);
/// The pause between two checks whether another process has closed the file.
const IN_USE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts that find room but fail nevertheless; the pauses grow.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// A failure within this time after the last one counts as the same outage, so the pauses keep
/// growing.
const CALM: Duration = Duration::from_secs(60);

/// A time in which the disk accepts no writes.
pub(super) struct DiskOutage {
    pub(super) why: StoreError,
    pub(super) reads: ReadsDuringOutage,
    next: Instant,
}

/// Whether what is in the file may be shown during the outage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadsDuringOutage {
    GoOn,
    /// The file may lack removals that were already answered.
    Stop,
}

/// The pause before the next attempt.
pub(super) struct DiskRetryDelay {
    pause: Duration,
    failed: Option<Instant>,
}

impl DiskOutage {
    pub(super) fn new(
        why: StoreError,
        reads: ReadsDuringOutage,
        pauses: &mut DiskRetryDelay,
    ) -> Self {
        Self {
            why,
            reads,
            next: Instant::now() + pauses.failed(),
        }
    }

    pub(super) fn until_next(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// There is no room yet: checks again after a pause.
    pub(super) fn look_again(&mut self) {
        self.next = Instant::now() + LOOK;
    }

    /// Another process still has the file: checks again soon.
    pub(super) fn look_soon(&mut self) {
        self.next = Instant::now() + IN_USE;
    }
}

impl Default for DiskRetryDelay {
    fn default() -> Self {
        Self {
            pause: LOOK,
            failed: None,
        }
    }
}

impl DiskRetryDelay {
    /// A write failed although there seemed to be room. Returns the next pause.
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
