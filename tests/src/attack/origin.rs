//! HTTP/1 origins that misbehave: what they send, and what a client may see of it.
//!
//! [`Rogue`](crate::rogue::Rogue) plays them; the last part of a path names the play.
//! Every answer says that it may be stored, so that only its fault can forbid that.

use http::Method;

use crate::client::{Client, Failure};
use crate::rogue::{Act, After, Play};

/// What a client may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sees {
    /// An answer of the gateway's own with this status, and `Proxy-Status`.
    Error(u16),
    /// The same (502 or 504), or an answer that is cut off: never one that looks whole.
    Broken,
    /// The origin's answer, whole.
    Whole(u16, &'static str),
}

macro_rules! plays {
    ($($name:literal: $sees:expr, $after:ident, $bytes:expr;)+) => {
        &[$(Play { name: $name, sees: $sees, act: Act::Say($bytes, After::$after) },)+]
    };
}

use Sees::{Broken, Error, Whole};

/// The beginning of most answers.
macro_rules! ok {
    ($rest:literal) => {
        concat!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n", $rest).as_bytes()
    };
}

/// The head says something that cannot be, or nothing that is HTTP.
pub const HEADS: &[Play] = plays! {
    "both-lengths": Error(502), Keep, ok!("content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    "both-lengths-reversed": Error(502), Keep, ok!("transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    "lengths-that-differ": Error(502), Keep, ok!("content-length: 2\r\ncontent-length: 3\r\n\r\nok!");
    "lengths-in-a-list-that-differ": Error(502), Keep, ok!("content-length: 2, 3\r\n\r\nok!");
    "a-length-that-is-none": Error(502), Keep, ok!("content-length: two\r\n\r\nok");
    "a-length-with-a-sign": Error(502), Keep, ok!("content-length: +2\r\n\r\nok");
    "a-length-beyond-all": Error(502), Keep, ok!("content-length: 18446744073709551616\r\n\r\nok");
    "gzip-and-chunked": Error(502), Keep, ok!("transfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    "a-coding-like-chunked": Error(502), Close, ok!("transfer-encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    "chunked-twice": Error(502), Keep, ok!("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    "chunked-in-http-1.0": Error(502), Close, b"HTTP/1.0 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    "a-folded-field": Error(502), Keep, ok!("x-fold: a\r\n b\r\ncontent-length: 2\r\n\r\nok");
    "a-space-before-the-colon": Whole(200, "ok"), Keep, ok!("content-length : 2\r\n\r\nok");
    "a-field-without-colon": Error(502), Keep, ok!("nonsense\r\ncontent-length: 2\r\n\r\nok");
    "an-empty-name": Error(502), Keep, ok!(": x\r\ncontent-length: 2\r\n\r\nok");
    "a-bare-cr": Error(502), Keep, ok!("x: a\rcontent-length: 9\r\ncontent-length: 2\r\n\r\nok");
    "nul-in-a-value": Error(502), Keep, ok!("x: a\0b\r\ncontent-length: 2\r\n\r\nok");
    "a-version-of-http-2": Error(502), Keep, b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok";
    "a-version-that-is-none": Error(502), Keep, b"HTTP/1.x 200 OK\r\ncontent-length: 2\r\n\r\nok";
    "another-protocol": Error(502), Keep, b"ICY 200 OK\r\ncontent-length: 2\r\n\r\nok";
    "http-0.9": Error(502), Close, b"<html>ok</html>\n";
    "garbage": Error(502), Hold, b"\x15\x03\x01\x00\x02\x02\x46\xff\xfe\xfd\x00\x00";
    "frames-of-http-2": Error(502), Hold, b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    "a-status-of-two-digits": Error(502), Keep, b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok";
    "a-status-of-four-digits": Error(502), Keep, b"HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok";
    "a-status-that-is-a-word": Error(502), Keep, b"HTTP/1.1 OK OK\r\ncontent-length: 2\r\n\r\nok";
    "101-unasked": Error(502), Hold, b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: evil\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    "100-and-no-more": Error(502), Close, b"HTTP/1.1 100 Continue\r\n\r\n";
    "nothing": Error(502), Close, b"";
    "a-reset-before-the-head": Error(502), Reset, b"";
    "an-end-in-the-head": Error(502), Close, ok!("content-len");
    "a-reset-in-the-head": Error(502), Reset, ok!("content-len");
    "silence": Error(504), Hold, b"";
    "silence-in-the-head": Error(504), Hold, ok!("content-len");
};

/// The body is not what the head said.
pub const BODIES: &[Play] = plays! {
    "a-short-body": Broken, Close, ok!("content-length: 10\r\n\r\nshort");
    "a-short-body-and-silence": Broken, Hold, ok!("content-length: 10\r\n\r\nshort");
    "a-short-body-and-a-reset": Broken, Reset, ok!("content-length: 10\r\n\r\nshort");
    "no-body-at-all": Broken, Close, ok!("content-length: 10\r\n\r\n");
    "a-reset-of-a-body-to-the-end": Broken, Reset, ok!("\r\nuntil the e");
    "a-chunk-size-that-is-none": Broken, Hold, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nok\r\n0\r\n\r\n");
    "a-chunk-size-with-0x": Broken, Hold, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0x2\r\nok\r\n0\r\n\r\n");
    "a-chunk-size-with-a-sign": Broken, Hold, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n-2\r\nok\r\n0\r\n\r\n");
    "a-chunk-size-beyond-all": Broken, Hold, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\nffffffffffffffffff\r\nok\r\n0\r\n\r\n");
    "an-empty-chunk-size": Broken, Hold, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n\r\nok\r\n0\r\n\r\n");
    "a-chunk-size-with-a-bare-lf": Broken, Hold, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n2\nok\r\n0\r\n\r\n");
    "a-chunk-longer-than-its-size": Broken, Hold, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n2\r\nokay\r\n0\r\n\r\n");
    "no-last-chunk": Broken, Close, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n");
    "no-last-line": Broken, Close, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n");
    "a-reset-between-chunks": Broken, Reset, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n");
    "an-end-in-a-chunk": Broken, Close, ok!("transfer-encoding: chunked\r\n\r\n8\r\nok\r\n");
    "silence-between-chunks": Broken, Hold, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n");
    "a-trailer-that-is-none": Broken, Hold, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nno nsense\r\n\r\n");
};

/// More than was asked for: the answer is whole, what follows must go nowhere.
pub const MORE: &[Play] = plays! {
    "a-long-body": Whole(200, "ok"), Keep, ok!("content-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
    "two-answers": Whole(200, "ok"), Keep, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
    "fields-after-the-trailers": Whole(200, "ok"), Keep, ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\nx-evil: 1\r\n\r\n");
    "204-with-a-body": Whole(204, ""), Keep, b"HTTP/1.1 204 No Content\r\ncontent-length: 43\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    "204-with-chunks": Whole(204, ""), Keep, b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n";
};

/// Odd, and right: these have to work.
pub const ODD: &[Play] = plays! {
    "one-length-twice": Whole(200, "ok"), Keep, ok!("content-length: 2\r\ncontent-length: 2\r\n\r\nok");
    "one-length-in-a-list": Whole(200, "ok"), Keep, ok!("content-length: 2, 2\r\n\r\nok");
    "a-body-to-the-end": Whole(200, "ok"), Close, ok!("\r\nok");
    "a-coding-that-does-nothing": Whole(200, "ok"), Close, ok!("transfer-encoding: identity\r\n\r\nok");
    "http-1.0": Whole(200, "ok"), Close, b"HTTP/1.0 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nok";
    "lines-that-end-with-lf": Whole(200, "ok"), Keep, b"HTTP/1.1 200 OK\ncache-control: max-age=60\ncontent-length: 2\n\nok";
    "some-1xx": Whole(200, "ok"), Keep, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nHTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nok";
    "1xx-with-a-length": Whole(200, "ok"), Keep, b"HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\nHTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nok";
    "a-chunk-extension": Whole(200, "ok"), Keep, ok!("transfer-encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n");
    "a-reason-of-none": Whole(200, "ok"), Keep, b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok";
};

/// A 304 to a request without preconditions, with a body that it must not have.
pub const UNASKED_304: &[Play] = plays! {
    "304-unasked-with-a-body": Error(502), Keep, b"HTTP/1.1 304 Not Modified\r\ncache-control: max-age=60\r\ncontent-length: 4\r\n\r\nevil";
};

/// Floods and drips.
pub const FLOODS: &[Play] = &[
    flood(
        "a-flood-of-1xx",
        Error(502),
        b"",
        b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n",
    ),
    drip(
        "1xx-one-by-one",
        Error(502),
        b"",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ),
    flood("fields-without-end", Error(502), ok!(""), b"x-field: 1\r\n"),
    flood(
        "a-field-without-end",
        Error(502),
        ok!("x-field: "),
        b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
    ),
    flood(
        "a-status-line-without-end",
        Error(502),
        b"HTTP/1.1 200 ",
        b"OK OK OK OK OK OK OK OK OK OK ",
    ),
    flood("empty-lines-without-end", Error(502), b"", b"\r\n"),
    drip("a-head-in-drips", Error(504), ok!("x-field: "), b"y"),
    drip(
        "a-body-in-drips",
        Broken,
        ok!("content-length: 100000\r\n\r\n"),
        b"y",
    ),
    drip(
        "chunks-in-drips",
        Broken,
        ok!("transfer-encoding: chunked\r\n\r\n"),
        b"1\r\ny\r\n",
    ),
    flood(
        "a-chunk-size-without-end",
        Broken,
        ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n"),
        b"00000000000000000000",
    ),
    flood(
        "a-chunk-extension-without-end",
        Broken,
        ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n1"),
        b";extension=yyyyyyyyy",
    ),
    flood(
        "trailers-without-end",
        Broken,
        ok!("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"),
        b"x-trailer: 1\r\n",
    ),
];

/// A chunk of 1 KiB.
const CHUNK: [u8; 1_031] = {
    let mut chunk = [b'e'; 1_031];
    [chunk[0], chunk[1], chunk[2], chunk[3], chunk[4]] = *b"400\r\n";
    [chunk[1_029], chunk[1_030]] = *b"\r\n";
    chunk
};

/// A body that never ends; its client leaves.
pub const ENDLESS: &[Play] = &[
    flood("an-endless-body", Broken, ok!("\r\n"), &[b'e'; 4_096]),
    flood(
        "endless-chunks",
        Broken,
        ok!("transfer-encoding: chunked\r\n\r\n"),
        &CHUNK,
    ),
];

/// Every table that a client survives without leaving.
pub const TABLES: [&[Play]; 5] = [HEADS, BODIES, MORE, ODD, FLOODS];

/// Asks once.
///
/// # Errors
/// What is wrong with what came.
pub async fn look(client: &Client, method: &Method, path: &str, sees: Sees) -> Result<(), String> {
    let seen = client.ask(method.clone(), path).try_send().await;
    let fits = match (&seen, sees) {
        (Ok(answer), Sees::Error(status)) => {
            answer.status == status && answer.header("proxy-status").contains("error=")
        }
        (Ok(answer), Sees::Broken) => {
            matches!(answer.status.as_u16(), 502 | 504) && answer.has("proxy-status")
        }
        (Ok(answer), Sees::Whole(status, body)) => {
            answer.status == status && (answer.text() == body || method == Method::HEAD)
        }
        // A head that was on its way when the rest turned out wrong.
        (Err(Failure::Cut { .. } | Failure::NoAnswer(_)), Sees::Broken) => true,
        (Err(_), _) => false,
    };
    match fits {
        true => Ok(()),
        false => Err(format!(
            "{method} {path}: {sees:?} was due, but {seen:?} came"
        )),
    }
}

const fn flood(name: &'static str, sees: Sees, begin: &'static [u8], more: &'static [u8]) -> Play {
    Play {
        name,
        sees,
        act: Act::Flood(begin, more),
    }
}

const fn drip(name: &'static str, sees: Sees, begin: &'static [u8], more: &'static [u8]) -> Play {
    Play {
        name,
        sees,
        act: Act::Drip(begin, more),
    }
}
