//! The purge log: what was asked to be forgotten, in which order.
//!
//! `order` is one growing number. A load notes `born = order` when it begins and
//! the entry carries it; a purge leaves a record (selector, n = order + 1). **An
//! entry is visible only if no matching record has n > born.** So no purge looks
//! for entries, whatever its selector reaches: it costs one insertion, and an
//! entry that is written late, by a slow load or a revalidation, is hidden from
//! the start. An entry remembers up to which order it was compared, so a hit costs
//! one comparison of two numbers while no purge came in, and afterwards it is compared
//! with what is newer alone.
//!
//! Inside: `order` (places in the order), `ledger` (records, by `keys` in a `table`), `stamps`
//! (what requests make invalid by themselves, which leaves no record), `urls`, `text`. Records
//! that operators made and those that requests made are kept apart, each within bounds of
//! their own: anonymous requests push out nothing that an operator has purged.
//!
//! Invariant: a record is in place before `order` shows its number, hence whoever
//! reads order n sees every record up to n. Records go when a sweep has compared
//! every entry with them; `floor` then tells which loads began too early to be
//! judged, and those are not admitted.

mod keys;
mod ledger;
mod order;
mod spelling;
mod stamps;
mod steps;
mod table;
mod text;
mod times;
mod urls;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config;
use crate::entry::{Entry, PurgeAttributes};
use crate::key::{KeyId, PurgeHash};
use crate::pattern::Pattern;
use ledger::{CompiledSelector, LedgerInsertOutcome, PurgeLedger};
use order::{LocalStepBounds, PurgeClock};
use stamps::InvalidationStamps;
use table::{Stamp, StampCell};
use times::SoftTimes;

pub use order::{MAX_NUMBER, PurgeOrder, number_of, numbered, shared};
pub use stamps::{InvalidationWatch, LocalPresence};
pub use text::{PurgeStatement, length_of_invalidated};
pub use urls::UrlSelector;

/// What a purge reaches.
#[derive(Clone, Debug)]
pub enum Selector {
    /// One key with all its variants, by its short name.
    Key(KeyId),
    /// One URL with every combination of headers, cookies and plugin parts.
    Url(PurgeHash),
    /// URLs (`host/path?query`, or `/path?query` on every host) that begin with this.
    Prefix(String),
    /// URLs, likewise, that match as a whole.
    Pattern(Pattern),
    Tag(String),
    /// Responses of one origin that share a group (see [`crate::tags::group`]).
    Group(PurgeHash),
    Route(String),
    All,
}

/// How a purge leaves an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeKind {
    /// Gone.
    Hard,
    /// Stale: served while it refreshes.
    Soft,
}

/// What the log says of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryVisibility {
    Visible,
    /// Visible, but stale by a soft purge.
    Marked,
    /// Purges that reach it may have been missed: of use only once its origin said so.
    Doubted,
    Hidden,
}

/// Who asked for a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeInitiator {
    /// The admin API, `PURGE`, another node.
    Operator,
    /// A rule of the configuration, by a request of anybody.
    Request,
}

/// The log.
pub struct PurgeLog {
    clock: PurgeClock,
    /// The newest order of a record.
    recorded: AtomicU64,
    operators: PurgeLedger,
    requests: PurgeLedger,
    stamps: InvalidationStamps,
    /// The newest purges of everything.
    all: StampCell,
    /// What was born before this is in doubt.
    doubted: AtomicU64,
    /// Entries and loads born before this can't be judged any more.
    floor: AtomicU64,
    /// When the last soft purges came.
    soft_times: Mutex<SoftTimes>,
    /// Whoever changes the log holds this.
    writer: Mutex<PurgeWriterState>,
    max_records: usize,
    max_request_records: usize,
    /// How long records stay after a sweep, for what a second tier still holds.
    keep: Duration,
}

#[derive(Default)]
struct PurgeWriterState {
    /// See [`PurgeLog::doubt`]: the newest that may be cleared, and the newest that may not.
    doubts: [PurgeDoubt; 2],
    /// When sweeps ended and where they had begun: what they saw may be dropped once the
    /// next one has ended and `keep` is over.
    swept: VecDeque<(Instant, PurgeOrder)>,
}

