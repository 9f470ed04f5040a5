//! Small bodies that clients hold on many streams without reading them. They count and are cut as
//! large ones are (`server.max_held_bytes`).

use std::time::Duration;

use e2e::attack::held::streams;
use e2e::gateway::Gateway;
use e2e::h2raw::{self, H2, PREFACE, flag, setting};
use e2e::h3::client::H3Client;
use e2e::h3::raw::{RawH3, RawStream, headers};
use e2e::h3::{NAME, Reach, SecuredGateway};
use e2e::origin::Origin;
use e2e::raw::narrow;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::TlsClient;
use e2e::wait::wait_for;
use quinn::VarInt;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const HELD: &str = "lamina_held_bytes";
const INITIAL_WINDOW_SIZE: u16 = 4;
const MIB: u64 = 1 << 20;

/// Bytes that a round asks for. After the first round they are held, and fewer than are cut.
const ROUND: usize = 8 << 20;
const ROUNDS: usize = 4;
/// Streams of a connection.
const STREAMS: usize = 100;
/// What all answers may hold, and what may be on its way beyond that.
const IN_ALL: u64 = 12 * MIB;
const ON_ITS_WAY: u64 = 2 * MIB;
/// How much more may be resident at the worst moment, where bodies are so large that the streams
/// themselves cost little. Without a bound four rounds are held, which is 32 MiB, and their pieces.
const GROWTH: u64 = 40 * MIB;
const LARGE: usize = 60 << 10;

/// The protocol of clients whose windows are shut.
#[derive(Clone, Copy, Debug)]
enum ShutProtocol {
    Http2,
    Http3,
}

/// Clients that hold what they asked for until they are dropped.
#[derive(Default)]
struct ShutClients {
    http2: Vec<H2<TlsStream<TcpStream>>>,
    http3: Vec<(RawH3, Vec<RawStream>)>,
}

/// An attack of one kind.
#[derive(Clone, Copy, Debug)]
struct HeldCase {
    protocol: ShutProtocol,
    /// Bytes of each body.
    size: usize,
}

impl ShutClients {
    /// Adds a connection that asks for these paths.
    async fn ask(&mut self, protocol: ShutProtocol, secured: &SecuredGateway, paths: &[String]) {
        match protocol {
            ShutProtocol::Http2 => self.http2.push(ask_by_http2(secured, paths).await),
            ShutProtocol::Http3 => self.http3.push(ask_by_http3(secured, paths).await),
        }
    }
}

async fn ask_by_http2(secured: &SecuredGateway, paths: &[String]) -> H2<TlsStream<TcpStream>> {
    let client = TlsClient::new(secured.address(), NAME).http2();
    let stream = narrow(secured.address()).await;
    let mut h2 = H2::on(client.over(stream).await.unwrap().stream);
    let asks = streams(paths.len()).zip(paths).flat_map(|(stream, path)| {
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", NAME),
            (":path", path),
        ];
        h2raw::headers(stream, flag::END_STREAM, &fields)
    });
    let shut = [setting(1, 0), setting(INITIAL_WINDOW_SIZE, 0)].concat();
    h2.write([PREFACE.to_vec(), shut, asks.collect()].concat())
        .await;
    h2
}

async fn ask_by_http3(secured: &SecuredGateway, paths: &[String]) -> (RawH3, Vec<RawStream>) {
    let reach = Reach::with(|transport| {
        transport
            .stream_receive_window(VarInt::from_u32(1_500))
            .receive_window(VarInt::from_u32(1 << 20))
            .keep_alive_interval(Some(Duration::from_millis(500)));
    });
    let raw = secured.raw_by(&reach).await;
    let mut asked = Vec::new();
    for path in paths {
        let mut stream = raw.stream(headers(&raw.get(path))).await;
        let _ = stream.send.finish();
        asked.push(stream);
    }
    (raw, asked)
}

impl HeldCase {
    fn paths(self) -> Vec<String> {
        let count = ROUND.div_ceil(self.size);
        (0..count).map(|n| format!("/page/{n}")).collect()
    }

    async fn secured(self, origin: &Origin) -> SecuredGateway {
        let setup = Setup::new(origin)
            .top("cache", "{l1: {max_bytes: 24MiB}}")
            .top(
                "server",
                &format!("{{threads: 2, max_held_bytes: {IN_ALL}}}"),
            )
            // What stands still is not cut for that.
            .listener(
                "limits",
                "{max_held_bytes: 64MiB, body_timeout: 10m, min_rate: 0}",
            );
        SecuredGateway::start(setup).await
    }

    /// Clients that together ask for every page, and read none.
    async fn hold(self, secured: &SecuredGateway) -> ShutClients {
        let gateway = &secured.gateway;
        let requests = "lamina_requests_total";
        let before = gateway.metric(requests, &[]).await;
        let (mut clients, paths) = (ShutClients::default(), self.paths());
        for paths in paths.chunks(STREAMS) {
            clients.ask(self.protocol, secured, paths).await;
        }
        let all = before + paths.len() as f64;
        gateway.metric_until(requests, &[], |now| now >= all).await;
        clients
    }

    /// Makes the first tier drop the bodies of the pages.
    async fn drop_bodies(self, gateway: &Gateway, good: &H3Client) {
        gateway.purge(json!({"all": true})).await;
        read(good, self.paths()).await;
    }
}

async fn read(good: &H3Client, paths: impl IntoIterator<Item = String>) {
    for path in paths {
        assert_eq!(good.get(&path).await.status, 200, "{path}");
    }
}

async fn assert_counted_and_bounded(case: HeldCase) {
    let origin = Origin::pages(move |_| {
        Reply::ok(vec![b'p'; case.size]).header("cache-control", "max-age=600")
    })
    .await;
    let secured = case.secured(&origin).await;
    let gateway = &secured.gateway;
    let good = secured.client().await;
    read(&good, case.paths()).await;
    case.drop_bodies(gateway, &good).await;
    gateway.forget_peak();
    let before = gateway.resident_bytes();
    let mut held = Vec::new();
    for round in 0..ROUNDS {
        held.push(case.hold(&secured).await);
        case.drop_bodies(gateway, &good).await;
        if round == 0 {
            // Less than what makes answers be cut.
            let counted = |held| held >= 6.0 * MIB as f64;
            gateway.metric_until(HELD, &[], counted).await;
        }
        let when = format!("{case:?}, round {round}: no more than {IN_ALL} are held");
        wait_for(&when, Duration::from_secs(8), || async {
            let held = gateway.metric(HELD, &[]).await;
            (held <= (IN_ALL + ON_ITS_WAY) as f64).then_some(())
        })
        .await;
    }
    let growth = gateway.peak_bytes().saturating_sub(before);
    eprintln!("{case:?}: {} MiB more", growth >> 20);
    assert!(
        growth < GROWTH || case.size < LARGE,
        "{case:?}: {} MiB more",
        growth >> 20
    );
    drop(held);
    gateway.metric_until(HELD, &[], |held| held == 0.0).await;
}

async fn assert_small_bodies_counted(protocol: ShutProtocol) {
    for size in [5 << 10, 16 << 10, 60 << 10] {
        assert_counted_and_bounded(HeldCase { protocol, size }).await;
    }
}

#[tokio::test]
async fn small_bodies_behind_many_shut_streams_of_http2_are_bounded() {
    assert_small_bodies_counted(ShutProtocol::Http2).await;
}

#[tokio::test]
async fn small_bodies_behind_many_shut_streams_of_http3_are_bounded() {
    assert_small_bodies_counted(ShutProtocol::Http3).await;
}
