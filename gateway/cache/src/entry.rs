//! One stored response, ready to be served. Everything that a hit needs is computed once, here.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};

use crate::encodings::EncodedForms;
use crate::freshness::{Freshness, FreshnessState, begun};
use crate::http::coding::ContentCoding;
use crate::http::memory::stored::StoredBody;
use crate::key::{EntryKey, PurgeHash, first_64_bits};
use crate::parts::PartialBody;
use crate::purge::{InvalidationWatch, PurgeOrder};

/// A stored response.
pub struct Entry {
    pub key: EntryKey,
    pub status: StatusCode,
    /// The fields that every client gets, except `Age`, `Cache-Status` and framing fields.
    pub headers: HeaderMap,
    /// The whole body; empty when there are `parts`.
    pub body: StoredBody,
    /// Some: only parts of the body are held. Such an entry has a key of its own, which no look-up
    /// for the whole response finds (see [`crate::key::KeyBuf::of_parts`]).
    pub parts: Option<Box<PartialBody>>,
    pub freshness: Freshness,
    /// The attributes by which purges select it.
    pub marks: PurgeAttributes,
    /// The place in the order of purges at which its load began.
    pub born: PurgeOrder,
    /// The place in the order from which invalidations without a record count for this entry:
    /// `born`, or the place at which the look-up began that found it in the second tier. The second
    /// tier has been told of the earlier invalidations.
    pub(super) known_since: PurgeOrder,
    /// Where these invalidations are noted. Set when the entry is first compared with the purge
    /// log.
    pub(super) watch: OnceLock<InvalidationWatch>,
    /// The order up to which it was compared with the purge log, and the mark of a soft purge.
    checked: AtomicU64,
    /// When a soft purge made it stale; set before the mark. Marked but unset: the time is too long
    /// ago to be known.
    stale_since: OnceLock<Instant>,
    /// How often a sample of the hits found it; halved from time to time.
    uses: AtomicU32,
    /// The coded forms of the body. Unset until somebody wants one.
    forms: OnceLock<Arc<EncodedForms>>,
}

/// How far an entry was compared with the purge log.
#[derive(Clone, Copy)]
pub(super) struct PurgeComparison {
    /// The order up to which it was compared.
    pub(super) checked: PurgeOrder,
    /// Whether a soft purge marked it stale.
    pub(super) marked: bool,
}

/// The attributes by which purges select an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PurgeAttributes {
    /// The short name of the key without its variant (see [`crate::key::KeyId`]).
    pub id: u64,
    /// The URL, or the text of a key plugin that replaces it, without the other parts of the key.
    pub identity: PurgeHash,
    pub route: PurgeHash,
    pub tags: Box<[PurgeHash]>,
    /// Groups of its own origin that it belongs to (RFC 9875).
    pub groups: Box<[PurgeHash]>,
    /// `host[:port]/path[?query]` of the request that loaded it, or the text that a key plugin put
    /// in its place. Prefixes and patterns are compared with it.
    pub url: Box<str>,
}

/// The top bit of `checked`: a soft purge marked the entry stale.
const SOFT: u64 = 1 << 63;

impl Entry {
    /// Creates an entry that has not been compared with any purge since `born`.
    pub fn new(
        key: EntryKey,
        status: StatusCode,
        headers: HeaderMap,
        body: impl Into<StoredBody>,
        freshness: Freshness,
        marks: PurgeAttributes,
        born: PurgeOrder,
    ) -> Self {
        Self {
            key,
            status,
            headers,
            body: body.into(),
            parts: None,
            freshness,
            marks,
            born,
            known_since: born,
            watch: OnceLock::new(),
            checked: AtomicU64::new(born.value()),
            stale_since: OnceLock::new(),
            uses: AtomicU32::new(0),
            forms: OnceLock::new(),
        }
    }

    /// The same entry with the coded forms of another one, whose body is the same.
    pub fn with_forms_of(self, other: &Self) -> Self {
        Self {
            forms: other.forms.clone(),
            ..self
        }
    }

    /// A coded form of the body, if it is there.
    pub fn form(&self, coding: ContentCoding) -> Option<&StoredBody> {
        self.forms.get()?.get(coding)
    }

    /// Where coded forms of the body are put.
    pub(super) fn forms_to_fill(&self) -> &Arc<EncodedForms> {
        self.forms.get_or_init(Arc::default)
    }

    /// Whether these are its coded forms.
    pub(super) fn has_forms(&self, forms: &Arc<EncodedForms>) -> bool {
        self.forms
            .get()
            .is_some_and(|held| Arc::ptr_eq(held, forms))
    }

    /// The same entry, of a response that knows the purges up to this place only: another cache had
    /// kept it when its load began. What requests make invalid has passed that cache before.
    pub fn knowing(self, order: PurgeOrder) -> Self {
        Self {
            born: order,
            checked: AtomicU64::new(order.value()),
            ..self
        }
    }

    /// The same entry, found in the second tier by a look-up that began at `order`.
    pub(super) fn found_in_second_tier(self, order: PurgeOrder) -> Self {
        Self {
            known_since: order,
            ..self
        }
    }

    /// The same entry with parts in place of the whole body.
    pub fn holding(self, parts: PartialBody) -> Self {
        Self {
            parts: Some(Box::new(parts)),
            ..self
        }
    }

