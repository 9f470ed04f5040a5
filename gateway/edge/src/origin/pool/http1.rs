//! One HTTP/1.1 connection.
//!
//! Decision: a connection is worked on by the task whose request it serves, and not by a task of
//! its own: each piece would otherwise wake two tasks. While it is idle nobody works on it.
//! It gets a task of its own where its work must not wait for the reader of the response: while
//! the request's body is still being sent, and after a switch of protocols.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::select;

use super::body::OriginBody;
use super::endings::ConnectionOrigin;
use super::idle::IdleConnections;
use super::{RequestProgress, SendFailure};
use crate::http::body::Body;
use crate::origin::error::SendError;
use crate::origin::response::{self, OriginInterimCounter};
use crate::origin::stream::{OriginStream, StreamTraffic};

/// The most header fields of a response.
const MAX_HEADERS: usize = 256;
/// The most bytes of a response's head, and of a body that is read ahead of a slow reader.
const BUFFER: usize = 64 << 10;

/// A connection, which serves one request at a time.
pub(super) struct Http1Connection {
    sender: SendRequest<Body>,
    driver: Http1Driver,
    traffic: Arc<StreamTraffic>,
    origin: ConnectionOrigin,
    lane: usize,
    /// How long it was idle before the present request. None: this is its first.
    waited: Option<Duration>,
}

/// Who does the work of a connection.
enum Http1Driver {
    /// Whoever sends the request and reads its response.
    Exchange(Box<Connection<TokioIo<OriginStream>, Body>>),
    /// A task of its own.
    Task,
    /// The connection has ended.
    Ended,
}

impl Http1Connection {
    /// Begins to speak HTTP/1.1 on a new stream.
    pub(super) async fn begin(stream: OriginStream, lane: usize) -> Result<Self, SendFailure> {
        let traffic = stream.traffic();
        let origin = ConnectionOrigin::new(stream.peer(), Instant::now());
        let mut builder = Builder::new();
        builder
            // These spaces are removed from the name (RFC 9112 §5.1).
            .allow_spaces_after_header_name_in_responses(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(BUFFER);
        let begun = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = begun.map_err(|error| SendFailure {
            error: SendError::Http1(error),
            progress: RequestProgress::NotConnected,
        })?;
        Ok(Self {
            sender,
            driver: Http1Driver::Exchange(Box::new(connection)),
            traffic,
            origin,
            lane,
            waited: None,
        })
    }

    pub(super) fn lane(&self) -> usize {
        self.lane
    }

    pub(super) fn origin(&self) -> ConnectionOrigin {
        self.origin
    }

    /// Notes that it was idle for this long.
    pub(super) fn waited(&mut self, idle: Duration) {
        self.waited = Some(idle);
    }

    /// Whether it stands and takes a request. Whoever worked on it before is not woken any more.
    pub(super) fn is_idle(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its response. The body gives the connection to
    /// `idle` when it ends.
    pub(super) async fn send(
        mut self,
        mut request: Request<Body>,
        idle: &Arc<IdleConnections>,
    ) -> Result<Response<OriginBody>, SendFailure> {
        *request.version_mut() = Version::HTTP_11;
        let upgrading = request.headers().contains_key(UPGRADE);
        if upgrading {
            self.work_in_a_task();
        }
        if !request.body().is_empty() && !request.headers().contains_key(CONTENT_LENGTH) {
            // Without this, hyper would send a GET without its body.
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        let before = self.traffic.mark();
        let interim = OriginInterimCounter::count(&mut request);
        let sent = select! {
            biased;
            sent = self.exchange(request) => sent,
            // Dropping the connection closes it.
            flood = interim.too_many() => return Err(SendFailure {
                error: flood,
                progress: RequestProgress::Unknown,
            }),
        };
        let mut response = match sent {
            Ok(response) => response,
            Err(failed) => {
                let progress = match (&failed, self.waited) {
                    // An origin that ends a connection as soon as it is open may do so with each.
                    (failed, None) if failed.message().is_some() => RequestProgress::Refused,
                    (failed, Some(_)) if failed.message().is_some() => {
                        RequestProgress::NotProcessed
                    }
                    (_, Some(waited)) if !self.traffic.has_read_since(before) => {
                        idle.learn(waited);
                        match self.traffic.has_written_since(before) {
                            true => RequestProgress::ClosedWhileIdle,
                            false => RequestProgress::NotProcessed,
                        }
                    }
                    _ => RequestProgress::Unknown,
                };
                let error = match progress {
                    RequestProgress::Refused => SendError::EndedAtOnce(Some(failed.into_error())),
                    _ => SendError::Http1(failed.into_error()),
                };
                return Err(SendFailure { error, progress });
            }
        };
        response::check(&mut response, upgrading).map_err(|error| SendFailure {
            error,
            progress: RequestProgress::Unknown,
        })?;
        let kept_for = response::keep_alive_timeout(response.headers());
        Ok(response.map(|body| OriginBody::http1(body, self, Arc::clone(idle), kept_for)))
    }

    async fn exchange(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut response = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        poll_fn(|cx| {
            driver.drive(cx);
            response.as_mut().poll(cx)
        })
        .await
    }

    /// Does the work that there is. The connection's end is noticed by those who wait for its
    /// bytes.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        self.driver.drive(cx);
    }

    /// Gives the connection a task of its own.
    pub(super) fn work_in_a_task(&mut self) {
        let driver = std::mem::replace(&mut self.driver, Http1Driver::Task);
        if let Http1Driver::Exchange(connection) = driver {
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "an HTTP/1.1 connection to an origin failed");
                }
            });
        }
    }
}

impl Http1Driver {
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Self::Exchange(connection) = self
            && let Poll::Ready(outcome) = Pin::new(&mut **connection).poll(cx)
        {
            if let Err(error) = outcome {
                tracing::debug!(%error, "an HTTP/1.1 connection to an origin failed");
            }
            *self = Self::Ended;
        }
    }
}
