//! The byte stream to a target, in clear text or with TLS, with counts of what passed.
//!
//! A target may answer before it has read the whole request, and close the connection (413, 401).
//! Writing fails then, perhaps before the answer was read that has come already. So a target that
//! takes nothing more is no failure of the stream until what it has sent was read: what is written
//! meanwhile waits, and once something was read, it goes nowhere.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::pool::counts::CountedConnection;
use super::tls::OriginTls;
use crate::http::fair;

/// A connection to a target.
pub(super) struct OriginStream {
    transport: OriginTransport,
    traffic: Arc<StreamTraffic>,
    reading: ReadingState,
    writing: WritingState,
    #[expect(dead_code, reason = "dropping it takes the connection from the count")]
    counted: Option<CountedConnection>,
}

/// Whether the target may send more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ReadingState {
    Open,
    /// It has ended, or failed.
    Ended,
}

/// Whether the target takes what is written.
#[derive(Debug)]
enum WritingState {
    Open,
    /// It takes nothing more, and what it has sent before is still to be read. Who writes is woken
    /// then.
    Closed(Waker),
    /// It takes nothing more, and has sent something.
    Discarding,
}

/// What the bytes go over.
pub(super) enum OriginTransport {
    Clear(TcpStream),
    /// A Unix domain socket.
    Local(UnixStream),
    Tls(Box<SecuredOriginStream>),
}

/// A TLS connection to a target, which notes the alerts that the target sends.
pub(super) struct SecuredOriginStream {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) tls: Arc<OriginTls>,
}

/// How many bytes of HTTP have passed on a connection.
#[derive(Default, Debug)]
pub(super) struct StreamTraffic {
    read: AtomicU64,
    written: AtomicU64,
}

/// The traffic of a connection at one moment.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct TrafficMark {
    read: u64,
    written: u64,
}

impl StreamTraffic {
    /// What has passed until now.
    pub(super) fn mark(&self) -> TrafficMark {
        TrafficMark {
            read: self.read.load(Relaxed),
            written: self.written.load(Relaxed),
        }
    }

    /// Whether the origin has sent anything since then.
    pub(super) fn has_read_since(&self, then: TrafficMark) -> bool {
        self.read.load(Relaxed) > then.read
    }

    /// Whether anything was sent to the origin since then.
    pub(super) fn has_written_since(&self, then: TrafficMark) -> bool {
        self.written.load(Relaxed) > then.written
    }
}

impl OriginStream {
    pub(super) fn new(transport: OriginTransport) -> Self {
        Self {
            transport,
            traffic: Arc::default(),
            reading: ReadingState::Open,
            writing: WritingState::Open,
            counted: None,
        }
    }

    /// Counts it until it ends.
    pub(super) fn counted(self, counted: CountedConnection) -> Self {
        Self {
            counted: Some(counted),
            ..self
        }
    }

    /// The address of the other side, if it has one.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        let stream = match &self.transport {
            OriginTransport::Clear(stream) => stream,
            OriginTransport::Local(_) => return None,
            OriginTransport::Tls(secured) => secured.stream.get_ref().0,
        };
        stream.peer_addr().ok().map(|address| address.ip())
    }

    /// The counts of this connection.
    pub(super) fn traffic(&self) -> Arc<StreamTraffic> {
        Arc::clone(&self.traffic)
    }
}

impl OriginTransport {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Local(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(secured) => {
                let read = Pin::new(&mut secured.stream).poll_read(cx, into);
                if let Poll::Ready(Err(error)) = &read {
                    secured.tls.note_alert(error);
                }
                read
            }
        }
    }

    /// The stream to write to.
    fn writer(&mut self) -> Pin<&mut dyn AsyncWrite> {
        match self {
            Self::Clear(stream) => {
                let stream: Pin<&mut TcpStream> = Pin::new(stream);
                stream
            }
            Self::Local(stream) => {
                let stream: Pin<&mut UnixStream> = Pin::new(stream);
                stream
            }
            Self::Tls(secured) => {
                let stream: Pin<&mut TlsStream<TcpStream>> = Pin::new(&mut secured.stream);
                stream
            }
        }
    }
}

impl AsyncRead for OriginStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (into.filled().len(), into.remaining());
        let read = self.transport.poll_read(cx, into);
        let count = into.filled().len() - before;
        if count > 0 {
            self.traffic.read.fetch_add(count as u64, Relaxed);
            fair::charge(cx, count);
        }
        match &read {
            Poll::Pending => {}
            Poll::Ready(Ok(())) if count > 0 || room == 0 => self.has_read(ReadingState::Open),
            Poll::Ready(_) => self.has_read(ReadingState::Ended),
        }
        read
    }
}

impl AsyncWrite for OriginStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(discarded) = self.discard(cx, bytes.len()) {
            return discarded;
        }
        let written = self.transport.writer().poll_write(cx, bytes);
        self.has_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = pieces.iter().map(|piece| piece.len()).sum();
        if let Some(discarded) = self.discard(cx, all) {
            return discarded;
        }
        let written = self.transport.writer().poll_write_vectored(cx, pieces);
        self.has_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(discarded) = self.discard(cx, 0) {
            return discarded.map_ok(drop);
        }
        let flushed = self.transport.writer().poll_flush(cx).map_ok(|()| 0);
        self.has_written(cx, flushed).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.writer().poll_shutdown(cx)
    }
}

impl OriginStream {
    fn has_read(&mut self, state: ReadingState) {
        self.reading = state;
        if let WritingState::Closed(writer) = &self.writing {
            writer.wake_by_ref();
            self.writing = WritingState::Discarding;
        }
    }

    /// What comes of writing so many bytes to a target that takes none. `None` if it takes them, as far
    /// as is known, or if the stream has failed.
    fn discard(&mut self, cx: &Context<'_>, bytes: usize) -> Option<Poll<io::Result<usize>>> {
        match (&mut self.writing, self.reading) {
            (_, ReadingState::Ended) | (WritingState::Open, _) => None,
            (WritingState::Closed(writer), ReadingState::Open) => {
                writer.clone_from(cx.waker());
                Some(Poll::Pending)
            }
            (WritingState::Discarding, ReadingState::Open) => Some(Poll::Ready(Ok(bytes))),
        }
    }

    fn has_written(
        &mut self,
        cx: &Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(count)) => {
                self.traffic.written.fetch_add(*count as u64, Relaxed);
                written
            }
            Poll::Ready(Err(error))
                if takes_nothing(error) && self.reading == ReadingState::Open =>
            {
                self.writing = WritingState::Closed(cx.waker().clone());
                Poll::Pending
            }
            _ => written,
        }
    }
}

/// Whether the other side has closed the connection, so that the end can be read as well.
fn takes_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
