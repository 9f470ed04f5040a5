//! HTTP/2 origins that refuse: single requests, whole connections, or whatever comes. Nothing is lost
//! that some connection or target would take, and nothing is multiplied where none does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::h2raw::{Frame, H2, flag, frame, headers, kind, setting};
use e2e::setup::Setup;
use e2e::wait::{SOON, within};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 §6.5.2).
const MAX_STREAMS: u16 = 3;
/// REFUSED_STREAM (RFC 9113 §7).
const REFUSED_STREAM: u32 = 7;

/// A request of which all has come.
struct Asked {
    stream: u32,
    /// How many came before it, on its connection and on all.
    before: usize,
    before_of_all: usize,
}

/// What an origin writes when it gets a request.
type Turn = fn(&Asked) -> Vec<u8>;

/// An origin of bytes.
struct RefusingOrigin {
    url: String,
    asked: Arc<AtomicUsize>,
    trailers: Arc<AtomicUsize>,
}

impl RefusingOrigin {
    /// One that begins with these settings, writes `settled` when the gateway has acknowledged them,
    /// and answers by `turn`.
    async fn start(settings: Vec<u8>, settled: Vec<u8>, turn: Turn) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, trailers) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let origin = Self {
            url,
            asked: Arc::clone(&asked),
            trailers: Arc::clone(&trailers),
        };
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (asked, trailers) = (Arc::clone(&asked), Arc::clone(&trailers));
                let (settings, mut settled) = (settings.clone(), settled.clone());
                tokio::spawn(async move {
                    let mut preface = [0; 24];
                    stream.read_exact(&mut preface).await.unwrap();
                    let mut h2 = H2::over(stream);
                    h2.write(settings).await;
                    let (mut begun, mut before) = (0, 0);
                    while let Some(came) = h2.arrived().await {
                        if came.kind == kind::SETTINGS && came.flags & flag::ACK != 0 {
                            h2.write(std::mem::take(&mut settled)).await;
                        }
                        if came.kind == kind::HEADERS && came.stream <= begun {
                            trailers.fetch_add(1, Ordering::SeqCst);
                        }
                        begun = begun.max(came.stream);
                        if !ends_a_request(&came) {
                            continue;
                        }
                        let request = Asked {
                            stream: came.stream,
                            before,
                            before_of_all: asked.fetch_add(1, Ordering::SeqCst),
                        };
                        before += 1;
                        h2.write(turn(&request)).await;
                    }
                });
            }
        });
        origin
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn ends_a_request(came: &Frame) -> bool {
    matches!(came.kind, kind::HEADERS | kind::DATA) && came.flags & flag::END_STREAM != 0
}

fn fine(asked: &Asked) -> Vec<u8> {
    let head = headers(asked.stream, 0, &[(":status", "200")]);
    let body = frame(kind::DATA, flag::END_STREAM, asked.stream, "fine");
    [head, body].concat()
}

fn refuses(asked: &Asked) -> Vec<u8> {
    frame(
        kind::RST_STREAM,
        0,
        asked.stream,
        REFUSED_STREAM.to_be_bytes(),
    )
}

/// GOAWAY: no stream above this one was processed.
fn goes_away(last: u32) -> Vec<u8> {
    let payload = [last, 0].map(u32::to_be_bytes).concat();
    frame(kind::GOAWAY, 0, 0, payload)
}

async fn before(targets: &[&RefusingOrigin], more: &str) -> Gateway {
    let targets: Vec<_> = targets
        .iter()
        .map(|target| format!("\"{}\"", target.url))
        .collect();
    let targets = targets.join(", ");
    Setup::default()
        .top("server", "{threads: 1, drain_timeout: 1m}")
        .upstream(
            "shop",
            &format!("{{targets: [{targets}], protocol: http2{more}}}"),
        )
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await
}

/// U18: an origin that refuses everything gets what the budget allows, as one that fails otherwise.
#[tokio::test]
async fn an_origin_that_refuses_everything_gets_no_multiple_of_the_requests() {
    const REQUESTS: usize = 100;
    // A fifth, ten that are saved up at the start, and what is sent again before it is known.
    const MOST: usize = REQUESTS + REQUESTS / 5 + 10 + 5;
    for (name, turn) in [
        ("REFUSED_STREAM", refuses as Turn),
        ("GOAWAY", |_| goes_away(0)),
    ] {
        let origin = RefusingOrigin::start(setting(MAX_STREAMS, 100), Vec::new(), turn).await;
        let gateway = before(&[&origin], ", retry: {budget: 20, min: 0}").await;
        let client = gateway.client();
        for n in 0..REQUESTS {
            assert_eq!(client.get(&format!("/{n}")).await.status, 502, "{name}");
        }
        let asked = origin.asked();
        assert!((REQUESTS..=MOST).contains(&asked), "{name}: {asked}");
    }
}

/// The same where it ends each connection before a request is written.
#[tokio::test]
async fn an_origin_that_ends_each_connection_gets_no_multiple_of_the_requests() {
    const REQUESTS: usize = 100;
    const MOST: usize = REQUESTS + REQUESTS / 5 + 10 + 5;
    let goes_away_at_once = [setting(MAX_STREAMS, 100), goes_away(0)].concat();
    for (protocol, says) in [
        ("http1", Vec::new()),
        ("http2", Vec::new()),
        ("http2", goes_away_at_once),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let opened = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&opened);
        let written = says.len();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                stream.write_all(&says).await.unwrap();
            }
        });
        let more = "retry: {budget: 20, min: 0}, timeouts: {connect: 1m}";
        let gateway = Setup::default()
            .upstream(
                "shop",
                &format!("{{targets: [\"{url}\"], protocol: {protocol}, {more}}}"),
            )
            .route("{name: shop, upstream: shop, cache: off}")
            .start()
            .await;
        for n in 0..REQUESTS {
            let client = gateway.client();
            let answer = within("an answer at once", SOON, client.get(&format!("/{n}"))).await;
            assert!(
                answer.status.as_u16() >= 502,
                "{protocol}, {written}: {}",
                answer.status
            );
        }
        let opened = opened.load(Ordering::SeqCst);
        assert!(
            (REQUESTS / 2..=MOST).contains(&opened),
            "{protocol} after {written} octets: {opened}"
        );
    }
}

