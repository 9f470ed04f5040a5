//! The accept loop of one socket: a place for each connection, and what happens when
//! there are none.
//!
//! Neighbours: `worker` runs it, `connection` serves what it accepts, `descriptors` says
//! when too few are left. Over a limit accepting pauses; what is not accepted waits in the
//! kernel's queue, and nothing spins.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::connection::{self, Accepted};
use super::descriptors;
use super::signal::{Signal, Stage};
use super::{Body, Early, Port, Received};

/// How long accepting pauses when the process has no descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Accepts on one socket until the signal, then what is still in its queue.
pub(super) async fn accept<H, F>(
    port: Arc<Port>,
    socket: StdListener,
    handler: H,
    signal: Arc<Signal>,
) where
    H: Fn(Request<Body>, Received, &Early) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let serve = |(stream, address): (TcpStream, SocketAddr), place: OwnedSemaphorePermit| {
        let accepted = Accepted {
            stream,
            peer: port.peer(address),
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
    let mut pause = Pause::default();
    loop {
        // The place is taken after the connection: a worker that held one while it
        // waits for its own socket would keep it from those whose sockets are busy.
        select! {
            accepted = next(&socket, &port, &mut pause) => serve(accepted.0, accepted.1),
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

/// The next connection, with its place.
async fn next(
    socket: &TcpListener,
    port: &Port,
    pause: &mut Pause,
) -> ((TcpStream, SocketAddr), OwnedSemaphorePermit) {
    loop {
        let accepted = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                pause.after(port, &error).await;
                continue;
            }
        };
        if port.spares && descriptors::are_scarce(&accepted.0) {
            pause.begin(port, "few descriptors are left");
            descriptors::are_free().await;
        }
        pause.end(port);
        // The semaphore is never closed.
        if let Ok(place) = Arc::clone(&port.places).acquire_owned().await {
            return (accepted, place);
        }
    }
}

/// A connection that the kernel has accepted for us already; closing the socket resets it.
fn next_in_queue(socket: &StdListener) -> Option<(TcpStream, SocketAddr)> {
    let (stream, address) = socket.accept().ok()?;
    stream.set_nonblocking(true).ok()?;
    Some((TcpStream::from_std(stream).ok()?, address))
}

/// Whether accepting pauses, so that it is said once.
#[derive(Default)]
struct Pause(bool);

impl Pause {
    fn begin(&mut self, port: &Port, why: &str) {
        if !std::mem::replace(&mut self.0, true) {
            tracing::warn!(address = %port.address, why, "accepting pauses");
        }
    }

    fn end(&mut self, port: &Port) {
        if std::mem::take(&mut self.0) {
            tracing::info!(address = %port.address, "accepting goes on");
        }
    }

    /// A client that left while it waited is nothing; without descriptors, trying again at
    /// once would only spin.
    async fn after(&mut self, port: &Port, error: &io::Error) {
        let gone = [
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::ConnectionReset,
        ];
        if !gone.contains(&error.kind()) {
            self.begin(port, &error.to_string());
            sleep(EXHAUSTED_PAUSE).await;
        }
    }
}
