//! A client that reads slowly, but steadily, gets its answer: it is judged by what it
//! acknowledged, not by what the kernel took for it at a time. One that reads nothing is cut.

use std::time::{Duration, Instant};

use e2e::attack::held::{LARGE, LARGE_PATH, page};
use e2e::gateway::Gateway;
use e2e::h2raw::{Frame, H2, code, flag, get, kind, setting, window};
use e2e::h3::raw::{RawH3, RawStream, headers};
use e2e::h3::{Reach, SecuredGateway};
use e2e::origin::Origin;
use e2e::raw::{RawConnection, narrow};
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_until, within};
use quinn::VarInt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const INITIAL_WINDOW_SIZE: u16 = 4;
/// Enough for a whole large page.
const WIDE: u32 = 16 << 20;

/// Far below what the readers read, over a span that their machine does not miss.
pub const LIMITS: &str = "{body_timeout: 3s, min_rate: 1KiB, min_rate_grace: 2s}";
/// The same without a rate: what stands still is cut.
const NO_RATE: &str = "{body_timeout: 2s, min_rate: 0}";
/// Bytes that a slow reader takes in a second, and for how long it is one: for some windows,
/// in which the kernel's send buffer would let no write through.
const A_SECOND: usize = 16 << 10;
const SLOW_FOR: Duration = Duration::from_secs(7);
/// What is uncached goes by another way.
const PASSED: &str = "/held/large?passed";

/// What a client that reads steadily takes in one step may be more than it takes in the grace.
const SHORT_GRACE: &str = "{body_timeout: 30s, min_rate: 1KiB, min_rate_grace: 1s}";
/// The window that a stream begins with, and how much of it is read before it is opened again, as
/// usual clients do: at the pace of a slow reader that takes two seconds.
const USUAL_WINDOW: u32 = 65_535;
const STEP: usize = 32 << 10;

async fn origin() -> Origin {
    Origin::start(
        |asked| async move { page(&asked.seen.path).unwrap_or_else(|| Reply::fresh("small")) },
    )
    .await
}

fn setup(origin: &Origin, limits: &str) -> Setup {
    Setup::new(origin)
        .listener("limits", limits)
        .route("{name: live, match: {path: /held/large/live}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}")
}

async fn site(limits: &str) -> (Origin, Gateway) {
    let origin = origin().await;
    let gateway = setup(&origin, limits).start().await;
    gateway.client().get(LARGE_PATH).await;
    (origin, gateway)
}

async fn secured_site(limits: &str) -> (Origin, SecuredGateway) {
    let origin = origin().await;
    let secured = SecuredGateway::start(setup(&origin, limits)).await;
    secured.client().await.get(LARGE_PATH).await;
    (origin, secured)
}

/// Reads so much at the pace of a slow reader.
async fn slowly(start: Instant, read: usize) {
    let due = Duration::from_secs_f64(read as f64 / A_SECOND as f64);
    passed(start, due.min(SLOW_FOR)).await;
}

pub async fn reads_all_by_http1(gateway: &Gateway, path: &str) {
    let mut raw = RawConnection::narrow(gateway.address).await;
    raw.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
        .await;
    assert_eq!(raw.head().await.status, 200, "{path}");
    let (start, mut read) = (Instant::now(), 0);
    while start.elapsed() < SLOW_FOR {
        read += raw.exactly(A_SECOND / 16).await.len();
        slowly(start, read).await;
    }
    raw.exactly(LARGE - read).await;
}

