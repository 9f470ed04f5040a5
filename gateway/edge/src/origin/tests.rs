//! Exchanges with origins that are real sockets. Some of them behave badly.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::config::{
    HostHeader, OriginProtocol, UpstreamConfig, UpstreamLoadLimits, UpstreamTimeouts,
};
use super::error::{BuildError, OriginError, OverloadReason, TimeoutPhase};
use super::targets::AnswerQuality;
use super::{LoadAudience, OnAttempt, Origin, Origins, SendTerms, SharedOriginState};
use crate::http::body::{Body, BodyError, collect};
use crate::units;

/// The longest wait for any condition.
const LIMIT: Duration = Duration::from_secs(10);

fn upstream(targets: &[String]) -> UpstreamConfig {
    let json = serde_json::json!({ "targets": targets });
    serde_json::from_value(json).unwrap()
}

fn origin(upstream: UpstreamConfig) -> Result<Arc<Origin>, BuildError> {
    let upstreams = BTreeMap::from([("shop".to_owned(), upstream)]);
    let origins = Origins::new(&upstreams, &SharedOriginState::default(), None)?;
    Ok(origins.get("shop").unwrap())
}

/// A socket, and an upstream that points to it.
async fn listen() -> (TcpListener, UpstreamConfig) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", socket.local_addr().unwrap());
    (socket, upstream(&[target]))
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

fn get() -> Request<Body> {
    Request::get("/path?q=1")
        .header("host", "example.com")
        .body(Body::empty())
        .unwrap()
}

/// Reads one head, which must be there in time.
async fn head(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let count = timeout(LIMIT, stream.read_buf(&mut read))
            .await
            .unwrap()
            .unwrap();
        assert!(count > 0, "the connection ended in a head");
    }
    String::from_utf8(read).unwrap()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn the_origin_gets_the_path_the_host_and_nothing_added() {
    let (socket, preserve) = listen().await;
    let named = UpstreamConfig {
        host_header: HostHeader::Upstream,
        ..preserve.clone()
    };
    for (upstream, host) in [
        (preserve, "example.com".to_owned()),
        (named, socket.local_addr().unwrap().to_string()),
    ] {
        let origin = origin(upstream).unwrap();
        let send = tokio::spawn(async move { origin.send(get()).await });
        let (mut stream, _) = socket.accept().await.unwrap();
        let seen = head(&mut stream).await;
        assert_eq!(
            seen,
            format!("GET /path?q=1 HTTP/1.1\r\nhost: {host}\r\n\r\n")
        );
        stream.write_all(OK).await.unwrap();
        let response = send.await.unwrap().unwrap();
        assert_eq!(collect(response.into_body(), 10).await.unwrap(), "ok");
    }
}

/// Guards against a 502 when the origin has just closed a pooled connection and the process was too
/// busy to have read the end yet.
#[tokio::test]
async fn no_request_goes_down_a_connection_that_was_closed_meanwhile() {
    let (socket, upstream) = listen().await;
    let socket = socket.into_std().unwrap();
    socket.set_nonblocking(false).unwrap();
    let (close, closes) = std::sync::mpsc::channel();
    let (closed, is_closed) = std::sync::mpsc::channel();
    let served = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, _) = socket.accept().unwrap();
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap();
            std::io::Write::write_all(&mut stream, OK).unwrap();
            closes.recv().unwrap();
            drop(stream);
            closed.send(()).unwrap();
        }
    });
    let origin = origin(upstream).unwrap();
    for method in ["GET", "POST", "GET"] {
        let mut request = get();
        *request.method_mut() = method.parse().unwrap();
        let response = origin.send(request).await.expect(method);
        assert_eq!(collect(response.into_body(), 10).await.unwrap(), "ok");
        // The connection goes back into the pool.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        close.send(()).unwrap();
        // Blocks the runtime on purpose.
        is_closed.recv().unwrap();
    }
    served.join().unwrap();
}

