//! QUIC below HTTP/3: clients that move, networks that lose and spoil, and datagrams and streams
//! with anything in them.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use e2e::h3::client::{Exchange, H3Client};
use e2e::h3::raw::{RawEnd, frame, headers, kind, number, one_way, section, settings};
use e2e::h3::relay::{Fate, Relay};
use e2e::h3::{Reach, SecuredGateway, connect_to, pattern};
use e2e::origin::Origin;
use e2e::random::Random;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, within};
use futures_util::future::join_all;
use http::Method;

const MIB: usize = 1 << 20;

/// A gateway of four workers before a page of so many bytes; it takes uploads, too.
async fn with_four_workers(length: usize) -> (Origin, SecuredGateway) {
    let body = pattern(length);
    let origin = Origin::pages(move |seen| match seen.method {
        Method::GET => Reply::ok(body.clone()).header("cache-control", "no-store"),
        _ => Reply::ok("taken"),
    })
    .await;
    let setup = Setup::new(&origin).top("server", "{threads: 4, drain_timeout: 1m}");
    (origin, SecuredGateway::start(setup).await)
}

/// Gives the client another port, as an address translation does that has forgotten it.
fn move_to_another_port(client: &H3Client) {
    let before = client.endpoint.local_addr().unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.endpoint.rebind(socket).unwrap();
    assert_ne!(client.endpoint.local_addr().unwrap(), before);
}

#[tokio::test]
async fn a_body_is_whole_though_its_client_moves_again_and_again() {
    const LENGTH: usize = 50 * MIB;
    let (_origin, secured) = with_four_workers(LENGTH).await;
    let client = secured.client().await;
    let Exchange {
        mut upload,
        mut download,
    } = client.request("/").open().await.unwrap();
    upload.finish().await;
    assert_eq!(download.head().await.unwrap().0, 200);
    let (mut body, mut moves) = (Vec::with_capacity(LENGTH), 0);
    while let Some(piece) = within("the next piece", SOON, download.piece())
        .await
        .unwrap()
    {
        body.extend_from_slice(&piece);
        if body.len() > (moves + 1) * 5 * MIB {
            move_to_another_port(&client);
            moves += 1;
        }
    }
    assert!(moves >= 9, "moved {moves} times");
    assert!(body == pattern(LENGTH), "the body was changed");
}

/// Many connections, so that every worker has some: each client finds its own worker again.
#[tokio::test]
async fn every_worker_keeps_its_clients_when_they_move() {
    const LENGTH: usize = 2 * MIB;
    let (origin, secured) = with_four_workers(LENGTH).await;
    let expected = pattern(LENGTH);
    let moving = (0..16).map(|number| {
        let (secured, expected) = (&secured, &expected);
        async move {
            let client = secured.client().await;
            for round in 0..3 {
                let Exchange {
                    mut upload,
                    mut download,
                } = client.request("/").open().await.unwrap();
                upload.finish().await;
                assert_eq!(download.head().await.unwrap().0, 200);
                let mut body = Vec::new();
                while let Some(piece) = within("the next piece", SOON, download.piece())
                    .await
                    .unwrap()
                {
                    if body.is_empty() {
                        move_to_another_port(&client);
                    }
                    body.extend_from_slice(&piece);
                }
                assert!(body == *expected, "client {number}, round {round}");
            }
            let mut ask = client.ask(Method::POST, "/");
            move_to_another_port(&client);
            for piece in expected.chunks(100_000) {
                ask = ask.body(piece.to_vec());
            }
            assert_eq!(ask.send().await.text(), "taken");
        }
    });
    assert_eq!(join_all(moving).await.len(), 16);
    let uploads = origin.seen().into_iter().filter_map(|seen| seen.body);
    assert_eq!(uploads.filter(|body| *body == expected).count(), 16);
}

