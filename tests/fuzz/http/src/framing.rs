//! The guard and hyper one behind the other, as the listener has them, against a strict reading
//! of RFC 9112: a request that both let pass is the one that the strict reading finds, body and all.
//!
//! Input: a line with the lengths of the pieces in which the bytes come, then the bytes.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use lamina_http::config::ListenerLimits;
use lamina_http::guard::{
    self,
    framing::{Framing, FramingVerdict},
};

use fuzz_harness::input;

/// A request as it was understood: method, target, body.
type Message = (String, String, Vec<u8>);

#[derive(Default)]
struct Shared {
    framing: Framing,
    /// Requests that came out of hyper.
    begun: u64,
    passed: Vec<Message>,
}

pub fn check(data: &[u8]) {
    let end = data
        .iter()
        .position(|&octet| octet == b'\n')
        .unwrap_or(data.len());
    let (line, stream) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let pieces: Vec<usize> = input::texts(line)
        .flat_map(|text| text.split(' '))
        .filter_map(|word| word.parse().ok())
        .filter(|&length| length > 0)
        .collect();
    same_in_pieces(stream, &pieces);
    let shared = Rc::<RefCell<Shared>>::default();
    serve(
        &shared,
        Wire {
            stream,
            pieces: &pieces,
            turn: 0,
            cut: false,
            shared: Rc::clone(&shared),
        },
    );
    let strict = strictly(stream);
    for (i, passed) in shared.borrow().passed.iter().enumerate() {
        assert_eq!(
            Some(passed),
            strict.get(i),
            "message {i} of {}",
            stream.escape_ascii()
        );
    }
}

/// What is wrong with the bytes does not depend on how they come.
fn same_in_pieces(stream: &[u8], pieces: &[usize]) {
    let run = |mut next: Box<dyn FnMut() -> usize + '_>| {
        let (mut framing, mut at) = (Framing::default(), 0);
        while at < stream.len() {
            let end = stream.len().min(at + next().max(1));
            match framing.feed(&stream[at..end]) {
                FramingVerdict::Pass => at = end,
                FramingVerdict::Hold(shown) => at += shown,
                // Of a bad line in pieces the first have been shown.
                FramingVerdict::Cut(_) => return (0, framing.fault(), false),
            }
        }
        (at, framing.fault(), framing.is_between())
    };
    let whole = run(Box::new(|| usize::MAX / 2));
    let mut turn = pieces.iter().cycle();
    let parted = run(Box::new(move || turn.next().copied().unwrap_or(1)));
    assert_eq!(whole, parted, "{}", stream.escape_ascii());
}

fn serve(shared: &Rc<RefCell<Shared>>, wire: Wire<'_>) {
    let service = service_fn(|request| answer(Rc::clone(shared), request));
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .half_close(true)
        .max_header_size(32 << 10)
        .max_buf_size(32 << 10)
        .serve_connection(wire, service);
    let mut connection = pin!(connection);
    let mut cx = Context::from_waker(Waker::noop());
    // Reads and writes are always ready, so it always gets on.
    let done = (0..100_000).any(|_| connection.as_mut().poll(&mut cx).is_ready());
    assert!(done, "the connection does not end");
}

/// As `server/service` does.
async fn answer(
    shared: Rc<RefCell<Shared>>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let fault = {
        let mut shared = shared.borrow_mut();
        shared.begun += 1;
        let begun = shared.begun;
        shared
            .framing
            .fault()
            .filter(|(message, _)| *message <= begun)
    };
    let limits = ListenerLimits::default();
    let mut response = Response::new(Empty::new());
    if fault.is_some() || guard::check(&request, &limits).is_err() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response
            .headers_mut()
            .insert("connection", http::HeaderValue::from_static("close"));
        return Ok(response);
    }
    let (method, target) = (request.method().to_string(), request.uri().to_string());
    match request.into_body().collect().await {
        Ok(body) => {
            let body = body.to_bytes().to_vec();
            shared.borrow_mut().passed.push((method, target, body));
        }
        // A body that broke off is told to the origin as one.
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

/// The transport, with the guard where `server/wire` has it.
struct Wire<'a> {
    stream: &'a [u8],
    pieces: &'a [usize],
    turn: usize,
    cut: bool,
    shared: Rc<RefCell<Shared>>,
}

impl Read for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.cut {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let piece = this
            .pieces
            .get(this.turn % this.pieces.len().max(1))
            .copied();
        this.turn += 1;
        let length = piece
            .unwrap_or(usize::MAX)
            .min(into.remaining())
            .min(this.stream.len());
        let verdict = this
            .shared
            .borrow_mut()
            .framing
            .feed(&this.stream[..length]);
        let shown = match verdict {
            FramingVerdict::Pass => length,
            FramingVerdict::Hold(shown) => shown,
            FramingVerdict::Cut(shown) => {
                this.cut = true;
                if shown == 0 {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                shown
            }
        };
        into.put_slice(&this.stream[..shown]);
        this.stream = &this.stream[shown..];
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The messages that the bytes hold, as far as they are in order.
fn strictly(mut rest: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(next) = message(&mut rest) {
        messages.push(next);
    }
    messages
}

fn message(rest: &mut &[u8]) -> Option<Message> {
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        *rest = after;
    }
    let request = std::str::from_utf8(line(rest)?).ok()?;
    let mut words = request.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut coded) = (None, false);
    loop {
        let field = line(rest)?;
        if field.is_empty() {
            break;
        }
        let colon = field.iter().position(|&octet| octet == b':')?;
        let (name, value) = (&field[..colon], field[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = std::str::from_utf8(value).ok()?;
            if length.replace(digits.parse::<usize>().ok()?).is_some() {
                return None;
            }
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if coded || !value.eq_ignore_ascii_case(b"chunked") {
                return None;
            }
            coded = true;
        }
    }
    let body = match (length, coded) {
        (Some(_), true) => return None,
        (_, true) => chunks(rest)?,
        (length, false) => take(rest, length.unwrap_or(0))?.to_vec(),
    };
    Some((method, normal(&target)?, body))
}

/// hyper's spelling of a target.
fn normal(target: &str) -> Option<String> {
    Some(target.parse::<http::Uri>().ok()?.to_string())
}

fn chunks(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(rest)?;
        let digits = size.split(|&octet| !octet.is_ascii_hexdigit()).next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        body.extend_from_slice(take(rest, size)?);
        take(rest, 2).filter(|end| *end == b"\r\n")?;
    }
    while !line(rest)?.is_empty() {}
    Some(body)
}

/// A line that ends in CRLF, without a CR or LF of its own.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|&octet| octet == b'\n')?;
    let line = rest[..end]
        .strip_suffix(b"\r")
        .filter(|line| !line.contains(&b'\r'))?;
    *rest = &rest[end + 1..];
    Some(line)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}