/// How long a doubt lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoubtDuration {
    /// Until what was missed is known ([`PurgeLog::trust`]).
    UntilKnown,
    /// Nobody can tell what was missed: until each entry was loaded again.
    ForGood,
}

/// What was born before is in doubt; 0 is nothing.
#[derive(Clone, Copy, Default, Debug)]
struct PurgeDoubt {
    /// As it was given out.
    name: PurgeOrder,
    before: PurgeOrder,
}

impl PurgeLog {
    /// Keeps up to `max_records`, each for `keep` after a sweep has applied it: as long as
    /// a second tier may hold what was born before.
    pub fn new(max_records: usize, keep: Duration) -> Self {
        let limits = config::PurgeLogConfig {
            max_records,
            ..config::PurgeLogConfig::default()
        };
        Self::limited(&limits, keep, LocalStepBounds::None)
    }

    /// As [`new`](Self::new), for a node that follows a log which gives out numbers.
    pub fn numbered(limits: &config::PurgeLogConfig, keep: Duration) -> Self {
        Self::limited(limits, keep, LocalStepBounds::BelowNextNumber)
    }

    /// As [`new`](Self::new), for a node that follows none.
    pub fn alone(limits: &config::PurgeLogConfig) -> Self {
        Self::limited(limits, Duration::ZERO, LocalStepBounds::None)
    }

    fn limited(limits: &config::PurgeLogConfig, keep: Duration, bounds: LocalStepBounds) -> Self {
        Self {
            clock: PurgeClock::new(bounds),
            recorded: AtomicU64::new(0),
            operators: PurgeLedger::new(limits.max_patterns),
            requests: PurgeLedger::new(limits.max_patterns),
            stamps: InvalidationStamps::new(limits.invalidation_buckets),
            all: StampCell::default(),
            doubted: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            soft_times: Mutex::default(),
            writer: Mutex::default(),
            max_records: limits.max_records,
            max_request_records: limits.max_request_records.max(1),
            keep,
        }
    }

    /// The newest purge's number. A load reads it when it begins.
    pub fn order(&self) -> PurgeOrder {
        self.clock.now()
    }

    /// Leaves a record. From the return on no read shows what it reaches.
    pub fn record(&self, selector: &Selector, kind: PurgeKind) -> PurgeOrder {
        self.record_by(PurgeInitiator::Operator, selector, kind)
    }

    /// As [`record`](Self::record), among the records of this author.
    pub fn record_by(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
    ) -> PurgeOrder {
        let _writer = self.writer.lock();
        let order = self.clock.next();
        self.insert(author, selector, kind, order);
        self.clock.reach(order);
        order
    }

    /// Leaves a record of the shared log, which may be a purge of our own come back.
    pub fn record_numbered(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
        number: u64,
    ) {
        let _writer = self.writer.lock();
        let order = numbered(number);
        self.insert(author, selector, kind, order);
        self.clock.move_to(order);
    }

    /// Hides what was loaded before now and bears one of these numbers, of URLs or groups. It
    /// leaves no record. Answers which of them somebody holds here.
    pub fn invalidate(&self, numbers: &[PurgeHash]) -> (PurgeOrder, Vec<LocalPresence>) {
        let _writer = self.writer.lock();
        let order = self.clock.next();
        let stamped = numbers
            .iter()
            .map(|number| self.stamps.stamp(*number, order));
        let stamped = stamped.collect();
        self.clock.reach(order);
        (order, stamped)
    }

    /// Has invalidations noted for what has these marks, as long as the answer lives. A load
    /// asks for it before it reads its place in the order.
    pub fn watch(&self, marks: &PurgeAttributes) -> InvalidationWatch {
        self.stamps.watch(marks)
    }

    /// Has invalidations noted for an entry as long as it lives. Whoever keeps one calls this
    /// before it is judged.
    pub fn hold(&self, entry: &Entry) {
        self.watched(entry);
    }

