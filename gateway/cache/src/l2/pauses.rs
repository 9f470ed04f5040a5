//! The pauses between two attempts at the store's purge log, which grow, and end as soon as there is
//! a new connection: from its return on, purges must not wait for the end of a pause.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// The first pause, doubled with each further one up to the longest.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(500);

/// The pauses of one task.
pub(super) struct StoreRetryPauses {
    next: Duration,
    connects: Option<watch::Receiver<u64>>,
}

impl StoreRetryPauses {
    /// For a store that counts its connections like this ([`Store::connects`]).
    ///
    /// [`Store::connects`]: super::store::Store::connects
    pub(super) fn new(connects: Option<watch::Receiver<u64>>) -> Self {
        Self {
            next: FIRST,
            connects,
        }
    }

    /// An attempt begins: only connections that are made from now on end the pause after it.
    pub(super) fn begin(&mut self) {
        if let Some(connects) = &mut self.connects {
            connects.mark_unchanged();
        }
    }

    /// The attempt went well.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// Waits after an attempt that failed.
    pub(super) async fn wait(&mut self) {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        match &mut self.connects {
            None => sleep(pause).await,
            // Without a sender there is no store, and nobody waits for one.
            Some(connects) => drop(timeout(pause, connects.changed()).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_a_connection_ends_them() {
        let connects = watch::Sender::new(0);
        let mut pauses = StoreRetryPauses::new(Some(connects.subscribe()));
        let mut took = Vec::new();
        for _ in 0..6 {
            pauses.begin();
            let began = Instant::now();
            pauses.wait().await;
            took.push(began.elapsed().as_millis());
        }
        assert_eq!(took, [50, 100, 200, 400, 500, 500]);
        connects.send_modify(|count| *count += 1);
        pauses.begin();
        let began = Instant::now();
        let connecting = async {
            sleep(Duration::from_millis(20)).await;
            connects.send_modify(|count| *count += 1);
        };
        futures_util::future::join(pauses.wait(), connecting).await;
        assert_eq!(began.elapsed().as_millis(), 20, "an earlier one counts not");
        pauses.begin();
        connects.send_modify(|count| *count += 1);
        let began = Instant::now();
        pauses.wait().await;
        assert_eq!(began.elapsed().as_millis(), 0, "it came during the attempt");
        pauses.reset();
        assert_eq!(pauses.next, FIRST);
    }
}
