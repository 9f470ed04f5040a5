//! Reads the direction of a request's stream that is the client's: [`RequestReader`].

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::EXPECT;
use http::{Method, Request, StatusCode};
use quinn::{RecvStream, VarInt};
use tokio::time::timeout;

use super::{Http3Connection, respond};
use crate::guard::RequestRefusal;
use crate::http3::frame::{FrameFault, FrameReader, RequestFrame};
use crate::http3::message::{self, RequestHead};
use crate::http3::qpack::{self, SectionError, SectionLimits};
use crate::http3::{Http3Code, Http3Fault};

/// Octets that a section may have on the wire beyond what is allowed of it: Huffman codes and
/// references are shorter than what they stand for, but not always.
const SECTION_SLACK: u64 = 1 << 10;

/// The most octets that are read of a stream at once.
const READ: usize = 64 << 10;

/// Reads a request. What it was not read of when it is dropped, the client need not send.
pub(super) struct RequestReader {
    pub(super) stream: RecvStream,
    frames: FrameReader,
    /// What was read before its turn.
    pub(super) peeked: Option<FrameResult>,
    /// Nothing more comes of the stream.
    pub(super) ended: bool,
    pub(super) shared: Arc<Http3Connection>,
    /// Whether it is counted that the client gave the request up.
    pub(super) given_up: Arc<AtomicBool>,
}

/// The next frame. None at the end of the stream.
pub(super) type FrameResult = Result<Option<RequestFrame>, FrameFault>;

/// Why there is no head.
pub(super) enum HeadEnd {
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
    pub(super) fn new(stream: RecvStream, shared: &Arc<Http3Connection>) -> Self {
        let most = shared.limits.max_header_bytes.0 + SECTION_SLACK;
        Self {
            stream,
            frames: FrameReader::new(most),
            peeked: None,
            ended: false,
            shared: Arc::clone(shared),
            given_up: Arc::default(),
        }
    }

    /// Reads the head within the time that clients have for it, and what came of the content with
    /// it.
    pub(super) async fn request_in_time(&mut self) -> Result<RequestHead, HeadEnd> {
        let limit = self.shared.limits.header_timeout.0;
        let read = timeout(limit, self.request()).await;
        read.unwrap_or(Err(HeadEnd::Refused(HEAD_TOO_SLOW)))
    }

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

    pub(super) fn fields(&self, section: &[u8]) -> Result<Vec<qpack::RawField>, SectionError> {
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
    pub(super) async fn peek(&mut self) -> Option<&FrameResult> {
        if self.peeked.is_none() {
            let read = respond::now(pin!(self.next())).await;
            self.peeked = read;
        }
        self.peeked.as_ref()
    }

    /// The next frame. Nothing is lost if it is not waited for to the end.
    pub(super) async fn next(&mut self) -> FrameResult {
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
    pub(super) fn stop(&mut self, code: Http3Code) {
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

/// Whether the client sends no content before it is told to (RFC 9110 §10.1.1).
pub(super) fn waits_for_100(request: &Request<()>) -> bool {
    let expected = request.headers().get(EXPECT);
    expected.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
