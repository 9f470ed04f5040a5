//! Interim answers (1xx) to a client before its final one (RFC 9110 §15.2).
//!
//! hyper's server sends none but 100. Over HTTP/1.1 the others are written to the wire beside it,
//! at a moment when no message of hyper's own is half written: [`super::wire`] knows when. Over
//! HTTP/3 the task of the request's stream writes them. HTTP/1.0 must not get any; over HTTP/2
//! there are none, since hyper does not tell which stream a request has.
//!
//! A handler that waits for an origin opens an [`InterimSender`]; a handler that answers at once
//! costs two relaxed loads. Invariant: after the first byte of a final answer nothing more is
//! sent for its request, however late an origin's 1xx comes.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::activity::ConnectionActivity;
use crate::config::Protocol;
use crate::http3::qpack;
use crate::memory::ConnectionMemory;

/// Bytes of interim answers for one request; further ones are dropped.
const MAX_BYTES: usize = 32 << 10;

/// Opens the way for interim answers to the client of one connection, or of one stream of HTTP/3.
#[derive(Clone)]
pub struct InterimChannel {
    pub(super) activity: Arc<ConnectionActivity>,
    /// HTTP/3: the way to the stream of the request.
    stream: Option<StreamInterims>,
}

/// Sends interim answers for one request until it is answered.
#[derive(Clone)]
pub struct InterimSender(InterimWay);

#[derive(Clone)]
enum InterimWay {
    /// HTTP/1.1: before the answer of the request with this number.
    Connection {
        activity: Arc<ConnectionActivity>,
        number: u64,
    },
    /// HTTP/3.
    Stream(StreamInterims),
}

/// The interim answers of one stream of HTTP/3, as field sections. What bounds them is [`MAX_BYTES`].
#[derive(Clone)]
struct StreamInterims {
    sections: UnboundedSender<Bytes>,
    total: Arc<AtomicUsize>,
}

/// Interim answers that wait to be sent before the answer of the request under way.
#[derive(Default)]
pub(super) struct InterimQueue {
    /// Whether a request accepts them. Written and read by the connection's task.
    open: AtomicBool,
    /// Whether there may be heads to send.
    filled: AtomicBool,
    state: Mutex<EarlyState>,
}

#[derive(Default)]
struct EarlyState {
    /// Tells the requests of a connection apart.
    number: u64,
    open: bool,
    waker: Option<Waker>,
    heads: Vec<u8>,
    total: usize,
}

impl InterimChannel {
    pub(super) fn new(activity: Arc<ConnectionActivity>) -> Self {
        Self {
            activity,
            stream: None,
        }
    }

    /// The same for one stream of HTTP/3, and the interim answers that come for it.
    pub(super) fn of_stream(&self) -> (Self, UnboundedReceiver<Bytes>) {
        let (sections, coming) = mpsc::unbounded_channel();
        let stream = StreamInterims {
            sections,
            total: Arc::default(),
        };
        let channel = Self {
            activity: Arc::clone(&self.activity),
            stream: Some(stream),
        };
        (channel, coming)
    }

    /// When the request under way began. Does not read the clock again.
    pub fn began(&self) -> Instant {
        self.activity.began()
    }

    /// Counts what the answers of the connection hold.
    pub fn memory(&self) -> &Arc<ConnectionMemory> {
        &self.activity.memory
    }

    /// Opens the way for the request under way; `waker` is that of the connection's task. `None` if
    /// the protocol has no interim answers.
    pub fn open(&self, version: Version, waker: &Waker) -> Option<InterimSender> {
        if let Some(stream) = &self.stream {
            return Some(InterimSender(InterimWay::Stream(stream.clone())));
        }
        if self.activity.protocol != Protocol::Http1 || version != Version::HTTP_11 {
            return None;
        }
        let number = self.activity.early.open(waker);
        let activity = Arc::clone(&self.activity);
        Some(InterimSender(InterimWay::Connection { activity, number }))
    }
}

impl InterimSender {
    /// Sends a 1xx with these fields, which must not contain hop-by-hop fields. It is dropped when
    /// the request is answered already, or has had too many.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        match &self.0 {
            InterimWay::Connection { activity, number } => {
                let head = head(status, headers);
                if let Some(waker) = activity.early.push(*number, &head) {
                    waker.wake();
                }
            }
            InterimWay::Stream(stream) => stream.send(status, headers),
        }
    }
}

