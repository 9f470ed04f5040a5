//! Memory that answers hold for clients that do not read: bounded whatever is asked for, by
//! either protocol, and shown in a gauge (`limits.max_held_bytes`, `server.max_held_bytes`).
//! The attacks are in `e2e::attack::held`.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::attack::Before;
use e2e::attack::held::{
    HTTP1, HTTP2, LARGE, LARGE_PATH, STREAMS, TWO_RANGES, ask_one_of_many, ask_one_range,
    ask_two_ranges, page, stalled, streams,
};
use e2e::gateway::Gateway;
use e2e::h2raw::{End, H2, ask, get};
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};

const HELD: &str = "lamina_held_bytes";

/// How much more may be resident at the worst moment of an attack. An answer that holds
/// something takes 1 MiB and more of it, and there are a hundred or more of them; what 120
/// streams or 200 connections cost by themselves is some MiB.
const GROWTH: u64 = 32 << 20;

/// A gateway before an origin that has the pages of the attacks, with a small first tier,
/// which the large page or the many pages fill.
async fn site(origin: &Origin, setup: impl FnOnce(Setup) -> Setup) -> Gateway {
    let setup = setup(Setup::new(origin).top("cache", "{l1: {max_bytes: 16MiB}}"));
    let gateway = setup.start().await;
    load(&gateway, LARGE_PATH).await;
    gateway
}

/// A bound on what all connections hold together that a few large pages reach.
fn bounded(setup: Setup) -> Setup {
    setup.top("server", "{threads: 2, max_held_bytes: 8MiB}")
}

/// Reads a page, under the host that the attacks name.
async fn load(gateway: &Gateway, path: &str) -> Vec<u8> {
    let mut h2 = H2::open(gateway.address).await;
    h2.write(get(1, path)).await;
    match h2.end_of(1).await {
        End::Answered { status: 200, body } => body,
        other => panic!("{path}: {other:.100?}"),
    }
}

async fn pages() -> Origin {
    Origin::pages(|seen| page(&seen.path).unwrap_or_else(|| Reply::ok("page"))).await
}

/// What was resident before, and a peak that begins there.
fn before(gateway: &Gateway) -> u64 {
    gateway.forget_peak();
    gateway.resident_bytes()
}

fn assert_grew_little(gateway: &Gateway, before: u64, under: &str) {
    let growth = gateway.peak_bytes().saturating_sub(before);
    assert!(growth < GROWTH, "{} MiB more under {under}", growth >> 20);
}

/// The gauge is down to nothing.
async fn is_released(gateway: &Gateway) {
    gateway.metric_until(HELD, &[], |held| held == 0.0).await;
}

#[tokio::test]
async fn ranges_of_a_stored_page_behind_shut_windows_hold_nothing() {
    let origin = pages().await;
    let gateway = site(&origin, |setup| setup).await;
    /// Makes the request for a stream.
    type RequestOfStream = fn(u32) -> Vec<u8>;
    let requests: [(&str, RequestOfStream); 4] = [
        ("two ranges", ask_two_ranges),
        ("one range", ask_one_range),
        ("the whole", |stream| get(stream, LARGE_PATH)),
        ("HEAD", |stream| ask("HEAD", stream, LARGE_PATH, &[])),
    ];
    for (what, request) in requests {
        for window in [0, 1, 65_535] {
            let before = before(&gateway);
            let mut h2 = stalled(gateway.address, window, STREAMS, request).await;
            assert!(h2.lives().await, "{what}, a window of {window}");
            assert_grew_little(&gateway, before, &format!("{what}, a window of {window}"));
            assert_eq!(
                gateway.metric(HELD, &[]).await,
                0.0,
                "{what}: it is the cache's own"
            );
        }
    }
}

#[tokio::test]
async fn attacks_leave_nothing_behind() {
    let origin = pages().await;
    // Idle connections end soon, so that those that are left over show.
    let upstream = format!(
        "{{targets: [\"{}\"], pool: {{max_idle: 4, idle_timeout: 300ms}}}}",
        origin.url()
    );
    let gateway = site(&origin, |setup| setup.upstream("origin", &upstream)).await;
    let before = Before::of(&gateway);
    for attack in HTTP1.iter().chain(HTTP2) {
        (attack.run)(gateway.address).await;
        is_released(&gateway).await;
        before.is_back(&gateway, attack.name).await;
    }
}

