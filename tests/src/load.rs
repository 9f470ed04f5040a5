//! Load on a gateway that changes meanwhile: clients of HTTP/1, HTTP/2 and HTTP/3, WebSockets, streams
//! of events and uploads. Each keeps its connection as long as it may, and counts what fails
//! (`report`) and how long hits take (`latency`). `variant` is what a gateway is given meanwhile.

mod latency;
mod report;
mod variant;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::h3::SecuredGateway;
use crate::h3::certificates::Certificates;
use crate::h3::client::{H3Client, H3Failure};
use crate::origin::Asked;
use crate::raw::RawConnection;
use crate::reply::Reply;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use report::{LoadReport, PageCount};
use report::{PageOrigin, RequestStart};
pub use variant::ConfigVariant;

/// Clients of each kind that ask for pages.
const OF_A_KIND: usize = 2;
/// Pages that are asked for.
const PAGES: u64 = 200;
/// WebSockets and streams of events, opened one after the other.
const STREAMS: usize = 2;
/// Between two messages of a stream.
const PULSE: Duration = Duration::from_millis(50);
/// The longest that anything may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Pieces of an upload, and the time between two.
const PIECES: usize = 8;
const PIECE: usize = 16 << 10;
/// HTTP/3: a request that was not looked at (RFC 9114 §8.1), and the end of a connection without a
/// fault.
const REQUEST_REJECTED: u64 = 0x10b;
const NO_ERROR: u64 = 0x100;

/// The clients at work.
pub struct ClientLoad {
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
    report: Arc<LoadReport>,
}

/// What one request came to.
enum RequestEnd {
    Good,
    /// It came from the cache.
    Hit,
    /// The connection takes no more requests, and this one was not processed.
    Moved,
    Failed(String),
}

impl ClientLoad {
    /// Lets each client end with what it has begun.
    pub async fn stop(mut self) {
        self.stop.store(true, Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            if let Err(error) = ended {
                self.report.failed(format!("a client broke off: {error}"));
            }
        }
    }
}

/// The origin.
pub async fn answer(asked: Asked) -> Reply {
    match asked.seen.path_only().split('/').nth(1) {
        Some("page") => Reply::ok(format!("page {}", asked.seen.path)),
        Some("open") if !asked.seen.header("upgrade").is_empty() => {
            Reply::upgrade("echo", |mut tunnel| async move {
                let (mut read, mut write) = tokio::io::split(&mut tunnel);
                // It ends with its client.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            })
        }
        Some("open") => {
            let (reply, pieces) = Reply::stream();
            tokio::spawn(async move {
                while pieces.send("data: tick\n\n").await {
                    sleep(PULSE).await;
                }
            });
            reply.header("content-type", "text/event-stream")
        }
        _ => {
            let seen = asked.read().await;
            let bytes = seen.body.map_or(0, |body| body.len());
            Reply::ok(format!("{bytes} bytes"))
        }
    }
}

/// A server for the clients that ask for pages.
pub struct LoadedServer {
    /// Where it speaks TLS, and HTTP/3.
    pub secured: SocketAddr,
    /// Where it speaks clear text, of HTTP/2 too.
    pub clear: SocketAddr,
    pub certificates: Arc<Certificates>,
}

/// What clients must know of a server to trust it.
trait TrustedServer: Send + Sync + 'static {
    fn certificates(&self) -> &Certificates;
}

impl TrustedServer for SecuredGateway {
    fn certificates(&self) -> &Certificates {
        &self.certificates
    }
}

impl TrustedServer for LoadedServer {
    fn certificates(&self) -> &Certificates {
        &self.certificates
    }
}

/// Starts all clients.
pub fn start(gateway: &Arc<SecuredGateway>, report: &Arc<LoadReport>) -> ClientLoad {
    let addresses = gateway.gateway.addresses();
    let clear = addresses[1];
    let mut load = pages_at(gateway, (addresses[0], clear), report);
    let begin = || (Arc::clone(report), Arc::clone(&load.stop));
    load.clients.spawn(uploads(clear, begin()));
    for _ in 0..STREAMS {
        load.clients.spawn(tunnel(clear, begin()));
        load.clients.spawn(events(clear, begin()));
    }
    load
}

/// Starts the clients that ask for pages alone, at a server that need not be a gateway.
pub fn start_pages(server: &Arc<LoadedServer>, report: &Arc<LoadReport>) -> ClientLoad {
    pages_at(server, (server.secured, server.clear), report)
}

fn pages_at<S: TrustedServer>(
    server: &Arc<S>,
    (secured, clear): (SocketAddr, SocketAddr),
    report: &Arc<LoadReport>,
) -> ClientLoad {
    let stop = Arc::<AtomicBool>::default();
    let mut clients = JoinSet::new();
    let begin = || (Arc::clone(report), Arc::clone(&stop));
    for _ in 0..OF_A_KIND {
        clients.spawn(over_http1(clear, begin()));
        clients.spawn(over_http2(clear, begin()));
        clients.spawn(over_tls(Arc::clone(server), secured, begin()));
        clients.spawn(over_http3(Arc::clone(server), secured, begin()));
    }
    clients.spawn(anew(clear, begin()));
    ClientLoad {
        stop,
        clients,
        report: Arc::clone(report),
    }
}

type Begun = (Arc<LoadReport>, Arc<AtomicBool>);

fn page() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("/page/{}", NEXT.fetch_add(1, Relaxed) % PAGES)
}

