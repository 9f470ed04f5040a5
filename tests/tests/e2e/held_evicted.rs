//! Whole bodies that the cache has dropped and that clients still hold, because they do not read:
//! the bounds on what answers hold are kept, whatever the protocol, however the bodies left the
//! cache, and whatever a client does not do (`limits.max_held_bytes`, `server.max_held_bytes`).
//! Who reads on, however slowly, gets all of its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use e2e::attack::held::{LARGE, LARGE_PATH, page, streams};
use e2e::gateway::Gateway;
use e2e::h2raw::{End, H2, PREFACE, get, get_with, kind, setting, window};
use e2e::h3::raw::{RawH3, RawStream, headers};
use e2e::h3::relay::{Fate, Relay};
use e2e::h3::{Reach, SecuredGateway, connect_to};
use e2e::origin::Origin;
use e2e::raw::{RawConnection, narrow};
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, within};
use quinn::VarInt;
use serde_json::json;

const HELD: &str = "lamina_held_bytes";
const INITIAL_WINDOW_SIZE: u16 = 4;
const MIB: u64 = 1 << 20;

/// Bytes of one page, and how many of them a round asks for: 8 MiB in all.
const PAGE: usize = 256 << 10;
const PAGES: usize = 32;
/// Rounds, each of which makes another 8 MiB that are held beyond the cache.
const ROUNDS: usize = 10;
/// Streams of a connection in a round.
const STREAMS: usize = 16;

/// What all connections, and what one of them, may hold.
const IN_ALL: u64 = 12 * MIB;
const OF_ONE: u64 = 2 * MIB;
/// What may be on its way beyond a bound, for a moment or for each connection.
const ON_ITS_WAY: u64 = 2 * MIB;
/// How much more may be resident at the worst moment. Without bounds it would be ten times 8 MiB.
const GROWTH: u64 = 40 * MIB;

/// How the bodies leave the cache.
#[derive(Clone, Copy, Debug)]
enum EvictionCause {
    /// They are purged, and loaded again.
    Purged,
    /// They become stale, and a refresh takes their place.
    Refreshed,
    /// Other pages need their room.
    PushedOut,
}

/// How a client does not read.
#[derive(Clone, Copy, Debug)]
enum HoldingManner {
    Http1,
    /// The windows of its streams are shut.
    Http2Shut,
    /// The same, and each answer is a range of a page.
    Http2Range,
    /// Its windows are wide, and it reads nothing from its connection.
    Http2Deaf,
}

/// Clients that hold what they asked for until they are dropped.
#[derive(Default)]
struct HoldingClients {
    _http1: Vec<RawConnection>,
    http2: Vec<H2>,
}

async fn origin(lifetime: &'static str) -> Origin {
    Origin::pages(move |seen| match page(&seen.path) {
        Some(large) if seen.path.starts_with(LARGE_PATH) => large,
        _ => Reply::ok(vec![b'p'; PAGE]).header("cache-control", lifetime),
    })
    .await
}

fn setup(origin: &Origin, of_one: u64) -> Setup {
    Setup::new(origin)
        .top("cache", "{l1: {max_bytes: 24MiB}}")
        .top(
            "server",
            &format!("{{threads: 2, max_held_bytes: {}}}", IN_ALL),
        )
        .listener(
            "limits",
            &format!("{{max_held_bytes: {of_one}, max_connections: 2000}}"),
        )
}

fn paths() -> impl Iterator<Item = String> {
    (0..PAGES).map(|n| format!("/page/{n}"))
}

/// Reads pages under the host that the holders name, so that they are in the cache.
async fn load(h2: &mut H2, streams: &mut u32, paths: impl Iterator<Item = String>) {
    for path in paths {
        *streams += 2;
        h2.write(get(*streams, &path)).await;
        match h2.end_of(*streams).await {
            End::Answered { status: 200, .. } => {}
            other => panic!("{path}: {other:.100?}"),
        }
    }
}

/// A client that reads what it asks for.
struct GoodReader {
    h2: H2,
    last: u32,
}

