//! A request that may have to be sent more than once.
//!
//! Head and extensions are copied for each time. Of a body, what has been sent is kept up to
//! [`KEPT_BODY`] bytes, so that a request that the origin has not processed can be sent again;
//! when more has been sent, it can't.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, UPGRADE};
use http::{Extensions, HeaderMap, Method, Request, Uri};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::attempt::OnAttempt;
use super::spread::stable_hash;
use super::sticky::StickyPin;
use crate::http::body::{Body, BodyError, KeptPieces, PiecePlace};
use crate::http::memory::ConnectionMemory;

/// The most bytes of a request's body that are kept until its response begins.
const KEPT_BODY: usize = 64 << 10;

/// A request to send, once or more often.
pub(super) struct OutgoingRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
    body: OutgoingBody,
    terms: SendTerms,
}

/// What the client gets if there is no good answer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum FailureFallback {
    /// An error.
    #[default]
    Error,
    /// A stale copy. It is not worth a second attempt, and none at all while most targets fail.
    StaleCopy,
}

/// What is said of a request beside what its origin gets: one extension of the request, since each
/// further one would cost a place in a table, a box, and a copy of both.
#[derive(Clone, Default)]
pub struct SendTerms {
    /// When the caller stops waiting for the answer: no further attempt begins that could not end by
    /// then.
    pub deadline: Option<Instant>,
    /// Nothing is sent to a further target for nobody.
    pub audience: Option<LoadAudience>,
    pub readers: AnswerReaders,
    /// What the client gets if there is no good answer.
    pub fallback: FailureFallback,
    /// Is told of each attempt.
    pub told: Option<OnAttempt>,
    /// The account that the memory of the answer is charged to.
    pub memory: Option<Arc<ConnectionMemory>>,
    /// The longest silence of a stream, in place of the upstream's `timeouts.stream_idle`.
    pub silence: Option<Duration>,
    /// The address of the client that it is sent for.
    pub client: Option<IpAddr>,
    /// A hash of the key that the cache has, or would have, for the answer; the same in each
    /// process.
    pub key: Option<u64>,
    /// The target that the client stays with.
    pub pin: Option<StickyPin>,
}

/// Whom an answer may be for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum AnswerReaders {
    #[default]
    One,
    /// It is a load that many may share: where upstreams hedge, it may go to a second target while
    /// the first has not answered.
    Many,
}

/// Tells whether anybody waits for the answer.
#[derive(Clone)]
pub struct LoadAudience(Arc<AudienceCheck>);

type AudienceCheck = dyn Fn() -> bool + Send + Sync;

enum OutgoingBody {
    Empty,
    Kept(Arc<Mutex<KeptBody>>),
}

/// A body, and what has been sent of it.
struct KeptBody {
    rest: Body,
    sent: KeptPieces,
    sent_bytes: usize,
    /// The trailers behind it, when they have come.
    trailers: Option<HeaderMap>,
    /// More was sent than is kept, or the body has broken off.
    is_lost: bool,
    /// Which sending may read it: the number of the last one.
    sending: u32,
    /// How far that one has come in what is kept.
    given: PiecePlace,
    given_bytes: usize,
    has_given_trailers: bool,
}

/// The body of one sending.
struct SentBody {
    kept: Arc<Mutex<KeptBody>>,
    sending: u32,
}

impl LoadAudience {
    pub fn new(waits: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(waits))
    }

    /// Whether somebody waits now.
    pub(super) fn waits(&self) -> bool {
        (self.0)()
    }
}

impl SendTerms {
    /// Those of this request, to be changed.
    pub fn of(request: &mut Request<Body>) -> &mut Self {
        request.extensions_mut().get_or_insert_default()
    }
}

