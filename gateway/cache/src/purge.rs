//! The purge log: what was purged, and in which order.
//!
//! `order` is one growing number. A load notes `born = order` when it begins, and its entry keeps
//! that value; a purge leaves a record (selector, n = order + 1). **An entry is visible only if no
//! matching record has n > born.** So no purge has to look for entries, whatever its selector
//! reaches: it costs one insertion, and an entry that is written late, by a slow load or a
//! revalidation, is hidden from the start. An entry remembers up to which order it was compared. So
//! a hit costs one comparison of two numbers while no purge came in, and after a purge the entry is
//! compared with the newer records only.
//!
//! Inside: `order` (places in the order), `ledger` (the records, by `keys` in a `table`), `stamps`
//! (invalidations by requests, which leave no record), `times` (of soft purges), `urls`, `spelling`
//! `request` and `text` (selectors). Records of operators and records caused by requests are kept apart, each
//! within bounds of their own, so anonymous requests push out nothing that an operator has purged.
//!
//! Invariant: a record is in place before `order` shows its number, so whoever reads order n sees
//! every record up to n. Records are dropped when a sweep has compared every entry with them;
//! `floor` then tells which loads began too early to be judged, and those are not admitted.
//! Invariant: what takes the place of dropped records (the floor, the stamp of everything, a wider
//! record) is shown before they go. Whoever looks reads it after them, and so misses none of both.

mod keys;
mod ledger;
mod order;
mod request;
mod spelling;
mod stamps;
mod steps;
mod table;
mod text;
mod times;
mod urls;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config;
use crate::entry::{Entry, PurgeAttributes, PurgeComparison};
use crate::key::PurgeHash;
use ledger::{CompiledSelector, LedgerInsertOutcome, PurgeLedger};
use order::{LocalStepBounds, PurgeClock};
use stamps::InvalidationStamps;
use steps::LedgerMoment;
use table::{Stamp, StampCell};
use times::{PurgeTimes, SoftPurge, SoftTimes};

pub(crate) use order::PurgeOrderCell;
pub use order::{MAX_NUMBER, PurgeOrder};
pub use request::{EntryVisibility, PurgeInitiator, PurgeKind, Selector};
pub use stamps::{InvalidationWatch, LocalPresence};
pub use text::{PurgeStatement, length_of_invalidated};
pub use urls::UrlSelector;

/// The purge log of this node.
pub struct PurgeLog {
    clock: PurgeClock,
    /// The newest order that a record has.
    recorded: PurgeOrderCell,
    operators: PurgeLedger,
    requests: PurgeLedger,
    stamps: InvalidationStamps,
    /// The newest purges that reached everything.
    all: StampCell,
    /// Whatever was born before this is in doubt.
    doubted: PurgeOrderCell,
    /// Entries and loads that were born before this can't be judged any more.
    floor: PurgeOrderCell,
    /// The times of the last soft purges.
    soft_times: Mutex<SoftTimes>,
    /// Held by whoever changes the log.
    writer: Mutex<PurgeWriterState>,
    max_records: usize,
    max_request_records: usize,
    /// How long records stay after a sweep, because a second tier may still hold what they hide.
    keep: Duration,
}

#[derive(Default)]
struct PurgeWriterState {
    /// The newest doubt that may be cleared and the newest that may not; see [`PurgeLog::doubt`].
    doubts: [PurgeDoubt; 2],
    /// When each sweep ended and at which order it had begun. The records that a sweep applied may
    /// be dropped when the next one has ended and `keep` has passed.
    swept: VecDeque<(Instant, PurgeOrder)>,
    times: PurgeTimes,
}

/// `Age` has whole seconds: what another cache has kept may be this much older.
const FRACTION: Duration = Duration::from_secs(1);
/// Up to this age that fraction counts. A cache that still has something at this age has most
/// likely heard of the purge that came in that second; what it has loaded just after the purge
/// could otherwise never be told from what it has loaded just before.
const FRACTION_COUNTS_UNTIL: Duration = Duration::from_secs(5);

