//! What one client of HTTP/3 may make the gateway hold and do, and that others do not pay for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::gate::Gate;
use e2e::h3::client::H3Failure;
use e2e::h3::raw::{
    RawEnd, RawH3, RawStream, code, frame, frame_head, headers, kind, number, one_way, settings,
};
use e2e::h3::relay::{Fate, Relay};
use e2e::h3::{Reach, SecuredGateway, connect_to, pattern};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, wait_for, wait_until, within};
use futures_util::future::join_all;
use quinn::VarInt;
use tokio::task::JoinHandle;

const MIB: u64 = 1 << 20;
const KIB: usize = 1 << 10;
/// A page that no window of a test takes at once.
const LARGE: usize = 8 << 20;

async fn site(limits: &str) -> (Origin, SecuredGateway) {
    let large = pattern(LARGE);
    let origin = Origin::start(move |asked| {
        let large = large.clone();
        async move {
            match asked.seen.path_only() {
                "/large" => Reply::fresh(large),
                "/live/large" => Reply::ok(large),
                "/upload" => {
                    asked.read().await;
                    Reply::ok("taken").header("cache-control", "no-store")
                }
                "/never" => std::future::pending().await,
                _ => Reply::fresh(vec![b'p'; 1_000]),
            }
        }
    })
    .await;
    let setup = Setup::new(&origin)
        .listener("limits", limits)
        .route("{name: live, match: {path: [/live/*, /never]}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}");
    let secured = SecuredGateway::start(setup).await;
    (origin, secured)
}

/// A client that asks for one page after the other until it is told to stop. It panics when one of
/// them is not served.
struct AskingBystander {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    asking: JoinHandle<()>,
}

