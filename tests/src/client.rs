//! A client of the gateway: HTTP/1.1 with kept-alive connections, or HTTP/2 by prior knowledge.
//!
//! [`Ask`] is one request, [`Answer`] a whole response, [`Streaming`] one whose
//! body the test reads piece by piece. Every head goes through [`crate::check`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;

use crate::check::{self, Context};
use crate::wait::{SOON, within};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request.
pub type Upload = BoxBody<Bytes, BoxError>;

/// Clones share their connections.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    pool: legacy::Client<HttpConnector, Upload>,
    version: Version,
    cache_status_due: bool,
    checked: bool,
}

/// A request that is being put together.
pub struct Ask {
    client: Client,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Upload,
}

/// A response, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
    /// When its head had come.
    pub at: Instant,
}

/// A response whose body is still to be read.
pub struct Streaming {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    body: Incoming,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub enum Failure {
    /// No head came: refused, reset, closed.
    NoAnswer(String),
    /// The body broke off after these bytes.
    Cut { status: StatusCode, so_far: Bytes },
}

/// Our member of `Cache-Status`, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    pub hit: bool,
    pub fwd: Option<String>,
    pub fwd_status: Option<u16>,
    pub stored: bool,
    pub collapsed: bool,
    pub ttl: Option<i64>,
    pub detail: Option<String>,
}

impl Client {
    /// HTTP/1.1, connections kept.
    pub fn http1(address: SocketAddr) -> Self {
        Self::build(address, Version::HTTP_11)
    }

    /// HTTP/2 by prior knowledge.
    pub fn http2(address: SocketAddr) -> Self {
        Self::build(address, Version::HTTP_2)
    }

    /// For routes without a cache: `Cache-Status` may be missing.
    pub fn uncached(mut self) -> Self {
        self.cache_status_due = false;
        self
    }

    /// For a server that is not ours: its answers are taken as they come.
    pub fn unchecked(mut self) -> Self {
        self.checked = false;
        self
    }

    /// The same, but with connections of its own.
    pub fn apart(&self) -> Self {
        Self {
            cache_status_due: self.cache_status_due,
            checked: self.checked,
            ..Self::build(self.address, self.version)
        }
    }

    pub fn ask(&self, method: Method, target: &str) -> Ask {
        Ask {
            client: self.clone(),
            method,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            body: full(Bytes::new()),
        }
    }

    pub fn request(&self, target: &str) -> Ask {
        self.ask(Method::GET, target)
    }

    /// GET, to its end.
    pub async fn get(&self, target: &str) -> Answer {
        self.request(target).send().await
    }

    pub async fn head(&self, target: &str) -> Answer {
        self.ask(Method::HEAD, target).send().await
    }

    pub async fn post(&self, target: &str, body: impl Into<Bytes>) -> Answer {
        self.ask(Method::POST, target).body(body).send().await
    }

    fn build(address: SocketAddr, version: Version) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool = legacy::Client::builder(TokioExecutor::new())
            .http2_only(version == Version::HTTP_2)
            // A repeated request would spoil the counts that tests make at the origin.
            .retry_canceled_requests(false)
            .build(connector);
        Self {
            address,
            pool,
            version,
            cache_status_due: true,
            checked: true,
        }
    }
}

impl Ask {
    /// Adds a field line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers
            .append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// Asks as if it had come for this host.
    pub fn host(self, host: &str) -> Self {
        self.header("host", host)
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = full(body.into());
        self
    }

    /// A body that the test sends in pieces; it ends when the sender is dropped.
    pub fn upload(mut self) -> (Self, mpsc::Sender<Bytes>) {
        let (send, receive) = mpsc::channel(1);
        self.body = UploadBody(receive).boxed();
        (self, send)
    }

