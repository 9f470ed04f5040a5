//! HTTP/2 clients that make work, or hold what they do not use.
//!
//! Each attack is finite and ends by itself; it asserts that it was stopped where the
//! gateway has to stop it, and otherwise that the work was bounded: the connection still
//! answers, or is cut. What is left afterwards is for the caller to look at.

use std::net::SocketAddr;

use super::Attack;
use crate::h2raw::{
    End, H2, block, code, flag, frame, get, headers, kind, post, reset, setting, window,
};

macro_rules! attacks {
    ($($name:literal => $run:ident;)+) => {
        &[$(Attack { name: $name, run: |address| Box::pin($run(address)) },)+]
    };
}

/// Clients that are stopped: GOAWAY, or the end of the connection.
pub const STOPPED: &[Attack] = attacks! {
    "rapid reset" => rapid_reset;
    "reset of streams that are being worked on" => reset_accepted;
    "rapid reset of one stream in two" => reset_half;
    "made-you-reset by windows" => made_you_reset_by_windows;
    "made-you-reset by lengths" => made_you_reset_by_lengths;
    "more streams than allowed, for ever" => refused_streams;
    "CONTINUATION flood" => continuation_flood;
    "empty CONTINUATION flood" => empty_continuation_flood;
    "HPACK bomb" => hpack_bomb;
    "a megabyte in one field" => huge_field;
    "SETTINGS flood" => settings_flood;
    "PING flood" => ping_flood;
    "PING flood that is not read" => deaf_ping_flood;
    "PRIORITY flood" => priority_flood;
    "WINDOW_UPDATE flood" => window_flood;
    "flood of unknown frames" => unknown_flood;
    "empty DATA flood" => empty_data_flood;
    "tiny DATA flood" => tiny_data_flood;
    "padding flood" => padding_flood;
    "RST_STREAM flood on a closed stream" => reset_flood;
    "GOAWAY flood" => goaway_flood;
};

/// Clients that are borne: what they hold is bounded, and they leave.
pub const BORNE: &[Attack] = attacks! {
    "windows that stay shut" => shut_windows;
    "windows that open byte by byte" => creeping_windows;
    "streams that never end" => endless_streams;
    "ten thousand fields" => many_fields;
    "a header block that never ends" => endless_block;
    "GOAWAY, then more requests" => goaway_then_requests;
    "a connection that is reset in the middle" => reset_connection;
    "a preface and silence" => preface_and_silence;
    "half a preface" => half_a_preface;
    "SETTINGS that shrink everything" => shrinking_settings;
};

/// More than any allowance.
const MANY: usize = 20_000;

/// Odd streams, from the first.
fn streams(n: usize) -> impl Iterator<Item = u32> {
    (0..n as u32).map(|n| 2 * n + 1)
}

/// Sends a flood, reading meanwhile; it must not be borne to its end.
async fn stopped(mut h2: H2, flood: &[u8]) {
    let whole = h2.flood(flood).await;
    let lives = whole && h2.lives().await;
    assert!(!lives, "a flood of {} bytes was borne", flood.len());
}

/// The same; the end must have been told, and with this code.
async fn calmed(mut h2: H2, flood: &[u8]) {
    h2.flood(flood).await;
    assert_eq!(h2.end().await, Some(code::ENHANCE_YOUR_CALM));
}

async fn rapid_reset(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    for batch in streams(MANY).collect::<Vec<_>>().chunks(32) {
        // In pieces, so that streams are being worked on when they are reset.
        let flood = batch.iter().flat_map(|stream| {
            let path = format!("/attack/reset/{stream}");
            [get(*stream, &path), reset(*stream, code::CANCEL)].concat()
        });
        if !h2.flood(&flood.collect::<Vec<u8>>()).await {
            return;
        }
        if batch[0] % 512 == 1 && !h2.lives().await {
            return;
        }
    }
    panic!("{MANY} streams were opened and reset");
}

/// Each batch is accepted, which the answer to a PING shows, before it is reset: h2 counts
/// only those that it had not accepted yet.
async fn reset_accepted(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    for batch in streams(MANY).collect::<Vec<_>>().chunks(100) {
        let open = batch
            .iter()
            .flat_map(|stream| get(*stream, &format!("/attack/slow/{stream}")));
        let close = batch.iter().flat_map(|stream| reset(*stream, code::CANCEL));
        let (open, close) = (open.collect::<Vec<u8>>(), close.collect::<Vec<u8>>());
        if !h2.flood(&open).await || !h2.lives().await || !h2.flood(&close).await {
            return;
        }
    }
    panic!("{MANY} streams were accepted and reset");
}

