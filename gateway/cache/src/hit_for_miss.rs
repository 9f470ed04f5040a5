//! Keys whose responses could not be shared a short time ago.
//!
//! Requests for such a key do not wait for each other: each one loads by itself, at the same time
//! as the others. The first response that may be stored is stored and ends the mark, so a mark
//! never keeps a page out of the cache. A mark holds for a short time, and the number of marked
//! keys is bounded.

use std::time::Duration;

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
pub struct HitForMiss(Cache<EntryKey, UnsharedScope, foldhash::fast::RandomState>);

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

    /// Ends the mark of a key, because a response for it may be shared.
    pub fn end(&self, key: &EntryKey) {
        self.0.invalidate(key.as_bytes());
    }

    /// Whether responses to such a request for `key` could not be shared a short time ago.
    pub fn applies(&self, key: &EntryKey, request: CameWith) -> bool {
        let mark = self.0.get(key.as_bytes());
        mark.is_some_and(|whose| whose.includes(request))
    }
}