/// How long a doubt lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoubtDuration {
    /// Until the missed purges are known ([`PurgeLog::trust`]).
    UntilKnown,
    /// Until each entry was loaded again, because nobody can tell what was missed.
    ForGood,
}

/// Whatever was born before `before` is in doubt; 0 means that there is no doubt.
#[derive(Clone, Copy, Default, Debug)]
struct PurgeDoubt {
    /// The order that was returned when the doubt was noted.
    name: PurgeOrder,
    before: PurgeOrder,
}

impl PurgeLog {
    /// Keeps up to `max_records`, each for `keep` after a sweep has applied it. `keep` is as long
    /// as a second tier may hold entries from before a purge.
    pub fn new(max_records: usize, keep: Duration) -> Self {
        let limits = config::PurgeLogConfig {
            max_records,
            ..config::PurgeLogConfig::default()
        };
        Self::limited(&limits, keep, LocalStepBounds::None)
    }

    /// Like [`new`](Self::new), for a node that follows a purge log which gives out numbers.
    pub fn numbered(limits: &config::PurgeLogConfig, keep: Duration) -> Self {
        Self::limited(limits, keep, LocalStepBounds::BelowNextNumber)
    }

    /// Like [`new`](Self::new), for a node that follows no other log.
    pub fn alone(limits: &config::PurgeLogConfig) -> Self {
        Self::limited(limits, Duration::ZERO, LocalStepBounds::None)
    }

    fn limited(limits: &config::PurgeLogConfig, keep: Duration, bounds: LocalStepBounds) -> Self {
        Self {
            clock: PurgeClock::new(bounds),
            recorded: PurgeOrderCell::default(),
            operators: PurgeLedger::new(limits.max_patterns),
            requests: PurgeLedger::new(limits.max_patterns),
            stamps: InvalidationStamps::new(limits.invalidation_buckets),
            all: StampCell::default(),
            doubted: PurgeOrderCell::default(),
            floor: PurgeOrderCell::default(),
            soft_times: Mutex::default(),
            writer: Mutex::default(),
            max_records: limits.max_records,
            max_request_records: limits.max_request_records.max(1),
            keep,
        }
    }

    /// The number of the newest purge. A load reads it when it begins.
    pub fn order(&self) -> PurgeOrder {
        self.clock.now()
    }

    /// The place in the order of purges of a response that another cache has kept: that at which the
    /// response was as old as its `Age` says, since that cache may not have heard yet of what was
    /// purged meanwhile. `begun` is the place at which its load began; `at` is when it arrived.
    pub fn order_of_kept(&self, begun: PurgeOrder, age: Duration, at: Instant) -> PurgeOrder {
        let fraction = FRACTION.min(FRACTION_COUNTS_UNTIL.saturating_sub(age));
        let place = self.writer.lock().times.place_before(at, age + fraction);
        // A response from before the oldest purge that is still known counts as one of an origin.
        let least = self.floor().max(self.doubted());
        place.unwrap_or(begun).max(least).min(begun)
    }

    /// Leaves a record. After the return, no read shows anything that the purge reaches.
    pub fn record(&self, selector: &Selector, kind: PurgeKind) -> PurgeOrder {
        self.record_by(PurgeInitiator::Operator, selector, kind)
    }

    /// Like [`record`](Self::record), among the records of this author.
    pub fn record_by(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
    ) -> PurgeOrder {
        let mut writer = self.writer.lock();
        let order = self.clock.next();
        writer.times.note(self.clock.now(), Instant::now());
        self.insert(author, selector, kind, order);
        self.clock.reach(order);
        order
    }

    /// Leaves a record of a purge in the shared log, which may be one of this node's own purges.
    pub fn record_numbered(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
        number: u64,
    ) {
        let mut writer = self.writer.lock();
        let order = PurgeOrder::numbered(number);
        writer.times.note(self.clock.now(), Instant::now());
        self.insert(author, selector, kind, order);
        self.clock.move_to(order);
    }

    /// Hides what was loaded before now and has one of these numbers, which stand for URLs or
    /// groups. It leaves no record. Returns, for each number, whether something with it is held
    /// here.
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

