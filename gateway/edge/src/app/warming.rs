//! What a restart begins with, and what it leaves for the next one (`cache.warm`).
//!
//! At the start the file of hot keys is taken over, before this node joins the others, and what it
//! names is brought into L1 before the gateway reports ready: from the file's own records, from the
//! second tier, and, if that is wanted, from the origins. While the process runs, the file gets the
//! keys; at its end, when nothing can purge here any more, also the responses. Whatever is wrong with
//! the file or its disk is logged, and nothing else changes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::cache::Cache;
use crate::cache::config::WarmConfig;
use crate::cache::purge::DoubtDuration;
use crate::cache::record::{RecordLimits, RecordOptions, Seal};
use crate::cache::warm::SnapshotRules;
use crate::cache::warm::file::{HotKey, WarmFile, WarmFileOwner, WarmFileSize, WarmWriteError};
use crate::cache::warm::metrics::{WarmMetrics, WarmOutcome, WarmSource};
use crate::cache::warm::restore::WarmRestorer;
use crate::http::server::WorkerThread;
use crate::proxy::Proxy;
use crate::telemetry::metrics::Registry;

/// The most loads from origins at the same time.
const MOST_LOADS: usize = 64;

/// The most bytes of responses that another process is handed where no `snapshot` is wanted.
const MOST_HANDED: u64 = 256 << 20;

/// Keeps the file of hot keys.
pub struct WarmKeeper {
    cache: Arc<Cache>,
    seal: Seal,
    /// Tells this process from others that write the same file.
    life: u64,
    config: Mutex<Option<WarmConfig>>,
    owner: Mutex<Option<Arc<WarmFileOwner>>>,
    /// What the process before has left, until it is used.
    found: Mutex<Option<WarmFile>>,
    changed: Notify,
    metrics: Arc<WarmMetrics>,
}