impl StreamInterims {
    fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let section = qpack::encode_response(status, headers).freeze();
        if self.total.fetch_add(section.len(), Relaxed) + section.len() <= MAX_BYTES {
            // Fails only when the request is answered.
            let _ = self.sections.send(section);
        }
    }
}

impl InterimQueue {
    fn open(&self, waker: &Waker) -> u64 {
        let mut state = self.state.lock();
        self.open.store(true, Relaxed);
        state.number += 1;
        state.open = true;
        state.waker = Some(waker.clone());
        state.total = 0;
        state.number
    }

    fn push(&self, number: u64, head: &[u8]) -> Option<Waker> {
        let mut state = self.state.lock();
        if !state.open || state.number != number || state.total + head.len() > MAX_BYTES {
            return None;
        }
        state.total += head.len();
        state.heads.extend_from_slice(head);
        self.filled.store(true, Relaxed);
        state.waker.clone()
    }

    /// The final answer is here. Heads that wait are sent before it; no more are taken.
    pub(super) fn close(&self) {
        if self.open.load(Relaxed) {
            self.open.store(false, Relaxed);
            let mut state = self.state.lock();
            state.open = false;
            state.waker = None;
        }
    }

    /// Whether there may be heads to take.
    pub(super) fn is_filled(&self) -> bool {
        self.filled.load(Relaxed)
    }

    /// Whether the request is still to be answered.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Takes the heads that wait; each of them is whole.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        self.filled.store(false, Relaxed);
        std::mem::take(&mut state.heads)
    }
}

fn head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    let reason = status.canonical_reason().unwrap_or_default();
    // Writing into memory cannot fail.
    let _ = write!(head, "HTTP/1.1 {} {reason}\r\n", status.as_u16());
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity(protocol: Protocol) -> Arc<ConnectionActivity> {
        let memory = ConnectionMemory::new(&crate::memory::PROCESS, u64::MAX);
        Arc::new(ConnectionActivity::new(protocol, memory))
    }

    fn hints() -> HeaderMap {
        HeaderMap::from_iter([(http::header::LINK, "</a.css>; rel=preload".parse().unwrap())])
    }

    #[test]
    fn what_comes_after_the_answer_or_for_another_request_is_dropped() {
        let activity = activity(Protocol::Http1);
        let early = InterimChannel::new(Arc::clone(&activity));
        let open = || early.open(Version::HTTP_11, Waker::noop()).unwrap();
        let first = open();
        first.send(StatusCode::EARLY_HINTS, &hints());
        assert_eq!(
            activity.early.take(),
            b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
        );
        activity.early.close();
        first.send(StatusCode::EARLY_HINTS, &hints());
        let second = open();
        first.send(StatusCode::EARLY_HINTS, &hints());
        assert!(!activity.early.is_filled());
        second.send(StatusCode::PROCESSING, &HeaderMap::new());
        activity.early.close();
        assert_eq!(activity.early.take(), b"HTTP/1.1 102 Processing\r\n\r\n");
    }

    #[test]
    fn a_flood_is_bounded() {
        let activity = activity(Protocol::Http1);
        let early = InterimChannel::new(Arc::clone(&activity));
        let interim = early.open(Version::HTTP_11, Waker::noop()).unwrap();
        for _ in 0..10_000 {
            interim.send(StatusCode::EARLY_HINTS, &hints());
        }
        assert!(activity.early.take().len() <= MAX_BYTES);
    }

    #[test]
    fn a_stream_gets_its_own_and_a_flood_is_bounded_there_too() {
        let connection = InterimChannel::new(activity(Protocol::Http3));
        let (channel, mut coming) = connection.of_stream();
        let (_other, mut others) = connection.of_stream();
        let interim = channel.open(Version::HTTP_3, Waker::noop()).unwrap();
        for _ in 0..10_000 {
            interim.send(StatusCode::EARLY_HINTS, &hints());
        }
        let mut total = 0;
        while let Ok(section) = coming.try_recv() {
            total += section.len();
        }
        assert!((1..=MAX_BYTES).contains(&total), "{total}");
        assert!(others.try_recv().is_err());
    }

    #[test]
    fn older_and_newer_protocols_get_none() {
        let open = |protocol, version| {
            InterimChannel::new(activity(protocol)).open(version, Waker::noop())
        };
        assert!(open(Protocol::Http1, Version::HTTP_10).is_none());
        assert!(open(Protocol::Http2, Version::HTTP_2).is_none());
    }
}
