//! Bodies that are decoded or encoded while they pass by, a piece at a time.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use flate2::write::GzEncoder;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::ContentCoding;
use super::decode::{BodyDecoder, DECODE_STEP, DecodeError, decode};
use crate::body::{Body, BodyError};

/// Coded content of at most so many octets is decoded at once, if it has no more than
/// [`MOST_AT_ONCE`] then.
const CODED_AT_ONCE: usize = 64 << 10;
const MOST_AT_ONCE: usize = 512 << 10;

/// A body without its coding. What is small, with no more than `most` octets decoded, is decoded at
/// once, so that its length is known and a fault of it can still be told by the status. Of others a
/// fault ends the body.
///
/// # Errors
/// [`DecodeError::Damaged`], if that is known at once.
pub fn plain_body(coding: ContentCoding, body: Body, most: usize) -> Result<Body, DecodeError> {
    match body {
        Body::Empty => Ok(Body::Empty),
        Body::Full(Some(coded)) if coded.len() <= CODED_AT_ONCE => {
            match decode(coding, &coded, MOST_AT_ONCE.min(most)) {
                Ok(plain) => Ok(Body::full(plain)),
                Err(DecodeError::TooLarge) => {
                    Ok(Body::boxed(DecodedBody::new(Body::full(coded), coding)))
                }
                Err(damaged) => Err(damaged),
            }
        }
        body => Ok(Body::boxed(DecodedBody::new(body, coding))),
    }
}