impl AskingBystander {
    async fn begin(secured: &SecuredGateway) -> Self {
        let client = secured.client().await;
        let (stop, served) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let asking = tokio::spawn({
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            async move {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/page").await.status, 200);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self {
            stop,
            served,
            asking,
        }
    }

    /// Waits until it was served so often since now, so that a starved one shows.
    async fn goes_on(&self) {
        let before = self.served.load(Ordering::SeqCst);
        wait_until("a client beside it is served", SOON, || {
            self.served.load(Ordering::SeqCst) >= before + 10 || self.asking.is_finished()
        })
        .await;
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        within("the client beside it ends", SOON, self.asking)
            .await
            .unwrap();
        self.served.load(Ordering::SeqCst)
    }
}

/// Writes as much of 1.2 MiB as the gateway takes; how much that was.
async fn pour(stream: Option<RawStream>) -> u64 {
    let Some(mut stream) = stream else { return 0 };
    // A write that waits for a window does not always notice that the stream was stopped.
    let stopped = stream.send.stopped();
    let (piece, mut sent) = (vec![0; 64 * KIB], 0);
    let pouring = async {
        while sent < 1_200 * KIB as u64 {
            match stream.send.write(&piece).await {
                Ok(count) => sent += count as u64,
                Err(_) => break,
            }
        }
    };
    let either = async {
        tokio::select! {
            () = pouring => {}
            _ = stopped => {}
        }
    };
    within(
        "the gateway takes or stops a frame without end",
        SOON,
        either,
    )
    .await;
    sent
}

/// F2 of the design: frames that say that they are 1 GiB long, on 100 streams at once, each of which
/// sends 1.2 MiB or as much as is taken of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_any_length_cost_nothing() {
    let (_origin, secured) = site("{}").await;
    let bystander = secured.client().await;
    let head = |raw: &RawH3| headers(&raw.head("POST", "/upload"));
    type Begin = fn(Vec<u8>) -> Vec<u8>;
    let kinds: [(&str, Begin); 4] = [
        ("HEADERS", |_| frame_head(kind::HEADERS, 1 << 30)),
        ("an unknown frame", |_| frame_head(kind::GREASE, 1 << 30)),
        ("an unknown frame behind the head", |head| {
            [head, frame_head(kind::GREASE, 1 << 30)].concat()
        }),
        ("trailers", |head| {
            let content = frame(kind::DATA, b"x");
            [head, content, frame_head(kind::HEADERS, 1 << 30)].concat()
        }),
    ];
    // What stays after the first of each kind is what every gateway has.
    for (round, batches) in [("to warm up", 1), ("measured", 3)] {
        let before = secured.gateway.resident_bytes();
        secured.gateway.forget_peak();
        let mut served = 0;
        for (what, begin) in kinds {
            let mut sent = 0;
            for _ in 0..batches {
                let raw = secured.raw().await;
                let begun = begin(head(&raw));
                let pouring = (0..100).map(|_| async { pour(raw.try_stream(&begun).await).await });
                let beside = async {
                    for _ in 0..20 {
                        assert_eq!(bystander.get("/page").await.status, 200, "beside {what}");
                        served += 1;
                    }
                };
                let (poured, ()) = futures_util::future::join(join_all(pouring), beside).await;
                assert_eq!(poured.len(), 100);
                sent += poured.iter().sum::<u64>();
            }
            eprintln!("{round}: {what}: {} MiB were taken", sent / MIB);
        }
        for _ in 0..batches * 10 {
            let raw = secured.bare().await;
            let begun = frame_head(kind::SETTINGS, 1 << 30);
            let mut control = raw.one_way(one_way::CONTROL, begun).await;
            while control.write(&[0; 64 * KIB]).await.is_ok() {}
            assert_eq!(raw.closed().await, RawEnd::Closed(code::EXCESSIVE_LOAD));
        }
        assert_eq!(served, batches * 80);
        let grown = secured.gateway.peak_bytes().saturating_sub(before);
        eprintln!(
            "{round}: grown by {} KiB from {} KiB",
            grown >> 10,
            before >> 10
        );
        // Alone it grows by nothing when it is warm; on a loaded machine datagrams wait for it. To
        // keep what came on a hundred streams would take 100 MiB and more.
        assert!(grown < 16 * MIB, "{round}: grown by {grown} octets");
    }
}

/// Sends a request over and over, each broken off in this way, until the connection ends; how
/// many were sent.
async fn flood(
    raw: &RawH3,
    mut begin: impl FnMut(&RawH3) -> Vec<u8>,
    end: fn(&mut RawStream),
) -> usize {
    // To drop a stream would stop its answer, too.
    let mut kept = Vec::new();
    for count in 0..5_000 {
        let Some(mut stream) = raw.try_stream(begin(raw)).await else {
            return count;
        };
        end(&mut stream);
        kept.push(stream);
        if count % 50 == 49 {
            // Both directions of the stream are gone, but what was sent before must have arrived.
            tokio::task::yield_now().await;
        }
    }
    panic!("5,000 requests were begun and broken off");
}

#[tokio::test]
async fn resets_and_stops_without_end_end_the_connection() {
    let (_origin, secured) = site("{}").await;
    let bystander = AskingBystander::begin(&secured).await;
    let get = |path: &'static str| move |raw: &RawH3| headers(&raw.get(path));
    let upload = |raw: &RawH3| {
        [
            headers(&raw.head("POST", "/upload")),
            frame(kind::DATA, b"some"),
        ]
        .concat()
    };
    fn stops(stream: &mut RawStream) {
        let _ = stream.send.finish();
        stream.stop(code::REQUEST_CANCELLED);
    }
    fn resets(stream: &mut RawStream) {
        stream.reset(code::REQUEST_CANCELLED);
    }
    fn both(stream: &mut RawStream) {
        stream.reset(code::REQUEST_CANCELLED);
        stream.stop(code::REQUEST_CANCELLED);
    }
    let mut ended = 0;
    for what in [
        "stopped, at an origin that never answers",
        "stopped",
        "both at once",
        "an upload that is reset",
        "half a head that is reset",
    ] {
        let raw = secured.raw().await;
        let count = match what {
            "stopped, at an origin that never answers" => flood(&raw, get("/never"), stops).await,
            "stopped" => flood(&raw, get("/large"), stops).await,
            "both at once" => flood(&raw, get("/never"), both).await,
            "an upload that is reset" => flood(&raw, upload, resets).await,
            _ => flood(&raw, |raw| headers(&raw.get("/"))[..9].to_vec(), resets).await,
        };
        assert_eq!(
            raw.closed().await,
            RawEnd::Closed(code::EXCESSIVE_LOAD),
            "{what}"
        );
        assert!(count >= 256, "{what}: ended after {count}");
        bystander.goes_on().await;
        ended += 1;
    }
    assert_eq!(ended, 5);
    bystander.end().await;
}

#[tokio::test]
async fn some_resets_and_stops_are_borne() {
    let (_origin, secured) = site("{}").await;
    let raw = secured.raw().await;
    for _ in 0..200 {
        let mut stream = raw.stream(headers(&raw.get("/large"))).await;
        let _ = stream.send.finish();
        // Something of the answer has come.
        let mut first = [0; 1];
        stream.receive.read_exact(&mut first).await.unwrap();
        stream.stop(code::REQUEST_CANCELLED);
    }
    assert!(raw.answers("/page").await);
}

#[tokio::test]
async fn frames_that_carry_nothing_end_the_connection() {
    let (_origin, secured) = site("{}").await;
    let bystander = AskingBystander::begin(&secured).await;
    let mut ended = 0;
    for (what, idle) in [
        ("empty DATA", frame(kind::DATA, [])),
        ("empty unknown frames", frame(kind::GREASE, [])),
        ("unknown frames", frame(kind::GREASE, [0; 100])),
    ] {
        let raw = secured.raw().await;
        let mut stream = raw.stream(headers(&raw.head("POST", "/upload"))).await;
        let flood = idle.repeat(10_000);
        for piece in flood.chunks(KIB) {
            if !stream.write(piece).await {
                break;
            }
        }
        assert_eq!(
            raw.closed().await,
            RawEnd::Closed(code::EXCESSIVE_LOAD),
            "{what}"
        );
        bystander.goes_on().await;
        ended += 1;
    }
    for (what, one) in [
        (
            "PRIORITY_UPDATE",
            frame(kind::PRIORITY_UPDATE, [&number(0)[..], b"u=1"].concat()),
        ),
        ("MAX_PUSH_ID", frame(kind::MAX_PUSH_ID, number(1))),
        ("GOAWAY", frame(kind::GOAWAY, number(0))),
        ("unknown frames of control", frame(kind::GREASE, [])),
    ] {
        let mut raw = secured.raw().await;
        let flood = one.repeat(20_000);
        for piece in flood.chunks(KIB) {
            if raw.control().write_all(piece).await.is_err() {
                break;
            }
        }
        assert_eq!(
            raw.closed().await,
            RawEnd::Closed(code::EXCESSIVE_LOAD),
            "{what}"
        );
        bystander.goes_on().await;
        ended += 1;
    }
    assert_eq!(ended, 7);
    assert!(bystander.end().await > 50);
}

/// Content in pieces of one octet costs time and no more: it is whole.
#[tokio::test]
async fn content_in_the_smallest_frames_is_borne() {
    let (origin, secured) = site("{}").await;
    let raw = secured.raw().await;
    let mut stream = raw.stream(headers(&raw.head("POST", "/upload"))).await;
    assert!(stream.write(frame(kind::DATA, b"x").repeat(20_000)).await);
    stream.send.finish().unwrap();
    assert_eq!(stream.end().await.status(), Some(200));
    assert_eq!(origin.last().path, "/upload");
}

/// A client whose windows are so small; the second is that of the connection.
fn narrow(stream: u32, connection: u32) -> Reach {
    Reach::with(|transport| {
        transport
            .stream_receive_window(VarInt::from_u32(stream))
            .receive_window(VarInt::from_u32(connection))
            .keep_alive_interval(Some(Duration::from_millis(200)));
    })
}

async fn is_reset(stream: &mut RawStream) {
    let reset = within("a stream is cut", SOON, stream.receive.received_reset()).await;
    assert!(
        reset.expect("the connection lives").is_some(),
        "it ended properly"
    );
}

#[tokio::test]
async fn a_reader_whose_window_stays_shut_is_cut_alone() {
    let (_origin, secured) = site("{body_timeout: 1s, min_rate: 0}").await;
    let warm = secured.client().await;
    warm.get("/large").await;
    let mut cut = 0;
    for path in ["/large", "/live/large", "/large?missed"] {
        let raw = secured.raw_by(&narrow(1_500, 1 << 20)).await;
        let start = Instant::now();
        let mut stream = raw.stream(headers(&raw.get(path))).await;
        let _ = stream.send.finish();
        // Others on its connection go on all the time until it is cut.
        let others = async {
            loop {
                assert!(raw.answers("/page").await, "beside {path}");
            }
        };
        tokio::select! {
            () = is_reset(&mut stream) => {}
            () = others => {}
        }
        assert!(
            start.elapsed() >= Duration::from_millis(900),
            "{path}: too early"
        );
        assert!(raw.answers("/page").await, "after {path}");
        cut += 1;
    }
    assert_eq!(cut, 3);
}

#[tokio::test]
async fn a_reader_that_shuts_its_whole_connection_is_cut() {
    let (_origin, secured) = site("{body_timeout: 1s, min_rate: 0}").await;
    let bystander = AskingBystander::begin(&secured).await;
    let raw = secured.raw_by(&narrow(1 << 20, 3_000)).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = raw.stream(headers(&raw.get("/large"))).await;
        let _ = stream.send.finish();
        streams.push(stream);
    }
    let cut = join_all(streams.iter_mut().map(is_reset)).await;
    assert_eq!(cut.len(), 20);
    bystander.goes_on().await;
    bystander.end().await;
}

