//! The deadlines of one connection, by one timer.
//!
//! Decision: not hyper's header timer, which also counts the idle time between requests
//! and makes a timer for each of them. Here the phase is looked at after each poll of the
//! connection; the timer is only moved when a deadline comes nearer, and looks again when
//! it fires too early. A request that is answered at once costs one look at the clock.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::Limits;
use super::wire::{Activity, Phase};

pub(super) struct Watch {
    header: Duration,
    body: Duration,
    idle: Duration,
    phase: Phase,
    since: Instant,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires; `None` when it has fired and waits for nothing.
    armed: Option<Instant>,
}

impl Watch {
    /// Watches a connection that was accepted just now.
    pub(super) fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        Self {
            header: limits.header_timeout.0,
            body: limits.body_timeout.0,
            idle: limits.idle_timeout.0,
            phase: Phase::Head,
            since: now,
            timer: Box::pin(sleep_until(now)),
            armed: None,
        }
    }

    /// Ready, with the phase that took too long, when the connection is to be cut.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, activity: &Activity) -> Poll<Phase> {
        let phase = activity.phase();
        if phase != self.phase {
            self.phase = phase;
            self.since = Instant::now();
        }
        let Some(deadline) = self.deadline() else {
            return Poll::Pending;
        };
        loop {
            if self.armed.is_none_or(|armed| deadline < armed) {
                self.armed = Some(deadline);
                self.timer.as_mut().reset(deadline);
                // Registers the task, whose waker never changes; later polls needn't.
                let _ = self.timer.as_mut().poll(cx);
            }
            if !self.timer.is_elapsed() {
                return Poll::Pending;
            }
            self.armed = None;
            if Instant::now() >= deadline {
                return Poll::Ready(phase);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let allowed = match self.phase {
            Phase::Head => self.header,
            Phase::Idle { .. } => self.idle,
            Phase::Stalled { .. } => self.body,
            // The handler has deadlines of its own.
            Phase::Serving => return None,
        };
        self.since.checked_add(allowed)
    }
}
