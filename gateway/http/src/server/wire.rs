//! The transport of one connection: its bytes in and out, and how it is closed.
//!
//! Neighbours: `activity` holds what `watch` and `service` must know of it, `guard::framing`
//! sees every byte of HTTP/1 before hyper does. The transport returns the bytes again that were
//! read to find out the protocol, and holds the connection's place among `max_connections`, also
//! after an upgrade.
//!
//! Decision: a connection that ends in the middle of what the client sends is first closed for
//! writing and then read for a while (RFC 9112 §9.6): unread bytes would cause a reset, which
//! may destroy the refusal before a client that is still sending has read it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::HeaderValue;
use http::header::STRICT_TRANSPORT_SECURITY;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use super::activity::{ConnectionActivity, WireMode};
use super::stream::{ClientStream, CloseState};
use crate::config::Protocol;
use crate::fair;
use crate::guard::framing::{Framing, FramingVerdict};

/// A connection with its first bytes put back.
pub(super) struct ClientTransport {
    stream: ClientStream,
    /// Bytes that were read already and must be read again.
    first: Vec<u8>,
    /// `None` where the bytes are not HTTP/1 (any more).
    framing: Option<Framing>,
    activity: Arc<ConnectionActivity>,
    /// hyper had nothing to write at its last flush and has written nothing since. So what it
    /// writes next is the beginning of a head, and other heads may be sent before it.
    at_rest: bool,
    /// Interim heads that are being written.
    early: Vec<u8>,
    /// Whether the client was asked if it is still there.
    asked: bool,
    input: ClientInputState,
    /// Bytes that may still be read after our side was closed.
    linger: usize,
    /// The value of `Strict-Transport-Security`, for answers that do not come from the service.
    hsts: Option<HeaderValue>,
    _place: OwnedSemaphorePermit,
}

/// How far the client's side has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientInputState {
    Open,
    /// A body broke off: the bytes that follow are not read as HTTP.
    Cut,
    Ended,
}

/// Head and body up to this size are written as one piece: copying so few bytes is cheaper than
/// what the kernel does for a list of pieces.
const GATHERED: usize = 4 << 10;

/// Unwanted bytes that a client may still send before it is reset.
const LINGER: usize = 4 << 20;

/// What is sent to ask a client whether it is still there.
const STILL_THERE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The answer to a head that took too long (RFC 9110 §15.5.9). hyper cannot give it.
pub(super) const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What a refusal begins with.
const REFUSAL: &[u8] = b"HTTP/1.1 4";

impl ClientTransport {
    pub(super) fn new(
        stream: ClientStream,
        first: Vec<u8>,
        activity: Arc<ConnectionActivity>,
        hsts: Option<HeaderValue>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        activity.queue.opens(&stream);
        Self {
            stream,
            first,
            framing: (activity.protocol == Protocol::Http1).then(Framing::default),
            activity,
            at_rest: true,
            early: Vec::new(),
            asked: false,
            input: ClientInputState::Open,
            linger: LINGER,
            hsts,
            _place: place,
        }
    }

