//! Limits around a stream: total bytes, the longest pause between two pieces, and optionally a
//! lowest rate, a deadline for the whole and a required mark at the end. Trailers that are not
//! allowed are removed here, in both directions, and small pieces keep no large buffers from here
//! on ([`detached`]).
//!
//! If two bodies belong to one exchange that goes on for long, the time limits of one may be
//! lifted ([`TimeLift`]), and the pauses of the other count only while both are silent
//! ([`LastMove`]).
//!
//! Neighbours: the listener puts it around request bodies, `origin` around response bodies;
//! [`MinimumRate`] is the rate. Pauses are counted only while the reader waits: a slow reader
//! does not make its sender late. The timer is made at the first wait; a body that is always
//! ready has none.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use lamina_base::turn_clock;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use super::pieces::detached;
use super::upload::UploadTerms;
use super::{BodyError, MinimumRate};
use crate::forward::{self, HopFieldNames};

pin_project! {
    /// A body with limits on its bytes, its time and its pauses.
    pub struct BoundedBody<B> {
        #[pin]
        inner: B,
        limit: u64,
        seen: u64,
        pause: Duration,
        pace: Option<MinimumRate>,
        end: Option<Instant>,
        marked_end: bool,
        named: HopFieldNames,
        // Boxed: most bodies never wait, and the body would grow by the timer's size.
        timer: Option<Pin<Box<Sleep>>>,
        wait: Option<PieceWait>,
        ended: bool,
        lift: Option<TimeLift>,
        other: Option<LastMove>,
        terms: Option<UploadTerms>,
    }
}

/// Lifts the time limits of a body, which then may take as long as it likes.
#[derive(Clone, Default, Debug)]
pub struct TimeLift(Arc<AtomicBool>);

/// When a body last moved.
#[derive(Clone, Debug)]
pub struct LastMove(Arc<Mutex<Instant>>);

impl TimeLift {
    pub fn lift(&self) {
        self.0.store(true, Relaxed);
    }

