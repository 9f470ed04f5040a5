//! The purge log: what was asked to be forgotten, in which order.
//!
//! `order` is one growing number. A load notes `born = order` when it begins and
//! the entry carries it; a purge leaves a record (selector, n = order + 1). **An
//! entry is visible only if no matching record has n > born.** So no purge looks
//! for entries, whatever its selector reaches: it costs one map insertion, and an
//! entry that is written late, by a slow load or a revalidation, is hidden from
//! the start. An entry remembers up to which order it was compared, so a hit costs
//! one comparison of two numbers while no purge came in.
//!
//! Invariant: a record is in place before `order` shows its number, hence whoever
//! reads order n sees every record up to n. Records go when a sweep has compared
//! every entry with them; `floor` then tells which loads began too early to be
//! judged, and those are not admitted.

mod spelling;
mod text;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use crate::cache::entry::{Entry, Marks};
use crate::cache::key::{Hash64, KeyId, hash64};
use crate::pattern::Pattern;

/// A place in the order of purges: a number of the log that nodes share, where there is
/// one, and the local steps since (see [`numbered`]).
pub type Order = u64;

/// Low bits of an order that count local purges.
const STEP_BITS: u32 = 28;

/// The order of a number of the shared log.
pub fn numbered(number: u64) -> Order {
    number << STEP_BITS
}

/// An order without its local step, which says nothing on other nodes.
pub fn shared(order: Order) -> Order {
    order >> STEP_BITS << STEP_BITS
}

/// What a purge reaches.
#[derive(Clone, Debug)]
pub enum Selector {
    /// One key with all its variants, by its short name.
    Key(KeyId),
    /// One URL with every combination of headers, cookies and plugin parts.
    Url(Hash64),
    /// URLs (`host/path?query`, or `/path?query` on every host) that begin with this.
    Prefix(String),
    /// URLs, likewise, that match as a whole.
    Pattern(Pattern),
    Tag(String),
    /// Responses of one origin that share a group (see [`crate::cache::tags::group`]).
    Group(Hash64),
    Route(String),
    All,
}

/// How a purge leaves an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Gone.
    Hard,
    /// Stale: served while it refreshes.
    Soft,
}

/// What the log says of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Visible,
    /// Visible, but stale by a soft purge.
    Marked,
    /// Purges that reach it may have been missed: of use only once its origin said so.
    Doubted,
    Hidden,
}

/// The log.
pub struct PurgeLog {
    order: AtomicU64,
    records: RwLock<Records>,
    max_records: usize,
    /// How long records stay after a sweep, for what a second tier still holds.
    keep: Duration,
}

#[derive(Default)]
struct Records {
    exact: HashMap<(Facet, Hash64), Stamp, foldhash::fast::RandomState>,
    urls: Vec<(Urls, Stamp)>,
    /// Whether there has been one, so that URLs must be looked up.
    has_addresses: bool,
    all: Stamp,
    /// See [`PurgeLog::doubt`]: the newest that may be cleared, and the newest that may not.
    doubts: [Doubt; 2],
    /// Entries and loads born before this can't be judged any more.
    floor: Order,
    /// When sweeps ended and where they had begun: what they saw may be dropped once the
    /// next one has ended and `keep` is over.
    swept: VecDeque<(Instant, Order)>,
}

/// How long a doubt lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lasts {
    /// Until what was missed is known ([`PurgeLog::trust`]).
    UntilKnown,
    /// Nobody can tell what was missed: until each entry was loaded again.
    ForGood,
}

/// What was born before is in doubt; 0 is nothing.
#[derive(Clone, Copy, Default, Debug)]
struct Doubt {
    /// As it was given out.
    name: Order,
    before: Order,
}

/// By what an exact record is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Facet {
    Key,
    Url,
    Tag,
    Group,
    Route,
    /// A pattern that one URL alone matches: `host/path?query`, or `/path?query` on every host.
    Address,
}