impl OutgoingRequest {
    pub(super) fn new(request: Request<Body>, terms: SendTerms) -> Self {
        let (head, body) = request.into_parts();
        let body = match body.is_empty() {
            true => OutgoingBody::Empty,
            false => OutgoingBody::Kept(Arc::new(Mutex::new(KeptBody {
                rest: body,
                sent: KeptPieces::default(),
                sent_bytes: 0,
                trailers: None,
                is_lost: false,
                sending: 0,
                given: PiecePlace::default(),
                given_bytes: 0,
                has_given_trailers: false,
            }))),
        };
        Self {
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            extensions: head.extensions,
            body,
            terms,
        }
    }

    /// Whether it may be sent again although the origin may have processed it: it has no body, and
    /// a method that is safe (RFC 9110 §9.2.1).
    pub(super) fn may_be_repeated(&self) -> bool {
        let safe = matches!(
            self.method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
        );
        safe && matches!(self.body, OutgoingBody::Empty)
    }

    /// Whether its method is one of these, and it has no body.
    pub(super) fn has_method_of(&self, methods: &[String]) -> bool {
        let listed = methods.iter().any(|method| method == self.method.as_str());
        listed && matches!(self.body, OutgoingBody::Empty)
    }

    /// Whether it may be sent to a second target before the first has answered.
    pub(super) fn may_be_hedged(&self) -> bool {
        self.terms.readers == AnswerReaders::Many
            && self.method == Method::GET
            && matches!(self.body, OutgoingBody::Empty)
            && !self.headers.contains_key(UPGRADE)
    }

    /// Whether it can be sent once more.
    pub(super) fn can_be_sent(&self) -> bool {
        match &self.body {
            OutgoingBody::Empty => true,
            OutgoingBody::Kept(kept) => !kept.lock().is_lost,
        }
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The address of the client, where the caller has given it.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.terms.client
    }

    /// The target that the client stays with, where the caller has given it.
    pub(super) fn pin(&self) -> Option<StickyPin> {
        self.terms.pin
    }

    /// What the answer is known by: the key that the caller has given, or else host, path and
    /// query.
    pub(super) fn key(&self) -> u64 {
        if let Some(key) = self.terms.key {
            return key;
        }
        let host = self
            .headers
            .get(HOST)
            .map_or(&b""[..], |host| host.as_bytes());
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        stable_hash(&[host, path.as_bytes()].concat())
    }

    /// The request, to be sent. None if too much of its body was sent before.
    pub(super) fn next(&self) -> Option<Request<Body>> {
        let body = match &self.body {
            OutgoingBody::Empty => Body::empty(),
            OutgoingBody::Kept(kept) => next_sending(kept)?,
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        Some(request)
    }
}

fn next_sending(kept: &Arc<Mutex<KeptBody>>) -> Option<Body> {
    let mut state = kept.lock();
    if state.is_lost {
        return None;
    }
    state.sending += 1;
    (state.given, state.given_bytes) = (PiecePlace::default(), 0);
    state.has_given_trailers = false;
    Some(Body::boxed(SentBody {
        kept: Arc::clone(kept),
        sending: state.sending,
    }))
}

impl KeptBody {
    fn keep(&mut self, piece: &Bytes) {
        self.sent_bytes += piece.len();
        self.given_bytes = self.sent_bytes;
        if self.sent_bytes > KEPT_BODY {
            self.stop_keeping();
        } else if !self.is_lost {
            self.sent.push(piece.clone());
            self.sent.skip_to_end(&mut self.given);
        }
    }

    /// What was sent is not sent again, except for what the present sending has not given out yet.
    fn stop_keeping(&mut self) {
        self.is_lost = true;
        if self.has_given_all() {
            self.sent = KeptPieces::default();
        }
    }