/// A body whose coding is undone. What it holds is one piece of its source and of its output.
pub struct DecodedBody {
    source: Body,
    decoder: BodyDecoder,
    input: Bytes,
    /// Whether the decoder may have more output without more input.
    has_more: bool,
    source_ended: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl DecodedBody {
    pub fn new(source: Body, coding: ContentCoding) -> Self {
        Self {
            source,
            decoder: BodyDecoder::new(coding),
            input: Bytes::new(),
            has_more: false,
            source_ended: false,
            trailers: None,
            ended: false,
        }
    }

    /// Decodes what has arrived. None: more is needed.
    fn decode(&mut self) -> Result<Option<Bytes>, BodyError> {
        while self.has_more || !self.input.is_empty() {
            let mut out = BytesMut::zeroed(DECODE_STEP);
            let step = self.decoder.step(&self.input, &mut out);
            let step = step.map_err(|_| BodyError::Aborted)?;
            let _ = self.input.split_to(step.read);
            self.has_more = step.written == out.len();
            if step.written > 0 {
                out.truncate(step.written);
                // A short end does not hold the room for a long one.
                return Ok(Some(match step.written < DECODE_STEP / 4 {
                    true => Bytes::copy_from_slice(&out),
                    false => out.freeze(),
                }));
            }
            if step.read == 0 && !self.input.is_empty() {
                return Err(BodyError::Aborted);
            }
        }
        Ok(None)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(piece) = self.decode()? {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.source_ended {
                if !self.decoder.is_whole() {
                    return Poll::Ready(Some(Err(BodyError::Aborted)));
                }
                let trailers = self.trailers.take().map(|last| Ok(Frame::trailers(last)));
                return Poll::Ready(trailers);
            }
            match ready!(Pin::new(&mut self.source).poll_frame(cx)) {
                None => self.source_ended = true,
                Some(frame) => match frame?.into_data() {
                    Ok(data) => self.input = data,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }
}

impl http_body::Body for DecodedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let next = ready!(this.poll_next(cx));
        this.ended = !matches!(&next, Some(Ok(frame)) if frame.is_data());
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A body that is encoded while it passes by: fast rather than well, and flushed at every piece, so
/// that no piece waits for the next one.
pub struct EncodedBody {
    source: Body,
    encoder: Option<PieceEncoder>,
    trailers: Option<HeaderMap>,
}

enum PieceEncoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl PieceEncoder {
    /// Of brotli there is none: at its lowest quality it is no better than the other two.
    fn new(coding: ContentCoding) -> Option<Self> {
        match coding {
            ContentCoding::Gzip => Some(Self::Gzip(GzEncoder::new(
                Vec::new(),
                flate2::Compression::fast(),
            ))),
            ContentCoding::Zstd => zstd::stream::write::Encoder::new(Vec::new(), 1)
                .ok()
                .map(Self::Zstd),
            ContentCoding::Brotli => None,
        }
    }

    fn piece(&mut self, piece: &[u8]) -> std::io::Result<Bytes> {
        let out = match self {
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                encoder.flush()?;
                encoder.get_mut()
            }
            Self::Zstd(encoder) => {
                encoder.write_all(piece)?;
                encoder.flush()?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(out).into())
    }

    fn end(self) -> std::io::Result<Bytes> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
        .map(Bytes::from)
    }
}

impl EncodedBody {
    /// Whether a body can be encoded like this while it passes by.
    pub fn can(coding: ContentCoding) -> bool {
        coding != ContentCoding::Brotli
    }

    /// The body as it came if there is no such encoder.
    ///
    /// # Errors
    /// Gives the body back.
    pub fn new(source: Body, coding: ContentCoding) -> Result<Self, Body> {
        match PieceEncoder::new(coding) {
            None => Err(source),
            encoder => Ok(Self {
                source,
                encoder,
                trailers: None,
            }),
        }
    }
}

impl http_body::Body for EncodedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let Some(encoder) = &mut this.encoder else {
                let trailers = this.trailers.take().map(|last| Ok(Frame::trailers(last)));
                return Poll::Ready(trailers);
            };
            let made = match ready!(Pin::new(&mut this.source).poll_frame(cx)) {
                None => match this.encoder.take() {
                    Some(encoder) => encoder.end(),
                    None => continue,
                },
                Some(Err(error)) => {
                    this.encoder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => encoder.piece(&data),
                    Err(frame) => {
                        this.trailers = frame.into_trailers().ok();
                        continue;
                    }
                },
            };
            match made {
                Ok(piece) if piece.is_empty() => {}
                made => {
                    let made = made.map_err(|_| BodyError::Aborted);
                    return Poll::Ready(Some(made.map(Frame::data)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::super::encode::{CodingLevels, encode};
    use super::super::{CODINGS, decode::decode};
    use super::*;
    use crate::body::collect;

    fn in_pieces(of: &[u8], length: usize) -> Body {
        let frames: Vec<_> = of
            .chunks(length)
            .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        Body::boxed(StreamBody::new(stream::iter(frames)))
    }

    fn text() -> Vec<u8> {
        let line = |n: u32| format!("line {n} of a text that is long enough\n");
        (0..20_000).flat_map(|n| line(n).into_bytes()).collect()
    }

    #[tokio::test]
    async fn a_body_is_decoded_in_whatever_pieces_it_comes() {
        let levels = CodingLevels {
            gzip: 6,
            brotli: 5,
            zstd: 3,
        };
        let text = text();
        for coding in CODINGS {
            let coded = encode(coding, &levels, &text, text.len()).unwrap();
            for length in [7, 4096, coded.len()] {
                let body = DecodedBody::new(in_pieces(&coded, length), coding);
                let back = collect(Body::boxed(body), 1 << 20).await.unwrap();
                assert!(back == text, "{coding:?} in pieces of {length}");
            }
            let short = &coded[..coded.len() - 5];
            let body = DecodedBody::new(in_pieces(short, 4096), coding);
            assert!(collect(Body::boxed(body), 1 << 20).await.is_err());
        }
    }

    #[tokio::test]
    async fn every_piece_can_be_read_when_it_is_out() {
        for coding in [ContentCoding::Gzip, ContentCoding::Zstd] {
            let text = text();
            let mut encoded = EncodedBody::new(in_pieces(&text, 1000), coding).unwrap();
            let mut decoder = BodyDecoder::new(coding);
            let (mut read, mut room) = (0, vec![0; 4096]);
            let next = |body: &mut EncodedBody| {
                let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
                Pin::new(body).poll_frame(&mut cx)
            };
            while let Poll::Ready(Some(Ok(frame))) = next(&mut encoded) {
                let piece = frame.into_data().unwrap();
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    let step = decoder.step(rest, &mut room).unwrap();
                    assert_eq!(room[..step.written], text[read..read + step.written]);
                    read += step.written;
                    rest = &rest[step.read..];
                }
                let ended = read == text.len();
                assert!(ended || read % 1000 == 0, "{coding:?}: {read} of a piece");
            }
            assert_eq!(read, text.len());
            assert!(decoder.is_whole());
        }
        assert!(EncodedBody::new(Body::empty(), ContentCoding::Brotli).is_err());
        let empty = EncodedBody::new(Body::empty(), ContentCoding::Gzip).unwrap();
        let empty = collect(Body::boxed(empty), 100).await.unwrap();
        assert_eq!(decode(ContentCoding::Gzip, &empty, 1), Ok(Vec::new()));
    }
}