    /// Sends it and reads the whole answer; panics when there is none.
    pub async fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.target);
        match self.try_send().await {
            Ok(answer) => answer,
            Err(failure) => panic!("{what}: {failure:?}"),
        }
    }

    /// Sends it and reads the whole answer.
    pub async fn try_send(self) -> Result<Answer, Failure> {
        let what = format!("{} {}", self.method, self.target);
        within(&what, SOON * 3, async {
            self.try_open().await?.into_answer().await
        })
        .await
    }

    /// Sends it and waits for the head alone.
    pub async fn open(self) -> Streaming {
        let what = format!("{} {}", self.method, self.target);
        match within(&what, SOON, self.try_open()).await {
            Ok(streaming) => streaming,
            Err(failure) => panic!("{what}: {failure:?}"),
        }
    }

    /// Sends it and waits for the head alone, as long as it takes.
    pub async fn try_open(self) -> Result<Streaming, Failure> {
        let Self {
            client,
            method,
            target,
            headers,
            body,
        } = self;
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("http://{}{target}", client.address))
            .version(client.version)
            .body(body)
            .unwrap();
        *request.headers_mut() = headers;
        let response = client
            .pool
            .request(request)
            .await
            .map_err(|error| Failure::NoAnswer(chain(&error)))?;
        if client.checked {
            check::response(&Context {
                method: &method,
                target: &target,
                status: response.status(),
                headers: response.headers(),
                cache_status_due: client.cache_status_due,
                tags_allowed: false,
                duplicates_allowed: false,
            });
        }
        let (head, body) = response.into_parts();
        Ok(Streaming {
            status: head.status,
            version: head.version,
            headers: head.headers,
            body,
        })
    }
}

impl Streaming {
    /// The next piece; `None` at the proper end; the error when it was cut.
    pub async fn piece(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            match within("the next piece of a body", SOON, self.body.frame()).await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Reads until it has at least `n` bytes, or the body ends or breaks off.
    pub async fn at_least(&mut self, n: usize) -> Bytes {
        let mut bytes = BytesMut::new();
        while bytes.len() < n {
            match self.piece().await {
                Some(Ok(piece)) => bytes.extend_from_slice(&piece),
                Some(Err(_)) | None => break,
            }
        }
        bytes.freeze()
    }

    /// Reads the rest.
    pub async fn into_answer(mut self) -> Result<Answer, Failure> {
        let at = Instant::now();
        let (mut bytes, mut trailers) = (BytesMut::new(), None);
        while let Some(frame) = self.body.frame().await {
            let Ok(frame) = frame else {
                return Err(Failure::Cut {
                    status: self.status,
                    so_far: bytes.freeze(),
                });
            };
            match frame.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Answer {
            status: self.status,
            version: self.version,
            headers: self.headers,
            body: bytes.freeze(),
            trailers,
            at,
        })
    }
}

impl Answer {
    /// A header's value as text; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap_or("(not text)"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("(not text)")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// What our cache says about it.
    pub fn cache(&self) -> CacheStatus {
        CacheStatus::of(&self.headers)
    }

    pub fn is_hit(&self) -> bool {
        self.cache().hit
    }

    /// `Age` in seconds.
    pub fn age(&self) -> Option<u64> {
        self.headers.get("age")?.to_str().ok()?.parse().ok()
    }
}

impl CacheStatus {
    /// Our member of `Cache-Status`; nothing set when there is none.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut status = Self::default();
        let Some(member) = check::ours(headers) else {
            return status;
        };
        for (name, value) in check::parameters(&member) {
            match name {
                "hit" => status.hit = true,
                "fwd" => status.fwd = Some(value.to_owned()),
                "fwd-status" => status.fwd_status = value.parse().ok(),
                "stored" => status.stored = true,
                "collapsed" => status.collapsed = true,
                "ttl" => status.ttl = value.parse().ok(),
                "detail" => status.detail = Some(value.trim_matches('"').to_owned()),
                _ => {}
            }
        }
        status
    }

    /// Whether it was forwarded for this reason.
    pub fn forwarded_as(&self, reason: &str) -> bool {
        self.fwd.as_deref() == Some(reason)
    }
}

/// Asks `n` times at once, each on a connection of its own, and waits for all.
pub async fn herd(client: &Client, n: usize, target: &str) -> Vec<Result<Answer, Failure>> {
    let target: Arc<str> = target.into();
    let asking: Vec<_> = (0..n)
        .map(|_| {
            let (client, target) = (client.clone(), target.clone());
            tokio::spawn(async move { client.request(&target).try_send().await })
        })
        .collect();
    let mut answers = Vec::with_capacity(n);
    for one in asking {
        answers.push(one.await.expect("a request's task ends without a panic"));
    }
    answers
}

fn full(bytes: Bytes) -> Upload {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

struct UploadBody(mpsc::Receiver<Bytes>);

impl http_body::Body for UploadBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, BoxError>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(hyper::body::Frame::data(piece))))
    }
}
