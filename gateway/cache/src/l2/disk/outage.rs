//! What happens while the disk accepts no writes: what is answered, and when it is tried again.

use std::time::{Duration, Instant};

use crate::l2::store::StoreError;

/// The pause between two checks whether there is room.
const LOOK: Duration = Duration::from_millis(500);
/// The pause between two checks whether another process has closed the file.
const IN_USE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts that find room but fail nevertheless; the pauses grow.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// A disk that fails again before it has worked for this long is in the same outage, so the pauses
/// keep growing: where there is room for a small record and none for a large one, each attempt
/// opens the file in vain.
const WORKED: Duration = Duration::from_secs(1);

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
#[derive(Default)]
pub(super) struct DiskRetryDelay {
    /// The last one; None before the first failure.
    pause: Option<Duration>,
    /// Since when the disk works again; None while it does not.
    works: Option<Instant>,
}

impl DiskOutage {
    pub(super) fn new(
        why: StoreError,
        reads: ReadsDuringOutage,
        pauses: &mut DiskRetryDelay,
    ) -> Self {
        let now = Instant::now();
        Self {
            why,
            reads,
            next: now + pauses.failed(now),
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

impl DiskRetryDelay {
    /// The disk accepts writes again.
    pub(super) fn works(&mut self, now: Instant) {
        self.works = Some(now);
    }

    /// A write failed although there seemed to be room. Returns the next pause.
    fn failed(&mut self, now: Instant) -> Duration {
        let worked = self.works.take().map(|since| now.duration_since(since));
        let pause = match self.pause {
            Some(last) if worked.is_none_or(|worked| worked < WORKED) => (last * 2).min(AGAIN_MAX),
            _ => LOOK,
        };
        self.pause = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_attempts_fail_and_begin_anew_once_the_disk_has_worked() {
        let mut pauses = DiskRetryDelay::default();
        let mut now = Instant::now();
        assert_eq!(pauses.failed(now), LOOK, "the first failure");
        assert_eq!(pauses.failed(now), LOOK * 2, "the file could not be opened");
        pauses.works(now);
        now += WORKED / 2;
        assert_eq!(pauses.failed(now), LOOK * 4, "room for little");
        for _ in 0..9 {
            pauses.failed(now);
        }
        assert_eq!(pauses.failed(now), AGAIN_MAX);
        for _ in 0..9 {
            pauses.works(now);
            now += WORKED;
            assert_eq!(pauses.failed(now), LOOK, "it has worked");
        }
    }
}
