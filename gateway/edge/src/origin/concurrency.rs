//! How many requests at once an origin can take, found out by the times of its answers
//! (`load.adaptive`).
//!
//! Time goes in windows of one round trip (the time to the head of a response). In each the limit
//! grows by one, if the window's answers took less than twice as long as in the best window of the
//! last minutes and the limit was in use; if they took longer, or the origin refused (503, 429, no
//! answer in time), it sinks by a tenth, at most once in a window; the window after that changes
//! nothing, since its answers are to requests of the one before. Until it sinks for the first time
//! it doubles, as TCP does at its beginning, so that a start under load does not take minutes.
//!
//! Decision: no window is spent on measuring the time without load, as gradient algorithms do,
//! since the requests above the limit of such a window are lost. What is compared are medians of
//! windows, never single answers: one quick 304 would make all others look slow. The best time is
//! forgotten after some minutes, and sooner where the limit is at its minimum and the answers are
//! slow all the same: then their number is not the reason.

use std::time::{Duration, Instant};

/// The limit, and what it follows from.
#[derive(Clone, Debug)]
pub(super) struct AdaptiveLimit {
    least: f64,
    most: f64,
    limit: f64,
    phase: GrowthPhase,
    window: RoundTripWindow,
    best: BestTimes,
}

/// What an attempt has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LoadSign {
    /// A good answer came after this time.
    Answered(Duration),
    /// The origin has too much to do: it said so, or did not answer in time.
    Overloaded,
}

/// How fast the limit grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GrowthPhase {
    /// It has never sunk.
    Doubling,
    Steady,
}

/// What has happened since the window began.
#[derive(Clone, Debug)]
struct RoundTripWindow {
    began: Instant,
    /// How long it takes at least: the time of the answers before.
    length: Duration,
    times: Vec<Duration>,
    signs: usize,
    /// The most requests that were under way at once.
    busiest: usize,
    change: WindowChange,
}

/// Whether the limit may change by what is seen in a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WindowChange {
    Open,
    /// It has sunk.
    Sunk,
    /// It has sunk in the window before: what is answered now was sent before that.
    Settling,
}

/// The shortest times of windows, in the present span and in the one before.
#[derive(Clone, Debug)]
struct BestTimes {
    present: Option<Duration>,
    before: Option<Duration>,
    turned: Instant,
}

/// Fewer attempts say nothing; the window goes on.
const LEAST_SIGNS: usize = 8;
/// More times are not kept.
const MOST_TIMES: usize = 256;
/// For so long, at least, a best time is remembered; twice as long at most.
const REMEMBERED: Duration = Duration::from_secs(120);
/// A window is slow from this multiple of the best time on.
const SLOW: u32 = 2;
/// What is left of the limit when it sinks.
const KEPT: f64 = 0.9;
/// How much the best time is put up in a window that is slow at the lowest limit.
const DOUBT: f64 = 1.1;

impl AdaptiveLimit {
    pub(super) fn new(least: usize, most: usize, now: Instant) -> Self {
        let least = least.clamp(1, most) as f64;
        Self {
            least,
            most: most as f64,
            limit: least,
            phase: GrowthPhase::Doubling,
            window: RoundTripWindow::new(now, Duration::ZERO, WindowChange::Open),
            best: BestTimes {
                present: None,
                before: None,
                turned: now,
            },
        }
    }

    /// The most requests at once.
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Goes on from what another configuration has found out.
    pub(super) fn take_over(&mut self, before: &Self) {
        self.limit = before.limit.clamp(self.least, self.most);
        self.phase = before.phase;
        self.best = before.best.clone();
    }

    /// Notes what an attempt has shown while so many requests were under way.
    pub(super) fn observe(&mut self, sign: LoadSign, under_way: usize, now: Instant) {
        let window = &mut self.window;
        window.signs += 1;
        window.busiest = window.busiest.max(under_way);
        match sign {
            LoadSign::Answered(time) if window.times.len() < MOST_TIMES => window.times.push(time),
            LoadSign::Answered(_) => {}
            LoadSign::Overloaded => self.sink(),
        }
        self.best.begin_window(now);
        let elapsed = now.saturating_duration_since(self.window.began);
        if self.window.signs >= LEAST_SIGNS && elapsed >= self.window.length {
            self.end_window(now);
        }
    }

    fn end_window(&mut self, now: Instant) {
        let Some(time) = self.window.median() else {
            // Nothing but refusals.
            self.window = self.window.next(now, self.window.length);
            return;
        };
        let best = self.best.with(time);
        let is_slow = time > best.saturating_mul(SLOW);
        let in_use = self.window.busiest * 2 >= self.limit();
        if is_slow && self.limit <= self.least {
            self.best.doubt();
        } else if is_slow {
            self.sink();
        } else if self.window.change == WindowChange::Open && in_use {
            self.grow();
        }
        self.window = self.window.next(now, time);
    }

    fn grow(&mut self) {
        let step = match self.phase {
            GrowthPhase::Doubling => self.limit,
            GrowthPhase::Steady => 1.0,
        };
        self.limit = (self.limit + step).min(self.most);
    }

    /// Once in a window at most.
    fn sink(&mut self) {
        if self.window.change == WindowChange::Open {
            self.window.change = WindowChange::Sunk;
            self.phase = GrowthPhase::Steady;
            self.limit = (self.limit * KEPT).max(self.least);
        }
    }
}

impl RoundTripWindow {
    fn new(began: Instant, length: Duration, change: WindowChange) -> Self {
        Self {
            began,
            length,
            times: Vec::new(),
            signs: 0,
            busiest: 0,
            change,
        }
    }

