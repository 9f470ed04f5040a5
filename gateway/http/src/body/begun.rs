//! A stream whose first piece was awaited, to find out whether there is any content.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Body, BodyError, BodyStream};

/// The stream with its first piece put back.
struct PeekedBody {
    first: Option<Result<Frame<Bytes>, BodyError>>,
    rest: BodyStream,
}

impl Body {
    /// Waits until it is known whether there is content. A stream that ends without any becomes
    /// [`Body::Empty`].
    pub async fn begun(self) -> Self {
        let Self::Boxed(mut rest) = self else {
            return self;
        };
        loop {
            match poll_fn(|cx| rest.as_mut().poll_frame(cx)).await {
                None => return Self::Empty,
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                first => return Self::boxed(PeekedBody { first, rest }),
            }
        }
    }
}

impl HttpBody for PeekedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.rest.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) | None => 0,
        };
        let rest = self.rest.size_hint();
        match rest.exact() {
            Some(exact) => SizeHint::with_exact(exact + first),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::super::collect;
    use super::{Body, Bytes, Frame};

    fn pieces(of: &[&'static str]) -> Body {
        let frames = of
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        Body::boxed(StreamBody::new(stream::iter(frames.collect::<Vec<_>>())))
    }

    #[tokio::test]
    async fn a_stream_without_content_is_empty_and_others_lose_nothing() {
        for nothing in [&[][..], &[""], &["", ""]] {
            assert!(pieces(nothing).begun().await.is_empty(), "{nothing:?}");
        }
        for something in [&["ab"][..], &["", "a", "", "b"]] {
            let begun = pieces(something).begun().await;
            assert!(!begun.is_empty());
            assert_eq!(collect(begun, 9).await.unwrap(), "ab", "{something:?}");
        }
    }
}
