//! The transport below HTTP: a TCP connection, one with TLS, or one over a Unix socket.
//!
//! Neighbours: `socket` accepts it, `handshake` begins TLS on it, `arrival` reads its first bytes,
//! `wire` the rest.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};

use tokio_rustls::server::TlsStream;

use super::handler::LocalEndpoint;
use super::handshake::TlsSocket;

/// The connection of a client.
pub(super) enum ClientStream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TlsSocket>>),
    Unix(UnixStream),
}

/// How far a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CloseState {
    Not,
    /// The client sends no more. It may still read.
    ByClient,
    /// The connection was reset.
    Wholly,
}

impl ClientStream {
    /// Writes what the connection takes at once. What it does not take is lost.
    pub(super) fn write_at_once(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        let _ = Pin::new(&mut *self).poll_write(cx, bytes);
        let _ = Pin::new(self).poll_flush(cx);
    }

    /// Bytes that the kernel took, where that is not what was written: TLS adds to it, and holds
    /// some back.
    pub(super) fn taken_by_kernel(&self) -> Option<u64> {
        match self {
            Self::Tls(stream) => Some(stream.get_ref().0.taken()),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// How far the connection is closed, according to the kernel's last events.
    pub(super) fn closed(&self) -> CloseState {
        let ready = |interest| match self {
            Self::Tcp(stream) => stream.ready(interest).now_or_never(),
            Self::Tls(stream) => stream.get_ref().0.tcp().ready(interest).now_or_never(),
            Self::Unix(stream) => stream.ready(interest).now_or_never(),
        };
        let is = |interest, closed: fn(Ready) -> bool| matches!(ready(interest), Some(Ok(ready)) if closed(ready));
        match () {
            () if is(Interest::WRITABLE, |ready| ready.is_write_closed()) => CloseState::Wholly,
            () if is(Interest::READABLE, |ready| ready.is_read_closed()) => CloseState::ByClient,
            () => CloseState::Not,
        }
    }

    /// Sends small answers at once, without Nagle's delay, which a Unix socket does not have.
    pub(super) fn send_at_once(&self) {
        if let Self::Tcp(stream) = self {
            // Fails only on a connection that is gone, which the next read will show.
            let _ = stream.set_nodelay(true);
        }
    }

    /// The local end that the client has connected to, on a listener at `listener`.
    pub(super) fn reached(&self, listener: SocketAddr) -> LocalEndpoint {
        match self {
            Self::Tcp(stream) => LocalEndpoint::Tcp(stream.local_addr().unwrap_or(listener)),
            Self::Tls(stream) => {
                let stream = stream.get_ref().0.tcp();
                LocalEndpoint::Tcp(stream.local_addr().unwrap_or(listener))
            }
            Self::Unix(stream) => LocalEndpoint::Unix {
                user: stream.peer_cred().ok().map(|process| process.uid()),
            },
        }
    }
}

impl AsRawFd for ClientStream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.get_ref().0.tcp().as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
