//! HTTP/2 origins that misbehave, frame by frame. Each is a server of its own: what a
//! request asks for does not matter to it.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::origin::Sees::{self, Broken, Error, Whole};
use crate::h2raw::{H2, PREFACE, block, code, flag, frame, headers, kind, reset, setting};

/// One way to misbehave once a request has come.
pub struct Play {
    pub name: &'static str,
    pub sees: Sees,
    /// What is sent, for the request's stream.
    first: fn(u32) -> Vec<u8>,
    then: Then,
}

enum Then {
    Hold,
    Close,
    /// This again and again, until nobody takes it.
    Flood(fn(u32) -> Vec<u8>),
}

/// A server that plays one of them on every connection.
pub struct Rogue {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

macro_rules! plays {
    ($($name:literal: $sees:expr, $then:expr, |$stream:pat_param| $first:expr;)+) => {
        &[$(Play { name: $name, sees: $sees, first: |$stream| $first, then: $then },)+]
    };
}

/// The head of an answer that could be stored.
fn ok(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [(":status", "200"), ("cache-control", "max-age=60")];
    headers(stream, 0, &[&fields, more].concat())
}

fn data(stream: u32, flags: u8, text: &str) -> Vec<u8> {
    frame(kind::DATA, flags, stream, text)
}

use Then::{Close, Flood, Hold};

pub const PLAYS: &[Play] = plays! {
    "right": Whole(200, "ok"), Hold, |s| [ok(s, &[]), data(s, flag::END_STREAM, "ok")].concat();
    "some-1xx": Whole(200, "ok"), Hold, |s| [
        headers(s, 0, &[(":status", "103"), ("link", "<a>")]), ok(s, &[]), data(s, flag::END_STREAM, "ok"),
    ].concat();
    "trailers": Whole(200, "ok"), Hold, |s| [
        ok(s, &[]), data(s, 0, "ok"), headers(s, flag::END_STREAM, &[("x-sum", "1")]),
    ].concat();
    "a-reset-before-the-head": Error(502), Hold, |s| reset(s, code::CANCEL);
    "a-refused-stream": Error(502), Hold, |s| reset(s, 7);
    "a-reset-in-the-body": Broken, Hold, |s| [ok(s, &[]), data(s, 0, "ok"), reset(s, code::CANCEL)].concat();
    "a-reset-without-error-in-the-body": Broken, Hold, |s| [ok(s, &[]), data(s, 0, "ok"), reset(s, code::NO_ERROR)].concat();
    "an-end-before-the-head": Error(502), Close, |_| Vec::new();
    "an-end-in-the-body": Broken, Close, |s| [ok(s, &[]), data(s, 0, "ok")].concat();
    "goaway-before-the-head": Error(502), Close, |_| frame(kind::GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 2]);
    "goaway-in-the-body": Broken, Close, |s| [ok(s, &[]), data(s, 0, "ok"), frame(kind::GOAWAY, 0, 0, [0; 8])].concat();
    "silence": Error(504), Hold, |_| Vec::new();
    "silence-in-the-body": Broken, Hold, |s| [ok(s, &[]), data(s, 0, "ok")].concat();
    "an-answer-of-http-1": Error(502), Hold, |_| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec();
    "garbage": Error(502), Hold, |_| vec![0xff; 100];
    "a-body-longer-than-its-length": Broken, Hold, |s| [ok(s, &[("content-length", "1")]), data(s, flag::END_STREAM, "ok")].concat();
    "a-body-shorter-than-its-length": Broken, Hold, |s| [ok(s, &[("content-length", "5")]), data(s, flag::END_STREAM, "ok")].concat();
    "lengths-that-differ": Error(502), Hold, |s| [ok(s, &[("content-length", "2"), ("content-length", "3")]), data(s, flag::END_STREAM, "ok")].concat();
    "no-status": Error(502), Hold, |s| headers(s, flag::END_STREAM, &[("cache-control", "max-age=60")]);
    "a-status-twice": Error(502), Hold, |s| headers(s, flag::END_STREAM, &[(":status", "200"), (":status", "404")]);
    "a-status-that-is-none": Error(502), Hold, |s| headers(s, flag::END_STREAM, &[(":status", "ok")]);
    "a-path-in-the-answer": Error(502), Hold, |s| headers(s, flag::END_STREAM, &[(":status", "200"), (":path", "/"), ("a", "b"), (":status", "200")]);
    "switching-protocols": Error(504), Hold, |s| headers(s, 0, &[(":status", "101")]);
    "a-connection-field": Error(502), Hold, |s| [ok(s, &[("connection", "close")]), data(s, flag::END_STREAM, "ok")].concat();
    "transfer-encoding": Error(502), Hold, |s| [ok(s, &[("transfer-encoding", "chunked")]), data(s, flag::END_STREAM, "ok")].concat();
    "an-upper-case-name": Error(502), Hold, |s| [ok(s, &[("X-Evil", "1")]), data(s, flag::END_STREAM, "ok")].concat();
    "crlf-in-a-value": Error(502), Hold, |s| [ok(s, &[("x", "a\r\nset-cookie: evil=1")]), data(s, flag::END_STREAM, "ok")].concat();
    "data-before-the-head": Error(502), Hold, |s| data(s, flag::END_STREAM, "ok");
    "data-on-a-stream-of-nobody": Error(502), Hold, |_| data(99, flag::END_STREAM, "ok");
    "a-push": Error(502), Hold, |s| frame(kind::PUSH_PROMISE, 4, s, [&[0, 0, 0, 2][..], &block(&[(":method", "GET")])].concat());
    "a-block-without-end": Error(502), Flood(|s| frame(kind::CONTINUATION, 0, s, block(&[("x", "y")]))),
        |s| frame(kind::HEADERS, 0, s, block(&[(":status", "200")]));
    "a-megabyte-of-fields": Error(502), Hold, |s| headers(s, flag::END_STREAM, &[(":status", "200"), ("x", &"y".repeat(16_000)), ("z", &"y".repeat(300))]);
    "a-flood-of-1xx": Error(502), Flood(|s| headers(s, 0, &[(":status", "103")])), |_| Vec::new();
    "a-flood-of-ping": Error(502), Flood(|_| frame(kind::PING, 0, 0, [0; 8])), |_| Vec::new();
    "a-flood-of-settings": Error(502), Flood(|_| setting(3, 100)), |_| Vec::new();
    "a-flood-of-empty-data": Broken, Flood(|s| data(s, 0, "")), |s| ok(s, &[]);
    "bytes-without-end": Broken, Flood(|s| data(s, 0, "e")), |s| ok(s, &[]);
};

impl Rogue {
    pub async fn start(play: &'static Play) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, play));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Plays for each request of a connection.
async fn serve(mut stream: TcpStream, play: &Play) {
    let mut preface = [0; PREFACE.len()];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    let mut h2 = H2::over(stream);
    h2.write(setting(3, 100)).await;
    while let Some(came) = h2.arrived().await {
        if came.kind == kind::SETTINGS && came.flags & flag::ACK == 0 {
            h2.write(frame(kind::SETTINGS, flag::ACK, 0, [])).await;
        }
        if came.kind != kind::HEADERS {
            continue;
        }
        h2.write((play.first)(came.stream)).await;
        match play.then {
            Then::Hold => {}
            Then::Close => return,
            Then::Flood(more) => {
                let more = more(came.stream).repeat(500);
                while h2.flood(&more).await {
                    h2.forget();
                }
            }
        }
    }
}
