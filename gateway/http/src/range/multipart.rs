//! The body of a `multipart/byteranges` answer (RFC 9110 §14.6): slices of the stored body with
//! small heads between them, made as they are read. Nothing of the body is copied, and only one
//! head exists at a time.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};

use crate::body::BodyError;

/// Several parts of one stored body.
#[derive(Debug)]
pub struct Multipart {
    body: Bytes,
    /// First and last octet of each part.
    parts: Vec<(u64, u64)>,
    content_type: Option<HeaderValue>,
    boundary: String,
    next: NextPiece,
    /// Octets that are still to be sent, including heads.
    left: u64,
}

/// The piece that is read next.
#[derive(Clone, Copy, Debug)]
enum NextPiece {
    /// The head of the part with this number; behind the last part the closing line.
    Head(usize),
    Content(usize),
    End,
}

impl Multipart {
    /// `parts` must lie within `body`; `boundary` must be a token that does not occur in it, so it
    /// should have about 16 random characters.
    pub fn new(
        parts: Vec<(u64, u64)>,
        body: Bytes,
        content_type: Option<HeaderValue>,
        boundary: String,
    ) -> Self {
        let mut multipart = Self {
            body,
            parts,
            content_type,
            boundary,
            next: NextPiece::Head(0),
            left: 0,
        };
        let numbers = 0..multipart.parts.len();
        let octets = numbers.map(|n| multipart.head(n).len() + multipart.content(n).len());
        multipart.left = octets.sum::<usize>() as u64 + multipart.closing_line().len() as u64;
        multipart
    }

    /// The `Content-Type` of the answer.
    pub fn content_type(&self) -> HeaderValue {
        super::ascii_value(format!("multipart/byteranges; boundary={}", self.boundary))
    }

    /// The line break that ends the previous part, and the head of this one.
    fn head(&self, n: usize) -> Bytes {
        let (first, last) = self.parts[n];
        let line_break = if n == 0 { "" } else { "\r\n" };
        let mut head = format!("{line_break}--{}\r\n", self.boundary).into_bytes();
        if let Some(content_type) = &self.content_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(content_type.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        let length = self.body.len();
        head.extend_from_slice(
            format!("Content-Range: bytes {first}-{last}/{length}\r\n\r\n").as_bytes(),
        );
        head.into()
    }

    fn content(&self, n: usize) -> Bytes {
        let (first, last) = self.parts[n];
        let at = |place: u64| (place.min(self.body.len() as u64)) as usize;
        self.body.slice(at(first)..at(last + 1))
    }

    fn closing_line(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.boundary).into()
    }

    fn piece(&mut self) -> Option<Bytes> {
        let (piece, next) = match self.next {
            NextPiece::Head(n) if n < self.parts.len() => (self.head(n), NextPiece::Content(n)),
            NextPiece::Head(_) => (self.closing_line(), NextPiece::End),
            NextPiece::Content(n) => (self.content(n), NextPiece::Head(n + 1)),
            NextPiece::End => return None,
        };
        self.next = next;
        self.left -= piece.len() as u64;
        Some(piece)
    }
}

impl Body for Multipart {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.get_mut().piece().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.next, NextPiece::End)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_multipart_body_has_the_form_of_its_rfc_and_the_length_that_it_says() {
        let body = Bytes::from_static(b"0123456789");
        let kind = HeaderValue::from_static("text/plain");
        let multipart = Multipart::new(vec![(8, 9), (0, 1)], body, Some(kind), "b".to_owned());
        assert_eq!(multipart.content_type(), "multipart/byteranges; boundary=b");
        let length = multipart.size_hint().exact();
        let bytes = multipart.collect().await.unwrap().to_bytes();
        assert_eq!(
            bytes,
            "--b\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n\
             --b\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n--b--\r\n"
        );
        assert_eq!(length, Some(bytes.len() as u64));
    }

    #[tokio::test]
    async fn content_is_a_slice_of_the_stored_body_and_not_a_copy() {
        let body = Bytes::from(vec![b'x'; 1 << 20]);
        let stored = body.as_ptr_range();
        let parts = vec![(0, 500_000), (600_000, 1_000_000)];
        let mut multipart = Multipart::new(parts, body, None, "b".to_owned());
        let mut shared = 0;
        while let Some(piece) = multipart.piece() {
            match stored.contains(&piece.as_ptr()) {
                true => shared += piece.len(),
                false => assert!(piece.len() < 200, "a head of {} bytes", piece.len()),
            }
        }
        assert_eq!(shared, 900_002);
    }
}
