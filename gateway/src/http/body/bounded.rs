//! Limits around a stream: bytes in all, and the longest pause between two pieces.
//!
//! Neighbours: the listener puts it around request bodies, `origin` around response
//! bodies. The pause is counted only while the reader waits: a slow reader does not make
//! its sender late. The timer is made at the first wait; a body that is always ready has
//! none.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use super::BodyError;

pin_project! {
    /// A body with a limit on its bytes and on the pauses in it.
    pub struct Bounded<B> {
        #[pin]
        inner: B,
        limit: u64,
        seen: u64,
        pause: Duration,
        // Boxed: most bodies never wait, and the body would grow by the timer's size.
        timer: Option<Pin<Box<Sleep>>>,
        waiting: bool,
        ended: bool,
    }
}

impl<B> Bounded<B> {
    /// `limit` in bytes of content; `pause` is the longest wait for one piece.
    pub fn new(inner: B, limit: u64, pause: Duration) -> Self {
        Self {
            inner,
            limit,
            seen: 0,
            pause,
            timer: None,
            waiting: false,
            ended: false,
        }
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let outcome = match self.as_mut().project().inner.poll_frame(cx) {
            Poll::Ready(frame) => self.as_mut().count(frame),
            Poll::Pending => {
                ready!(self.as_mut().poll_pause(cx));
                Some(Err(BodyError::Timeout))
            }
        };
        let this = self.project();
        *this.waiting = false;
        *this.ended = !matches!(outcome, Some(Ok(_)));
        Poll::Ready(outcome)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Bounded<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    /// Counts what arrived; over the limit it is an error instead.
    fn count(
        self: Pin<&mut Self>,
        frame: Option<Result<Frame<Bytes>, B::Error>>,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        let this = self.project();
        let frame = match frame? {
            Ok(frame) => frame,
            Err(error) => return Some(Err(error.into())),
        };
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        *this.seen = this.seen.saturating_add(length);
        if *this.seen > *this.limit {
            return Some(Err(BodyError::TooLarge { limit: *this.limit }));
        }
        Some(Ok(frame))
    }

    /// Ready when the wait for this piece has become too long.
    fn poll_pause(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let pause = *this.pause;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(pause)));
        if !*this.waiting {
            *this.waiting = true;
            // A pause beyond what the clock can count means no deadline.
            if let Some(deadline) = Instant::now().checked_add(pause) {
                timer.as_mut().reset(deadline);
            }
        }
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::{BodyError, Bounded, Bytes, Duration, Frame};

    type Piece = Result<Frame<Bytes>, BodyError>;

    fn data(text: &'static str) -> Piece {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_too_long_is_a_timeout() {
        let silent = stream::once(async { data("a") }).chain(stream::once(pending::<Piece>()));
        let mut body = Box::pin(Bounded::new(
            StreamBody::new(Box::pin(silent)),
            10,
            Duration::from_secs(5),
        ));
        assert!(body.frame().await.unwrap().is_ok());
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::Timeout));
        assert!(body.frame().await.is_none(), "nothing follows an error");
    }

    #[tokio::test(start_paused = true)]
    async fn many_short_pauses_are_no_timeout() {
        let slow = stream::iter(0..10).then(|_| async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            data("a")
        });
        let body = Bounded::new(StreamBody::new(slow), 10, Duration::from_secs(5));
        assert_eq!(
            Box::pin(body).collect().await.unwrap().to_bytes(),
            "aaaaaaaaaa"
        );
    }

    #[tokio::test]
    async fn a_byte_over_the_limit_is_an_error() {
        let long = StreamBody::new(stream::iter([data("12345"), data("6")]));
        let mut body = Bounded::new(long, 5, Duration::from_secs(5));
        assert!(body.frame().await.unwrap().is_ok());
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { limit: 5 }));
    }
}
