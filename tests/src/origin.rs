//! An origin in the test's own process, on a port of its own.
//!
//! Its behaviour is a closure from [`Asked`] to [`Reply`] that can be changed
//! while it runs; it speaks HTTP/1.1 and HTTP/2 (prior knowledge) and keeps a log
//! of every request. Decision: it lives in the test's runtime, and `stop` takes
//! its listener and all its connections away, as a killed process would.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::reply::{Content, Cut, Reply};
use crate::wait::{SOON, wait_for, wait_until};

/// An origin server.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What the origin saw of one request. `body` is there once the handler has read it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// Path and query, as they came.
    pub path: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    /// The `Host` field or HTTP/2's `:authority`.
    pub authority: String,
}

/// A request as the handler gets it.
pub struct Asked {
    pub seen: Seen,
    /// How many requests came before this one.
    pub number: usize,
    pub body: Incoming,
    shared: Arc<Shared>,
}

type Handler = Arc<dyn Fn(Asked) -> BoxFuture<'static, Reply> + Send + Sync>;

struct Shared {
    handler: Mutex<Handler>,
    log: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Origin {
    /// Starts an origin that answers with `handler`.
    pub async fn start<H, F>(handler: H) -> Self
    where
        H: Fn(Asked) -> F + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), handler).await
    }

    /// The same at this address.
    pub async fn start_at<H, F>(address: SocketAddr, handler: H) -> Self
    where
        H: Fn(Asked) -> F + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            handler: Mutex::new(boxed(handler)),
            log: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = Some(tokio::spawn(accept(listener, shared.clone())));
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Starts an origin whose every answer is what `page` makes; request bodies are read first.
    pub async fn pages(page: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let page = Arc::new(page);
        Self::start(move |asked| {
            let page = page.clone();
            async move {
                let seen = asked.read().await;
                page(&seen)
            }
        })
        .await
    }

    /// From now on it answers with `handler`.
    pub fn behave<H, F>(&self, handler: H)
    where
        H: Fn(Asked) -> F + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        *self.shared.handler.lock().unwrap() = boxed(handler);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How many requests it saw.
    pub fn count(&self) -> usize {
        self.shared.log.lock().unwrap().len()
    }

    /// How many of them had this path and query.
    pub fn count_of(&self, path: &str) -> usize {
        self.shared
            .log
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| seen.path == path)
            .count()
    }

    /// Forgets what it saw: for runs that ask it a million times.
    pub fn forget(&self) {
        self.shared.log.lock().unwrap().clear();
    }

    /// The last request.
    pub fn last(&self) -> Seen {
        self.shared
            .log
            .lock()
            .unwrap()
            .last()
            .cloned()
            .expect("the origin saw a request")
    }

    /// How many connections were opened to it.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections to it are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many handlers ran at the same time at most.
    pub fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::SeqCst)
    }

    /// Waits until it has seen `n` requests.
    pub async fn saw(&self, n: usize) {
        let what = format!("the origin saw {n} requests (it saw {})", self.count());
        wait_until(&what, SOON, || self.count() >= n).await;
    }

    /// Closes the listener and cuts every connection.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// Listens again on the same port.
    pub async fn start_again(&mut self) {
        assert!(self.accepting.is_none(), "the origin was not stopped");
        let address = self.address;
        let listener = wait_for("the origin has its port again", SOON, || async move {
            TcpListener::bind(address).await.ok()
        })
        .await;
        self.accepting = Some(tokio::spawn(accept(listener, self.shared.clone())));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl Seen {
    /// A header's value as text; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap_or("(not text)"))
    }

    /// The path without the query.
    pub fn path_only(&self) -> &str {
        self.path.split('?').next().unwrap_or("")
    }
}

impl Asked {
    /// Reads the request's body to its end and notes it in the log.
    pub async fn read(self) -> Seen {
        let mut seen = self.seen;
        let body = self
            .body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        seen.body = Some(body.clone());
        if let Some(logged) = self.shared.log.lock().unwrap().get_mut(self.number) {
            logged.body = Some(body);
        }
        seen
    }
}

fn boxed<H, F>(handler: H) -> Handler
where
    H: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    Arc::new(move |asked| Box::pin(handler(asked)))
}

/// Accepts until aborted; its connections end with it, since the set owns them.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let _ = stream.set_nodelay(true);
        connections.spawn(serve(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    shared.open.fetch_add(1, Ordering::SeqCst);
    let of_requests = shared.clone();
    let service = service_fn(move |request| answer(request, of_requests.clone()));
    let server = auto::Builder::new(TokioExecutor::new());
    // A connection that ends in an error is a thing tests do on purpose.
    let _ = server
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

async fn answer(
    mut request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<BoxBody<Bytes, Cut>>, Cut> {
    let upgrade = hyper::upgrade::on(&mut request);
    let asked = shared.clone().note(request);
    let handler = shared.handler.lock().unwrap().clone();
    let reply = {
        let _busy = Busy::new(&shared);
        handler(asked).await
    };
    let body = match reply.content {
        Content::Body(body) => body,
        Content::HangUp => return Err(Cut),
        Content::Upgrade(on_tunnel) => {
            tokio::spawn(async move {
                if let Ok(tunnel) = upgrade.await {
                    on_tunnel(TokioIo::new(tunnel)).await;
                }
            });
            Empty::new()
                .map_err(|never: Infallible| match never {})
                .boxed()
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    Ok(response)
}

impl Shared {
    fn note(self: Arc<Self>, request: Request<Incoming>) -> Asked {
        let (head, body) = request.into_parts();
        let authority = match head.uri.authority() {
            Some(authority) => authority.to_string(),
            None => head
                .headers
                .get("host")
                .and_then(|host| host.to_str().ok())
                .unwrap_or("")
                .to_owned(),
        };
        let seen = Seen {
            method: head.method,
            path: head
                .uri
                .path_and_query()
                .map_or_else(|| head.uri.to_string(), ToString::to_string),
            version: head.version,
            headers: head.headers,
            body: None,
            authority,
        };
        let number = {
            let mut log = self.log.lock().unwrap();
            log.push(seen.clone());
            log.len() - 1
        };
        Asked {
            seen,
            number,
            body,
            shared: self,
        }
    }
}

/// Counts a handler that runs.
struct Busy<'a>(&'a Shared);

impl<'a> Busy<'a> {
    fn new(shared: &'a Shared) -> Self {
        let now = shared.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_at_once.fetch_max(now, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
    }
}
