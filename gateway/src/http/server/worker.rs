//! One thread of the listener: its runtime, its sockets, its accept loops.

use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::connection::{self, Accepted};
use super::signal::{Signal, Stage};
use super::{BindError, Body, Early, Peer, Port};

/// How long accepting pauses when the process has no descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A runtime and the sockets that it will accept on.
pub(super) struct Worker {
    /// `None` once the thread has it.
    runtime: Option<Runtime>,
    sockets: Vec<(Arc<Port>, StdListener)>,
}

impl Worker {
    pub(super) fn new() -> Result<Self, BindError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| BindError::Runtime { source })?;
        Ok(Self {
            runtime: Some(runtime),
            sockets: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, port: Arc<Port>, socket: StdListener) {
        self.sockets.push((port, socket));
    }

    /// Runs on a thread of its own until the signal says cut. `_accepts` and `_lives` are
    /// dropped when it accepts no more, and when it is gone.
    pub(super) fn start<H, F>(
        mut self,
        handler: H,
        signal: Arc<Signal>,
        accepts: mpsc::Sender<()>,
        lives: mpsc::Sender<()>,
    ) where
        H: Fn(Request<Body>, Peer, &Early) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let sockets = std::mem::take(&mut self.sockets);
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        thread::spawn(move || {
            runtime.block_on(async {
                let mut loops = JoinSet::new();
                for (port, socket) in sockets {
                    loops.spawn(accept(port, socket, handler.clone(), Arc::clone(&signal)));
                }
                while loops.join_next().await.is_some() {}
                drop(accepts);
                signal.reached(Stage::Cut).await;
            });
            // A name look-up that hangs must not keep the process.
            runtime.shutdown_background();
            drop(lives);
        });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // An ordinary drop waits, which panics inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Accepts on one socket until the signal, then what is still in its queue.
async fn accept<H, F>(port: Arc<Port>, socket: StdListener, handler: H, signal: Arc<Signal>)
where
    H: Fn(Request<Body>, Peer, &Early) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let serve = |(stream, address): (TcpStream, SocketAddr), place: OwnedSemaphorePermit| {
        let peer = Peer {
            address,
            trusted: port
                .trusted
                .iter()
                .any(|network| network.contains(address.ip())),
        };
        let accepted = Accepted {
            stream,
            peer,
            place,
            port: Arc::clone(&port),
        };
        tokio::spawn(connection::serve(
            accepted,
            handler.clone(),
            Arc::clone(&signal),
        ));
    };
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(address = %port.address, %error, "cannot accept"),
    };
    loop {
        // The place is taken after the connection: a worker that held one while it
        // waits for its own socket would keep it from those whose sockets are busy.
        let accepted = select! {
            accepted = socket.accept() => accepted,
            () = signal.reached(Stage::Drain) => break,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&port, &error).await;
                continue;
            }
        };
        select! {
            place = Arc::clone(&port.places).acquire_owned() => match place {
                Ok(place) => serve(accepted, place),
                // The semaphore is never closed.
                Err(_) => break,
            },
            () = signal.reached(Stage::Drain) => break,
        }
    }
    let Ok(socket) = socket.into_std() else {
        return;
    };
    while let Ok(place) = Arc::clone(&port.places).try_acquire_owned() {
        let Some(accepted) = next_in_queue(&socket) else {
            break;
        };
        serve(accepted, place);
    }
}

/// A connection that the kernel has accepted for us already; closing the socket resets it.
fn next_in_queue(socket: &StdListener) -> Option<(TcpStream, SocketAddr)> {
    let (stream, address) = socket.accept().ok()?;
    stream.set_nonblocking(true).ok()?;
    Some((TcpStream::from_std(stream).ok()?, address))
}

/// A client that left while it waited is nothing; without descriptors, trying again at
/// once would only spin.
async fn pause(port: &Port, error: &io::Error) {
    let gone = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
    ];
    if !gone.contains(&error.kind()) {
        tracing::warn!(address = %port.address, %error, "accepting pauses");
        sleep(EXHAUSTED_PAUSE).await;
    }
}