#[tokio::test]
async fn a_reader_that_creeps_is_cut_by_the_rate() {
    let (_origin, secured) = site("{body_timeout: 1m, min_rate: 64KiB, min_rate_grace: 1s}").await;
    for path in ["/large", "/live/large"] {
        let raw = secured.raw_by(&narrow(1_500, 1 << 20)).await;
        let mut stream = raw.stream(headers(&raw.get(path))).await;
        let _ = stream.send.finish();
        let start = Instant::now();
        let mut read = 0;
        let creeping = async {
            let mut piece = [0; 100];
            while let Ok(Some(count)) = stream.receive.read(&mut piece).await {
                read += count;
                // 1,000 octets a second.
                passed(start, Duration::from_millis(read as u64)).await;
            }
        };
        within("a creeping reader is cut", SOON, creeping).await;
        assert!(read < LARGE / 10, "{path}: it got {read} octets");
        assert!(
            start.elapsed() >= Duration::from_millis(900),
            "{path}: too early"
        );
        assert!(raw.answers("/page").await, "after {path}");
    }
}

#[tokio::test]
async fn a_slow_and_steady_reader_gets_all_of_it() {
    let (_origin, secured) = site("{body_timeout: 3s, min_rate: 1KiB, min_rate_grace: 2s}").await;
    let slowly = |path: &'static str| {
        let secured = &secured;
        async move {
            let raw = secured.raw_by(&narrow(64 << 10, 1 << 20)).await;
            let mut stream = raw.stream(headers(&raw.get(path))).await;
            let _ = stream.send.finish();
            let (start, mut read) = (Instant::now(), 0);
            while start.elapsed() < Duration::from_secs(7) {
                let mut piece = [0; 1_024];
                read += stream
                    .receive
                    .read(&mut piece)
                    .await
                    .unwrap()
                    .expect("it goes on");
                passed(start, Duration::from_secs_f64(read as f64 / 16_384.0)).await;
            }
            assert!(read < LARGE / 2, "it was not slow");
            match stream.receive.read_to_end(LARGE * 2).await {
                Ok(rest) => assert!(read + rest.len() > LARGE, "{path}"),
                Err(error) => panic!("{path} after {read}: {error}"),
            }
        }
    };
    futures_util::future::join(slowly("/large"), slowly("/live/large")).await;
}

