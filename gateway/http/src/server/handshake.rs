//! The TLS handshake of a new connection.
//!
//! It has a deadline of its own, and over all workers only so many are under way: above that the
//! oldest one is cut, so that clients which stop in the middle keep nobody out. What is no TLS
//! gets an answer in clear text, and never reaches a route.
//!
//! Neighbours: `tls` decides on certificate and policy, `stream` carries the connection from
//! then on. Nothing else writes below the TLS connection.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::turns::HandshakeTurns;
use crate::config::Protocol;
use crate::tls::listeners::HandshakeOutcome;
use crate::tls::{TlsListener, TlsSession, fingerprint, obtained};

/// The first byte of a TLS connection: a record of the handshake (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// The alert `unrecognized_name` (RFC 6066 §3), as a record: fatal, 112.
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// The alert `decode_error` (RFC 8446 §6.2), as a record: fatal, 50.
const DECODE_ERROR: &[u8] = &[21, 3, 3, 0, 2, 2, 50];

/// The alert `handshake_failure` (RFC 8446 §6.2), as a record: fatal, 40.
const HANDSHAKE_FAILURE: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

/// The alert `no_application_protocol` (RFC 7301 §3.2) can't be sent after a handshake, so a
/// client that speaks none of our protocols there is closed.
const NO_COMMON_PROTOCOL: &str = "the listener does not speak HTTP/1.1";

/// The answer to HTTP on a port of HTTPS.
const HTTP_TO_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 54\r\nconnection: close\r\n\r\n400 this port speaks HTTPS, and the request was HTTP.\n";

/// The most bytes of a ClientHello that are kept for its fingerprint; rustls refuses larger ones.
const MOST_HELLO: usize = 80 << 10;

/// How long, and how many bytes, a refused client may still send, so that it can read why.
const LINGER: Duration = Duration::from_secs(2);
const MOST_LINGER: usize = 256 << 10;

/// A connection that TLS runs over. It counts what the kernel took.
pub(super) struct TlsSocket {
    stream: TcpStream,
    /// Bytes that were read already and must be read again.
    first: Vec<u8>,
    /// The bytes that were read so far, until the ClientHello is known.
    hello: Option<Vec<u8>>,
    taken: u64,
}

/// What a handshake led to.
pub(super) struct SecuredConnection {
    pub(super) stream: Box<TlsStream<TlsSocket>>,
    pub(super) session: Arc<TlsSession>,
}

/// Why there was no handshake.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the client spoke no TLS")]
    ClearText,
    #[error("no certificate for the name that the client asked for ({})", name.as_deref().unwrap_or("none"))]
    UnknownName { name: Option<String> },
    #[error("it was a challenge of ACME, which is answered")]
    Challenge,
    #[error("the handshake took too long")]
    Timeout,
    #[error("there were more handshakes than max_handshakes, and this was the oldest")]
    Crowded,
    #[error("{0}")]
    Failed(#[from] io::Error),
}

impl HandshakeError {
    fn outcome(&self) -> HandshakeOutcome {
        match self {
            Self::ClearText => HandshakeOutcome::ClearText,
            Self::UnknownName { .. } => HandshakeOutcome::UnknownName,
            Self::Challenge => HandshakeOutcome::Challenge,
            Self::Timeout => HandshakeOutcome::Timeout,
            Self::Crowded => HandshakeOutcome::Crowded,
            Self::Failed(_) => HandshakeOutcome::Failed,
        }
    }
}

/// TLS of a port: what handshakes are made by, and those that are under way.
pub(super) struct SecuredPort {
    pub(super) listener: Arc<TlsListener>,
    under_way: HandshakeQueue,
}

impl SecuredPort {
    pub(super) fn new(listener: Arc<TlsListener>) -> Self {
        let under_way = HandshakeQueue::new(listener.max_handshakes());
        Self {
            listener,
            under_way,
        }
    }

