//! The accept loop of one socket: it takes a place for each connection, and handles the case
//! that there is none.
//!
//! Neighbours: `worker` runs it, `connection` serves what it accepts, `descriptors` says when
//! too few descriptors are left. Over a limit accepting pauses; connections that are not accepted
//! wait in the kernel's queue, and nothing spins. A reserved listener does not pause when its
//! places are taken: it cuts the connection that has waited the longest (`roster`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::select;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::connection::{self, AcceptedConnection};
use super::descriptors;
use super::handler::RequestHandler;
use super::port::Port;
use super::roster::{ConnectionRoster, RosterMembership};
use super::signal::DrainStage;
use super::socket::{AcceptingSocket, ListeningSocket};
use super::stream::ClientStream;
use super::turns::HandshakeTurns;

/// How long accepting pauses when the process has no descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Accepts on one socket until its port retires, then accepts what is still in the kernel's queue.
pub(super) async fn accept<H>(
    port: Arc<Port>,
    socket: ListeningSocket,
    turns: Arc<HandshakeTurns>,
    handler: H,
) where
    H: RequestHandler,
{
    let serve = |(stream, address): (ClientStream, SocketAddr), place: OwnedSemaphorePermit| {
        let seat = port.roster.as_ref().map(ConnectionRoster::seat);
        let number = seat.as_ref().map(RosterMembership::number);
        let accepted = AcceptedConnection {
            peer: port.peer(address, stream.reached(port.address)),
            stream,
            place,
            seat,
            port: Arc::clone(&port),
            turns: Arc::clone(&turns),
        };
        let task = tokio::spawn(connection::serve(accepted, handler.clone()));
        if let (Some(roster), Some(number)) = (&port.roster, number) {
            roster.served_by(number, task.abort_handle());
        }
    };
    let socket = match socket.begin() {
        Ok(socket) => socket,
        Err(error) => {
            return tracing::error!(address = %port.endpoint, %error, "cannot accept a connection");
        }
    };
    let mut pause = AcceptPause::default();
    let mut held = None;
    loop {
        // The place is taken after the connection: a worker that held a place while its own socket
        // is quiet would keep it from workers whose sockets are busy.
        select! {
            biased;
            () = port.signal.reached(DrainStage::Retire) => break,
            place = next(&socket, &port, &mut pause, &mut held) => {
                if let Some(accepted) = held.take() {
                    serve(accepted, place);
                }
            }
        }
    }
    let Ok(socket) = socket.end() else {
        return;
    };
    // These connections are accepted, here or by the kernel: dropping one, or closing the socket,
    // would reset it. The queue of a socket that goes on is its next port's.
    let in_queue = || match port.replaced.load(Relaxed) {
        true => None,
        false => socket.next_in_queue(),
    };
    while let Some(accepted) = held.take().or_else(in_queue) {
        if let Some(place) = port.place_in_any_case().await {
            serve(accepted, place);
        }
    }
}

/// The place for the next connection, which stands in `held` then, and perhaps before: it is not
/// lost if nobody waits for its place any more.
async fn next(
    socket: &AcceptingSocket,
    port: &Port,
    pause: &mut AcceptPause,
    held: &mut Option<(ClientStream, SocketAddr)>,
) -> OwnedSemaphorePermit {
    loop {
        let accepted = match held {
            Some(accepted) => accepted,
            None => match socket.accept().await {
                Ok(accepted) => held.insert(accepted),
                Err(error) => {
                    pause.after(port, &error).await;
                    continue;
                }
            },
        };
        if port.spares && descriptors::are_scarce(&accepted.0) {
            pause.begin(port, "few file descriptors are left");
            descriptors::are_free().await;
        }
        pause.end(port);
        if let Some(roster) = &port.roster
            && port.places.available_permits() == 0
        {
            roster.make_room();
        }
        // The semaphore is never closed.
        if let Ok(place) = Arc::clone(&port.places).acquire_owned().await {
            return place;
        }
    }
}

/// Whether accepting is paused, so that it is logged once.
#[derive(Default)]
struct AcceptPause(bool);

impl AcceptPause {
    fn begin(&mut self, port: &Port, why: &str) {
        if !std::mem::replace(&mut self.0, true) {
            tracing::warn!(address = %port.endpoint, why, "accepting connections paused");
        }
    }

    fn end(&mut self, port: &Port) {
        if std::mem::take(&mut self.0) {
            tracing::info!(address = %port.endpoint, "accepting connections resumed");
        }
    }

    /// Pauses after an error of `accept`. A client that left while it waited in the queue is
    /// ignored; other errors, such as too few descriptors, would only come again at once.
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