impl GoodReader {
    async fn connect(gateway: &Gateway) -> Self {
        let h2 = H2::open(gateway.address).await;
        Self { h2, last: 1 }
    }

    async fn loads(&mut self, paths: impl Iterator<Item = String>) {
        load(&mut self.h2, &mut self.last, paths).await;
    }

    /// Makes the cache drop the bodies of the pages, and has them in the cache again.
    async fn replaces(
        &mut self,
        gateway: &Gateway,
        origin: &Origin,
        how: EvictionCause,
        round: usize,
    ) {
        match how {
            EvictionCause::Purged => {
                gateway.purge(json!({"all": true})).await;
            }
            EvictionCause::Refreshed => {
                let counts = || paths().map(|path| origin.count_of(&path)).min();
                let before = counts();
                let start = Instant::now();
                while counts() == before {
                    assert!(start.elapsed() < SOON, "the pages are refreshed");
                    self.loads(paths()).await;
                }
            }
            EvictionCause::PushedOut => {
                let more = (0..110).map(|n| format!("/more/{round}/{n}"));
                self.loads(more).await;
            }
        }
        self.loads(paths()).await;
    }
}

impl HoldingManner {
    /// Clients that together ask for every page, and read none.
    async fn begin(self, gateway: &Gateway) -> HoldingClients {
        let before = answered(gateway).await;
        let mut held = HoldingClients::default();
        let paths: Vec<_> = paths().collect();
        match self {
            Self::Http1 => {
                for path in &paths {
                    let mut raw = RawConnection::narrow(gateway.address).await;
                    raw.write(format!(
                        "GET {path} HTTP/1.1\r\nhost: attacker.test\r\n\r\n"
                    ))
                    .await;
                    held._http1.push(raw);
                }
            }
            Self::Http2Shut | Self::Http2Range | Self::Http2Deaf => {
                for paths in paths.chunks(STREAMS) {
                    held.http2.push(self.connect(gateway, paths).await);
                }
            }
        }
        gateway
            .metric_until("lamina_requests_total", &[], |now| {
                now >= before + PAGES as f64
            })
            .await;
        held
    }

    async fn connect(self, gateway: &Gateway, paths: &[String]) -> H2 {
        let stream = narrow(gateway.address).await;
        let mut h2 = H2::over(stream);
        h2.write([PREFACE, &setting(1, 0)].concat()).await;
        let windows = match self {
            Self::Http2Deaf => [setting(INITIAL_WINDOW_SIZE, 1 << 30), window(0, 1 << 30)].concat(),
            _ => setting(INITIAL_WINDOW_SIZE, 0),
        };
        let asks = streams(paths.len())
            .zip(paths)
            .flat_map(|(stream, path)| match self {
                Self::Http2Range => get_with(stream, path, &[("range", "bytes=100-9000")]),
                _ => get(stream, path),
            });
        h2.write([windows, asks.collect()].concat()).await;
        h2
    }
}

async fn answered(gateway: &Gateway) -> f64 {
    gateway.metric("lamina_requests_total", &[]).await
}

/// What is held comes down to a bound soon: who is cut lets go in a moment.
async fn is_within(gateway: &Gateway, bound: u64, when: &str) {
    let within = wait_for(when, Duration::from_secs(8), || async {
        let held = gateway.metric(HELD, &[]).await;
        (held <= bound as f64).then_some(())
    });
    within.await;
}

