//! Tests of the listener through real sockets.

use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::bind_error::BindError;
use super::bound::BoundListeners;
use super::handler::HandlerAnswer;
use super::inherited::{InheritedSockets, kept_name};
use super::running::RunningListeners;
use super::shared::SharedByListeners;
use crate::body::{Body, collect};
use crate::config::{ListenerConfig, ListenerLimits};
use crate::units;

/// The longest time that a test waits for one condition.
const LIMIT: Duration = Duration::from_secs(10);

fn listener(limits: ListenerLimits) -> ListenerConfig {
    ListenerConfig {
        trusted_proxies: vec!["127.0.0.0/8".to_owned()],
        limits,
        ..ListenerConfig::clear_text("127.0.0.1:0".parse().unwrap())
    }
}

/// A site that echoes bodies, panics at /panic, and streams without end at /endless.
fn start(limits: ListenerLimits) -> (RunningListeners, std::net::SocketAddr) {
    let bound = BoundListeners::bind(&[listener(limits)], 2, SharedByListeners::default()).unwrap();
    let address = bound.addresses()[0];
    (run(bound), address)
}

fn run(bound: BoundListeners) -> RunningListeners {
    bound.start(|head, body, entered, _early| {
        HandlerAnswer::later(async move {
            assert!(entered.received.caller.client().is_some());
            match head.uri.path() {
                "/panic" => panic!("a handler that panics on purpose"),
                "/endless" => Response::new(endless()),
                _ => match collect(body, 1 << 20).await {
                    Ok(body) => Response::new(Body::full([b"got:", &body[..]].concat())),
                    Err(error) => Response::new(Body::full(error.to_string())),
                },
            }
        })
    })
}

fn endless() -> Body {
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    let pieces = stream::repeat_with(move || Ok(Frame::data(piece.clone())));
    Body::boxed(StreamBody::new(pieces))
}

/// Sends bytes and reads until the server closes or `until` was seen.
async fn talk(stream: &mut TcpStream, send: &str, until: &str) -> String {
    stream.write_all(send.as_bytes()).await.unwrap();
    read_until(stream, until).await
}

async fn read_until(stream: &mut TcpStream, until: &str) -> String {
    let mut read = Vec::new();
    let seen = |read: &[u8]| String::from_utf8_lossy(read).into_owned();
    while until.is_empty() || !seen(&read).contains(until) {
        let count = timeout(LIMIT, stream.read_buf(&mut read))
            .await
            .expect("an answer in time");
        if !count.is_ok_and(|count| count > 0) {
            break;
        }
    }
    seen(&read)
}

#[tokio::test]
async fn a_connection_serves_several_requests_and_bodies() {
    let (_running, address) = start(ListenerLimits::default());
    let mut client = TcpStream::connect(address).await.unwrap();
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for _ in 0..3 {
        let answer = talk(&mut client, get, "got:").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    let post =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert!(talk(&mut client, post, "abc").await.ends_with("got:abc"));
    let pipelined =
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(
        talk(&mut client, pipelined, "")
            .await
            .matches("got:")
            .count(),
        2
    );
}

#[tokio::test]
async fn a_client_that_closed_its_side_still_gets_its_answer() {
    let (_running, address) = start(ListenerLimits::default());
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    assert!(read_until(&mut client, "").await.ends_with("got:"));
}

#[tokio::test]
async fn http2_is_told_by_its_preface() {
    let (_running, address) = start(ListenerLimits::default());
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let uri = format!("http://{address}/");
        let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "got:"
        );
    }
    let long = format!("http://{address}/{}", "x".repeat(9_000));
    let request = Request::get(long).body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(
        sender.send_request(request).await.unwrap().status(),
        StatusCode::URI_TOO_LONG
    );
}

#[tokio::test]
async fn heads_over_a_limit_get_their_status() {
    let (_running, address) = start(ListenerLimits::default());
    let large = "x".repeat(40_000);
    let many = "x: y\r\n".repeat(150);
    for (head, status) in [
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &large[..9_000]),
            "414",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nx: {large}\r\n\r\n"),
            "431",
        ),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), "431"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into(), "400"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nbad name: x\r\n\r\n".into(),
            "400",
        ),
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let answer = talk(&mut client, &head, "").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_body_without_length_is_cut_at_the_limit() {
    let limits = ListenerLimits {
        max_body_bytes: units::ByteSize(4),
        ..ListenerLimits::default()
    };
    let (_running, address) = start(limits);
    let mut client = TcpStream::connect(address).await.unwrap();
    let post =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n";
    assert!(
        talk(&mut client, post, "4 bytes")
            .await
            .contains("larger than 4 bytes")
    );
}

