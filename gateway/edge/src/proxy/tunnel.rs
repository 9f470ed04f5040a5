//! Copies bytes both ways after a switch of protocols, until one side ends or no data moves.
//!
//! `pass` starts it. A tunnel holds a connection on both sides, so a silent one must end: without a
//! deadline, a client that vanished would keep both connections for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::timeout;

/// One side of the tunnel; counts the bytes that it sends.
struct TunnelSide<S> {
    stream: S,
    moved: Arc<AtomicU64>,
}

/// Copies until both sides have ended.
///
/// # Errors
/// `TimedOut` if neither side sent anything for `idle` (it may take up to twice that time), and the
/// errors of the two sides.
pub async fn run<A, B>(client: A, origin: B, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let moved = Arc::new(AtomicU64::new(0));
    let mut client = TunnelSide::new(client, &moved);
    let mut origin = TunnelSide::new(origin, &moved);
    let mut copying = std::pin::pin!(copy_bidirectional(&mut client, &mut origin));
    let mut seen = 0;
    loop {
        if let Ok(done) = timeout(idle, copying.as_mut()).await {
            return done.map(drop);
        }
        let now = moved.load(Relaxed);
        if now == seen {
            return Err(io::ErrorKind::TimedOut.into());
        }
        seen = now;
    }
}

impl<S> TunnelSide<S> {
    fn new(stream: S, moved: &Arc<AtomicU64>) -> Self {
        Self {
            stream,
            moved: Arc::clone(moved),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TunnelSide<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let count = into.filled().len() - before;
        self.moved.fetch_add(count as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TunnelSide<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{Instant, sleep};

    use super::{Duration, io, run};

    const IDLE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_lives_as_long_as_something_moves_in_it() {
        let (mut client, near) = duplex(64);
        let (far, mut origin) = duplex(64);
        let tunnel = tokio::spawn(run(near, far, IDLE));
        for _ in 0..10 {
            sleep(IDLE * 3 / 4).await;
            origin.write_all(b"ping").await.unwrap();
            let mut word = [0; 4];
            client.read_exact(&mut word).await.unwrap();
        }
        let silent = Instant::now();
        let error = tunnel.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(silent.elapsed() <= 2 * IDLE);
        assert_eq!(
            client.read(&mut [0; 4]).await.unwrap(),
            0,
            "both are closed"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_of_which_one_half_is_closed_still_has_its_deadline() {
        let (mut client, near) = duplex(64);
        let (far, _origin) = duplex(64);
        let tunnel = tokio::spawn(run(near, far, IDLE));
        client.shutdown().await.unwrap();
        assert!(tunnel.await.unwrap().is_err());
    }
}