/// The attack of one kind, and what it may cost.
async fn assert_bounded(holder: HoldingManner, how: EvictionCause, of_one: u64) {
    let lifetime = match how {
        EvictionCause::Refreshed => "max-age=1, stale-while-revalidate=60",
        EvictionCause::Purged | EvictionCause::PushedOut => "max-age=600",
    };
    let origin = origin(lifetime).await;
    let gateway = setup(&origin, of_one).start().await;
    let mut good = GoodReader::connect(&gateway).await;
    // What loading and evicting cost by themselves is not what is measured.
    for round in 0..2 {
        good.loads(paths()).await;
        let more = (0..110).map(|n| format!("/before/{round}/{n}"));
        good.loads(more).await;
    }
    good.loads(paths()).await;
    gateway.forget_peak();
    let before = gateway.resident_bytes();
    let mut held = Vec::new();
    let connections = PAGES.div_ceil(STREAMS) as u64;
    for round in 0..ROUNDS {
        held.push(holder.begin(&gateway).await);
        good.replaces(&gateway, &origin, how, round).await;
        let of_all = match holder {
            HoldingManner::Http1 => u64::MAX,
            _ => (round as u64 + 1) * connections * (of_one + ON_ITS_WAY / 2),
        };
        let bound = of_all.min(IN_ALL + ON_ITS_WAY);
        let when = format!("{holder:?}, {how:?}, round {round}: no more than {bound} are held");
        is_within(&gateway, bound, &when).await;
    }
    let growth = gateway.peak_bytes().saturating_sub(before);
    eprintln!("{holder:?}, {how:?}: {} MiB more", growth >> 20);
    assert!(
        growth < GROWTH,
        "{holder:?}, {how:?}: {} MiB more",
        growth >> 20
    );
    drop(held);
    gateway.metric_until(HELD, &[], |held| held == 0.0).await;
}

#[tokio::test]
async fn bodies_that_leave_while_http1_clients_hold_them_are_bounded() {
    for how in [EvictionCause::Purged, EvictionCause::PushedOut] {
        assert_bounded(HoldingManner::Http1, how, OF_ONE).await;
    }
}

#[tokio::test]
async fn bodies_that_leave_behind_shut_windows_are_bounded() {
    for how in [
        EvictionCause::Purged,
        EvictionCause::Refreshed,
        EvictionCause::PushedOut,
    ] {
        assert_bounded(HoldingManner::Http2Shut, how, OF_ONE).await;
    }
    assert_bounded(HoldingManner::Http2Shut, EvictionCause::Purged, 64 * MIB).await;
}

#[tokio::test]
async fn bodies_of_which_a_range_was_asked_are_bounded() {
    assert_bounded(HoldingManner::Http2Range, EvictionCause::Purged, OF_ONE).await;
    assert_bounded(
        HoldingManner::Http2Range,
        EvictionCause::PushedOut,
        64 * MIB,
    )
    .await;
}

#[tokio::test]
async fn bodies_that_leave_while_a_connection_takes_no_bytes_are_bounded() {
    assert_bounded(HoldingManner::Http2Deaf, EvictionCause::Purged, OF_ONE).await;
    assert_bounded(HoldingManner::Http2Deaf, EvictionCause::PushedOut, 64 * MIB).await;
}

/// Two that read a large page at the same pace, one by HTTP/1 and one by HTTP/2.
struct SteadyReaders {
    http1: RawConnection,
    http2: H2,
    read: [usize; 2],
}

impl SteadyReaders {
    async fn begin(gateway: &Gateway) -> Self {
        let mut http1 = RawConnection::narrow(gateway.address).await;
        http1
            .write(format!(
                "GET {LARGE_PATH} HTTP/1.1\r\nhost: attacker.test\r\n\r\n"
            ))
            .await;
        assert_eq!(http1.head().await.status, 200);
        let mut http2 = H2::over(narrow(gateway.address).await);
        http2
            .write([PREFACE, &setting(1, 0), &get(1, LARGE_PATH)].concat())
            .await;
        Self {
            http1,
            http2,
            read: [0, 0],
        }
    }

    /// Reads until each has this much of the page.
    async fn read_to(&mut self, octets: usize) {
        let more = octets - self.read[0];
        assert!(self.http1.exactly(more).await.iter().all(|o| *o == b'h'));
        self.read[0] = octets;
        while self.read[1] < octets {
            let frame = self.http2.frame().await.expect("the connection goes on");
            assert_ne!(
                frame.kind,
                kind::RST_STREAM,
                "after {} octets",
                self.read[1]
            );
            if frame.kind == kind::DATA {
                let came = frame.payload.len();
                self.read[1] += came;
                let by = came as u32;
                self.http2
                    .write([window(0, by), window(1, by)].concat())
                    .await;
            }
        }
    }
}

