//! Bytes that answers hold beyond what the cache counts as its own: counted for the process
//! and for each connection, with a bound on both.
//!
//! Two kinds of bytes are counted. A piece that came from an origin or a plugin is counted
//! from its arrival until its last slice is dropped, wherever it is in between: in a fill, in a
//! queue of hyper or h2 ([`claim`]). The body of a cache entry is counted from the moment
//! when the cache drops it until its last reader is gone ([`stored`]). So a hit counts
//! nothing at all.
//!
//! Neighbours: `origin` and `proxy` claim what arrives, `cache` owns stored bodies, `server`
//! makes one [`ConnectionMemory`] for each connection and cuts answers, `proxy` refuses loads
//! while the process is full, `app` sets the bound and shows the gauge.
//!
//! Decision: one static ledger for the process, not an argument of everything that is built,
//! because the process has one memory. Tests make ledgers of their own.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::{IntGauge, Registry};
use tokio::sync::Notify;

pub mod release;
pub mod stored;

use stored::StoredReaders;

/// The ledger of this process.
pub static PROCESS: MemoryLedger = MemoryLedger::new();

/// How long [`MemoryLedger::stays_full`] waits, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// What is held at the moment, and how much may be.
pub struct MemoryLedger {
    held: AtomicU64,
    bound: AtomicU64,
    /// Bytes of evicted bodies whose readers have all been cut and that will be free soon.
    leaving: AtomicU64,
    /// Large bodies that the cache has dropped and that somebody still reads, the oldest first.
    evicted: Mutex<Vec<Weak<StoredReaders>>>,
    /// Counts what can make another answer one that may be cut.
    changes: AtomicU64,
    /// The value of `changes` when the last search for answers to cut had cut all that it found.
    exhausted: AtomicU64,
}

/// What the answers of one connection hold.
pub struct ConnectionMemory {
    ledger: &'static MemoryLedger,
    held: AtomicU64,
    bound: u64,
    /// Whether one of its answers may hold more than the bound.
    is_exceeded: AtomicBool,
    /// Wakes answers that wait for room.
    room: Notify,
}

/// The right of one answer to go on although its connection holds as much as it may. There is one
/// for each connection: an answer that must be held as a whole comes to its end, whatever its size.
pub struct BoundExemption(Arc<ConnectionMemory>);

/// Some bytes that are counted until this is dropped.
struct MemoryClaim {
    ledger: &'static MemoryLedger,
    connection: Option<Arc<ConnectionMemory>>,
    bytes: u64,
}

/// Bytes and the claim that counts them.
struct ClaimedBytes {
    bytes: Bytes,
    _claim: MemoryClaim,
}

impl MemoryLedger {
    /// An empty ledger without a bound.
    pub const fn new() -> Self {
        Self {
            held: AtomicU64::new(0),
            bound: AtomicU64::new(u64::MAX),
            leaving: AtomicU64::new(0),
            evicted: Mutex::new(Vec::new()),
            changes: AtomicU64::new(1),
            exhausted: AtomicU64::new(0),
        }
    }

    /// Sets how many bytes may be held.
    pub fn set_bound(&self, bytes: u64) {
        self.bound.store(bytes, Relaxed);
    }

    /// Bytes that are held.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Whether nothing should be started that would hold more memory.
    pub fn is_full(&self) -> bool {
        self.held() >= self.bound.load(Relaxed)
    }