impl WarmKeeper {
    /// # Errors
    /// If the registry has its metrics already.
    pub fn new(cache: &Arc<Cache>, seal: Seal, registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            cache: Arc::clone(cache),
            seal,
            life: crate::bus::outbox::new_boot(),
            config: Mutex::default(),
            owner: Mutex::default(),
            found: Mutex::default(),
            changed: Notify::new(),
            metrics: Arc::new(WarmMetrics::register(registry)?),
        })
    }

    /// Whether a restart is to begin with something, or to leave something.
    pub fn is_wanted(&self) -> bool {
        self.config.lock().is_some()
    }

    /// The longest time that the start waits for the warm-up.
    pub fn patience(&self) -> Duration {
        let config = self.config.lock();
        config
            .as_ref()
            .map_or(Duration::ZERO, |warm| warm.at_most.0)
    }

    /// Takes up this configuration at the start. What the process before has left is read, and the
    /// file becomes that of this process. It reads and writes a file.
    pub fn begin(&self, config: Option<&WarmConfig>) {
        *self.config.lock() = config.cloned();
        let Some(warm) = config else {
            return;
        };
        let found = self.take_over(warm);
        if let Some(found) = found {
            if found.keys.iter().any(HotKey::has_record) {
                self.cache.begin_with_snapshot();
            }
            *self.found.lock() = Some(found);
        }
    }

    /// Follows another configuration. What another file holds is not used.
    pub fn follow(&self, config: Option<&WarmConfig>) {
        let before = std::mem::replace(&mut *self.config.lock(), config.cloned());
        if before.as_ref() == config {
            return;
        }
        match config {
            None => *self.owner.lock() = None,
            Some(warm) if before.is_none_or(|before| before.file != warm.file) => {
                self.take_over(warm);
            }
            Some(_) => {}
        }
        self.changed.notify_one();
    }

    fn take_over(&self, warm: &WarmConfig) -> Option<WarmFile> {
        let taken = WarmFileOwner::take_over(&warm.file, self.life, &self.seal);
        let file = warm.file.display();
        match (&taken.fault, &taken.kept) {
            (None, None) => {}
            (Some(fault), None) => tracing::warn!(
                %file,
                %fault,
                "cache.warm.file can't be used: it is ignored, and a new one was begun"
            ),
            (Some(fault), Some(_)) => tracing::warn!(
                %file,
                %fault,
                "cache.warm.file can't be used and is left as it is: the next start will begin \
                 with an empty first tier, unless another file is named"
            ),
            (None, Some(error)) => tracing::warn!(
                %file,
                %error,
                "cache.warm.file can't be written: of what it holds, only the keys are used"
            ),
        }
        *self.owner.lock() = Some(Arc::new(taken.owner));
        taken.found
    }

    /// Brings into L1 what the process before has left, within the configured time.
    pub async fn warm_up(self: &Arc<Self>, proxy: &Arc<Proxy>, threads: &[WorkerThread]) {
        let Some(warm) = self.config.lock().clone() else {
            return;
        };
        let Some(found) = self.found.lock().take() else {
            return;
        };
        let begun = Instant::now();
        let keys = found.keys.len();
        let deadline = begun + warm.at_most.0;
        self.await_purge_log(warm.at_most.0 / 2).await;
        let codec = self.codec();
        let restorer = WarmRestorer::new(&self.cache, codec, deadline, &self.metrics);
        let restorer = Arc::new(restorer);
        let reading = Arc::clone(&restorer);
        let read = tokio::task::spawn_blocking(move || reading.restore_snapshot(&found)).await;
        let left = read.unwrap_or_default();
        let left = restorer.restore_from_second_tier(left).await;
        if warm.origins && !left.is_empty() {
            self.load_all((proxy, threads), left, &warm, deadline).await;
        }
        let took = begun.elapsed();
        self.metrics.seconds.set(took.as_secs_f64());
        let total = |outcome| self.metrics.total(outcome);
        tracing::info!(
            keys,
            restored = total(WarmOutcome::Restored),
            in_doubt = total(WarmOutcome::InDoubt),
            purged = total(WarmOutcome::Purged),
            not_reached = total(WarmOutcome::NotReached),
            ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "the warm-up is over"
        );
        let damaged = total(WarmOutcome::Damaged);
        if damaged > 0 {
            tracing::warn!(
                file = %warm.file.display(),
                damaged,
                "records in cache.warm.file were damaged, forged or sealed with another seal_key: \
                 they are not used"
            );
        }
    }

    /// Waits for the purge log of the second tier, by which what the file holds is judged.
    async fn await_purge_log(&self, patience: Duration) {
        let tier = self.cache.second_tier();
        if let Some(tier) = tier.filter(|tier| !tier.awaits_predecessor()) {
            // Without it, what the file holds is in doubt.
            let _ = tier.known(patience).await;
        }
    }

    /// Loads what is stored nowhere from its origins, the hottest first, at the configured rate.
    async fn load_all(
        &self,
        (proxy, threads): (&Arc<Proxy>, &[WorkerThread]),
        keys: Vec<HotKey>,
        warm: &WarmConfig,
        deadline: Instant,
    ) {
        let mut turns = interval(Duration::from_secs(1) / warm.origin_rate.max(1));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let count = keys.len();
        let mut threads = threads.iter().cycle();
        let loads = stream::unfold((keys.into_iter(), turns), |(mut keys, mut turns)| async {
            turns.tick().await;
            Some((keys.next()?, (keys, turns)))
        });
        let mut done = 0;
        let all = loads
            .map(|key| load_on(threads.next(), Arc::clone(proxy), key))
            .buffer_unordered(MOST_LOADS)
            .for_each(|outcome| {
                done += 1;
                self.metrics.count(WarmSource::Origin, outcome);
                std::future::ready(())
            });
        // What is under way then goes on, and is stored when it comes.
        let _ = tokio::time::timeout_at(deadline.into(), all).await;
        let left = count.saturating_sub(done);
        self.metrics
            .count_all(WarmSource::Origin, WarmOutcome::NotReached, left);
    }

    /// Writes the keys regularly. Never ends.
    pub async fn keep(self: Arc<Self>) {
        loop {
            let every = self.config.lock().as_ref().map(|warm| warm.every.0);
            tokio::select! {
                () = self.changed.notified() => continue,
                () = pause(every) => {}
            }
            let this = Arc::clone(&self);
            let writing = tokio::task::spawn_blocking(move || {
                this.write(WarmFileOccasion::WhileItRuns);
                this.cache.halve_uses();
            });
            if writing.await.is_err() {
                tracing::error!("writing cache.warm.file broke off; it is tried again later");
            }
        }
    }

    /// Writes what the next process begins with, when nothing is served or purged here any more. It
    /// waits for the disk for at most `patience`.
    pub async fn leave(self: &Arc<Self>, patience: Duration) {
        if !self.is_wanted() {
            return;
        }
        let deadline = Instant::now() + patience;
        let this = Arc::clone(self);
        let (done, written) = oneshot::channel();
        // No thread of the runtime: its end would wait for a disk that hangs.
        let thread = std::thread::Builder::new().name("warm-file".into());
        let begun = thread.spawn(move || {
            this.write(WarmFileOccasion::End(deadline));
            let _ = done.send(());
        });
        match begun {
            Err(error) => tracing::warn!(%error, "cache.warm.file was not written"),
            Ok(_) => {
                if timeout(patience, written).await.is_err() {
                    self.metrics.wrote("failed");
                    tracing::warn!(
                        "cache.warm.file was not written in time; the next start begins with what \
                         it held before"
                    );
                }
            }
        }
    }

    /// Writes what another process, which takes the place of this one, begins with, until this time at
    /// most. Blocks.
    pub fn hand_over(&self, end: Instant) {
        if self.is_wanted() {
            self.write(WarmFileOccasion::HandOver(end));
        }
    }

    /// Makes the file that of this process again, after another one has not taken its place.
    pub fn take_back(&self) {
        if let Some(warm) = self.config.lock().clone() {
            self.take_over(&warm);
        }
    }

    /// Doubts what was taken from the process before, which purged something after that. Where there
    /// is a second tier its log has told of it, and the bus of what other nodes purge.
    pub fn doubt(&self) {
        if self.is_wanted() && self.cache.second_tier().is_none() {
            self.cache.doubt(DoubtDuration::ForGood);
            tracing::info!(
                "something was purged while this process took over: what it begins with is \
                 validated before it is served"
            );
        }
    }

    /// Writes the file, with the responses where it is the last time.
    fn write(&self, occasion: WarmFileOccasion) {
        let Some(warm) = self.config.lock().clone() else {
            return;
        };
        let Some(owner) = self.owner.lock().clone() else {
            return;
        };
        let end = occasion.end();
        let most = self.bytes_of_responses(&warm, occasion);
        let snapshot = end.zip(most).map(|(end, max_bytes)| SnapshotRules {
            max_bytes,
            // The last record and the index need a while as well.
            deadline: end - end.saturating_duration_since(Instant::now()) / 4,
            codec: self.codec(),
        });
        let written = self
            .cache
            .write_hottest(&owner, warm.keys, snapshot.as_ref());
        self.tell(&owner.path, end, written);
    }

    /// How many bytes of responses are written. Another process can't read a second tier that only
    /// one can have before this one has closed it, so it gets the responses in any case.
    fn bytes_of_responses(&self, warm: &WarmConfig, occasion: WarmFileOccasion) -> Option<u64> {
        let has_own_tier = || {
            let tier = self.cache.second_tier();
            tier.is_some_and(|tier| !tier.is_shared())
        };
        match (occasion, warm.snapshot) {
            (WarmFileOccasion::WhileItRuns, _) => None,
            (_, Some(most)) => Some(most.0),
            (WarmFileOccasion::HandOver(_), None) if has_own_tier() => Some(MOST_HANDED),
            (_, None) => None,
        }
    }

    fn tell(
        &self,
        file: &Path,
        end: Option<Instant>,
        written: Result<WarmFileSize, WarmWriteError>,
    ) {
        let file = file.display();
        match written {
            Ok(size) => {
                self.metrics.wrote("written");
                let WarmFileSize {
                    keys,
                    records,
                    bytes,
                } = size;
                match end {
                    Some(_) => tracing::info!(
                        %file, keys, records, bytes, "what the next start begins with was written"
                    ),
                    None => tracing::debug!(%file, keys, bytes, "the hottest keys were written"),
                }
            }
            Err(WarmWriteError::TakenOver) => {
                self.metrics.wrote("taken-over");
                tracing::info!(%file, "cache.warm.file belongs to a later process by now");
            }
            Err(error) => {
                self.metrics.wrote("failed");
                let why = match &error {
                    WarmWriteError::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                        "the disk is full"
                    }
                    _ => "it can't be written",
                };
                tracing::warn!(
                    %file,
                    %error,
                    why,
                    "cache.warm.file was not written; the next start begins with what it held \
                     before"
                );
            }
        }
    }

    /// How records of the file are written and read.
    fn codec(&self) -> RecordOptions {
        RecordOptions {
            compression: None,
            limits: RecordLimits::for_objects(self.cache.rules().max_object_bytes),
            seal: self.seal.clone(),
        }
    }
}

/// When the file is written.
#[derive(Clone, Copy)]
enum WarmFileOccasion {
    WhileItRuns,
    /// Another process takes over. It is to be written by then.
    HandOver(Instant),
    /// This process ends.
    End(Instant),
}

impl WarmFileOccasion {
    /// The last moment, if this is the last time.
    fn end(self) -> Option<Instant> {
        match self {
            Self::WhileItRuns => None,
            Self::HandOver(end) | Self::End(end) => Some(end),
        }
    }
}

/// Waits so long; for ever if nothing is wanted.
async fn pause(every: Option<Duration>) {
    match every {
        Some(every) => sleep(every).await,
        None => std::future::pending().await,
    }
}

/// Loads a key on a thread that serves requests, since the connections to origins are there.
async fn load_on(thread: Option<&WorkerThread>, proxy: Arc<Proxy>, key: HotKey) -> WarmOutcome {
    let Some(thread) = thread else {
        return WarmOutcome::Failed;
    };
    let (done, loaded) = oneshot::channel();
    thread.run(async move {
        let outcome = proxy.load_hot(&key.key).await;
        // The time may be over, so that nobody waits any more.
        let _ = done.send(outcome);
    });
    loaded.await.unwrap_or(WarmOutcome::Failed)
}
