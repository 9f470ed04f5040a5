//! What is counted of QUIC and HTTP/3.

use std::net::{Ipv4Addr, UdpSocket};

use e2e::h3::client::H3Client;
use e2e::h3::raw::{RawH3, code, frame, frame_head, headers, kind, one_way, settings};
use e2e::h3::relay::{Fate, Relay};
use e2e::h3::{Reach, SecuredGateway, connect_to, pattern};
use e2e::origin::Origin;
use e2e::random::Random;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, within};

const GUARDS: &str = "lamina_quic_guards_total";
const HANDSHAKES: &str = "lamina_quic_handshakes_total";

async fn site(limits: &str) -> (Origin, SecuredGateway) {
    let large = pattern(8 << 20);
    let origin = Origin::pages(move |seen| match seen.path.as_str() {
        "/large" => Reply::fresh(large.clone()),
        _ => Reply::fresh("page"),
    })
    .await;
    let setup = Setup::new(&origin).listener("limits", limits);
    let secured = SecuredGateway::start(setup).await;
    (origin, secured)
}

/// What a client writes, and the one guard that must count it.
struct GuardCase {
    guard: &'static str,
    /// On a control stream of its own, which was not opened before.
    control: Option<Vec<u8>>,
    /// On another unidirectional stream.
    one_way: Option<(u64, Vec<u8>)>,
    /// On the stream of a request.
    request: Option<Vec<u8>>,
}

impl GuardCase {
    fn control(guard: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            guard,
            control: Some(bytes),
            one_way: None,
            request: None,
        }
    }

    fn one_way(guard: &'static str, kind: u64, bytes: &[u8]) -> Self {
        Self {
            guard,
            control: None,
            one_way: Some((kind, bytes.to_vec())),
            request: None,
        }
    }

    fn request(guard: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            guard,
            control: None,
            one_way: None,
            request: Some(bytes),
        }
    }

    async fn write(&self, raw: &mut RawH3) {
        if let Some(bytes) = &self.control {
            raw.open_one_way(one_way::CONTROL, bytes).await;
        }
        if let Some((kind, bytes)) = &self.one_way {
            raw.open_one_way(*kind, bytes).await;
        }
        if let Some(bytes) = &self.request {
            // However it ends, it must be counted.
            let _ = raw.ask(bytes).await;
        }
    }
}

fn cases(raw: &RawH3) -> Vec<GuardCase> {
    let head = headers(&raw.get("/"));
    let behind_head = |more: Vec<u8>| [head.clone(), more].concat();
    let first = settings(&[]);
    let behind_settings = |more: Vec<u8>| [first.clone(), more].concat();
    vec![
        GuardCase::request("frame_unexpected", frame(kind::DATA, b"x")),
        GuardCase::request("frame_error", frame_head(kind::HEADERS, 100)),
        GuardCase::request("message_error", headers(&[(":method", "GET")])),
        GuardCase::request("request_incomplete", Vec::new()),
        GuardCase::request(
            "qpack_decompression_failed",
            frame(kind::HEADERS, [0xff; 20]),
        ),
        GuardCase::request("head_too_large", frame_head(kind::HEADERS, 1 << 30)),
        GuardCase::request(
            "empty_frames",
            behind_head(frame(kind::DATA, []).repeat(200)),
        ),
        GuardCase::request(
            "unknown_frames",
            behind_head(frame(kind::GREASE, vec![0; 70_000])),
        ),
        GuardCase::control("missing_settings", frame(kind::GOAWAY, [0])),
        GuardCase::control("settings_error", settings(&[(0x2, 1)])),
        GuardCase::control("closed_critical_stream", Vec::new()),
        GuardCase::control("id_error", behind_settings(frame(kind::CANCEL_PUSH, [1]))),
        GuardCase::control("control_frame_size", frame_head(kind::SETTINGS, 1 << 20)),
        GuardCase::control(
            "control_frames",
            behind_settings(frame(kind::GREASE, []).repeat(2_000)),
        ),
        GuardCase::one_way("stream_creation_error", one_way::PUSH, b""),
        GuardCase::one_way("qpack_encoder_stream_error", one_way::ENCODER, &[0xff; 9]),
        GuardCase::one_way("qpack_decoder_stream_error", one_way::DECODER, &[0x80]),
        GuardCase::one_way("qpack_instructions", one_way::DECODER, &[0x40; 20_000]),
    ]
}

