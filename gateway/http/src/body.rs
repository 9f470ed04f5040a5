//! The one body type of responses to clients and of requests to origins.
//!
//! Decision: an enum, not a boxed trait object, so that the two common bodies (no content, and
//! content that is complete) cost no allocation; only streams are boxed. [`bounded`] puts limits
//! around a stream; it does not matter here who is at the far end (a client, an origin, a flight
//! of the cache).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

mod begun;
mod bounded;
mod excerpt;
mod pace;
mod pieces;
mod slices;
mod until;
mod upload;

pub use bounded::{BoundedBody, LastMove, TimeLift};
pub use excerpt::BodyExcerpt;
pub use pace::{MinimumRate, TakenAhead};
pub use pieces::{KeptPieces, PiecePlace};
pub use upload::{ListenerUploadLimits, UploadLimits, UploadTerms};

/// The stream inside [`Body::Boxed`].
pub type BodyStream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// The content of a message: none, complete, or a stream.
#[derive(Default)]
pub enum Body {
    /// No content; known to be at its end.
    #[default]
    Empty,
    /// All of the content; `None` once it was handed out.
    Full(Option<Bytes>),
    /// Content that arrives in pieces, perhaps with trailers.
    Boxed(BodyStream),
}

/// Why a body ended too early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The sender gave up; what has arrived is not all.
    #[error("the body was cut short by its sender")]
    Aborted,
    /// No piece arrived within the pause that is allowed between two pieces, the pieces came too
    /// slowly, or the whole body took too long.
    #[error("the body stalled or arrived too slowly")]
    Timeout,
    /// The body is larger than `limit` bytes.
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// The connection failed or broke the protocol.
    #[error("the connection failed while the body was read")]
    Transport(#[from] hyper::Error),
}

impl Body {
    /// No content.
    pub fn empty() -> Self {
        Self::Empty
    }

    /// Content that is complete.
    pub fn full(content: impl Into<Bytes>) -> Self {
        let content = content.into();
        if content.is_empty() {
            Self::Empty
        } else {
            Self::Full(Some(content))
        }
    }

    /// Content that is complete in several pieces, none of them empty.
    pub fn slices(mut pieces: Vec<Bytes>) -> Self {
        match pieces.len() {
            0 => Self::Empty,
            1 => pieces.pop().map_or(Self::Empty, Self::full),
            _ => Self::boxed(slices::SlicedBody(pieces.into())),
        }
    }

    /// Content that comes in pieces.
    pub fn boxed<B>(stream: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self::Boxed(Box::pin(stream))
    }

    /// Whether it is known that nothing (more) will come.
    pub fn is_empty(&self) -> bool {
        http_body::Body::is_end_stream(self)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(content) => Poll::Ready(content.take().map(|all| Ok(Frame::data(all)))),
            Self::Boxed(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(content) => content.is_none(),
            Self::Boxed(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(content) => {
                SizeHint::with_exact(content.as_ref().map_or(0, |all| all.len() as u64))
            }
            Self::Boxed(stream) => stream.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The content may be large or private.
        let form = match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Boxed(_) => "Boxed",
        };
        let size = http_body::Body::size_hint(self);
        f.debug_tuple(form).field(&size).finish()
    }
}

impl From<Bytes> for Body {
    fn from(content: Bytes) -> Self {
        Self::full(content)
    }
}

/// Reads a body to its end, into at most `limit` bytes; trailers are dropped.
///
/// # Errors
/// `TooLarge` as soon as the limit is passed (or its announced size is above the limit), or the
/// error of the body itself.
pub async fn collect(mut body: Body, limit: usize) -> Result<Bytes, BodyError> {
    let too_large = || BodyError::TooLarge {
        limit: limit as u64,
    };
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(too_large());
    }
    let Some(first) = next_data(&mut body).await? else {
        return Ok(Bytes::new());
    };
    let Some(second) = next_data(&mut body).await? else {
        return if first.len() > limit {
            Err(too_large())
        } else {
            Ok(first)
        };
    };
    let mut all = BytesMut::with_capacity(first.len() + second.len());
    let mut next = Some(second);
    all.extend_from_slice(&first);
    while let Some(piece) = next {
        if all.len() + piece.len() > limit {
            return Err(too_large());
        }
        all.extend_from_slice(&piece);
        next = next_data(&mut body).await?;
    }
    Ok(all.freeze())
}

/// The next piece of content; `None` at the end.
async fn next_data(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    loop {
        let frame =
            std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *body), cx));
        match frame.await {
            None => return Ok(None),
            Some(Err(error)) => return Err(error),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::{Body, BodyError, Bytes, Frame, collect};

    fn pieces(of: &[&'static str]) -> Body {
        let frames: Vec<_> = of
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        Body::boxed(StreamBody::new(stream::iter(frames)))
    }

    #[tokio::test]
    async fn collecting_joins_the_pieces() {
        let all = collect(pieces(&["one ", "two ", "three"]), 64)
            .await
            .unwrap();
        assert_eq!(all, "one two three");
        assert_eq!(collect(Body::full("whole"), 5).await.unwrap(), "whole");
        assert_eq!(collect(Body::empty(), 0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn collecting_stops_at_the_limit() {
        for body in [
            pieces(&["12345", "6"]),
            pieces(&["123456"]),
            Body::full("123456"),
        ] {
            let error = collect(body, 5).await.unwrap_err();
            assert!(matches!(error, BodyError::TooLarge { limit: 5 }));
        }
    }

    #[test]
    fn the_end_and_the_size_of_whole_bodies_are_exact() {
        use http_body::Body as _;
        assert!(Body::full("").is_empty());
        assert!(!Body::full("x").is_empty());
        assert_eq!(Body::full("four").size_hint().exact(), Some(4));
        assert_eq!(Body::empty().size_hint().exact(), Some(0));
        assert_eq!(pieces(&["a"]).size_hint().exact(), None);
    }
}
