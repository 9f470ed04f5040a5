//! A store in memory that tests can make fail. Several tiers share it as several nodes would.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::key::PurgeHash;
use crate::l2::store::{
    FoundRecord, Lease, LeaseAcquisition, LogPlace, LoggedPurge, PurgeLogEntry, PurgeLogRange,
    Store, StoreError, StoreKey, StorePut, StorePutOutcome, StoreRefusal,
};
use crate::l2::store::{LogNumber, LogOrder};

#[derive(Default)]
pub struct Memory {
    held: Mutex<Held>,
    appended: Notify,
    /// Every call fails.
    pub down: AtomicBool,
    /// Appends fail.
    pub mute: AtomicBool,
    pub reads: AtomicUsize,
    pub deletes: AtomicUsize,
    /// While this is locked for writing, answers to reads are delayed.
    pub answers: tokio::sync::RwLock<()>,
    /// The same for answers about invalidations.
    pub told: tokio::sync::RwLock<()>,
}

#[derive(Default)]
struct Held {
    records: HashMap<StoreKey, (Bytes, Instant, LogOrder)>,
    tombstones: HashMap<StoreKey, LogOrder>,
    notes: HashMap<PurgeHash, LogOrder>,
    owners: HashMap<StoreKey, ([u8; 16], tokio::time::Instant)>,
    generation: u64,
    purges: Vec<PurgeLogEntry>,
    newest: LogNumber,
}

impl Memory {
    /// Loses everything, like a server that was restarted without its data.
    pub fn lose(&self) {
        let mut held = self.held.lock();
        let generation = held.generation + 1;
        *held = Held {
            generation,
            ..Held::default()
        };
        self.appended.notify_waiters();
    }

    /// A purge by another node.
    pub fn purge(&self, selector: &str) -> LogNumber {
        let purge = LoggedPurge {
            selector: selector.into(),
            soft: false,
        };
        self.held.lock().append(purge, LogNumber::ZERO)
    }

    /// Lets `span` pass for everything that it holds.
    pub fn pass(&self, span: Duration) {
        let mut held = self.held.lock();
        let ends = held.records.values_mut().map(|(_, ends, _)| ends);
        ends.for_each(|ends| *ends = ends.checked_sub(span).unwrap_or_else(Instant::now));
    }

    /// Replaces the bytes of each record.
    pub fn spoil(&self, change: impl Fn(&Bytes) -> Bytes) {
        let mut held = self.held.lock();
        let records = held.records.values_mut().map(|(record, ..)| record);
        records.for_each(|record| *record = change(record));
    }

    pub fn records(&self) -> usize {
        self.held.lock().records.len()
    }

    pub fn notes(&self) -> usize {
        self.held.lock().notes.len()
    }

    fn alive(&self) -> Result<(), StoreError> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(StoreError::Down("as the test wants it".into())),
            false => Ok(()),
        }
    }

    fn log(&self, after: LogNumber) -> Result<PurgeLogRange, StoreError> {
        self.alive()?;
        let held = self.held.lock();
        Ok(PurgeLogRange {
            generation: held.generation + 1,
            newest: held.newest,
            whole: true,
            purges: held
                .purges
                .iter()
                .filter(|p| p.number > after)
                .cloned()
                .collect(),
            fault: None,
        })
    }
}

impl Held {
    fn append(&mut self, purge: LoggedPurge, last: LogNumber) -> LogNumber {
        self.newest = self.newest.max(last).plus(1);
        self.purges.push(PurgeLogEntry {
            since: self.newest,
            number: self.newest,
            purge,
        });
        self.newest
    }

    fn owner(&self, key: &StoreKey) -> Option<[u8; 16]> {
        let now = tokio::time::Instant::now();
        let holding = self.owners.get(key).filter(|(_, until)| *until > now);
        holding.map(|(token, _)| *token)
    }

    fn owns(&self, lease: &Lease) -> bool {
        self.owner(&lease.key) == Some(lease.token)
    }

    fn put(&mut self, put: &StorePut<'_>) -> StorePutOutcome {
        if !put.lease.is_none_or(|lease| self.owns(lease)) {
            return StorePutOutcome::NotOwner;
        }
        let buried = self
            .tombstones
            .get(put.key)
            .is_some_and(|at| *at > put.born.order);
        let newer = self
            .records
            .get(put.key)
            .is_some_and(|(.., born)| *born > put.born.order);
        if buried || newer || put.born.generation != self.generation + 1 {
            return StorePutOutcome::Overtaken;
        }
        let record = (
            put.record.clone(),
            Instant::now() + put.life,
            put.born.order,
        );
        self.records.insert(*put.key, record);
        StorePutOutcome::Stored
    }
}

fn ready<'a, T: Send + 'a>(outcome: Result<T, StoreError>) -> BoxFuture<'a, Result<T, StoreError>> {
    std::future::ready(outcome).boxed()
}

