//! The body of a cache entry, and its readers: when the cache drops a body while somebody reads
//! it, its bytes no longer count as the cache's memory but as that of the answers.
//!
//! The cache owns a [`StoredBody`]; an answer takes plain slices of it, which cost a hit no more
//! than a reference count. Only an answer that may hold much for long, one with a large body, also
//! registers as a reader ([`StoredReaders::join`]), so that it can be cut.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::{ConnectionMemory, MemoryLedger, PROCESS};

/// Bodies up to this size are not tracked: an open stream costs as much by itself.
pub const SMALL_BODY: usize = 4 << 10;

/// An answer from a larger body always registers as a reader. One from a smaller body does so if
/// many of its kind can wait on one connection: see [`StoredBody::readers`].
const LARGE_BODY: usize = 64 << 10;

/// A body that the cache owns; a clone is one more owner of the same bytes.
#[derive(Default)]
pub struct StoredBody {
    bytes: Bytes,
    /// `None` for a small body.
    readers: Option<Arc<StoredReaders>>,
}

/// The readers of one stored body, and whether the cache still owns it.
pub struct StoredReaders {
    ledger: &'static MemoryLedger,
    /// The length of the body, once it is complete.
    bytes: AtomicU64,
    state: Mutex<BodyState>,
}

#[derive(Default)]
struct BodyState {
    /// Entries of the cache that have this body.
    owners: usize,
    place: BodyOwner,
    /// By the number of their registration.
    readers: HashMap<u64, Arc<AnswerCut>>,
    next_seat: u64,
    /// The body was evicted while it was read, so that each connection that reads it is charged
    /// once.
    charged: bool,
    /// When it was evicted.
    evicted_at: u64,
    /// Its readers were told to end, and the ledger counts its bytes as leaving.
    all_cut: bool,
}

/// Who owns the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum BodyOwner {
    /// The cache owns them and counts them.
    #[default]
    Cached,
    /// Only readers hold them.
    Evicted,
    /// They are freed.
    Gone,
}

/// Ends one answer from outside.
pub struct AnswerCut {
    connection: Arc<ConnectionMemory>,
    cut: AtomicBool,
    /// When the client last took something of the answer, or the answer began.
    moved: AtomicU64,
    waker: AtomicWaker,
}

/// When a reader of an evicted body last moved: the smaller, the sooner it is cut. Who has read
/// nothing since the body was evicted comes before all who have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LastReaderMove {
    since_evicted: bool,
    at: u64,
}

/// How many answers a connection may have at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswersAtOnce {
    /// One at a time.
    One,
    /// As many as there are streams.
    Many,
}

/// The registration of one answer as reader of a body; ends when it is dropped.
pub struct BodyReadGuard {
    readers: Arc<StoredReaders>,
    number: u64,
    answer: Arc<AnswerCut>,
}

/// The bodies that an answer reads. It is an extension of a response whose content may be held
/// for long, because a slow client takes it.
#[derive(Clone)]
pub enum ReadsStored {
    One(Arc<StoredReaders>),
    Several(Vec<Arc<StoredReaders>>),
}

/// The allocation that all slices of a body share.
struct BodyAllocation {
    bytes: Bytes,
    readers: Arc<StoredReaders>,
}

impl StoredBody {
    /// A body that one entry owns.
    pub fn new(bytes: Bytes) -> Self {
        Self::on(&PROCESS, bytes)
    }

    pub(super) fn on(ledger: &'static MemoryLedger, bytes: Bytes) -> Self {
        match bytes.len() <= SMALL_BODY {
            true => Self {
                bytes,
                readers: None,
            },
            false => Self::read_by(&StoredReaders::on(ledger), bytes),
        }
    }

    /// A body that one entry owns and that was read before it was complete. No other body may have
    /// the same `readers`.
    pub fn read_by(readers: &Arc<StoredReaders>, bytes: Bytes) -> Self {
        readers.bytes.store(bytes.len() as u64, Relaxed);
        readers.state.lock().owners += 1;
        let owned = BodyAllocation {
            bytes,
            readers: Arc::clone(readers),
        };
        Self {
            bytes: Bytes::from_owner(owned),
            readers: Some(Arc::clone(readers)),
        }
    }

    /// The bytes, for a reader.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Octets of the body for an answer. A few are copied, so that they do not hold all the others.
    pub fn octets(&self, range: std::ops::Range<usize>) -> Bytes {
        match range.len() <= SMALL_BODY && self.readers.is_some() {
            true => Bytes::copy_from_slice(&self.bytes[range]),
            false => self.bytes.slice(range),
        }
    }

    /// Where an answer must register as a reader. `None` for a body that is not large, on a
    /// connection that has one answer at a time: it holds no more than a connection costs anyway.
    pub fn readers(&self, answers: AnswersAtOnce) -> Option<&Arc<StoredReaders>> {
        let large = answers == AnswersAtOnce::Many || self.bytes.len() > LARGE_BODY;
        self.readers.as_ref().filter(|_| large)
    }

    /// Bytes that the body takes besides its content.
    pub fn overhead(&self) -> usize {
        /// The list of readers and the owner of the bytes, with their reference counts.
        const FOLLOWED: usize = size_of::<StoredReaders>() + size_of::<BodyAllocation>() + 48;
        self.readers.as_ref().map_or(0, |_| FOLLOWED)
    }
}

impl Clone for StoredBody {
    fn clone(&self) -> Self {
        if let Some(readers) = &self.readers {
            readers.state.lock().owners += 1;
        }
        Self {
            bytes: self.bytes.clone(),
            readers: self.readers.clone(),
        }
    }
}

