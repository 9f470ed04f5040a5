//! The UDP sockets of a port, and the filter in the kernel that chooses between them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::passage::EarlierProcess;
use super::steering::{SteeringGroup, WorkerInbox};
use crate::quic_identity::QuicIdentity;
use crate::server::socket::{OwnAddresses, overlap};

/// What is asked of the kernel for datagrams that were not read.
pub(crate) const RECEIVE_BUFFER: usize = 4 << 20;

/// The sockets of one worker.
pub(in crate::server) struct QuicSocket {
    pub(super) sends: UdpSocket,
    /// Whether it also reads that one.
    pub(super) reads_own: bool,
    /// Further ones that it reads.
    pub(super) reads: Vec<UdpSocket>,
    pub(in crate::server) worker: u8,
    pub(super) inbox: WorkerInbox,
    pub(super) group: Arc<SteeringGroup>,
}

/// The sockets of a port.
pub(in crate::server) struct OpenedQuic {
    /// One for each worker.
    pub(in crate::server) workers: Vec<QuicSocket>,
    pub(in crate::server) group: Arc<SteeringGroup>,
    /// Further descriptors of all sockets, for the next process.
    pub(in crate::server) kept: Vec<UdpSocket>,
}

/// Opens one socket for each of `workers` workers.
///
/// # Errors
/// If the port is used by another program, or can't be used.
pub(in crate::server) fn open(
    address: SocketAddr,
    workers: usize,
    identity: &Arc<QuicIdentity>,
    own: &OwnAddresses,
) -> io::Result<OpenedQuic> {
    let overlaps = |other: &SocketAddr| overlap(address, *other);
    // Whether datagrams to the other one would come here as soon as the socket is bound.
    let takes_datagrams = |other: &SocketAddr| {
        let is_behind = !other.ip().is_unspecified() || address.is_ipv6();
        overlaps(other) && !(address.ip().is_unspecified() && is_behind)
    };
    if own.served.iter().any(takes_datagrams) || !own.all().any(overlaps) {
        // Another program of the same user could share the port otherwise: see `socket::open`.
        socket(address)?.bind(&SockAddr::from(address))?;
    }
    let sockets = (0..workers).map(|_| {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(address))?;
        Ok(UdpSocket::from(socket))
    });
    let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
    filter(&sockets);
    shared_out(sockets, workers, identity, Vec::new())
}

/// Uses sockets of one address that were opened elsewhere, for `workers` workers: each socket is
/// read by one of them. What belongs to `earlier` processes is passed on to them. Where there are
/// such, the filter stands already; a service manager does not tell.
///
/// # Errors
/// If one can't be used.
pub(in crate::server) fn adopt(
    sockets: Vec<UdpSocket>,
    workers: usize,
    identity: &Arc<QuicIdentity>,
    earlier: Vec<EarlierProcess>,
) -> io::Result<OpenedQuic> {
    for socket in &sockets {
        socket.set_nonblocking(true)?;
        // The kernel may give less, which costs packets in a burst and nothing else.
        let _ = SockRef::from(socket).set_recv_buffer_size(RECEIVE_BUFFER);
    }
    if earlier.is_empty() {
        filter(&sockets);
    }
    shared_out(sockets, workers, identity, earlier)
}

/// Gives each worker its sockets: one of its own if there are enough, otherwise another one to send
/// by. Sockets beyond the number of workers are read by them in turn.
fn shared_out(
    sockets: Vec<UdpSocket>,
    workers: usize,
    identity: &Arc<QuicIdentity>,
    earlier: Vec<EarlierProcess>,
) -> io::Result<OpenedQuic> {
    let count = sockets.len();
    let (group, inboxes) = SteeringGroup::new(workers, count, identity, earlier);
    let workers = inboxes.into_iter().zip(0u8..).map(|(inbox, worker)| {
        let at = usize::from(worker);
        let further = sockets.iter().skip(at + workers).step_by(workers);
        let own = sockets.get(at % count.max(1));
        let own = own.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(QuicSocket {
            sends: own.try_clone()?,
            reads_own: at < count,
            reads: further
                .map(UdpSocket::try_clone)
                .collect::<io::Result<_>>()?,
            worker,
            inbox,
            group: Arc::clone(&group),
        })
    });
    Ok(OpenedQuic {
        workers: workers.collect::<io::Result<_>>()?,
        group,
        kept: sockets,
    })
}

/// Attaches the filter to the group of these sockets, if there are several. Not where one stands:
/// the kernel frees that at once, also while it runs for a datagram that is coming in.
fn filter(sockets: &[UdpSocket]) {
    let count = sockets.len();
    if let Some(first) = sockets.first()
        && count > 1
        && let Err(error) = steer(first, count)
    {
        tracing::warn!(
            %error,
            "the kernel takes no filter for QUIC: workers hand datagrams on to each other, which \
             costs time"
        );
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    // The kernel may give less, which costs packets in a burst and nothing else.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(socket)
}

/// Attaches the filter that chooses the socket of a datagram. A datagram with a long header has the
/// id at octet 6, and before the handshake the client has chosen it; one with a short header has it
/// at octet 1 (RFC 9000 §17).
fn steer(socket: &UdpSocket, sockets: usize) -> io::Result<()> {
    const LOAD_OCTET: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const MODULO: u16 = 0x94;
    const RETURN: u16 = 0x16;
    let step = |code, jump_true, jump_false, k| libc::sock_filter {
        code,
        jt: jump_true,
        jf: jump_false,
        k,
    };
    let mut filter = [
        step(LOAD_OCTET, 0, 0, 0),
        step(JUMP_IF_SET, 0, 2, 0x80),
        step(LOAD_OCTET, 0, 0, 6),
        // Jumps over the load for short headers.
        step(0x05, 0, 0, 1),
        step(LOAD_OCTET, 0, 0, 1),
        step(MODULO, 0, 0, u32::try_from(sockets).unwrap_or(1)),
        step(RETURN, 0, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    set_filter(socket, &program)
}

#[allow(unsafe_code)]
fn set_filter(socket: &UdpSocket, program: &libc::sock_fprog) -> io::Result<()> {
    // SAFETY: the socket is open, and the program and the filter that it points to live until the
    // call returns; the kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
