//! How much the kernel keeps of datagrams that were not read yet.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::quic::socket::RECEIVE_BUFFER;

/// The receive buffer of a UDP socket, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpReceiveBuffer {
    pub asked: usize,
    pub granted: usize,
}

impl UdpReceiveBuffer {
    /// Asks the kernel for the buffer that a listener with HTTP/3 gets on this address, with a
    /// socket that is closed again.
    ///
    /// # Errors
    /// If there is no socket of this kind.
    pub fn probe(address: SocketAddr) -> io::Result<Self> {
        let family = Domain::for_address(address);
        let socket = Socket::new(family, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        // The kernel doubles what it grants, and says so (socket(7)).
        let granted = socket.recv_buffer_size()? / 2;
        Ok(Self {
            asked: RECEIVE_BUFFER,
            granted,
        })
    }

    /// Whether the kernel granted all that was asked for.
    pub fn is_enough(&self) -> bool {
        self.granted >= self.asked
    }
}