#[tokio::test]
async fn a_stalled_reader_does_not_cost_a_stream_that_waits_for_its_origin() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            if asked.seen.path == "/gated" {
                held.pass().await;
                return Reply::ok("at last");
            }
            Reply::ok(vec![0; LARGE])
        }
    })
    .await;
    let setup = Setup::new(&origin).listener("limits", "{body_timeout: 1s, min_rate: 0}");
    let secured = SecuredGateway::start(setup).await;
    let raw = secured.raw_by(&narrow(1_500, 1 << 20)).await;
    let mut gated = raw.stream(headers(&raw.get("/gated"))).await;
    let _ = gated.send.finish();
    gate.reached_by(1).await;
    let mut stalled = raw.stream(headers(&raw.get("/stalled"))).await;
    let _ = stalled.send.finish();
    is_reset(&mut stalled).await;
    gate.open();
    assert_eq!(gated.end().await.status(), Some(200));
}

/// A client that leaves no room for the gateway's control stream does not hold a place for ever.
#[tokio::test]
async fn a_client_that_lets_no_control_stream_open_is_ended() {
    let (_origin, secured) =
        site("{header_timeout: 1s, idle_timeout: 1s, max_connections: 4}").await;
    let no_room = Reach::with(|transport| {
        transport
            .stream_receive_window(VarInt::from_u32(0))
            .keep_alive_interval(Some(Duration::from_millis(200)));
    });
    let no_streams = Reach::with(|transport| {
        transport
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .keep_alive_interval(Some(Duration::from_millis(200)));
    });
    let mut ended = 0;
    for reach in [no_room, no_streams] {
        let raw = secured.bare_by(&reach).await;
        match raw.closed().await {
            RawEnd::Closed(_) => ended += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ended, 2);
}

#[tokio::test]
async fn a_connection_that_is_idle_is_closed() {
    let (_origin, secured) = site("{idle_timeout: 1s}").await;
    let awake = Reach::with(|transport| {
        transport.keep_alive_interval(Some(Duration::from_millis(100)));
    });
    // It says that it lives all the time, asks for nothing, and is idle all the same.
    let raw = secured.raw_by(&awake).await;
    let start = Instant::now();
    for _ in 0..5 {
        assert!(raw.answers("/page").await);
    }
    assert_eq!(raw.closed().await, RawEnd::Closed(code::NO_ERROR));
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(
        raw.seen().goaways.last(),
        Some(&20),
        "five requests were served"
    );
    // One that never asked for anything.
    let raw = secured.raw_by(&awake).await;
    assert_eq!(raw.closed().await, RawEnd::Closed(code::NO_ERROR));
}

#[tokio::test]
async fn over_the_limit_of_connections_new_ones_are_refused_and_later_served() {
    let (_origin, secured) = site("{max_connections: 2}").await;
    let first = secured.client().await;
    let second = secured.client().await;
    for client in [&first, &second] {
        assert_eq!(client.get("/page").await.status, 200);
    }
    let reach = Reach::default();
    for _ in 0..20 {
        let endpoint = secured.endpoint(&reach);
        let refused = within("an answer", SOON, secured.try_connect(&endpoint, &reach)).await;
        match refused {
            Err(quinn::ConnectionError::ConnectionClosed(close)) => {
                assert_eq!(
                    close.error_code,
                    quinn::TransportErrorCode::CONNECTION_REFUSED
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(first.get("/page").await.status, 200);
    second.connection.close(0x100_u32.into(), b"");
    let endpoint = secured.endpoint(&reach);
    wait_for("a place is free again", SOON, || async {
        secured.try_connect(&endpoint, &reach).await.ok()
    })
    .await;
}

#[tokio::test]
async fn more_streams_than_allowed_at_once_are_not_begun() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            if asked.seen.path.starts_with("/held") {
                held.pass().await;
            }
            Reply::ok("x").header("cache-control", "no-store")
        }
    })
    .await;
    let setup = Setup::new(&origin).listener("limits", "{max_streams: 10}");
    let secured = SecuredGateway::start(setup).await;
    let client = secured.client().await;
    let asking = (0..30).map(|number| {
        let client = client.clone();
        tokio::spawn(async move { client.get(&format!("/held/{number}")).await.status })
    });
    let asking: Vec<_> = asking.collect();
    gate.reached_by(10).await;
    let other = secured.client().await;
    for _ in 0..50 {
        assert_eq!(other.get("/other").await.status, 200);
    }
    assert_eq!(gate.waiting(), 10);
    gate.open();
    for status in join_all(asking).await {
        assert_eq!(status.unwrap(), 200);
    }
}

/// Handshakes that are begun and never ended, as with forged addresses: they end by time, and
/// while there are many of them, a client must show that it gets what is sent to its address.
#[tokio::test]
async fn handshakes_that_never_end_are_cut_and_real_clients_are_served() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let setup = Setup::new(&origin).top("server", "{threads: 1, drain_timeout: 1m}");
    let secured = SecuredGateway::start_with(setup, ", handshake_timeout: 20s").await;
    let relay = Relay::start(secured.address(), || Fate::Passes, || Fate::IsLost).await;
    let reach = Reach::default();
    let endpoint = secured.endpoint(&reach);
    let retried = async || {
        let name = "lamina_quic_retries_total";
        secured.gateway.metric(name, &[]).await > 0.0
    };
    let mut forged = Vec::new();
    while !retried().await {
        assert!(forged.len() < 2_000, "nobody was told to come again");
        // Few at a time: a burst would be lost on its way.
        let carried = relay.carried();
        for _ in 0..20 {
            let (endpoint, reach, address) = (endpoint.clone(), reach.clone(), relay.address);
            let attempt = async move { connect_to(address, &endpoint, &reach).await.is_ok() };
            forged.push(tokio::spawn(attempt));
        }
        wait_until("they are on their way", SOON, || {
            relay.carried() >= carried + 40
        })
        .await;
    }
    assert!(forged.len() > 256, "told after {}", forged.len());
    let client = secured.client().await;
    assert_eq!(client.get("/page").await.status, 200);
    secured
        .gateway
        .metric_until(
            "lamina_quic_handshakes_total",
            &[("outcome", "timeout")],
            |count| count >= 200.0,
        )
        .await;
    for attempt in forged {
        attempt.abort();
    }
    assert_eq!(secured.client().await.get("/page").await.status, 200);
    assert_eq!(client.get("/page").await.status, 200);
}

