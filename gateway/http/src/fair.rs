//! Makes connections that always have input yield to others in time.
//!
//! tokio makes a task yield after 128 reads, however large they are. That is late for a
//! connection that hyper drives: hyper parses a chunk's size byte by byte and without a limit on
//! its digits, so a peer that sent zeros for ever blocked a worker, and all clients on it, for
//! the time of 128 full buffers (32 MiB) at a stretch. Here large reads count for more.
//! Neighbours: `server` and `origin` charge what their connections read.

use std::task::{Context, Poll};

use tokio::task::coop;

/// Bytes that cost one of the 128 steps of tokio's budget: half a MiB uses up all of it.
const STEP: usize = 4 << 10;

/// Charges the budget of this task for reading this many bytes. Small reads cost nothing extra.
pub fn charge(cx: &mut Context<'_>, bytes: usize) {
    spend(cx, bytes / STEP);
}

fn spend(cx: &mut Context<'_>, steps: usize) {
    for _ in 0..steps {
        match coop::poll_proceed(cx) {
            Poll::Ready(step) => step.made_progress(),
            // The budget is used up. The next read returns pending, and the task is woken already.
            Poll::Pending => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    /// How many steps a task has left after `first`.
    async fn left(first: impl Fn(&mut Context<'_>) + Send + 'static) -> usize {
        let left = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&left);
        let counted = poll_fn(move |cx| {
            first(cx);
            while let Poll::Ready(step) = coop::poll_proceed(cx) {
                step.made_progress();
                counting.fetch_add(1, Relaxed);
            }
            Poll::Ready(())
        });
        tokio::spawn(counted).await.unwrap();
        left.load(Relaxed)
    }

    #[tokio::test]
    async fn large_reads_shorten_the_turn_and_small_ones_do_not() {
        let whole = left(|_| {}).await;
        assert_eq!(left(|cx| charge(cx, STEP - 1)).await, whole);
        assert_eq!(left(|cx| charge(cx, 10 * STEP)).await, whole - 10);
        assert_eq!(left(|cx| charge(cx, usize::MAX)).await, 0);
    }
}