    /// The window after this one.
    fn next(&self, now: Instant, length: Duration) -> Self {
        let change = match self.change {
            WindowChange::Sunk => WindowChange::Settling,
            WindowChange::Open | WindowChange::Settling => WindowChange::Open,
        };
        Self::new(now, length, change)
    }

    fn median(&mut self) -> Option<Duration> {
        let middle = self.times.len() / 2;
        (!self.times.is_empty()).then(|| *self.times.select_nth_unstable(middle).1)
    }
}

impl BestTimes {
    /// Forgets what was best long ago.
    fn begin_window(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.turned);
        if elapsed >= REMEMBERED {
            let is_recent = elapsed < 2 * REMEMBERED;
            self.before = self.present.take().filter(|_| is_recent);
            self.turned = now;
        }
    }

    /// The best time, this one of a window included.
    fn with(&mut self, time: Duration) -> Duration {
        let present = self.present.map_or(time, |best| best.min(time));
        self.present = Some(present);
        self.before.map_or(present, |best| best.min(present))
    }

    /// Puts up what was best a little.
    fn doubt(&mut self) {
        for best in [&mut self.present, &mut self.before] {
            *best = best.map(|best| best.mul_f64(DOUBT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock, and an origin that answers so many requests at once in `time`, and more of them
    /// accordingly later.
    struct SimulatedOrigin {
        limit: AdaptiveLimit,
        now: Instant,
        capacity: usize,
        time: Duration,
    }

    impl SimulatedOrigin {
        fn new(capacity: usize, (least, most): (usize, usize)) -> Self {
            let now = Instant::now();
            Self {
                limit: AdaptiveLimit::new(least, most, now),
                now,
                capacity,
                time: Duration::from_millis(20),
            }
        }

        /// So many clients ask at once, `rounds` times; those above the limit wait.
        fn run(&mut self, clients: usize, rounds: usize) {
            for _ in 0..rounds {
                let under_way = clients.min(self.limit.limit());
                let queued = under_way.div_ceil(self.capacity) as u32;
                self.now += self.time * queued;
                for _ in 0..under_way {
                    let answered = LoadSign::Answered(self.time * queued);
                    self.limit.observe(answered, under_way, self.now);
                }
            }
        }

        fn limit(&self) -> usize {
            self.limit.limit()
        }
    }

    #[test]
    fn it_settles_at_what_the_origin_answers_without_getting_slow() {
        for capacity in [10, 25, 100] {
            let mut origin = SimulatedOrigin::new(capacity, (8, 512));
            origin.run(1_000, 300);
            for _ in 0..50 {
                origin.run(1_000, 1);
                let limit = origin.limit();
                let range = capacity * 2 - capacity / 3..=capacity * 2 + 2;
                assert!(range.contains(&limit), "{limit} of {capacity}");
            }
        }
    }

    #[test]
    fn it_doubles_at_its_beginning_and_stays_within_its_bounds() {
        let mut origin = SimulatedOrigin::new(10_000, (8, 512));
        origin.run(1_000, 6);
        assert_eq!(origin.limit(), 512);
        for _ in 0..10_000 {
            origin.now += origin.time / 4;
            origin.limit.observe(LoadSign::Overloaded, 500, origin.now);
        }
        assert_eq!(origin.limit(), 8);
    }

    #[test]
    fn it_does_not_grow_while_it_is_not_in_use() {
        let mut origin = SimulatedOrigin::new(10_000, (8, 512));
        origin.run(10, 100);
        assert!((16..=32).contains(&origin.limit()), "{}", origin.limit());
    }

    #[test]
    fn it_sinks_once_in_a_window() {
        let mut origin = SimulatedOrigin::new(10_000, (8, 512));
        origin.run(1_000, 6);
        for _ in 0..LEAST_SIGNS - 1 {
            origin.limit.observe(LoadSign::Overloaded, 500, origin.now);
        }
        assert_eq!(origin.limit(), 460);
        origin.run(1_000, 3);
        assert!((461..=462).contains(&origin.limit()), "then by one");
    }

    #[test]
    fn a_single_quick_answer_makes_no_others_slow() {
        let mut origin = SimulatedOrigin::new(10_000, (8, 512));
        for _ in 0..100 {
            let quick = LoadSign::Answered(Duration::from_micros(100));
            origin.limit.observe(quick, 1, origin.now);
            origin.run(1_000, 1);
        }
        assert_eq!(origin.limit(), 512);
    }

    #[test]
    fn it_follows_an_origin_that_has_become_slower_for_good() {
        let mut origin = SimulatedOrigin::new(50, (8, 512));
        origin.run(1_000, 100);
        origin.time *= 10;
        origin.run(1_000, 55);
        assert_eq!(origin.limit(), 8, "it can't know better yet");
        origin.run(1_000, 200);
        assert!(origin.limit() > 40, "{}", origin.limit());
    }

    #[test]
    fn the_best_time_is_forgotten_after_minutes() {
        let now = Instant::now();
        let mut best = BestTimes {
            present: None,
            before: None,
            turned: now,
        };
        let (quick, slow) = (Duration::from_millis(5), Duration::from_millis(50));
        assert_eq!(best.with(quick), quick);
        best.begin_window(now + REMEMBERED);
        assert_eq!(best.with(slow), quick);
        best.begin_window(now + 2 * REMEMBERED);
        assert_eq!(best.with(slow), slow);
    }
}
