//! The byte stream to a target, in clear text or with TLS, with counts of what passed.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

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
    #[expect(dead_code, reason = "dropping it takes the connection from the count")]
    counted: Option<CountedConnection>,
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
        let before = into.filled().len();
        let read = self.transport.poll_read(cx, into);
        let count = into.filled().len() - before;
        if count > 0 {
            self.traffic.read.fetch_add(count as u64, Relaxed);
            fair::charge(cx, count);
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
        let written = self.transport.writer().poll_write(cx, bytes);
        self.count_written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.transport.writer().poll_write_vectored(cx, pieces);
        self.count_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.writer().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.writer().poll_shutdown(cx)
    }
}

impl OriginStream {
    fn count_written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            self.traffic.written.fetch_add(*count as u64, Relaxed);
        }
        written
    }
}
