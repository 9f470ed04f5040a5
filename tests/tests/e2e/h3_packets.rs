//! Frames of QUIC that carry nothing and cost something, and clients that acknowledge nothing.

use std::time::{Duration, Instant};

use e2e::attack::http3::FLOODS;
use e2e::h3::packets::{
    PacketClient, last_stream_frame, path_challenge, quic_frame, retire_connection_id,
    stream_frame, transport_parameter,
};
use e2e::h3::raw::headers;
use e2e::h3::{NAME, Reach, SecuredGateway};
use e2e::origin::Origin;
use e2e::process::cpu;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use quinn::VarInt;

const MIB: u64 = 1 << 20;
/// A page that no window of ours takes at once.
const LARGE: usize = 16 << 20;

async fn site() -> (Origin, SecuredGateway) {
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/live/large" => Reply::ok(vec![b'l'; LARGE]),
        _ => Reply::fresh(vec![b'p'; 1_000]),
    })
    .await;
    let setup = Setup::new(&origin)
        .route("{name: live, match: {path: /live/*}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}");
    (origin, SecuredGateway::start(setup).await)
}

async fn packets(secured: &SecuredGateway, reach: &Reach) -> PacketClient {
    PacketClient::connect(secured.address(), &secured.certificates, reach).await
}

/// What a client is told when it connects (edge.md, Q5).
#[tokio::test]
async fn the_transport_parameters_are_those_of_the_documents() {
    use transport_parameter::*;
    let (_origin, secured) = site().await;
    let usual = packets(&secured, &Reach::default()).await;
    let told = [
        (MAX_IDLE_TIMEOUT, Some(30_000)),
        (MAX_UDP_PAYLOAD_SIZE, Some(1_452)),
        (INITIAL_MAX_DATA, Some(MIB)),
        (INITIAL_MAX_STREAM_DATA_BIDI_LOCAL, Some(256 << 10)),
        (INITIAL_MAX_STREAM_DATA_BIDI_REMOTE, Some(256 << 10)),
        (INITIAL_MAX_STREAM_DATA_UNI, Some(256 << 10)),
        (INITIAL_MAX_STREAMS_BIDI, Some(128)),
        (INITIAL_MAX_STREAMS_UNI, Some(8)),
        (MAX_DATAGRAM_FRAME_SIZE, None),
    ];
    for (parameter, value) in told {
        assert_eq!(usual.announced(parameter), value, "{parameter:#x}");
    }
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let setup = Setup::new(&origin).listener("limits", "{max_streams: 7}");
    let narrow = SecuredGateway::start(setup).await;
    let narrow = packets(&narrow, &Reach::default()).await;
    assert_eq!(narrow.announced(INITIAL_MAX_STREAMS_BIDI), Some(7));
}

/// Each of them is ended, leaves nothing behind, and the pages of others are served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_carry_nothing_end_their_connection_alone() {
    let (_origin, secured) = site().await;
    let bystander = secured.client().await;
    let process = secured.gateway.process_id();
    let mut ended = 0;
    for flood in FLOODS {
        let what = flood.name;
        let mut client = packets(&secured, &Reach::default()).await;
        let (resident, spent) = (secured.gateway.resident_bytes(), cpu(process));
        secured.gateway.forget_peak();
        let guards = async |name: &str| {
            let labels = [("guard", name)];
            secured
                .gateway
                .metric("lamina_quic_guards_total", &labels)
                .await
        };
        let mut before = Vec::new();
        for (_, guard) in flood.ends {
            before.push(guards(guard).await);
        }
        let beside = async {
            loop {
                assert_eq!(bystander.get("/page").await.status, 200, "beside {what}");
                // It would take the gateway's time from the flood.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let is_counted = async || {
            for ((_, guard), before) in flood.ends.iter().zip(&before) {
                if guards(guard).await > *before {
                    return Some(());
                }
            }
            None
        };
        // quinn says nothing of the end while a client that acknowledges nothing fills its window.
        let heard = tokio::select! {
            heard = flood.pour(&mut client, SOON) => heard,
            () = wait_for("it is counted", SOON, &is_counted) => None,
            () = beside => unreachable!("it asks on and on"),
        };
        assert_eq!(bystander.get("/page").await.status, 200, "after {what}");
        let grown = secured.gateway.peak_bytes().saturating_sub(resident);
        eprintln!(
            "{what}: {heard:?}, {} ms of CPU with the bystander, grown by {} KiB",
            (cpu(process) - spent).as_millis(),
            grown >> 10
        );
        if let Some(end) = heard {
            let is_right = flood.ends.iter().any(|(right, _)| *right == end);
            assert!(is_right, "{what}: {end:?}");
        }
        wait_for("it is counted", SOON, &is_counted).await;
        assert!(grown < 16 * MIB, "{what}: grown by {grown} octets");
        ended += 1;
    }
    assert_eq!(ended, FLOODS.len());
}

/// What a client does with some of them is no flood.
#[tokio::test]
async fn some_frames_that_carry_nothing_are_borne() {
    let (_origin, secured) = site().await;
    let mut client = packets(&secured, &Reach::default()).await;
    let few = [
        vec![quic_frame::PING; 100],
        stream_frame(0, 0, b""),
        stream_frame(0, 1, b"x"),
        stream_frame(0, 3, b"x"),
        path_challenge(7),
        retire_connection_id(1),
    ];
    let start = Instant::now();
    // Longer than between two looks at what there was.
    while start.elapsed() < Duration::from_secs(3) {
        for frames in &few {
            client.send(frames);
        }
        assert_eq!(client.end(), None);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Windows of 64 MiB, and nothing that comes is acknowledged: what is loaded for such a client stays
/// at what may wait to be sent, 1 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_acknowledged_holds_a_megabyte_of_a_connection() {
    const CLIENTS: u32 = 10;
    let (_origin, secured) = site().await;
    let wide = Reach::with(|transport| {
        transport
            .stream_receive_window(VarInt::from_u32(64 << 20))
            .receive_window(VarInt::from_u32(64 << 20));
    });
    assert_eq!(secured.client().await.get("/page").await.status, 200);
    let resident = secured.gateway.resident_bytes();
    let request = headers(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", NAME),
        (":path", "/live/large"),
    ]);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = packets(&secured, &wide).await;
        // Two requests of each: they share what the connection may hold.
        for stream in [0, 4] {
            client.send(&last_stream_frame(stream, 0, &request));
        }
        clients.push(client);
    }
    let wanted = f64::from(CLIENTS) * 1_000_000.0;
    let (start, mut full_since, mut most) = (Instant::now(), None, 0.0_f64);
    // It must get there, and no further for a while.
    while full_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(2)) {
        assert!(start.elapsed() < SOON, "only {most} octets are held");
        for client in &mut clients {
            // It would be taken for gone.
            client.send(&[quic_frame::PING]);
            assert_eq!(client.end(), None);
        }
        most = most.max(secured.gateway.metric("lamina_held_bytes", &[]).await);
        if most >= wanted {
            full_since.get_or_insert_with(Instant::now);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Beside what waits to be sent there is what each load is ahead.
    let each = most / f64::from(CLIENTS) / MIB as f64;
    assert!(each < 2.0, "{each:.2} MiB are held for each");
    let grown = secured.gateway.resident_bytes().saturating_sub(resident) / MIB;
    assert!(grown < 6 * u64::from(CLIENTS), "grown by {grown} MiB");
}
