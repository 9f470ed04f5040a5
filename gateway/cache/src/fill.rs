//! A body that arrives once and is read by many clients, each at its own pace.
//!
//! While the object fits into `max_object_bytes`, everything that arrived is kept, because it
//! becomes the stored entry; late and slow readers find all of it. Once the object grows beyond
//! that limit, it can't be stored. Then chunks that every reader has passed are dropped, at most
//! the last `limit` bytes are kept, the load goes as fast as its fastest reader, and a reader that
//! falls behind the window is cut off. So a slow reader never slows the load or the other readers.
//!
//! When the body is whole, slow readers continue with the bytes of the entry, and the chunks that
//! arrived are dropped: nothing is held twice.
//!
//! While more memory is held than is allowed (`http::memory`), a load goes as fast as its fastest
//! reader from the start and keeps a smaller window, and a load that nobody reads is given up. Any
//! load that nobody reads is given up after a while, because it may never end.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use lamina_base::turn_clock;
use parking_lot::Mutex;

use crate::entry::PurgeAttributes;
use crate::freshness::Freshness;
use crate::http::body::{BodyError, KeptPieces, PiecePlace};
use crate::http::memory::stored::{SMALL_BODY, StoredBody, StoredReaders};
use crate::http::memory::{ConnectionMemory, PROCESS};
use crate::http::vary::Vary;
use crate::key::EntryKey;
use crate::purge::PurgeOrder;

/// A response whose body is arriving.
pub struct Fill {
    pub head: FillHead,
    /// The readers report here that they read, before and after the body is stored.
    pub readers: Arc<StoredReaders>,
    limit: usize,
    /// The memory of the connection for which the load was begun; None for a background load.
    memory: Option<Arc<ConnectionMemory>>,
    stream: Mutex<FillState>,
}

/// What is known of the response before its body arrives.
pub struct FillHead {
    /// The key that it will be stored under, its variant included.
    pub key: EntryKey,
    pub status: StatusCode,
    /// As in [`crate::entry::Entry`].
    pub headers: HeaderMap,
    /// Fields that are only for the client whose request caused the load (RFC 9111 §5.2.2.7).
    pub own: HeaderMap,
    /// The length that `Content-Length` announced.
    pub length: Option<u64>,
    pub freshness: Freshness,
    /// The place in the order of purges up to which the response knows them.
    pub knows: PurgeOrder,
    /// Includes the tags.
    pub marks: PurgeAttributes,
    /// The request fields that selected this variant.
    pub vary: Vary,
}

#[derive(Default)]
struct FillState {
    chunks: KeptPieces,
    /// The whole body, in place of the chunks, once it has arrived and is stored.
    whole: Option<Bytes>,
    /// Number of bytes before the first chunk that is still held.
    dropped: u64,
    /// Number of bytes that have arrived so far.
    arrived: u64,
    /// The position of the fastest reader.
    fastest: u64,
    /// The position of each reader, by the reader's number.
    positions: HashMap<u64, u64, foldhash::fast::RandomState>,
    /// Since when nobody reads; None while somebody does.
    unread_since: Option<Instant>,
    next_reader: u64,
    trailers: Option<HeaderMap>,
    end: Option<FillEnd>,
    waiting: Vec<Waker>,
    /// Incremented whenever the waiting readers are woken. It tells a reader whether it is still in
    /// the list.
    woken: u64,
    filler: Option<Waker>,
}

/// How a body ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FillEnd {
    Complete,
    /// The origin broke off, or no reader was left for a body that can't be stored.
    Failed,
}

/// How far a load that can't be stored may run ahead of its fastest reader.
const AHEAD: u64 = 256 << 10;

/// The same for any load while memory is short: the next chunk is read when the fastest reader has
/// received everything before it.
const AHEAD_WHEN_SHORT: u64 = 1;

/// The window of a load that can't be stored while memory is short.
const WINDOW_WHEN_SHORT: u64 = 512 << 10;

/// How much memory is left for bodies that are arriving.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FillMemoryLevel {
    Enough,
    /// The connection for which the load runs holds more than it may.
    Short,
    /// All connections together hold more than they may.
    ShortForAll,
}

impl Fill {
    /// `memory` belongs to the connection for which the load is begun.
    pub fn new(head: FillHead, limit: usize, memory: Option<Arc<ConnectionMemory>>) -> Arc<Self> {
        Arc::new(Self {
            head,
            readers: StoredReaders::before_stored(),
            limit,
            memory,
            stream: Mutex::new(FillState {
                unread_since: Some(turn_clock::now()),
                ..FillState::default()
            }),
        })
    }

