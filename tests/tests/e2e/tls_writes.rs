//! Everything that is written to a client and everything that is judged by its reading, through
//! TLS (edge.md, F4): interim answers, large bodies, slow readers, half close, drain.

use std::time::{Duration, Instant};

use e2e::attack::held::{LARGE, LARGE_PATH, page};
use e2e::gateway::Gateway;
use e2e::h2raw::{Frame, H2, code, flag, headers, kind, setting, window};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::TlsClient;
use e2e::tls::authority::Authority;
use e2e::tls::site::{HttpsSite, NAME, tls};
use e2e::wait::{SOON, passed, wait_for, within};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";

/// What h2 writes into the PING with which it ends a connection; an answer that nobody waits for
/// counts nothing.
const SHUTDOWN_PING: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

/// GET of a path of the site on a stream.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", NAME),
        (":path", path),
    ];
    headers(stream, flag::END_STREAM, &fields)
}

#[tokio::test]
async fn interim_answers_come_through_tls_before_the_final_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!(
        "{{targets: [\"http://{}\"]}}",
        listener.local_addr().unwrap()
    );
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut read).await.unwrap();
        }
        let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal";
        let all = [hint, hint, last].concat();
        stream.write_all(all.as_bytes()).await.unwrap();
        // The connection stays open until the gateway closes it.
        let _ = stream.read_buf(&mut read).await;
    });
    let certificate = Authority::new("authority").server(&[NAME]);
    let gateway = Setup::default()
        .upstream("origin", &target)
        .pair("a", &certificate)
        .listener("tls", &tls(""))
        .start()
        .await;
    let client = TlsClient::new(gateway.address, NAME);
    let mut raw = client.connect().await.unwrap().raw();
    raw.write(GET).await;
    for _ in 0..2 {
        let hint = raw.head().await;
        assert_eq!(
            (hint.status, hint.header("link")),
            (103, "</a.css>; rel=preload")
        );
    }
    assert_eq!(raw.head().await.status, 200);
    assert_eq!(raw.exactly(5).await, b"final");
}

