//! Whether the server takes writes, known before a purge needs to be written.
//!
//! A server that is a replica, has too few replicas, can't save its snapshots or is full refuses
//! writes of any kind. Whoever meets the first such refusal notes it here ([`WriteWatch::noted`]),
//! and a probe writes in any case: after each connect, now and then while all is well, and often
//! until writes are taken again. The probe is a write like any other that leaves nothing behind.
//! No question for the role or the settings replaces it: users and proxies may not ask, and it is
//! the writing that matters.
//!
//! In a Cluster the probe goes to the shard that refused; while none refuses, to that of the purge
//! log. Refusals of the others are met by the writes themselves.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::values::done;
use super::{RedisStore, script};
use crate::l2::store::{StoreError, StoreRefusal};

/// The pause between two probes while writes are taken.
const CALM: Duration = Duration::from_secs(5);
/// The pause between two probes while writes are refused.
const AGAIN: Duration = Duration::from_millis(250);
/// The writes of a server that was full count as taken again when none was refused for this long: it
/// takes one whenever something in it expires. For any other reason the first that it takes is
/// enough.
const SETTLED: Duration = Duration::from_secs(1);
/// The time limit of a probe. No answer says nothing about writes.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of writing.
pub(super) struct WriteWatch {
    told: watch::Sender<Option<StoreError>>,
    refused: Mutex<Option<LastRefusal>>,
    /// Wakes the probe.
    wake: Arc<Notify>,
}

/// The last write that was refused.
struct LastRefusal {
    /// Names the shard.
    key: String,
    at: Instant,
    why: StoreRefusal,
}

impl LastRefusal {
    /// Returns whether the refusals are over if Redis takes a write now.
    fn is_over_once_written(&self) -> bool {
        self.why != StoreRefusal::OutOfMemory || self.at.elapsed() >= SETTLED
    }
}

/// The task that probes. It ends when this is dropped.
pub(super) struct WriteProbe(AbortHandle);

impl WriteWatch {
    pub(super) fn new() -> Self {
        Self {
            told: watch::Sender::new(None),
            refused: Mutex::default(),
            wake: Arc::default(),
        }
    }

    /// The server may have changed: it is time for a probe.
    pub(super) fn look(&self) {
        self.wake.notify_one();
    }

    pub(super) fn changes(&self) -> watch::Receiver<Option<StoreError>> {
        self.told.subscribe()
    }

    /// Notes the failure of a call about `key`, if it shows that writes are refused.
    pub(super) fn note_failure(&self, key: &str, failed: &StoreError) {
        let StoreError::Refused(why, _) = failed else {
            return;
        };
        if why.is_of_every_write() {
            self.refuses(key, *why, failed);
        }
    }

    fn refuses(&self, key: &str, why: StoreRefusal, failed: &StoreError) {
        let last = LastRefusal {
            key: key.to_owned(),
            at: Instant::now(),
            why,
        };
        *self.refused.lock() = Some(last);
        let is_news = self.told.send_if_modified(|told| {
            let is_news = told.as_ref().map(StoreError::to_string) != Some(failed.to_string());
            *told = Some(failed.clone());
            is_news
        });
        if is_news {
            self.wake.notify_one();
        }
    }

    /// A probe was written.
    fn takes(&self) {
        let mut refused = self.refused.lock();
        if refused
            .as_ref()
            .is_some_and(LastRefusal::is_over_once_written)
        {
            *refused = None;
            self.told.send_replace(None);
        }
    }

    fn pause(&self) -> Duration {
        match &*self.refused.lock() {
            Some(_) => AGAIN,
            None => CALM,
        }
    }
}

impl WriteProbe {
    /// Begins to probe. It needs a tokio runtime.
    pub(super) fn start(store: &Arc<RedisStore>) -> Self {
        let (wake, connects) = (Arc::clone(&store.writing.wake), store.connects.subscribe());
        Self(tokio::spawn(probe(Arc::downgrade(store), wake, connects)).abort_handle())
    }
}

impl Drop for WriteProbe {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn probe(store: Weak<RedisStore>, wake: Arc<Notify>, mut connects: watch::Receiver<u64>) {
    let mut pause = CALM;
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = wake.notified() => {}
            Ok(()) = connects.changed() => {}
        }
        let Some(store) = store.upgrade() else {
            return;
        };
        store.probe_writes().await;
        pause = store.writing.pause();
    }
}

impl RedisStore {
    /// Writes, where the last write was refused.
    async fn probe_writes(&self) {
        let key = self
            .writing
            .refused
            .lock()
            .as_ref()
            .map(|last| last.key.clone());
        let key = key.unwrap_or_else(|| self.names.log());
        let beside = vec![self.names.probe(&key)];
        let written = timeout(PATIENCE, self.run(&script::PROBE, beside, Vec::new())).await;
        match written {
            Ok(Ok(answer)) if done(&answer, "SET").is_ok() => self.writing.takes(),
            // A right that the probe lacks, every record lacks too.
            Ok(Err(failed @ StoreError::Refused(why @ StoreRefusal::NoAccess, _))) => {
                self.writing.refuses(&key, why, &failed);
            }
            // Refusals of every write were noted; the rest says nothing about writes.
            Ok(Ok(_) | Err(_)) | Err(_) => {}
        }
    }
}
