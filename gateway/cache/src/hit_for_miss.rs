//! Keys whose responses could not be shared a short time ago.
//!
//! Requests for such a key do not wait for each other: each one loads by itself, at the same time
//! as the others. The first response that may be stored is stored and ends the mark, so a mark
//! never keeps a page out of the cache. A mark holds for a short time, and the number of marked
//! keys is bounded.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use crate::key::EntryKey;
use crate::policy::{CameWith, CredentialPresence};

/// To which requests for a key the responses may not be shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnsharedScope {
    Everybody,
    /// Requests with `Authorization`. Responses to the other requests may be shared.
    Authorized,
    /// Requests with `Cookie` or `Authorization`. Responses to the other requests may be shared.
    Credentialed,
}

/// The marked keys.
pub struct HitForMiss {
    marks: Cache<EntryKey, UnsharedMark, foldhash::fast::RandomState>,
    /// How long a mark holds that is made now, in milliseconds.
    life: AtomicU64,
    /// Whether a key was ever marked. Until then loads do not look anything up here.
    has_marked: AtomicBool,
}

#[derive(Clone, Copy)]
struct UnsharedMark {
    scope: UnsharedScope,
    life: Duration,
}

struct UnsharedMarkExpiry;

impl Expiry<EntryKey, UnsharedMark> for UnsharedMarkExpiry {
    fn expire_after_create(
        &self,
        _: &EntryKey,
        mark: &UnsharedMark,
        _: Instant,
    ) -> Option<Duration> {
        Some(mark.life)
    }

    fn expire_after_update(
        &self,
        _: &EntryKey,
        mark: &UnsharedMark,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(mark.life)
    }
}

/// The largest number of marked keys.
const KEYS: u64 = 10_000;

impl UnsharedScope {
    /// Whether such a request is in this scope.
    pub fn includes(self, request: CameWith) -> bool {
        let authorized = request.authorization != CredentialPresence::Not;
        match self {
            Self::Everybody => true,
            Self::Authorized => authorized,
            Self::Credentialed => authorized || request.cookies != CredentialPresence::Not,
        }
    }
}

impl HitForMiss {
    /// Begins without marks; each mark holds for `life`.
    pub fn new(life: Duration) -> Self {
        let marks = Cache::builder()
            .max_capacity(KEYS)
            .expire_after(UnsharedMarkExpiry)
            .build_with_hasher(Default::default());
        let marks = Self {
            marks,
            life: AtomicU64::new(0),
            has_marked: AtomicBool::new(false),
        };
        marks.hold_for(life);
        marks
    }

    /// Marks that are made from now on hold for `life`.
    pub fn hold_for(&self, life: Duration) {
        let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        self.life.store(millis, Relaxed);
    }

    /// Marks a key.
    pub fn mark(&self, key: &EntryKey, scope: UnsharedScope) {
        let life = Duration::from_millis(self.life.load(Relaxed));
        self.has_marked.store(true, Release);
        self.marks.insert(key.clone(), UnsharedMark { scope, life });
    }

    /// Ends the mark of a key, because a response for it may be shared.
    pub fn end(&self, key: &EntryKey) {
        if self.has_marked.load(Acquire) {
            self.marks.invalidate(key.as_bytes());
        }
    }

    /// Whether responses to such a request for `key` could not be shared a short time ago.
    pub fn applies(&self, key: &EntryKey, request: CameWith) -> bool {
        if !self.has_marked.load(Acquire) {
            return false;
        }
        let mark = self.marks.get(key.as_bytes());
        mark.is_some_and(|mark| mark.scope.includes(request))
    }
}