/// Ten million bytes none of whose pieces are alike.
fn ten_million() -> Vec<u8> {
    (0..10_000_000_u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

#[tokio::test]
async fn large_bodies_are_whole_in_both_directions_and_protocols() {
    let body = ten_million();
    let origin = Origin::start(|asked| async move {
        match asked.seen.path.as_str() {
            "/echo" => {
                let seen = asked.read().await;
                Reply::ok(seen.body.unwrap()).header("cache-control", "no-store")
            }
            "/pieces" => {
                let (reply, pieces) = Reply::stream();
                tokio::spawn(async move {
                    for piece in ten_million().chunks(77_777) {
                        pieces.send(piece.to_vec()).await;
                    }
                    pieces.finish().await;
                });
                reply.header("cache-control", "max-age=60")
            }
            _ => Reply::fresh(ten_million()),
        }
    })
    .await;
    let limits = "{max_body_bytes: 16MiB}";
    let site = HttpsSite::before(origin, "", |setup| setup.listener("limits", limits)).await;
    let mut looked_at = 0;
    for protocol in ["http/1.1", "h2"] {
        for client in [site.client().only_tls12(), site.client().only_tls13()] {
            let mut https = client.speaking(&[protocol]).http().await;
            for path in ["/whole", "/whole", "/pieces", "/pieces"] {
                let answer = https.get(NAME, path).await;
                assert!(
                    answer.body == body,
                    "{protocol} {path}: {}",
                    answer.body.len()
                );
                looked_at += 1;
            }
            let echo = https
                .send_with(NAME, Request::post("/echo"), body.clone())
                .await;
            assert!(echo.body == body, "{protocol} echo: {}", echo.body.len());
            looked_at += 1;
        }
    }
    assert_eq!(looked_at, 20);
}

/// Far below what the readers read, over a span that their machine does not miss.
const LIMITS: &str = "{body_timeout: 3s, min_rate: 1KiB, min_rate_grace: 2s}";
/// The same without a rate: what stands still is cut.
const NO_RATE: &str = "{body_timeout: 2s, min_rate: 0}";
/// Bytes that a slow reader takes in a second, and for how long it is one.
const A_SECOND: usize = 16 << 10;
const SLOW_FOR: Duration = Duration::from_secs(7);
const WIDE: u32 = 16 << 20;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// A site with large pages under these limits; the first is stored.
async fn large(limits: &str) -> HttpsSite {
    let origin = Origin::start(|asked| async move {
        page(&asked.seen.path).unwrap_or_else(|| Reply::fresh("small"))
    })
    .await;
    let site = HttpsSite::before(origin, "", |setup| setup.listener("limits", limits)).await;
    assert_eq!(
        site.client()
            .http()
            .await
            .get(NAME, LARGE_PATH)
            .await
            .body
            .len(),
        LARGE
    );
    site
}

async fn slowly(start: Instant, read: usize) {
    let due = Duration::from_secs_f64(read as f64 / A_SECOND as f64);
    passed(start, due.min(SLOW_FOR)).await;
}

async fn reads_all_by_http1(site: &HttpsSite, path: &str) {
    let mut raw = site.client().connect_narrow().await.raw();
    raw.write(format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\n\r\n"))
        .await;
    assert_eq!(raw.head().await.status, 200, "{path}");
    let (start, mut read) = (Instant::now(), 0);
    while start.elapsed() < SLOW_FOR {
        read += raw.exactly(A_SECOND / 16).await.len();
        slowly(start, read).await;
    }
    raw.exactly(LARGE - read).await;
}

/// Opens a stream for a path with windows for all of it.
async fn open_wide(
    site: &HttpsSite,
    path: &str,
    initial: u32,
) -> H2<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut h2 = site.client().http2().connect_narrow().await.h2().await;
    let open = [
        setting(INITIAL_WINDOW_SIZE, initial),
        window(0, WIDE),
        get(1, path),
    ];
    h2.write(open.concat()).await;
    h2
}

async fn reads_all_by_http2(site: &HttpsSite, path: &str) {
    let mut h2 = open_wide(site, path, WIDE).await;
    let (start, mut read) = (Instant::now(), 0);
    while read < LARGE {
        let frame = h2.frame().await.expect("the connection goes on");
        assert_ne!(frame.kind, kind::RST_STREAM, "{path} after {read}");
        if frame.kind == kind::DATA {
            read += frame.payload.len();
            slowly(start, read).await;
        }
    }
}

#[tokio::test]
async fn a_slow_and_steady_reader_gets_its_body() {
    for limits in [LIMITS, NO_RATE] {
        let site = large(limits).await;
        let passed = "/held/large?passed";
        tokio::join!(
            reads_all_by_http1(&site, LARGE_PATH),
            reads_all_by_http1(&site, passed),
            reads_all_by_http2(&site, LARGE_PATH),
            reads_all_by_http2(&site, passed),
        );
    }
}

#[tokio::test]
async fn a_reader_that_stops_is_cut() {
    for limits in [LIMITS, NO_RATE] {
        let site = large(limits).await;
        let mut http1 = site.client().connect_narrow().await.raw();
        http1
            .write(format!("GET {LARGE_PATH} HTTP/1.1\r\nhost: {NAME}\r\n\r\n"))
            .await;
        http1.exactly(64 << 10).await;
        let mut http2 = open_wide(&site, LARGE_PATH, WIDE).await;
        while http2
            .frame()
            .await
            .is_some_and(|frame| frame.kind != kind::DATA)
        {}
        passed(Instant::now(), SLOW_FOR).await;
        let (rest, in_order) = http1.to_close().await;
        assert!(rest.len() < LARGE / 2, "{} more bytes came", rest.len());
        assert!(!in_order, "it looks like the end");
        let (mut rest, mut ended) = (0, false);
        while let Some(frame) = http2.frame().await {
            rest += frame.payload.len();
            ended |= frame.kind == kind::DATA && frame.flags & flag::END_STREAM != 0;
        }
        assert!(rest < LARGE / 2 && !ended, "{rest} more bytes came");
    }
}

/// Below the rate, though never still.
#[tokio::test]
async fn a_reader_that_is_too_slow_is_cut() {
    let site = large("{body_timeout: 10m, min_rate: 64KiB, min_rate_grace: 1s}").await;
    let mut stream = site.client().connect_narrow().await.stream;
    let request = format!("GET {LARGE_PATH} HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let (begun, mut read) = (Instant::now(), 0);
    let mut buffer = vec![0; 4 << 10];
    let mut steps = 0;
    while let Ok(count @ 1..) = within("a piece", SOON, stream.read(&mut buffer)).await {
        read += count;
        // At the end all that is on its way is read at once.
        if begun.elapsed() < SLOW_FOR {
            steps += 1;
            passed(begun, Duration::from_millis(250) * steps).await;
        }
    }
    assert!(steps > 4, "it was read for some time");
    assert!(read < LARGE / 2, "{read} bytes came");
}

#[tokio::test]
async fn bytes_that_stay_in_the_kernel_do_not_count_as_read() {
    let site = large(LIMITS).await;
    // The window that streams begin with: all that may be sent lies in the kernel.
    let mut h2 = open_wide(&site, LARGE_PATH, 65_535).await;
    let is_reset = |frame: &Frame| frame.kind == kind::RST_STREAM && frame.stream == 1;
    passed(Instant::now(), Duration::from_secs(6)).await;
    let reset = async {
        while let Some(frame) = h2.frame().await {
            if is_reset(&frame) {
                return Some(frame.code());
            }
        }
        None
    };
    assert_eq!(
        within("the stream is cut", SOON, reset).await,
        Some(code::CANCEL)
    );
}

const SITE: &str = "{name: site, upstream: origin}";

/// A site with this route, whose first page is given when the test says so.
async fn slow_page(route: &str) -> (HttpsSite, oneshot::Sender<()>) {
    let (go, gone) = oneshot::channel();
    let gone = std::sync::Mutex::new(Some(gone));
    let origin = Origin::start(move |_| {
        let gone = gone.lock().unwrap().take();
        async move {
            if let Some(gone) = gone {
                let _ = gone.await;
            }
            Reply::ok("page").header("cache-control", "no-store")
        }
    })
    .await;
    let site = HttpsSite::before(origin, "", |setup| setup.route(route)).await;
    (site, go)
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_gets_its_answer() {
    let (site, go) = slow_page(SITE).await;
    let mut raw = site.client().connect().await.unwrap().raw();
    raw.write(GET).await;
    // close_notify and FIN.
    raw.finish().await;
    site.origin.saw(1).await;
    // Longer than it takes to ask whether the client is still there.
    passed(Instant::now(), Duration::from_secs(2)).await;
    go.send(()).unwrap();
    let (read, in_order) = raw.to_close().await;
    let text = String::from_utf8_lossy(&read);
    assert!(
        text.contains("HTTP/1.1 200 ") && text.ends_with("page"),
        "{text}"
    );
    assert!(in_order, "close_notify is missing");
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed() {
    let (site, mut go) = slow_page("{name: site, upstream: origin, cache: off}").await;
    let mut connection = site.client().connect().await.unwrap();
    connection.stream.write_all(GET.as_bytes()).await.unwrap();
    connection.stream.flush().await.unwrap();
    site.origin.saw(1).await;
    let (stream, _) = connection.stream.into_inner();
    stream.set_zero_linger().unwrap();
    drop(stream);
    within("the origin's request is given up", SOON, go.closed()).await;
}

#[tokio::test]
async fn a_tunnel_leads_through_tls() {
    let origin = Origin::start(|_| async {
        Reply::upgrade("echo", |mut tunnel| async move {
            let mut word = [0; 4];
            while tunnel.read_exact(&mut word).await.is_ok() {
                word.reverse();
                if tunnel.write_all(&word).await.is_err() || tunnel.flush().await.is_err() {
                    break;
                }
            }
        })
    })
    .await;
    let site = HttpsSite::before(origin, "", |setup| setup).await;
    let mut raw = site.client().connect().await.unwrap().raw();
    raw.write(
        "GET /chat HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
    )
    .await;
    assert_eq!(raw.head().await.status, 101);
    for word in ["abcd", "1234"] {
        raw.write(word).await;
        assert_eq!(raw.exactly(4).await, word.bytes().rev().collect::<Vec<_>>());
    }
}

async fn is_closed(gateway: &Gateway) {
    let address = gateway.address;
    wait_for("the listener is closed", SOON, || async move {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_drain_lets_a_handshake_end() {
    for protocol in ["http/1.1", "h2"] {
        let (mut site, go) = slow_page(SITE).await;
        go.send(()).unwrap();
        let hello = site.client().speaking(&[protocol]).hello();
        // The bytes of a client that stops in the middle, and a proper one behind the same.
        let stream = TcpStream::connect(site.gateway.address).await.unwrap();
        let (near, far) = tokio::io::duplex(64 << 10);
        let relayed = tokio::spawn(relay(stream, far, hello.len() / 2));
        let client = site.client().speaking(&[protocol]);
        let connecting = tokio::spawn(async move { client.over(near).await });
        let (gate, relayed) = relayed.await.unwrap();
        site.gateway.terminate();
        is_closed(&site.gateway).await;
        gate.send(()).unwrap();
        let connection = connecting.await.unwrap().unwrap();
        if protocol == "h2" {
            let mut h2 = connection.h2().await;
            h2.write([setting(1, 0), get(1, "/")].concat()).await;
            let answered = h2.end_of(1).await;
            let body = b"page".to_vec();
            assert_eq!(answered, e2e::h2raw::End::Answered { status: 200, body });
            h2.write(e2e::h2raw::frame(kind::PING, flag::ACK, 0, SHUTDOWN_PING))
                .await;
            let code = h2.end_in_order().await;
            assert!(code.is_none_or(|code| code == code::NO_ERROR), "{code:?}");
        } else {
            // Nothing was asked yet: it is closed in order, so that the client asks elsewhere.
            let (nothing, in_order) = connection.raw().to_close().await;
            assert_eq!((nothing.len(), in_order), (0, true));
        }
        relayed.abort();
        assert_eq!(site.gateway.ended(SOON).await.code(), Some(0), "{protocol}");
    }
}

/// Carries bytes between both, but stops after so many to the gateway until it may go on.
async fn relay(
    mut stream: TcpStream,
    mut far: tokio::io::DuplexStream,
    first: usize,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let mut bytes = vec![0; first];
    far.read_exact(&mut bytes).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let (gate, open) = oneshot::channel();
    let rest = tokio::spawn(async move {
        let _ = open.await;
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut far).await;
    });
    (gate, rest)
}

#[tokio::test]
async fn a_drain_ends_an_answer_under_way_in_order() {
    let (mut site, go) = slow_page(SITE).await;
    let mut raw = site.client().connect().await.unwrap().raw();
    raw.write(GET).await;
    site.origin.saw(1).await;
    let mut idle = site.client().connect().await.unwrap().raw();
    idle.write(GET.replace("/ ", "/idle ")).await;
    assert_eq!(idle.head().await.status, 200);
    idle.exactly(4).await;
    site.gateway.terminate();
    is_closed(&site.gateway).await;
    let (nothing, in_order) = idle.to_close().await;
    assert_eq!(
        (nothing.len(), in_order),
        (0, true),
        "an idle one is closed at once"
    );
    assert!(site.gateway.is_running());
    go.send(()).unwrap();
    let head = raw.head().await;
    assert_eq!((head.status, head.header("connection")), (200, "close"));
    let (body, in_order) = raw.to_close().await;
    assert_eq!((&body[..], in_order), (&b"page"[..], true));
    assert_eq!(site.gateway.ended(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_says_goaway_over_http2() {
    let (mut site, go) = slow_page(SITE).await;
    let mut h2 = site.client().http2().connect().await.unwrap().h2().await;
    h2.write([setting(1, 0), get(1, "/")].concat()).await;
    site.origin.saw(1).await;
    site.gateway.terminate();
    let goaway = async {
        loop {
            let frame = h2.frame().await.expect("the connection is open");
            if frame.kind == kind::GOAWAY {
                return frame.code();
            }
        }
    };
    assert_eq!(within("GOAWAY", SOON, goaway).await, code::NO_ERROR);
    go.send(()).unwrap();
    let answered = h2.end_of(1).await;
    let body = b"page".to_vec();
    assert_eq!(answered, e2e::h2raw::End::Answered { status: 200, body });
    // The PING that asks whether all is read came behind GOAWAY, perhaps before the answer.
    h2.write(e2e::h2raw::frame(kind::PING, flag::ACK, 0, SHUTDOWN_PING))
        .await;
    h2.end_in_order().await;
    assert_eq!(site.gateway.ended(SOON).await.code(), Some(0));
}
