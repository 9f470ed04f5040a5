//! One request over HTTP/3: its head, its content, and the way of its answer.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::header::EXPECT;
use http::request::Parts;
use http::{Method, Request, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::select;
use tokio::time::timeout;

use super::order::AnswerTurn;
use super::respond::{self, NotDelivered};
use super::{Http3Connection, OpenRequest};
use crate::body::BodyError;
use crate::guard::framing::FramingFault;
use crate::guard::{self, RequestRefusal};
use crate::http3::frame::{FrameFault, FrameReader, RequestFrame};
use crate::http3::message::{self, RequestHead};
use crate::http3::qpack::{self, SectionError, SectionLimits};
use crate::http3::{Http3Code, Http3Fault};
use crate::priority::PriorityParameters;
use crate::server::quic::metrics::Http3Guard;
use crate::server::served_body::WantedAnswer;
use crate::server::service::ConnectionService;
use crate::server::{Body, HandlerAnswer, InterimChannel, RequestArrival};

/// Octets that a section may have on the wire beyond what is allowed of it: Huffman codes and
/// references are shorter than what they stand for, but not always.
const SECTION_SLACK: u64 = 1 << 10;

/// The most octets that are read of a stream at once.
const READ: usize = 64 << 10;

/// The two directions of a request's stream.
pub(super) struct RequestStream {
    send: SendStream,
    receive: RequestReader,
    turn: AnswerTurn,
}

/// Reads a request. What it was not read of when it is dropped, the client need not send.
struct RequestReader {
    stream: RecvStream,
    frames: FrameReader,
    /// What was read before its turn.
    peeked: Option<FrameResult>,
    /// Nothing more comes of the stream.
    ended: bool,
    shared: Arc<Http3Connection>,
    /// Whether it is counted that the client gave the request up.
    given_up: Arc<AtomicBool>,
}

/// The next frame. None at the end of the stream.
type FrameResult = Result<Option<RequestFrame>, FrameFault>;

impl RequestStream {
    pub(super) fn new(
        send: SendStream,
        receive: RecvStream,
        shared: &Arc<Http3Connection>,
    ) -> Self {
        let most = shared.limits.max_header_bytes.0 + SECTION_SLACK;
        Self {
            turn: AnswerTurn::begin(&shared.order, &send),
            send,
            receive: RequestReader {
                stream: receive,
                frames: FrameReader::new(most),
                peeked: None,
                ended: false,
                shared: Arc::clone(shared),
                given_up: Arc::default(),
            },
        }
    }
}

/// Answers one request.
pub(super) async fn serve<H>(
    stream: RequestStream,
    service: Arc<ConnectionService<H>>,
    open: OpenRequest,
) where
    H: Fn(Parts, Body, RequestArrival, &InterimChannel) -> HandlerAnswer
        + Clone
        + Send
        + Sync
        + 'static,
{
    let RequestStream {
        mut send,
        mut receive,
        mut turn,
    } = stream;
    let shared = Arc::clone(&receive.shared);
    let given_up = Arc::clone(&receive.given_up);
    let early = match receive.stream.is_0rtt() {
        true => shared.early.clone(),
        false => None,
    };
    let limit = shared.limits.header_timeout.0;
    let head = match timeout(limit, receive.request()).await {
        Ok(head) => head,
        Err(_) => Err(HeadEnd::Refused(HEAD_TOO_SLOW)),
    };
    let mut before = Vec::new();
    let (response, wanted) = match head {
        Ok(RequestHead {
            had_fragment: true, ..
        }) => {
            receive.stop(Http3Code::NoError);
            (
                service.refusal(guard::broken(FramingFault::Fragment), Version::HTTP_3),
                WantedAnswer::Whole,
            )
        }
        Ok(RequestHead {
            request,
            content_length,
            ..
        }) => {
            let wanted = WantedAnswer::by(request.method());
            turn.asked(PriorityParameters::of(request.headers()), &send);
            if !receive.ended && waits_for_100(&request) {
                let pause = shared.limits.body_timeout.0;
                if !respond::go_on(&mut send, pause).await {
                    shared.given_up(&given_up);
                    return;
                }
            }
            let body = RequestContent::new(receive, content_length);
            let stopped = send.stopped();
            let mut request = request.map(|()| body);
            if let Some(early) = early {
                request.extensions_mut().insert(early);
            }
            let (channel, mut interims) = service.early.of_stream();
            let mut answer = pin!(service.answer(request, &channel));
            let mut stopped = pin!(stopped);
            drop(channel);
            let answered = loop {
                let section = select! {
                    biased;
                    answered = answer.as_mut() => break answered,
                    // The client wants no answer any more: the handler's future is dropped.
                    _ = stopped.as_mut() => {
                        shared.given_up(&given_up);
                        return;
                    }
                    Some(section) = interims.recv() => section,
                };
                let pause = shared.limits.body_timeout.0;
                if !respond::interim(&mut send, &section, pause).await {
                    shared.given_up(&given_up);
                    return;
                }
            };
            // None may come behind the answer.
            while let Ok(section) = interims.try_recv() {
                before.push(section);
            }
            match answered {
                Ok(response) => (response, wanted),
                Err(never) => match never {},
            }
        }
        Err(HeadEnd::Refused(refusal)) => {
            shared.metrics.guarded(match refusal.status {
                StatusCode::REQUEST_TIMEOUT => Http3Guard::SlowHead,
                _ => Http3Guard::HeadTooLarge,
            });
            receive.stop(Http3Code::NoError);
            (
                service.refusal(refusal, Version::HTTP_3),
                WantedAnswer::Whole,
            )
        }
        Err(HeadEnd::Fault(fault)) => return end(fault, &shared, &mut send, &mut receive),
    };
    turn.answered(PriorityParameters::of(response.headers()), &send);
    if let Err(NotDelivered::ToThisClient) =
        respond::send(&mut send, &mut turn, before, response, wanted, &shared).await
    {
        shared.given_up(&given_up);
    }
    drop(open);
}

/// Whether the client sends no content before it is told to (RFC 9110 §10.1.1).
fn waits_for_100(request: &Request<()>) -> bool {
    let expected = request.headers().get(EXPECT);
    expected.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Ends what a fault ends.
fn end(
    fault: Http3Fault,
    shared: &Http3Connection,
    send: &mut SendStream,
    receive: &mut RequestReader,
) {
    match fault {
        Http3Fault::Connection(code) => shared.close(code),
        Http3Fault::Stream(code) => {
            shared.metrics.guarded(Http3Guard::Code(code));
            receive.stop(code);
            // Fails only if it has ended.
            let _ = send.reset(VarInt::from_u32(code.number()));
        }
        Http3Fault::Left => {
            shared.given_up(&receive.given_up);
            // There will be no answer: its direction must not look as if one ended there.
            let _ = send.reset(VarInt::from_u32(Http3Code::RequestCancelled.number()));
        }
    }
}

/// Why there is no head.
enum HeadEnd {
    Fault(Http3Fault),
    /// The stream gets an answer, and the connection lives.
    Refused(RequestRefusal),
}

const HEAD_TOO_SLOW: RequestRefusal = RequestRefusal {
    status: StatusCode::REQUEST_TIMEOUT,
    reason: "the head of the request took too long",
};

const HEAD_TOO_LARGE: RequestRefusal = RequestRefusal {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    reason: "the header fields are too large",
};

impl RequestReader {
    /// Reads the head, and what came of the content with it.
    async fn request(&mut self) -> Result<RequestHead, HeadEnd> {
        let head = self.head().await?;
        self.begin_content(&head).await?;
        Ok(head)
    }

    /// Finds out whether there is content, as far as that is known now. The end of a stream tells
    /// it and comes with the head, or soon after it. It is waited for where content is rare, and
    /// where the head says that there is none: everybody behind us wants to know.
    async fn begin_content(&mut self, head: &RequestHead) -> Result<(), HeadEnd> {
        let method = head.request.method();
        let is_rare = matches!(
            *method,
            Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS | Method::TRACE
        );
        let waits = match head.content_length {
            Some(length) => length == 0,
            None => is_rare && !waits_for_100(&head.request),
        };
        if waits {
            self.peeked = Some(self.next().await);
        }
        let malformed = HeadEnd::Fault(Http3Fault::Stream(Http3Code::MessageError));
        match (self.peek().await, head.content_length) {
            (Some(Ok(Some(RequestFrame::Content(_)))), Some(0)) => Err(malformed),
            (Some(Ok(None)), Some(1..)) => Err(malformed),
            (Some(Err(FrameFault::Http3(fault))), _) => Err(HeadEnd::Fault(*fault)),
            (Some(Err(FrameFault::SectionTooLarge)), _) => Err(malformed),
            _ => Ok(()),
        }
    }

    async fn head(&mut self) -> Result<RequestHead, HeadEnd> {
        let section = match self.next().await {
            Ok(Some(RequestFrame::Section(section))) => section,
            Ok(_) => {
                let code = Http3Code::RequestIncomplete;
                return Err(HeadEnd::Fault(Http3Fault::Stream(code)));
            }
            Err(FrameFault::Http3(fault)) => return Err(HeadEnd::Fault(fault)),
            Err(FrameFault::SectionTooLarge) => return Err(HeadEnd::Refused(HEAD_TOO_LARGE)),
        };
        let fields = match self.fields(&section) {
            Ok(fields) => fields,
            Err(SectionError::TooLarge) => return Err(HeadEnd::Refused(HEAD_TOO_LARGE)),
            Err(SectionError::Broken) => {
                let code = Http3Code::DecompressionFailed;
                return Err(HeadEnd::Fault(Http3Fault::Connection(code)));
            }
        };
        message::request_head(&fields)
            .map_err(|_| HeadEnd::Fault(Http3Fault::Stream(Http3Code::MessageError)))
    }

    fn fields(&self, section: &[u8]) -> Result<Vec<qpack::RawField>, SectionError> {
        let limits = &self.shared.limits;
        // The pseudo-header fields are no header fields.
        let fields = limits.max_headers + 4;
        qpack::decode(
            section,
            SectionLimits {
                octets: limits.max_header_bytes.0,
                fields,
            },
        )
    }

    /// The next frame, if it is there already. It stays the next one.
    async fn peek(&mut self) -> Option<&FrameResult> {
        if self.peeked.is_none() {
            let read = respond::now(pin!(self.next())).await;
            self.peeked = read;
        }
        self.peeked.as_ref()
    }

    /// The next frame. Nothing is lost if it is not waited for to the end.
    async fn next(&mut self) -> FrameResult {
        if let Some(peeked) = self.peeked.take() {
            return peeked;
        }
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(Some(frame));
            }
            if self.ended {
                return Ok(None);
            }
            match self.stream.read_chunk(READ, true).await {
                Ok(Some(chunk)) => self.frames.feed(chunk.bytes),
                Ok(None) => {
                    self.ended = true;
                    return self.frames.end().map(|()| None);
                }
                // It was reset or the connection is lost; the others are about our own use of it.
                Err(_) => {
                    self.ended = true;
                    return Err(FrameFault::Http3(Http3Fault::Left));
                }
            }
        }
    }

    /// Reads no more. What the client sends after this, it sends in vain.
    fn stop(&mut self, code: Http3Code) {
        self.ended = true;
        // Fails only if it has ended.
        let _ = self.stream.stop(VarInt::from_u32(code.number()));
    }
}