    /// Whether local steps become rare, so that a number of the shared log is wanted.
    pub fn wants_number(&self) -> bool {
        self.clock.runs_low()
    }

    /// Notes that every purge up to `number` of the shared log is in.
    pub fn advance(&self, number: u64) {
        let _writer = self.writer.lock();
        self.clock.move_to(numbered(number));
    }

    /// Says that purges up to `number` of the shared log are unknown: what was born
    /// before can't be judged.
    pub fn raise_floor(&self, number: u64) {
        let _writer = self.writer.lock();
        self.floor.fetch_max(numbered(number), Ordering::Release);
        // Whoever was compared already is to look again.
        self.clock.move_to(numbered(number));
    }

    /// Says that purges may have been missed until now: what was born before is in doubt.
    /// Answers the doubt's name. One that is cleared leaves those that last.
    pub fn doubt(&self, lasts: DoubtDuration) -> PurgeOrder {
        let mut writer = self.writer.lock();
        let order = self.clock.next();
        writer.doubts[lasts as usize] = PurgeDoubt {
            name: order,
            before: order,
        };
        self.note_doubts(&writer);
        self.clock.reach(order);
        order
    }

    /// Says that what was born before `number` of the shared log has to be validated.
    pub fn doubt_before(&self, number: u64) {
        let mut writer = self.writer.lock();
        let order = numbered(number);
        let lasting = &mut writer.doubts[DoubtDuration::ForGood as usize];
        lasting.before = lasting.before.max(order);
        self.note_doubts(&writer);
        self.clock.move_to(order);
    }

    /// Puts a doubt at a later place in the order, unless another one came since or it is over.
    pub fn move_doubt(&self, doubt: PurgeOrder, to: PurgeOrder) {
        let mut writer = self.writer.lock();
        for known in writer.doubts.iter_mut().filter(|d| d.name == doubt) {
            known.before = known.before.max(to);
        }
        self.note_doubts(&writer);
        // Whoever was compared with it before it was moved is to look again.
        let next = self.clock.next();
        match to > next {
            true => self.clock.move_to(to),
            false => self.clock.reach(next),
        }
    }

    /// Clears a doubt: what had been missed is in by now. Not one that came later.
    pub fn trust(&self, doubt: PurgeOrder) {
        let mut writer = self.writer.lock();
        let known = &mut writer.doubts[DoubtDuration::UntilKnown as usize];
        if known.name == doubt {
            *known = PurgeDoubt::default();
        }
        self.note_doubts(&writer);
    }

    fn note_doubts(&self, writer: &PurgeWriterState) {
        let [cleared, lasting] = writer.doubts;
        let doubted = cleared.before.max(lasting.before);
        self.doubted.store(doubted, Ordering::Release);
    }

    fn insert(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
        order: PurgeOrder,
    ) {
        if kind == PurgeKind::Soft {
            self.soft_times.lock().note(order, Instant::now());
        }
        let ledger = self.with_room(author);
        let stamp = match kind {
            PurgeKind::Hard => Stamp {
                hard: order,
                soft: 0,
            },
            PurgeKind::Soft => Stamp {
                hard: 0,
                soft: order,
            },
        };
        if let LedgerInsertOutcome::Everything(stamp) =
            ledger.take(CompiledSelector::of(selector), stamp)
        {
            self.all.raise(stamp);
            if stamp.hard > 0 {
                // The widest record swallows those before it.
                self.operators.forget(stamp.hard);
                self.requests.forget(stamp.hard);
            }
        }
        self.recorded.fetch_max(order, Ordering::Release);
    }

    /// The ledger of an author, in which there is room for one more.
    fn with_room(&self, author: PurgeInitiator) -> &PurgeLedger {
        match author {
            PurgeInitiator::Operator => {
                if self.operators.len() + self.records_of_everything() >= self.max_records {
                    self.shed();
                }
                &self.operators
            }
            PurgeInitiator::Request => {
                if self.requests.len() >= self.max_request_records {
                    self.requests.fold_older_half();
                }
                &self.requests
            }
        }
    }