#[tokio::test]
async fn ranges_that_are_read_late_are_whole() {
    let origin = pages().await;
    let gateway = site(&origin, |setup| setup).await;
    let whole = load(&gateway, LARGE_PATH).await;
    let mut h2 = H2::open(gateway.address).await;
    h2.write(ask_two_ranges(1)).await;
    let End::Answered { status: 206, body } = h2.end_of(1).await else {
        panic!("not answered by 206");
    };
    let lines = body.split(|octet| *octet == b'\n');
    let contents: Vec<_> = lines.filter(|line| line.len() > 1_000).collect();
    let ranges = [&whole[..4_000_001], &whole[4_000_002..]];
    assert_eq!(contents.len(), ranges.len());
    for (content, range) in contents.iter().zip(ranges) {
        assert!(content.strip_suffix(b"\r") == Some(range));
    }
    let request =
        format!("GET {LARGE_PATH} HTTP/1.1\r\nhost: attacker.test\r\nrange: {TWO_RANGES}\r\n\r\n");
    let mut raw = gateway.raw().await;
    raw.write(request).await;
    let head = raw.head().await;
    assert_eq!(head.header("content-length"), body.len().to_string());
    assert!(raw.exactly(body.len()).await == body, "the same by HTTP/1");
}

#[tokio::test]
async fn bodies_that_are_evicted_while_nobody_reads_on_are_bounded_and_counted() {
    let origin = pages().await;
    let gateway = site(&origin, |setup| setup).await;
    // The tier is full, so that what comes pushes something out and not the memory up.
    for stream in streams(STREAMS) {
        load(&gateway, &format!("/held/{stream}")).await;
    }
    let before = before(&gateway);
    let h2 = stalled(gateway.address, 0, STREAMS, ask_one_of_many).await;
    gateway.metric_until(HELD, &[], |held| held > 0.0).await;
    assert_grew_little(&gateway, before, "bodies that are evicted");
    let held = gateway.metric(HELD, &[]).await as usize;
    // What one connection may hold, and for each stream what is on its way.
    let most = (8 << 20) + STREAMS * (128 << 10);
    assert!(held <= most, "{held} bytes are held");
    h2.abort();
    is_released(&gateway).await;
}

#[tokio::test]
async fn purged_bodies_that_nobody_reads_on_are_bounded() {
    let origin = pages().await;
    let gateway = site(&origin, bounded).await;
    let before = before(&gateway);
    let mut held = Vec::new();
    for _ in 0..12 {
        let request = |stream| get(stream, LARGE_PATH);
        held.push(stalled(gateway.address, 0, 1, request).await);
        gateway
            .purge(serde_json::json!({"url": format!("http://attacker.test{LARGE_PATH}")}))
            .await;
    }
    assert_grew_little(&gateway, before, "bodies that are purged");
}

/// An origin whose answers have no end and no length.
async fn endless() -> Origin {
    Origin::start(|asked| async move {
        if let Some(page) = page(&asked.seen.path) {
            return page;
        }
        let (reply, pieces) = Reply::stream();
        tokio::spawn(async move {
            let piece = Bytes::from(vec![b'e'; 64 << 10]);
            while pieces.send(piece.clone()).await {}
        });
        reply.header("cache-control", "max-age=60")
    })
    .await
}

#[tokio::test]
async fn streams_larger_than_the_cache_takes_are_bounded() {
    let origin = endless().await;
    let gateway = site(&origin, |setup| setup).await;
    let before = before(&gateway);
    let request = |stream| get(stream, &format!("/endless/{stream}"));
    let h2 = stalled(gateway.address, 0, 100, request).await;
    // It takes what it takes, and then the origin has to wait.
    is_quiet(&gateway).await;
    assert_grew_little(&gateway, before, "streams without end");
    h2.abort();
    is_released(&gateway).await;
}

/// Waits until the gauge has stood still for a while: the origin is stopped.
async fn is_quiet(gateway: &Gateway) {
    const A_WHILE: Duration = Duration::from_millis(700);
    let last = Cell::new((-1.0, Instant::now()));
    wait_for("what is held stands still", SOON, || async {
        let held = gateway.metric(HELD, &[]).await;
        if held != last.get().0 {
            last.set((held, Instant::now()));
        }
        (last.get().1.elapsed() > A_WHILE).then_some(())
    })
    .await;
}

/// An answer that comes in so many pieces, each of which the gateway reads alone.
fn in_pieces(count: usize, size: usize) -> Reply {
    let (reply, pieces) = Reply::stream();
    tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..count {
            pace.tick().await;
            if !pieces.send(vec![b'p'; size]).await {
                return;
            }
        }
        pieces.finish().await;
    });
    reply.header("cache-control", "max-age=600")
}