    /// Counts a hit, for the choice of what the next process begins with. Hits are counted by a
    /// sample, since counting is a write.
    pub fn note_use(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a sample of the hits found it, the older ones counting less.
    pub fn uses(&self) -> u32 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Takes these uses over from the entry that it replaces, or from an earlier process.
    pub(super) fn add_uses(&self, uses: u32) {
        if uses > 0 {
            self.uses.fetch_add(uses, Ordering::Relaxed);
        }
    }

    /// Lets the uses so far count half.
    pub(super) fn halve_uses(&self) {
        self.uses.store(self.uses() / 2, Ordering::Relaxed);
    }

    /// How far it was compared with the purge log.
    pub(super) fn compared(&self) -> PurgeComparison {
        let checked = self.checked.load(Ordering::Acquire);
        PurgeComparison {
            checked: PurgeOrder::new(checked & !SOFT),
            marked: checked & SOFT != 0,
        }
    }

    /// Whether a soft purge marked it stale.
    pub fn is_marked(&self) -> bool {
        self.compared().marked
    }

    /// Notes that it was compared with the log up to `order`. Several threads may do so, with
    /// different orders. The value only grows, and a mark counts more than any order: so a mark is
    /// never lost, and at worst the entry is compared once more.
    pub(super) fn set_checked(&self, order: PurgeOrder, marked: bool) {
        let mark = if marked { SOFT } else { 0 };
        self.checked
            .fetch_max(order.value() | mark, Ordering::AcqRel);
    }

    /// Marks it stale since the time of a soft purge or a similar event. None: that time is too
    /// long ago to be known.
    pub fn mark(&self, since: Option<Instant>) {
        if let Some(since) = since {
            let _ = self.stale_since.set(since);
        }
        self.checked.fetch_or(SOFT, Ordering::AcqRel);
    }

    #[cfg(test)]
    pub(super) fn stale_since(&self) -> Option<Instant> {
        self.stale_since.get().copied()
    }

    /// How long a soft purge has made it stale. None: it is not marked.
    fn marked_for(&self, now: Instant) -> Option<Duration> {
        let for_ages = Duration::MAX;
        self.is_marked().then(|| {
            let since = self.stale_since.get();
            since.map_or(for_ages, |since| now.saturating_duration_since(*since))
        })
    }

    /// Seconds of freshness left at this age, rounded up; at most 0 after a soft purge.
    pub fn ttl_at(&self, age: Duration, now: Instant) -> i64 {
        let left = self.freshness.ttl_at(age);
        match self.is_marked() {
            false => left,
            true => {
                let since = self.stale_since.get().copied();
                let stale = since.map_or(0, |since| begun(now.saturating_duration_since(since)));
                left.min(-stale)
            }
        }
    }

    /// [`ttl_at`](Self::ttl_at) for its current age.
    pub fn ttl(&self, now: Instant) -> i64 {
        self.ttl_at(self.freshness.age(now), now)
    }

    /// A hash that tells whether another node's entry is the same: of the status and the entity
    /// tag, or of the status and the content. Slow without an entity tag: never call it on a
    /// request's path.
    pub fn likeness(&self) -> PurgeHash {
        let mut hash = Sha256::new();
        hash.update(self.status.as_u16().to_be_bytes());
        match self.headers.get(ETAG) {
            Some(tag) => hash.update(tag),
            None => hash.update(&self.body[..]),
        }
        first_64_bits(&hash.finalize())
    }

    /// Whether it may be used at `now`.
    pub fn state(&self, now: Instant) -> FreshnessState {
        match self.marked_for(now) {
            None => self.freshness.state(now),
            Some(marked_for) => self.freshness.state_when_marked(now, marked_for),
        }
    }

    /// Whether it is stale but may still be served to somebody (RFC 5861).
    pub fn is_in_stale_window(&self, now: Instant) -> bool {
        match self.state(now) {
            FreshnessState::Fresh => false,
            FreshnessState::Stale(windows) => windows.while_revalidate || windows.if_error,
        }
    }

    pub fn has_validator(&self) -> bool {
        self.headers.contains_key(ETAG) || self.headers.contains_key(LAST_MODIFIED)
    }

    /// How long the tier keeps it, counted from `now`.
    pub fn remaining_life(&self, now: Instant) -> Duration {
        let gone = now.saturating_duration_since(self.freshness.received);
        self.freshness
            .hard_life(self.has_validator())
            .saturating_sub(gone)
    }

    /// Its size in bytes: body, headers, key and the overhead of the structures around them.
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + HEADER_COST)
            .sum();
        self.body.len()
            + self.body.overhead()
            + self.parts.as_ref().map_or(0, |parts| parts.size())
            + self.forms.get().map_or(0, |forms| forms.size())
            + headers
            + self.key.as_bytes().len()
            + self.marks.url.len()
            + 8 * (self.marks.tags.len() + self.marks.groups.len())
            + ENTRY_COST
    }
}

/// The measured memory cost of one field in a header map.
const HEADER_COST: usize = 104;
/// The entry, its reference counts, its cell for invalidations and moka's node: the sum of their
/// sizes.
const ENTRY_COST: usize = 632;
