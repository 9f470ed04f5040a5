//! The purge records of one kind of author, looked up without a lock.
//!
//! A record that names one thing (a key, a tag, a whole URL) or a prefix of URLs is a number in one
//! table ([`super::keys`]). So the cost of a look-up depends on the length of the entry's URL and
//! the number of its tags, and not on the number of records. Prefixes are tried only for lengths
//! that some record has. Patterns with wildcards in their middle are a short list, newest first.
//! When that list is full, the oldest pattern is replaced by the prefix before its first wildcard.
//! A look-up skips everything that is not newer than what the caller knows already.
//!
//! Writers come one after another ([`super::PurgeLog`] holds a lock). Readers see a view that is
//! replaced when something has to move.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::keys::{
    CLASSES, ExactSelectorKind, PrefixHash, PurgeHashKeys, PurgeRecordClass, UrlMatchExtent,
};
use super::steps::{self, LedgerMoment};
use super::table::{Stamp, StampBuckets, StampCell, StampRaiseOutcome, StampTable};
use super::urls::{UrlAnchor, strip_scheme, without_scheme};
use super::{PurgeOrder, PurgeOrderCell, Selector};
use crate::entry::PurgeAttributes;
use crate::key::hash64;
use crate::pattern::Pattern;

/// The records of one kind of author.
pub(super) struct PurgeLedger {
    keys: PurgeHashKeys,
    view: ArcSwap<LedgerView>,
    /// The newest order of each class of records.
    newest: [PurgeOrderCell; CLASSES],
    newest_pattern: PurgeOrderCell,
    max_patterns: usize,
}

/// The part that readers see.
#[derive(Clone)]
struct LedgerView {
    table: Arc<StampTable>,
    /// For each anchor and each length, the newest prefix of that length.
    lengths: [Arc<[PurgeOrderCell]>; 2],
    /// Newest first.
    patterns: Arc<[PatternRecord]>,
    /// The records that were dropped, kept with less precision.
    folded: Option<Arc<StampBuckets>>,
}

/// A pattern's record.
#[derive(Clone)]
struct PatternRecord {
    pattern: Arc<Pattern>,
    stamp: Stamp,
}

/// The form of a selector in the ledger.
pub(super) enum CompiledSelector {
    Exact(ExactSelectorKind, u64),
    Text(UrlAnchor, UrlMatchExtent, String),
    Pattern(Pattern),
    All,
}

/// What the caller still has to do after a record was taken in.
#[must_use]
pub(super) enum LedgerInsertOutcome {
    Whole,
    /// Everything was purged at this stamp, by the record itself or because a pattern that any URL
    /// might match had to be removed. The caller may drop the records before it.
    Everything(Stamp),
}

/// The number of buckets for records that were dropped: 16 MiB, allocated when they are first
/// needed. With fifty thousand records in them, one look-up in four hundred finds the record of
/// another key.
const FOLDED: usize = 1 << 20;

impl CompiledSelector {
    pub(super) fn of(selector: &Selector) -> Self {
        match selector {
            Selector::Key(id) => Self::Exact(ExactSelectorKind::Key, id.0),
            Selector::Url(identity) => Self::Exact(ExactSelectorKind::Url, *identity),
            Selector::Tag(tag) => Self::Exact(ExactSelectorKind::Tag, hash64(tag.as_bytes())),
            Selector::Group(group) => Self::Exact(ExactSelectorKind::Group, *group),
            Selector::Route(route) => {
                Self::Exact(ExactSelectorKind::Route, hash64(route.as_bytes()))
            }
            Selector::Prefix(prefix) => {
                let text = strip_scheme(prefix).to_owned();
                Self::Text(UrlAnchor::of(&text), UrlMatchExtent::Beginning, text)
            }
            Selector::Pattern(pattern) => Self::of_pattern(without_scheme(pattern)),
            Selector::All => Self::All,
        }
    }

    /// Most patterns are a literal text or a prefix.
    fn of_pattern(pattern: Pattern) -> Self {
        let anchor = UrlAnchor::of(pattern.as_str());
        match (pattern.literal(), pattern.prefix()) {
            (Some(text), _) => Self::Text(anchor, UrlMatchExtent::Whole, text.to_owned()),
            (None, Some(text)) => Self::Text(anchor, UrlMatchExtent::Beginning, text.to_owned()),
            (None, None) => Self::Pattern(pattern),
        }
    }
}

