//! The task of one HTTP/2 stream: hyper's own future, ended when its client takes too little.
//!
//! A stream is judged on its own. Progress of other streams on the connection does not excuse it,
//! and its end does not harm them: it alone is reset, by dropping hyper's future. A stream is at
//! fault only if nothing but its own window holds it back: while the connection takes no bytes,
//! or its common window is used up, `watch` judges the connection as a whole. Bytes of a stream
//! that the kernel still holds count as not taken.
//!
//! Neighbours: `sending` reports what was sent of an answer; `service`, which runs inside hyper's
//! future, reports what it handed out through [`handed`].

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;
use lamina_base::turn_clock;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::activity::ConnectionActivity;
use super::deadlines::LOOKS;
use super::sending::AnswerProgress;
use crate::body::TakenAhead;
use crate::config::ListenerLimits;

/// Runs the streams of one connection.
#[derive(Clone)]
pub(super) struct StreamTasks {
    pub(super) activity: Arc<ConnectionActivity>,
    pub(super) limits: Arc<ListenerLimits>,
}

/// What an answer has handed to hyper and hyper may not have sent yet.
pub(super) enum UnsentAnswer {
    Nothing,
    /// All of a small answer.
    Whole,
    Pieces(Arc<AnswerProgress>),
}

thread_local! {
    /// What was handed out in the present poll by the answer whose stream is polled.
    static HANDED: Cell<UnsentAnswer> = const { Cell::new(UnsentAnswer::Nothing) };
}

/// Tells the task of the stream that is being polled what was handed to hyper.
pub(super) fn handed(handed: UnsentAnswer) {
    HANDED.set(handed);
}

pin_project! {
    struct StreamTask<F> {
        #[pin]
        stream: Option<F>,
        tasks: StreamTasks,
        handed: UnsentAnswer,
        wait: Option<StreamWait>,
        farewell: Option<CutFarewell>,
    }
}

/// An answer that was cut because of its memory, of which h2 or the connection still has a piece.
struct CutFarewell {
    answer: Arc<AnswerProgress>,
    /// What the connection had sent when the present span began.
    progress: u64,
    spans: u32,
    timer: Pin<Box<Sleep>>,
}

/// The state of waiting for the client to take more.
struct StreamWait {
    pace: Option<TakenAhead>,
    /// Everything is sent, and there is nothing to wait for.
    paused: bool,
    /// Since when nothing has moved.
    since: Instant,
    /// The time of waiting up to here is counted in `pace`.
    counted: Instant,
    /// What was sent of the answer when it last moved.
    sent: u64,
    /// The most that the client can have acknowledged of the answer at the last check.
    taken: u64,
    /// What had been sent on the connection when the span that is judged now began.
    progress: u64,
    /// What the client had acknowledged of the whole connection at the last check.
    acknowledged: u64,
    timer: Pin<Box<Sleep>>,
}

/// The result of checking a stream that waits for its client.
enum StreamRateVerdict {
    /// It is too early to judge.
    Early,
    FastEnough,
    TooSlow,
}

/// The most bytes that each stream of a connection sends before the next one is served. If the
/// others sent so many in the same time, a stream that moved nothing was not waiting for them.
const TURN: u64 = 128 << 10;

