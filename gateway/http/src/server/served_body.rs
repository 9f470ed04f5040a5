//! The body of a response as hyper gets it: [`ServedBody`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

use super::activity::InFlight;
use super::sending::{AnswerPiece, AnswerProgress, LOW_WATER};
use super::stream_task::{self, UnsentAnswer};
use crate::body::{Body, BodyError};
use crate::config::Protocol;
use crate::memory::stored::ReadsStored;

/// A response's body as hyper gets it.
///
/// An error of the body is delayed by one poll of the connection: at an error hyper drops what it
/// has not written yet, and a client that sees neither head nor bytes cannot tell a cut answer
/// from none.
pub(super) struct ServedBody {
    body: Body,
    delivery: BodyDelivery,
    wanted: WantedAnswer,
    error: Option<BodyError>,
}

/// How much of an answer goes to the client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WantedAnswer {
    Whole,
    /// The answer to HEAD, and one without content by its status (RFC 9110 §6.4.1).
    HeadAlone,
}

impl WantedAnswer {
    /// What a request by this method asks for.
    pub(super) fn by(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::HeadAlone,
            _ => Self::Whole,
        }
    }

    /// What is left of it when the answer has this status.
    pub(super) fn of(self, status: StatusCode) -> Self {
        match status {
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Self::HeadAlone,
            _ => self,
        }
    }
}

/// How the content is sent.
enum BodyDelivery {
    /// At once, as one piece, which owns the request under way.
    Direct(Option<InFlight>),
    /// In pieces that are watched until the last byte.
    Watched(Box<WatchedDelivery>),
}

/// An answer that goes out in pieces.
struct WatchedDelivery {
    sending: Arc<AnswerProgress>,
    protocol: Protocol,
    /// HTTP/2: this many bytes leave in any case, since the window of every new stream takes them.
    free: usize,
    /// HTTP/2: content that has arrived and was not handed out yet.
    rest: Bytes,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// HTTP/2: the most bytes that are handed out at a time.
const PIECE: usize = 64 << 10;

/// HTTP/2: an answer up to this size is not watched if the window of its stream takes it, since
/// it then waits for nothing but the connection.
const DIRECT: usize = 64 << 10;

/// HTTP/2: with more than this waiting for the connection, such answers are watched, too, so that
/// they can be cut if their bodies leave the cache.
const DIRECT_IN_ALL: usize = 256 << 10;

impl ServedBody {
    pub(super) fn new(
        body: Body,
        in_flight: InFlight,
        reads: Option<&ReadsStored>,
        wanted: WantedAnswer,
    ) -> Self {
        let activity = &in_flight.activity;
        let protocol = activity.protocol;
        // By HTTP/1 hyper, and by HTTP/3 the sender of answers looks at that.
        let wanted = match protocol {
            Protocol::Http2 => wanted,
            Protocol::Http1 | Protocol::Http3 => WantedAnswer::Whole,
        };
        let free = match protocol {
            Protocol::Http1 | Protocol::Http3 => usize::MAX,
            Protocol::Http2 => DIRECT.min(activity.window.of_new_streams() as usize),
        };
        // An answer whose end h2 has cannot be cut any more.
        let must_stay = |reads: &ReadsStored| match protocol {
            Protocol::Http1 | Protocol::Http3 => true,
            Protocol::Http2 => {
                activity.direct_bytes() > DIRECT_IN_ALL || reads.largest() > DIRECT as u64
            }
        };
        let stays = reads.is_some_and(must_stay);
        let direct = match &body {
            Body::Empty => true,
            Body::Full(all) => !stays && all.as_ref().is_none_or(|all| all.len() <= free),
            Body::Boxed(_) => false,
        };
        let free = match stays {
            true if protocol == Protocol::Http2 => 0,
            _ => free,
        };
        let delivery = match direct {
            true => BodyDelivery::Direct(Some(in_flight)),
            false => BodyDelivery::Watched(Box::new(WatchedDelivery {
                sending: sending(in_flight, reads),
                protocol,
                free,
                rest: Bytes::new(),
                trailers: None,
                ended: false,
            })),
        };
        Self {
            body,
            delivery,
            wanted,
            error: None,
        }
    }

