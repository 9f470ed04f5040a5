//! The time by which HTTP/2's keep-alive runs: it stands still while the client takes what it was
//! sent.
//!
//! hyper ends a connection whose PING is not answered in time. But a PING stands in line behind
//! all that the kernel holds for the client, which is more than a slow one reads in that time.
//! Whoever takes bytes is there; how fast they must be taken is for `watch` and `stream_task`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

use super::activity::ConnectionActivity;

/// The timer of one connection.
pub(super) struct PingTimer {
    pub(super) activity: Arc<ConnectionActivity>,
}

/// Ends when so much time has passed in which the client has acknowledged nothing.
struct PingSleep {
    activity: Arc<ConnectionActivity>,
    span: Duration,
    /// What the client had acknowledged when the span began.
    acknowledged: u64,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Timer for PingTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(PingSleep {
            span: duration,
            acknowledged: self.activity.acknowledged(),
            activity: Arc::clone(&self.activity),
            sleep: Box::pin(tokio::time::sleep(duration)),
        })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(Instant::now()))
    }
}

impl Future for PingSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let acknowledged = self.activity.acknowledged();
            if self.acknowledged == acknowledged {
                return Poll::Ready(());
            }
            self.acknowledged = acknowledged;
            let again = tokio::time::Instant::now() + self.span;
            self.sleep.as_mut().reset(again);
        }
    }
}

impl Sleep for PingSleep {}
