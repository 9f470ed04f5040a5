//! Looking a request up in the second tier.

use http::{HeaderMap, HeaderName};

use super::L2;
use super::convert;
use super::guard::{Call, Failed};
use super::store::{StoreError, StoreKey};
use crate::entry::Entry;
use crate::event::{Event, Look};
use crate::http::vary::Vary;
use crate::key::{Hash64, Key, KeyBuf, KeyId};
use crate::purge::Order;
use crate::record::{Moment, Record, Stored};

/// What came of a look-up.
pub enum Sought {
    Found(Box<Below>),
    Miss,
    /// The store does not tell, so that asking it for anything else is in vain, too.
    Unknown,
}

/// What was found below L1. It was not compared with purges.
pub struct Below {
    pub entry: Entry,
    pub vary: Vary,
}

/// A record that the purge log of today can judge.
enum Readable {
    /// And where its load began in our own order.
    Entry(Box<Stored>, Order),
    Varies(Vec<Vec<HeaderName>>),
}

/// Field lists of one key that are looked under at most.
const LISTS: usize = 4;

impl L2 {
    /// Looks a request up.
    pub async fn find(&self, primary: &KeyBuf, request: &HeaderMap) -> Sought {
        let home = KeyId::of(primary.as_bytes());
        // Invalidations from here on may have come too late for the store's answer.
        let began = self.feed.order();
        let found = match self.read(home, primary, primary.as_bytes()).await {
            Ok(Readable::Entry(stored, born)) => Ok((primary.to_key(), *stored, born)),
            Ok(Readable::Varies(lists)) => self.variant(home, primary, &lists, request).await,
            Err(look) => Err(look),
        };
        let look = found.as_ref().map_or_else(|look| *look, |_| Look::Hit);
        self.hooks.emit(Event::Below(look));
        match found {
            Ok((key, stored, born)) => Sought::Found(Box::new(Below {
                vary: Vary::parse(&stored.headers),
                entry: convert::entry(key, stored, born).found_below(began),
            })),
            Err(Look::Error | Look::Skipped) => Sought::Unknown,
            Err(_) => Sought::Miss,
        }
    }

    async fn variant(
        &self,
        home: KeyId,
        primary: &KeyBuf,
        lists: &[Vec<HeaderName>],
        request: &HeaderMap,
    ) -> Result<(Key, Stored, Order), Look> {
        for fields in lists.iter().take(LISTS) {
            let key = primary.variant(fields, request);
            match self.read(home, primary, key.as_bytes()).await {
                Ok(Readable::Entry(stored, born)) => return Ok((key.to_key(), *stored, born)),
                Err(look @ (Look::Error | Look::Skipped)) => return Err(look),
                Ok(Readable::Varies(_)) | Err(_) => {}
            }
        }
        Err(Look::Miss)
    }

    /// The record under a whole key: what waits to be written, else what the store has.
    ///
    /// Whether an invalidation hides a record is asked before the store is: one that is still
    /// under way then hides it here, and one that is done is in what the store answers.
    async fn read(&self, home: KeyId, primary: &KeyBuf, key: &[u8]) -> Result<Readable, Look> {
        self.feed.generation().ok_or(Look::Skipped)?;
        let name = StoreKey::below(home, key);
        if self.removals.hides(&name) || self.invalidations.hide(&[primary.identity()]) {
            return Err(Look::Miss);
        }
        let record = match self.writer.waiting(&name) {
            Some(waiting) if waiting.is_overtaken() => return Err(Look::Miss),
            Some(waiting) => waiting.aged().ok_or(Look::Miss)?,
            None => self.fetched(&name, primary.identity(), key).await?,
        };
        let stored = match record {
            Record::Entry(stored) => stored,
            Record::Varies(lists) => return Ok(Readable::Varies(lists)),
        };
        let born = self.feed.order_of(stored.generation, stored.born)?;
        match self.feed.hides(&stored.marks) || self.invalidations.hide(&stored.marks.groups) {
            true => Err(Look::Miss),
            false => Ok(Readable::Entry(Box::new(stored), born)),
        }
    }

    async fn fetched(&self, name: &StoreKey, identity: Hash64, key: &[u8]) -> Result<Record, Look> {
        let limit = self.codec.limits.encoded;
        let found = self
            .guard
            .call(Call::Get, |store| store.get_noted(name, limit, identity))
            .await;
        let (found, invalidated) = found.map_err(unread)?;
        let found = found.ok_or(Look::Miss)?;
        let decoded = convert::decode(key, found.record, &self.codec).await;
        let seen = decoded.and_then(|record| match record {
            Record::Entry(stored) => stored.seen_at(Moment::now(), found.left).map(Record::Entry),
            varies => Ok(varies),
        });
        let stored = match seen {
            Ok(Record::Entry(stored)) => stored,
            Ok(varies) => return Ok(varies),
            Err(corrupt) => {
                self.hooks.emit(Event::Corrupt(corrupt));
                return Err(Look::Corrupt);
            }
        };
        let with_groups = match stored.marks.groups.is_empty() {
            true => invalidated,
            false => self.groups_of(&stored).await?.max(invalidated),
        };
        match stored.born < with_groups {
            true => Err(Look::Miss),
            false => Ok(Record::Entry(stored)),
        }
    }

    /// The newest invalidation of the groups that a record belongs to.
    async fn groups_of(&self, stored: &Stored) -> Result<Order, Look> {
        let groups = &stored.marks.groups;
        if self.invalidations.hide(groups) {
            return Err(Look::Miss);
        }
        let newest = self
            .guard
            .call(Call::Get, |store| store.invalidated(groups))
            .await;
        newest.map_err(unread)
    }
}

fn unread(failed: Failed) -> Look {
    match failed {
        // It answers, and a write will put this right.
        Failed::Store(StoreError::Foreign(_) | StoreError::TooLarge { .. }) => Look::Corrupt,
        Failed::Store(_) => Look::Error,
        Failed::Skipped | Failed::Busy => Look::Skipped,
    }
}
