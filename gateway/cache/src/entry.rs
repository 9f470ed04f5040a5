//! One stored response, ready to be served: what a hit needs is computed once, here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};

use crate::freshness::{Freshness, FreshnessState, begun};
use crate::http::memory::stored::StoredBody;
use crate::key::{EntryKey, PurgeHash, first_64_bits};
use crate::parts::PartialBody;
use crate::purge::{InvalidationWatch, PurgeOrder};

/// A stored response.
pub struct Entry {
    pub key: EntryKey,
    pub status: StatusCode,
    /// What every client gets, but for `Age`, `Cache-Status` and framing.
    pub headers: HeaderMap,
    /// The whole; empty where there are `parts`.
    pub body: StoredBody,
    /// Some: not the whole is held. Such an entry has a key of its own, which no look-up
    /// for the whole finds (see [`crate::key::KeyBuf::of_parts`]).
    pub parts: Option<Box<PartialBody>>,
    pub freshness: Freshness,
    /// What purges know it by.
    pub marks: PurgeAttributes,
    /// Where the load stood in the order of purges when it began.
    pub born: PurgeOrder,
    /// From which place on invalidations that leave no record count for it: `born`, or where
    /// the look-up began that found it in the second tier, which has been told of those before.
    pub(super) known_since: PurgeOrder,
    /// Where those are noted; set when it is compared for the first time.
    pub(super) watch: OnceLock<InvalidationWatch>,
    /// The order up to which it was compared with the purge log, and the soft mark.
    checked: AtomicU64,
    /// When it became stale by a soft purge, set before the mark. Unset beside a mark: too
    /// long ago to be known.
    stale_since: OnceLock<Instant>,
}

/// What purges know an entry by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PurgeAttributes {
    /// The short name of the key without its variant (see [`crate::key::KeyId`]).
    pub id: u64,
    /// The URL, or the text that stands for it, without the parts beside it.
    pub identity: PurgeHash,
    pub route: PurgeHash,
    pub tags: Box<[PurgeHash]>,
    /// Groups of its own origin that it belongs to (RFC 9875).
    pub groups: Box<[PurgeHash]>,
    /// `host[:port]/path[?query]` of the request that loaded it, or what a key plugin put
    /// in its place; for prefixes and patterns.
    pub url: Box<str>,
}

/// The top bit of `checked`: a soft purge marked the entry stale.
const SOFT: u64 = 1 << 63;

impl Entry {
    /// A new entry that no purge has been compared with since `born`.
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
            checked: AtomicU64::new(born),
            stale_since: OnceLock::new(),
        }
    }

    /// The same, as a look-up in the second tier found it that began at `order`.
    pub(super) fn found_below(self, order: PurgeOrder) -> Self {
        Self {
            known_since: order,
            ..self
        }
    }

    /// The same with parts in place of the whole.
    pub fn holding(self, parts: PartialBody) -> Self {
        Self {
            parts: Some(Box::new(parts)),
            ..self
        }
    }

    /// The order up to which it was compared with the purge log.
    pub fn checked(&self) -> PurgeOrder {
        self.checked.load(Ordering::Relaxed) & !SOFT
    }

    /// Whether a soft purge marked it stale.
    pub fn is_marked(&self) -> bool {
        self.checked.load(Ordering::Acquire) & SOFT != 0
    }

    /// Notes that it was compared with the log up to `order`.
    pub fn set_checked(&self, order: PurgeOrder, marked: bool) {
        self.checked
            .store(order | if marked { SOFT } else { 0 }, Ordering::Relaxed);
    }

    /// Marks it stale since a soft purge, or what is like one; None: too long ago to be known.
    /// One that is compared with the log at the same moment may lose the mark.
    pub fn mark(&self, since: Option<Instant>) {
        if let Some(since) = since {
            let _ = self.stale_since.set(since);
        }
        self.checked.fetch_or(SOFT, Ordering::Release);
    }

    /// How long it has been stale by a soft purge. None: it is not.
    fn marked_for(&self, now: Instant) -> Option<Duration> {
        let for_ages = Duration::MAX;
        self.is_marked().then(|| {
            let since = self.stale_since.get();
            since.map_or(for_ages, |since| now.saturating_duration_since(*since))
        })
    }

    /// Seconds of freshness left at this age, begun ones counted; at most 0 from a soft purge on.
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

    /// [`ttl_at`](Self::ttl_at) its age.
    pub fn ttl(&self, now: Instant) -> i64 {
        self.ttl_at(self.freshness.age(now), now)
    }

    /// Tells whether another node's entry is the same: by status and entity tag, or by
    /// status and content. Slow without a tag: never on a request.
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

    /// Whether it is stale, and somebody may get it all the same (RFC 5861).
    pub fn is_in_stale_window(&self, now: Instant) -> bool {
        match self.state(now) {
            FreshnessState::Fresh => false,
            FreshnessState::Stale(windows) => windows.while_revalidate || windows.if_error,
        }
    }

    pub fn has_validator(&self) -> bool {
        self.headers.contains_key(ETAG) || self.headers.contains_key(LAST_MODIFIED)
    }

    /// How long the tier keeps it, counted from now.
    pub fn remaining_life(&self, now: Instant) -> Duration {
        let gone = now.saturating_duration_since(self.freshness.received);
        self.freshness
            .hard_life(self.has_validator())
            .saturating_sub(gone)
    }

    /// Bytes that it takes: body, headers, key, and what the structures around them cost.
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + HEADER_COST)
            .sum();
        self.body.len()
            + self.body.overhead()
            + self.parts.as_ref().map_or(0, |parts| parts.size())
            + headers
            + self.key.as_bytes().len()
            + self.marks.url.len()
            + 8 * (self.marks.tags.len() + self.marks.groups.len())
            + ENTRY_COST
    }
}

/// A header map's share for one field, measured.
const HEADER_COST: usize = 104;
/// The entry, its reference counts, its cell for invalidations and moka's node, added up from their
/// sizes.
const ENTRY_COST: usize = 616;
