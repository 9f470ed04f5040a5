//! An origin that writes bytes, not answers: each connection reads requests and plays
//! what the last part of the path names ([`crate::attack::origin`]).
//!
//! `/good/N` is answered as it should be, with a body that says which request it is for,
//! so that an answer that reaches another request shows.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::attack::origin::Sees;

/// One way to misbehave, and what a client may see of it.
pub struct Play {
    pub name: &'static str,
    pub sees: Sees,
    pub act: Act,
}

/// What is done once a request has come.
#[derive(Clone, Copy)]
pub enum Act {
    /// Bytes, and what comes after.
    Say(&'static [u8], After),
    /// The first, then the second until nobody takes it.
    Flood(&'static [u8], &'static [u8]),
    /// The same, a few times a second.
    Drip(&'static [u8], &'static [u8]),
}

/// What becomes of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It waits for the next request.
    Keep,
    Close,
    Reset,
    /// Nothing comes any more.
    Hold,
}

/// Between two drips.
const DRIP: Duration = Duration::from_millis(20);

/// The origin.
pub struct Rogue {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    plays: Vec<&'static Play>,
    heads: Mutex<Vec<String>>,
    open: AtomicUsize,
}

impl Rogue {
    /// Plays these.
    pub async fn start(plays: impl IntoIterator<Item = &'static Play>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            plays: plays.into_iter().collect(),
            ..Shared::default()
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forgets what it saw: for runs that ask it a million times.
    pub fn forget(&self) {
        let mut heads = self.shared.heads.lock().expect("no panic holds the log");
        heads.clear();
    }

    /// How many requests had this path.
    pub fn count_of(&self, path: &str) -> usize {
        let heads = self.shared.heads.lock().expect("no panic holds the log");
        let asked = |head: &&String| head.split(' ').nth(1) == Some(path);
        heads.iter().filter(asked).count()
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            shared.open.fetch_add(1, Ordering::SeqCst);
            serve(stream, &shared).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Plays for one request after the other, until the connection ends.
async fn serve(mut stream: TcpStream, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let mut unread = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut unread).await {
        let path = head.split(' ').nth(1).unwrap_or("").to_owned();
        shared
            .heads
            .lock()
            .expect("no panic holds the log")
            .push(head);
        let name = path.rsplit('/').next().unwrap_or("");
        let play = shared.plays.iter().find(|play| play.name == name);
        let kept = match play {
            Some(play) => act(&mut stream, play.act).await,
            None => answer(&mut stream, &path).await,
        };
        match kept {
            After::Keep => {}
            After::Close => return,
            After::Reset => {
                let _ = stream.set_zero_linger();
                return;
            }
            After::Hold => {
                while matches!(stream.read_buf(&mut unread).await, Ok(count) if count > 0) {}
                return;
            }
        }
    }
}

/// As it should be, and not to be stored: each request comes here.
async fn answer(stream: &mut TcpStream, path: &str) -> After {
    let length = path.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-length: {length}\r\n\r\n{path}"
    );
    match stream.write_all(answer.as_bytes()).await {
        Ok(()) => After::Keep,
        Err(_) => After::Close,
    }
}

async fn act(stream: &mut TcpStream, act: Act) -> After {
    match act {
        Act::Say(bytes, after) => match stream.write_all(bytes).await {
            Ok(()) => after,
            Err(_) => After::Close,
        },
        Act::Flood(begin, more) => {
            let more = more.repeat((16 << 10) / more.len());
            let mut taken = stream.write_all(begin).await;
            while taken.is_ok() {
                taken = stream.write_all(&more).await;
            }
            After::Close
        }
        Act::Drip(begin, more) => {
            let mut taken = stream.write_all(begin).await;
            while taken.is_ok() {
                tokio::time::sleep(DRIP).await;
                taken = stream.write_all(more).await;
            }
            After::Close
        }
    }
}

/// A request's head; the gateway sends these without a body.
async fn read_head(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = unread.drain(..end + 4).collect::<Vec<_>>();
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        match stream.read_buf(unread).await {
            Ok(count) if count > 0 => {}
            _ => return None,
        }
    }
}
