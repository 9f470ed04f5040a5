//! A request that may have to be sent more than once.
//!
//! Head and extensions are copied for each time. Of a body, what has been sent is kept up to
//! [`KEPT_BODY`] bytes, so that a request that the origin has not processed can be sent again;
//! when more has been sent, it can't.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HOST, UPGRADE};
use http::{Extensions, HeaderMap, Method, Request, Uri};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::spread::stable_hash;
use super::sticky::StickyPin;
use crate::http::body::{Body, BodyError};

/// The most bytes of a request's body that are kept until its response begins.
const KEPT_BODY: usize = 64 << 10;

/// A request to send, once or more often.
pub(super) struct OutgoingRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
    body: OutgoingBody,
}

/// The address of the client that a request is sent for. It is attached to the request as an
/// extension.
#[derive(Clone, Copy, Debug)]
pub struct RequestClient(pub IpAddr);

/// A hash of the key that the cache has, or would have, for the answer; the same in each process.
/// It is attached to the request as an extension.
#[derive(Clone, Copy, Debug)]
pub struct RequestKey(pub u64);

/// Marks a load whose answer may be for many, as an extension of the request: where upstreams hedge,
/// it may go to a second target while the first has not answered.
#[derive(Clone, Copy, Debug)]
pub struct SharedLoad;

enum OutgoingBody {
    Empty,
    Kept(Arc<Mutex<KeptBody>>),
}

/// A body, and what has been sent of it.
struct KeptBody {
    rest: Body,
    sent: Vec<Bytes>,
    sent_bytes: usize,
    /// More was sent than is kept, or something that is not kept.
    is_lost: bool,
    /// Which sending may read it: the number of the last one.
    sending: u32,
}

/// The body of one sending.
struct SentBody {
    kept: Arc<Mutex<KeptBody>>,
    sending: u32,
    /// How many of the kept pieces were given out again.
    given: usize,
}

impl OutgoingRequest {
    pub(super) fn new(request: Request<Body>) -> Self {
        let (head, body) = request.into_parts();
        let body = match body.is_empty() {
            true => OutgoingBody::Empty,
            false => OutgoingBody::Kept(Arc::new(Mutex::new(KeptBody {
                rest: body,
                sent: Vec::new(),
                sent_bytes: 0,
                is_lost: false,
                sending: 0,
            }))),
        };
        Self {
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            extensions: head.extensions,
            body,
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
        self.extensions.get::<SharedLoad>().is_some()
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
        let given = self.extensions.get::<RequestClient>();
        given.map(|RequestClient(address)| *address)
    }

    /// The target that the client stays with, where the caller has given it.
    pub(super) fn pin(&self) -> Option<StickyPin> {
        self.extensions.get::<StickyPin>().copied()
    }

    /// What the answer is known by: the key that the caller has given, or else host, path and
    /// query.
    pub(super) fn key(&self) -> u64 {
        if let Some(RequestKey(key)) = self.extensions.get::<RequestKey>() {
            return *key;
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
    Some(Body::boxed(SentBody {
        kept: Arc::clone(kept),
        sending: state.sending,
        given: 0,
    }))
}

impl KeptBody {
    fn keep(&mut self, piece: &Bytes) {
        self.sent_bytes += piece.len();
        if self.sent_bytes > KEPT_BODY {
            self.lose();
        } else if !self.is_lost {
            self.sent.push(piece.clone());
        }
    }

    fn lose(&mut self) {
        self.is_lost = true;
        self.sent = Vec::new();
    }
}

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut kept = this.kept.lock();
        if kept.sending != this.sending {
            return Poll::Ready(Some(Err(BodyError::Aborted)));
        }
        if let Some(piece) = kept.sent.get(this.given) {
            this.given += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let frame = Pin::new(&mut kept.rest).poll_frame(cx);
        if let Poll::Ready(Some(outcome)) = &frame {
            match outcome.as_ref().ok().and_then(Frame::data_ref) {
                Some(piece) => kept.keep(piece),
                None => kept.lose(),
            }
            this.given = kept.sent.len();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept.lock();
        self.given >= kept.sent.len() && kept.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.lock();
        let again: usize = kept.sent[self.given.min(kept.sent.len())..]
            .iter()
            .map(Bytes::len)
            .sum();
        let (again, rest) = (again as u64, kept.rest.size_hint());
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
            kept.lock().lose();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn request(pieces: &[usize]) -> OutgoingRequest {
        let frames: Vec<_> = pieces
            .iter()
            .map(|size| Ok::<_, BodyError>(Frame::data(Bytes::from(vec![b'x'; *size]))))
            .collect();
        let stream = StreamBody::new(futures_util::stream::iter(frames));
        OutgoingRequest::new(Request::post("/").body(Body::boxed(stream)).unwrap())
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

    #[test]
    fn a_body_of_which_more_was_sent_than_is_kept_is_sent_once() {
        let outgoing = request(&[KEPT_BODY, 1, 5]);
        assert_eq!(read(outgoing.next().unwrap()).unwrap(), KEPT_BODY + 6);
        assert!(outgoing.next().is_none());
    }

    #[test]
    fn a_request_without_a_body_is_sent_any_number_of_times() {
        let empty = Request::get("/a").header("x", "y").body(Body::empty());
        let outgoing = OutgoingRequest::new(empty.unwrap());
        for _ in 0..3 {
            let request = outgoing.next().unwrap();
            assert_eq!(request.headers()["x"], "y");
            assert!(request.body().is_empty() && request.uri().path() == "/a");
        }
    }
}