/// A selector that is compared with an entry's URL.
#[derive(Clone, PartialEq, Debug)]
pub enum Urls {
    /// Those that begin with this; without a scheme.
    Prefix(String),
    /// Those that match as a whole; without a scheme.
    Pattern(Pattern),
}

/// The newest purges of one selector; 0 is none.
#[derive(Clone, Copy, Default, Debug)]
struct Stamp {
    hard: Order,
    soft: Order,
}

impl PurgeLog {
    /// Keeps up to `max_records`, each for `keep` after a sweep has applied it: as long as
    /// a second tier may hold what was born before.
    pub fn new(max_records: usize, keep: Duration) -> Self {
        // Order 1, not 0: a stamp of 0 means none.
        Self {
            order: AtomicU64::new(1),
            records: RwLock::default(),
            max_records,
            keep,
        }
    }

    /// The newest purge's number. A load reads it when it begins.
    pub fn order(&self) -> Order {
        self.order.load(Ordering::Acquire)
    }

    /// Leaves a record. From the return on no read shows what it reaches.
    pub fn record(&self, selector: &Selector, kind: Kind) -> Order {
        let mut records = self.records.write();
        let n = self.order.load(Ordering::Relaxed) + 1;
        self.insert(&mut records, selector, kind, n);
        n
    }

    /// Leaves a record of the shared log, which may be a purge of our own come back.
    pub fn record_numbered(&self, selector: &Selector, kind: Kind, number: u64) {
        let mut records = self.records.write();
        self.insert(&mut records, selector, kind, numbered(number));
    }

    /// Notes that every purge up to `number` of the shared log is in.
    pub fn advance(&self, number: u64) {
        let _records = self.records.write();
        self.order.fetch_max(numbered(number), Ordering::Release);
    }

    /// Says that purges up to `number` of the shared log are unknown: what was born
    /// before can't be judged.
    pub fn raise_floor(&self, number: u64) {
        let mut records = self.records.write();
        records.floor = records.floor.max(numbered(number));
        // Whoever was compared already is to look again.
        self.order.fetch_max(numbered(number), Ordering::Release);
    }

    /// Says that purges may have been missed until now: what was born before is in doubt.
    /// Answers the doubt's name. One that is cleared leaves those that last.
    pub fn doubt(&self, lasts: Lasts) -> Order {
        let mut records = self.records.write();
        let n = self.order.load(Ordering::Relaxed) + 1;
        records.doubts[lasts as usize] = Doubt { name: n, before: n };
        self.order.fetch_max(n, Ordering::Release);
        n
    }

    /// Puts a doubt at a later place in the order, unless another one came since or it is over.
    pub fn move_doubt(&self, doubt: Order, to: Order) {
        let mut records = self.records.write();
        for known in records.doubts.iter_mut().filter(|d| d.name == doubt) {
            known.before = known.before.max(to);
        }
        // Whoever was compared with it before it was moved is to look again.
        let n = self.order.load(Ordering::Relaxed) + 1;
        self.order.fetch_max(n.max(to), Ordering::Release);
    }

    /// Clears a doubt: what had been missed is in by now. Not one that came later.
    pub fn trust(&self, doubt: Order) {
        let mut records = self.records.write();
        let known = &mut records.doubts[Lasts::UntilKnown as usize];
        if known.name == doubt {
            *known = Doubt::default();
        }
    }

    fn insert(&self, records: &mut Records, selector: &Selector, kind: Kind, n: Order) {
        if records.count() >= self.max_records {
            records.shed();
        }
        records.insert(selector, kind, n);
        self.order.fetch_max(n, Ordering::Release);
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.records.read().count()
    }