fn request(path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(path).header("host", crate::h3::NAME);
    request.body(Full::default()).unwrap()
}

/// Whether an answer is the page.
fn judge(path: &str, (status, headers): (StatusCode, &HeaderMap), body: &[u8]) -> RequestEnd {
    let from_cache = headers.get("cache-status");
    let from_cache = from_cache.and_then(|value| value.to_str().ok());
    let is_hit = from_cache.is_some_and(|value| value.contains("; hit"));
    match status == StatusCode::OK && body == format!("page {path}").as_bytes() {
        true if is_hit => RequestEnd::Hit,
        true => RequestEnd::Good,
        false => RequestEnd::Failed(format!("{path}: {status}, {} bytes", body.len())),
    }
}

/// Connects as clients usually do: what they write is sent at once. Otherwise the second small write
/// on a new connection waits for an acknowledgement, which the other side delays by 40 ms.
async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn over_http1(address: SocketAddr, (report, stop): Begun) {
    while !stop.load(Relaxed) {
        let Ok(stream) = connect(address).await else {
            report.failed("http1: no connection");
            continue;
        };
        kept_http1(stream, &report, &stop, "http1").await;
    }
}

async fn over_tls<S: TrustedServer>(server: Arc<S>, address: SocketAddr, (report, stop): Begun) {
    while !stop.load(Relaxed) {
        match tls_stream(server.certificates(), address).await {
            Ok(stream) => kept_http1(stream, &report, &stop, "https").await,
            Err(error) => report.failed(format!("https: {error}")),
        }
    }
}

async fn tls_stream(
    certificates: &Certificates,
    address: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::new(certificates.tls("http/1.1")));
    let name = crate::h3::NAME.try_into().expect("the name is one");
    let stream = connect(address).await?;
    connector.connect(name, stream).await
}

/// Asks on one connection until it says that it takes no more.
async fn kept_http1<S>(stream: S, report: &LoadReport, stop: &AtomicBool, kind: &str)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return report.failed(format!("{kind}: no HTTP"));
    };
    let connection = tokio::spawn(connection);
    while !stop.load(Relaxed) {
        let (path, start) = (page(), report.start());
        let end = async {
            let response = sender.send_request(request(&path)).await?;
            let (head, body) = response.into_parts();
            let last = head
                .headers
                .get("connection")
                .is_some_and(|value| value == "close");
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>((judge(&path, (head.status, &head.headers), &body), last))
        };
        match timeout(LIMIT, end).await {
            Ok(Ok((end, last))) => {
                report.ended(kind, start, end);
                if last {
                    report.moved();
                    break;
                }
            }
            Ok(Err(error)) => {
                report.failed(format!("{kind}: {error:?}"));
                break;
            }
            Err(_) => {
                report.failed(format!("{kind}: no answer"));
                break;
            }
        }
        if sender.ready().await.is_err() {
            report.failed(format!("{kind}: it was closed without a word"));
            break;
        }
    }
    connection.abort();
}

/// A connection for each request.
async fn anew(address: SocketAddr, (report, stop): Begun) {
    while !stop.load(Relaxed) {
        let path = page();
        let end = async {
            let mut raw = RawConnection::open(address).await;
            let head = format!(
                "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
                crate::h3::NAME
            );
            raw.write(head).await;
            raw.to_close().await
        };
        match timeout(LIMIT, end).await {
            Ok((answer, true)) if answer.starts_with(b"HTTP/1.1 200") => report.good("anew"),
            other => report.failed(format!("anew: {other:?}")),
        }
    }
}

async fn over_http2(address: SocketAddr, (report, stop): Begun) {
    while !stop.load(Relaxed) {
        let Ok(stream) = connect(address).await else {
            report.failed("http2: no connection");
            continue;
        };
        let begun = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let Ok((mut sender, connection)) = begun else {
            report.failed("http2: no HTTP");
            continue;
        };
        let connection = tokio::spawn(connection);
        while !stop.load(Relaxed) && !sender.is_closed() {
            let (path, start) = (page(), report.start());
            let mut asked = request(&path);
            // Its host is in `:authority`; nginx refuses both.
            asked.headers_mut().remove("host");
            *asked.uri_mut() = format!("http://{}{path}", crate::h3::NAME).parse().unwrap();
            let end = async {
                let response = sender.send_request(asked).await?;
                let (head, body) = response.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok::<_, hyper::Error>(judge(&path, (head.status, &head.headers), &body))
            };
            match timeout(LIMIT, end).await {
                Ok(Ok(end)) => report.ended("http2", start, end),
                // It was not sent.
                Ok(Err(error)) if error.is_canceled() || sender.is_closed() => {
                    report.moved();
                    break;
                }
                Ok(Err(error)) => {
                    report.failed(format!("http2: {error:?}"));
                    break;
                }
                Err(_) => {
                    report.failed("http2: no answer");
                    break;
                }
            }
        }
        connection.abort();
    }
}

