//! One request over HTTP/3: its head, its content, and the way of its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::request::Parts;
use http::{StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use quinn::{ReadError, RecvStream, SendStream, VarInt};
use tokio::select;
use tokio::time::timeout;

use super::{Http3Connection, OpenRequest, respond};
use crate::body::BodyError;
use crate::guard::framing::FramingFault;
use crate::guard::{self, RequestRefusal};
use crate::http3::frame::{FrameFault, FrameReader, RequestFrame};
use crate::http3::message::{self, RequestHead};
use crate::http3::qpack::{self, SectionError, SectionLimits};
use crate::http3::{Http3Code, Http3Fault};
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
}

/// Reads a request.
struct RequestReader {
    stream: RecvStream,
    frames: FrameReader,
    shared: Arc<Http3Connection>,
}

impl RequestStream {
    pub(super) fn new(
        send: SendStream,
        receive: RecvStream,
        shared: &Arc<Http3Connection>,
    ) -> Self {
        let most = shared.limits.max_header_bytes.0 + SECTION_SLACK;
        Self {
            send,
            receive: RequestReader {
                stream: receive,
                frames: FrameReader::new(most),
                shared: Arc::clone(shared),
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
    } = stream;
    let shared = Arc::clone(&receive.shared);
    let limit = shared.limits.header_timeout.0;
    let head = match timeout(limit, receive.head()).await {
        Ok(head) => head,
        Err(_) => Err(HeadEnd::Refused(RequestRefusal {
            status: StatusCode::REQUEST_TIMEOUT,
            reason: "the head of the request took too long",
        })),
    };
    let (response, is_head) = match head {
        Ok(RequestHead {
            had_fragment: true, ..
        }) => {
            receive.stop(Http3Code::RequestRejected);
            (
                service.refusal(guard::broken(FramingFault::Fragment), Version::HTTP_3),
                false,
            )
        }
        Ok(RequestHead {
            request,
            content_length,
            ..
        }) => {
            let is_head = request.method() == http::Method::HEAD;
            let body = RequestContent::new(receive, content_length);
            let stopped = send.stopped();
            let answer = service.answer(request.map(|()| body));
            let answered = select! {
                biased;
                answered = answer => answered,
                // The client wants no answer any more: the handler's future is dropped.
                _ = stopped => {
                    shared.given_up();
                    return;
                }
            };
            match answered {
                Ok(response) => (response, is_head),
                Err(never) => match never {},
            }
        }
        Err(HeadEnd::Refused(refusal)) => {
            receive.stop(Http3Code::RequestRejected);
            (service.refusal(refusal, Version::HTTP_3), false)
        }
        Err(HeadEnd::Fault(fault)) => return end(fault, &shared, &mut send, &mut receive),
    };
    if respond::send(&mut send, response, is_head, &shared)
        .await
        .is_err()
    {
        shared.given_up();
    }
    drop(open);
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
            receive.stop(code);
            // Fails only if it has ended.
            let _ = send.reset(VarInt::from_u32(code as u32));
        }
        Http3Fault::Left => shared.given_up(),
    }
}

/// Why there is no head.
enum HeadEnd {
    Fault(Http3Fault),
    /// The stream gets an answer, and the connection lives.
    Refused(RequestRefusal),
}

const HEAD_TOO_LARGE: RequestRefusal = RequestRefusal {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    reason: "the header fields are too large",
};

impl RequestReader {
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

    /// The next frame. None at the end of the stream.
    async fn next(&mut self) -> Result<Option<RequestFrame>, FrameFault> {
        loop {
            if let Some(frame) = self.frames.next()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ, true).await {
                Ok(Some(chunk)) => self.frames.feed(chunk.bytes),
                Ok(None) => return self.frames.end().map(|()| None),
                Err(ReadError::Reset(_) | ReadError::ConnectionLost(_)) => {
                    return Err(FrameFault::Http3(Http3Fault::Left));
                }
                // The others are about our own use of the stream.
                Err(_) => return Err(FrameFault::Http3(Http3Fault::Left)),
            }
        }
    }

    fn stop(&mut self, code: Http3Code) {
        // Fails only if it has ended.
        let _ = self.stream.stop(VarInt::from_u32(code as u32));
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
        let state = ContentReader {
            reader,
            left: length,
            done: false,
        };
        let frames = futures_util::stream::unfold(state, async |mut state| {
            let frame = state.next().await?;
            Some((frame, state))
        });
        Self {
            frames: Box::pin(frames),
            ended: false,
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
            Ok(Some(RequestFrame::Content(piece))) => {
                let came = piece.len() as u64;
                match self.left.map(|left| left.checked_sub(came)) {
                    Some(None) => Err(self.malformed()),
                    Some(left) => {
                        self.left = left;
                        Ok(Frame::data(piece))
                    }
                    None => Ok(Frame::data(piece)),
                }
            }
            Ok(Some(RequestFrame::Section(section))) => self.trailers(&section),
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
            Err(FrameFault::Http3(_)) => Err(BodyError::Aborted),
        };
        self.done = outcome.is_err();
        Some(outcome)
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
        self.reader.stop(Http3Code::MessageError);
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
        self.ended || self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