    /// Lets invalidations of things with these marks be noted for as long as the returned value
    /// lives. A load must call this before it reads its place in the order.
    pub fn watch(&self, marks: &PurgeAttributes) -> InvalidationWatch {
        self.stamps.watch(marks)
    }

    /// Lets invalidations be noted for an entry as long as it lives. Whoever stores an entry must
    /// call this before the entry is judged.
    pub fn hold(&self, entry: &Entry) {
        self.watched(entry);
    }

    /// Whether few local steps are left, so that a new number of the shared log is wanted.
    pub fn wants_number(&self) -> bool {
        self.clock.runs_low()
    }

    /// Notes that every purge up to `number` of the shared log has been recorded.
    pub fn advance(&self, number: u64) {
        let _writer = self.writer.lock();
        self.clock.move_to(PurgeOrder::numbered(number));
    }

    /// Notes that the purges up to `number` of the shared log are unknown: what was born before it
    /// can't be judged.
    pub fn raise_floor(&self, number: u64) {
        let _writer = self.writer.lock();
        self.floor.raise(PurgeOrder::numbered(number));
        // Entries that were already compared must be compared again.
        self.clock.move_to(PurgeOrder::numbered(number));
    }

    /// Notes that purges may have been missed until now: whatever was born before is in doubt.
    /// Returns the name of the doubt. Clearing a doubt does not clear one that lasts for good.
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

    /// Notes that what was born before `number` of the shared log must be validated.
    pub fn doubt_before(&self, number: u64) {
        let mut writer = self.writer.lock();
        let order = PurgeOrder::numbered(number);
        let lasting = &mut writer.doubts[DoubtDuration::ForGood as usize];
        lasting.before = lasting.before.max(order);
        self.note_doubts(&writer);
        self.clock.move_to(order);
    }

    /// Moves a doubt to a later place in the order, unless a newer doubt came or it was cleared.
    pub fn move_doubt(&self, doubt: PurgeOrder, to: PurgeOrder) {
        let mut writer = self.writer.lock();
        for known in writer.doubts.iter_mut().filter(|d| d.name == doubt) {
            known.before = known.before.max(to);
        }
        self.note_doubts(&writer);
        // Entries that were compared before the doubt was moved must be compared again.
        let next = self.clock.next();
        match to > next {
            true => self.clock.move_to(to),
            false => self.clock.reach(next),
        }
    }