    /// Lets the older half of the operators' records go. What was not compared with it can't
    /// be judged any more: that hides too much, and never too little.
    fn shed(&self) {
        let median = self.operators.median();
        self.operators.forget(median);
        self.floor.fetch_max(median, Ordering::Release);
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.operators.len() + self.requests.len() + self.records_of_everything()
    }

    fn records_of_everything(&self) -> usize {
        usize::from(self.all.read().newest() > self.floor())
    }

    /// Whether there is nothing that entries would have to be compared with.
    pub fn is_empty(&self) -> bool {
        self.records() == 0 && self.requests.is_empty()
    }

    /// Compares an entry with all that came since it was last compared.
    pub fn judge(&self, entry: &Entry) -> EntryVisibility {
        let (order, checked) = (self.order(), entry.checked());
        if checked == order {
            return seen(entry.is_marked());
        }
        let overtaken = self.watched(entry).newest() > entry.known_since;
        if overtaken || checked < self.floor() {
            return EntryVisibility::Hidden;
        }
        let stamp = self.reaching(&entry.marks, checked);
        if stamp.hard > entry.born {
            return EntryVisibility::Hidden;
        }
        if stamp.soft > entry.born && !entry.is_marked() {
            entry.mark(self.soft_times.lock().of(stamp.soft));
        }
        let marked = entry.is_marked();
        // Not noted as compared: the doubt may be cleared.
        if entry.born < self.doubted() {
            return EntryVisibility::Doubted;
        }
        entry.set_checked(self.clock.compared_at(order), marked);
        seen(marked)
    }

    fn watched<'a>(&self, entry: &'a Entry) -> &'a InvalidationWatch {
        entry.watch.get_or_init(|| self.watch(&entry.marks))
    }

    /// Whether a load that began at `born` may not be shown to somebody who asks now.
    pub fn hides(&self, marks: &PurgeAttributes, born: PurgeOrder) -> bool {
        if self.clock.is_still(born) {
            return false;
        }
        let unsure = self.floor().max(self.doubted());
        let stamp = || self.reaching(marks, born).newest();
        born < unsure || self.stamps.newest(marks) > born || stamp() > born
    }

    /// The newest records that match, of those newer than `since`.
    fn reaching(&self, marks: &PurgeAttributes, since: PurgeOrder) -> Stamp {
        if self.recorded.load(Ordering::Acquire) <= since {
            return Stamp::default();
        }
        let mut newest = self.all.read();
        newest.take(self.operators.reaching(marks, since));
        newest.take(self.requests.reaching(marks, since));
        newest
    }

    fn floor(&self) -> PurgeOrder {
        self.floor.load(Ordering::Acquire)
    }

    fn doubted(&self) -> PurgeOrder {
        self.doubted.load(Ordering::Acquire)
    }

    /// Begins a sweep: every entry is now to be judged. Hand the answer to [`end_sweep`](Self::end_sweep).
    pub fn begin_sweep(&self) -> PurgeOrder {
        self.order()
    }

    /// Ends a sweep that judged every entry since `begun`. Records that the sweep
    /// before had already applied are dropped: loads had a whole interval to end.
    pub fn end_sweep(&self, begun: PurgeOrder, now: Instant) {
        let mut writer = self.writer.lock();
        let over = |ended: Instant| now.saturating_duration_since(ended) >= self.keep;
        let mut done = None;
        while let Some((_, begun)) = writer.swept.pop_front_if(|(ended, _)| over(*ended)) {
            done = Some(begun);
        }
        if let Some(done) = done {
            self.operators.forget(done);
            self.requests.forget(done);
            self.floor.fetch_max(done, Ordering::Release);
        }
        writer.swept.push_back((now, begun));
    }
}

fn seen(marked: bool) -> EntryVisibility {
    match marked {
        true => EntryVisibility::Marked,
        false => EntryVisibility::Visible,
    }
}

#[cfg(test)]
mod tests;
