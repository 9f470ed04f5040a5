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
use crate::bus::event::{Message, Prime, Seen};
use crate::bus::outbox::Value;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::peers::PeerValueOutcome;
use crate::cache::purge::Order;
use crate::cache::record::{self, Record};

use super::Cluster;

/// What became of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
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
    pub(super) fn tell_value(&self, primary: &Key, entry: &Arc<Entry>) {
        let (cache, orders) = (Arc::clone(&self.cache), Arc::clone(&self.orders));
        let (primary, entry) = (primary.clone(), Arc::clone(entry));
        let (codec, limit) = (self.codec.clone(), self.rules.max_value_bytes);
        let weight = entry.size();
        let make = move || {
            if entry.body.len() > limit {
                return Some(changed(&entry));
            }
            let (seen, generation) = match cache.shared_generation() {
                Some(generation) => (Seen::Log { generation }, generation),
                None if cache.shares_log() => return None,
                None => {
                    let heard = orders.lock().heard_at(entry.born, Instant::now())?;
                    (Seen::Publishers(heard), 0)
                }
            };
            let value = cache.value_of(&primary, &entry, generation)?;
            let record = Record::Entry(value.stored);
            let record = record::encode(&value.key, &record, &codec).ok()?;
            if record.len() > limit {
                return Some(changed(&entry));
            }
            Some(Message::Prime(Prime {
                record,
                key: value.key,
                primary: value.primary,
                seen,
            }))
        };
        self.outbox.value(Value {
            weight,
            make: Box::new(make),
        });
    }

    /// Takes a peer's value, if it is wanted here and nothing speaks against it.
    pub(super) fn take_value(&self, prime: Prime, ts: u64) {
        if self.rules.priming != Priming::Off {
            let outcome = self.judge_value(prime, ts);
            self.metrics.value(outcome);
        }
    }

    /// A peer's value for this key is too large to be told.
    pub(super) fn take_change(&self, key: &[u8], likeness: u64) {
        let outdated = self.cache.changed_elsewhere(key, likeness);
        self.metrics.value(match outdated {
            true => Outcome::Changed,
            false => Outcome::Unchanged,
        });
    }

    fn judge_value(&self, prime: Prime, ts: u64) -> Outcome {
        let transit = since(ts);
        if transit > LATE {
            return Outcome::Late;
        }
        let Prime {
            key,
            primary,
            record,
            seen,
        } = prime;
        let codec = &self.codec;
        let Ok(value) = self.cache.read_value(key, primary, &record, codec, transit) else {
            return Outcome::Corrupt;
        };
        let born = match seen {
            Seen::Log { .. } => self.cache.born_in_log(&value.stored),
            Seen::Publishers(_) if self.cache.shares_log() => None,
            Seen::Publishers(heard) => self.place(&heard),
        };
        let Some(born) = born else {
            return Outcome::Overtaken;
        };
        let resident_only = self.rules.priming == Priming::Resident;
        match self.cache.prime(value, born, resident_only) {
            PeerValueOutcome::Stored => Outcome::Stored,
            PeerValueOutcome::Overtaken => Outcome::Overtaken,
            PeerValueOutcome::Unwanted => Outcome::Unwanted,
        }
    }

    fn place(&self, heard: &super::orders::Heard) -> Option<Order> {
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
