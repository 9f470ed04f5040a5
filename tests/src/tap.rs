//! A wire between the gateway and an origin that keeps every byte the origin is sent:
//! what was smuggled shows in the bytes, not in what a good parser makes of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Listens, and passes on to `target`.
pub struct Tap {
    address: SocketAddr,
    heard: Heard,
    accepting: JoinHandle<()>,
}

/// What came, a connection each.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

impl Tap {
    pub async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let heard = Heard::default();
        let accepting = tokio::spawn(accept(listener, target, Arc::clone(&heard)));
        Self {
            address,
            heard,
            accepting,
        }
    }

    /// As an upstream of the configuration.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every byte so far, a connection each.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().expect("no panic holds the log").clone()
    }

    /// All of it as text, one connection after the other.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard().concat()).into_owned()
    }

    /// Forgets what came so far.
    pub fn forget(&self) {
        let mut heard = self.heard.lock().expect("no panic holds the log");
        heard.iter_mut().for_each(Vec::clear);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, heard: Heard) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = {
            let mut heard = heard.lock().expect("no panic holds the log");
            heard.push(Vec::new());
            heard.len() - 1
        };
        connections.spawn(pass(stream, target, Arc::clone(&heard), number));
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(stream: TcpStream, target: SocketAddr, heard: Heard, number: usize) {
    let Ok(origin) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (stream.set_nodelay(true), origin.set_nodelay(true));
    let (from_gateway, to_gateway) = stream.into_split();
    let (from_origin, to_origin) = origin.into_split();
    let note = |bytes: &[u8]| {
        let mut heard = heard.lock().expect("no panic holds the log");
        heard[number].extend_from_slice(bytes);
    };
    // Either side's end is the connection's: a tap keeps nothing half open.
    tokio::select! {
        () = copy(from_gateway, to_origin, note) => {}
        () = copy(from_origin, to_gateway, |_| {}) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, note: impl Fn(&[u8])) {
    let mut piece = vec![0; 16 << 10];
    while let Ok(count) = from.read(&mut piece).await {
        note(&piece[..count]);
        if count == 0 || to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}
