//! HTTP/2 to an upstream: one connection for each target, shared by the requests of a lane.
//!
//! Decision: this does not use the pooled client, which connects to whatever `:authority` names:
//! with `host_header: preserve` the client chooses that name, and each name would get its own
//! connection. Two requests may connect at the same time; the second connection serves its own
//! request and then ends.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::Authority;
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::client::SendError;
use super::config::UpstreamConfig;
use super::connect::{OriginStream, SecuredOriginStream, TargetKey, open};
use super::target::OriginTarget;
use super::tls::SpokenProtocol;
use crate::http::body::Body;
use crate::http::frames::MeteredConnection;

/// A silent connection with open requests gets a PING at this interval.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections of one lane.
pub(super) struct OriginHttp2Pool {
    connect_timeout: Duration,
    senders: Mutex<HashMap<TargetKey, SendRequest<Body>>>,
}

impl OriginHttp2Pool {
    pub(super) fn new(upstream: &UpstreamConfig) -> Self {
        Self {
            connect_timeout: upstream.timeouts.connect.0,
            senders: Mutex::default(),
        }
    }

    /// Sends a request. Sends it again on a new connection if the shared one turned out to be
    /// closed before the request was begun. A request to a target that turns out to speak HTTP/1.1
    /// alone comes back, with the connection.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        target: &OriginTarget,
    ) -> Result<Http2Outcome, SendError> {
        let open = self.senders.lock().get(&target.key()).cloned();
        if let Some(mut sender) = open.filter(|sender| !sender.is_closed()) {
            request = as_http2(request)?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Http2Outcome::Answered(response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::Http2(error.into_error())),
                },
            }
        }
        let opened = timeout(self.connect_timeout, open_any(target)).await;
        let opened = opened.map_err(|_| SendError::Connect(io::ErrorKind::TimedOut.into()))??;
        let mut sender = match opened {
            (stream, SpokenProtocol::Http2) => self.connect(target, stream).await?,
            (stream, _) => return Ok(Http2Outcome::SpeaksHttp1(Box::new((request, stream)))),
        };
        let request = as_http2(request)?;
        let response = sender.send_request(request).await;
        response
            .map(Http2Outcome::Answered)
            .map_err(SendError::Http2)
    }

    async fn connect(
        &self,
        target: &OriginTarget,
        stream: OriginStream,
    ) -> Result<SendRequest<Body>, SendError> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        let handshake = builder
            .handshake(TokioIo::new(MeteredConnection::origin(stream)))
            .await;
        let (sender, connection) = handshake.map_err(SendError::Http2)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/2 connection to an origin failed");
            }
        });
        let mut senders = self.senders.lock();
        let key = target.key();
        if senders.get(&key).is_none_or(SendRequest::is_closed) {
            senders.insert(key, sender.clone());
        }
        Ok(sender)
    }
}

/// What became of a request that was to go over HTTP/2.
pub(super) enum Http2Outcome {
    Answered(Response<Incoming>),
    /// The target speaks HTTP/1.1 alone: the request was not sent.
    SpeaksHttp1(Box<(Request<Body>, OriginStream)>),
}

/// Opens a connection, and finds out what is spoken on it.
async fn open_any(target: &OriginTarget) -> Result<(OriginStream, SpokenProtocol), SendError> {
    let tcp = open(target).await?;
    let Some(tls) = &target.tls else {
        return Ok((OriginStream::Clear(tcp), SpokenProtocol::Http2));
    };
    let (stream, spoken) = tls.connect_any(tcp).await.map_err(SendError::Tls)?;
    let secured = SecuredOriginStream {
        stream,
        tls: Arc::clone(tls),
    };
    Ok((OriginStream::Tls(Box::new(secured)), spoken))
}

/// The request in the form of HTTP/2.
fn as_http2(mut request: Request<Body>) -> Result<Request<Body>, SendError> {
    *request.version_mut() = Version::HTTP_2;
    name_authority(&mut request).map_err(SendError::Host)?;
    Ok(request)
}

/// HTTP/2 carries `Host` in `:authority`, and not twice (RFC 9113 §8.3.1).
fn name_authority(request: &mut Request<Body>) -> Result<(), http::Error> {
    let Some(host) = request.headers_mut().remove(HOST) else {
        return Ok(());
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = Some(Authority::try_from(host.as_bytes())?);
    *request.uri_mut() = Uri::from_parts(parts)?;
    Ok(())
}