/// A piece is a part of the buffer that it was read into, which is 8 KiB and more.
#[tokio::test]
async fn bodies_that_come_in_small_pieces_take_no_more_than_their_size() {
    let origin = Origin::pages(|seen| match seen.path.starts_with("/stored") {
        true => in_pieces(4_000, 200),
        false => in_pieces(300, 100),
    })
    .await;
    let gateway = site(&origin, |setup| {
        setup
            .route("{name: live, match: {path: /live/*}, upstream: origin, cache: off}")
            .route("{name: site, upstream: origin}")
    })
    .await;
    let resident = before(&gateway);
    let stored = ["/stored/1", "/stored/2"].map(|path| load(&gateway, path));
    for body in futures_util::future::join_all(stored).await {
        assert_eq!(body.len(), 4_000 * 200);
    }
    assert_grew_little(&gateway, resident, "what is stored");
    let resident = before(&gateway);
    let request = |stream| get(stream, &format!("/live/{stream}"));
    let h2 = stalled(gateway.address, 0, 30, request).await;
    is_quiet(&gateway).await;
    assert_grew_little(&gateway, resident, "what nobody reads");
    h2.abort();
    is_released(&gateway).await;
}

#[tokio::test]
async fn what_passes_the_cache_is_bounded() {
    let origin = endless().await;
    let gateway = site(&origin, |setup| {
        setup
            .route("{name: live, match: {path: /endless/*}, upstream: origin, cache: off}")
            .route("{name: site, upstream: origin}")
    })
    .await;
    let before = before(&gateway);
    let request = |stream| get(stream, &format!("/endless/{stream}"));
    let h2 = stalled(gateway.address, 0, 100, request).await;
    is_quiet(&gateway).await;
    assert_grew_little(&gateway, before, "what passes");
    h2.abort();
    is_released(&gateway).await;
}

#[tokio::test]
async fn many_connections_with_one_stream_each_hold_nothing_of_a_stored_page() {
    let origin = pages().await;
    let gateway = site(&origin, |setup| setup).await;
    let before = before(&gateway);
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(stalled(gateway.address, 0, 1, ask_two_ranges).await);
    }
    assert_grew_little(&gateway, before, "many connections");
}

#[tokio::test]
async fn http1_clients_that_never_read_hold_nothing_of_a_stored_page() {
    let origin = pages().await;
    let gateway = site(&origin, |setup| setup).await;
    for fields in [
        "",
        "range: bytes=0-4000000,4000002-8388607\r\n",
        "range: bytes=1-\r\n",
    ] {
        let before = before(&gateway);
        let mut held = Vec::new();
        for _ in 0..60 {
            let mut raw = RawConnection::open(gateway.address).await;
            let request = format!("GET {LARGE_PATH} HTTP/1.1\r\nhost: x\r\n{fields}\r\n");
            // A second one behind it, which must not be begun.
            raw.write(request.repeat(2)).await;
            raw.head().await;
            held.push(raw);
        }
        assert_grew_little(
            &gateway,
            before,
            &format!("clients that never read: {fields:?}"),
        );
    }
}

#[tokio::test]
async fn http1_clients_that_never_read_hold_little_of_what_is_evicted() {
    let origin = pages().await;
    let gateway = site(&origin, bounded).await;
    load(&gateway, &format!("{LARGE_PATH}-more")).await;
    let before = before(&gateway);
    let mut held = Vec::new();
    let mut answered = 0;
    for n in 0..24 {
        let mut raw = RawConnection::open(gateway.address).await;
        raw.write(format!("GET {LARGE_PATH}-{n} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        answered += usize::from(raw.head().await.status == 200);
        held.push(raw);
    }
    assert_grew_little(&gateway, before, "clients that never read what is evicted");
    assert!(answered > 0, "no answer of {LARGE} bytes was begun");
}

#[tokio::test]
async fn over_the_bound_of_the_process_loads_are_503_and_hits_go_on() {
    let origin = endless().await;
    let gateway = site(&origin, |setup| {
        setup
            .top("server", "{threads: 2, max_held_bytes: 1MiB}")
            .route("{name: live, match: {path: /endless/*}, upstream: origin, cache: off}")
            .route("{name: site, upstream: origin}")
    })
    .await;
    let request = |stream| get(stream, &format!("/endless/{stream}"));
    let held = [
        stalled(gateway.address, 0, STREAMS, request).await,
        stalled(gateway.address, 0, STREAMS, request).await,
        stalled(gateway.address, 0, STREAMS, request).await,
    ];
    gateway
        .metric_until(HELD, &[], |held| held >= f64::from(1 << 20))
        .await;
    for client in [gateway.client(), gateway.client_http2()] {
        for path in ["/endless/more", "/held/more"] {
            let refused = client.get(path).await;
            assert_eq!(refused.status, 503, "{path}");
            assert_eq!(refused.header("retry-after"), "1");
            let why = refused.header("proxy-status");
            assert!(why.contains("error=proxy_internal_error"), "{why}");
        }
    }
    load(&gateway, LARGE_PATH).await;
    gateway
        .logged("the reason", |line| line.contains("server.max_held_bytes"))
        .await;
    held.into_iter().for_each(H2::abort);
    is_released(&gateway).await;
    assert_eq!(gateway.client().get("/held/more").await.status, 200);
}
