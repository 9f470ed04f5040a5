//! Clients that ask for much and read nothing, so that the gateway may hold it for them.
//!
//! Each attack asks for what [`page`] makes, stalls until the gateway has begun every answer,
//! and leaves. What the gateway held meanwhile is for the caller to look at.

use std::net::SocketAddr;

use super::Attack;
use crate::h2raw::{H2, ask, get_with, setting};
use crate::raw::RawConnection;
use crate::reply::Reply;

/// Bytes of the large page: as much as the cache keeps of one object by default.
pub const LARGE: usize = 8 << 20;

/// Bytes of each of the many pages.
pub const ONE_OF_MANY: usize = 1 << 20;

/// The large page's path; every path that begins so is as large.
pub const LARGE_PATH: &str = "/held/large";

/// Two ranges that are nearly all of the large page.
pub const TWO_RANGES: &str = "bytes=0-4000000,4000002-8388607";

/// Streams of one connection, nearly as many as it may have.
pub const STREAMS: usize = 120;

/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Those of HTTP/2, as the soak runs them.
pub const HTTP2: &[Attack] = &[
    Attack {
        name: "many ranges of a large page, behind shut windows",
        run: |address| Box::pin(two_ranges(address)),
    },
    Attack {
        name: "one range of a large page, behind windows of a byte",
        run: |address| Box::pin(one_range(address)),
    },
    Attack {
        name: "a large page many times, behind the usual windows",
        run: |address| Box::pin(whole(address)),
    },
    Attack {
        name: "many pages, behind shut windows",
        run: |address| Box::pin(many_pages(address)),
    },
];

/// The one of HTTP/1.
pub const HTTP1: &[Attack] = &[Attack {
    name: "many connections that read nothing of a large page",
    run: |address| Box::pin(deaf_connections(address)),
}];

/// What the origin answers on these paths.
pub fn page(path: &str) -> Option<Reply> {
    let rest = path.strip_prefix("/held/")?;
    let size = if rest.starts_with("large") {
        LARGE
    } else {
        ONE_OF_MANY
    };
    Some(Reply::fresh(vec![b'h'; size]))
}

/// Odd streams, from the first.
pub fn streams(count: usize) -> impl Iterator<Item = u32> {
    (0..count as u32).map(|n| 2 * n + 1)
}

/// A connection whose streams have this window, with so many requests for a path on it, and
/// the head of each answer read.
pub async fn stalled(
    address: SocketAddr,
    window: u32,
    count: usize,
    request: impl Fn(u32) -> Vec<u8>,
) -> H2 {
    let mut h2 = H2::open(address).await;
    let requests = streams(count).flat_map(request).collect();
    h2.write([setting(INITIAL_WINDOW_SIZE, window), requests].concat())
        .await;
    h2.heads(count).await;
    h2
}

/// The many ranges of the large page on one stream.
pub fn ask_two_ranges(stream: u32) -> Vec<u8> {
    get_with(stream, LARGE_PATH, &[("range", TWO_RANGES)])
}

/// One range of the large page on one stream.
pub fn ask_one_range(stream: u32) -> Vec<u8> {
    get_with(stream, LARGE_PATH, &[("range", "bytes=1-")])
}

/// One of the many pages, another one on each stream.
pub fn ask_one_of_many(stream: u32) -> Vec<u8> {
    ask("GET", stream, &format!("/held/{stream}"), &[])
}

async fn two_ranges(address: SocketAddr) {
    stalled(address, 0, STREAMS, ask_two_ranges).await.abort();
}

async fn one_range(address: SocketAddr) {
    stalled(address, 1, STREAMS, ask_one_range).await.abort();
}

async fn whole(address: SocketAddr) {
    let request = |stream| ask("GET", stream, LARGE_PATH, &[]);
    stalled(address, 65_535, STREAMS, request).await.abort();
}

async fn many_pages(address: SocketAddr) {
    stalled(address, 0, STREAMS, ask_one_of_many).await.abort();
}

async fn deaf_connections(address: SocketAddr) {
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut raw = RawConnection::open(address).await;
        raw.write(format!("GET {LARGE_PATH} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        raw.head().await;
        held.push(raw);
    }
    held.into_iter().for_each(RawConnection::reset);
}