#[tokio::test]
async fn clients_that_stand_still_are_cut() {
    let brief = units::ConfigDuration::millis(100);
    let limits = ListenerLimits {
        header_timeout: brief,
        body_timeout: brief,
        idle_timeout: brief,
        ..ListenerLimits::default()
    };
    let (_running, address) = start(limits);
    for head in [
        "",
        "PRI * HT",
        "GET / HTTP/1.1\r\nHo",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        talk(&mut client, head, "").await;
    }
    let mut client = TcpStream::connect(address).await.unwrap();
    let half = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    assert!(talk(&mut client, half, "").await.contains("stalled"));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let limits = ListenerLimits {
        body_timeout: units::ConfigDuration::millis(100),
        ..ListenerLimits::default()
    };
    let (running, address) = start(limits);
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let places = running.ports[0].port.places.clone();
    let all = running.ports[0].port.capacity;
    let free = async {
        // Some of the response has arrived, so the place is taken; it must become free again.
        client.readable().await.unwrap();
        let _ = places.acquire_many(all).await.unwrap();
    };
    // The listener drains meanwhile, and its drain waits for the place as well.
    let (freed, ()) = tokio::join!(timeout(LIMIT, free), running.drain(3 * LIMIT));
    assert!(freed.is_ok());
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_own_request_only() {
    let (_running, address) = start(ListenerLimits::default());
    let mut client = TcpStream::connect(address).await.unwrap();
    let panicking = "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(
        talk(&mut client, panicking, "500 internal error\n")
            .await
            .starts_with("HTTP/1.1 500 ")
    );
    let next = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(
        talk(&mut client, next, "got:")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn draining_finishes_what_is_under_way_and_closes_what_is_idle() {
    let bound = BoundListeners::bind(
        &[listener(ListenerLimits::default())],
        1,
        SharedByListeners::default(),
    )
    .unwrap();
    let address = bound.addresses()[0];
    let (arrivals, mut arrived) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
    let running = bound.start(move |_head, _body, _entered, _early| {
        let arrivals = arrivals.clone();
        HandlerAnswer::later(async move {
            let (go_on, wait) = oneshot::channel();
            arrivals.send(go_on).unwrap();
            wait.await.unwrap();
            Response::new(Body::full("done"))
        })
    });
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let go_on = arrived.recv().await.unwrap();
    let drained = tokio::spawn(running.drain(LIMIT));
    assert_eq!(
        read_until(&mut idle, "").await,
        "",
        "the idle connection is closed"
    );
    go_on.send(()).unwrap();
    let answer = read_until(&mut busy, "").await;
    assert!(
        answer.contains("connection: close") && answer.ends_with("done"),
        "{answer}"
    );
    timeout(LIMIT, drained).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn draining_cuts_what_does_not_end() {
    let (running, address) = start(ListenerLimits::default());
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    client.readable().await.unwrap();
    timeout(LIMIT, running.drain(Duration::from_millis(50)))
        .await
        .unwrap();
}

#[tokio::test]
async fn over_max_connections_accepting_waits_for_a_place() {
    let limits = ListenerLimits {
        max_connections: 1,
        ..ListenerLimits::default()
    };
    let bound = BoundListeners::bind(&[listener(limits)], 1, SharedByListeners::default()).unwrap();
    let address = bound.addresses()[0];
    let _running = bound.start(|_head, _body, _entered, _early| {
        HandlerAnswer::Now(Response::new(Body::full("got:")))
    });
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = TcpStream::connect(address).await.unwrap();
    talk(&mut first, get, "got:").await;
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(get.as_bytes()).await.unwrap();
    // The first is still served while the second waits in the kernel.
    talk(&mut first, get, "got:").await;
    assert!(second.try_read(&mut [0; 8]).is_err());
    drop(first);
    assert!(read_until(&mut second, "got:").await.ends_with("got:"));
}

#[tokio::test]
async fn an_upgrade_hands_the_connection_over() {
    let bound = BoundListeners::bind(
        &[listener(ListenerLimits::default())],
        1,
        SharedByListeners::default(),
    )
    .unwrap();
    let address = bound.addresses()[0];
    let _running = bound.start(|head, body, _entered, _early| {
        HandlerAnswer::later(async move {
            let mut request = Request::from_parts(head, body);
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgraded.await.unwrap());
                let mut line = [0; 4];
                io.read_exact(&mut line).await.unwrap();
                io.write_all(&line).await.unwrap();
            });
            let response = Response::builder()
                .status(101)
                .header("connection", "upgrade");
            response
                .header("upgrade", "echo")
                .body(Body::empty())
                .unwrap()
        })
    });
    let mut client = TcpStream::connect(address).await.unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nping";
    let answer = talk(&mut client, ask, "ping").await;
    assert!(
        answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("ping"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (_running, address) = start(ListenerLimits::default());
    let taken = ListenerConfig {
        address,
        ..listener(ListenerLimits::default())
    };
    let error = BoundListeners::bind(&[taken], 1, SharedByListeners::default())
        .err()
        .unwrap();
    assert!(matches!(error, BindError::InUse { address: at } if at == address));
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_listener_is_opened_and_closed_while_others_serve() {
    let (mut running, first) = start(ListenerLimits::default());
    let one = listener(ListenerLimits::default());
    let both = [one.clone(), one.clone()];
    let prepared = running.prepare(&both).unwrap();
    assert!(running.commit(prepared).is_empty(), "none is gone");
    let second = running.addresses_with_scheme()[1].0;
    assert_ne!(first, second);
    let mut to_first = TcpStream::connect(first).await.unwrap();
    let mut to_second = TcpStream::connect(second).await.unwrap();
    for stream in [&mut to_first, &mut to_second] {
        let answer = talk(stream, GET, "got:").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    // A request that is under way is answered; an idle connection ends.
    let half = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na";
    let mut under_way = TcpStream::connect(second).await.unwrap();
    under_way.write_all(half.as_bytes()).await.unwrap();
    let places = running.ports[1].port.places.clone();
    let capacity = running.ports[1].port.capacity as usize;
    timeout(LIMIT, async {
        while capacity - places.available_permits() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let prepared = running.prepare(&[one]).unwrap();
    let gone = running.commit(prepared);
    let closing = async {
        for port in gone {
            port.end(LIMIT).await;
        }
    };
    let client = async {
        assert_eq!(read_until(&mut to_second, "").await, "");
        assert!(talk(&mut under_way, "b", "").await.ends_with("got:ab"));
    };
    tokio::join!(closing, client);
    let refused = TcpStream::connect(second).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let answer = talk(&mut to_first, GET, "got:").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n"),
        "the other goes on"
    );
}

#[tokio::test]
async fn sockets_that_another_process_opened_are_taken_over_with_what_waits_in_them() {
    let opened = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = opened.local_addr().unwrap();
    let mut waits = TcpStream::connect(address).await.unwrap();
    waits.write_all(GET.as_bytes()).await.unwrap();
    let descriptors = [(OwnedFd::from(opened), kept_name(address))];
    let mut inherited = InheritedSockets::of(descriptors.into_iter()).unwrap();
    let mut listener = listener(ListenerLimits::default());
    listener.address = address;
    let shared = SharedByListeners::default();
    let bound = BoundListeners::bind_or_inherit(&[listener], 2, shared, &mut inherited).unwrap();
    assert!(inherited.finish().unwrap().is_empty(), "it was taken");
    let _running = run(bound);
    assert!(read_until(&mut waits, "got:").await.ends_with("got:"));
    let mut later = TcpStream::connect(address).await.unwrap();
    assert!(talk(&mut later, GET, "got:").await.ends_with("got:"));
}

/// A kept socket whose listener is gone is closed; one that somebody else has opened must have one.
#[test]
fn inherited_sockets_without_a_listener_are_told_apart() {
    let opened = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let left = |name: &str| {
        let descriptors = [(OwnedFd::from(opened()), name.to_owned())];
        InheritedSockets::of(descriptors.into_iter())
            .unwrap()
            .finish()
    };
    let gone = kept_name("127.0.0.1:80".parse().unwrap());
    assert_eq!(left(&gone).unwrap(), [gone]);
    assert!(matches!(
        left("web.socket"),
        Err(BindError::NoListener { .. })
    ));
    let file = std::fs::File::open("/dev/null").unwrap();
    let descriptors = [(OwnedFd::from(file), "web.socket".to_owned())];
    let no_socket = InheritedSockets::of(descriptors.into_iter());
    assert!(matches!(no_socket, Err(BindError::Inherited { .. })));
}