/// What ends while a request waits for its first stream is left at once for the other target.
#[tokio::test]
async fn nobody_waits_for_a_stream_of_a_connection_that_ends() {
    let none = setting(MAX_STREAMS, 0);
    let drains = RefusingOrigin::start(none, goes_away(0), fine).await;
    let well = RefusingOrigin::start(setting(MAX_STREAMS, 100), Vec::new(), fine).await;
    let more = ", timeouts: {connect: 10m}, balance: {by: round_robin}";
    let gateway = before(&[&drains, &well], more).await;
    for n in 0..4 {
        let client = gateway.client();
        let asked = client.post("/order", format!("{n}"));
        assert_eq!(within("the other target", SOON, asked).await.status, 200);
    }
    assert_eq!((drains.asked(), well.asked()), (0, 4));
}

/// RFC 9113 §6.8: whatever is above the last stream of a GOAWAY was not processed, and goes to the
/// next connection, be it many times.
#[tokio::test]
async fn an_origin_that_goes_away_after_each_answer_answers_all() {
    const REQUESTS: usize = 30;
    let origin = RefusingOrigin::start(setting(MAX_STREAMS, 100), Vec::new(), |asked| match asked
        .before
    {
        0 => [fine(asked), goes_away(asked.stream)].concat(),
        _ => Vec::new(),
    })
    .await;
    let gateway = before(&[&origin], "").await;
    let asking = (0..REQUESTS).map(|n| {
        let client = gateway.client();
        async move { client.post(&format!("/{n}"), "order").await }
    });
    let answers = within("all are answered", SOON, join_all(asking)).await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, vec![200; REQUESTS]);
}

/// C4: a request does not wait inside h2 for a stream that an origin does not give.
#[tokio::test]
async fn an_origin_that_takes_no_request_is_one_that_cannot_be_reached() {
    let none = || setting(MAX_STREAMS, 0);
    let zero = RefusingOrigin::start(none(), Vec::new(), fine).await;
    let well = RefusingOrigin::start(setting(MAX_STREAMS, 100), Vec::new(), fine).await;
    let more = ", timeouts: {connect: 500ms, first_byte: 1h}";
    let gateway = before(&[&zero], more).await;
    let answer = within("the time to connect", SOON, gateway.client().get("/")).await;
    assert_eq!(answer.status, 504);
    let said = answer.header("proxy-status");
    assert!(said.contains("connection_timeout"), "{said}");
    let more = format!("{more}, balance: {{by: round_robin}}");
    let gateway = before(&[&zero, &well], &more).await;
    for n in 0..4 {
        let asked = gateway.client();
        let asked = asked.post("/order", format!("{n}"));
        let answer = within("the other target", SOON, asked).await;
        assert_eq!(answer.status, 200, "{n}");
    }
    assert_eq!(zero.asked(), 0);
    // One that gives streams after a while gets the request.
    let later = RefusingOrigin::start(none(), setting(MAX_STREAMS, 1), fine).await;
    let gateway = before(&[&later], ", timeouts: {connect: 10s}").await;
    assert_eq!(gateway.client().get("/").await.text(), "fine");
    assert_eq!(later.asked(), 1);
}

/// Who waits for a connection that another request opens has no more time than that one.
#[tokio::test]
async fn nobody_waits_longer_for_a_connection_than_one_may_take() {
    const CONNECT: Duration = Duration::from_secs(3);
    // It accepts, and never says what it speaks.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = RefusingOrigin {
        url: format!("http://{}", listener.local_addr().unwrap()),
        asked: Arc::default(),
        trailers: Arc::default(),
    };
    let gateway = before(&[&silent], ", timeouts: {connect: 3s}").await;
    let opens = gateway.client();
    let opens = tokio::spawn(async move { opens.get("/first").await.status });
    let _accepted = listener.accept().await.unwrap();
    let asking = (0..10).map(|n| {
        let client = gateway.client();
        async move {
            let began = Instant::now();
            let answer = client.get(&format!("/{n}")).await;
            assert_eq!(answer.status, 504);
            began.elapsed()
        }
    });
    let longest = join_all(asking).await.into_iter().max().unwrap();
    assert!(longest < CONNECT * 7 / 4, "{longest:?}");
    assert_eq!(opens.await.unwrap(), 504);
}

/// The trailers of a request are sent again with its body.
#[tokio::test]
async fn a_refused_request_with_trailers_is_sent_again_with_them() {
    let origin = RefusingOrigin::start(setting(MAX_STREAMS, 100), Vec::new(), |asked| match asked
        .before_of_all
    {
        0 => refuses(asked),
        _ => fine(asked),
    })
    .await;
    let gateway = before(&[&origin], "").await;
    let mut client = gateway.raw().await;
    let request = "POST /order HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\norder\r\n0\r\nX-Check: 7\r\n\r\n";
    client.write(request).await;
    let answer = client.until(b"\r\n\r\n").await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(origin.asked(), 2);
    assert_eq!(origin.trailers.load(Ordering::SeqCst), 2);
}