    /// Does the handshake of a connection of which `first` was read already.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        first: Vec<u8>,
        turns: &HandshakeTurns,
    ) -> Result<SecuredConnection, HandshakeError> {
        let place = self.under_way.enter();
        let limit = self.listener.handshake_timeout();
        let handshake = timeout(limit, handshake(&self.listener, stream, first, turns));
        let ended = select! {
            biased;
            ended = handshake => ended.unwrap_or(Err(HandshakeError::Timeout)),
            () = place.cut() => Err(HandshakeError::Crowded),
        };
        self.listener.listeners.ended(match &ended {
            Ok(secured) if secured.session.resumed => HandshakeOutcome::Resumed,
            Ok(_) => HandshakeOutcome::Full,
            Err(error) => error.outcome(),
        });
        ended
    }
}

async fn handshake(
    listener: &Arc<TlsListener>,
    stream: TcpStream,
    first: Vec<u8>,
    turns: &HandshakeTurns,
) -> Result<SecuredConnection, HandshakeError> {
    let mut socket = TlsSocket {
        stream,
        first,
        hello: Some(Vec::new()),
        taken: 0,
    };
    if socket.peek().await? != HANDSHAKE_RECORD && socket.is_http() {
        socket.refuse(HTTP_TO_HTTPS).await;
        return Err(HandshakeError::ClearText);
    }
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), socket);
    let mut start = match (&mut acceptor).await {
        Ok(start) => start,
        Err(error) => {
            // rustls has sent an alert, except for records that can't begin a handshake and for
            // messages that are too long.
            match acceptor.take_io() {
                Some(mut socket) if socket.taken() == 0 => socket.refuse(DECODE_ERROR).await,
                Some(mut socket) => socket.linger().await,
                None => {}
            }
            return Err(error.into());
        }
    };
    let hello = start.io.hello.take().unwrap_or_default();
    let challenge = obtained::challenge_config(&listener.listeners, &start.client_hello()).await;
    if let Some(config) = challenge {
        return Err(answer_challenge(start, config, turns).await);
    }
    listener.await_certificate(&start.client_hello()).await;
    let Some(choice) = listener.choose(&start.client_hello()) else {
        let name = start.client_hello().server_name().map(str::to_owned);
        start.io.refuse(UNRECOGNIZED_NAME).await;
        return Err(HandshakeError::UnknownName { name });
    };
    let ja4 = fingerprint::ja4_of_records(&hello);
    let mut stream = match secure(start, choice.config(), turns).await {
        Ok(stream) => stream,
        Err((error, mut socket)) => {
            match socket.taken() {
                // rustls sends no alert where the client can use none of our keys (TLS 1.2).
                0 => socket.refuse(HANDSHAKE_FAILURE).await,
                // The alert is sent, and the client may have sent a request by now.
                _ => socket.linger().await,
            }
            return Err(error.into());
        }
    };
    let (_, connection) = stream.get_ref();
    match TlsSession::new(connection, choice, listener, ja4) {
        Ok(session) => Ok(SecuredConnection {
            session: Arc::new(session),
            stream: Box::new(stream),
        }),
        Err(refusal) => {
            // rustls sends no alert of ours after a handshake, but it closes in order.
            let _ = stream.shutdown().await;
            stream.get_mut().0.linger().await;
            Err(io::Error::other(refusal).into())
        }
    }
}

/// Does what is left of a handshake once the ClientHello is known, which is nearly all of its work.
async fn secure(
    start: StartHandshake<TlsSocket>,
    config: Arc<ServerConfig>,
    turns: &HandshakeTurns,
) -> Result<TlsStream<TlsSocket>, (io::Error, TlsSocket)> {
    let begin = || start.into_stream(config).into_fallible();
    turns.each_step(begin).await
}

/// Does a handshake that is a challenge, and closes: no request may follow (RFC 8737 §3).
async fn answer_challenge(
    start: StartHandshake<TlsSocket>,
    config: Arc<ServerConfig>,
    turns: &HandshakeTurns,
) -> HandshakeError {
    match secure(start, config, turns).await {
        Ok(mut stream) => {
            // However that ends, the handshake was all that was asked for.
            let _ = stream.shutdown().await;
            HandshakeError::Challenge
        }
        Err((error, mut socket)) => {
            socket.linger().await;
            error.into()
        }
    }
}

