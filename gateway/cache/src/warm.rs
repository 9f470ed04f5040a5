//! What a restart begins with: the keys that were asked for most often, and what is stored for them.
//!
//! Inside: `config`, `file` (the file of hot keys, which may hold records as well), `restore` (from
//! that file and from the second tier into L1), `metrics`.
//!
//! A hit is not counted, since counting is a write to memory that all threads share. What is known
//! of hits is a sample: the proxy keeps a record of some, and notes the entry of those
//! ([`Entry::note_use`]). Of two entries with as many uses the younger one is the hotter.
//!
//! Invariant: a snapshot is written when nothing can purge here any more, and holds only what is
//! certain then.

pub mod config;
pub mod file;
pub mod metrics;
pub mod restore;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::Cache;
use crate::entry::Entry;
use crate::l2::convert;
use crate::l2::store::LogPlace;
use crate::purge::EntryVisibility;
use crate::record::{self, RecordOptions, StoreRecord};
use file::{HotKey, WarmFileOwner, WarmFileSize, WarmWriteError};

/// Which responses are written beside the keys.
pub struct SnapshotRules {
    /// How many bytes of records there may be.
    pub max_bytes: u64,
    /// When no further record is begun.
    pub deadline: Instant,
    pub codec: RecordOptions,
}

/// An entry and how hot it is: by its uses, then by its age.
struct RankedEntry {
    uses: u32,
    received: Instant,
    entry: Arc<Entry>,
}

impl PartialEq for RankedEntry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for RankedEntry {}

impl PartialOrd for RankedEntry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RankedEntry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.uses, self.received).cmp(&(other.uses, other.received))
    }
}

impl Cache {
    /// Writes the hottest keys into a file, with their responses if there are rules for them. Slow:
    /// never call it on a thread that serves requests.
    ///
    /// # Errors
    /// Why there is no new file.
    pub fn write_hottest(
        &self,
        owner: &WarmFileOwner,
        most: usize,
        snapshot: Option<&SnapshotRules>,
    ) -> Result<WarmFileSize, WarmWriteError> {
        let hottest = self.hottest(most);
        let mut room = snapshot.map_or(0, |rules| rules.max_bytes);
        let keys = hottest.iter().filter_map(|entry| {
            let marks = &entry.marks;
            let key = HotKey::new(entry.key.clone(), marks.identity, &marks.url, entry.uses())?;
            let record = snapshot.and_then(|rules| self.sure_record(entry, rules, room));
            room -= record.as_ref().map_or(0, |record| record.len() as u64);
            Some((key, record))
        });
        owner.write(keys)
    }

    /// Lets the uses so far count half, so that what was hot long ago makes room.
    pub fn halve_uses(&self) {
        self.l1.for_each_entry(|entry| entry.halve_uses());
    }

    /// The entries that were used most, the hottest first.
    fn hottest(&self, most: usize) -> Vec<Arc<Entry>> {
        let mut hottest = BinaryHeap::new();
        self.l1.for_each_entry(|entry| {
            // Parts are of no use without what is asked of them.
            if entry.parts.is_some() || self.log.judge(&entry) == EntryVisibility::Hidden {
                return;
            }
            hottest.push(Reverse(RankedEntry {
                uses: entry.uses(),
                received: entry.freshness.received,
                entry,
            }));
            if hottest.len() > most {
                hottest.pop();
            }
        });
        let sorted = hottest.into_sorted_vec().into_iter();
        sorted.map(|Reverse(ranked)| ranked.entry).collect()
    }

    /// The record of an entry about which nothing is in doubt. None: there is a doubt, a mark of a
    /// soft purge, or no room or time.
    fn sure_record(&self, entry: &Entry, rules: &SnapshotRules, room: u64) -> Option<Bytes> {
        let is_large = entry.body.len() as u64 > room;
        if is_large || Instant::now() >= rules.deadline {
            return None;
        }
        if self.log.judge(entry) != EntryVisibility::Visible {
            return None;
        }
        let born = match &self.second_tier {
            Some(tier) => tier.place_of(entry.born)?,
            None => LogPlace::default(),
        };
        let lifetime = entry.freshness.lifetime;
        let stored = convert::stored(entry, lifetime, born, Duration::MAX)?;
        let record = StoreRecord::Entry(stored);
        let bytes = record::encode(entry.key.as_bytes(), &record, &rules.codec).ok()?;
        (bytes.len() as u64 <= room).then_some(bytes)
    }

    /// Notes that this process begins with what an earlier one has stored.
    pub fn begin_with_snapshot(&self) {
        self.has_snapshot.store(true, Ordering::Release);
    }
}
