//! The byte stream to a target, in clear text or with TLS, with counts of what passed.
//!
//! A target may answer before it has read the whole request, and close the connection (413, 401).
//! Writing fails then, perhaps before the answer was read that has come already. So where writing
//! fails, it is seen what the target has sent: if there is something, it is kept for who reads, and
//! what is written from then on goes nowhere.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::BytesMut;
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
    /// What was read when writing failed.
    ahead: BytesMut,
    writing: WritingState,
    #[expect(dead_code, reason = "dropping it takes the connection from the count")]
    counted: Option<CountedConnection>,
}

/// Whether the target takes what is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WritingState {
    Open,
    /// It takes nothing more, and has sent something that is still to be read.
    Discarding,
}

/// What the other side had sent when writing failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ReadAhead {
    Something,
    /// Nothing, and nothing more comes.
    Ended,
    /// It is not known yet.
    NotYet,
}

/// How much is read at most before somebody asks for it; the rest stays in the kernel.
const MOST_AHEAD: usize = 64 << 10;
/// How much is read ahead at once.
const PIECE: usize = 4 << 10;

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
            ahead: BytesMut::new(),
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
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(into.remaining());
            into.put_slice(&self.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let (before, room) = (into.filled().len(), into.remaining());
        let read = self.transport.poll_read(cx, into);
        let count = into.filled().len() - before;
        if count > 0 {
            self.traffic.read.fetch_add(count as u64, Relaxed);
            fair::charge(cx, count);
        } else if read.is_ready() && room > 0 {
            // The end, or an error: now writing fails as well.
            self.writing = WritingState::Open;
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
        if self.writing == WritingState::Discarding {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = self.transport.writer().poll_write(cx, bytes);
        self.has_written(cx, written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = pieces.iter().map(|piece| piece.len()).sum();
        if self.writing == WritingState::Discarding {
            return Poll::Ready(Ok(all));
        }
        let written = self.transport.writer().poll_write_vectored(cx, pieces);
        self.has_written(cx, written, all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing == WritingState::Discarding {
            return Poll::Ready(Ok(()));
        }
        let flushed = self.transport.writer().poll_flush(cx).map_ok(|()| 0);
        self.has_written(cx, flushed, 0).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.writer().poll_shutdown(cx)
    }
}

impl OriginStream {
    /// What comes of an attempt to write `all` bytes.
    fn has_written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        all: usize,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(count)) => {
                self.traffic.written.fetch_add(*count as u64, Relaxed);
                return written;
            }
            Poll::Ready(Err(error)) if takes_nothing(error) => {}
            _ => return written,
        }
        match self.read_ahead(cx) {
            ReadAhead::Ended => written,
            // The end has come, and tokio has not heard of it yet. Then it wakes this task.
            ReadAhead::NotYet => Poll::Pending,
            ReadAhead::Something => {
                self.writing = WritingState::Discarding;
                // Who writes also reads.
                cx.waker().wake_by_ref();
                Poll::Ready(Ok(all))
            }
        }
    }

    /// Reads what has come.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> ReadAhead {
        let mut piece = [0; PIECE];
        let mut seen = ReadAhead::Ended;
        while self.ahead.len() < MOST_AHEAD {
            let mut into = ReadBuf::new(&mut piece);
            let read = self.transport.poll_read(cx, &mut into);
            if into.filled().is_empty() {
                if read.is_pending() {
                    seen = ReadAhead::NotYet;
                }
                break;
            }
            let count = into.filled().len() as u64;
            self.traffic.read.fetch_add(count, Relaxed);
            self.ahead.extend_from_slice(into.filled());
        }
        match self.ahead.is_empty() {
            true => seen,
            false => ReadAhead::Something,
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
