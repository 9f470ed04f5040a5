//! An address that neither accepts nor refuses: what is sent to it is lost, as behind many firewalls.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// A listener whose queue is full and that takes nothing from it, so that the kernel drops what
/// would begin a further connection.
pub struct FullBacklog {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

/// How long a connection on this machine may take. One that is dropped is tried again after a second.
const ANSWER: Duration = Duration::from_millis(500);
/// More connections than any queue of ours takes.
const MOST: usize = 16;

impl FullBacklog {
    /// Listens at this address.
    ///
    /// # Panics
    /// If the address can't be used or its queue does not fill.
    pub async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket can be opened");
        socket
            .set_reuseaddr(true)
            .expect("an address can be used again");
        socket.bind(address).expect("the address is free");
        let listener = socket.listen(0).expect("the socket listens");
        let address = listener.local_addr().expect("it has an address");
        let mut waiting = Vec::new();
        while let Ok(opened) = timeout(ANSWER, TcpStream::connect(address)).await {
            waiting.push(opened.expect("it does not refuse"));
            assert!(waiting.len() < MOST, "the queue of {address} does not fill");
        }
        Self {
            listener,
            _waiting: waiting,
        }
    }

    /// # Panics
    /// If it has no address.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it has an address")
    }

    /// Whether it still answers nobody.
    pub async fn is_full(&self) -> bool {
        timeout(ANSWER, TcpStream::connect(self.address()))
            .await
            .is_err()
    }
}