    /// Compares an entry with all that came since it was last compared.
    pub fn judge(&self, entry: &Entry) -> Verdict {
        let order = self.order();
        if entry.checked() == order {
            return if entry.is_marked() {
                Verdict::Marked
            } else {
                Verdict::Visible
            };
        }
        let records = self.records.read();
        if entry.checked() < records.floor {
            return Verdict::Hidden;
        }
        let stamp = records.reaching(&entry.marks);
        if stamp.hard > entry.born {
            return Verdict::Hidden;
        }
        let marked = entry.is_marked() || stamp.soft > entry.born;
        // Not noted as compared: the doubt may be cleared.
        if entry.born < records.doubted() {
            return Verdict::Doubted;
        }
        entry.set_checked(order, marked);
        if marked {
            Verdict::Marked
        } else {
            Verdict::Visible
        }
    }

    /// Whether a load that began at `born` may not be shown to somebody who asks now.
    pub fn hides(&self, marks: &Marks, born: Order) -> bool {
        if born == self.order() {
            return false;
        }
        let records = self.records.read();
        let stamp = records.reaching(marks);
        let unsure = records.floor.max(records.doubted());
        born < unsure || stamp.hard.max(stamp.soft) > born
    }

    /// Begins a sweep: every entry is now to be judged. Hand the answer to [`end_sweep`](Self::end_sweep).
    pub fn begin_sweep(&self) -> Order {
        self.order()
    }

    /// Ends a sweep that judged every entry since `begun`. Records that the sweep
    /// before had already applied are dropped: loads had a whole interval to end.
    pub fn end_sweep(&self, begun: Order, now: Instant) {
        let mut records = self.records.write();
        let over = |ended: Instant| now.saturating_duration_since(ended) >= self.keep;
        while let Some((_, done)) = records.swept.pop_front_if(|(ended, _)| over(*ended)) {
            records.forget(done);
        }
        records.swept.push_back((now, begun));
    }
}

impl Records {
    /// What was born before this is in doubt.
    fn doubted(&self) -> Order {
        let [cleared, lasting] = self.doubts;
        cleared.before.max(lasting.before)
    }

    fn count(&self) -> usize {
        self.exact.len() + self.urls.len() + usize::from(self.all.newest() > 0)
    }

    fn insert(&mut self, selector: &Selector, kind: Kind, n: Order) {
        let stamp = match selector {
            Selector::Key(id) => self.exact.entry((Facet::Key, id.0)).or_default(),
            Selector::Url(identity) => self.exact.entry((Facet::Url, *identity)).or_default(),
            Selector::Tag(tag) => self
                .exact
                .entry((Facet::Tag, hash64(tag.as_bytes())))
                .or_default(),
            Selector::Group(group) => self.exact.entry((Facet::Group, *group)).or_default(),
            Selector::Route(route) => self
                .exact
                .entry((Facet::Route, hash64(route.as_bytes())))
                .or_default(),
            Selector::Prefix(prefix) => self.url_stamp(Urls::beginning(prefix)),
            Selector::Pattern(pattern) => {
                let pattern = without_scheme(pattern);
                match pattern.literal() {
                    Some(address) => {
                        self.has_addresses = true;
                        let address = (Facet::Address, hash64(address.as_bytes()));
                        self.exact.entry(address).or_default()
                    }
                    None => self.url_stamp(Urls::Pattern(pattern)),
                }
            }
            Selector::All if kind == Kind::Hard => {
                // The widest record swallows the rest.
                self.exact.clear();
                self.urls.clear();
                &mut self.all
            }
            Selector::All => &mut self.all,
        };
        match kind {
            Kind::Hard => stamp.hard = stamp.hard.max(n),
            Kind::Soft => stamp.soft = stamp.soft.max(n),
        }
    }

    fn url_stamp(&mut self, urls: Urls) -> &mut Stamp {
        let at = self
            .urls
            .iter()
            .position(|(known, _)| *known == urls)
            .unwrap_or_else(|| {
                self.urls.push((urls, Stamp::default()));
                self.urls.len() - 1
            });
        &mut self.urls[at].1
    }