    /// What has come and was not sent before.
    fn keep_frame(&mut self, frame: &Frame<Bytes>) {
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(piece), _) => self.keep(piece),
            (None, Some(trailers)) => {
                self.trailers = Some(trailers.clone());
                self.has_given_trailers = true;
            }
            (None, None) => self.stop_keeping(),
        }
    }

    /// What was sent before and comes next.
    fn again(&mut self) -> Option<Frame<Bytes>> {
        let Some(piece) = self.sent.next(&mut self.given) else {
            let trailers = self.trailers.as_ref().filter(|_| !self.has_given_trailers);
            let trailers = trailers.cloned()?;
            self.has_given_trailers = true;
            return Some(Frame::trailers(trailers));
        };
        self.given_bytes += piece.len();
        if self.is_lost {
            self.stop_keeping();
        }
        Some(Frame::data(piece))
    }

    fn has_given_all(&self) -> bool {
        self.given_bytes >= self.sent_bytes && (self.has_given_trailers || self.trailers.is_none())
    }
}

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut kept = self.kept.lock();
        if kept.sending != self.sending {
            return Poll::Ready(Some(Err(BodyError::Aborted)));
        }
        if let Some(frame) = kept.again() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let frame = Pin::new(&mut kept.rest).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => kept.keep_frame(frame),
            Poll::Ready(Some(Err(_))) => kept.stop_keeping(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept.lock();
        kept.has_given_all() && kept.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.lock();
        let again = (kept.sent_bytes - kept.given_bytes) as u64;
        let rest = kept.rest.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(again));
        }
        hint.set_lower(rest.lower().saturating_add(again));
        hint
    }
}

impl Drop for OutgoingRequest {
    /// The response has begun, or there is none: nothing is sent again.
    fn drop(&mut self) {
        if let OutgoingBody::Kept(kept) = &self.body {
            kept.lock().stop_keeping();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body::Body as _;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn request(pieces: &[usize]) -> OutgoingRequest {
        let frames: Vec<_> = pieces
            .iter()
            .map(|size| Ok::<_, BodyError>(Frame::data(Bytes::from(vec![b'x'; *size]))))
            .collect();
        let stream = StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::post("/").body(Body::boxed(stream)).unwrap();
        OutgoingRequest::new(request, SendTerms::default())
    }

    fn read(request: Request<Body>) -> Result<usize, BodyError> {
        let whole = request.into_body().collect().now_or_never().unwrap()?;
        Ok(whole.to_bytes().len())
    }

    #[test]
    fn a_body_is_sent_again_from_its_beginning() {
        let outgoing = request(&[10, 20, 30]);
        let mut first = outgoing.next().unwrap();
        let piece = first.body_mut().frame().now_or_never().unwrap();
        assert_eq!(piece.unwrap().unwrap().data_ref().unwrap().len(), 10);
        assert_eq!(read(outgoing.next().unwrap()).unwrap(), 60);
        assert_eq!(
            read(outgoing.next().unwrap()).unwrap(),
            60,
            "also what was sent whole"
        );
        assert!(
            matches!(read(first), Err(BodyError::Aborted)),
            "one at a time"
        );
    }

    /// An origin may answer before it has read all.
    #[test]
    fn what_is_sent_again_goes_on_to_its_end_when_the_answer_has_begun() {
        let outgoing = request(&[5_000, 6_000, 30]);
        assert_eq!(read(outgoing.next().unwrap()).unwrap(), 11_030);
        let mut again = outgoing.next().unwrap();
        let piece = again.body_mut().frame().now_or_never().unwrap();
        assert_eq!(piece.unwrap().unwrap().data_ref().unwrap().len(), 5_000);
        drop(outgoing);
        assert_eq!(again.body().size_hint().lower(), 6_030);
        assert_eq!(read(again).unwrap(), 6_030);
    }

    #[test]
    fn a_body_of_which_more_was_sent_than_is_kept_is_sent_once() {
        let outgoing = request(&[KEPT_BODY, 1, 5]);
        assert_eq!(read(outgoing.next().unwrap()).unwrap(), KEPT_BODY + 6);
        assert!(outgoing.next().is_none());
    }

    #[test]
    fn a_request_without_a_body_is_sent_any_number_of_times() {
        let empty = Request::get("/a").header("x", "y").body(Body::empty());
        let outgoing = OutgoingRequest::new(empty.unwrap(), SendTerms::default());
        for _ in 0..3 {
            let request = outgoing.next().unwrap();
            assert_eq!(request.headers()["x"], "y");
            assert!(request.body().is_empty() && request.uri().path() == "/a");
        }
    }
}