/// A connection that has pieces of an answer that was cut because of its memory must take bytes in
/// each span of this length, and let go of the pieces within so many of them.
const LETS_GO: Duration = Duration::from_millis(500);
const SPANS_TO_LET_GO: u32 = 10;

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(StreamTask {
            stream: Some(stream),
            tasks: self.clone(),
            handed: UnsentAnswer::Nothing,
            wait: None,
            farewell: None,
        });
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let _turn = turn_clock::turn();
        let mut this = self.project();
        let Some(stream) = this.stream.as_mut().as_pin_mut() else {
            return match this.farewell {
                Some(farewell) => farewell.poll(cx, this.tasks),
                None => Poll::Ready(()),
            };
        };
        HANDED.set(UnsentAnswer::Nothing);
        if stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match HANDED.replace(UnsentAnswer::Nothing) {
            UnsentAnswer::Nothing => {}
            handed => *this.handed = handed,
        }
        let (sent, until) = match &*this.handed {
            UnsentAnswer::Pieces(sending) if sending.is_cut() => {
                tracing::debug!(
                    "stream closed: its answer holds more memory than allowed (max_held_bytes)"
                );
                let farewell = CutFarewell::new(sending, this.tasks);
                let farewell = this.farewell.insert(farewell);
                *this.handed = UnsentAnswer::Nothing;
                this.stream.set(None);
                return farewell.poll(cx, this.tasks);
            }
            UnsentAnswer::Pieces(sending) if sending.unsent() > 0 => {
                (sending.sent(), sending.sent_until())
            }
            UnsentAnswer::Whole => (0, 0),
            UnsentAnswer::Nothing | UnsentAnswer::Pieces(_) => {
                if let Some(wait) = this.wait {
                    wait.paused = true;
                }
                return Poll::Pending;
            }
        };
        let wait = this.wait.get_or_insert_with(|| this.tasks.begin_wait(sent));
        if wait.poll(cx, this.tasks, sent, until).is_ready() {
            tracing::debug!("stream closed: the client read the answer too slowly");
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl CutFarewell {
    fn new(answer: &Arc<AnswerProgress>, tasks: &StreamTasks) -> Self {
        Self {
            answer: Arc::clone(answer),
            progress: tasks.activity.progress(),
            spans: 0,
            timer: Box::pin(sleep(LETS_GO)),
        }
    }

    /// Ready when all pieces of the answer are gone. A connection that keeps one of them and takes
    /// no bytes, or keeps it for too long, ends: h2 drops nothing before it can write.
    fn poll(&mut self, cx: &mut Context<'_>, tasks: &StreamTasks) -> Poll<()> {
        self.answer.register(cx.waker());
        while self.answer.unsent() > 0 {
            ready!(self.timer.as_mut().poll(cx));
            self.spans += 1;
            let progress = tasks.activity.progress();
            if progress == self.progress || self.spans >= SPANS_TO_LET_GO {
                tracing::debug!(
                    "connection closed: it keeps an answer that was cut because of its memory"
                );
                tasks.activity.clog();
                break;
            }
            self.progress = progress;
            self.timer.as_mut().reset(Instant::now() + LETS_GO);
        }
        Poll::Ready(())
    }
}

impl StreamTasks {
    fn begin_wait(&self, sent: u64) -> StreamWait {
        let now = Instant::now();
        let mut pace = TakenAhead::of_client(&self.limits);
        if let Some(pace) = &mut pace {
            pace.moved(sent);
        }
        StreamWait {
            pace,
            paused: false,
            since: now,
            counted: now,
            sent,
            taken: sent,
            progress: self.activity.progress(),
            acknowledged: self.activity.acknowledged(),
            timer: Box::pin(sleep_until(now)),
        }
    }

    /// Whether only its own window can hold back a stream that moved too little since the
    /// connection had made this `progress`.
    fn holds_itself(&self, progress: u64) -> bool {
        let others = self.activity.progress().saturating_sub(progress);
        let turns = u64::from(self.activity.in_flight()) * TURN;
        self.activity.takes_more() || others > turns
    }
}

impl StreamWait {
    /// Ready when the client has taken too little for too long. The `sent` bytes of the answer lie
    /// before the byte `until` of the connection.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        tasks: &StreamTasks,
        sent: u64,
        until: u64,
    ) -> Poll<()> {
        if std::mem::take(&mut self.paused) {
            self.counted = Instant::now();
            (self.since, self.progress) = (self.counted, tasks.activity.progress());
            self.acknowledged = tasks.activity.acknowledged();
            let taken = sent - std::mem::replace(&mut self.taken, sent);
            if let Some(pace) = &mut self.pace {
                pace.moved(taken);
            }
        }
        if sent != self.sent {
            (self.since, self.sent) = (Instant::now(), sent);
        }
        while let Some(due) = self.due(tasks) {
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            match self.look(tasks, until) {
                StreamRateVerdict::Early => {}
                StreamRateVerdict::TooSlow if tasks.holds_itself(self.progress) => {
                    return Poll::Ready(());
                }
                StreamRateVerdict::TooSlow | StreamRateVerdict::FastEnough => {
                    self.progress = tasks.activity.progress();
                }
            }
        }
        Poll::Pending
    }

    /// When to check again.
    fn due(&self, tasks: &StreamTasks) -> Option<Instant> {
        let stop = self.since.checked_add(tasks.limits.body_timeout.0);
        let window = self.pace.as_ref().map(TakenAhead::left);
        let window = window.and_then(|left| self.counted.checked_add(left));
        let look = self
            .counted
            .checked_add(tasks.limits.body_timeout.0 / LOOKS);
        [stop, window, look].into_iter().flatten().min()
    }

    /// What the client took of the answer since the last check. It is not known to which streams
    /// the bytes in the kernel belong: acknowledged bytes are counted as this stream's, up to what
    /// was sent of it.
    fn newly_taken(&mut self, acknowledged: u64, until: u64) -> u64 {
        let before = std::mem::replace(&mut self.acknowledged, acknowledged);
        let taken = match acknowledged >= until {
            true => self.sent,
            false => self
                .sent
                .min(self.taken + acknowledged.saturating_sub(before)),
        };
        taken - std::mem::replace(&mut self.taken, taken)
    }

    /// Counts the time since the last check.
    fn look(&mut self, tasks: &StreamTasks, until: u64) -> StreamRateVerdict {
        let now = Instant::now();
        let span = now - self.counted;
        self.counted = now;
        let moved = self.newly_taken(tasks.activity.acknowledged(), until);
        if moved > 0 {
            self.since = now;
        }
        let (mut is_ahead, mut slow) = (moved > 0, false);
        if let Some(pace) = &mut self.pace {
            pace.moved(moved);
            slow = pace.waited(span);
            is_ahead = pace.is_ahead();
        }
        let stands = now - self.since >= tasks.limits.body_timeout.0;
        if stands {
            self.since = now;
        }
        match (slow || stands, is_ahead) {
            (true, _) => StreamRateVerdict::TooSlow,
            (false, true) => StreamRateVerdict::FastEnough,
            (false, false) => StreamRateVerdict::Early,
        }
    }
}