#[tokio::test]
async fn who_stands_still_is_cut_and_who_reads_on_is_not() {
    let origin = origin("max-age=600").await;
    let gateway = setup(&origin, 64 * MIB).start().await;
    let mut good = GoodReader::connect(&gateway).await;
    let pages = || paths().chain([LARGE_PATH.to_owned()]);
    good.loads(pages()).await;
    let mut steady = SteadyReaders::begin(&gateway).await;
    steady.read_to(PAGE).await;
    gateway.purge(json!({"all": true})).await;
    good.loads(pages()).await;
    let mut held = Vec::new();
    for round in 0..ROUNDS {
        steady.read_to((round + 2) * PAGE).await;
        held.push(HoldingManner::Http2Shut.begin(&gateway).await);
        good.replaces(&gateway, &origin, EvictionCause::Purged, round)
            .await;
    }
    steady.read_to(LARGE).await;
    // Less than the bound is held by the last round: nobody of it need be cut.
    let last = held.pop();
    for h2 in held.iter_mut().flat_map(|holders| &mut holders.http2) {
        let mut cut = 0;
        while cut < STREAMS {
            let frame = h2.frame().await.expect("the connection goes on");
            cut += usize::from(frame.kind == kind::RST_STREAM);
        }
        assert!(h2.lives().await);
    }
    drop(last);
}

/// How an HTTP/3 client does not read.
#[derive(Clone, Copy, Debug)]
enum QuicHolder {
    /// The windows of its streams are shut but for the head.
    Shut,
    /// The window of the connection is.
    ShutConnection,
    /// Its windows take a range that it asks for, and no acknowledgement of it arrives.
    Vanished,
}

/// A connection, the network that it goes through, and what was asked on it.
type QuicHeld = (Relay, RawH3, Vec<RawStream>);

impl QuicHolder {
    fn reach(self) -> Reach {
        let (stream, connection) = match self {
            Self::Shut => (1_500, 1 << 20),
            Self::ShutConnection => (1 << 20, 9_000),
            Self::Vanished => (1 << 20, 16 << 20),
        };
        Reach::with(|transport| {
            transport
                .stream_receive_window(VarInt::from_u32(stream))
                .receive_window(VarInt::from_u32(connection))
                .keep_alive_interval(Some(Duration::from_millis(500)));
        })
    }

    async fn begin(self, secured: &SecuredGateway) -> Vec<QuicHeld> {
        let before = answered(&secured.gateway).await;
        let mut held = Vec::new();
        let paths: Vec<_> = paths().collect();
        for paths in paths.chunks(STREAMS) {
            let lost = Arc::new(AtomicBool::new(false));
            let answers = {
                let lost = Arc::clone(&lost);
                move || match lost.load(SeqCst) {
                    true => Fate::IsLost,
                    false => Fate::Passes,
                }
            };
            let relay = Relay::start(secured.address(), || Fate::Passes, answers).await;
            let reach = self.reach();
            let endpoint = secured.endpoint(&reach);
            let connection = connect_to(relay.address, &endpoint, &reach).await;
            let connection = connection.expect("the gateway accepts a QUIC connection");
            let raw = secured.raw_over(endpoint, connection, &reach).await;
            lost.store(matches!(self, Self::Vanished), SeqCst);
            let mut asked = Vec::new();
            for path in paths {
                let mut fields = raw.get(path);
                if matches!(self, Self::Vanished) {
                    fields.push(("range".to_owned(), "bytes=100-60000".to_owned()));
                }
                let mut stream = raw.stream(headers(&fields)).await;
                let _ = stream.send.finish();
                asked.push(stream);
            }
            held.push((relay, raw, asked));
        }
        secured
            .gateway
            .metric_until("lamina_requests_total", &[], |now| {
                now >= before + PAGES as f64
            })
            .await;
        held
    }
}

