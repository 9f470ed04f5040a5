//! Opens connections to targets, in clear text or with TLS.
//!
//! Neighbours: `client` uses the connector for its pool of HTTP/1 connections, `http2` opens its
//! own; `tls` says how TLS is spoken.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Uri;
use http::uri::{Authority, Scheme};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::client::SendError;
use super::target::OriginTarget;
use super::tls::OriginTls;

/// A connection to a target.
pub(super) enum OriginStream {
    Clear(TcpStream),
    Tls(Box<SecuredOriginStream>),
}

/// A TLS connection to a target, which notes the alerts that the target sends.
pub(super) struct SecuredOriginStream {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) tls: Arc<OriginTls>,
}

/// TLS of the targets that have it.
pub(super) type TlsByTarget = Arc<HashMap<Authority, Arc<OriginTls>>>;

/// A target by its authority, and whether it has TLS: one host may be a target in both ways.
pub(super) type TargetKey = (bool, Authority);

/// Connections that were opened to find out what a target speaks, and that speak HTTP/1.1. Each
/// waits only as long as the request that it was opened for: one that is used later could have been
/// closed by its origin, and nobody would notice.
#[derive(Clone, Default)]
pub(super) struct SpareConnections(Arc<Mutex<SpareList>>);

#[derive(Default)]
struct SpareList {
    next: u64,
    waiting: Vec<(u64, Authority, OriginStream)>,
}

/// Closes a spare connection when it is dropped, unless somebody has taken it.
pub(super) struct SpareGuard {
    spares: SpareConnections,
    number: u64,
}

impl SpareConnections {
    pub(super) fn put(&self, target: &Authority, stream: OriginStream) -> SpareGuard {
        let mut list = self.0.lock();
        list.next += 1;
        let number = list.next;
        list.waiting.push((number, target.clone(), stream));
        SpareGuard {
            spares: self.clone(),
            number,
        }
    }

    fn take(&self, target: &Authority) -> Option<OriginStream> {
        let mut list = self.0.lock();
        let place = list.waiting.iter().position(|(_, of, _)| of == target)?;
        Some(list.waiting.swap_remove(place).2)
    }
}

impl Drop for SpareGuard {
    fn drop(&mut self) {
        let mut list = self.spares.0.lock();
        let number = self.number;
        list.waiting.retain(|(spare, ..)| *spare != number);
    }
}

/// Opens connections for HTTP/1.1.
#[derive(Clone)]
pub(super) struct OriginConnector {
    tcp: HttpConnector,
    tls: TlsByTarget,
    spares: SpareConnections,
    /// For TCP and TLS together.
    limit: Duration,
}

type ConnectError = Box<dyn std::error::Error + Send + Sync>;

impl OriginConnector {
    pub(super) fn new(tls: TlsByTarget, spares: SpareConnections, limit: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limit));
        tcp.enforce_http(false);
        Self {
            tcp,
            tls,
            spares,
            limit,
        }
    }
}

impl Service<Uri> for OriginConnector {
    type Response = TokioIo<OriginStream>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        // One host may be a target in clear text, too.
        let secured = (target.scheme() == Some(&Scheme::HTTPS)).then_some(());
        let secured = secured.and_then(|()| target.authority());
        if let Some(spare) = secured.and_then(|name| self.spares.take(name)) {
            return std::future::ready(Ok(TokioIo::new(spare))).boxed();
        }
        let tls = secured.and_then(|name| self.tls.get(name)).cloned();
        let deadline = Instant::now() + self.limit;
        let opening = self.tcp.call(target);
        async move {
            let tcp = opening.await?.into_inner();
            let Some(tls) = tls else {
                return Ok(TokioIo::new(OriginStream::Clear(tcp)));
            };
            let secured = timeout_at(deadline, tls.connect_http1(tcp)).await;
            let secured = secured.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            let secured = SecuredOriginStream {
                stream: secured,
                tls,
            };
            Ok(TokioIo::new(OriginStream::Tls(Box::new(secured))))
        }
        .boxed()
    }
}

/// Opens a connection without TLS.
pub(super) async fn open(target: &OriginTarget) -> Result<TcpStream, SendError> {
    let usual = if target.tls.is_some() { 443 } else { 80 };
    let port = target.authority.port_u16().unwrap_or(usual);
    let host = target.authority.host().trim_matches(['[', ']']);
    let addresses = lookup_host((host, port)).await.map_err(SendError::Dns)?;
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(SendError::Connect)?;
                return Ok(stream);
            }
            Err(error) => refused = error,
        }
    }
    Err(SendError::Connect(refused))
}

impl Connection for OriginStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for OriginStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(secured) => {
                let read = Pin::new(&mut secured.stream).poll_read(cx, into);
                if let Poll::Ready(Err(error)) = &read {
                    secured.tls.note_alert(error);
                }
                read
            }
        }
    }
}

impl AsyncWrite for OriginStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_spare_connection_lives_as_long_as_the_request_that_it_is_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = || async { OriginStream::Clear(TcpStream::connect(address).await.unwrap()) };
        let [one, other] = ["one:1", "other:1"].map(|name| name.parse::<Authority>().unwrap());
        let spares = SpareConnections::default();
        let first = spares.put(&one, open().await);
        let second = spares.put(&one, open().await);
        assert!(spares.take(&other).is_none(), "another target");
        assert!(spares.take(&one).is_some());
        drop((first, second));
        assert!(spares.take(&one).is_none(), "nobody waits for it any more");
    }
}
