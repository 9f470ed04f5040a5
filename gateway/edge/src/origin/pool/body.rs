//! The body of an origin's response, which gives back what it came over when it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http1::Http1Connection;
use super::http2::Http2StreamPermit;
use super::idle::IdleConnections;

/// The content of a response.
pub(in crate::origin) struct OriginBody {
    content: Incoming,
    source: BodySource,
    turn: ReadTurn,
}

/// Whether the task may read on in its present turn. It reads one piece each turn: a quick origin
/// would otherwise fill memory before the other loads, and whoever counts what they hold, had
/// theirs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadTurn {
    MayRead,
    HasRead,
}

/// What the content comes over.
enum BodySource {
    Http1(Box<Http1Source>),
    Http2(#[expect(dead_code, reason = "dropping it gives the stream back")] Http2StreamPermit),
    /// It has been given back.
    Returned,
}

struct Http1Source {
    connection: Http1Connection,
    home: Arc<IdleConnections>,
    /// How long the origin keeps the connection.
    kept_for: Option<Duration>,
}

impl OriginBody {
    pub(super) fn http1(
        content: Incoming,
        connection: Http1Connection,
        home: Arc<IdleConnections>,
        kept_for: Option<Duration>,
    ) -> Self {
        let source = Http1Source {
            connection,
            home,
            kept_for,
        };
        let mut body = Self {
            content,
            source: BodySource::Http1(Box::new(source)),
            turn: ReadTurn::MayRead,
        };
        body.give_back_if_ended();
        body
    }

    pub(super) fn http2(content: Incoming, permit: Http2StreamPermit) -> Self {
        let mut body = Self {
            content,
            source: BodySource::Http2(permit),
            turn: ReadTurn::MayRead,
        };
        body.give_back_if_ended();
        body
    }

    /// Lets the connection be worked on even while nobody reads this: the request's body is still
    /// being sent.
    pub(in crate::origin) fn work_in_a_task(&mut self) {
        if let BodySource::Http1(source) = &mut self.source {
            source.connection.work_in_a_task();
        }
    }

    fn give_back_if_ended(&mut self) {
        if self.content.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let BodySource::Http1(source) = std::mem::replace(&mut self.source, BodySource::Returned)
        {
            source.home.keep(source.connection, source.kept_for);
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let BodySource::Http1(source) = &mut self.source {
            source.connection.drive(cx);
        }
    }
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        if this.turn == ReadTurn::HasRead {
            this.turn = ReadTurn::MayRead;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut frame = Pin::new(&mut this.content).poll_frame(cx);
        if frame.is_pending() {
            // What is asked for is read now, and may be there at once.
            this.drive(cx);
            frame = Pin::new(&mut this.content).poll_frame(cx);
        }
        match &frame {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) => {
                this.give_back_if_ended();
                if !this.content.is_end_stream() {
                    this.turn = ReadTurn::HasRead;
                }
            }
            Poll::Ready(None) => this.give_back(),
            // Dropping the connection closes it.
            Poll::Ready(Some(Err(_))) => this.source = BodySource::Returned,
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
