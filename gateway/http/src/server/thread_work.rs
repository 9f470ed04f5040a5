//! What runs on a worker's thread beside its requests, and whether the thread takes its turns.

use std::future::Future;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

/// Something to run.
pub(super) type ThreadWork = BoxFuture<'static, ()>;

/// The thread of a worker.
#[derive(Clone)]
pub struct WorkerThread(mpsc::UnboundedSender<ThreadWork>);

/// A thread that has ended, and so takes no turn.
#[derive(Debug, thiserror::Error)]
#[error("the worker thread has ended")]
pub struct WorkerThreadEnded;

impl WorkerThread {
    /// With what the thread has to hand to [`run_all`].
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<ThreadWork>) {
        let (given, work) = mpsc::unbounded_channel();
        (Self(given), work)
    }

    /// Runs this on the thread, until the listeners are cut. Does nothing if the thread has ended.
    pub fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        let _ = self.0.send(Box::pin(work));
    }

    /// Waits until the thread has taken a turn that began after this call. A thread that hangs in
    /// the work of a request takes none.
    ///
    /// # Errors
    /// If the thread has ended.
    pub async fn wait_for_turn(&self) -> Result<(), WorkerThreadEnded> {
        let (taken, turn) = oneshot::channel();
        self.run(async move {
            // Whoever waited may be gone.
            let _ = taken.send(());
        });
        turn.await.map_err(|_| WorkerThreadEnded)
    }
}

/// Runs what is given to the thread, on the thread.
pub(super) async fn run_all(mut work: mpsc::UnboundedReceiver<ThreadWork>) {
    while let Some(given) = work.recv().await {
        tokio::spawn(given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_has_ended_takes_no_turn() {
        let (thread, work) = WorkerThread::new();
        let running = tokio::spawn(run_all(work));
        thread.wait_for_turn().await.unwrap();
        running.abort();
        let _ = running.await;
        assert!(thread.wait_for_turn().await.is_err());
    }
}
