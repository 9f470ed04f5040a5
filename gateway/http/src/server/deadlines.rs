//! The deadlines of one connection, with one timer.
//!
//! Decision: hyper's header timer is not used, since it also counts the idle time between
//! requests and makes a timer for each of them. Here the phase is checked after each poll of the
//! connection; the timer is only moved when a deadline comes nearer, and if it fires too early
//! it is set again. A request that is answered at once does not read the clock.
//!
//! A client is judged by what it acknowledged, not by what the kernel took for it: see
//! `send_queue`.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lamina_base::turn_clock;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{ConnectionActivity, ConnectionPhase};
use crate::body::TakenAhead;
use crate::config::{ListenerLimits, Protocol};

/// What must be done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DeadlineAction {
    /// This phase took too long: cut the connection.
    Cut(ConnectionPhase),
    /// Look whether the client is still there.
    Look,
}

pub(super) struct ConnectionDeadlines {
    /// HTTP/1: the time between two looks at a client that waits for its answer. HTTP/2 reads all
    /// the time and needs none.
    look: Option<Duration>,
    header: Duration,
    body: Duration,
    idle: Duration,
    phase: ConnectionPhase,
    since: Instant,
    /// The client's rate while it is waited for; the time up to `counted` is in it.
    pace: Option<TakenAhead>,
    counted: Instant,
    /// What the client had acknowledged at `counted`.
    acknowledged: u64,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires; `None` when it has fired and nothing new was set.
    armed: Option<Instant>,
}

/// How often a client is checked within the time that it may stand still, to find out when it
/// last moved.
pub(super) const LOOKS: u32 = 4;

/// The time between two looks: the first one shows that the client has closed its side, the next
/// one how it reacted to our question.
const LOOK: Duration = Duration::from_millis(400);
/// How long a client may still send what is not wanted any more.
const LINGER: Duration = Duration::from_secs(2);

impl ConnectionDeadlines {
    /// Watches a connection that was accepted at `accepted`.
    pub(super) fn new(limits: &ListenerLimits, protocol: Protocol, accepted: Instant) -> Self {
        Self {
            look: (protocol == Protocol::Http1).then_some(LOOK),
            header: limits.header_timeout.0,
            body: limits.body_timeout.0,
            idle: limits.idle_timeout.0,
            phase: ConnectionPhase::Head,
            since: accepted,
            pace: TakenAhead::of_client(limits),
            counted: accepted,
            acknowledged: 0,
            timer: Box::pin(sleep_until(accepted)),
            armed: None,
        }
    }

    /// Ready when something must be done.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        activity: &ConnectionActivity,
    ) -> Poll<DeadlineAction> {
        let phase = activity.phase();
        if phase != self.phase {
            let now = match (self.phase, phase) {
                // The request was answered within one poll: the connection is idle since that
                // request began.
                (ConnectionPhase::Idle { .. }, ConnectionPhase::Idle { .. }) => {
                    activity.began().into()
                }
                _ => turn_clock::now_of_timers(),
            };
            let slow = self.count(now, activity);
            if matches!(phase, ConnectionPhase::Stalled { .. }) && !self.is_stalled() {
                self.note_taken(activity);
            }
            (self.phase, self.since, self.counted) = (phase, now, now);
            if slow {
                return Poll::Ready(DeadlineAction::Cut(phase));
            }
        }
        loop {
            let Some(deadline) = self.deadline() else {
                return Poll::Pending;
            };
            if self.armed.is_none_or(|armed| deadline < armed) {
                self.armed = Some(deadline);
                self.timer.as_mut().reset(deadline);
                // Registers the task; its waker never changes, so later polls need not do it.
                let _ = self.timer.as_mut().poll(cx);
            }
            if !self.timer.is_elapsed() {
                return Poll::Pending;
            }
            self.armed = None;
            let now = Instant::now();
            let looks = self.next_look().is_some_and(|look| look <= now);
            let slow = self.count(now, activity);
            if slow || (self.is_over(now) && !self.still_takes(now, activity)) {
                return Poll::Ready(DeadlineAction::Cut(phase));
            }
            if looks {
                return Poll::Ready(DeadlineAction::Look);
            }
        }
    }

    /// Counts the time since the last check, if the client was waited for. Returns true when it
    /// took too little.
    fn count(&mut self, now: Instant, activity: &ConnectionActivity) -> bool {
        let counted = std::mem::replace(&mut self.counted, now);
        if !self.is_stalled() {
            return false;
        }
        let span = now - counted;
        if self.note_taken(activity) > 0 {
            self.since = now;
        }
        self.pace.as_mut().is_some_and(|pace| pace.waited(span))
    }

    /// Notes and returns what the client has taken since this was last asked: also what it took
    /// while it was not waited for, since it may need the time to work that off.
    fn note_taken(&mut self, activity: &ConnectionActivity) -> u64 {
        let before = std::mem::replace(&mut self.acknowledged, activity.acknowledged());
        let taken = self.acknowledged.saturating_sub(before);
        if let Some(pace) = &mut self.pace {
            pace.moved(taken);
        }
        taken
    }

    fn is_stalled(&self) -> bool {
        matches!(self.phase, ConnectionPhase::Stalled { .. })
    }

    /// Whether a client that asks for nothing more is still taking what the kernel holds for it. If
    /// so, its idle time begins again.
    fn still_takes(&mut self, now: Instant, activity: &ConnectionActivity) -> bool {
        let idle = matches!(self.phase, ConnectionPhase::Idle { .. });
        if !idle || activity.queue.held() == 0 {
            return false;
        }
        let before = std::mem::replace(&mut self.acknowledged, activity.acknowledged());
        self.since = now;
        self.acknowledged > before
    }

    /// When to check again.
    fn deadline(&self) -> Option<Instant> {
        let (window, look) = match self.is_stalled() {
            true => (
                self.pace.as_ref().map(TakenAhead::left),
                Some(self.body / LOOKS),
            ),
            false => (None, None),
        };
        let [window, look] = [window, look].map(|span| self.counted.checked_add(span?));
        let all = [self.stop(), window, look, self.next_look()];
        all.into_iter().flatten().min()
    }

    fn is_over(&self, now: Instant) -> bool {
        self.stop().is_some_and(|stop| stop <= now)
    }

    /// When to look whether the client is still there.
    fn next_look(&self) -> Option<Instant> {
        match self.phase {
            ConnectionPhase::Serving => self.counted.checked_add(self.look?),
            _ => None,
        }
    }

    /// When the phase has taken too long.
    fn stop(&self) -> Option<Instant> {
        let allowed = match self.phase {
            ConnectionPhase::Head => self.header,
            ConnectionPhase::Idle { .. } => self.idle,
            ConnectionPhase::Stalled { .. } => self.body,
            ConnectionPhase::Closing => LINGER,
            // The handler has deadlines of its own.
            ConnectionPhase::Serving => return None,
        };
        self.since.checked_add(allowed)
    }
}
