//! Clients that read large bodies at 16 KB/s, of an upstream that speaks HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use e2e::origin::Origin;
use e2e::reply::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

/// How many there are, and how fast each reads.
const READERS: usize = 8;
const PER_SECOND: f64 = 16_000.0;
/// The least that a kernel gives a socket.
const RECEIVE_BUFFER: u32 = 4 << 10;
/// How much of a body is there at the least, beyond what is read.
const AHEAD: usize = 32 << 20;

/// An origin with a body that nobody has read to its end after this time.
pub async fn origin(span: Duration) -> Origin {
    let length = AHEAD + (span.as_secs_f64() * PER_SECOND) as usize;
    let large = bytes::Bytes::from(vec![b'l'; length]);
    Origin::pages(move |seen| match seen.path_only() {
        "/large" => Reply::ok(large.clone()),
        _ => Reply::ok(vec![b'p'; 1_024]),
    })
    .await
}

/// Readers at work.
pub struct SlowReaders {
    readers: JoinSet<()>,
    read: Arc<AtomicU64>,
}

/// Starts all of them.
pub fn start(gateway: SocketAddr) -> SlowReaders {
    let read = Arc::<AtomicU64>::default();
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(slowly(gateway, Arc::clone(&read)));
    }
    SlowReaders { readers, read }
}

impl SlowReaders {
    /// Ends them. How many octets they have read.
    pub async fn stop(mut self) -> f64 {
        assert_eq!(self.readers.len(), READERS);
        assert!(self.readers.try_join_next().is_none(), "a reader has ended");
        self.readers.shutdown().await;
        self.read.load(Relaxed) as f64
    }
}

async fn slowly(gateway: SocketAddr, read: Arc<AtomicU64>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
    let mut stream = socket.connect(gateway).await.unwrap();
    let request = "GET /large HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let (begin, mut own, mut piece) = (Instant::now(), 0, [0; 1_600]);
    loop {
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "its body ended after {own} octets");
        own += count as u64;
        read.fetch_add(count as u64, Relaxed);
        let due = begin + Duration::from_secs_f64(own as f64 / PER_SECOND);
        tokio::time::sleep_until(due.into()).await;
    }
}