    /// Sends interim heads where they are allowed. `flushing`: hyper has nothing to write.
    fn send_early(&mut self, cx: &mut Context<'_>, flushing: bool) -> Poll<io::Result<()>> {
        self.at_rest |= flushing;
        let early = &self.activity.early;
        if early.is_filled() {
            // Answered: what waits may be sent directly before the answer's head and nowhere later.
            let answered = !early.is_open();
            if self.at_rest && !(flushing && answered) {
                self.early.append(&mut early.take());
            } else if answered {
                drop(early.take());
            }
        }
        while !self.early.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.early);
            match ready!(self.wrote(written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => drop(self.early.drain(..count)),
            }
        }
        self.at_rest = flushing;
        Poll::Ready(Ok(()))
    }

    /// A refusal with `Strict-Transport-Security` in it. None if these bytes are something else, or
    /// it is not sent: hyper answers by itself to what it can't read, and where it has nothing else
    /// to write, what it writes is the beginning of a head.
    fn refusal_with_hsts(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let hsts = self.hsts.as_ref().filter(|_| self.at_rest)?;
        if !bytes.starts_with(REFUSAL) {
            return None;
        }
        let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
        let name = STRICT_TRANSPORT_SECURITY.as_str();
        let is_field = |line: &[u8]| {
            line.get(..name.len())
                .is_some_and(|begins| begins.eq_ignore_ascii_case(name.as_bytes()))
        };
        if bytes[..head].split(|byte| *byte == b'\n').any(is_field) {
            return None;
        }
        let field = [b"\r\n", name.as_bytes(), b": ", hsts.as_bytes()].concat();
        Some([&bytes[..head], &field, &bytes[head..]].concat())
    }

    /// Notes what was written.
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.wrote(written, self.stream.taken_by_kernel())
    }

    /// Looks whether the client is still there. A client that has sent everything may have closed
    /// its side and wait (RFC 9112 §9.6). That looks the same as a client that is gone, until
    /// something is written: every client takes and ignores an interim answer, and the kernel of
    /// one that is gone resets the connection.
    ///
    /// # Errors
    /// When it is gone.
    fn look(&mut self) -> io::Result<()> {
        match self.stream.closed() {
            CloseState::Wholly => Err(io::ErrorKind::ConnectionReset.into()),
            CloseState::ByClient if !self.asked && self.activity.early.is_open() => {
                self.asked = true;
                self.early.extend_from_slice(STILL_THERE);
                Ok(())
            }
            CloseState::ByClient | CloseState::Not => Ok(()),
        }
    }

    /// Reads the bytes that were put back, or from the socket.
    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let count = into.remaining().min(self.first.len());
        into.put_slice(&self.first[..count]);
        self.first.drain(..count);
        Poll::Ready(Ok(()))
    }

    /// Shows the bytes from `before` on to the guard, and takes back those that it withholds.
    fn guard(&mut self, before: usize, into: &mut ReadBuf<'_>) -> io::Result<()> {
        let Some(framing) = &mut self.framing else {
            return Ok(());
        };
        let verdict = framing.feed(&into.filled()[before..]);
        self.activity.reads_head(framing.is_in_head());
        if let Some((message, fault)) = framing.fault() {
            self.activity.found(message, fault);
        }
        match verdict {
            FramingVerdict::Pass => {}
            FramingVerdict::Hold(shown) => {
                let rest = &into.filled()[before + shown..];
                self.first.splice(..0, rest.iter().copied());
                into.set_filled(before + shown);
            }
            FramingVerdict::Cut(shown) => {
                self.input = ClientInputState::Cut;
                into.set_filled(before + shown);
                if shown == 0 {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        Ok(())
    }

    /// Whether the client may be in the middle of a message that must be read to its end.
    fn lingers(&self) -> bool {
        let between = self.framing.as_ref().is_none_or(Framing::is_between);
        self.input != ClientInputState::Ended && self.linger > 0 && !between
    }

    /// Reads and discards, until the client closes or has sent too much.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [MaybeUninit::uninit(); GATHERED];
        while self.lingers() {
            let mut waste = ReadBuf::uninit(&mut waste);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut waste));
            match (read, waste.filled().len()) {
                (Ok(()), count @ 1..) => self.linger = self.linger.saturating_sub(count),
                _ => self.input = ClientInputState::Ended,
            }
        }
        Poll::Ready(())
    }
}

impl Drop for ClientTransport {
    fn drop(&mut self) {
        self.activity.queue.closes();
    }
}

impl AsyncRead for ClientTransport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.activity.mode() {
            WireMode::Plain => {}
            WireMode::Tunnel => this.framing = None,
            WireMode::Expired => {
                // If the kernel takes nothing, the connection ends without this answer.
                let answer = this.refusal_with_hsts(TOO_SLOW);
                let answer = answer.as_deref().unwrap_or(TOO_SLOW);
                this.stream.write_at_once(cx, answer);
                // hyper does not close a connection in order that ends in the middle of a head.
                let _ = Pin::new(&mut this.stream).poll_shutdown(cx);
                return Poll::Ready(Ok(()));
            }
            WireMode::Over => {
                // As if the client had closed: hyper closes in order then, and over TLS the client
                // is told so (RFC 8446 §6.1).
                this.input = ClientInputState::Ended;
                return Poll::Ready(Ok(()));
            }
        }
        if this.input == ClientInputState::Cut {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = into.filled().len();
        ready!(this.poll_source(cx, into))?;
        let count = into.filled().len() - before;
        if count == 0 {
            this.input = ClientInputState::Ended;
            return Poll::Ready(Ok(()));
        }
        fair::charge(cx, count);
        Poll::Ready(this.guard(before, into))
    }
}

impl AsyncWrite for ClientTransport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(refusal) = self.refusal_with_hsts(bytes) {
            self.early.extend(refusal);
            self.at_rest = false;
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.send_early(cx, false))?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [refusal] = pieces
            && let Some(refusal) = self.refusal_with_hsts(refusal)
        {
            self.early.extend(refusal);
            self.at_rest = false;
            return Poll::Ready(Ok(pieces[0].len()));
        }
        ready!(self.send_early(cx, false))?;
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if total > GATHERED {
            let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
            return self.wrote(written);
        }
        let mut gathered = [MaybeUninit::uninit(); GATHERED];
        let mut gathered = ReadBuf::uninit(&mut gathered);
        pieces.iter().for_each(|piece| gathered.put_slice(piece));
        let written = Pin::new(&mut self.stream).poll_write(cx, gathered.filled());
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.takes_look() {
            self.look()?;
        }
        ready!(self.send_early(cx, true))?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let Some(taken) = self.stream.taken_by_kernel() {
            self.activity.flushed(&flushed, taken);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.activity.is_closing() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.lingers() {
                return Poll::Ready(Ok(()));
            }
            this.activity.close();
        }
        this.poll_linger(cx).map(Ok)
    }
}
