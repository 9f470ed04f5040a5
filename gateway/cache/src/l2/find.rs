//! Looks a request up in the second tier.

use http::{HeaderMap, HeaderName};

use super::L2;
use super::convert;
use super::guard::{StoreCall, StoreCallError};
use super::store::{LogOrder, StoreError, StoreKey};
use crate::entry::Entry;
use crate::event::{CacheEvent, L2LookupOutcome};
use crate::http::vary::Vary;
use crate::key::{EntryKey, KeyBuf, KeyId, PurgeHash};
use crate::purge::PurgeOrder;
use crate::record::{ClockReading, ResponseRecord, StoreRecord};

/// The outcome of a look-up.
pub enum L2Lookup {
    Found(Box<L2Entry>),
    Miss,
    /// The store does not answer, so it is useless to ask it for anything else.
    Unknown,
}

/// An entry that was found in the second tier. It was not compared with purges yet.
pub struct L2Entry {
    pub entry: Entry,
    pub vary: Vary,
}

/// A record that the present purge log can judge.
enum ReadableRecord {
    /// With the place in our own order at which its load began.
    Entry(Box<ResponseRecord>, PurgeOrder),
    Varies(Vec<Vec<HeaderName>>),
}

/// The largest number of field lists of one key that are tried.
const LISTS: usize = 4;

impl L2 {
    /// Looks a request up.
    pub async fn find(&self, primary: &KeyBuf, request: &HeaderMap) -> L2Lookup {
        let home = KeyId::of(primary.as_bytes());
        // The store's answer may not include invalidations that come from here on.
        let began = self.feed.order();
        let found = match self
            .read(home, primary.identity(), primary.as_bytes())
            .await
        {
            Ok(ReadableRecord::Entry(stored, born)) => Ok((primary.to_key(), *stored, born)),
            Ok(ReadableRecord::Varies(lists)) => self.variant(home, primary, &lists, request).await,
            Err(look) => Err(look),
        };
        let look = found
            .as_ref()
            .map_or_else(|look| *look, |_| L2LookupOutcome::Hit);
        self.hooks.emit(CacheEvent::SecondTierLookup(look));
        match found {
            Ok((key, stored, born)) => L2Lookup::Found(Box::new(L2Entry {
                vary: Vary::parse(&stored.headers),
                entry: convert::entry(key, stored, born).found_in_second_tier(began),
            })),
            Err(L2LookupOutcome::Error | L2LookupOutcome::Skipped) => L2Lookup::Unknown,
            Err(_) => L2Lookup::Miss,
        }
    }

    /// Looks for what is stored under a whole key, for nobody in particular. `primary` is the key
    /// without the variant, and `identity` stands for its URL.
    pub async fn find_stored(
        &self,
        primary: &EntryKey,
        key: &EntryKey,
        identity: PurgeHash,
    ) -> L2Lookup {
        let began = self.feed.order();
        let home = KeyId::of(primary.as_bytes());
        match self.read(home, identity, key.as_bytes()).await {
            Ok(ReadableRecord::Entry(stored, born)) => L2Lookup::Found(Box::new(L2Entry {
                vary: Vary::parse(&stored.headers),
                entry: convert::entry(key.clone(), *stored, born).found_in_second_tier(began),
            })),
            Err(L2LookupOutcome::Error | L2LookupOutcome::Skipped) => L2Lookup::Unknown,
            Ok(ReadableRecord::Varies(_)) | Err(_) => L2Lookup::Miss,
        }
    }

    async fn variant(
        &self,
        home: KeyId,
        primary: &KeyBuf,
        lists: &[Vec<HeaderName>],
        request: &HeaderMap,
    ) -> Result<(EntryKey, ResponseRecord, PurgeOrder), L2LookupOutcome> {
        for fields in lists.iter().take(LISTS) {
            let key = primary.variant(fields, request);
            match self.read(home, primary.identity(), key.as_bytes()).await {
                Ok(ReadableRecord::Entry(stored, born)) => {
                    return Ok((key.to_key(), *stored, born));
                }
                Err(look @ (L2LookupOutcome::Error | L2LookupOutcome::Skipped)) => {
                    return Err(look);
                }
                Ok(ReadableRecord::Varies(_)) | Err(_) => {}
            }
        }
        Err(L2LookupOutcome::Miss)
    }

