//! Maps the numbers of the store's purge log to places in our own order.
//!
//! A window begins at a number of the store and at a place in our own order. From there each purge
//! of the store's log advances our order by one number, including a purge that reaches nothing and
//! stands for many numbers of the store ([`PurgeLogEntry::since`]). A window grows by purges that
//! are there, without a hole. If some are missing, or the log is another one, a new window begins
//! above everything that was given out here so far. Then everything older is hidden, and what the
//! store has from before the window can't be judged. So our own order grows by what was appended,
//! and not by the numbers that the store shows.
//!
//! Pure: [`PurgeLogWindow::next`] tells what a range of the log means for what was known.

use super::store::{LogFault, LogNumber, LogOrder, PurgeLogEntry, PurgeLogRange};
use crate::event::L2LookupOutcome;
use crate::purge::{MAX_NUMBER, PurgeOrder};

/// A range of one generation of the log that was applied here without a hole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PurgeLogWindow {
    pub(super) generation: u64,
    /// Never empty, in ascending order. From each anchor to the next, the two numbers grow
    /// together.
    anchors: Vec<LogWindowAnchor>,
    /// The newest number in the window.
    pub(super) newest: LogNumber,
}

/// A number of the store's log and the matching number of our own order. Numbers of the store
/// between two ranges of purges match the place where the later range begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LogWindowAnchor {
    number: LogNumber,
    ours: u64,
}

/// What a range of the log means for what was known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum LogWindowAdvance {
    /// It contains nothing new.
    Nothing,
    /// The window grows, or it is the first one and begins with the log.
    Further(PurgeLogWindow),
    /// A new window: what was born before it can't be judged. The fault tells what is wrong with
    /// the log; None if this node only comes late to it.
    Anew(PurgeLogWindow, Option<LogFault>),
}

/// The largest number of anchors. The oldest is dropped first, and what was born before the next
/// one can't be judged any more.
const ANCHORS: usize = 1_024;

impl PurgeLogWindow {
    /// Tells what `log` means if `known` was known and `order` is the newest place in our own
    /// order.
    pub(super) fn next(
        known: Option<&Self>,
        log: &PurgeLogRange,
        order: PurgeOrder,
    ) -> LogWindowAdvance {
        let anew = |fault| LogWindowAdvance::Anew(Self::anew(log, order), fault);
        let Some(known) = known else {
            let all = Self::at(log.generation, LogNumber::ZERO, order.number()).grown(log);
            return match (log.whole, all) {
                (true, Some(window)) => LogWindowAdvance::Further(window),
                (true, None) => anew(Some(LogFault::Missing)),
                (false, _) => anew(None),
            };
        };
        if known.generation != log.generation {
            return anew(Some(LogFault::Lost));
        }
        if log.newest <= known.newest {
            return LogWindowAdvance::Nothing;
        }
        match known.clone().grown(log).filter(|grown| !grown.is_used_up()) {
            Some(grown) => LogWindowAdvance::Further(grown),
            None => anew(Some(LogFault::Missing)),
        }
    }

    /// The longest range without a hole that ends with the log. It begins above everything that was
    /// given out here.
    fn anew(log: &PurgeLogRange, order: PurgeOrder) -> Self {
        let mut first = log.newest;
        for logged in log.purges.iter().rev() {
            match logged.number == first && first > LogNumber::ZERO {
                true => first = logged.since.before(),
                false => break,
            }
        }
        let ours = order.number().saturating_add(1);
        let begun = Self::at(log.generation, first, ours);
        begun
            .grown(log)
            .unwrap_or_else(|| Self::at(log.generation, log.newest, ours))
    }

    fn at(generation: u64, number: LogNumber, ours: u64) -> Self {
        Self {
            generation,
            anchors: vec![LogWindowAnchor { number, ours }],
            newest: number,
        }
    }

    /// Grows the window to the end of the log. None: the log's purges do not lead there in order
    /// and without a hole.
    fn grown(mut self, log: &PurgeLogRange) -> Option<Self> {
        let known = self.newest;
        for logged in log.purges.iter().filter(|logged| logged.number > known) {
            let next = self.newest.next()?;
            if logged.since > next || logged.number < next {
                return None;
            }
            self.take(logged);
        }
        (self.newest == log.newest).then_some(self)
    }

    fn take(&mut self, logged: &PurgeLogEntry) {
        let ours = self.ours(self.newest).saturating_add(1);
        if logged.number.since(self.newest) > 1 {
            let number = logged.number;
            self.anchors.push(LogWindowAnchor { number, ours });
            if self.anchors.len() > ANCHORS {
                self.anchors.remove(0);
            }
        }
        self.newest = logged.number;
    }

    /// The number of our own order that matches `number`. A number before the window matches the
    /// window's beginning.
    fn ours(&self, number: LogNumber) -> u64 {
        let after = self
            .anchors
            .partition_point(|anchor| anchor.number <= number);
        let later = self
            .anchors
            .get(after)
            .map_or(u64::MAX, |anchor| anchor.ours);
        let anchor = self.anchors[after.saturating_sub(1)];
        let further = number.since(anchor.number);
        anchor.ours.saturating_add(further).min(later)
    }

    /// The number of the store after which the window begins.
    pub(super) fn first(&self) -> LogNumber {
        self.anchors[0].number
    }

    /// The number of our own order from which things can be judged.
    pub(super) fn begins_at(&self) -> u64 {
        self.anchors[0].ours
    }

    /// Whether our own order has reached its end, after some 2³⁵ purges in one life of the process.
    /// Nothing in the store can be judged then.
    pub(super) fn is_used_up(&self) -> bool {
        self.ours(self.newest) >= MAX_NUMBER
    }

    /// The place in our own order of the purge with this number.
    pub(super) fn order_at(&self, number: LogNumber) -> PurgeOrder {
        PurgeOrder::numbered(self.ours(number))
    }

    /// The place in our own order of a record that was born at this number.
    ///
    /// # Errors
    /// The reason why the record can't be judged.
    pub(super) fn order_of(&self, number: LogNumber) -> Result<PurgeOrder, L2LookupOutcome> {
        match number {
            _ if self.is_used_up() => Err(L2LookupOutcome::Skipped),
            _ if number > self.newest => Err(L2LookupOutcome::Ahead),
            _ if number < self.first() => Err(L2LookupOutcome::Outdated),
            _ => Ok(self.order_at(number)),
        }
    }

    /// The place in the store's log that matches this place in our own order. None: it is before
    /// this window.
    pub(super) fn place_of(&self, order: PurgeOrder) -> Option<LogOrder> {
        let ours = order.number();
        let after = self.anchors.partition_point(|anchor| anchor.ours <= ours);
        let anchor = self.anchors[after.checked_sub(1)?];
        if self.is_used_up() {
            return None;
        }
        let number = anchor.number.plus(ours - anchor.ours);
        // While another window replaces this one, our order is ahead of it.
        Some(number.min(self.newest).order())
    }
}

#[cfg(test)]
mod tests;
