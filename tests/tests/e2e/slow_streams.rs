//! A slow stream of HTTP/2 is judged by itself: what the others on its connection do neither
//! excuses it, nor does it cost them anything.

use std::time::{Duration, Instant};

use e2e::attack::held::{LARGE_PATH, TWO_RANGES, page};
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::h2raw::{End, Frame, H2, code, flag, get, get_with, kind, setting, window};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_until, within};

const INITIAL_WINDOW_SIZE: u16 = 4;
/// A stream may stand still for so long.
const STALLED: &str = "{body_timeout: 1s, min_rate: 0}";

/// A gateway with the large page and a small one in its cache. `/live/*` passes the cache, and
/// so does `/gated`, which is answered when the gate opens.
async fn site(limits: &str) -> (Origin, Gateway, Gate) {
    let gate = Gate::new();
    let opens = gate.clone();
    let origin = Origin::start(move |asked| {
        let opens = opens.clone();
        async move {
            let path = asked.seen.path.as_str();
            match page(path) {
                Some(page) => return page,
                None if path == "/gated" => opens.pass().await,
                // More than creeps through before the client is found to be slow.
                None if path == "/live/long" => return Reply::fresh(vec![b'p'; 200_000]),
                None => {}
            }
            Reply::fresh(vec![b'p'; 2_000])
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .listener("limits", limits)
        .route("{name: live, match: {path: /live/*}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}")
        .start()
        .await;
    for path in [LARGE_PATH, "/page"] {
        gateway.client().get(path).await;
    }
    (origin, gateway, gate)
}

/// Asks for one small page after the other on further streams, and reads each, until `until`
/// accepts a frame; panics when an answer does not come or the connection ends.
async fn read_others(h2: &mut H2, until: impl Fn(&Frame) -> bool) -> Frame {
    let mut stream = 101;
    let reading = async {
        loop {
            h2.write([get(stream, "/page"), window(stream, 2_000)].concat())
                .await;
            loop {
                let frame = h2.frame().await.expect("the connection goes on");
                if until(&frame) {
                    return frame;
                }
                if frame.kind == kind::DATA {
                    h2.write(window(0, frame.payload.len() as u32 + 1)).await;
                }
                assert_ne!(frame.kind, kind::RST_STREAM, "stream {}", frame.stream);
                if frame.stream == stream && frame.flags & flag::END_STREAM != 0 {
                    break;
                }
            }
            stream += 2;
        }
    };
    within("a slow stream is reset beside others", SOON, reading).await
}

fn is_reset_of(stream: u32) -> impl Fn(&Frame) -> bool {
    move |frame| frame.kind == kind::RST_STREAM && frame.stream == stream
}

async fn still_answers(h2: &mut H2) {
    h2.write([get(9_000_001, "/page"), window(9_000_001, 2_000)].concat())
        .await;
    let body = vec![b'p'; 2_000];
    assert_eq!(
        h2.end_of(9_000_001).await,
        End::Answered { status: 200, body }
    );
}

#[tokio::test]
async fn a_stream_whose_window_stays_shut_is_reset_alone() {
    let (_origin, gateway, _gate) = site(STALLED).await;
    let requests = [
        ("a large page", get(1, LARGE_PATH)),
        ("a small page", get(1, "/page")),
        (
            "several ranges",
            get_with(1, LARGE_PATH, &[("range", TWO_RANGES)]),
        ),
        ("what passes the cache", get(1, "/live/page")),
        ("a large one that passes the cache", get(1, "/held/1")),
    ];
    for (what, request) in requests {
        for initial in [0, 1, 1_000] {
            eprintln!("{what}, a window of {initial}");
            let mut h2 = H2::open(gateway.address).await;
            h2.write([setting(INITIAL_WINDOW_SIZE, initial), request.clone()].concat())
                .await;
            let reset = read_others(&mut h2, is_reset_of(1)).await;
            assert_eq!(reset.code(), code::CANCEL);
            still_answers(&mut h2).await;
        }
    }
}

#[tokio::test]
async fn a_stream_whose_window_creeps_is_reset_alone() {
    let (_origin, gateway, _gate) =
        site("{body_timeout: 1m, min_rate: 64KiB, min_rate_grace: 1s}").await;
    for path in [LARGE_PATH, "/live/long"] {
        let mut h2 = H2::open(gateway.address).await;
        h2.write([setting(INITIAL_WINDOW_SIZE, 0), get(1, path)].concat())
            .await;
        let start = Instant::now();
        let creeps = async {
            let mut stream = 3;
            loop {
                h2.write([window(1, 1), get(stream, "/page"), window(stream, 2_000)].concat())
                    .await;
                loop {
                    let frame = h2.frame().await.expect("the connection goes on");
                    if is_reset_of(1)(&frame) {
                        return;
                    }
                    let ended = frame.stream == 1 && frame.flags & flag::END_STREAM != 0;
                    assert!(!ended, "{path} was sent as a whole");
                    if frame.kind == kind::DATA {
                        h2.write(window(0, frame.payload.len() as u32 + 1)).await;
                    }
                    if frame.stream == stream && frame.flags & flag::END_STREAM != 0 {
                        break;
                    }
                }
                stream += 2;
            }
        };
        within("a creeping stream is reset", SOON, creeps).await;
        assert!(
            start.elapsed() >= Duration::from_millis(900),
            "{path}: too early"
        );
        still_answers(&mut h2).await;
    }
}

#[tokio::test]
async fn a_stalled_stream_does_not_cost_one_that_waits_for_its_origin() {
    let (_origin, gateway, gate) = site(STALLED).await;
    let mut h2 = H2::open(gateway.address).await;
    let asked = [
        setting(INITIAL_WINDOW_SIZE, 0),
        get(1, LARGE_PATH),
        get(3, "/gated"),
        window(3, 2_000),
    ];
    h2.write(asked.concat()).await;
    loop {
        let frame = h2.frame().await.expect("the connection goes on");
        if is_reset_of(1)(&frame) {
            break;
        }
    }
    gate.open();
    let body = vec![b'p'; 2_000];
    assert_eq!(h2.end_of(3).await, End::Answered { status: 200, body });
}

/// Each stream gets far less than the rate that is asked of a client, and the client as a
/// whole takes more than that.
#[tokio::test]
async fn a_slow_connection_is_not_held_against_its_streams() {
    const STREAMS: u32 = 8;
    let (_origin, gateway, _gate) =
        site("{body_timeout: 1m, min_rate: 100KiB, min_rate_grace: 1s}").await;
    gateway.client().get("/held/many").await;
    let mut h2 = H2::open(gateway.address).await;
    let asked = (0..STREAMS).flat_map(|n| get(2 * n + 1, "/held/many"));
    let asked: Vec<u8> = asked.collect();
    h2.write([setting(INITIAL_WINDOW_SIZE, 4 << 20), asked].concat())
        .await;
    let (start, mut taken, mut ended) = (Instant::now(), 0, 0);
    while ended < STREAMS {
        let frame = h2.frame().await.expect("the connection goes on");
        assert_ne!(frame.kind, kind::RST_STREAM, "stream {}", frame.stream);
        ended += u32::from(frame.kind == kind::DATA && frame.flags & flag::END_STREAM != 0);
        let size = frame.payload.len() as u32;
        if frame.kind == kind::DATA && size > 0 {
            taken += size;
            // 1.6 MB a second, read as a slow line would bring it.
            passed(start, Duration::from_micros(u64::from(taken) * 10 / 16)).await;
            h2.write(window(0, size)).await;
        }
    }
    assert_eq!(taken, STREAMS << 20);
}

#[tokio::test]
async fn a_connection_whose_common_window_stays_shut_is_cut() {
    let (_origin, gateway, _gate) = site(STALLED).await;
    let mut h2 = H2::open(gateway.address).await;
    h2.write([setting(INITIAL_WINDOW_SIZE, 1 << 20), get(1, LARGE_PATH)].concat())
        .await;
    let ended = async { while h2.arrived().await.is_some() {} };
    within("the connection is cut", SOON, ended).await;
}

/// HTTP/1 answers one request after the other, so its connection is its stream.
#[tokio::test]
async fn a_client_that_pipelines_and_reads_nothing_is_cut() {
    let (origin, gateway, _gate) = site(STALLED).await;
    let mut raw = gateway.raw().await;
    let large = format!("GET {LARGE_PATH} HTTP/1.1\r\nhost: x\r\n\r\n");
    let next = "GET /never HTTP/1.1\r\nhost: x\r\n\r\n";
    raw.write([large.as_str(), next].concat()).await;
    assert_eq!(raw.head().await.status, 200);
    let there = gateway.open_files();
    wait_until("the client is cut", SOON, || gateway.open_files() < there).await;
    assert_eq!(
        origin.count_of("/never"),
        0,
        "it waits for the answer before it"
    );
}
