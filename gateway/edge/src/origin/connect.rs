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
use http::uri::Authority;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use tower_service::Service;

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

/// Connections that were opened to find out what a target speaks, and that speak HTTP/1.1.
#[derive(Clone, Default)]
pub(super) struct SpareConnections(Arc<Mutex<HashMap<Authority, Vec<OriginStream>>>>);

impl SpareConnections {
    pub(super) fn put(&self, target: &Authority, stream: OriginStream) {
        self.0
            .lock()
            .entry(target.clone())
            .or_default()
            .push(stream);
    }

    fn take(&self, target: &Authority) -> Option<OriginStream> {
        self.0.lock().get_mut(target)?.pop()
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
        let tls = target
            .authority()
            .and_then(|name| self.tls.get(name))
            .cloned();
        if let Some(spare) = target.authority().and_then(|name| self.spares.take(name)) {
            return std::future::ready(Ok(TokioIo::new(spare))).boxed();
        }
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