    /// Lets the older half go. What was not compared with it can't be judged any more: that
    /// hides too much, and never too little.
    fn shed(&mut self) {
        let exact = self.exact.values().map(Stamp::newest);
        let urls = self.urls.iter().map(|(_, stamp)| stamp.newest());
        let mut orders: Vec<Order> = exact.chain(urls).collect();
        orders.push(self.all.newest());
        let middle = orders.len() / 2;
        let (_, median, _) = orders.select_nth_unstable(middle);
        let median = *median;
        self.forget(median);
    }

    /// The newest purges that match an entry with these marks.
    fn reaching(&self, marks: &Marks) -> Stamp {
        let mut newest = self.all;
        let facets = [
            (Facet::Key, marks.id),
            (Facet::Url, marks.identity),
            (Facet::Route, marks.route),
        ];
        let tags = marks.tags.iter().map(|tag| (Facet::Tag, *tag));
        let groups = marks.groups.iter().map(|group| (Facet::Group, *group));
        if !self.exact.is_empty() {
            facets
                .into_iter()
                .chain(tags)
                .chain(groups)
                .filter_map(|facet| self.exact.get(&facet))
                .for_each(|s| newest.take(s));
        }
        if self.has_addresses {
            let addresses = [&*marks.url, path(&marks.url)];
            addresses
                .into_iter()
                .filter_map(|url| self.exact.get(&(Facet::Address, hash64(url.as_bytes()))))
                .for_each(|s| newest.take(s));
        }
        self.urls
            .iter()
            .filter(|(urls, _)| urls.matches(&marks.url))
            .for_each(|(_, s)| newest.take(s));
        newest
    }

    fn forget(&mut self, up_to: Order) {
        self.exact.retain(|_, stamp| stamp.newest() > up_to);
        self.urls.retain(|(_, stamp)| stamp.newest() > up_to);
        if self.all.newest() <= up_to {
            self.all = Stamp::default();
        }
        self.floor = self.floor.max(up_to);
    }
}

impl Stamp {
    fn take(&mut self, other: &Self) {
        self.hard = self.hard.max(other.hard);
        self.soft = self.soft.max(other.soft);
    }

    fn newest(&self) -> Order {
        self.hard.max(self.soft)
    }
}

impl Urls {
    /// URLs that begin with `prefix`.
    pub fn beginning(prefix: &str) -> Self {
        Self::Prefix(strip_scheme(prefix).to_owned())
    }

    /// URLs that match `pattern`.
    pub fn like(pattern: &Pattern) -> Self {
        Self::Pattern(without_scheme(pattern))
    }

    /// Whether `url` (`host/path?query`) is one of them.
    pub fn matches(&self, url: &str) -> bool {
        let (text, any_host) = match self {
            Self::Prefix(prefix) => (prefix.as_str(), prefix.starts_with('/')),
            Self::Pattern(pattern) => (pattern.as_str(), pattern.as_str().starts_with('/')),
        };
        let subject = if any_host { path(url) } else { url };
        match self {
            Self::Prefix(_) => subject.starts_with(text),
            Self::Pattern(pattern) => pattern.matches(subject),
        }
    }

    /// Whether all URLs that begin with `cut` are sure to be among them.
    pub fn matches_all_from(&self, cut: &str) -> bool {
        let is_open = match self {
            Self::Prefix(_) => true,
            Self::Pattern(pattern) => pattern.is_open(),
        };
        is_open && self.matches(cut)
    }
}

/// Of `host/path?query` what is without the host.
fn path(url: &str) -> &str {
    url.find('/').map_or("", |at| &url[at..])
}

fn without_scheme(pattern: &Pattern) -> Pattern {
    Pattern::new(strip_scheme(pattern.as_str()))
}

fn strip_scheme(url: &str) -> &str {
    url.strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .unwrap_or(url)
}

#[cfg(test)]
mod tests;