impl PurgeLedger {
    pub(super) fn new(max_patterns: usize) -> Self {
        Self {
            keys: PurgeHashKeys::random(),
            view: ArcSwap::from_pointee(LedgerView::default()),
            newest: Default::default(),
            newest_pattern: PurgeOrderCell::default(),
            max_patterns: max_patterns.max(1),
        }
    }

    /// The number of records.
    pub(super) fn len(&self) -> usize {
        let view = self.view.load();
        view.table.len() + view.patterns.len()
    }

    /// Whether it holds nothing, not even dropped records with less precision.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.view.load().folded.is_none()
    }

    /// The last soft purge of the same record, if there is one.
    pub(super) fn last_soft(&self, spot: &CompiledSelector) -> PurgeOrder {
        let view = self.view.load();
        let stamp = |key| view.get(key, PurgeOrder::BEFORE_ALL).soft;
        match spot {
            CompiledSelector::Exact(facet, hash) => stamp(self.keys.exact(*facet, *hash)),
            CompiledSelector::Text(anchor, extent, text) => {
                stamp(self.keys.text(*anchor, *extent, self.keys.walk(text)))
            }
            CompiledSelector::Pattern(pattern) => {
                let mut patterns = view.patterns.iter();
                let same = patterns.find(|kept| *kept.pattern == *pattern);
                same.map_or(PurgeOrder::BEFORE_ALL, |kept| kept.stamp.soft)
            }
            CompiledSelector::All => PurgeOrder::BEFORE_ALL,
        }
    }

    /// Takes a record in. `all` is raised by what reaches everything, before anything that this
    /// replaces is dropped.
    pub(super) fn take(
        &self,
        spot: CompiledSelector,
        stamp: Stamp,
        all: &StampCell,
    ) -> LedgerInsertOutcome {
        match spot {
            CompiledSelector::Exact(facet, hash) => {
                self.put(self.keys.exact(facet, hash), stamp);
                self.note(PurgeRecordClass::Exact(facet), stamp);
                LedgerInsertOutcome::Whole
            }
            CompiledSelector::Text(anchor, extent, text) => {
                self.take_text(anchor, extent, &text, stamp);
                LedgerInsertOutcome::Whole
            }
            CompiledSelector::Pattern(pattern) => self.take_pattern(pattern, stamp, all),
            CompiledSelector::All => {
                all.raise(stamp);
                LedgerInsertOutcome::Everything(stamp)
            }
        }
    }

    fn take_text(&self, anchor: UrlAnchor, extent: UrlMatchExtent, text: &str, stamp: Stamp) {
        let walk = self.keys.walk(text);
        self.put(self.keys.text(anchor, extent, walk), stamp);
        if extent == UrlMatchExtent::Beginning {
            self.note_length(anchor, text.len(), stamp.newest());
        }
        self.note(PurgeRecordClass::Text(anchor, extent), stamp);
    }

    fn take_pattern(&self, pattern: Pattern, stamp: Stamp, all: &StampCell) -> LedgerInsertOutcome {
        let view = self.view.load_full();
        let same = |kept: &&PatternRecord| *kept.pattern == pattern;
        let mut whole = stamp;
        if let Some(known) = view.patterns.iter().find(same) {
            whole.take(known.stamp);
        }
        let others = view.patterns.iter().filter(|kept| !same(kept)).cloned();
        let mut patterns: Vec<PatternRecord> = others.collect();
        let first = PatternRecord {
            pattern: Arc::new(pattern),
            stamp: whole,
        };
        patterns.push(first);
        patterns.sort_by_key(|kept| std::cmp::Reverse(kept.stamp.newest()));
        let oldest = (patterns.len() > self.max_patterns).then(|| patterns.pop());
        let taken = match oldest.flatten() {
            Some(kept) => self.fold_pattern(&kept, all),
            None => LedgerInsertOutcome::Whole,
        };
        self.replace(|view| view.patterns = patterns.into());
        self.newest_pattern.raise(stamp.newest());
        taken
    }

    /// Replaces a pattern by the prefix that all matching URLs begin with, or by everything.
    fn fold_pattern(
        &self,
        PatternRecord { pattern, stamp }: &PatternRecord,
        all: &StampCell,
    ) -> LedgerInsertOutcome {
        let (anchor, beginning) = (UrlAnchor::of(pattern.as_str()), pattern.beginning());
        if beginning.is_empty() {
            all.raise(*stamp);
            return LedgerInsertOutcome::Everything(*stamp);
        }
        self.take_text(anchor, UrlMatchExtent::Beginning, &beginning, *stamp);
        LedgerInsertOutcome::Whole
    }

    fn put(&self, key: u64, stamp: Stamp) {
        let view = self.view.load();
        if view.table.raise(key, stamp) == StampRaiseOutcome::Done {
            return;
        }
        let larger = StampTable::of(&view.table, view.table.len(), |_, _| true);
        // The larger table has room for as many records again.
        larger.raise(key, stamp);
        self.replace(|view| view.table = Arc::new(larger));
    }

    fn note(&self, class: PurgeRecordClass, stamp: Stamp) {
        self.newest[class.index()].raise(stamp.newest());
    }

    fn note_length(&self, anchor: UrlAnchor, length: usize, order: PurgeOrder) {
        let view = self.view.load_full();
        let known = &view.lengths[anchor as usize];
        if let Some(newest) = known.get(length) {
            newest.raise(order);
            return;
        }
        let more = (0..(length + 1).next_power_of_two()).map(|at| {
            let known = known
                .get(at)
                .map_or(PurgeOrder::BEFORE_ALL, PurgeOrderCell::read);
            PurgeOrderCell::new(if at == length { order } else { known })
        });
        let more: Arc<[PurgeOrderCell]> = more.collect();
        self.replace(|view| view.lengths[anchor as usize] = more);
    }

    fn replace(&self, change: impl FnOnce(&mut LedgerView)) {
        let mut view = LedgerView::clone(&self.view.load());
        change(&mut view);
        self.view.store(Arc::new(view));
        steps::reach(LedgerMoment::Replaced);
    }

    /// The newest records that match an entry with these marks, among those newer than `since`.
    pub(super) fn reaching(&self, marks: &PurgeAttributes, since: PurgeOrder) -> Stamp {
        let mut newest = Stamp::default();
        self.each_reaching(marks, since, |stamp| newest.take(stamp));
        newest
    }

    /// Calls `found` with the stamps of all records that match an entry with these marks and are
    /// newer than `since`, and perhaps with some that are not.
    pub(super) fn each_reaching(
        &self,
        marks: &PurgeAttributes,
        since: PurgeOrder,
        mut found: impl FnMut(Stamp),
    ) {
        steps::reach(LedgerMoment::Look);
        let view = self.view.load();
        let one = [
            (ExactSelectorKind::Key, marks.id),
            (ExactSelectorKind::Url, marks.identity),
            (ExactSelectorKind::Route, marks.route),
        ];
        let tags = marks.tags.iter().map(|tag| (ExactSelectorKind::Tag, *tag));
        let groups = marks
            .groups
            .iter()
            .map(|group| (ExactSelectorKind::Group, *group));
        for (facet, hash) in one.into_iter().chain(tags).chain(groups) {
            if self.has_news(PurgeRecordClass::Exact(facet), since) {
                found(view.get(self.keys.exact(facet, hash), since));
            }
        }
        for anchor in UrlAnchor::ALL {
            self.along(&view, (anchor, &marks.url), since, &mut found);
        }
        self.matching(&view, &marks.url, since, &mut found);
    }

    /// The records of any prefix of a URL and of the URL as a whole.
    fn along(
        &self,
        view: &LedgerView,
        (anchor, url): (UrlAnchor, &str),
        since: PurgeOrder,
        found: &mut impl FnMut(Stamp),
    ) {
        let beginnings = self.has_news(
            PurgeRecordClass::Text(anchor, UrlMatchExtent::Beginning),
            since,
        );
        let whole = self.has_news(PurgeRecordClass::Text(anchor, UrlMatchExtent::Whole), since);
        if !beginnings && !whole {
            return;
        }
        let get = |extent, walk| view.get(self.keys.text(anchor, extent, walk), since);
        let lengths: &[PurgeOrderCell] = match beginnings {
            true => &view.lengths[anchor as usize],
            false => &[],
        };
        let is_used = |length: usize| {
            let newest = lengths.get(length);
            newest.is_some_and(|newest| newest.read() > since)
        };
        let mut walk = PrefixHash::default();
        if is_used(0) {
            found(get(UrlMatchExtent::Beginning, walk));
        }
        for (at, byte) in anchor.subject(url).bytes().enumerate() {
            if !whole && at + 1 >= lengths.len() {
                return;
            }
            walk = self.keys.step(walk, byte);
            if is_used(at + 1) {
                found(get(UrlMatchExtent::Beginning, walk));
            }
        }
        if whole {
            found(get(UrlMatchExtent::Whole, walk));
        }
    }

    fn matching(
        &self,
        view: &LedgerView,
        url: &str,
        since: PurgeOrder,
        found: &mut impl FnMut(Stamp),
    ) {
        if self.newest_pattern.read() <= since {
            return;
        }
        let newer = |kept: &&PatternRecord| kept.stamp.newest() > since;
        for kept in view.patterns.iter().take_while(newer) {
            steps::count();
            let subject = UrlAnchor::of(kept.pattern.as_str()).subject(url);
            if kept.pattern.matches(subject) {
                found(kept.stamp);
            }
        }
    }

    fn has_news(&self, class: PurgeRecordClass, since: PurgeOrder) -> bool {
        self.newest[class.index()].read() > since
    }

    /// The order of the middle record.
    pub(super) fn median(&self) -> PurgeOrder {
        let view = self.view.load();
        let table = view.table.all().map(|(_, stamp)| stamp.newest());
        let patterns = view.patterns.iter().map(|kept| kept.stamp.newest());
        let mut orders: Vec<PurgeOrder> = table.chain(patterns).collect();
        if orders.is_empty() {
            return PurgeOrder::BEFORE_ALL;
        }
        let middle = orders.len() / 2;
        let (_, median, _) = orders.select_nth_unstable(middle);
        *median
    }

    /// Drops the records up to `order`.
    pub(super) fn forget(&self, order: PurgeOrder) {
        self.replace(|view| {
            let newer = |_, stamp: Stamp| stamp.newest() > order;
            let left = view
                .table
                .all()
                .filter(|(_, stamp)| newer(0, *stamp))
                .count();
            view.table = Arc::new(StampTable::of(&view.table, left, newer));
            let patterns = view.patterns.iter();
            let patterns = patterns.filter(|kept| kept.stamp.newest() > order);
            view.patterns = patterns.cloned().collect();
            let folded = view.folded.take();
            view.folded = folded.filter(|folded| folded.newest() > order);
        });
    }

    /// Moves the older half of the table into buckets. Each record still reaches what it reached
    /// before, and also what shares its bucket.
    pub(super) fn fold_older_half(&self) {
        let median = self.median();
        self.replace(|view| {
            let folded = view
                .folded
                .get_or_insert_with(|| Arc::new(StampBuckets::new(FOLDED)));
            let is_newer = |key, stamp: Stamp| {
                let newer = stamp.newest() > median;
                if !newer {
                    folded.raise(key, stamp);
                }
                newer
            };
            view.table = Arc::new(StampTable::of(&view.table, view.table.len() / 2, is_newer));
        });
    }
}

impl LedgerView {
    fn get(&self, key: u64, since: PurgeOrder) -> Stamp {
        let mut stamp = self.table.get(key);
        if let Some(folded) = self
            .folded
            .as_ref()
            .filter(|folded| folded.newest() > since)
        {
            stamp.take(folded.get(key));
        }
        stamp
    }
}

impl Default for LedgerView {
    fn default() -> Self {
        Self {
            table: Arc::new(StampTable::with_room_for(0)),
            lengths: [Arc::new([]), Arc::new([])],
            patterns: Arc::new([]),
            folded: None,
        }
    }
}
