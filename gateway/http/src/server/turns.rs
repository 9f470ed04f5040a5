//! Whose turn it is to compute for a TLS handshake on a worker.
//!
//! A step of a handshake is a signature, a key agreement or the check of a client's certificate: 100
//! µs with keys of P-256, milliseconds with large ones of RSA. Ten clients that come together would
//! have a worker do ten such steps before it looks at its other connections. Here the steps of all
//! handshakes of a worker come one at a time, in the order in which they asked, and between two of
//! them the runtime polls its sockets and runs what is ready. A handshake that comes alone waits for
//! nothing: a worker that has had nothing to do since the last step has polled its sockets.
//!
//! Neighbours: `worker` has one for each thread; `handshake` and `quic` do their steps in it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;

/// The turns of one worker.
pub(super) struct HandshakeTurns {
    /// One place, which is given in the order of asking.
    place: Semaphore,
    /// Whether a step was done since the runtime last polled its sockets, as far as is known.
    stepped: AtomicBool,
}

/// A turn, until it is dropped.
pub(super) struct HandshakeTurn<'a> {
    stepped: &'a AtomicBool,
    _place: Option<SemaphorePermit<'a>>,
}

impl Drop for HandshakeTurn<'_> {
    fn drop(&mut self) {
        self.stepped.store(true, Relaxed);
    }
}

impl HandshakeTurns {
    pub(super) fn new() -> Self {
        Self {
            place: Semaphore::new(1),
            stepped: AtomicBool::new(false),
        }
    }

    /// The worker has nothing to do, and is about to wait for its sockets.
    pub(super) fn worker_is_idle(&self) {
        self.stepped.store(false, Relaxed);
    }

    /// Waits until one step may be done. The turn must end before the task pauses.
    pub(super) async fn next(&self) -> HandshakeTurn<'_> {
        // The semaphore is never closed.
        let place = self.place.acquire().await.ok();
        if self.stepped.load(Relaxed) {
            // tokio wakes who yields after it has polled its sockets, and behind all that it found.
            yield_now().await;
            self.stepped.store(false, Relaxed);
        }
        HandshakeTurn {
            stepped: &self.stepped,
            _place: place,
        }
    }

    /// Does the steps of a handshake: to make the future is the first, and each time that it goes on
    /// is another.
    pub(super) async fn each_step<F>(&self, begin: impl FnOnce() -> F) -> F::Output
    where
        F: Future + Unpin,
    {
        let mut turn = self.next().await;
        let mut steps = begin();
        loop {
            let step = poll_fn(|cx| Poll::Ready(Pin::new(&mut steps).poll(cx))).await;
            drop(turn);
            if let Poll::Ready(output) = step {
                return output;
            }
            until_woken().await;
            turn = self.next().await;
        }
    }
}

/// Returns when the task is woken, by whatever it waits for.
async fn until_woken() {
    let mut waited = false;
    poll_fn(|_| match std::mem::replace(&mut waited, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use futures_util::FutureExt;
    use parking_lot::Mutex;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::sync::oneshot;

    use super::*;

    /// What was done, in its order.
    type Record = Arc<Mutex<Vec<String>>>;

    /// A connection whose client sends an octet whenever a step is done.
    fn connection_beside(record: &Record) -> UnixStream {
        let (client, mut server) = UnixStream::pair().unwrap();
        let record = Arc::clone(record);
        tokio::spawn(async move {
            while let Ok(octet) = server.read_u8().await {
                record.lock().push(format!("answer {octet}"));
            }
        });
        client
    }

    #[tokio::test]
    async fn between_two_steps_connections_that_are_ready_are_served() {
        let (turns, record) = (Arc::new(HandshakeTurns::new()), Record::default());
        let client = Arc::new(connection_beside(&record));
        client.writable().await.unwrap();
        let steps: Vec<_> = (0..4)
            .map(|number: u8| {
                let (turns, client) = (Arc::clone(&turns), Arc::clone(&client));
                let record = Arc::clone(&record);
                tokio::spawn(async move {
                    let _turn = turns.next().await;
                    record.lock().push(format!("step {number}"));
                    client.try_write(&[number]).unwrap();
                })
            })
            .collect();
        for step in steps {
            step.await.unwrap();
        }
        while record.lock().len() < 8 {
            yield_now().await;
        }
        let expected: Vec<_> = (0..4)
            .flat_map(|number| [format!("step {number}"), format!("answer {number}")])
            .collect();
        assert_eq!(*record.lock(), expected);
    }

    #[tokio::test]
    async fn a_handshake_that_waits_for_its_client_or_ends_keeps_nobody_waiting() {
        let turns = Arc::new(HandshakeTurns::new());
        let (hello, waits) = oneshot::channel::<u8>();
        let slow = Arc::clone(&turns);
        let slow = tokio::spawn(async move { slow.each_step(|| waits).await });
        // This one is cut in the middle of its turn, and that one while it waits for one.
        let cut = Arc::clone(&turns);
        let cut = tokio::spawn(async move {
            let _turn = cut.next().await;
            std::future::pending::<()>().await;
        });
        yield_now().await;
        let mut waits_for_turn = Box::pin(turns.next());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits_for_turn.as_mut().poll(&mut cx).is_pending());
        drop(waits_for_turn);
        cut.abort();
        assert!(cut.await.unwrap_err().is_cancelled());
        drop(turns.next().await);
        turns.worker_is_idle();
        // Nobody has to yield for it now.
        assert!(turns.next().now_or_never().is_some());
        assert!(turns.next().now_or_never().is_none());
        hello.send(7).unwrap();
        assert_eq!(slow.await.unwrap(), Ok(7));
    }
}
