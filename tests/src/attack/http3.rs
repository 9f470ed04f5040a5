//! Clients that misbehave frame by frame: frames of HTTP/3, and frames of QUIC below them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::h3::certificates::Certificates;
use crate::h3::packets::{
    MOST_FRAMES, PacketClient, PacketEnd, new_connection_id, path_challenge, quic_frame,
    reset_stream, retire_connection_id, stream_frame,
};
use crate::h3::raw::{
    RawEnd, RawH3, code, frame, frame_head, headers, kind, number, one_way, settings,
};
use crate::h3::{Reach, connect_to};
use crate::wait::{SOON, within};

/// How HTTP/3 is spoken to a gateway.
#[derive(Clone)]
pub struct QuicWay {
    pub gateway: SocketAddr,
    pub certificates: Arc<Certificates>,
}

/// An attack of frames of HTTP/3; it panics when it gets what it must not.
pub struct Http3Attack {
    pub name: &'static str,
    pub run: fn(QuicWay) -> BoxFuture<'static, ()>,
}

/// A flood of frames of QUIC: what its nth packet has, and how a connection may be ended because of
/// it, with the guard that counts it.
pub struct PacketFlood {
    pub name: &'static str,
    /// Packets that are sent together.
    at_once: u64,
    packet: fn(u64) -> Vec<u8>,
    pub ends: &'static [(PacketEnd, &'static str)],
}

/// Errors of QUIC (RFC 9000 §20.1).
mod transport {
    use super::PacketEnd;

    pub const INTERNAL_ERROR: PacketEnd = PacketEnd::OfQuic(0x1);
    pub const STREAM_LIMIT_ERROR: PacketEnd = PacketEnd::OfQuic(0x4);
    pub const PROTOCOL_VIOLATION: PacketEnd = PacketEnd::OfQuic(0xa);
    pub const CONNECTION_ID_LIMIT_ERROR: PacketEnd = PacketEnd::OfQuic(0x9);
}

const EXCESSIVE: PacketEnd = PacketEnd::OfHttp3(code::EXCESSIVE_LOAD);
/// The guard that counts errors of QUIC.
const OF_QUIC: &str = "quic_transport_error";
const KIB: usize = 1 << 10;

/// Frames of HTTP/3.
pub const FRAMES: &[Http3Attack] = &[
    Http3Attack {
        name: "h3: a head that says to be 1 GiB long",
        run: |way| on_a_stream(way, frame_head(kind::HEADERS, 1 << 30), [0; KIB].into()).boxed(),
    },
    Http3Attack {
        name: "h3: an unknown frame that says to be 1 GiB long",
        run: |way| on_a_stream(way, frame_head(kind::GREASE, 1 << 30), [0; KIB].into()).boxed(),
    },
    Http3Attack {
        name: "h3: empty DATA without end",
        run: |way| in_an_upload(way, frame(kind::DATA, [])).boxed(),
    },
    Http3Attack {
        name: "h3: unknown frames without end",
        run: |way| in_an_upload(way, frame(kind::GREASE, [0; 100])).boxed(),
    },
    Http3Attack {
        name: "h3: PRIORITY_UPDATE without end",
        run: |way| {
            let update = [&number(0)[..], b"u=1"].concat();
            on_control(way, frame(kind::PRIORITY_UPDATE, update)).boxed()
        },
    },
    Http3Attack {
        name: "h3: MAX_PUSH_ID without end",
        run: |way| on_control(way, frame(kind::MAX_PUSH_ID, number(1))).boxed(),
    },
    Http3Attack {
        name: "h3: SETTINGS that say to be 1 GiB long",
        run: |way| {
            let first = frame_head(kind::SETTINGS, 1 << 30);
            begun_by(way, one_way::CONTROL, first, code::EXCESSIVE_LOAD).boxed()
        },
    },
    Http3Attack {
        name: "h3: SETTINGS of HTTP/2",
        run: |way| begun_by(way, one_way::CONTROL, settings(&[(4, 1)]), code::SETTINGS).boxed(),
    },
    Http3Attack {
        name: "h3: a control stream that begins with GOAWAY",
        run: |way| {
            let first = frame(kind::GOAWAY, number(0));
            begun_by(way, one_way::CONTROL, first, code::MISSING_SETTINGS).boxed()
        },
    },
    Http3Attack {
        name: "h3: instructions of QPACK",
        run: |way| begun_by(way, one_way::ENCODER, vec![0xff; 100], code::ENCODER_STREAM).boxed(),
    },
    Http3Attack {
        name: "h3: a push of the client",
        run: |way| begun_by(way, one_way::PUSH, number(1), code::STREAM_CREATION).boxed(),
    },
    Http3Attack {
        name: "h3: uploads that are reset over and over",
        run: |way| resets(way).boxed(),
    },
];

