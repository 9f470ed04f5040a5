//! The content of a request over HTTP/3: [`RequestContent`].

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::reader::{FrameResult, RequestReader};
use crate::body::BodyError;
use crate::http3::frame::{FrameFault, RequestFrame};
use crate::http3::message;
use crate::http3::qpack::SectionError;
use crate::http3::{Http3Code, Http3Fault};
use crate::server::quic::metrics::Http3Guard;

/// The content of a request, with its trailers.
pub(super) struct RequestContent {
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
    pub(super) fn new(reader: RequestReader, length: Option<u64>) -> Self {
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
