//! The way of datagrams to a process that has handed its sockets over and still has connections.
//!
//! It is a pair of Unix datagram sockets: the process that reads the sockets has one end, the one
//! before it the other. A message is a datagram with what the kernel said of it. What does not fit
//! is lost, as in a socket's own queue.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use quinn::udp::{EcnCodepoint, RecvMeta};
use socket2::SockRef;

/// The most octets of a message: those of a datagram, and what is said of it.
pub(super) const MOST_OCTETS: usize = (64 << 10) + HEAD;

/// What stands before a datagram: ECN, which of the addresses are of IPv6 and whether the second one
/// is known, then port, scope and address of the sender, and the address that it was sent to.
const HEAD: usize = 1 + 1 + 2 + 4 + 16 + 16;
const SENDER_IS_LONG: u8 = 1;
const REACHED_IS_LONG: u8 = 2;
const REACHED_IS_KNOWN: u8 = 4;

/// Bytes that may wait in it.
const ROOM: usize = 4 << 20;

/// A process that has handed its sockets over, and the way to it.
#[derive(Debug)]
pub struct EarlierProcess {
    pub(in crate::server) generation: u8,
    way: UnixDatagram,
}

/// What became of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PassedDatagram {
    Sent,
    /// There was no room.
    Lost,
    /// The process has ended.
    Gone,
}

/// Both ends: for the next process, and for this one.
///
/// # Errors
/// If there are no descriptors left.
pub(in crate::server) fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
    let (theirs, ours) = UnixDatagram::pair()?;
    for end in [&theirs, &ours] {
        end.set_nonblocking(true)?;
        // The kernel may give less, which costs packets in a burst and nothing else.
        let _ = SockRef::from(end).set_send_buffer_size(ROOM);
    }
    Ok((theirs, ours))
}

impl EarlierProcess {
    /// The process of this generation, with our end of the way.
    pub fn new(generation: u8, way: OwnedFd) -> Self {
        Self {
            generation,
            way: way.into(),
        }
    }

    pub fn generation(&self) -> u8 {
        self.generation
    }

    /// The end for the process that reads the sockets.
    pub fn way(&self) -> &UnixDatagram {
        &self.way
    }

    /// Sends a datagram to it.
    pub(super) fn pass(&self, datagram: &[u8], meta: &RecvMeta) -> PassedDatagram {
        let message = [&head(meta)[..], datagram].concat();
        match self.way.send(&message) {
            Ok(_) => PassedDatagram::Sent,
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotConnected
                | io::ErrorKind::BrokenPipe => PassedDatagram::Gone,
                _ => PassedDatagram::Lost,
            },
        }
    }
}

fn head(meta: &RecvMeta) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0] = meta.ecn.map_or(0, |ecn| ecn as u8);
    if let SocketAddr::V6(sender) = meta.addr {
        head[1] |= SENDER_IS_LONG;
        head[4..8].copy_from_slice(&sender.scope_id().to_be_bytes());
    }
    head[2..4].copy_from_slice(&meta.addr.port().to_be_bytes());
    head[8..24].copy_from_slice(&octets(meta.addr.ip()));
    if let Some(reached) = meta.dst_ip {
        head[1] |= REACHED_IS_KNOWN;
        if reached.is_ipv6() {
            head[1] |= REACHED_IS_LONG;
        }
        head[24..].copy_from_slice(&octets(reached));
    }
    head
}

/// A datagram with what was said of it. None if it is no message of ours.
pub(super) fn read(message: &[u8]) -> Option<(&[u8], RecvMeta)> {
    let (head, datagram) = message.split_first_chunk::<HEAD>()?;
    let has = |flag: u8| head[1] & flag != 0;
    let address = |from: usize, is_long: u8| {
        let long = Ipv6Addr::from(*head[from..].first_chunk::<16>()?);
        match has(is_long) {
            true => Some(IpAddr::V6(long)),
            false => long.to_ipv4_mapped().map(IpAddr::V4),
        }
    };
    let port = u16::from_be_bytes([head[2], head[3]]);
    let mut sender = SocketAddr::new(address(8, SENDER_IS_LONG)?, port);
    if let SocketAddr::V6(sender) = &mut sender {
        sender.set_scope_id(u32::from_be_bytes([head[4], head[5], head[6], head[7]]));
    }
    let reached = has(REACHED_IS_KNOWN).then(|| address(24, REACHED_IS_LONG));
    let meta = RecvMeta {
        addr: sender,
        len: datagram.len(),
        stride: datagram.len(),
        ecn: EcnCodepoint::from_bits(head[0]),
        dst_ip: reached.flatten(),
    };
    Some((datagram, meta))
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(short) => Ipv4Addr::to_ipv6_mapped(&short).octets(),
        IpAddr::V6(long) => long.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_arrives_with_what_was_said_of_it() {
        let (theirs, ours) = pair().unwrap();
        let earlier = EarlierProcess::new(4, theirs.into());
        for (sender, reached) in [
            ("192.0.2.1:4711", Some("198.51.100.7")),
            ("[2001:db8::1]:9", Some("::1")),
            ("[::ffff:192.0.2.1]:9", Some("::ffff:198.51.100.7")),
            ("192.0.2.1:1", None),
        ] {
            let meta = RecvMeta {
                addr: sender.parse().unwrap(),
                len: 3,
                stride: 3,
                ecn: Some(EcnCodepoint::Ce),
                dst_ip: reached.map(|text| text.parse().unwrap()),
            };
            assert_eq!(earlier.pass(b"abc", &meta), PassedDatagram::Sent);
            let mut message = [0; 256];
            let length = ours.recv(&mut message).unwrap();
            let (datagram, told) = read(&message[..length]).unwrap();
            assert_eq!(datagram, b"abc");
            assert_eq!((told.addr, told.dst_ip), (meta.addr, meta.dst_ip));
            assert_eq!((told.ecn, told.len, told.stride), (meta.ecn, 3, 3));
        }
        assert!(read(b"short").is_none());
    }

    #[test]
    fn too_much_is_lost_and_a_process_that_has_ended_is_noticed() {
        let (theirs, ours) = pair().unwrap();
        let earlier = EarlierProcess::new(4, theirs.into());
        let meta = RecvMeta::default();
        let mut sent = 0;
        while earlier.pass(&[0; 1_200], &meta) == PassedDatagram::Sent {
            sent += 1;
        }
        assert!(sent > 20, "{sent}");
        drop(ours);
        assert_eq!(earlier.pass(b"x", &meta), PassedDatagram::Gone);
    }
}