async fn reset_half(address: SocketAddr) {
    let flood = streams(MANY).flat_map(|stream| {
        let request = get(stream, &format!("/attack/half/{stream}"));
        match stream % 4 {
            1 => [request, reset(stream, code::CANCEL)].concat(),
            _ => request,
        }
    });
    stopped(H2::open(address).await, &flood.collect::<Vec<u8>>()).await;
}

async fn made_you_reset_by_windows(address: SocketAddr) {
    let flood = streams(MANY).flat_map(|stream| {
        let request = get(stream, &format!("/attack/made/{stream}"));
        [request, window(stream, 0)].concat()
    });
    stopped(H2::open(address).await, &flood.collect::<Vec<u8>>()).await;
}

async fn made_you_reset_by_lengths(address: SocketAddr) {
    let flood = streams(2_000).flat_map(|stream| {
        let request = post(stream, "/attack/made", &[("content-length", "1")]);
        [request, frame(kind::DATA, 0, stream, b"two")].concat()
    });
    stopped(H2::open(address).await, &flood.collect::<Vec<u8>>()).await;
}

async fn refused_streams(address: SocketAddr) {
    let flood = streams(2_000).flat_map(|stream| post(stream, "/attack/refused", &[]));
    stopped(H2::open(address).await, &flood.collect::<Vec<u8>>()).await;
}

async fn continuation_flood(address: SocketAddr) {
    let begin = frame(kind::HEADERS, flag::END_STREAM, 1, []);
    let more = frame(kind::CONTINUATION, 0, 1, block(&[("x", "y".repeat(1_000))]));
    stopped(
        H2::open(address).await,
        &[begin, more.repeat(MANY)].concat(),
    )
    .await;
}

async fn empty_continuation_flood(address: SocketAddr) {
    let begin = frame(kind::HEADERS, flag::END_STREAM, 1, []);
    let more = frame(kind::CONTINUATION, 0, 1, []);
    calmed(
        H2::open(address).await,
        &[begin, more.repeat(MANY)].concat(),
    )
    .await;
}

/// One field of 4,000 bytes that goes into the table, and its index again and again.
async fn hpack_bomb(address: SocketAddr) {
    let mut bomb = block(&[("x-bomb", "b".repeat(4_000))]);
    bomb[0] = 0x40;
    bomb.extend([0xbe; 12_000]);
    let bomb = frame(kind::HEADERS, 5, 1, bomb);
    calmed(H2::open(address).await, &bomb).await;
}

async fn huge_field(address: SocketAddr) {
    let all = block(&[("x-huge", "h".repeat(1 << 20))]);
    let frames = in_frames(&all);
    stopped(H2::open(address).await, &frames).await;
}

async fn many_fields(address: SocketAddr) {
    let fields: Vec<_> = (0..10_000).map(|n| (format!("x-{n}"), "1")).collect();
    let mut h2 = H2::open(address).await;
    h2.write(in_frames(&block(&fields))).await;
    let refused = matches!(h2.end_of(1).await, End::Answered { status: 431, .. });
    assert!(refused && h2.lives().await);
}

/// A header block in as many frames as it takes.
fn in_frames(block: &[u8]) -> Vec<u8> {
    let pieces = block.chunks(16_000);
    let last = pieces.len() - 1;
    let frames = pieces.enumerate().flat_map(|(n, piece)| {
        let end = if n == last { flag::END_HEADERS } else { 0 };
        match n {
            0 => frame(kind::HEADERS, end | flag::END_STREAM, 1, piece),
            _ => frame(kind::CONTINUATION, end, 1, piece),
        }
    });
    frames.collect()
}

async fn settings_flood(address: SocketAddr) {
    let flood = setting(3, 100).repeat(MANY);
    calmed(H2::open(address).await, &flood).await;
}

async fn ping_flood(address: SocketAddr) {
    let flood = frame(kind::PING, 0, 0, b"flooding").repeat(MANY);
    calmed(H2::open(address).await, &flood).await;
}

/// Nobody reads the answers: the gateway has to stop reading, or to end it.
async fn deaf_ping_flood(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    let flood = frame(kind::PING, 0, 0, b"flooding").repeat(50 * MANY);
    assert!(!h2.write(flood).await, "17 MB of PING were taken");
}

async fn priority_flood(address: SocketAddr) {
    let flood = streams(MANY).flat_map(|stream| {
        let payload = [0, 0, 0, 0, (stream % 256) as u8];
        frame(kind::PRIORITY, 0, stream, payload)
    });
    calmed(H2::open(address).await, &flood.collect::<Vec<u8>>()).await;
}

