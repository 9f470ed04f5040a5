//! Values that were loaded here, sent to other nodes, and theirs received here.
//!
//! A value travels as the record that the second tier would keep; if it is too large, the other
//! nodes only learn that it changed. Decision: a value that was long on its way is dropped, and its
//! time on the way counts as age. Only for this is the publisher's clock compared with ours, and
//! the worst result is a value that no node takes.

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

/// The outcome of a received value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrimeOutcome {
    Stored,
    Overtaken,
    Unwanted,
    Corrupt,
    Late,
    /// The value was too large to be sent, and another value was held here: that one is stale now.
    Changed,
    /// The value was too large to be sent, and here was no value, the same one, or a recent one.
    Unchanged,
}

/// A value that was on its way for longer is dropped.
const LATE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Publishes a value to the other nodes.
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

    /// Takes a value of another node, if it is wanted here and no purge has overtaken it.
    pub(super) fn take_value(&self, prime: PrimeMessage, ts: u64) {
        if self.rules.priming != Priming::Off {
            let outcome = self.judge_value(prime, ts);
            self.metrics.value(outcome);
        }
    }

    /// Another node has a value for this key that is too large to be sent.
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
        if self.doubts.await_what_was_heard() {
            // The doubt of joining came before it, and what it may have missed is not known yet.
            return PrimeOutcome::Overtaken;
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
            KnownPurges::Publishers(heard) => self.order_of_value(&heard),
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

    fn order_of_value(&self, heard: &super::orders::HeardPurges) -> Option<PurgeOrder> {
        // Read first: purges that are applied meanwhile come after it.
        let newest = self.cache.order();
        self.orders
            .lock()
            .order_of_value(heard, newest, Instant::now())
    }
}

fn changed(entry: &Entry) -> Message {
    Message::Changed {
        key: Bytes::copy_from_slice(entry.key.as_bytes()),
        likeness: entry.likeness(),
    }
}

/// The time since `ts`, by the clocks of two machines; zero if `ts` is in the future.
fn since(ts: u64) -> Duration {
    let then = UNIX_EPOCH + Duration::from_millis(ts);
    SystemTime::now().duration_since(then).unwrap_or_default()
}
