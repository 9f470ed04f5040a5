//! Finds out whether a server can be reached, before a client library connects to it.
//!
//! A packet that opens a connection and was lost is sent again after one second, then after two and
//! four more, and a client library waits for that. Whoever waits for a server to come back would
//! notice its return that much later. So the attempts to open a connection overlap here: another one
//! begins every [`OVERLAP`], and the first that has an outcome counts.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The time after which another attempt begins beside those that have no outcome yet.
const OVERLAP: Duration = Duration::from_millis(300);
/// An attempt without an outcome is left after this time, which bounds how many there are at once.
const LIFE: Duration = Duration::from_secs(3);

/// Waits until a connection to this server can be opened, or is refused, for at most `limit`. The
/// connection is closed again.
///
/// # Errors
/// If it is refused, the name is not known, or nothing answers within `limit`.
pub async fn knock(host: &str, port: u16, limit: Duration) -> io::Result<()> {
    let opened = timeout(limit, async {
        let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
        let stream = overlapping(|attempt| open(&addresses, attempt)).await?;
        drop(stream);
        Ok(())
    });
    opened
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Each attempt begins with another address, as one that does not answer would hide the others.
async fn open(addresses: &[SocketAddr], attempt: usize) -> io::Result<TcpStream> {
    let mut addresses = addresses.to_vec();
    let first = attempt % addresses.len().max(1);
    addresses.rotate_left(first);
    TcpStream::connect(&addresses[..]).await
}

/// The outcome of the first attempt that has one.
async fn overlapping<T, F: Future<Output = T>>(begin: impl Fn(usize) -> F) -> T {
    let mut begun = FuturesUnordered::new();
    let mut pulse = interval(OVERLAP);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0;
    loop {
        tokio::select! {
            Some(outcome) = begun.next() => {
                if let Ok(outcome) = outcome {
                    return outcome;
                }
            }
            _ = pulse.tick() => {
                begun.push(timeout(LIFE, begin(count)));
                count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    /// When the kernel sends the opening packet, after the beginning of an attempt.
    const SENT: [u64; 4] = [0, 1_000, 3_000, 7_000];

    /// Ends when a packet of this attempt reaches a server that is there from `back` on.
    async fn attempt(back: Instant) {
        let began = Instant::now();
        for after in SENT.map(Duration::from_millis) {
            tokio::time::sleep_until(began + after).await;
            if Instant::now() >= back {
                return;
            }
        }
        std::future::pending().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_back_is_noticed_soon_whenever_that_is() {
        for away in (0..9_000).step_by(70).map(Duration::from_millis) {
            let back = Instant::now() + away;
            overlapping(|_| attempt(back)).await;
            let late = back.elapsed();
            assert!(
                late <= OVERLAP,
                "{late:?} after it had been away for {away:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_without_an_outcome_are_bounded() {
        struct Counted<'a>(&'a Cell<usize>);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        let (under_way, most) = (Cell::new(0), Cell::new(0));
        let hopeless = overlapping(|_| {
            under_way.set(under_way.get() + 1);
            most.set(most.get().max(under_way.get()));
            let counted = Counted(&under_way);
            async move {
                std::future::pending::<()>().await;
                drop(counted);
            }
        });
        assert!(timeout(Duration::from_secs(60), hopeless).await.is_err());
        assert!(most.get() <= 11, "{}", most.get());
        assert_eq!(under_way.get(), 0);
    }

    #[tokio::test]
    async fn who_listens_is_reached_and_who_does_not_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let soon = Duration::from_secs(10);
        knock("127.0.0.1", port, soon).await.unwrap();
        drop(listener);
        let refused = knock("127.0.0.1", port, soon).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