impl Store for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn get<'a>(
        &'a self,
        key: &'a StoreKey,
        _max: usize,
    ) -> BoxFuture<'a, Result<Option<FoundRecord>, StoreError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let held = self.held.lock();
        let found = held.records.get(key).map(|(record, ends, _)| FoundRecord {
            record: record.clone(),
            left: ends.saturating_duration_since(Instant::now()),
        });
        drop(held);
        let answer = self.alive().map(|()| found.filter(|f| !f.left.is_zero()));
        async move {
            let _arrived = self.answers.read().await;
            answer
        }
        .boxed()
    }

    fn put<'a>(&'a self, put: StorePut<'a>) -> BoxFuture<'a, Result<StorePutOutcome, StoreError>> {
        ready(self.alive().map(|()| self.held.lock().put(&put)))
    }

    fn get_noted<'a>(
        &'a self,
        key: &'a StoreKey,
        max: usize,
        number: PurgeHash,
    ) -> BoxFuture<'a, Result<(Option<FoundRecord>, LogOrder), StoreError>> {
        async move {
            let note = *self.held.lock().notes.entry(number).or_default();
            Ok((self.get(key, max).await?, note))
        }
        .boxed()
    }

    fn put_noted<'a>(
        &'a self,
        put: StorePut<'a>,
        numbers: &'a [PurgeHash],
    ) -> BoxFuture<'a, Result<StorePutOutcome, StoreError>> {
        for number in numbers {
            self.held.lock().notes.entry(*number).or_default();
        }
        self.put(put)
    }

    fn invalidate<'a>(
        &'a self,
        number: PurgeHash,
        at: LogPlace,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        ready(self.alive().map(|()| {
            let mut held = self.held.lock();
            let note = held.notes.get_mut(&number);
            note.map(|note| *note = at.order.max(*note)).is_some()
        }))
    }

    fn invalidated<'a>(
        &'a self,
        numbers: &'a [PurgeHash],
    ) -> BoxFuture<'a, Result<LogOrder, StoreError>> {
        let held = self.held.lock();
        let notes = numbers.iter().filter_map(|number| held.notes.get(number));
        let newest = notes.copied().max().unwrap_or_default();
        async move {
            let _arrived = self.told.read().await;
            Ok(newest)
        }
        .boxed()
    }

    fn delete<'a>(
        &'a self,
        key: &'a StoreKey,
        at: LogPlace,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let at = at.order;
        self.deletes.fetch_add(1, Ordering::SeqCst);
        ready(self.alive().map(|()| {
            let mut held = self.held.lock();
            if held.records.get(key).is_some_and(|(.., born)| *born <= at) {
                held.records.remove(key);
            }
            held.tombstones.insert(*key, at);
        }))
    }

    fn append<'a>(
        &'a self,
        purge: &'a LoggedPurge,
        last: LogNumber,
    ) -> BoxFuture<'a, Result<PurgeLogRange, StoreError>> {
        if self.mute.load(Ordering::SeqCst) {
            return ready(Err(StoreError::Refused(
                StoreRefusal::OutOfMemory,
                "OOM".into(),
            )));
        }
        if let Err(error) = self.alive() {
            return ready(Err(error));
        }
        self.held.lock().append(purge.clone(), last);
        self.appended.notify_waiters();
        ready(self.log(last))
    }

    fn read_log(&self, after: LogNumber) -> BoxFuture<'_, Result<PurgeLogRange, StoreError>> {
        ready(self.log(after))
    }

    fn watch_log(
        &self,
        after: LogNumber,
        patience: Duration,
    ) -> BoxFuture<'_, Result<PurgeLogRange, StoreError>> {
        async move {
            let appended = self.appended.notified();
            let log = self.log(after)?;
            if !log.purges.is_empty() {
                return Ok(log);
            }
            // In both cases the log is read again. A loss is not announced, so it is read often.
            let often = patience.min(Duration::from_millis(5));
            let _ = tokio::time::timeout(often, appended).await;
            self.log(after)
        }
        .boxed()
    }

    fn acquire<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<LeaseAcquisition, StoreError>> {
        ready(self.alive().map(|()| {
            let mut held = self.held.lock();
            if held.owner(&lease.key).is_some() {
                return LeaseAcquisition::Busy;
            }
            let until = tokio::time::Instant::now() + ttl;
            held.owners.insert(lease.key, (lease.token, until));
            LeaseAcquisition::Owned
        }))
    }

    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        ready(self.alive().map(|()| {
            let mut held = self.held.lock();
            let owned = held.owns(lease);
            if owned {
                let until = tokio::time::Instant::now() + ttl;
                held.owners.insert(lease.key, (lease.token, until));
            }
            owned
        }))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>> {
        ready(self.alive().map(|()| {
            let mut held = self.held.lock();
            let owned = held.owns(lease);
            if owned {
                held.owners.remove(&lease.key);
            }
            owned
        }))
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(Ok(()))
    }
}
