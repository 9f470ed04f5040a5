//! Values that were loaded here, for peers, and theirs for us.
//!
//! A value travels as the record that the second tier would keep; of one that is too large
//! peers hear that it changed. Decision: a value whose
//! way took long is dropped, and the way counts as age: the publisher's clock is compared
//! with ours for that alone, and the worst of it is a value that nobody gets.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::bus::config::Priming;
use crate::bus::event::{KnownPurges, Message, PrimeMessage};
use crate::bus::outbox::QueuedValue;
use crate::cache::entry::Entry;
use crate::cache::key::EntryKey;
use crate::cache::peers::PeerValueOutcome;
use crate::cache::purge::PurgeOrder;
use crate::cache::record::{self, StoreRecord};

use super::Cluster;

/// What became of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrimeOutcome {
    Stored,
    Overtaken,
    Unwanted,
    Corrupt,
    Late,
    /// It is too large to be told, and another was held here: that one is stale.
    Changed,
    /// It is too large to be told, and none was held here, or the same, or a young one.
    Unchanged,
}

/// A value that took longer is of no use.
const LATE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Has peers told of a value.
    pub(super) fn tell_value(&self, primary: &EntryKey, entry: &Arc<Entry>) {
        let (cache, orders) = (Arc::clone(&self.cache), Arc::clone(&self.orders));
        let (primary, entry) = (primary.clone(), Arc::clone(entry));
        let (codec, limit) = (self.codec.clone(), self.rules.max_value_bytes);
        let weight = entry.size();
        let make = move || {
            if entry.body.len() > limit {
                return Some(changed(&entry));
            }
            let (seen, generation) = match cache.shared_generation() {
                Some(generation) => (KnownPurges::Log { generation }, generation),
                None if cache.shares_log() => return None,
                None => {
                    let heard = orders.lock().heard_at(entry.born, Instant::now())?;
                    (KnownPurges::Publishers(heard), 0)
                }
            };
            let value = cache.value_of(&primary, &entry, generation)?;
            let record = StoreRecord::Entry(value.stored);
            let record = record::encode(&value.key, &record, &codec).ok()?;
            if record.len() > limit {
                return Some(changed(&entry));
            }
            Some(Message::Prime(PrimeMessage {
                record,
                key: value.key,
                primary: value.primary,
                seen,
            }))
        };
        self.outbox.value(QueuedValue {
            weight,
            make: Box::new(make),
        });
    }

    /// Takes a peer's value, if it is wanted here and nothing speaks against it.
    pub(super) fn take_value(&self, prime: PrimeMessage, ts: u64) {
        if self.rules.priming != Priming::Off {
            let outcome = self.judge_value(prime, ts);
            self.metrics.value(outcome);
        }
    }

    /// A peer's value for this key is too large to be told.
    pub(super) fn take_change(&self, key: &[u8], likeness: u64) {
        let outdated = self.cache.changed_elsewhere(key, likeness);
        self.metrics.value(match outdated {
            true => PrimeOutcome::Changed,
            false => PrimeOutcome::Unchanged,
        });
    }

    fn judge_value(&self, prime: PrimeMessage, ts: u64) -> PrimeOutcome {
        let transit = since(ts);
        if transit > LATE {
            return PrimeOutcome::Late;
        }
        let PrimeMessage {
            key,
            primary,
            record,
            seen,
        } = prime;
        let codec = &self.codec;
        let Ok(value) = self.cache.read_value(key, primary, &record, codec, transit) else {
            return PrimeOutcome::Corrupt;
        };
        let born = match seen {
            KnownPurges::Log { .. } => self.cache.born_in_log(&value.stored),
            KnownPurges::Publishers(_) if self.cache.shares_log() => None,
            KnownPurges::Publishers(heard) => self.place(&heard),
        };
        let Some(born) = born else {
            return PrimeOutcome::Overtaken;
        };
        let resident_only = self.rules.priming == Priming::Resident;
        match self.cache.prime(value, born, resident_only) {
            PeerValueOutcome::Stored => PrimeOutcome::Stored,
            PeerValueOutcome::Overtaken => PrimeOutcome::Overtaken,
            PeerValueOutcome::Unwanted => PrimeOutcome::Unwanted,
        }
    }

    fn place(&self, heard: &super::orders::HeardPurges) -> Option<PurgeOrder> {
        // Read first: what is applied meanwhile comes after.
        let newest = self.cache.order();
        self.orders.lock().place(heard, newest, Instant::now())
    }
}

fn changed(entry: &Entry) -> Message {
    Message::Changed {
        key: Bytes::copy_from_slice(entry.key.as_bytes()),
        likeness: entry.likeness(),
    }
}

/// How long ago that was, by the clocks of two machines; nothing, if it is yet to come.
fn since(ts: u64) -> Duration {
    let then = UNIX_EPOCH + Duration::from_millis(ts);
    SystemTime::now().duration_since(then).unwrap_or_default()
}
