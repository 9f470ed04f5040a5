//! Ports for servers that are told where to listen.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// A port that nobody has on any address, and that nobody else gets: each is given out once in a
/// process, and they are below those that the kernel gives to connections, which other tests open
/// by the hundred. So a server that is down for a while finds its port free.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_240;
    const COUNT: u32 = 20_000;
    static TURN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Far from where another process of tests began.
        let turn = TURN.fetch_add(1, Ordering::Relaxed) + std::process::id() * 97;
        let port = u16::try_from(FIRST + turn % COUNT).unwrap();
        let all = (Ipv4Addr::UNSPECIFIED, port);
        if TcpListener::bind(all).is_ok() && UdpSocket::bind(all).is_ok() {
            return port;
        }
    }
}

/// Such a port of this machine's own address.
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}