pub async fn reads_all_by_http2(gateway: &Gateway, path: &str) {
    let mut h2 = H2::over(narrow(gateway.address).await);
    h2.write(e2e::h2raw::PREFACE).await;
    let open = [
        setting(INITIAL_WINDOW_SIZE, WIDE),
        window(0, WIDE),
        get(1, path),
    ];
    h2.write(open.concat()).await;
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

/// Opens its windows when a step is read, and reads slowly.
async fn reads_by_steps(gateway: &Gateway, path: &str) {
    let mut h2 = H2::open(gateway.address).await;
    h2.write([setting(INITIAL_WINDOW_SIZE, USUAL_WINDOW), get(1, path)].concat())
        .await;
    let (start, mut read, mut step) = (Instant::now(), 0, 0);
    while read < LARGE {
        let frame = h2.frame().await.expect("the connection goes on");
        assert_ne!(frame.kind, kind::RST_STREAM, "{path} after {read}");
        if frame.kind != kind::DATA {
            continue;
        }
        (read, step) = (read + frame.payload.len(), step + frame.payload.len());
        if step >= STEP {
            slowly(start, read).await;
            let by = std::mem::take(&mut step) as u32;
            h2.write([window(0, by), window(1, by)].concat()).await;
        }
    }
}

/// Asks by HTTP/3, with this window for the stream.
async fn ask_by_http3(secured: &SecuredGateway, path: &str, window: u32) -> (RawH3, RawStream) {
    let reach = Reach::with(|transport| {
        transport
            .stream_receive_window(VarInt::from_u32(window))
            .keep_alive_interval(Some(Duration::from_millis(500)));
    });
    let raw = secured.raw_by(&reach).await;
    let mut stream = raw.stream(headers(&raw.get(path))).await;
    stream.send.finish().expect("it is open");
    (raw, stream)
}

pub async fn reads_all_by_http3(secured: &SecuredGateway, path: &str, window: u32) {
    let (_connection, mut stream) = ask_by_http3(secured, path, window).await;
    let (start, mut read) = (Instant::now(), 0);
    let mut piece = vec![0; A_SECOND / 16];
    loop {
        let next = within("a piece", SOON, stream.receive.read(&mut piece)).await;
        match next.unwrap_or_else(|why| panic!("{path} after {read}: {why}")) {
            Some(count) => read += count,
            None => break,
        }
        slowly(start, read).await;
    }
    assert!(read > LARGE, "{path}: {read}");
}

/// One that reads nothing of a stream of HTTP/3, until it is reset.
async fn is_cut_over_http3(secured: &SecuredGateway, path: &str) {
    let (_connection, mut stream) = ask_by_http3(secured, path, 16 << 10).await;
    let reset = within("it is cut", SOON, stream.receive.received_reset()).await;
    assert!(reset.expect("the connection goes on").is_some(), "{path}");
}

#[tokio::test]
async fn a_slow_and_steady_reader_of_http3_gets_its_body_beside_those_that_stop() {
    let (_origin, secured) = secured_site(LIMITS).await;
    let window = 16 << 10;
    tokio::join!(
        reads_all_by_http3(&secured, LARGE_PATH, window),
        reads_all_by_http3(&secured, PASSED, window),
        reads_all_by_http3(&secured, "/held/large/live", window),
        is_cut_over_http3(&secured, LARGE_PATH),
        is_cut_over_http3(&secured, "/held/large/live"),
    );
}

/// Nothing moves for longer than the grace, although the client reads all the time.
#[tokio::test]
async fn a_steady_reader_whose_windows_open_in_large_steps_gets_its_body() {
    let (_origin, secured) = secured_site(SHORT_GRACE).await;
    // The client's library opens it by eighths.
    let window = 8 * STEP as u32;
    let (_origin, gateway) = site(SHORT_GRACE).await;
    tokio::join!(
        reads_all_by_http3(&secured, LARGE_PATH, window),
        reads_all_by_http3(&secured, "/held/large/live", window),
        reads_by_steps(&gateway, LARGE_PATH),
        reads_by_steps(&gateway, PASSED),
        reads_by_steps(&gateway, "/held/large/live"),
    );
}

/// A PING comes to such a client long after it was sent, behind all that the kernel holds. The
/// gateway sends one every 20 s, and waits for 10 s.
#[tokio::test]
async fn a_steady_reader_who_answers_pings_late_gets_its_body() {
    const A_SECOND: usize = 2 << 10;
    const FOR: Duration = Duration::from_secs(45);
    let (_origin, gateway) = site("{}").await;
    let mut stream = narrow(gateway.address).await;
    let ask = [
        e2e::h2raw::PREFACE.to_vec(),
        setting(INITIAL_WINDOW_SIZE, WIDE),
        window(0, WIDE),
        get(1, LARGE_PATH),
    ];
    stream.write_all(&ask.concat()).await.unwrap();
    let (start, mut read) = (Instant::now(), 0);
    let mut piece = vec![0; A_SECOND / 4];
    while start.elapsed() < FOR {
        within("a piece", SOON, stream.read_exact(&mut piece))
            .await
            .expect("the connection goes on");
        read += piece.len();
        let due = Duration::from_secs_f64(read as f64 / A_SECOND as f64);
        passed(start, due.min(FOR)).await;
    }
    while read < LARGE {
        let count = within("the rest", SOON, stream.read(&mut piece)).await;
        let count = count.expect("the connection goes on");
        assert!(count > 0, "it ended after {read}");
        read += count;
    }
}

#[tokio::test]
async fn a_slow_and_steady_reader_of_http1_gets_its_body() {
    let (_origin, gateway) = site(LIMITS).await;
    tokio::join!(
        reads_all_by_http1(&gateway, LARGE_PATH),
        reads_all_by_http1(&gateway, PASSED),
        reads_all_by_http1(&gateway, "/held/large/live"),
    );
}

#[tokio::test]
async fn a_slow_and_steady_reader_of_http2_gets_its_body() {
    let (_origin, gateway) = site(LIMITS).await;
    tokio::join!(
        reads_all_by_http2(&gateway, LARGE_PATH),
        reads_all_by_http2(&gateway, PASSED),
        reads_all_by_http2(&gateway, "/held/large/live"),
    );
}

#[tokio::test]
async fn without_a_rate_a_steady_reader_does_not_stand_still() {
    let (_origin, gateway) = site(NO_RATE).await;
    tokio::join!(
        reads_all_by_http1(&gateway, LARGE_PATH),
        reads_all_by_http2(&gateway, LARGE_PATH),
    );
}

#[tokio::test]
async fn a_reader_that_stops_is_cut() {
    for limits in [LIMITS, NO_RATE] {
        let (_origin, gateway) = site(limits).await;
        let before = gateway.open_files();
        let mut http1 = RawConnection::narrow(gateway.address).await;
        http1
            .write(format!("GET {LARGE_PATH} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        http1.exactly(64 << 10).await;
        let mut http2 = H2::over(narrow(gateway.address).await);
        http2.write(e2e::h2raw::PREFACE).await;
        let open = [
            setting(INITIAL_WINDOW_SIZE, WIDE),
            window(0, WIDE),
            get(1, LARGE_PATH),
        ];
        http2.write(open.concat()).await;
        while http2.frame().await.is_some_and(|f| f.kind != kind::DATA) {}
        wait_until("both are cut", SOON, || gateway.open_files() <= before).await;
    }
}

/// All that its stream may send lies in the kernel, and nothing more is written.
#[tokio::test]
async fn a_reader_whose_bytes_stay_in_the_kernel_is_cut() {
    let (_origin, gateway) = site(LIMITS).await;
    let mut h2 = H2::over(narrow(gateway.address).await);
    h2.write(e2e::h2raw::PREFACE).await;
    // The window that streams begin with: 65,535.
    h2.write(
        [
            setting(INITIAL_WINDOW_SIZE, 65_535),
            window(0, WIDE),
            get(1, LARGE_PATH),
        ]
        .concat(),
    )
    .await;
    let is_reset = |frame: &Frame| frame.kind == kind::RST_STREAM && frame.stream == 1;
    let cut = async {
        passed(Instant::now(), Duration::from_secs(6)).await;
        while let Some(frame) = h2.frame().await {
            if is_reset(&frame) {
                return frame.code();
            }
            let ended = frame.kind == kind::DATA && frame.flags & flag::END_STREAM != 0;
            assert!(!ended, "it was not cut");
        }
        panic!("the connection ended");
    };
    assert_eq!(within("the stream is cut", SOON, cut).await, code::CANCEL);
}
