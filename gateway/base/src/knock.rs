//! Finds out whether a server can be reached, before a client library connects to it.
//!
//! A packet that opens a connection and was lost is sent again after one second, then after two and
//! four more, and a client library waits for that. Whoever waits for a server to come back would
//! notice its return that much later. So the attempts to open a connection overlap here: another one
//! begins every [`OVERLAP`], and the first that has an outcome counts. Where there are several
//! servers, each attempt begins with another one, so that one that does not answer hides none.
//!
//! The connection is closed again, since no client library takes one over: a server sees one that
//! says nothing before each that does, and a server with TLS may log a handshake that did not begin.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The time after which another attempt begins beside those that have no outcome yet.
const OVERLAP: Duration = Duration::from_millis(300);
/// An attempt without an outcome is left after this time, which bounds how many there are at once.
const LIFE: Duration = Duration::from_secs(3);

/// Waits until a connection to one of these servers can be opened, or all refuse, for at most
/// `limit`. The connection is closed again. Returns the place of the server in the list.
///
/// # Errors
/// If all refuse, no name is known, or nothing answers within `limit`.
pub async fn knock(servers: &[(String, u16)], limit: Duration) -> io::Result<usize> {
    let opened = timeout(limit, async {
        let addresses = addresses(servers).await?;
        overlapping(|attempt| open(&addresses, attempt)).await
    });
    opened
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// All addresses of the servers, each with the place of its server in the list.
async fn addresses(servers: &[(String, u16)]) -> io::Result<Vec<(usize, SocketAddr)>> {
    let lookups = servers
        .iter()
        .map(|(host, port)| lookup_host((host.as_str(), *port)));
    let mut addresses = Vec::new();
    let mut unknown = io::Error::from(io::ErrorKind::NotFound);
    for (server, found) in join_all(lookups).await.into_iter().enumerate() {
        match found {
            Ok(found) => addresses.extend(found.map(|address| (server, address))),
            Err(error) => unknown = error,
        }
    }
    match addresses.is_empty() {
        true => Err(unknown),
        false => Ok(addresses),
    }
}

/// Each attempt begins with another address, as one that does not answer would hide the others.
async fn open(addresses: &[(usize, SocketAddr)], attempt: usize) -> io::Result<usize> {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    let first = attempt % addresses.len().max(1);
    let (before, from) = addresses.split_at(first);
    for (server, address) in from.iter().chain(before) {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(*server),
            Err(refused) => error = refused,
        }
    }
    Err(error)
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
        let here = [("127.0.0.1".to_owned(), port)];
        assert_eq!(knock(&here, soon).await.unwrap(), 0);
        drop(listener);
        let refused = knock(&here, soon).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn of_several_the_one_that_answers_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listens = listener.local_addr().unwrap().port();
        let refuses = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap().port()
        };
        let at = |host: &str, port| (host.to_owned(), port);
        let servers = [
            at("no-such-name.invalid", 1),
            at("127.0.0.1", refuses),
            at("127.0.0.1", listens),
        ];
        let soon = Duration::from_secs(10);
        assert_eq!(knock(&servers, soon).await.unwrap(), 2);
        assert!(knock(&servers[..1], soon).await.is_err());
    }
}