    /// The answer, if it is watched until its last byte.
    pub(super) fn progress(&self) -> Option<Arc<AnswerProgress>> {
        match &self.delivery {
            BodyDelivery::Direct(_) => None,
            BodyDelivery::Watched(watched) => Some(Arc::clone(&watched.sending)),
        }
    }
}

fn sending(in_flight: InFlight, reads: Option<&ReadsStored>) -> Arc<AnswerProgress> {
    let Some(reads) = reads else {
        return Arc::new(AnswerProgress::new(in_flight, None, Vec::new()));
    };
    let cut = in_flight.activity.cut_of_answer();
    let seats = reads.as_slice().iter().map(|readers| readers.join(&cut));
    let seats = seats.collect();
    Arc::new(AnswerProgress::new(in_flight, Some(cut), seats))
}

type FramePoll<T> = Poll<Option<Result<Frame<T>, BodyError>>>;

impl WatchedDelivery {
    fn poll(&mut self, body: &mut Body, cx: &mut Context<'_>) -> FramePoll<AnswerPiece> {
        match self.protocol {
            // Gives out what there is: it waits for no room.
            Protocol::Http1 => {
                self.sending.register_for_cut(cx.waker());
                self.poll_next(body, cx)
            }
            Protocol::Http3 => {
                self.sending.register(cx.waker());
                self.poll_next(body, cx)
            }
            Protocol::Http2 => {
                self.sending.register(cx.waker());
                self.poll_piece(body, cx)
            }
        }
    }

    fn poll_next(&mut self, body: &mut Body, cx: &mut Context<'_>) -> FramePoll<AnswerPiece> {
        Pin::new(body).poll_frame(cx).map_ok(|frame| {
            let sending = &self.sending;
            frame.map_data(|data| AnswerPiece::of(sending, data))
        })
    }

    /// Hands out no more than the client takes, and the end only when all before it is sent: after
    /// the end h2 could not reset the stream any more.
    fn poll_piece(&mut self, body: &mut Body, cx: &mut Context<'_>) -> FramePoll<AnswerPiece> {
        loop {
            if self.sending.unsent() > LOW_WATER {
                return Poll::Pending;
            }
            if !self.rest.is_empty() {
                let piece = self.rest.split_to(self.rest.len().min(PIECE));
                let piece = AnswerPiece::of(&self.sending, piece);
                stream_task::handed(UnsentAnswer::Pieces(Arc::clone(&self.sending)));
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.ended {
                return match self.may_end() {
                    true => Poll::Ready(self.trailers.take().map(|t| Ok(Frame::trailers(t)))),
                    false => Poll::Pending,
                };
            }
            match ready!(Pin::new(&mut *body).poll_frame(cx)).transpose() {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(None) => self.ended = true,
                Ok(Some(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.ended = true;
                    }
                },
            }
        }
    }

    /// Whether the end may go to h2: everything is sent, or will be without the client's help.
    fn may_end(&self) -> bool {
        let unsent = self.sending.unsent();
        unsent == 0 || self.sending.sent() + unsent as u64 <= self.free as u64
    }
}

impl http_body::Body for ServedBody {
    type Data = AnswerPiece;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll<AnswerPiece> {
        let this = self.get_mut();
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = match &mut this.delivery {
            _ if this.wanted == WantedAnswer::HeadAlone => read_away(&mut this.body, cx),
            BodyDelivery::Direct(in_flight) => direct(&mut this.body, in_flight),
            BodyDelivery::Watched(watched) => watched.poll(&mut this.body, cx),
        };
        if let Poll::Ready(Some(Err(error))) = polled {
            this.error = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.error.is_none() && self.body.is_end_stream();
        match &self.delivery {
            BodyDelivery::Direct(_) => ended,
            BodyDelivery::Watched(watched) => {
                ended && watched.rest.is_empty() && watched.trailers.is_none() && watched.may_end()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        // hyper would tell the length of content that the client does not get.
        if self.wanted == WantedAnswer::HeadAlone {
            return SizeHint::default();
        }
        let hint = self.body.size_hint();
        let rest = match &self.delivery {
            BodyDelivery::Direct(_) => 0,
            BodyDelivery::Watched(watched) => watched.rest.len() as u64,
        };
        match hint.exact() {
            Some(exact) => SizeHint::with_exact(exact + rest),
            None => hint,
        }
    }
}

/// Reads content to its end, and hands out nothing of it.
fn read_away(body: &mut Body, cx: &mut Context<'_>) -> FramePoll<AnswerPiece> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        }
    }
}

/// The one piece of an answer that is complete.
fn direct(body: &mut Body, in_flight: &mut Option<InFlight>) -> FramePoll<AnswerPiece> {
    let content = match body {
        Body::Full(content) => content.take(),
        Body::Empty | Body::Boxed(_) => None,
    };
    let piece = content.zip(in_flight.take()).map(|(bytes, in_flight)| {
        if in_flight.activity.protocol == Protocol::Http2 {
            stream_task::handed(UnsentAnswer::Whole);
        }
        Ok(Frame::data(AnswerPiece::whole(bytes, in_flight)))
    });
    Poll::Ready(piece)
}