    /// Reads the record under a whole key: the one that waits to be written, otherwise the one in
    /// the store.
    ///
    /// Pending invalidations are checked before the store is asked. One that is still under way
    /// then hides the record here, and one that is done is included in the store's answer.
    async fn read(
        &self,
        home: KeyId,
        identity: PurgeHash,
        key: &[u8],
    ) -> Result<ReadableRecord, L2LookupOutcome> {
        self.feed.generation().ok_or(L2LookupOutcome::Skipped)?;
        if self.guard.store.awaits_predecessor() {
            return Err(L2LookupOutcome::Skipped);
        }
        let name = StoreKey::with_home(home, key);
        if self.removals.hides(&name) || self.invalidations.hide(&[identity]) {
            return Err(L2LookupOutcome::Miss);
        }
        let record = match self.writer.waiting(&name) {
            Some(waiting) if waiting.is_overtaken() => return Err(L2LookupOutcome::Miss),
            Some(waiting) => waiting.aged().ok_or(L2LookupOutcome::Miss)?,
            None => self.fetched(&name, identity, key).await?,
        };
        let stored = match record {
            StoreRecord::Entry(stored) => stored,
            StoreRecord::Varies(lists) => return Ok(ReadableRecord::Varies(lists)),
        };
        let born = self.feed.order_of(stored.generation, stored.born)?;
        match self.feed.hides(&stored.marks) || self.invalidations.hide(&stored.marks.groups) {
            true => Err(L2LookupOutcome::Miss),
            false => Ok(ReadableRecord::Entry(Box::new(stored), born)),
        }
    }

    async fn fetched(
        &self,
        name: &StoreKey,
        identity: PurgeHash,
        key: &[u8],
    ) -> Result<StoreRecord, L2LookupOutcome> {
        let limit = self.codec().limits.encoded;
        let found = self
            .guard
            .call(StoreCall::Get, |store| {
                store.get_noted(name, limit, identity)
            })
            .await;
        let (found, invalidated) = found.map_err(unread)?;
        let found = found.ok_or(L2LookupOutcome::Miss)?;
        let decoded = convert::decode(key, found.record, &self.codec()).await;
        let seen = decoded.and_then(|record| match record {
            StoreRecord::Entry(stored) => stored
                .seen_at(ClockReading::now(), found.left)
                .map(StoreRecord::Entry),
            varies => Ok(varies),
        });
        let stored = match seen {
            Ok(StoreRecord::Entry(stored)) => stored,
            Ok(varies) => return Ok(varies),
            Err(corrupt) => {
                self.hooks.emit(CacheEvent::Corrupt(corrupt));
                return Err(L2LookupOutcome::Corrupt);
            }
        };
        let with_groups = match stored.marks.groups.is_empty() {
            true => invalidated,
            false => self.groups_of(&stored).await?.max(invalidated),
        };
        match stored.born < with_groups {
            true => Err(L2LookupOutcome::Miss),
            false => Ok(StoreRecord::Entry(stored)),
        }
    }

    /// The newest invalidation of the groups that a record belongs to.
    async fn groups_of(&self, stored: &ResponseRecord) -> Result<LogOrder, L2LookupOutcome> {
        let groups = &stored.marks.groups;
        if self.invalidations.hide(groups) {
            return Err(L2LookupOutcome::Miss);
        }
        let newest = self
            .guard
            .call(StoreCall::Get, |store| store.invalidated(groups))
            .await;
        newest.map_err(unread)
    }
}

fn unread(failed: StoreCallError) -> L2LookupOutcome {
    match failed {
        // The store answers, and the next write replaces the record.
        StoreCallError::Store(StoreError::Foreign(_) | StoreError::TooLarge { .. }) => {
            L2LookupOutcome::Corrupt
        }
        StoreCallError::Store(_) => L2LookupOutcome::Error,
        StoreCallError::Skipped | StoreCallError::Busy => L2LookupOutcome::Skipped,
    }
}