#[tokio::test]
async fn a_network_that_loses_repeats_and_spoils_changes_nothing() {
    const LENGTH: usize = MIB;
    let (origin, secured) = with_four_workers(LENGTH).await;
    let expected = pattern(LENGTH);
    for seed in 0..3 {
        let fate = |seed| {
            let mut random = Random::new(seed);
            move || match random.below(100) {
                0..4 => Fate::IsLost,
                4..8 => Fate::ComesTwice,
                8..12 => Fate::IsSpoiled,
                _ => Fate::Passes,
            }
        };
        let relay = Relay::start(secured.address(), fate(seed), fate(seed + 100)).await;
        let reach = Reach::default();
        let endpoint = secured.endpoint(&reach);
        let connecting = connect_to(relay.address, &endpoint, &reach);
        let connection = within("a handshake", SOON, connecting).await.unwrap();
        let client = H3Client::over(endpoint, connection, &reach.name).await;
        assert!(client.get("/").await.body == expected, "seed {seed}");
        assert_eq!(client.post("/", expected.clone()).await.text(), "taken");
        assert!(origin.last().body.unwrap() == expected, "seed {seed}");
        assert!(relay.carried() > 1_000);
    }
}

/// A socket that sends what it likes to the port.
fn stranger(secured: &SecuredGateway) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(secured.address()).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_answered_with_those_that_are() {
    let (_origin, secured) = with_four_workers(1).await;
    let socket = stranger(&secured);
    // A long header, a version that is kept for this, and two connection ids (RFC 8999).
    let mut datagram = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8];
    datagram.extend_from_slice(b"to-them!");
    datagram.push(4);
    datagram.extend_from_slice(b"from");
    datagram.resize(1_200, 0);
    for first in 0..8 {
        // Each worker answers, whichever the id leads to.
        datagram[6] = first;
        socket.send(&datagram).unwrap();
        let answer = wait_for("an answer", SOON, || async {
            let mut answer = vec![0; 2_000];
            let length = socket.recv(&mut answer).ok()?;
            answer.truncate(length);
            Some(answer)
        })
        .await;
        assert_eq!((answer[0] & 0x80, &answer[1..5]), (0x80, &[0; 4][..]));
        assert_eq!(&answer[5..10], b"\x04from");
        let versions = &answer[10 + 9..];
        assert!(
            versions.chunks(4).any(|version| version == [0, 0, 0, 1]),
            "{answer:?}"
        );
    }
    // A short one gets nothing: the answer would be longer than the question.
    socket.send(&datagram[..100]).unwrap();
    assert_eq!(secured.client().await.get("/").await.status, 200);
    assert!(socket.recv(&mut [0; 2_000]).is_err());
}

#[tokio::test]
async fn datagrams_with_anything_in_them_hurt_nobody() {
    let (_origin, mut secured) = with_four_workers(1_000).await;
    let client = secured.client().await;
    client.get("/").await;
    let before = secured.gateway.resident_bytes();
    let (mut random, mut sent) = (Random::new(7), 0);
    for round in 0..40 {
        let socket = stranger(&secured);
        for _ in 0..100 {
            let length = 1 + random.below(1_500) as usize;
            let mut datagram: Vec<u8> = (0..length).map(|_| random.number() as u8).collect();
            match random.below(4) {
                // Something like a first packet of a client.
                0 if length > 6 => datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
                1 if length > 6 => datagram[..6].copy_from_slice(&[0xe3, 0, 0, 0, 1, 20]),
                // Something like a packet of a connection.
                2 => datagram[0] = 0x40 | (datagram[0] & 0x3f),
                _ => {}
            }
            // A full buffer of the kernel loses it, as any network may.
            sent += usize::from(socket.send(&datagram).is_ok());
        }
        assert_eq!(client.get("/").await.status, 200, "round {round}");
    }
    assert!(sent > 3_000, "{sent}");
    assert_eq!(secured.client().await.get("/").await.status, 200);
    assert!(secured.gateway.is_running());
    let grown = secured.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} octets");
}

