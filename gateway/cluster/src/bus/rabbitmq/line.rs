//! The socket of a connection, kept so that it can be cut.
//!
//! lapin runs each connection on a thread of its own, which waits for the broker's answer even to a
//! close. Decision: we keep a second handle to the socket. If the broker is silent, shutting the
//! socket down ends that thread; otherwise each attempt at a frozen broker would leave a thread
//! behind.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use lapin::{AsyncTcpStream, Connection, ConnectionProperties, runtime};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::fault::RabbitMqFault;
use super::target::RabbitMqTarget;

/// A connection's socket; dropping it cuts the connection.
#[derive(Default)]
pub(super) struct RabbitMqSocket(Arc<Mutex<HeldSocket>>);

#[derive(Default)]
enum HeldSocket {
    #[default]
    Nothing,
    Socket(TcpStream),
    Cut,
}

impl RabbitMqSocket {
    fn hold(hold: &Mutex<HeldSocket>, socket: TcpStream) {
        let mut hold = hold.lock();
        match &*hold {
            HeldSocket::Cut => cut(&socket),
            HeldSocket::Nothing | HeldSocket::Socket(_) => *hold = HeldSocket::Socket(socket),
        }
    }
}

impl Drop for RabbitMqSocket {
    fn drop(&mut self) {
        let held = std::mem::replace(&mut *self.0.lock(), HeldSocket::Cut);
        if let HeldSocket::Socket(socket) = held {
            cut(&socket);
        }
    }
}

fn cut(socket: &TcpStream) {
    // An error means that the other side was faster.
    let _ = socket.shutdown(Shutdown::Both);
}

/// Where packets are lost, TCP sends again at intervals that double, and so might wait for as long
/// again as the network was away. What little goes over this connection is sent again at the same
/// short interval at first. A kernel that can't do that leaves the connection as it is.
fn send_again_soon(socket: &SockRef<'_>) {
    let _ = socket.set_tcp_thin_linear_timeouts(true);
}

/// Connects and logs in, without retries. The caller sets a deadline.
pub(super) async fn dial(
    target: &RabbitMqTarget,
    attempt: usize,
    limit: Duration,
    line: &RabbitMqSocket,
) -> Result<Connection, RabbitMqFault> {
    let hold = Arc::clone(&line.0);
    let tls = target.tls.clone();
    let name = format!("lamina {}", std::process::id());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connection = Connection::connector(
        target.uri(attempt),
        runtime::default_runtime()?,
        async move |uri, runtime| {
            let place = (uri.authority.host.as_str(), uri.authority.port);
            // This runs on lapin's thread, and nothing else ends it.
            let opened = timeout(limit, async {
                let addresses: Vec<_> = lookup_host(place).await?.collect();
                let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                if let AsyncTcpStream::Plain(stream) = &stream {
                    let socket = stream.get_ref().as_fd().try_clone_to_owned()?;
                    send_again_soon(&SockRef::from(&socket));
                    RabbitMqSocket::hold(&hold, TcpStream::from(socket));
                }
                match &tls {
                    Some(connector) => stream.into_rustls(connector, place.0).await,
                    None => Ok(stream),
                }
            });
            let late = |_| io::Error::from(io::ErrorKind::TimedOut);
            Ok(opened.await.map_err(late)??)
        },
        properties,
    );
    Ok(connection.await?)
}
