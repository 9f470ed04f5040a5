//! The transport of one connection, and what `watch` must know of it.
//!
//! The wire gives back the bytes that were read to tell the protocol, notes when a write
//! is blocked, and holds the connection's place among `max_connections`, also after an
//! upgrade. [`Activity`] is read by the connection's own task only, mostly; its fields
//! are atomics because HTTP/2 streams are tasks of their own.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::Protocol;
use super::early::Waiting;
use crate::http::fair;

/// A TCP stream with its first bytes put back.
pub(super) struct Wire {
    stream: TcpStream,
    /// Bytes that were read already and are to be read again.
    first: Vec<u8>,
    activity: Arc<Activity>,
    /// hyper had nothing to write at its last flush and has written nothing since, so that
    /// what it writes next is the beginning of a head: other heads may go before it.
    at_rest: bool,
    /// Interim heads on their way out.
    early: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

/// Head and body up to this size go out as one piece: a copy of so few bytes is cheaper
/// than what the kernel does for a list of pieces.
const GATHERED: usize = 4 << 10;

/// What happens on a connection, in counters; no clock is read here.
pub(super) struct Activity {
    pub(super) protocol: Protocol,
    /// Interim answers that wait for their moment.
    pub(super) early: Waiting,
    in_flight: AtomicU32,
    served: AtomicU64,
    /// HTTP/1: bytes of a head that is not whole yet.
    head_begun: AtomicBool,
    blocked: AtomicBool,
    /// HTTP/2: streams whose last piece was handed out and that ask for no more.
    parked: AtomicU32,
    /// Bytes went out or a stream took a piece.
    progress: AtomicU64,
}

/// What a connection is waiting for. An equal value means that nothing has moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The client's head.
    Head,
    /// The client's next request, after `served` of them.
    Idle { served: u64 },
    /// The handler.
    Serving,
    /// The client, which must take what we have for it.
    Stalled { progress: u64 },
}

/// A request under way, from its head to the end of its response.
pub(super) struct InFlight {
    activity: Arc<Activity>,
    parked: bool,
}

impl Wire {
    pub(super) fn new(
        stream: TcpStream,
        first: Vec<u8>,
        activity: Arc<Activity>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            stream,
            first,
            activity,
            at_rest: true,
            early: Vec::new(),
            _place: place,
        }
    }

    /// Sends interim heads where they may stand. `flushing`: hyper has nothing to write.
    fn send_early(&mut self, cx: &mut Context<'_>, flushing: bool) -> Poll<io::Result<()>> {
        self.at_rest |= flushing;
        let early = &self.activity.early;
        if early.is_filled() {
            // Answered: what waits may stand right before the answer's head and nowhere later.
            let answered = !early.is_open();
            if self.at_rest && !(flushing && answered) {
                self.early.append(&mut early.take());
            } else if answered {
                drop(early.take());
            }
        }
        while !self.early.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.early);
            match ready!(self.activity.wrote(written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => drop(self.early.drain(..count)),
            }
        }
        self.at_rest = flushing;
        Poll::Ready(Ok(()))
    }
}

impl Activity {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            early: Waiting::default(),
            in_flight: AtomicU32::new(0),
            served: AtomicU64::new(0),
            head_begun: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            parked: AtomicU32::new(0),
            progress: AtomicU64::new(0),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        let served = self.served.load(Relaxed);
        let idle = self.in_flight.load(Relaxed) == 0;
        if self.blocked.load(Relaxed) || self.parked.load(Relaxed) > 0 {
            return Phase::Stalled {
                progress: self.progress.load(Relaxed),
            };
        }
        match idle {
            false => Phase::Serving,
            true if served == 0 || self.head_begun.load(Relaxed) => Phase::Head,
            true => Phase::Idle { served },
        }
    }

    fn arrived(&self) {
        // Frames of HTTP/2 tell nothing of heads; PINGs must not look like one.
        if self.protocol == Protocol::Http1 && self.in_flight.load(Relaxed) == 0 {
            self.head_begun.store(true, Relaxed);
        }
    }

    fn wrote<T>(&self, written: Poll<T>) -> Poll<T> {
        self.blocked.store(written.is_pending(), Relaxed);
        if written.is_ready() {
            self.progress.fetch_add(1, Relaxed);
        }
        written
    }
}

impl InFlight {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.in_flight.fetch_add(1, Relaxed);
        activity.head_begun.store(false, Relaxed);
        Self {
            activity: Arc::clone(activity),
            parked: false,
        }
    }

    /// The final answer is here: nothing may go before it any more.
    pub(super) fn answered(&self) {
        self.activity.early.close();
    }

    /// The stream asks for a piece.
    pub(super) fn asked(&mut self) {
        if std::mem::take(&mut self.parked) {
            self.activity.parked.fetch_sub(1, Relaxed);
            self.activity.progress.fetch_add(1, Relaxed);
        }
    }

    /// A piece was handed to the stream. HTTP/1 shows a client that takes nothing by a
    /// blocked write; HTTP/2 only by asking for no more, its window being closed.
    pub(super) fn handed(&mut self) {
        if self.activity.protocol == Protocol::Http2 {
            self.parked = true;
            self.activity.parked.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.asked();
        self.activity.served.fetch_add(1, Relaxed);
        self.activity.in_flight.fetch_sub(1, Relaxed);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let count = into.remaining().min(self.first.len());
            into.put_slice(&self.first[..count]);
            self.first.drain(..count);
            self.activity.arrived();
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        let count = into.filled().len() - before;
        if count > 0 {
            self.activity.arrived();
        }
        fair::charge(cx, count);
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.send_early(cx, false))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.activity.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.send_early(cx, false))?;
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if total > GATHERED {
            let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
            return self.activity.wrote(written);
        }
        let mut gathered = [MaybeUninit::uninit(); GATHERED];
        let mut gathered = ReadBuf::uninit(&mut gathered);
        pieces.iter().for_each(|piece| gathered.put_slice(piece));
        let written = Pin::new(&mut self.stream).poll_write(cx, gathered.filled());
        self.activity.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_early(cx, true))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