/// The protocol that client and server have agreed on. A client that offers none speaks HTTP/1.1.
///
/// # Errors
/// If the listener speaks only others.
pub(super) fn agreed_protocol(
    stream: &TlsStream<TlsSocket>,
    spoken: &[Protocol],
) -> io::Result<Protocol> {
    let agreed = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    match spoken.contains(&agreed) {
        true => Ok(agreed),
        false => Err(io::Error::other(NO_COMMON_PROTOCOL)),
    }
}

impl TlsSocket {
    /// The bytes that the kernel took.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The connection below. Nobody may write to it but TLS.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.stream
    }

    /// The first byte, which is read again afterwards.
    async fn peek(&mut self) -> io::Result<u8> {
        while self.first.is_empty() {
            if self.stream.read_buf(&mut self.first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.first[0])
    }

    /// Whether what was read may be the beginning of an HTTP request: methods are capital letters.
    fn is_http(&self) -> bool {
        self.first.first().is_some_and(u8::is_ascii_uppercase)
    }

    /// Writes these bytes below TLS, of which there is none yet, and closes.
    async fn refuse(&mut self, answer: &[u8]) {
        if self.stream.write_all(answer).await.is_ok() {
            self.linger().await;
        }
    }

    /// Closes our side and reads on for a while: unread bytes would make a reset, which may
    /// destroy what was sent before the client has read it.
    async fn linger(&mut self) {
        let waste = async {
            self.stream.shutdown().await?;
            let mut waste = vec![0; 4 << 10];
            let mut left = MOST_LINGER;
            while left > 0 {
                match self.stream.read(&mut waste).await? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            io::Result::Ok(())
        };
        // However it ends, the connection is closed now.
        let _ = timeout(LINGER, waste).await;
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        if this.first.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
        } else {
            let count = into.remaining().min(this.first.len());
            into.put_slice(&this.first[..count]);
            this.first.drain(..count);
        }
        if let Some(hello) = &mut this.hello {
            let read = &into.filled()[before..];
            let room = MOST_HELLO.saturating_sub(hello.len());
            hello.extend_from_slice(&read[..read.len().min(room)]);
        }
        Poll::Ready(Ok(()))
    }
}

impl TlsSocket {
    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.taken += count as u64;
        }
        written
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.count(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
        this.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The handshakes of a port that are under way, oldest first.
struct HandshakeQueue {
    most: usize,
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    next: u64,
    open: BTreeMap<u64, Arc<Notify>>,
}

/// The place of one handshake, until it is dropped.
struct HandshakePlace<'a> {
    queue: &'a HandshakeQueue,
    number: u64,
    cut: Arc<Notify>,
}

impl HandshakeQueue {
    fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::default(),
        }
    }

    /// Takes a place. If there are too many, the oldest handshake is told to end.
    fn enter(&self) -> HandshakePlace<'_> {
        let cut = Arc::new(Notify::new());
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        while state.open.len() >= self.most {
            match state.open.pop_first() {
                Some((_, oldest)) => oldest.notify_one(),
                None => break,
            }
        }
        state.open.insert(number, Arc::clone(&cut));
        HandshakePlace {
            queue: self,
            number,
            cut,
        }
    }
}

impl HandshakePlace<'_> {
    /// Returns when the handshake must end.
    async fn cut(&self) {
        self.cut.notified().await;
    }
}

impl Drop for HandshakePlace<'_> {
    fn drop(&mut self) {
        self.queue.state.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_handshake_makes_room() {
        let queue = HandshakeQueue::new(2);
        let first = queue.enter();
        let second = queue.enter();
        drop(second);
        let third = queue.enter();
        assert!(first.cut().now_or_never().is_none());
        let fourth = queue.enter();
        assert!(first.cut().now_or_never().is_some());
        assert!(third.cut().now_or_never().is_none());
        drop((first, third, fourth));
        assert!(queue.state.lock().open.is_empty());
    }

    #[test]
    fn the_answer_in_clear_text_has_the_length_that_it_says() {
        let text = String::from_utf8(HTTP_TO_HTTPS.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }
}