async fn over_http3<S: TrustedServer>(server: Arc<S>, address: SocketAddr, (report, stop): Begun) {
    while !stop.load(Relaxed) {
        let connecting = timeout(LIMIT, H3Client::at(address, server.certificates()));
        let Ok(Some(client)) = connecting.await else {
            report.failed("http3: no connection");
            continue;
        };
        while !stop.load(Relaxed) {
            let start = report.start();
            match timeout(LIMIT, ask_http3(&client)).await {
                Ok(RequestEnd::Moved) => {
                    report.moved();
                    break;
                }
                Ok(end) => report.ended("http3", start, end),
                Err(_) => {
                    report.failed("http3: no answer");
                    break;
                }
            }
        }
    }
}

async fn ask_http3(client: &H3Client) -> RequestEnd {
    let path = page();
    match client.request(&path).try_send().await {
        Ok(answer) => judge(&path, (answer.status, &answer.headers), &answer.body),
        Err(H3Failure::Reset(REQUEST_REJECTED) | H3Failure::Closed(NO_ERROR)) => RequestEnd::Moved,
        // The library refuses to send after a GOAWAY.
        Err(H3Failure::Other(why)) if why.contains("closing") || why.contains("NoError") => {
            RequestEnd::Moved
        }
        Err(failure) => RequestEnd::Failed(format!("{failure:?}")),
    }
}

async fn uploads(address: SocketAddr, (report, stop): Begun) {
    while !stop.load(Relaxed) {
        let Ok(stream) = connect(address).await else {
            report.failed("upload: no connection");
            continue;
        };
        let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
            report.failed("upload: no HTTP");
            continue;
        };
        let connection = tokio::spawn(connection);
        let pieces = futures_util::stream::unfold(0, |sent| async move {
            if sent == PIECES {
                return None;
            }
            sleep(PULSE).await;
            let piece = Frame::data(Bytes::from(vec![b'u'; PIECE]));
            Some((Ok::<_, std::convert::Infallible>(piece), sent + 1))
        });
        let asked = Request::post("/upload").header("host", crate::h3::NAME);
        let asked = asked.body(StreamBody::new(Box::pin(pieces))).unwrap();
        let end = async {
            let response = sender.send_request(asked).await?;
            Ok::<_, hyper::Error>(response.into_body().collect().await?.to_bytes())
        };
        match timeout(LIMIT, end).await {
            Ok(Ok(body)) if body == format!("{} bytes", PIECES * PIECE) => report.good("upload"),
            other => report.failed(format!("upload: {other:?}")),
        }
        connection.abort();
    }
}

/// A WebSocket-like tunnel, for as long as the soak takes.
async fn tunnel(address: SocketAddr, (report, stop): Begun) {
    let mut raw = RawConnection::open(address).await;
    let head = format!(
        "GET /open/tunnel HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
        crate::h3::NAME
    );
    raw.write(head).await;
    let head = raw.until(b"\r\n\r\n").await;
    if !head.starts_with(b"HTTP/1.1 101") {
        return report.failed("tunnel: it did not open");
    }
    while !stop.load(Relaxed) {
        let echo = async { raw.try_write(b"ping").await && raw.exactly(4).await == b"ping" };
        match timeout(LIMIT, echo).await {
            Ok(true) => report.good("tunnel"),
            _ => return report.failed("tunnel: it broke off"),
        }
        sleep(PULSE).await;
    }
}

/// A stream of events, for as long as the soak takes.
async fn events(address: SocketAddr, (report, stop): Begun) {
    let mut raw = RawConnection::open(address).await;
    let head = format!(
        "GET /open/events HTTP/1.1\r\nhost: {}\r\n\r\n",
        crate::h3::NAME
    );
    raw.write(head).await;
    while !stop.load(Relaxed) {
        match timeout(LIMIT, raw.until(b"data: tick\n\n")).await {
            Ok(read) if !read.is_empty() => report.good("events"),
            _ => return report.failed("events: the stream broke off"),
        }
    }
}

impl LoadReport {
    fn ended(&self, kind: &str, start: RequestStart, end: RequestEnd) {
        match end {
            RequestEnd::Good => {
                self.page(PageOrigin::Upstream);
                self.good(kind);
            }
            RequestEnd::Hit => {
                self.page(PageOrigin::Cache);
                self.hit(start);
                self.good(kind);
            }
            RequestEnd::Moved => self.moved(),
            RequestEnd::Failed(why) => self.failed(format!("{kind}: {why}")),
        }
    }
}