    /// Whether nothing should be started that would hold more memory, not even after waiting for the
    /// memory of answers that were cut and are about to let it go.
    pub async fn stays_full(&self) -> bool {
        if !self.is_full() {
            return false;
        }
        let began = Instant::now();
        while self.is_full() {
            if self.leaving.load(Relaxed) == 0 || began.elapsed() > PATIENCE {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }

    /// Counts bytes. [`relieve`](Self::relieve) must be called after it.
    fn count(&self, bytes: u64) {
        self.held.fetch_add(bytes, Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Relaxed);
    }

    /// Notes that a large body, whose bytes are counted already, left the cache while somebody reads
    /// it.
    fn note_evicted(&self, readers: &Arc<StoredReaders>) {
        let mut evicted = self.evicted.lock();
        if evicted.len() == evicted.capacity() {
            evicted.retain(|readers| readers.strong_count() > 0);
        }
        evicted.push(Arc::downgrade(readers));
        drop(evicted);
        self.has_changed();
    }

    /// Notes that there may be an answer to cut that was not there before, and cuts it if necessary.
    fn has_changed(&self) {
        self.changes.fetch_add(1, Relaxed);
        self.relieve();
    }

    /// Cuts readers of evicted bodies until enough memory is about to become free.
    ///
    /// They end before the bound is reached, so that some of it is left for what arrives: whoever
    /// holds evicted bodies must not keep others from loading.
    fn relieve(&self) {
        let over = || {
            let kept = self.held().saturating_sub(self.leaving.load(Relaxed));
            kept > self.bound.load(Relaxed) / 4 * 3
        };
        let changes = self.changes.load(Relaxed);
        if !over() || self.exhausted.load(Relaxed) == changes {
            return;
        }
        for readers in self.by_stillness() {
            if !over() {
                return;
            }
            readers.cut_all();
        }
        if over() {
            self.exhausted.store(changes, Relaxed);
        }
    }

    /// The evicted bodies whose readers may be cut. Those come first whose readers have stood still
    /// for the longest time: who reads on costs little, and its body is soon free.
    fn by_stillness(&self) -> Vec<Arc<StoredReaders>> {
        let evicted: Vec<_> = {
            let mut evicted = self.evicted.lock();
            evicted.retain(|readers| readers.strong_count() > 0);
            evicted.iter().filter_map(Weak::upgrade).collect()
        };
        let ranked = evicted.into_iter().filter_map(|readers| {
            let last = readers.last_move()?;
            Some((last, readers))
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by_key(|(last, _)| *last);
        ranked.into_iter().map(|(_, readers)| readers).collect()
    }

    /// The readers of a body were cut, so that its bytes will soon be free.
    fn is_leaving(&self, bytes: u64) {
        self.leaving.fetch_add(bytes, Relaxed);
    }

    /// The bytes of a body whose readers were cut are free now.
    fn has_left(&self, bytes: u64) {
        self.leaving.fetch_sub(bytes, Relaxed);
    }
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl ConnectionMemory {
    /// For a connection whose answers may hold `bound` bytes.
    pub fn new(ledger: &'static MemoryLedger, bound: u64) -> Self {
        Self {
            ledger,
            held: AtomicU64::new(0),
            bound,
            is_exceeded: AtomicBool::new(false),
            room: Notify::new(),
        }
    }

    /// Bytes that its answers hold.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Whether its answers, or those of all connections together, should hold no more.
    pub fn is_full(&self) -> bool {
        self.held() >= self.bound || self.ledger.is_full()
    }

    /// Waits until the connection holds less than it may, or `exemption` says that this answer need
    /// not wait: it takes the exemption of the connection if no other answer has it.
    pub async fn room(self: &Arc<Self>, exemption: &OnceLock<BoundExemption>) {
        loop {
            let mut changed = pin!(self.room.notified());
            // Whatever changes from here on is noticed.
            changed.as_mut().enable();
            if self.held() < self.bound || exemption.get().is_some() {
                return;
            }
            if !self.is_exceeded.swap(true, Relaxed) {
                let _ = exemption.set(BoundExemption(Arc::clone(self)));
                // Other parts of the same answer may wait as well.
                self.room.notify_waiters();
                return;
            }
            changed.await;
        }
    }

    /// Adds bytes. Returns true when the connection now holds too much and these bytes are not all
    /// of it: one body that is larger than the bound may be read to its end.
    fn add(&self, bytes: u64) -> bool {
        let before = self.held.fetch_add(bytes, Relaxed);
        before > 0 && before + bytes > self.bound
    }

    fn give_back(&self, bytes: u64) {
        let before = self.held.fetch_sub(bytes, Relaxed);
        if before >= self.bound && before - bytes < self.bound {
            self.room.notify_waiters();
        }
    }
}

impl Drop for BoundExemption {
    fn drop(&mut self) {
        self.0.is_exceeded.store(false, Relaxed);
        self.0.room.notify_waiters();
    }
}

/// Counts bytes that have just arrived until their last slice is dropped: for the process, and for
/// the connection whose request caused them.
pub fn claim(
    bytes: Bytes,
    ledger: &'static MemoryLedger,
    connection: Option<&Arc<ConnectionMemory>>,
) -> Bytes {
    if bytes.is_empty() {
        return bytes;
    }
    let count = bytes.len() as u64;
    ledger.count(count);
    ledger.relieve();
    if let Some(connection) = connection {
        connection.add(count);
    }
    let claim = MemoryClaim {
        ledger,
        connection: connection.cloned(),
        bytes: count,
    };
    Bytes::from_owner(ClaimedBytes {
        bytes,
        _claim: claim,
    })
}

/// What the ledger of the process holds, as a metric.
pub struct HeldGauge(IntGauge);

impl HeldGauge {
    /// # Errors
    /// When one is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = IntGauge::new(
            "lamina_held_bytes",
            "Bytes that answers to clients hold in memory beyond what the cache counts as its own.",
        )?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self(gauge))
    }

    /// Updates the gauge. Must be called before the metrics are read.
    pub fn update(&self) {
        self.0.set(PROCESS.held().try_into().unwrap_or(i64::MAX));
    }
}

impl AsRef<[u8]> for ClaimedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for MemoryClaim {
    fn drop(&mut self) {
        self.ledger.give_back(self.bytes);
        if let Some(connection) = &self.connection {
            connection.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests;