/// Frames of QUIC.
pub const FLOODS: &[PacketFlood] = &[
    PacketFlood {
        name: "quic: PING",
        at_once: 16,
        packet: |_| vec![quic_frame::PING; MOST_FRAMES],
        ends: &[(EXCESSIVE, "small_frames")],
    },
    PacketFlood {
        name: "quic: empty pieces of a stream",
        at_once: 16,
        packet: |_| packed(|| stream_frame(0, 0, b"")),
        ends: &[(EXCESSIVE, "small_frames")],
    },
    PacketFlood {
        name: "quic: the same pieces of one octet, with gaps, over and over",
        at_once: 4,
        packet: |nth| {
            let mut piece = nth * 180;
            packed(|| {
                piece += 1;
                stream_frame(0, 1 + (piece % 900) * 2, b"x")
            })
        },
        ends: &[(EXCESSIVE, "small_frames")],
    },
    PacketFlood {
        name: "quic: pieces of one octet with gaps",
        at_once: 4,
        packet: |nth| {
            let mut piece = nth * 300;
            packed(|| {
                piece += 1;
                stream_frame(0, 1 + piece * 2, b"x")
            })
        },
        ends: &[
            (transport::INTERNAL_ERROR, OF_QUIC),
            (EXCESSIVE, "small_frames"),
        ],
    },
    PacketFlood {
        name: "quic: PATH_CHALLENGE",
        at_once: 16,
        packet: path_challenge,
        ends: &[(EXCESSIVE, "path_challenges")],
    },
    PacketFlood {
        name: "quic: NEW_CONNECTION_ID",
        at_once: 1,
        packet: |nth| new_connection_id(nth + 8, nth + 8),
        ends: &[
            (transport::CONNECTION_ID_LIMIT_ERROR, OF_QUIC),
            (EXCESSIVE, "connection_ids"),
        ],
    },
    PacketFlood {
        name: "quic: NEW_CONNECTION_ID of the same id over and over",
        at_once: 1,
        packet: |_| packed(|| new_connection_id(1, 0)),
        ends: &[(EXCESSIVE, "connection_ids")],
    },
    PacketFlood {
        name: "quic: NEW_CONNECTION_ID of an id that was taken back",
        at_once: 1,
        // Each of the others makes us give it back once more.
        packet: |nth| match nth {
            0 => new_connection_id(8, 8),
            _ => packed(|| new_connection_id(3, 0)),
        },
        ends: &[
            (transport::CONNECTION_ID_LIMIT_ERROR, OF_QUIC),
            (EXCESSIVE, "connection_ids"),
        ],
    },
    PacketFlood {
        name: "quic: RETIRE_CONNECTION_ID",
        at_once: 1,
        // All that we have but the one that we use; others come for them.
        packet: |nth| {
            let ids = 1 + nth * 4..5 + nth * 4;
            ids.flat_map(retire_connection_id).collect()
        },
        ends: &[
            (EXCESSIVE, "connection_ids"),
            // It had not given out the next ones yet.
            (transport::PROTOCOL_VIOLATION, OF_QUIC),
        ],
    },
    PacketFlood {
        name: "quic: RETIRE_CONNECTION_ID of the same id over and over",
        at_once: 1,
        packet: |_| retire_connection_id(1).repeat(10),
        ends: &[(EXCESSIVE, "connection_ids")],
    },
    PacketFlood {
        name: "quic: RESET_STREAM above the limit",
        at_once: 1,
        packet: |_| reset_stream(4 * 100_000, 0),
        ends: &[(transport::STREAM_LIMIT_ERROR, OF_QUIC)],
    },
];

/// How long an attack goes on whose end is not heard.
const MOST_OF_AN_ATTACK: Duration = Duration::from_secs(3);

impl QuicWay {
    /// A new connection, with a control stream and no settings in it.
    pub async fn raw(&self) -> RawH3 {
        let mut raw = self.bare().await;
        raw.open_control().await;
        raw
    }