/// Answers one request on each connection, then sends `after` on it.
async fn one_each(socket: TcpListener, after: &'static [u8], done: mpsc::UnboundedSender<()>) {
    loop {
        let (mut stream, _) = socket.accept().await.unwrap();
        head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        stream.write_all(after).await.unwrap();
        stream.shutdown().await.unwrap();
        done.send(()).unwrap();
    }
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_or_has_stray_bytes_is_not_used_again() {
    for after in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray",
    ] {
        let (socket, upstream) = listen().await;
        let origin = origin(upstream).unwrap();
        let (done, mut closed) = mpsc::unbounded_channel();
        tokio::spawn(one_each(socket, after, done));
        for _ in 0..3 {
            let response = timeout(LIMIT, origin.send(get())).await.unwrap().unwrap();
            assert_eq!(collect(response.into_body(), 10).await.unwrap(), "ok");
            closed.recv().await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_http2_origin_is_spoken_to_by_prior_knowledge() {
    let (socket, upstream) = listen().await;
    let origin = origin(UpstreamConfig {
        protocol: OriginProtocol::Http2,
        ..upstream
    })
    .unwrap();
    tokio::spawn(async move {
        let (stream, _) = socket.accept().await.unwrap();
        let echo = service_fn(|request: Request<Incoming>| async move {
            let seen = format!("{:?} {}", request.version(), request.uri());
            Ok::<_, Infallible>(Response::new(Body::full(seen)))
        });
        let server = http2::Builder::new(TokioExecutor::new());
        server.serve_connection(TokioIo::new(stream), echo).await
    });
    for _ in 0..2 {
        let response = timeout(LIMIT, origin.send(get())).await.unwrap().unwrap();
        assert_eq!(
            collect(response.into_body(), 99).await.unwrap(),
            "HTTP/2.0 http://example.com/path?q=1"
        );
    }
}

#[tokio::test]
async fn a_refused_connection_is_told_and_another_target_is_tried() {
    let refused = nobody().await;
    let alone = origin(upstream(&[format!("http://{refused}")])).unwrap();
    let error = alone.send(get()).await.unwrap_err();
    assert_eq!(error.proxy_status(), "connection_refused");
    assert_eq!(error.status(), StatusCode::BAD_GATEWAY);

    let (socket, _) = listen().await;
    let both = [
        format!("http://{refused}"),
        format!("http://{}", socket.local_addr().unwrap()),
    ];
    let origin = origin(upstream(&both)).unwrap();
    tokio::spawn(one_each(socket, b"", mpsc::unbounded_channel().0));
    assert_eq!(origin.send(get()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_a_dns_error() {
    let unknown = upstream(&["http://no-such-host.invalid".to_owned()]);
    let upstreams = BTreeMap::from([("shop".to_owned(), unknown)]);
    let origins = Origins::new(&upstreams, &SharedOriginState::default(), None).unwrap();
    let origin = origins.get("shop").unwrap();
    origins.begin_work();
    let error = origin.send(get()).await.unwrap_err();
    assert_eq!(error.proxy_status(), "dns_error", "{error:?}");
    assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn silence_before_the_head_and_within_the_body_has_a_deadline() {
    let (socket, upstream) = listen().await;
    let brief = units::ConfigDuration::millis(800);
    let timeouts = UpstreamTimeouts {
        first_byte: brief,
        idle: brief,
        ..UpstreamTimeouts::default()
    };
    let origin = origin(UpstreamConfig {
        timeouts,
        ..upstream
    })
    .unwrap();
    let first = tokio::spawn({
        let origin = Arc::clone(&origin);
        async move { origin.send(get()).await }
    });
    let (mut silent, _) = socket.accept().await.unwrap();
    let error = timeout(LIMIT, first).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(
        error,
        OriginError::Timeout {
            phase: TimeoutPhase::FirstByte
        }
    ));
    assert_eq!(
        (error.status().as_u16(), error.proxy_status()),
        (504, "http_response_timeout")
    );
    head(&mut silent).await;

    let second = tokio::spawn(async move { origin.send(get()).await });
    let (mut stuck, _) = socket.accept().await.unwrap();
    head(&mut stuck).await;
    stuck
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    let body = second.await.unwrap().unwrap().into_body();
    let error = timeout(LIMIT, collect(body, 10))
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, BodyError::Timeout), "{error:?}");
}

#[tokio::test]
async fn a_place_is_held_until_the_body_ends_and_the_queue_is_bounded() {
    let (socket, upstream) = listen().await;
    let brief = units::ConfigDuration::millis(50);
    let load = UpstreamLoadLimits {
        max_concurrent: 1,
        max_queued: 1,
        adaptive: None,
        queue_timeout: brief,
    };
    let origin = origin(UpstreamConfig { load, ..upstream }).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            tokio::spawn(async move {
                loop {
                    head(&mut stream).await;
                    stream.write_all(OK).await.unwrap();
                }
            });
        }
    });
    let held = origin.send(get()).await.unwrap();
    // Two more at once: one waits until the timeout, the other finds the queue full.
    let (waits, full) = tokio::join!(origin.send(get()), origin.send(get()));
    assert!(matches!(
        waits,
        Err(OriginError::Overloaded {
            reason: OverloadReason::QueueTimeout
        })
    ));
    let full = full.unwrap_err();
    assert!(matches!(
        full,
        OriginError::Overloaded {
            reason: OverloadReason::QueueFull
        }
    ));
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(collect(held.into_body(), 10).await.unwrap(), "ok");
    assert_eq!(origin.send(get()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn what_is_no_http_and_what_ends_early_have_their_names() {
    for (answer, name) in [
        (&b"SSH-2.0-OpenSSH\r\n\r\n"[..], "http_protocol_error"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "http_protocol_error",
        ),
        (b"HTTP/1.1 200 OK\r\nConte", "connection_terminated"),
        (b"", "connection_terminated"),
    ] {
        let (socket, upstream) = listen().await;
        let origin = origin(upstream).unwrap();
        let send = tokio::spawn(async move { origin.send(get()).await });
        let (mut stream, _) = socket.accept().await.unwrap();
        head(&mut stream).await;
        stream.write_all(answer).await.unwrap();
        drop(stream);
        let error = timeout(LIMIT, send).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.proxy_status(), name, "{error:?}");
        assert_eq!(error.status(), StatusCode::BAD_GATEWAY);
    }
}

#[tokio::test]
async fn a_body_that_is_cut_is_an_error_not_an_end() {
    let (socket, upstream) = listen().await;
    let origin = origin(upstream).unwrap();
    let send = tokio::spawn(async move { origin.send(get()).await });
    let (mut stream, _) = socket.accept().await.unwrap();
    head(&mut stream).await;
    let half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    stream.write_all(half).await.unwrap();
    drop(stream);
    let body = send.await.unwrap().unwrap().into_body();
    assert!(matches!(
        collect(body, 10).await,
        Err(BodyError::Transport(_))
    ));
}

#[tokio::test]
async fn an_upgrade_hands_over_the_connection_and_gives_the_place_back() {
    let (socket, upstream) = listen().await;
    let load = UpstreamLoadLimits {
        max_concurrent: 1,
        ..UpstreamLoadLimits::default()
    };
    let origin = origin(UpstreamConfig { load, ..upstream }).unwrap();
    let mut request = get();
    request
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    request
        .headers_mut()
        .insert("upgrade", "echo".parse().unwrap());
    let sender = Arc::clone(&origin);
    let send = tokio::spawn(async move { sender.send(request).await });
    let (mut stream, _) = socket.accept().await.unwrap();
    head(&mut stream).await;
    let switching =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(switching).await.unwrap();
    let mut response = send.await.unwrap().unwrap();
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    let mut ping = [0; 4];
    stream.read_exact(&mut ping).await.unwrap();
    assert_eq!(&ping, b"ping");

    let next = tokio::spawn(async move { origin.send(get()).await });
    let (mut other, _) = timeout(LIMIT, socket.accept()).await.unwrap().unwrap();
    head(&mut other).await;
    other.write_all(OK).await.unwrap();
    assert_eq!(next.await.unwrap().unwrap().status(), StatusCode::OK);
}

/// The limit of the attempt lets a request go on long before that of the whole wait is over.
#[tokio::test]
async fn a_slow_target_has_its_own_time_for_each_attempt() {
    let (silent, _) = listen().await;
    let (good, _) = listen().await;
    let urls = [&silent, &good].map(|socket| format!("http://{}", socket.local_addr().unwrap()));
    let upstream: UpstreamConfig = serde_json::from_value(serde_json::json!({
        "targets": urls,
        "balance": { "by": "round_robin" },
        "timeouts": { "first_byte": "60s" },
        "retry": { "per_try": "500ms" },
    }))
    .unwrap();
    let origin = origin(upstream).unwrap();
    let (done, _ended) = mpsc::unbounded_channel();
    tokio::spawn(one_each(good, b"", done));
    for _ in 0..2 {
        let answer = timeout(LIMIT, origin.send(get())).await.unwrap();
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
    let asked = timeout(LIMIT, silent.accept()).await;
    assert!(asked.is_ok(), "the silent target was asked, too");
}

/// How many attempts a request to two targets makes that both refuse connections, after answers
/// that took this long.
async fn attempts(took: Option<Duration>, attach: impl FnOnce(&mut SendTerms)) -> usize {
    let urls = [nobody().await, nobody().await].map(|address| format!("http://{address}"));
    let origin = origin(upstream(&urls)).unwrap();
    if let Some(took) = took {
        let target = &origin.targets.all()[0];
        let now = Instant::now();
        origin
            .targets
            .note(target, AnswerQuality::Good, took, None, now);
    }
    let (made, mut request) = (Arc::new(AtomicUsize::new(0)), get());
    let counted = Arc::clone(&made);
    let told = OnAttempt::new(move |_| {
        counted.fetch_add(1, Relaxed);
    });
    let terms = SendTerms::of(&mut request);
    terms.told = Some(told);
    attach(terms);
    origin.send(request).await.unwrap_err();
    made.load(Relaxed)
}

#[tokio::test]
async fn no_retry_begins_that_cannot_end_in_time() {
    let within =
        |time: Duration| move |terms: &mut SendTerms| terms.deadline = Some(Instant::now() + time);
    let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
    assert_eq!(attempts(None, |_| ()).await, 2);
    assert_eq!(attempts(None, within(minute)).await, 2);
    assert_eq!(attempts(None, within(Duration::ZERO)).await, 1);
    let slow = Some(Duration::from_secs(4));
    assert_eq!(attempts(slow, within(minute)).await, 2);
    assert_eq!(attempts(slow, within(second)).await, 1);
}

#[tokio::test]
async fn nothing_is_sent_again_for_nobody() {
    for (waits, expected) in [(true, 2), (false, 1)] {
        let audience = LoadAudience::new(move || waits);
        let made = attempts(None, |terms| terms.audience = Some(audience));
        assert_eq!(made.await, expected);
    }
}
