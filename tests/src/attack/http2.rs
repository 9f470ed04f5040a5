//! HTTP/2 requests that are malformed or say one thing twice (RFC 9113 §8, §5.1).
//!
//! Each is some frames on a fresh connection and what must become of them. Whatever it
//! is, nothing of it may reach an origin as it stands.

use std::net::SocketAddr;

use super::Attack;
use crate::h2raw::{End, H2, block, code, flag, frame, get, headers, kind, post};

/// A malformed request: bytes, and the stream on which it comes.
pub struct Malformed {
    pub name: &'static str,
    pub bytes: fn() -> Vec<u8>,
    pub gets: Gets,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gets {
    /// RST_STREAM; the connection goes on.
    Reset,
    /// GOAWAY with an error, or the connection closed.
    Gone,
    /// An answer with this status; the connection goes on.
    Status(u16),
}

type Field<'a> = (&'a [u8], &'a [u8]);

const METHOD: Field = (b":method", b"GET");
const SCHEME: Field = (b":scheme", b"http");
const HOST: Field = (b":authority", b"attacker.test");
const PATH: Field = (b":path", b"/smuggled");

/// A whole request on stream 1 of just these fields.
fn only(fields: &[Field]) -> Vec<u8> {
    headers(1, flag::END_STREAM, fields)
}

/// A whole GET with these fields more.
fn with(fields: &[Field]) -> Vec<u8> {
    only(&[&[METHOD, SCHEME, HOST, PATH], fields].concat())
}

/// A POST with these fields, and its body in DATA frames of these sizes.
fn body(fields: &[(&str, &str)], sizes: &[usize]) -> Vec<u8> {
    let mut bytes = post(1, "/smuggled", fields);
    for (n, size) in sizes.iter().enumerate() {
        let last = n + 1 == sizes.len();
        let flags = if last { flag::END_STREAM } else { 0 };
        bytes.extend(frame(kind::DATA, flags, 1, vec![b'x'; *size]));
    }
    bytes
}

macro_rules! malformed {
    ($($name:literal, $gets:expr, $bytes:expr;)+) => {
        &[$(Malformed { name: $name, bytes: || $bytes, gets: $gets },)+]
    };
}

use Gets::{Gone, Reset, Status};

/// Heads that are malformed.
pub const HEADS: &[Malformed] = malformed! {
    ":method twice", Reset, with(&[METHOD]);
    ":path twice", Reset, only(&[METHOD, SCHEME, HOST, PATH, (b":path", b"/other")]);
    ":authority twice", Reset, only(&[METHOD, SCHEME, HOST, HOST, PATH]);
    ":path after a field", Reset, only(&[METHOD, SCHEME, HOST, (b"accept", b"*/*"), PATH]);
    ":authority after a field", Reset, only(&[METHOD, SCHEME, PATH, (b"accept", b"*/*"), HOST]);
    "no :method", Reset, only(&[SCHEME, HOST, PATH]);
    "no :scheme", Reset, only(&[METHOD, HOST, PATH]);
    "no :path", Reset, only(&[METHOD, SCHEME, HOST]);
    "an empty :path", Reset, only(&[METHOD, SCHEME, HOST, (b":path", b"")]);
    "no fields at all", Reset, only(&[]);
    "an unknown pseudo-header", Gone, with(&[(b":smuggled", b"1")]);
    ":status in a request", Reset, only(&[METHOD, SCHEME, HOST, PATH, (b":status", b"200")]);
    ":protocol without CONNECT", Reset, only(&[METHOD, SCHEME, HOST, PATH, (b":protocol", b"websocket")]);
    "CRLF in :path", Reset, only(&[METHOD, SCHEME, HOST, (b":path", b"/a HTTP/1.1\r\nx-smuggled: 1\r\n\r\n")]);
    "CRLF in :authority", Reset, only(&[METHOD, SCHEME, PATH, (b":authority", b"a\r\nx-smuggled: 1")]);
    "CRLF in :method", Gone, only(&[(b":method", b"GET /smuggled HTTP/1.1\r\nx: "), SCHEME, HOST, PATH]);
    "CRLF in :scheme", Reset, only(&[METHOD, (b":scheme", b"http\r\nx-smuggled: 1"), HOST, PATH]);
    "a space in :method", Gone, only(&[(b":method", b"GET /smuggled"), SCHEME, HOST, PATH]);
    "an empty :method", Gone, only(&[(b":method", b""), SCHEME, HOST, PATH]);
    "a space in :path", Reset, only(&[METHOD, SCHEME, HOST, (b":path", b"/a HTTP/1.1")]);
    "NUL in :path", Reset, only(&[METHOD, SCHEME, HOST, (b":path", b"/a\0b")]);
    "a :path without slash", Reset, only(&[METHOD, SCHEME, HOST, (b":path", b"smuggled")]);
    "a :path that is a URL", Reset, only(&[METHOD, SCHEME, HOST, (b":path", b"http://other.test/smuggled")]);
    "a :path that is an address", Reset, only(&[METHOD, SCHEME, HOST, (b":path", b"@other.test/smuggled")]);
    "a fragment in :path", Status(400), only(&[METHOD, SCHEME, HOST, (b":path", b"/smuggled#b")]);
    "a :path that is a fragment", Status(400), only(&[METHOD, SCHEME, HOST, (b":path", b"#smuggled")]);
    "a :path that is a query", Status(400), only(&[METHOD, SCHEME, HOST, (b":path", b"?smuggled")]);
    "* for a GET", Status(400), only(&[METHOD, SCHEME, HOST, (b":path", b"*")]);
    "a space in :authority", Reset, only(&[METHOD, SCHEME, (b":authority", b"a b"), PATH]);
    "a path in :authority", Reset, only(&[METHOD, SCHEME, (b":authority", b"a.test/b"), PATH]);
    "a user in :authority", Status(400), only(&[METHOD, SCHEME, (b":authority", b"u:p@a.test"), PATH]);
    "an empty :authority", Reset, only(&[METHOD, SCHEME, (b":authority", b""), PATH]);
    "neither :authority nor host", Status(400), only(&[METHOD, SCHEME, PATH]);
    "host other than :authority", Status(400), with(&[(b"host", b"other.test")]);
    "host twice", Status(400), only(&[METHOD, SCHEME, PATH, (b"host", b"a.test"), (b"host", b"a.test")]);
    "a host with a path", Status(400), only(&[METHOD, SCHEME, PATH, (b"host", b"a.test/b")]);
    "CONNECT", Status(501), only(&[(b":method", b"CONNECT"), (b":authority", b"other.test:80")]);
    "CONNECT with :path", Reset, only(&[(b":method", b"CONNECT"), SCHEME, HOST, PATH]);
    "extended CONNECT", Reset, only(&[(b":method", b"CONNECT"), (b":protocol", b"websocket"), SCHEME, HOST, PATH]);
};

/// Fields that are malformed, or of one connection only (§8.2).
pub const FIELDS: &[Malformed] = malformed! {
    "an upper-case name", Gone, with(&[(b"X-Smuggled", b"1")]);
    "a space in a name", Gone, with(&[(b"x smuggled", b"1")]);
    "a colon in a name", Gone, with(&[(b"x:smuggled", b"1")]);
    "an empty name", Gone, with(&[(b"", b"smuggled")]);
    "CRLF in a name", Gone, with(&[(b"a: b\r\nx-smuggled", b"1")]);
    "NUL in a value", Gone, with(&[(b"x-smuggled", b"a\0b")]);
    "LF in a value", Gone, with(&[(b"x", b"a\nx-smuggled: 1")]);
    "CR in a value", Gone, with(&[(b"x", b"a\rx-smuggled: 1")]);
    "CRLF in a value", Gone, with(&[(b"x", b"a\r\n\r\nGET /smuggled HTTP/1.1\r\n")]);
    "connection", Reset, with(&[(b"connection", b"x-smuggled")]);
    "keep-alive", Reset, with(&[(b"keep-alive", b"timeout=5")]);
    "proxy-connection", Reset, with(&[(b"proxy-connection", b"close")]);
    "upgrade", Reset, with(&[(b"upgrade", b"h2c")]);
    "transfer-encoding", Reset, with(&[(b"transfer-encoding", b"chunked")]);
    "te other than trailers", Reset, with(&[(b"te", b"gzip")]);
    "te with more than trailers", Reset, with(&[(b"te", b"trailers, deflate")]);
    "content-length that is no number", Reset, with(&[(b"content-length", b"five")]);
    "content-length with a sign", Reset, with(&[(b"content-length", b"+5")]);
    "content-length that differs", Reset, with(&[(b"content-length", b"0"), (b"content-length", b"5")]);
    "content-length of a list", Reset, with(&[(b"content-length", b"0, 0")]);
    "content-length beyond 2^64", Reset, with(&[(b"content-length", b"18446744073709551616")]);
    "content-length without a body", Reset, with(&[(b"content-length", b"5")]);
};

/// Bodies that are not as they say, and trailers that are none (§8.1).
pub const BODIES: &[Malformed] = malformed! {
    "a body longer than content-length", Reset, body(&[("content-length", "5")], &[3, 3]);
    "a body shorter than content-length", Reset, body(&[("content-length", "5")], &[3, 1]);
    "a body that is missing", Reset, body(&[("content-length", "5")], &[0]);
    "chunked and a body", Reset, body(&[("transfer-encoding", "chunked"), ("content-length", "5")], &[5]);
    // h2 drops it, where RFC 9113 §8.1 asks for a reset; nobody downstream sees it.
    "a pseudo-header in the trailers", Status(200), [
        body(&[], &[]), frame(kind::DATA, 0, 1, b"body"), headers(1, flag::END_STREAM, &[(":path", ":smuggled")]),
    ].concat();
    "a connection field in the trailers", Reset, [
        body(&[], &[]), frame(kind::DATA, 0, 1, b"body"), headers(1, flag::END_STREAM, &[("transfer-encoding", "chunked")]),
    ].concat();
    "trailers that do not end the stream", Reset, [
        body(&[], &[]), frame(kind::DATA, 0, 1, b"body"), headers(1, 0, &[("x-smuggled", "1")]),
    ].concat();
};

/// Frames where or as they must not be (§4, §5, §6).
pub const FRAMES: &[Malformed] = malformed! {
    "HEADERS on stream 0", Gone, frame(kind::HEADERS, 5, 0, block(&[METHOD, SCHEME, HOST, PATH]));
    "HEADERS on an even stream", Gone, get(2, "/smuggled");
    "a stream number that goes down", Gone, [get(5, "/a"), get(3, "/smuggled")].concat();
    "a stream opened twice", Gone, [get(1, "/a"), get(1, "/smuggled")].concat();
    "DATA on stream 0", Gone, frame(kind::DATA, 0, 0, b"x");
    "DATA on an idle stream", Gone, frame(kind::DATA, 0, 7, b"x");
    "RST_STREAM on an idle stream", Gone, frame(kind::RST_STREAM, 0, 7, [0; 4]);
    "RST_STREAM on stream 0", Gone, frame(kind::RST_STREAM, 0, 0, [0; 4]);
    "RST_STREAM of three bytes", Gone, [get(1, "/a"), frame(kind::RST_STREAM, 0, 1, [0; 3])].concat();
    "WINDOW_UPDATE on an idle stream", Gone, frame(kind::WINDOW_UPDATE, 0, 7, [0, 0, 0, 1]);
    "WINDOW_UPDATE of nothing", Gone, frame(kind::WINDOW_UPDATE, 0, 0, [0; 4]);
    "a window beyond 2^31", Gone, frame(kind::WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0xff, 0xff]);
    "an initial window beyond 2^31", Gone, crate::h2raw::setting(4, 1 << 31);
    "a frame size below the least", Gone, crate::h2raw::setting(5, 100);
    "SETTINGS on a stream", Gone, frame(kind::SETTINGS, 0, 1, []);
    "SETTINGS of five bytes", Gone, frame(kind::SETTINGS, 0, 0, [0; 5]);
    "SETTINGS that acknowledge with content", Gone, frame(kind::SETTINGS, flag::ACK, 0, [0; 6]);
    "PING of seven bytes", Gone, frame(kind::PING, 0, 0, [0; 7]);
    "PING on a stream", Gone, frame(kind::PING, 0, 1, [0; 8]);
    "PUSH_PROMISE of a client", Gone, [post(1, "/a", &[]), frame(kind::PUSH_PROMISE, 4, 1, [0, 0, 0, 2])].concat();
    "GOAWAY on a stream", Gone, frame(kind::GOAWAY, 0, 1, [0; 8]);
    "CONTINUATION without HEADERS", Gone, frame(kind::CONTINUATION, 4, 1, []);
    "DATA inside a header block", Gone, [frame(kind::HEADERS, 0, 1, []), frame(kind::DATA, 0, 1, b"x")].concat();
    "CONTINUATION of another stream", Gone, [frame(kind::HEADERS, 0, 1, []), frame(kind::CONTINUATION, 4, 3, [])].concat();
    "a frame larger than allowed", Gone, frame(kind::DATA, 0, 1, vec![0; 20_000]);
    "padding longer than its frame", Gone, [post(1, "/a", &[]), frame(kind::DATA, flag::PADDED, 1, [200, 1])].concat();
    "a header block that is no HPACK", Gone, frame(kind::HEADERS, 5, 1, [0xff; 40]);
    "an index beyond the tables", Gone, frame(kind::HEADERS, 5, 1, [0xbe + 40]);
    "a table larger than allowed", Gone, frame(kind::HEADERS, 5, 1, [0x3f, 0xe1, 0xff, 0x7f]);
    "HEADERS that depend on themselves", Reset, frame(kind::HEADERS, 0x25, 1, [&[0, 0, 0, 1, 0][..], &block(&[METHOD, SCHEME, HOST, PATH])].concat());
};

/// Sends one and reads what becomes of it; the connection is given back where it goes on.
pub async fn send(address: SocketAddr, attack: &Malformed) -> (Option<Gets>, H2) {
    let mut h2 = H2::open(address).await;
    h2.write((attack.bytes)()).await;
    let gets = match h2.end_of(1).await {
        End::Answered { status, .. } if attack.gets == Gone => {
            // The stream before it was answered; what counts is the connection.
            h2.end().await.map_or(Some(Status(status)), |_| Some(Gone))
        }
        End::Answered { status, .. } => Some(Status(status)),
        End::Reset { code, .. } if code != code::NO_ERROR => Some(Reset),
        End::Reset { .. } => None,
        End::GoneAway(_) | End::Closed => Some(Gone),
    };
    (gets, h2)
}

/// Every table.
pub const TABLES: [&[Malformed]; 4] = [HEADS, FIELDS, BODIES, FRAMES];

/// All of them, as one attack.
pub const ALL: &[Attack] = &[Attack {
    name: "every malformed request",
    run: |address| Box::pin(everything(address)),
}];

async fn everything(address: SocketAddr) {
    for attack in TABLES.into_iter().flatten() {
        send(address, attack).await;
    }
}
