//! The time of a turn: one look at the clock for all that happens in one poll of a task.
//!
//! A request that is loaded looked at the clock nearly forty times, which was a microsecond of its
//! twenty-five; most of these looks are within the same few microseconds, and only one of them
//! tells anything. [`in_turns`] makes the polls of a future turns. Within one, [`now`] looks at the
//! clock once, and where there is no turn it looks each time. So a time that is taken here may be
//! older than the moment by as long as the poll has run: it is for deadlines, for ages and for the
//! order of events, and not for measuring what happens within one poll, as a hit or the call of a
//! plugin.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time;

use pin_project_lite::pin_project;
use tokio::time::Instant;

/// Tells what a thread knows of the time of its turn.
#[derive(Clone, Copy)]
enum TurnTime {
    /// No turn is under way.
    Outside,
    /// Nobody has asked in this turn.
    Unread,
    Read(Instant),
}

thread_local! {
    static TIME: Cell<TurnTime> = const { Cell::new(TurnTime::Outside) };
}

/// The time of this turn.
pub fn now() -> time::Instant {
    now_of_timers().into_std()
}

/// The same as an instant of tokio's timers, which tests may hold.
pub fn now_of_timers() -> Instant {
    match TIME.get() {
        TurnTime::Read(at) => at,
        TurnTime::Unread => {
            let at = Instant::now();
            TIME.set(TurnTime::Read(at));
            at
        }
        TurnTime::Outside => Instant::now(),
    }
}

/// Begins a turn, which ends when what is returned is dropped. A turn within another one is a part
/// of it.
#[must_use]
pub fn turn() -> OpenTurn {
    let before = TIME.get();
    if matches!(before, TurnTime::Outside) {
        TIME.set(TurnTime::Unread);
    }
    OpenTurn {
        outermost: matches!(before, TurnTime::Outside),
    }
}

/// A turn that is under way on this thread.
pub struct OpenTurn {
    outermost: bool,
}

impl Drop for OpenTurn {
    fn drop(&mut self) {
        if self.outermost {
            TIME.set(TurnTime::Outside);
        }
    }
}

/// Makes each poll of `work` a turn.
pub fn in_turns<F: Future>(work: F) -> TurnwiseFuture<F> {
    TurnwiseFuture { work }
}

pin_project! {
    /// A future whose polls are turns.
    pub struct TurnwiseFuture<F> {
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for TurnwiseFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _turn = turn();
        self.project().work.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::yield_now;
    use tokio::time::advance;

    use super::{in_turns, now, now_of_timers, turn};

    #[tokio::test(start_paused = true)]
    async fn a_turn_has_one_time_and_the_next_one_another() {
        let times = in_turns(async {
            let first = now_of_timers();
            advance_within_a_poll();
            assert_eq!(now_of_timers(), first, "the same turn");
            assert_eq!(now(), first.into_std());
            yield_now().await;
            (first, now_of_timers())
        });
        let (first, second) = times.await;
        assert_eq!(second - first, STEP, "another turn looks again");
        let outside = now_of_timers();
        advance(STEP).await;
        assert_eq!(now_of_timers() - outside, STEP, "no turn is under way");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_within_another_one_is_a_part_of_it() {
        let outer = turn();
        let first = now_of_timers();
        advance_within_a_poll();
        {
            let _inner = turn();
            assert_eq!(now_of_timers(), first);
        }
        assert_eq!(now_of_timers(), first, "the outer turn goes on");
        drop(outer);
        assert_eq!(now_of_timers() - first, STEP);
    }

    const STEP: Duration = Duration::from_millis(7);

    /// `advance` moves the clock in its first poll.
    fn advance_within_a_poll() {
        let mut advance = Box::pin(advance(STEP));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = advance.as_mut().poll(&mut cx);
    }
}
