//! An origin whose behaviour changes while it runs: it answers, or fails in one of the ways in
//! which origins fail.
//!
//! It speaks HTTP/1.1 over plain sockets, so that it decides itself when a connection is reset.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use e2e::wait::{SOON, wait_for};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::arrivals::ArrivalCounts;
use crate::request::{ReadRequest, read_request};

/// What active checks ask for; it is not counted among the arrivals.
pub const HEALTH_PATH: &str = "/healthz";
/// For how long [`Behaviour::Slow`] waits before it answers.
const SLOWNESS: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// What a target does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetBehaviour {
    Answers,
    /// Its port is closed, as that of a process that has ended.
    Refuses,
    /// It accepts and reads, and never answers.
    Hangs,
    /// Packets to it are lost: no connection is opened, and on open ones nothing comes.
    BlackHole,
    /// It answers with this status at once.
    Fails(u16),
    Slow,
    /// It resets the connection when it has read the whole request.
    Resets,
    /// It answers one request after the other and takes so long for each.
    InTurn(Duration),
}

/// A running target.
pub struct FaultyTarget {
    pub address: SocketAddr,
    shared: Arc<TargetState>,
    socket: TargetSocket,
}

struct TargetState {
    behaviour: watch::Sender<TargetBehaviour>,
    arrivals: Arc<ArrivalCounts>,
    /// When [`Behaviour::InTurn`] is done with all requests so far.
    free_at: Mutex<Instant>,
}

enum TargetSocket {
    Serving(JoinHandle<()>),
    /// Bound and not listening: nobody else gets the port, and who connects is refused.
    Closed(TcpSocket),
}

impl FaultyTarget {
    /// Starts a target that answers.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(arrivals: Arc<ArrivalCounts>) -> anyhow::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), arrivals).await
    }

    /// The same at an address of one's choice; port 0 is any.
    ///
    /// # Errors
    /// When the port is not free.
    pub async fn start_at(
        address: SocketAddr,
        arrivals: Arc<ArrivalCounts>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("listening at {address}"))?;
        let shared = Arc::new(TargetState {
            behaviour: watch::Sender::new(TargetBehaviour::Answers),
            arrivals,
            free_at: Mutex::new(Instant::now()),
        });
        Ok(Self {
            address: listener.local_addr()?,
            socket: TargetSocket::Serving(tokio::spawn(accept(listener, Arc::clone(&shared)))),
            shared,
        })
    }

    /// Whether it has read a request for this path.
    pub fn has_read(&self, path: &str) -> bool {
        self.shared.arrivals.has(path)
    }

    /// Behaves so from now on. Requests that hang meanwhile lose their connections, and
    /// [`Behaviour::Refuses`] takes all connections away.
    ///
    /// # Errors
    /// When the port can't be taken again.
    pub async fn behave(&mut self, behaviour: TargetBehaviour) -> anyhow::Result<()> {
        self.shared.behaviour.send_replace(behaviour);
        match (&mut self.socket, behaviour) {
            (TargetSocket::Serving(accepting), TargetBehaviour::Refuses) => {
                accepting.abort();
                let _ = accepting.await;
                self.socket = TargetSocket::Closed(self.bound().await);
            }
            (TargetSocket::Closed(_), TargetBehaviour::Refuses) | (TargetSocket::Serving(_), _) => {
            }
            (TargetSocket::Closed(_), _) => {
                let listener = self.listen_again()?;
                let accepting = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
                self.socket = TargetSocket::Serving(accepting);
            }
        }
        Ok(())
    }

    async fn bound(&self) -> TcpSocket {
        let address = self.address;
        wait_for("the target has its port again", SOON, || async move {
            let socket = TcpSocket::new_v4().ok()?;
            socket.set_reuseaddr(true).ok()?;
            socket.bind(address).ok().map(|()| socket)
        })
        .await
    }

    fn listen_again(&mut self) -> anyhow::Result<TcpListener> {
        let unbound = TargetSocket::Closed(TcpSocket::new_v4()?);
        match std::mem::replace(&mut self.socket, unbound) {
            TargetSocket::Closed(socket) => socket
                .listen(BACKLOG)
                .with_context(|| format!("listening at {} again", self.address)),
            TargetSocket::Serving(_) => unreachable!("only a closed socket listens again"),
        }
    }
}

impl Drop for FaultyTarget {
    fn drop(&mut self) {
        if let TargetSocket::Serving(accepting) = &self.socket {
            accepting.abort();
        }
    }
}

/// Accepts until it is aborted; its connections end with it.
async fn accept(listener: TcpListener, shared: Arc<TargetState>) {
    let mut behaviour = shared.behaviour.subscribe();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if *behaviour.borrow_and_update() == TargetBehaviour::BlackHole {
            let _full = fill_queue(&listener).await;
            let _ = behaviour.changed().await;
            continue;
        }
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
            _ = behaviour.changed() => {}
        }
    }
}

/// Connections of our own that nobody accepts. While its queue is full the kernel drops what
/// comes to a listener, as a firewall does.
async fn fill_queue(listener: &TcpListener) -> Vec<TcpStream> {
    /// Longer than a connect to this machine takes, shorter than a repeated packet.
    const LIMIT: Duration = Duration::from_millis(300);
    let Ok(address) = listener.local_addr() else {
        return Vec::new();
    };
    // One in four more than fit: a full queue is noticed by connects that do not succeed.
    let connects: JoinSet<_> = (0..BACKLOG * 5 / 4)
        .map(|_| timeout(LIMIT, TcpStream::connect(address)))
        .collect();
    let opened = connects.join_all().await.into_iter();
    opened.filter_map(|opened| opened.ok()?.ok()).collect()
}

/// Serves a connection to its end. That it ends in an error is what faults are for.
async fn serve(mut stream: TcpStream, shared: Arc<TargetState>) -> anyhow::Result<()> {
    let mut behaviour = shared.behaviour.subscribe();
    let mut read = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut read).await? {
        if request.path != HEALTH_PATH {
            shared.arrivals.note(&request.path);
        }
        let now = *behaviour.borrow_and_update();
        match now {
            TargetBehaviour::Answers => {}
            TargetBehaviour::Slow => sleep(SLOWNESS).await,
            TargetBehaviour::InTurn(each) => shared.take_turn(each).await,
            TargetBehaviour::Hangs | TargetBehaviour::BlackHole => {
                let _ = behaviour.changed().await;
                return Ok(());
            }
            TargetBehaviour::Resets => {
                stream.set_zero_linger()?;
                return Ok(());
            }
            TargetBehaviour::Refuses => return Ok(()),
            TargetBehaviour::Fails(status) => {
                answer(&mut stream, &request, status).await?;
                continue;
            }
        }
        answer(&mut stream, &request, 200).await?;
    }
    Ok(())
}

/// The body of an answer is the path that was asked for. Under `/cached/` it is fresh for a
/// second and may be served for an hour while there are errors.
async fn answer(stream: &mut TcpStream, request: &ReadRequest, status: u16) -> std::io::Result<()> {
    let cache = match (status, request.path.starts_with("/cached/")) {
        (200, true) => "max-age=1, stale-if-error=3600",
        _ => "no-store",
    };
    let body = &request.path;
    let text = format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: text/plain\r\ncache-control: {cache}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await
}

impl TargetState {
    /// Waits until all requests before this one and this one itself are done.
    async fn take_turn(&self, each: Duration) {
        let done = {
            let mut free_at = self.free_at.lock().await;
            *free_at = (*free_at).max(Instant::now()) + each;
            *free_at
        };
        sleep_until(done).await;
    }
}