    /// Clears a doubt: the purges that had been missed are recorded by now. A later doubt stays.
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
        self.doubted.write(doubted);
    }

    fn insert(
        &self,
        author: PurgeInitiator,
        selector: &Selector,
        kind: PurgeKind,
        order: PurgeOrder,
    ) {
        let stamp = match kind {
            PurgeKind::Hard => Stamp {
                hard: order,
                soft: PurgeOrder::BEFORE_ALL,
            },
            PurgeKind::Soft => Stamp {
                hard: PurgeOrder::BEFORE_ALL,
                soft: order,
            },
        };
        let (ledger, what) = (self.with_room(author), CompiledSelector::of(selector));
        if kind == PurgeKind::Soft {
            let before = match &what {
                CompiledSelector::All => self.all.read().soft,
                what => ledger.last_soft(what),
            };
            let purge = SoftPurge { order, before };
            self.soft_times.lock().note(purge, Instant::now());
        }
        if let LedgerInsertOutcome::Everything(stamp) = ledger.take(what, stamp, &self.all)
            && stamp.hard > PurgeOrder::BEFORE_ALL
        {
            // A purge of everything replaces the records before it.
            self.operators.forget(stamp.hard);
            self.requests.forget(stamp.hard);
        }
        self.recorded.raise(order);
    }

    /// The ledger of this author, after making room in it for one more record.
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

    /// Drops the older half of the operators' records. What was not yet compared with them can't be
    /// judged any more: that hides too much, but never too little.
    fn shed(&self) {
        let median = self.operators.median();
        self.floor.raise(median);
        self.operators.forget(median);
    }

    /// The number of records.
    pub fn records(&self) -> usize {
        self.operators.len() + self.requests.len() + self.records_of_everything()
    }

    fn records_of_everything(&self) -> usize {
        usize::from(self.all.read().newest() > self.floor())
    }

    /// Whether there is no record with which entries would have to be compared.
    pub fn is_empty(&self) -> bool {
        self.records() == 0 && self.requests.is_empty()
    }

    /// Compares an entry with everything that came since it was last compared.
    pub fn judge(&self, entry: &Entry) -> EntryVisibility {
        let (order, PurgeComparison { checked, marked }) = (self.order(), entry.compared());
        if checked == order {
            return seen(marked);
        }
        // A doubt is cleared when the purges that had been missed are recorded: it comes before them.
        let doubted = self.doubted();
        let overtaken = self.watched(entry).newest() > entry.known_since;
        let stamp = self.reaching(&entry.marks, checked);
        // Records are dropped when the floor is raised: it comes after them.
        if overtaken || stamp.hard > entry.born || checked < self.floor() {
            return EntryVisibility::Hidden;
        }
        let reached = stamp.soft > entry.born;
        if reached && !marked {
            entry.mark(self.first_soft(entry, checked));
            steps::reach(LedgerMoment::Marked);
        }
        // This is not noted as compared, because the doubt may be cleared.
        if entry.born < doubted {
            return EntryVisibility::Doubted;
        }
        let marked = marked || reached;
        entry.set_checked(self.clock.compared_at(order), marked);
        seen(marked)
    }

    /// When the first soft purge came that reaches an entry and is newer than `checked`. None: too
    /// long ago to be known.
    fn first_soft(&self, entry: &Entry, checked: PurgeOrder) -> Option<Instant> {
        let mut purges = vec![self.all.read().soft];
        for ledger in [&self.operators, &self.requests] {
            ledger.each_reaching(&entry.marks, checked, |stamp| purges.push(stamp.soft));
        }
        purges.retain(|purge| *purge > entry.born);
        self.soft_times.lock().first(&purges, entry.born)
    }

    fn watched<'a>(&self, entry: &'a Entry) -> &'a InvalidationWatch {
        entry.watch.get_or_init(|| self.watch(&entry.marks))
    }

    /// Whether a purge hides a load that began at `born` from requests that arrive now.
    pub fn hides(&self, marks: &PurgeAttributes, born: PurgeOrder) -> bool {
        if self.clock.is_still(born) {
            return false;
        }
        // The doubt comes before the records and the floor after them, as in `judge`.
        born < self.doubted()
            || self.stamps.newest(marks) > born
            || self.reaching(marks, born).newest() > born
            || born < self.floor()
    }

    /// The newest matching records among those that are newer than `since`.
    fn reaching(&self, marks: &PurgeAttributes, since: PurgeOrder) -> Stamp {
        if self.recorded.read() <= since {
            return Stamp::default();
        }
        let mut newest = self.operators.reaching(marks, since);
        newest.take(self.requests.reaching(marks, since));
        // This comes last: a purge of everything drops the records before it, and by then it is noted
        // here.
        newest.take(self.all.read());
        newest
    }

    fn floor(&self) -> PurgeOrder {
        self.floor.read()
    }

    fn doubted(&self) -> PurgeOrder {
        self.doubted.read()
    }

    /// Begins a sweep: the caller must now judge every entry. Pass the result to
    /// [`end_sweep`](Self::end_sweep).
    pub fn begin_sweep(&self) -> PurgeOrder {
        self.order()
    }

    /// Ends a sweep that has judged every entry since `begun`. Records that the sweep before had
    /// already applied are dropped: loads had a whole interval to end.
    pub fn end_sweep(&self, begun: PurgeOrder, now: Instant) {
        let mut writer = self.writer.lock();
        let over = |ended: Instant| now.saturating_duration_since(ended) >= self.keep;
        let mut done = None;
        while let Some((_, begun)) = writer.swept.pop_front_if(|(ended, _)| over(*ended)) {
            done = Some(begun);
        }
        if let Some(done) = done {
            self.floor.raise(done);
            self.operators.forget(done);
            self.requests.forget(done);
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