impl Drop for RequestReader {
    fn drop(&mut self) {
        if !self.ended {
            // quinn would say 0, which is no code of HTTP/3.
            self.stop(Http3Code::NoError);
        }
    }
}

/// The content of a request, with its trailers.
struct RequestContent {
    frames: Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, BodyError>> + Send>>,
    ended: bool,
    length: Option<u64>,
}

/// A request whose content is being read.
struct ContentReader {
    reader: RequestReader,
    /// What must still come, if the head has announced it.
    left: Option<u64>,
    /// Nothing more is read: the content has ended or failed.
    done: bool,
}

impl RequestContent {
    fn new(reader: RequestReader, length: Option<u64>) -> Self {
        let nothing = reader.ended && matches!(reader.peeked, Some(Ok(None)));
        let state = ContentReader {
            reader,
            left: length,
            done: nothing,
        };
        let frames = futures_util::stream::unfold(state, async |mut state| {
            let frame = state.next().await?;
            Some((frame, state))
        });
        Self {
            frames: Box::pin(frames),
            ended: nothing,
            length,
        }
    }
}

impl ContentReader {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        if self.done {
            return None;
        }
        let read = self.reader.next().await;
        let outcome = match read {
            Ok(Some(RequestFrame::Content(piece))) => match self.counts(piece.len()).await {
                true => Ok(Frame::data(piece)),
                false => Err(self.malformed()),
            },
            Ok(Some(RequestFrame::Section(section))) => {
                // Nobody reads on behind trailers: what must not come there is looked for now.
                match self.reader.peek().await {
                    Some(Err(FrameFault::Http3(Http3Fault::Connection(code)))) => {
                        let code = *code;
                        self.reader.shared.close(code);
                        Err(BodyError::Aborted)
                    }
                    _ => self.trailers(&section),
                }
            }
            Ok(None) if self.left.is_some_and(|left| left > 0) => Err(self.malformed()),
            Ok(None) => {
                self.done = true;
                return None;
            }
            Err(FrameFault::Http3(Http3Fault::Connection(code))) => {
                self.reader.shared.close(code);
                Err(BodyError::Aborted)
            }
            Err(FrameFault::SectionTooLarge) => Err(self.malformed()),
            Err(FrameFault::Http3(Http3Fault::Left)) => {
                self.reader.shared.given_up(&self.reader.given_up);
                Err(BodyError::Aborted)
            }
            Err(FrameFault::Http3(Http3Fault::Stream(_))) => Err(BodyError::Aborted),
        };
        self.done = outcome.is_err();
        Some(outcome)
    }

    /// Counts octets of the content. False if there are more than the head has announced: then
    /// those that belong to it must not look whole, either.
    async fn counts(&mut self, came: usize) -> bool {
        let Some(left) = self.left else { return true };
        let Some(left) = left.checked_sub(came as u64) else {
            return false;
        };
        self.left = Some(left);
        let surplus = |read: &FrameResult| matches!(read, Ok(Some(RequestFrame::Content(_))));
        left > 0 || !self.reader.peek().await.is_some_and(surplus)
    }

    fn trailers(&mut self, section: &[u8]) -> Result<Frame<Bytes>, BodyError> {
        match self.reader.fields(section) {
            Ok(fields) => match message::trailers(&fields) {
                Ok(trailers) => Ok(Frame::trailers(trailers)),
                Err(_) => Err(self.malformed()),
            },
            Err(SectionError::TooLarge) => Err(self.malformed()),
            Err(SectionError::Broken) => {
                self.reader.shared.close(Http3Code::DecompressionFailed);
                Err(BodyError::Aborted)
            }
        }
    }

    /// Ends the client's direction: what it sent is no message.
    fn malformed(&mut self) -> BodyError {
        let code = Http3Code::MessageError;
        self.reader.shared.metrics.guarded(Http3Guard::Code(code));
        self.reader.stop(code);
        BodyError::Aborted
    }
}

impl HttpBody for RequestContent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.frames.as_mut().poll_next(cx);
        self.ended |= matches!(polled, Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
