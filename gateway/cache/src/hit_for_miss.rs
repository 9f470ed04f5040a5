//! Keys whose responses could not be shared a moment ago.
//!
//! Requests for such a key do not queue: each one loads by itself, side by side with the
//! others. The first response that may be stored is stored and ends the mark, so that a
//! mark never keeps a page out of the cache. It holds for a short time and for a bounded
//! number of keys.

use std::time::Duration;

use moka::sync::Cache;

use crate::key::EntryKey;
use crate::policy::{CameWith, CredentialPresence};

/// Whose responses for a key may not be shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnsharedScope {
    Everybody,
    /// Those of requests with `Authorization`; the others' may be.
    Authorized,
    /// Those of requests with `Cookie` or `Authorization`; the others' may be.
    Credentialed,
}

/// The marked keys.
pub struct HitForMiss(Cache<EntryKey, UnsharedScope, foldhash::fast::RandomState>);

/// Keys that are marked at most.
const KEYS: u64 = 10_000;

impl UnsharedScope {
    /// Whether a response to such a request is among them.
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
    /// No key is marked; a mark holds for `life`.
    pub fn new(life: Duration) -> Self {
        let keys = Cache::builder()
            .max_capacity(KEYS)
            .time_to_live(life)
            .build_with_hasher(Default::default());
        Self(keys)
    }

    /// Marks a key.
    pub fn mark(&self, key: &EntryKey, whose: UnsharedScope) {
        self.0.insert(key.clone(), whose);
    }

    /// A response for this key may be shared after all.
    pub fn end(&self, key: &EntryKey) {
        self.0.invalidate(key.as_bytes());
    }

    /// Whether a response to such a request for `key` could not be shared a moment ago.
    pub fn applies(&self, key: &EntryKey, request: CameWith) -> bool {
        let mark = self.0.get(key.as_bytes());
        mark.is_some_and(|whose| whose.includes(request))
    }
}