impl Drop for StoredBody {
    fn drop(&mut self) {
        if let Some(readers) = self.readers.take() {
            // Dropped first, so that a body without readers is freed before it could count as
            // evicted.
            drop(std::mem::take(&mut self.bytes));
            readers.disown();
        }
    }
}

impl fmt::Debug for StoredBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The content may be large or private.
        f.debug_tuple("StoredBody")
            .field(&self.bytes.len())
            .finish()
    }
}

impl Deref for StoredBody {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl From<Bytes> for StoredBody {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

impl AsRef<[u8]> for BodyAllocation {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for BodyAllocation {
    fn drop(&mut self) {
        self.readers.freed();
    }
}

impl StoredReaders {
    /// The readers of a body that is still arriving.
    pub fn before_stored() -> Arc<Self> {
        Self::on(&PROCESS)
    }

    fn on(ledger: &'static MemoryLedger) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            bytes: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    /// The length of the body; 0 while it arrives.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Registers `answer` as a reader. If the body was evicted meanwhile, the answer's connection
    /// is charged at once.
    pub fn join(self: &Arc<Self>, answer: &Arc<AnswerCut>) -> BodyReadGuard {
        let mut state = self.state.lock();
        let first = !state.has_reader_of(&answer.connection);
        let number = state.next_seat;
        state.next_seat += 1;
        state.readers.insert(number, Arc::clone(answer));
        let charged = state.charged;
        let too_much = charged && first && answer.connection.add(self.bytes());
        drop(state);
        if too_much {
            answer.cut();
        }
        if charged {
            self.ledger.has_changed();
        }
        BodyReadGuard {
            readers: Arc::clone(self),
            number,
            answer: Arc::clone(answer),
        }
    }

    /// An entry is gone. After the last one the bytes belong to the readers, if there are any.
    fn disown(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.owners -= 1;
        if state.owners > 0 || state.place != BodyOwner::Cached {
            return;
        }
        state.place = BodyOwner::Evicted;
        state.charged = true;
        state.evicted_at = now();
        self.ledger.count(self.bytes());
        let to_cut = state.charge(self.bytes());
        let followed = !state.readers.is_empty() || self.bytes() > LARGE_BODY as u64;
        drop(state);
        to_cut.iter().for_each(|answer| answer.cut());
        match followed {
            true => self.ledger.note_evicted(self),
            false => self.ledger.relieve(),
        }
    }

    /// When one of the readers last moved; `None` if there is no reader to cut.
    pub(super) fn last_move(&self) -> Option<LastReaderMove> {
        let state = self.state.lock();
        if state.place != BodyOwner::Evicted || state.all_cut {
            return None;
        }
        let moves = state.readers.values().map(|answer| {
            let at = answer.moved.load(Relaxed);
            LastReaderMove {
                since_evicted: at > state.evicted_at,
                at,
            }
        });
        moves.max()
    }

    /// The last slice was dropped.
    fn freed(&self) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.place, BodyOwner::Gone);
        if before == BodyOwner::Evicted {
            self.ledger.give_back(self.bytes());
        }
        if state.all_cut {
            self.ledger.has_left(self.bytes());
        }
    }

    /// Cuts every answer that reads the body.
    pub(super) fn cut_all(&self) {
        let mut state = self.state.lock();
        if state.place != BodyOwner::Evicted || state.all_cut || state.readers.is_empty() {
            return;
        }
        state.all_cut = true;
        self.ledger.is_leaving(self.bytes());
        let answers: Vec<_> = state.readers.values().cloned().collect();
        drop(state);
        answers.iter().for_each(|answer| answer.cut());
    }
}

impl ReadsStored {
    /// The readers of each of these bodies.
    pub fn as_slice(&self) -> &[Arc<StoredReaders>] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }

    /// The length of the largest of these bodies.
    pub fn largest(&self) -> u64 {
        let bodies = self.as_slice().iter().map(|readers| readers.bytes());
        bodies.max().unwrap_or(0)
    }
}

impl BodyState {
    /// Charges each connection that reads the body once. Returns the answers of those that now hold
    /// too much.
    fn charge(&self, bytes: u64) -> Vec<Arc<AnswerCut>> {
        let mut full = HashMap::new();
        let answers = self.readers.values();
        let over = answers.filter(|answer| {
            let connection = &answer.connection;
            *full
                .entry(Arc::as_ptr(connection))
                .or_insert_with(|| connection.add(bytes))
        });
        over.cloned().collect()
    }

    fn has_reader_of(&self, connection: &Arc<ConnectionMemory>) -> bool {
        let mut answers = self.readers.values();
        answers.any(|answer| Arc::ptr_eq(&answer.connection, connection))
    }
}

impl AnswerCut {
    /// For an answer on this connection.
    pub fn new(connection: Arc<ConnectionMemory>) -> Self {
        Self {
            connection,
            cut: AtomicBool::new(false),
            moved: AtomicU64::new(now()),
            waker: AtomicWaker::new(),
        }
    }

    /// Notes that the client took something of the answer.
    pub fn moved(&self) {
        self.moved.store(now(), Relaxed);
    }

    /// Sets the task that ends the answer when it is cut.
    pub fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Whether the answer must end.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.waker.wake();
    }
}

/// The time, in microseconds since some moment.
fn now() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl Drop for BodyReadGuard {
    fn drop(&mut self) {
        let connection = &self.answer.connection;
        let mut state = self.readers.state.lock();
        state.readers.remove(&self.number);
        if state.charged && !state.has_reader_of(connection) {
            connection.give_back(self.readers.bytes());
        }
    }
}