async fn assert_bounded_over_quic(holder: QuicHolder, of_one: u64) {
    let origin = origin("max-age=600").await;
    let secured = SecuredGateway::start(setup(&origin, of_one)).await;
    let gateway = &secured.gateway;
    let good = secured.client().await;
    let load = async || {
        for path in paths() {
            assert_eq!(good.get(&path).await.status, 200, "{path}");
        }
    };
    load().await;
    gateway.purge(json!({"all": true})).await;
    load().await;
    gateway.forget_peak();
    let before = gateway.resident_bytes();
    let mut held = Vec::new();
    for round in 0..ROUNDS {
        held.push(holder.begin(&secured).await);
        gateway.purge(json!({"all": true})).await;
        load().await;
        let when = format!("{holder:?}, {of_one} for one, round {round}: held is bounded");
        let of_all = (round as u64 + 1) * 2 * (of_one + ON_ITS_WAY / 2);
        is_within(gateway, of_all.min(IN_ALL + ON_ITS_WAY), &when).await;
    }
    let growth = gateway.peak_bytes().saturating_sub(before);
    eprintln!("{holder:?}, {of_one} for one: {} MiB more", growth >> 20);
    assert!(growth < GROWTH, "{holder:?}: {} MiB more", growth >> 20);
    // The gateway does not hear that a client of a broken network is gone.
    if !matches!(holder, QuicHolder::Vanished) {
        for (_, client, _) in held.iter().flatten() {
            client.connection.close(VarInt::from_u32(0), b"");
        }
        gateway.metric_until(HELD, &[], |held| held == 0.0).await;
    }
    drop(held);
}

/// Reads so many octets more of an answer of HTTP/3.
async fn read_on(stream: &mut RawStream, octets: usize) {
    let mut piece = vec![0; octets];
    let read = stream.receive.read_exact(&mut piece);
    within("more of an answer", SOON, read)
        .await
        .expect("who reads on is not cut");
}

#[tokio::test]
async fn who_stands_still_over_http3_is_cut_and_who_reads_on_is_not() {
    let origin = origin("max-age=600").await;
    let secured = SecuredGateway::start(setup(&origin, 64 * MIB)).await;
    let (gateway, good) = (&secured.gateway, secured.client().await);
    let load = async || {
        for path in paths() {
            assert_eq!(good.get(&path).await.status, 200, "{path}");
        }
    };
    assert_eq!(good.get(LARGE_PATH).await.status, 200);
    load().await;
    let reach = Reach::with(|transport| {
        transport.stream_receive_window(VarInt::from_u32(64 << 10));
    });
    let reader = secured.raw_by(&reach).await;
    let mut steady = reader.stream(headers(&reader.get(LARGE_PATH))).await;
    let _ = steady.send.finish();
    read_on(&mut steady, PAGE).await;
    gateway.purge(json!({"all": true})).await;
    load().await;
    let mut held = Vec::new();
    for _ in 0..ROUNDS {
        read_on(&mut steady, PAGE).await;
        held.push(QuicHolder::Shut.begin(&secured).await);
        gateway.purge(json!({"all": true})).await;
        load().await;
    }
    let rest = steady.receive.read_to_end(LARGE + PAGE);
    let rest = within("the rest", SOON, rest).await;
    rest.expect("who reads on is not cut");
    // Less than the bound is held by the last round: nobody of it need be cut.
    let last = held.pop();
    for (_, _, asked) in held.iter_mut().flatten() {
        for stream in asked {
            let reset = within("it is cut", SOON, stream.receive.received_reset());
            assert!(reset.await.expect("the connection goes on").is_some());
        }
    }
    drop(last);
}

#[tokio::test]
async fn bodies_that_leave_while_http3_clients_hold_them_are_bounded() {
    for holder in [QuicHolder::Shut, QuicHolder::ShutConnection] {
        for of_one in [OF_ONE, 64 * MIB] {
            assert_bounded_over_quic(holder, of_one).await;
        }
    }
}

#[tokio::test]
async fn bodies_that_leave_while_nothing_is_acknowledged_are_bounded() {
    for of_one in [OF_ONE, 64 * MIB] {
        assert_bounded_over_quic(QuicHolder::Vanished, of_one).await;
    }
}