#[tokio::test]
async fn each_guard_counts_by_its_name() {
    let (_origin, secured) = site("{}").await;
    // A client that is dropped would end its control stream before its connection.
    let leave = |raw: &RawH3| raw.connection.close(0x100u32.into(), b"");
    let first = secured.raw().await;
    let cases = cases(&first);
    leave(&first);
    let gateway = &secured.gateway;
    for case in &cases {
        let mut raw = match case.control {
            Some(_) => secured.bare().await,
            None => secured.raw().await,
        };
        case.write(&mut raw).await;
        if case.guard == "closed_critical_stream" {
            raw.control().finish().unwrap();
        }
        let labels = [("guard", case.guard)];
        gateway
            .metric_until(GUARDS, &labels, |count| count == 1.0)
            .await;
        leave(&raw);
    }
    assert_eq!(cases.len(), 18);
    assert_eq!(gateway.metric(GUARDS, &[]).await, 18.0, "each counts once");
}

#[tokio::test]
async fn slow_clients_and_those_that_give_up_count() {
    let (_origin, secured) = site("{header_timeout: 1s, body_timeout: 1s}").await;
    let slow = secured.raw().await;
    let get = headers(&slow.get("/large"));
    assert_eq!(slow.stream(&get[..9]).await.end().await.status(), Some(408));
    let shut = Reach::with(|transport| {
        transport.stream_receive_window(quinn::VarInt::from_u32(1_000));
    });
    let reader = secured.raw_by(&shut).await;
    let mut held = reader.stream(&get).await;
    held.send.finish().unwrap();
    let hasty = secured.raw().await;
    while let Some(mut stream) = hasty.try_stream(&get[..9]).await {
        stream.reset(code::REQUEST_CANCELLED);
        stream.stop(code::REQUEST_CANCELLED);
    }
    for guard in ["slow_head", "slow_reader", "resets"] {
        let labels = [("guard", guard)];
        secured
            .gateway
            .metric_until(GUARDS, &labels, |count| count == 1.0)
            .await;
    }
}

#[tokio::test]
async fn handshakes_are_counted_by_outcome_and_apart_from_those_over_tcp() {
    let (_origin, secured) = site("{max_connections: 3}").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(secured.client().await);
    }
    let reach = Reach::default();
    let endpoint = secured.endpoint(&reach);
    let refused = within("a refusal", SOON, secured.try_connect(&endpoint, &reach)).await;
    assert!(refused.is_err());
    // A client knows of the end of its handshake before the gateway does.
    for (outcome, wanted) in [("full", 3.0), ("refused", 1.0)] {
        let outcome = [("outcome", outcome)];
        secured
            .gateway
            .metric_until(HANDSHAKES, &outcome, |count| count == wanted)
            .await;
    }
    let over_tcp = secured.gateway.metric("lamina_tls_handshakes_total", &[]);
    assert_eq!(over_tcp.await, 0.0);
}

#[tokio::test]
async fn a_client_that_moves_counts() {
    let (_origin, secured) = site("{}").await;
    let client = secured.client().await;
    client.get("/").await;
    let migrations = "lamina_quic_migrations_total";
    assert_eq!(secured.gateway.metric(migrations, &[]).await, 0.0);
    for moves in 1..=3 {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.endpoint.rebind(socket).unwrap();
        assert_eq!(client.get("/").await.status, 200);
        secured
            .gateway
            .metric_until(migrations, &[], |count| count == f64::from(moves))
            .await;
    }
}

#[tokio::test]
async fn packets_that_are_lost_count() {
    let (_origin, secured) = site("{}").await;
    let mut random = Random::new(5);
    let fate = move || match random.below(20) {
        0 => Fate::IsLost,
        _ => Fate::Passes,
    };
    let relay = Relay::start(secured.address(), || Fate::Passes, fate).await;
    let reach = Reach::default();
    let endpoint = secured.endpoint(&reach);
    let connecting = connect_to(relay.address, &endpoint, &reach);
    let connection = within("a handshake", SOON, connecting).await.unwrap();
    let client = H3Client::over(endpoint, connection, &reach.name).await;
    assert_eq!(client.get("/large").await.body.len(), 8 << 20);
    let lost = "lamina_quic_lost_packets_total";
    secured
        .gateway
        .metric_until(lost, &[], |count| count > 10.0)
        .await;
}
