//! Bodies of HTTP/1 that break off or break their coding (RFC 9112 §6.3, §7.1).
//!
//! The head of such a request is valid, so that it may have been forwarded before the body
//! turned out bad; what must not happen is that the origin sees the body end.

use super::bytes::Case;
use super::bytes::Expected::{BrokenOff, Refused};

const BAD: &[u16] = &[400];

/// Every attack by a body.
pub fn bodies() -> Vec<Case> {
    let mut all: Vec<Case> = [
        ("no chunk size", "\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size with a sign", "+3\r\nabc\r\n0\r\n\r\n"),
        ("a negative chunk size", "-3\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size with 0x", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size that is a word", "xyz\r\nabc\r\n0\r\n\r\n"),
        ("a space before a chunk size", " 3\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size of two words", "3 3\r\nabc\r\n0\r\n\r\n"),
        (
            "a chunk size of 2^64",
            "10000000000000000\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "a chunk size of many zeros",
            "00000000000000003\r\nabc\r\n0\r\n\r\n",
        ),
        ("a bare LF behind a chunk size", "3\nabc\r\n0\r\n\r\n"),
        ("a bare CR behind a chunk size", "3\rabc\r\n0\r\n\r\n"),
        ("a bare LF in an extension", "3;a\nabc\r\n0\r\n\r\n"),
        ("NUL in an extension", "3;a\0\r\nabc\r\n0\r\n\r\n"),
        ("a bare LF behind a chunk", "3\r\nabc\n0\r\n\r\n"),
        ("a bare CR behind a chunk", "3\r\nabc\r0\r\n\r\n"),
        ("more data than the chunk size", "3\r\nabcd\r\n0\r\n\r\n"),
        ("less data than the chunk size", "3\r\nab\r\n0\r\n\r\n"),
        ("a bare LF behind the last chunk", "3\r\nabc\r\n0\n\n"),
        ("a bare LF in the trailers", "3\r\nabc\r\n0\r\na: b\n\r\n"),
        ("a trailer without a colon", "3\r\nabc\r\n0\r\na\r\n\r\n"),
        ("a folded trailer", "3\r\nabc\r\n0\r\na: b\r\n c\r\n\r\n"),
        ("NUL in a trailer", "3\r\nabc\r\n0\r\na: \0\r\n\r\n"),
        ("no last chunk", "3\r\nabc\r\n"),
        ("an end in a chunk size", "3\r\nabc\r\n0"),
        ("an end in a chunk", "3\r\nab"),
        ("an end in the trailers", "3\r\nabc\r\n0\r\na: b\r\n"),
    ]
    .map(|(name, body)| Case::new(name, chunked(body), BrokenOff(BAD)))
    .into();
    let long = "x".repeat(1 << 20);
    for (name, body) in [
        (
            "an extension of a megabyte",
            format!("3;{long}\r\nabc\r\n0\r\n\r\n"),
        ),
        ("a trailer of a megabyte", format!("0\r\nx: {long}\r\n\r\n")),
        (
            "10,000 trailers",
            format!("0\r\n{}\r\n", "x: y\r\n".repeat(10_000)),
        ),
    ] {
        all.push(Case::new(name, chunked(&body), BrokenOff(BAD)));
    }
    let short = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc";
    all.push(Case::new("an end before the length", short, BrokenOff(BAD)));
    let announced = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\nabc";
    all.push(Case::new(
        "a length over the limit",
        announced,
        Refused(&[413]),
    ));
    let endless = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\nabc";
    all.push(Case::new(
        "a length of 2^64 - 1",
        endless,
        Refused(&[400, 413, 431]),
    ));
    all
}

fn chunked(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}