    async fn bare(&self) -> RawH3 {
        let reach = Reach::default();
        let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())
            .expect("a UDP socket can be opened");
        endpoint.set_default_client_config(self.certificates.quic(&reach));
        let connecting = connect_to(self.gateway, &endpoint, &reach);
        let connection = within("a QUIC handshake", SOON, connecting).await;
        let connection = connection.expect("the gateway accepts a QUIC connection");
        RawH3::over(endpoint, connection, &reach.name)
    }

    /// A new connection whose packets are written by hand.
    pub async fn packets(&self, reach: &Reach) -> PacketClient {
        PacketClient::connect(self.gateway, &self.certificates, reach).await
    }
}

impl PacketFlood {
    /// Sends packets until the gateway ends the connection, or for this long.
    pub async fn pour(&self, client: &mut PacketClient, span: Duration) -> Option<PacketEnd> {
        let (start, mut packets, mut end) = (Instant::now(), 0, None);
        while end.is_none() && start.elapsed() < span {
            for _ in 0..self.at_once {
                client.send(&(self.packet)(packets));
                packets += 1;
            }
            // So that the gateway hears of each of them, and does what it does about it.
            tokio::time::sleep(Duration::from_millis(2)).await;
            end = client.end();
        }
        end
    }

    /// The whole attack.
    ///
    /// # Panics
    /// If the connection is not ended as it must be.
    pub async fn run(&self, way: QuicWay) {
        let mut client = way.packets(&Reach::default()).await;
        let heard = self.pour(&mut client, MOST_OF_AN_ATTACK).await;
        // None: quinn says nothing of the end while the client fills its window.
        let is_right = |end| self.ends.iter().any(|(right, _)| end == *right);
        assert!(heard.is_none_or(is_right), "{}: {:?}", self.name, heard);
    }
}

/// As many of these frames as fit into a packet.
fn packed(mut frame: impl FnMut() -> Vec<u8>) -> Vec<u8> {
    let mut frames = Vec::new();
    loop {
        let next = frame();
        if frames.len() + next.len() > MOST_FRAMES {
            return frames;
        }
        frames.extend(next);
    }
}

async fn closes(raw: &RawH3, code: u64) {
    assert_eq!(raw.closed().await, RawEnd::Closed(code));
}

/// Begins a stream by this and goes on and on; the stream or the connection must end.
async fn on_a_stream(way: QuicWay, begun: Vec<u8>, piece: Vec<u8>) {
    let raw = way.raw().await;
    let mut stream = raw.stream(begun).await;
    // A write that waits for a window does not always notice that the stream was stopped.
    let stopped = stream.send.stopped();
    let pouring = async {
        for _ in 0..2 * KIB {
            if stream.send.write_all(&piece).await.is_err() {
                return;
            }
        }
        panic!("all of it was taken");
    };
    let either = async {
        tokio::select! {
            () = pouring => {}
            _ = stopped => {}
        }
    };
    within("a frame without end is stopped", SOON, either).await;
}

/// Sends one frame over and over as the content of a request.
async fn in_an_upload(way: QuicWay, one: Vec<u8>) {
    let raw = way.raw().await;
    let mut stream = raw.stream(headers(&raw.head("POST", "/upload"))).await;
    for piece in one.repeat(10_000).chunks(KIB) {
        if !stream.write(piece).await {
            break;
        }
    }
    closes(&raw, code::EXCESSIVE_LOAD).await;
}

/// Sends one frame over and over on the control stream.
async fn on_control(way: QuicWay, one: Vec<u8>) {
    let mut raw = way.raw().await;
    for piece in one.repeat(20_000).chunks(KIB) {
        if raw.control().write_all(piece).await.is_err() {
            break;
        }
    }
    closes(&raw, code::EXCESSIVE_LOAD).await;
}

/// Begins a one-way stream by this.
async fn begun_by(way: QuicWay, kind: u64, bytes: Vec<u8>, code: u64) {
    let mut raw = way.bare().await;
    raw.open_one_way(kind, bytes).await;
    closes(&raw, code).await;
}

/// Begins uploads and breaks them off.
async fn resets(way: QuicWay) {
    let raw = way.raw().await;
    let begun = headers(&raw.head("POST", "/upload"));
    for count in 0..5_000 {
        let Some(mut stream) = raw.try_stream(&begun).await else {
            return closes(&raw, code::EXCESSIVE_LOAD).await;
        };
        stream.reset(code::REQUEST_CANCELLED);
        if count % 50 == 49 {
            tokio::task::yield_now().await;
        }
    }
    panic!("5,000 requests were begun and broken off");
}
