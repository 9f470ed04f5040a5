//! Heads of HTTP/1 that are ambiguous, malformed or too large (RFC 9112 §2 to §6).
//!
//! Where a head that looks valid to one parser hides a second request, that request goes
//! to [`SMUGGLED`](super::bytes::SMUGGLED).

use super::bytes::Case;
use super::bytes::Expected::{Answered, Refused};

const BAD: &[u16] = &[400];
const BAD_OR_UNKNOWN: &[u16] = &[400, 501];
const TOO_LARGE: &[u16] = &[414, 431];

/// Every attack by a head.
pub fn heads() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(lengths());
    all.extend(codings());
    all.extend(lines());
    all.extend(hosts());
    all.extend(targets());
    all.extend(sizes());
    all.extend(sequences());
    all
}

/// A POST with these header lines; a smuggled request is its content, or follows it.
fn post(fields: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    )
}

fn get(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

fn lengths() -> Vec<Case> {
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked";
    let turned = "Transfer-Encoding: chunked\r\nContent-Length: 5";
    [
        ("a length before a coding", both),
        ("a coding before a length", turned),
        (
            "a length of 0 beside a coding",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
        ),
        (
            "two lengths that differ",
            "Content-Length: 5\r\nContent-Length: 6",
        ),
        (
            "the same length twice",
            "Content-Length: 5\r\nContent-Length: 5",
        ),
        ("a length with a sign", "Content-Length: +5"),
        ("a negative length", "Content-Length: -5"),
        ("a hexadecimal length", "Content-Length: 0x5"),
        ("a list of lengths", "Content-Length: 5,5"),
        ("a list of lengths with a space", "Content-Length: 5, 5"),
        ("a length of two words", "Content-Length: 5 5"),
        ("an empty length", "Content-Length:"),
        ("a quoted length", "Content-Length: \"5\""),
        ("a fraction for a length", "Content-Length: 5.0"),
        ("a length of 2^64", "Content-Length: 18446744073709551616"),
        ("a length with a vertical tab", "Content-Length: 5\x0b"),
        ("a folded length", "Content-Length:\r\n 5"),
        ("a length with space before the colon", "Content-Length : 5"),
    ]
    .map(|(name, fields)| Case::new(name, post(fields), Refused(BAD)))
    .into()
}

fn codings() -> Vec<Case> {
    let mut all: Vec<Case> = [
        ("an unknown coding", "Transfer-Encoding: xchunked"),
        (
            "chunked, then identity",
            "Transfer-Encoding: chunked, identity",
        ),
        ("chunked twice", "Transfer-Encoding: chunked, chunked"),
        ("gzip, then chunked", "Transfer-Encoding: gzip, chunked"),
        ("identity", "Transfer-Encoding: identity"),
        ("an empty coding", "Transfer-Encoding:"),
        ("chunked with a parameter", "Transfer-Encoding: chunked;q=1"),
        ("quoted chunked", "Transfer-Encoding: \"chunked\""),
        (
            "chunked in two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        (
            "chunked and identity in two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        (
            "identity and chunked in two lines",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        ),
        (
            "chunked behind a vertical tab",
            "Transfer-Encoding: \x0bchunked",
        ),
        ("a folded coding", "Transfer-Encoding:\r\n chunked"),
        (
            "a coding with space before the colon",
            "Transfer-Encoding : chunked",
        ),
        (
            "a coding with a tab before the colon",
            "Transfer-Encoding\t: chunked",
        ),
        (
            "a coding behind a bare LF",
            "X: y\nTransfer-Encoding: chunked",
        ),
        (
            "a coding behind a bare CR",
            "X: y\rTransfer-Encoding: chunked",
        ),
    ]
    .map(|(name, fields)| Case::new(name, post(fields), Refused(BAD_OR_UNKNOWN)))
    .into();
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    all.push(Case::new("a coding in HTTP/1.0", old, Refused(BAD)));
    all
}

fn lines() -> Vec<Case> {
    let mut all: Vec<Case> = [
        ("a folded field", "X: a\r\n b"),
        ("a field folded by a tab", "X: a\r\n\tb"),
        ("space before a colon", "X : a"),
        ("a space before the first field's name", " X: a"),
        ("a bare LF between fields", "X: a\nY: b"),
        ("a bare CR in a value", "X: a\rb"),
        ("NUL in a value", "X: a\0b"),
        ("a control character in a value", "X: a\x01b"),
        ("DEL in a value", "X: a\x7fb"),
        ("an empty name", ": a"),
        ("a line without a colon", "X"),
        ("a space in a name", "X Y: a"),
        ("NUL in a name", "X\0: a"),
        ("a bracket in a name", "X(: a"),
        ("a letter outside ASCII in a name", "\u{e9}: a"),
    ]
    .map(|(name, field)| {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        Case::new(name, head, Refused(BAD))
    })
    .into();
    for (name, bytes) in [
        (
            "a head with bare LF alone",
            "GET / HTTP/1.1\nHost: a\n\nGET /smuggled HTTP/1.1\nHost: a\n\n",
        ),
        (
            "a head that ends in a bare LF",
            "GET / HTTP/1.1\r\nHost: a\r\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "a request line that ends in a bare LF",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
        ),
        (
            "a request line that ends in a bare CR",
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
        ),
        (
            "an empty line with a bare LF",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ] {
        all.push(Case::new(name, bytes, Refused(BAD)));
    }
    all
}

fn hosts() -> Vec<Case> {
    [
        ("no Host", "GET / HTTP/1.1\r\n\r\n"),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (
            "the same Host twice",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        ),
        ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        ("a user in Host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        ("a path in Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("a query in Host", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n"),
        ("a space in Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("a port that is none", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
        ("two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"),
        ("half an address", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
        (
            "Host other than the target's",
            "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        ),
        (
            "Host of another port than the target's",
            "GET http://a:81/ HTTP/1.1\r\nHost: a:82\r\n\r\n",
        ),
    ]
    .map(|(name, bytes)| Case::new(name, bytes, Refused(BAD)))
    .into()
}

fn targets() -> Vec<Case> {
    let mut all: Vec<Case> = [
        ("two spaces before the target", "GET  / HTTP/1.1"),
        ("two spaces before the version", "GET /  HTTP/1.1"),
        ("a space in the target", "GET /a b HTTP/1.1"),
        ("a tab for a space", "GET\t/\tHTTP/1.1"),
        ("a space before the method", " GET / HTTP/1.1"),
        ("a version in small letters", "GET / http/1.1"),
        ("HTTP/1.2", "GET / HTTP/1.2"),
        ("HTTP/3.7", "GET / HTTP/3.7"),
        ("no version", "GET /"),
        ("no target", "GET HTTP/1.1"),
        ("a method alone", "GET"),
        ("a bracket in the method", "GE(T / HTTP/1.1"),
        ("NUL in the target", "GET /a\0b HTTP/1.1"),
        ("DEL in the target", "GET /a\x7fb HTTP/1.1"),
        ("CR in the target", "GET /a\rb HTTP/1.1"),
        ("a fragment in the target", "GET /a#b HTTP/1.1"),
        ("a target without a slash", "GET a HTTP/1.1"),
        ("a user in the target", "GET http://u@a/ HTTP/1.1"),
        ("a target of another scheme", "GET ftp://a/ HTTP/1.1"),
        ("a target without a host", "GET http:/// HTTP/1.1"),
        ("* for a GET", "GET * HTTP/1.1"),
    ]
    .map(|(name, line)| Case::new(name, get(line), Refused(BAD)))
    .into();
    all.push(Case::new(
        "CONNECT",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(&[501]),
    ));
    let hello = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03random\r\n\r\n";
    all.push(Case::new("a TLS hello", &hello[..], Refused(BAD)));
    all
}

fn sizes() -> Vec<Case> {
    let many: String = (0..10_000).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = "a".repeat(1 << 20);
    [
        (
            "10,000 fields",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
        ),
        (
            "a field of a megabyte",
            format!("GET / HTTP/1.1\r\nHost: a\r\nx: {long}\r\n\r\n"),
        ),
        (
            "a name of a megabyte",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{long}: x\r\n\r\n"),
        ),
        (
            "a target of a megabyte",
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        (
            "a target of 9,000 bytes",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..9_000]),
        ),
    ]
    .map(|(name, bytes)| Case::new(name, bytes, Refused(TOO_LARGE)))
    .into_iter()
    .chain([
        Case::new(
            "a method of a megabyte",
            format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(1 << 20)),
            Refused(&[400, 431]),
        ),
        Case::new(
            "a megabyte of empty lines",
            "\r\n".repeat(1 << 19),
            Refused(&[400, 431]),
        ),
    ])
    .collect()
}

/// What one answers, in order: requests that are valid, though they look like two.
fn sequences() -> Vec<Case> {
    let plain = "GET /plain HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let bad = "GET /bad HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n";
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = hidden.len();
    let sized =
        format!("POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{hidden}");
    let chunked = format!(
        "POST /plain HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n"
    );
    let get = format!("GET /plain HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{hidden}");
    let faulty = "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let upgrade = "GET /plain HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    vec![
        Case::new(
            "three requests at once",
            [plain, plain, last].concat(),
            Answered(&[200, 200, 200]),
        ),
        Case::new(
            "empty lines before a request",
            format!("\r\n\r\n{last}"),
            Answered(&[200]),
        ),
        Case::new(
            "a request as content",
            [&sized, &chunked, &get, last].concat(),
            Answered(&[200, 200, 200, 200]),
        ),
        Case::new(
            "a malformed request behind a good one",
            [plain, bad, hidden].concat(),
            Answered(&[200, 400]),
        ),
        Case::new(
            "both lengths behind a request with content",
            [&sized, &chunked, faulty, hidden].concat(),
            Answered(&[200, 200, 400]),
        ),
        Case::new(
            "both lengths behind an upgrade that is refused",
            [upgrade, faulty, hidden].concat(),
            Answered(&[200, 400]),
        ),
        Case::new(
            "requests behind the last one",
            [last, hidden, hidden].concat(),
            Answered(&[200]),
        ),
    ]
}