    /// Adds a chunk that arrived and wakes the readers.
    pub fn push(&self, data: Bytes) {
        let memory = self.memory();
        let mut stream = self.stream.lock();
        stream.arrived += data.len() as u64;
        stream.chunks.push(data);
        if stream.arrived > self.limit as u64 {
            stream.trim(match memory {
                FillMemoryLevel::Enough => self.limit as u64,
                FillMemoryLevel::Short | FillMemoryLevel::ShortForAll => {
                    WINDOW_WHEN_SHORT.min(self.limit as u64)
                }
            });
        }
        stream.wake();
    }

    /// Waits until more may be pushed. False: the load is to be given up, because nobody reads it
    /// and it can't be stored or there is no memory for it.
    pub async fn room(&self) -> bool {
        std::future::poll_fn(|cx| {
            let memory = self.memory();
            let mut stream = self.stream.lock();
            let storable = stream.arrived <= self.limit as u64;
            let ahead = match memory {
                FillMemoryLevel::Enough if storable => return Poll::Ready(true),
                FillMemoryLevel::Enough => AHEAD,
                FillMemoryLevel::Short | FillMemoryLevel::ShortForAll => AHEAD_WHEN_SHORT,
            };
            if stream.positions.is_empty() {
                return Poll::Ready(storable && memory != FillMemoryLevel::ShortForAll);
            }
            if stream.arrived < stream.fastest + ahead {
                return Poll::Ready(true);
            }
            stream.filler = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until nobody reads and it can't be stored: nobody wants the rest.
    pub async fn unwanted(&self) {
        std::future::poll_fn(|cx| {
            let mut stream = self.stream.lock();
            if stream.arrived > self.limit as u64 && stream.positions.is_empty() {
                return Poll::Ready(());
            }
            stream.filler = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until nobody has read for the time `limit`.
    pub async fn unread_for(&self, limit: Duration) {
        loop {
            let since = self.stream.lock().unread_since;
            let due = since.unwrap_or_else(Instant::now).checked_add(limit);
            let Some(due) = due else {
                return std::future::pending().await;
            };
            if since.is_some() && due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due.into()).await;
        }
    }

    fn memory(&self) -> FillMemoryLevel {
        match &self.memory {
            _ if PROCESS.is_full() => FillMemoryLevel::ShortForAll,
            Some(connection) if connection.is_full() => FillMemoryLevel::Short,
            Some(_) | None => FillMemoryLevel::Enough,
        }
    }

    /// Ends the body. Some: the whole body, to be stored.
    pub fn complete(&self, trailers: Option<HeaderMap>) -> Option<StoredBody> {
        let short = {
            let stream = self.stream.lock();
            self.head
                .length
                .is_some_and(|promised| promised != stream.arrived)
        };
        if short {
            self.fail();
            return None;
        }
        let mut stream = self.stream.lock();
        stream.trailers = trailers;
        stream.end = Some(FillEnd::Complete);
        stream.wake();
        // Trailers are for those who read now. An entry has none, and nobody announced them
        // (`UncacheableReason::Trailers`).
        let kept = stream.arrived <= self.limit as u64;
        kept.then(|| {
            let (bytes, is_unread) = (stream.chunks.join(), stream.positions.is_empty());
            let body = match is_unread && bytes.len() <= SMALL_BODY {
                // Like that of an entry which nobody followed: a small body needs no list of its
                // readers.
                true => StoredBody::new(bytes),
                false => StoredBody::read_by(&self.readers, bytes),
            };
            stream.whole = Some(body.bytes());
            body
        })
    }

    /// Ends the body before its end: the connection of every reader breaks off as the origin's did.
    pub fn fail(&self) {
        let mut stream = self.stream.lock();
        stream.end.get_or_insert(FillEnd::Failed);
        stream.wake();
    }

    /// Whether it grew beyond what may be stored.
    pub fn outgrown(&self) -> bool {
        self.stream.lock().arrived > self.limit as u64
    }

    /// The whole body, if it has arrived, is stored and has no trailers.
    pub fn whole(&self) -> Option<Bytes> {
        let stream = self.stream.lock();
        let ends_with_it = stream.trailers.is_none();
        stream.whole.clone().filter(|_| ends_with_it)
    }

    /// A reader from the start of the body. None: the start has already been dropped.
    pub fn reader(self: &Arc<Self>) -> Option<FillReader> {
        let mut stream = self.stream.lock();
        if stream.chunks.has_lost_its_beginning() {
            return None;
        }
        let number = stream.next_reader;
        stream.next_reader += 1;
        stream.positions.insert(number, 0);
        stream.unread_since = None;
        drop(stream);
        Some(FillReader {
            fill: Arc::clone(self),
            number,
            place: PiecePlace::default(),
            position: 0,
            window: None,
            listed: None,
            trailers_sent: false,
        })
    }
}

impl FillState {
    /// Drops the oldest chunks that every reader has passed, and further chunks until at most
    /// `window` bytes are held, but none that the fastest reader still has to read.
    fn trim(&mut self, window: u64) {
        let slowest = self.positions.values().min().copied().unwrap_or_default();
        loop {
            let held = self.arrived - self.dropped;
            let until = if held > window { self.fastest } else { slowest };
            let passed = |length: usize| self.dropped + length as u64 <= until;
            let Some(length) = self.chunks.drop_first_if(passed) else {
                return;
            };
            self.dropped += length as u64;
        }
    }

    fn wake(&mut self) {
        self.woken += 1;
        self.waiting.drain(..).for_each(Waker::wake);
    }

    fn wake_filler(&mut self) {
        if let Some(waker) = self.filler.take() {
            waker.wake();
        }
    }
}

/// One client's view of a [`Fill`].
pub struct FillReader {
    fill: Arc<Fill>,
    number: u64,
    /// How far it has come among the chunks, and in bytes of the body.
    place: PiecePlace,
    position: u64,
    /// First and last byte that the client asked for.
    window: Option<(u64, u64)>,
    /// The value of `woken` when it entered the list of waiting readers, and its waker there.
    listed: Option<(u64, Waker)>,
    trailers_sent: bool,
}

impl FillReader {
    /// Restricts the reader to the bytes `first..=last`.
    pub fn window(mut self, first: u64, last: u64) -> Self {
        self.window = Some((first, last));
        self
    }

    /// The part of a chunk starting at `at` that is inside the window.
    fn clip(&self, at: u64, chunk: Bytes) -> Bytes {
        let Some((first, last)) = self.window else {
            return chunk;
        };
        let end = at + chunk.len() as u64;
        let (from, to) = (first.clamp(at, end) - at, (last + 1).clamp(at, end) - at);
        if from >= to {
            Bytes::new()
        } else {
            chunk.slice(from as usize..to as usize)
        }
    }

    fn past_window(&self) -> bool {
        self.window.is_some_and(|(_, last)| self.position > last)
    }
}

impl HttpBody for FillReader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = self.get_mut();
        let fill = Arc::clone(&me.fill);
        loop {
            if me.past_window() {
                return Poll::Ready(None);
            }
            let mut stream = fill.stream.lock();
            if me.position < stream.dropped {
                return Poll::Ready(Some(Err(BodyError::Aborted)));
            }
            let chunk = match &stream.whole {
                Some(whole) => Some(whole.slice(me.position as usize..)).filter(|b| !b.is_empty()),
                None => stream.chunks.next(&mut me.place),
            };
            if let Some(chunk) = chunk {
                let at = me.position;
                me.position += chunk.len() as u64;
                stream.positions.insert(me.number, me.position);
                if me.position > stream.fastest {
                    stream.fastest = me.position;
                    stream.wake_filler();
                }
                drop(stream);
                let part = me.clip(at, chunk);
                if part.is_empty() {
                    continue;
                }
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            return match stream.end {
                Some(FillEnd::Failed) => Poll::Ready(Some(Err(BodyError::Aborted))),
                Some(FillEnd::Complete) if me.trailers_sent || me.window.is_some() => {
                    Poll::Ready(None)
                }
                Some(FillEnd::Complete) => {
                    me.trailers_sent = true;
                    Poll::Ready(
                        stream
                            .trailers
                            .clone()
                            .map(|trailers| Ok(Frame::trailers(trailers))),
                    )
                }
                None => {
                    let listed = me.listed.as_ref().is_some_and(|(woken, waker)| {
                        *woken == stream.woken && waker.will_wake(cx.waker())
                    });
                    if !listed {
                        stream.waiting.push(cx.waker().clone());
                        me.listed = Some((stream.woken, cx.waker().clone()));
                    }
                    Poll::Pending
                }
            };
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (self.window, self.fill.head.length) {
            (Some((first, last)), _) => SizeHint::with_exact(
                (last + 1 - first).min(last + 1 - self.position.clamp(first, last + 1)),
            ),
            (None, Some(length)) => SizeHint::with_exact(length.saturating_sub(self.position)),
            (None, None) => SizeHint::default(),
        }
    }
}

impl Drop for FillReader {
    fn drop(&mut self) {
        let mut stream = self.fill.stream.lock();
        stream.positions.remove(&self.number);
        if stream.positions.is_empty() {
            stream.unread_since = Some(turn_clock::now());
        }
        // The load may be waiting for a reader that has just left.
        stream.wake_filler();
    }
}

#[cfg(test)]
mod tests;