/// Something that looks like HTTP/3 here and there.
fn nearly_http3(random: &mut Random) -> Vec<u8> {
    let any = |random: &mut Random, most: u64| -> Vec<u8> {
        (0..random.below(most))
            .map(|_| random.number() as u8)
            .collect()
    };
    let mut bytes = Vec::new();
    for _ in 0..1 + random.below(5) {
        let part = match random.below(7) {
            0 => any(random, 200),
            1 => frame(
                [0, 1, 3, 4, 5, 7, 0xd, 0x21][random.below(8) as usize],
                any(random, 60),
            ),
            2 => settings(&[(random.below(70), random.below(1 << 40))]),
            3 => {
                let mut section = section(&[
                    (":method", "GET"),
                    (":scheme", "https"),
                    (":authority", "shop.test"),
                    (":path", "/"),
                ]);
                let at = random.below(section.len() as u64) as usize;
                section[at] ^= 1 << random.below(8);
                frame(kind::HEADERS, section)
            }
            4 => headers(&[
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "shop.test"),
                (":path", "/"),
            ]),
            5 => [number(random.below(16)), number(random.number() >> 2)].concat(),
            _ => {
                let mut section = vec![0, 0];
                section.extend(any(random, 300));
                frame(kind::HEADERS, section)
            }
        };
        bytes.extend(part);
    }
    bytes
}

#[tokio::test]
async fn streams_with_anything_in_them_hurt_nobody() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let setup = Setup::new(&origin).listener("limits", "{header_timeout: 2s, body_timeout: 2s}");
    let mut secured = SecuredGateway::start(setup).await;
    let client = secured.client().await;
    let (mut streams, mut ends) = (0, std::collections::BTreeMap::new());
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut raw = secured.bare().await;
        if random.below(2) == 0 {
            raw.open_control().await;
        }
        for _ in 0..random.below(4) {
            let kind = [
                one_way::CONTROL,
                one_way::PUSH,
                one_way::ENCODER,
                one_way::DECODER,
                random.below(1 << 30),
            ];
            let bytes = nearly_http3(&mut random);
            if raw.connection.close_reason().is_none() {
                let Ok(opened) = raw.connection.open_uni().await else {
                    break;
                };
                let mut opened = opened;
                let kind = number(kind[random.below(5) as usize]);
                let _ = opened.write_all(&[kind, bytes].concat()).await;
                // Some stay open as long as the connection, some end.
                if random.below(3) == 0 {
                    let _ = opened.finish();
                } else {
                    std::mem::forget(opened);
                }
                streams += 1;
            }
        }
        for _ in 0..10 {
            let Some(mut stream) = raw.try_stream(nearly_http3(&mut random)).await else {
                break;
            };
            streams += 1;
            match random.below(4) {
                0 => stream.reset(random.below(1 << 20)),
                1 => stream.stop(random.below(1 << 20)),
                2 => std::mem::forget(stream),
                _ => {
                    let _ = stream.send.finish();
                    let end = match stream.end().await {
                        RawEnd::Answered(answer) => format!("{}", answer.status),
                        RawEnd::Reset(code) => format!("reset {code:#x}"),
                        RawEnd::Closed(code) => format!("closed {code:#x}"),
                        RawEnd::Lost(why) => panic!("seed {seed}: {why}"),
                    };
                    *ends.entry(end).or_insert(0) += 1;
                }
            }
        }
        raw.connection.close(0x100_u32.into(), b"");
        if seed % 10 == 0 {
            assert_eq!(client.get("/").await.text(), "page", "seed {seed}");
        }
    }
    eprintln!("{streams} streams: {ends:?}");
    assert!(
        streams > 400 && ends.len() >= 4,
        "{streams} streams: {ends:?}"
    );
    assert!(!ends.contains_key("500"), "{ends:?}");
    assert!(secured.gateway.is_running());
    assert_eq!(secured.client().await.get("/").await.text(), "page");
    let panicked = secured
        .gateway
        .log()
        .into_iter()
        .filter(|line| line.contains("panicked"));
    assert_eq!(panicked.collect::<Vec<_>>(), Vec::<String>::new());
}

/// A connection that is silent is ended after 30 s at most; asking for less is the client's right.
#[tokio::test]
async fn a_client_that_asks_for_a_shorter_silence_gets_it() {
    let (_origin, secured) = with_four_workers(1).await;
    let short = Reach::with(|transport| {
        let timeout = quinn::IdleTimeout::try_from(Duration::from_secs(1)).unwrap();
        transport.max_idle_timeout(Some(timeout));
    });
    let raw = secured.raw_by(&short).await;
    assert!(raw.answers("/").await);
    assert_eq!(raw.closed().await, RawEnd::Lost("timed out".to_owned()));
    assert_eq!(secured.client().await.get("/").await.status, 200);
}