async fn window_flood(address: SocketAddr) {
    calmed(H2::open(address).await, &window(0, 1).repeat(MANY)).await;
}

async fn unknown_flood(address: SocketAddr) {
    let flood = frame(0xbe, 0xff, 0, b"unknown").repeat(MANY);
    calmed(H2::open(address).await, &flood).await;
}

async fn empty_data_flood(address: SocketAddr) {
    let flood = [
        post(1, "/attack/empty", &[]),
        frame(kind::DATA, 0, 1, []).repeat(MANY),
    ];
    calmed(H2::open(address).await, &flood.concat()).await;
}

/// Pieces of a byte cost more than they carry; so does a body that is nothing else.
async fn tiny_data_flood(address: SocketAddr) {
    let flood = [
        post(1, "/attack/tiny", &[]),
        frame(kind::DATA, 0, 1, b"x").repeat(3 * MANY),
    ];
    bounded(H2::open(address).await, &flood.concat()).await;
}

/// Frames of padding alone: they use the window, which nobody gives back on demand.
async fn padding_flood(address: SocketAddr) {
    let padding = [&[255][..], &[0; 255]].concat();
    let flood = [
        post(1, "/attack/padding", &[]),
        frame(kind::DATA, flag::PADDED, 1, padding).repeat(MANY),
    ];
    bounded(H2::open(address).await, &flood.concat()).await;
}

/// Stopped, or a stream that ended while the connection goes on.
async fn bounded(mut h2: H2, flood: &[u8]) {
    if h2.flood(flood).await {
        h2.write(reset(1, code::CANCEL)).await;
    }
}

async fn reset_flood(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    h2.write(get(1, "/attack/once")).await;
    h2.end_of(1).await;
    calmed(h2, &reset(1, code::CANCEL).repeat(MANY)).await;
}

async fn goaway_flood(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    // Something under way, or the first GOAWAY ends the connection.
    h2.write(post(1, "/attack/goaway", &[])).await;
    let goaway = frame(kind::GOAWAY, 0, 0, [0; 8]);
    stopped(h2, &goaway.repeat(MANY)).await;
}

/// A hundred large answers are asked for, and none is let out.
async fn shut_windows(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    h2.write(setting(4, 0)).await;
    let asked = streams(100).flat_map(|stream| get(stream, "/large"));
    h2.write(asked.collect::<Vec<u8>>()).await;
    assert!(h2.lives().await, "a shut window is no fault by itself");
    h2.abort();
}

async fn creeping_windows(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    h2.write(setting(4, 0)).await;
    let asked = streams(20).flat_map(|stream| get(stream, "/large"));
    h2.write(asked.collect::<Vec<u8>>()).await;
    for _ in 0..40 {
        h2.write(
            streams(20)
                .flat_map(|stream| window(stream, 1))
                .collect::<Vec<u8>>(),
        )
        .await;
    }
    h2.abort();
}

async fn endless_streams(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    let open = streams(100).flat_map(|stream| post(stream, "/attack/endless", &[]));
    h2.write(open.collect::<Vec<u8>>()).await;
    assert!(h2.lives().await, "an upload may take its time");
    h2.abort();
}

async fn endless_block(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    h2.write(frame(kind::HEADERS, 1, 1, block(&[(":method", "GET")])))
        .await;
    h2.abort();
}

async fn goaway_then_requests(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    h2.write(frame(kind::GOAWAY, 0, 0, [0; 8])).await;
    let asked = streams(50).flat_map(|stream| get(stream, "/attack/late"));
    h2.write(asked.collect::<Vec<u8>>()).await;
    h2.end().await;
}

async fn reset_connection(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    let asked = streams(20).flat_map(|stream| get(stream, "/large"));
    h2.write(asked.collect::<Vec<u8>>()).await;
    h2.frame().await;
    h2.abort();
}

async fn preface_and_silence(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    h2.frame().await;
    h2.abort();
}

async fn half_a_preface(address: SocketAddr) {
    let mut h2 = H2::silent(address).await;
    h2.write(&crate::h2raw::PREFACE[..12]).await;
    h2.abort();
}

/// The least table, window and frames, and a list of fields of no length.
async fn shrinking_settings(address: SocketAddr) {
    let mut h2 = H2::open(address).await;
    h2.write([setting(1, 0), setting(3, 0), setting(4, 1), setting(6, 1)].concat())
        .await;
    h2.write(headers(
        1,
        flag::END_STREAM,
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "attacker.test"),
            (":path", "/large"),
        ],
    ))
    .await;
    h2.lives().await;
    h2.abort();
}
