//! A range of octets from a stream that passes: octets before it are discarded, and octets behind
//! it are never asked for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Body, BodyError};

/// The octets of a range of `body`.
pub struct BodyExcerpt {
    body: Body,
    /// Octets that are still to be discarded.
    before: u64,
    /// Octets that are still to be returned.
    left: u64,
}

impl BodyExcerpt {
    /// The octets from `first` to `last` of `body`, both included.
    pub fn new(body: Body, first: u64, last: u64) -> Self {
        Self {
            body,
            before: first,
            left: last - first + 1,
        }
    }

    /// The part of a piece that belongs to the range.
    fn clip(&mut self, mut piece: Bytes) -> Bytes {
        let skipped = piece
            .len()
            .min(usize::try_from(self.before).unwrap_or(usize::MAX));
        let _ = piece.split_to(skipped);
        piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.before -= skipped as u64;
        self.left -= piece.len() as u64;
        piece
    }
}

impl http_body::Body for BodyExcerpt {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = self.get_mut();
        while me.left > 0 {
            let data = match ready!(Pin::new(&mut me.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    me.left = 0;
                    return Poll::Ready(Some(Err(BodyError::Aborted)));
                }
            };
            let piece = data.map_or_else(|_| Bytes::new(), |piece| me.clip(piece));
            if me.left == 0 {
                // Dropping the body tells the sender that nothing more is needed.
                me.body = Body::Empty;
            }
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn pieces(pieces: &[&'static str]) -> Body {
        let frame = |piece: &&'static str| Ok(Frame::data(Bytes::from_static(piece.as_bytes())));
        let frames: Vec<Result<_, BodyError>> = pieces.iter().map(frame).collect();
        Body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn any_run_of_octets_comes_out_of_any_pieces() {
        let whole = "0123456789";
        for first in 0..whole.len() {
            for last in first..whole.len() {
                let body = pieces(&["0", "1234", "56", "789"]);
                let cut = BodyExcerpt::new(body, first as u64, last as u64);
                assert_eq!(cut.size_hint().exact(), Some((last - first + 1) as u64));
                let got = cut.collect().await.unwrap().to_bytes();
                assert_eq!(got, &whole[first..=last], "{first}-{last}");
            }
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_too_soon_is_an_error() {
        let cut = BodyExcerpt::new(pieces(&["0123"]), 2, 7);
        assert!(cut.collect().await.is_err());
    }
}