    fn is_lifted(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl LastMove {
    /// Starts with the present time.
    pub fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Notes that the body moves now.
    pub fn note(&self) {
        *self.0.lock() = Instant::now();
    }

    pub fn at(&self) -> Instant {
        *self.0.lock()
    }
}

/// A wait for one piece.
struct PieceWait {
    since: Instant,
    /// The wait is counted in `pace` up to here.
    counted: Instant,
}

impl<B> BoundedBody<B> {
    /// `limit` in bytes of content; `pause` is the longest wait for one piece.
    pub fn new(inner: B, limit: u64, pause: Duration) -> Self {
        Self {
            inner,
            limit,
            seen: 0,
            pause,
            pace: None,
            end: None,
            marked_end: false,
            named: HopFieldNames::new(),
            timer: None,
            wait: None,
            ended: false,
            lift: None,
            other: None,
            terms: None,
        }
    }

    /// The limits that the route sets through `terms` replace those of the body.
    pub fn by_terms(self, terms: UploadTerms) -> Self {
        Self {
            terms: Some(terms),
            ..self
        }
    }

    /// The time limits end when `lift` is lifted.
    pub fn until_lifted(self, lift: TimeLift) -> Self {
        Self {
            lift: Some(lift),
            ..self
        }
    }

    /// A pause counts from when the `other` body last moved, if that is later.
    pub fn beside(self, other: LastMove) -> Self {
        Self {
            other: Some(other),
            ..self
        }
    }

    /// Also enforces a lowest rate.
    pub fn at_pace(self, pace: Option<MinimumRate>) -> Self {
        Self { pace, ..self }
    }

    /// For a body over HTTP/2, whose end is marked: hyper also ends such a body, as if it were
    /// complete, at RST_STREAM or GOAWAY with NO_ERROR. Such an end becomes an error.
    pub fn with_marked_end(self, marked_end: bool) -> Self {
        Self { marked_end, ..self }
    }

    /// Also drops trailers with these names, besides those that are never allowed.
    pub fn without_trailers(self, named: HopFieldNames) -> Self {
        Self { named, ..self }
    }

    /// Also fails when `total` has passed from now on, however fast the body comes.
    pub fn within(self, total: Duration) -> Self {
        // A time beyond the range of the clock means no deadline.
        let end = turn_clock::now_of_timers().checked_add(total);
        Self { end, ..self }
    }
}

impl<B> Body for BoundedBody<B>
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
        self.as_mut().take_terms();
        let outcome = match self.as_mut().project().inner.poll_frame(cx) {
            Poll::Ready(Some(_)) if self.as_mut().arrived_late() => Some(Err(BodyError::Timeout)),
            Poll::Ready(None) if self.marked_end && !self.inner.is_end_stream() => {
                Some(Err(BodyError::Aborted))
            }
            Poll::Ready(frame) => self.as_mut().count(frame),
            Poll::Pending => {
                ready!(self.as_mut().poll_wait(cx));
                Some(Err(BodyError::Timeout))
            }
        };
        *self.project().ended = !matches!(outcome, Some(Ok(_)));
        Poll::Ready(outcome)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> BoundedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    /// Applies the limits that the route has set.
    fn take_terms(self: Pin<&mut Self>) {
        let this = self.project();
        let said = this.terms.as_ref().and_then(|terms| {
            let (limits, began) = terms.said()?;
            Some((limits, began, terms.pace(limits)))
        });
        let Some((limits, began, pace)) = said else {
            return;
        };
        *this.terms = None;
        *this.pace = pace;
        *this.limit = limits.bytes.unwrap_or(*this.limit);
        *this.pause = limits.pause.unwrap_or(*this.pause);
        if let Some(total) = limits.total {
            *this.end = began.checked_add(total);
        }
    }

    /// Counts what arrived. Over the limit the result is an error.
    fn count(
        self: Pin<&mut Self>,
        frame: Option<Result<Frame<Bytes>, B::Error>>,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        let this = self.project();
        let mut frame = match frame? {
            Ok(frame) => frame,
            Err(error) => return Some(Err(error.into())),
        };
        if let Some(trailers) = frame.trailers_mut() {
            forward::strip_trailers(trailers, this.named);
        }
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        *this.seen = this.seen.saturating_add(length);
        if let Some(pace) = this.pace {
            pace.moved(length);
        }
        if *this.seen > *this.limit {
            return Some(Err(BodyError::TooLarge { limit: *this.limit }));
        }
        Some(Ok(match this.inner.is_end_stream() {
            true => frame,
            false => frame.map_data(detached),
        }))
    }

    fn is_lifted(&self) -> bool {
        self.lift.as_ref().is_some_and(TimeLift::is_lifted)
    }

    /// Ends a wait, if there was one. Returns true when too much time had passed in it.
    fn arrived_late(self: Pin<&mut Self>) -> bool {
        let lifted = self.is_lifted();
        let this = self.project();
        if lifted {
            return false;
        }
        let (Some(wait), false) = (this.wait.take(), this.pace.is_none() && this.end.is_none())
        else {
            return false;
        };
        let now = turn_clock::now_of_timers();
        let slow = this
            .pace
            .as_mut()
            .is_some_and(|pace| pace.waited(now - wait.counted));
        slow || this.end.is_some_and(|end| end <= now)
    }

    /// Ready when the wait for this piece has become too long.
    fn poll_wait(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_lifted() {
            return Poll::Pending;
        }
        let this = self.project();
        let wait = this.wait.get_or_insert_with(PieceWait::begin);
        let other = this.other.as_ref();
        let silent_since = |since: Instant| other.map_or(since, |other| other.at().max(since));
        loop {
            let by_pause = silent_since(wait.since).checked_add(*this.pause);
            let by_pace = this.pace.as_ref().map(MinimumRate::left);
            let by_pace = by_pace.and_then(|left| wait.counted.checked_add(left));
            let Some(due) = [by_pause, by_pace, *this.end].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            // Input without end may have used up the task's budget, and a timer that has none left
            // does not tell that it is over.
            let mut timer = pin!(coop::unconstrained(timer.as_mut()));
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            let slow = this
                .pace
                .as_mut()
                .is_some_and(|pace| pace.waited(now - wait.counted));
            wait.counted = now;
            let passed = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
            let silent = silent_since(wait.since).checked_add(*this.pause);
            if slow || passed(silent) || passed(*this.end) {
                return Poll::Ready(());
            }
        }
    }
}

impl PieceWait {
    fn begin() -> Self {
        let now = turn_clock::now_of_timers();
        Self {
            since: now,
            counted: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::{BodyError, BoundedBody, Bytes, Duration, Frame, LastMove, TimeLift};

    type Piece = Result<Frame<Bytes>, BodyError>;

    fn data(text: &'static str) -> Piece {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_too_long_is_a_timeout() {
        let silent = stream::once(async { data("a") }).chain(stream::once(pending::<Piece>()));
        let mut body = Box::pin(BoundedBody::new(
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
    async fn limits_that_are_lifted_count_no_more() {
        let slow = stream::iter(0..3).then(|_| async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            data("a")
        });
        let lift = TimeLift::default();
        let body = BoundedBody::new(StreamBody::new(slow), 10, Duration::from_secs(5))
            .at_pace(crate::body::MinimumRate::new(100, Duration::from_secs(5)))
            .within(Duration::from_secs(10))
            .until_lifted(lift.clone());
        lift.lift();
        assert_eq!(Box::pin(body).collect().await.unwrap().to_bytes(), "aaa");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_counts_while_both_sides_are_silent() {
        let silent = stream::once(pending::<Piece>());
        let other = LastMove::now();
        let begun = tokio::time::Instant::now();
        let mut body = Box::pin(
            BoundedBody::new(
                StreamBody::new(Box::pin(silent)),
                10,
                Duration::from_secs(5),
            )
            .beside(other.clone()),
        );
        let moves = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                other.note();
            }
        };
        let (frame, ()) = tokio::join!(body.frame(), moves);
        assert!(matches!(frame, Some(Err(BodyError::Timeout))));
        assert_eq!(begun.elapsed().as_secs(), 25);
    }

    #[tokio::test(start_paused = true)]
    async fn many_short_pauses_are_no_timeout() {
        let slow = stream::iter(0..10).then(|_| async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            data("a")
        });
        let body = BoundedBody::new(StreamBody::new(slow), 10, Duration::from_secs(5));
        assert_eq!(
            Box::pin(body).collect().await.unwrap().to_bytes(),
            "aaaaaaaaaa"
        );
    }

    #[tokio::test]
    async fn an_end_that_has_to_be_marked_and_is_not_is_an_error() {
        // A stream of pieces never reports that it is at its end.
        let bounded = || {
            let pieces = StreamBody::new(stream::iter([data("ok")]));
            BoundedBody::new(pieces, 10, Duration::from_secs(5))
        };
        let whole = Box::pin(bounded()).collect().await.unwrap();
        assert_eq!(whole.to_bytes(), "ok");
        let cut = bounded().with_marked_end(true).collect().await;
        assert!(matches!(cut, Err(BodyError::Aborted)));
        let whole = crate::body::Body::full("ok");
        let marked = BoundedBody::new(whole, 10, Duration::from_secs(5)).with_marked_end(true);
        assert_eq!(marked.collect().await.unwrap().to_bytes(), "ok");
    }

    #[tokio::test]
    async fn a_byte_over_the_limit_is_an_error() {
        let long = StreamBody::new(stream::iter([data("12345"), data("6")]));
        let mut body = BoundedBody::new(long, 5, Duration::from_secs(5));
        assert!(body.frame().await.unwrap().is_ok());
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { limit: 5 }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_too_slow_however_short_its_pauses() {
        let pace = super::MinimumRate::new(2, Duration::from_secs(3));
        let drip = stream::iter(0..10).then(|_| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            data("a")
        });
        let body =
            BoundedBody::new(StreamBody::new(drip), 10, Duration::from_secs(5)).at_pace(pace);
        let error = Box::pin(body).collect().await.unwrap_err();
        assert!(matches!(error, BodyError::Timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_in_time_is_a_timeout() {
        let endless = stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            data("a")
        });
        let body = BoundedBody::new(StreamBody::new(endless), u64::MAX, Duration::from_secs(5));
        let started = tokio::time::Instant::now();
        let body = body.within(Duration::from_secs(60));
        let error = Box::pin(body).collect().await.unwrap_err();
        assert!(matches!(error, BodyError::Timeout));
        assert_eq!(started.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_does_not_make_its_sender_slow() {
        let pace = super::MinimumRate::new(2, Duration::from_secs(3));
        let ready = stream::iter((0..10).map(|_| data("a")));
        let mut body = Box::pin(
            BoundedBody::new(StreamBody::new(ready), 10, Duration::from_secs(5)).at_pace(pace),
        );
        while let Some(frame) = body.frame().await {
            assert!(frame.is_ok());
            tokio::time::sleep(Duration::from_secs(9)).await;
        }
    }
}
