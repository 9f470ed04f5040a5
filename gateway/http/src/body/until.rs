//! A body that is cut when something else has happened.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as _, Frame, SizeHint};

use super::{Body, BodyError, BodyStream};

/// A stream, and what cuts it.
struct CutBody {
    stream: BodyStream,
    end: BoxFuture<'static, ()>,
}

impl Body {
    /// Cuts a body whose length nobody knows when `end` completes. All others end by themselves.
    pub fn until(self, end: impl Future<Output = ()> + Send + 'static) -> Self {
        match self {
            Self::Boxed(stream) if stream.size_hint().exact().is_none() => Self::boxed(CutBody {
                stream,
                end: Box::pin(end),
            }),
            body => body,
        }
    }
}

impl http_body::Body for CutBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.stream.as_mut().poll_frame(cx) {
            // One that always has something is not looked at: sooner or later it waits for its sender.
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending => match self.end.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::Aborted))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::Waker;

    use super::*;

    /// Never says anything.
    struct SilentBody(SizeHint);

    impl http_body::Body for SilentBody {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Pending
        }

        fn size_hint(&self) -> SizeHint {
            self.0
        }
    }

    #[test]
    fn only_a_stream_of_unknown_length_is_cut_and_only_at_its_end() {
        let is_cut = |mut body: Body| {
            let cx = &mut Context::from_waker(Waker::noop());
            let polled = Pin::new(&mut body).poll_frame(cx);
            matches!(polled, Poll::Ready(Some(Err(BodyError::Aborted))))
        };
        let silent = |hint| Body::boxed(SilentBody(hint));
        assert!(is_cut(silent(SizeHint::default()).until(ready(()))));
        assert!(!is_cut(silent(SizeHint::default()).until(pending())));
        assert!(!is_cut(silent(SizeHint::with_exact(7)).until(ready(()))));
        assert!(!is_cut(Body::full("x").until(ready(()))));
    }
}