/// A client that is gone without a word is not waited for.
#[tokio::test]
async fn a_client_that_vanishes_frees_its_place() {
    let (_origin, secured) = site("{max_connections: 1, idle_timeout: 2s}").await;
    let lost = Arc::new(AtomicBool::new(false));
    let fate = |lost: &Arc<AtomicBool>| {
        let lost = Arc::clone(lost);
        move || {
            if lost.load(Ordering::SeqCst) {
                Fate::IsLost
            } else {
                Fate::Passes
            }
        }
    };
    let relay = Relay::start(secured.address(), fate(&lost), fate(&lost)).await;
    let reach = Reach::default();
    let endpoint = secured.endpoint(&reach);
    let connection = connect_to(relay.address, &endpoint, &reach).await.unwrap();
    let client = e2e::h3::client::H3Client::over(endpoint, connection, &reach.name).await;
    assert_eq!(client.get("/page").await.status, 200);
    lost.store(true, Ordering::SeqCst);
    let endpoint = secured.endpoint(&reach);
    wait_for("its place is free", SOON * 2, || async {
        secured.try_connect(&endpoint, &reach).await.ok()
    })
    .await;
    assert!(!matches!(client.closed().await, H3Failure::Reset(_)));
}

/// A setting of this kind on the first stream is followed by no other: see `h3_frames`.
#[tokio::test]
async fn control_streams_that_stay_half_open_hold_nothing() {
    let (_origin, secured) = site("{}").await;
    let mut connections = Vec::new();
    for bytes in [&[][..], &[0x40], &settings(&[(6, 1 << 20)])[..2]] {
        let mut raw = secured.bare().await;
        if !bytes.is_empty() {
            raw.open_one_way(one_way::CONTROL, bytes).await;
        }
        assert!(raw.answers("/page").await, "{bytes:?}");
        connections.push(raw);
    }
    assert_eq!(connections.len(), 3);
}
