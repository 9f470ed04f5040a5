//! Opens the sockets of one address: one for each worker, sharing the port. A listener may
//! also be a Unix socket, which `unix` opens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::bind_error::BindError;
use super::stream::ClientStream;

/// The address that is used for the clients of a Unix socket, which have none.
pub(super) const UNNAMED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Connections that may wait in the kernel to be accepted.
pub(super) const BACKLOG: i32 = 4_096;

/// Bytes of answers that the kernel takes of one connection beyond what is on its way to the
/// client. Without a bound it takes some megabytes, which nobody can take back or count.
const UNSENT: u32 = 128 << 10;
/// The time between two TCP probes of a silent client.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A socket on which connections come in.
pub(super) enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The same, registered with a runtime.
pub(super) enum AcceptingSocket {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl ListeningSocket {
    /// Registers the socket with the runtime of the caller.
    pub(super) fn begin(self) -> io::Result<AcceptingSocket> {
        Ok(match self {
            Self::Tcp(socket) => AcceptingSocket::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Self::Unix(socket) => {
                AcceptingSocket::Unix(tokio::net::UnixListener::from_std(socket)?)
            }
        })
    }

    /// A connection that the kernel has accepted already, if there is one.
    pub(super) fn next_in_queue(&self) -> Option<(ClientStream, SocketAddr)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                let stream = tokio::net::TcpStream::from_std(stream).ok()?;
                Some((ClientStream::Tcp(stream), address))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept().ok()?;
                stream.set_nonblocking(true).ok()?;
                let stream = tokio::net::UnixStream::from_std(stream).ok()?;
                Some((ClientStream::Unix(stream), UNNAMED))
            }
        }
    }
}

impl AcceptingSocket {
    /// The next connection, with the address of the client.
    pub(super) async fn accept(&self) -> io::Result<(ClientStream, SocketAddr)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                Ok((ClientStream::Tcp(stream), address))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                Ok((ClientStream::Unix(stream), UNNAMED))
            }
        }
    }

    /// Takes the socket back from the runtime.
    pub(super) fn end(self) -> io::Result<ListeningSocket> {
        Ok(match self {
            Self::Tcp(socket) => ListeningSocket::Tcp(socket.into_std()?),
            Self::Unix(socket) => ListeningSocket::Unix(socket.into_std()?),
        })
    }
}

/// The addresses of the gateway's other listeners, beside which one is opened.
#[derive(Default)]
pub(super) struct OwnAddresses {
    /// Where this process or the one before it serves.
    pub(super) served: Vec<SocketAddr>,
    /// Where nobody serves yet: what was opened a moment ago, and what a service manager has kept.
    pub(super) opened: Vec<SocketAddr>,
}

/// Opens `count` sockets on `address`. The returned address has the real port. Beside one of `own`
/// nobody can connect to them before [`begin`], since they would take connections of that.
pub(super) fn open(
    address: SocketAddr,
    count: usize,
    own: &OwnAddresses,
) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    let failed = |source| explain(address, source);
    let beside_own = own.all().any(|other| overlap(address, *other));
    if !beside_own {
        probe(address).map_err(failed)?;
    }
    let one = |address| {
        let socket = shared(address)?;
        if !beside_own {
            socket.listen(BACKLOG)?;
        }
        Ok(TcpListener::from(socket))
    };
    let first = one(address).map_err(failed)?;
    let bound = first.local_addr().map_err(failed)?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(one(bound).map_err(failed)?);
    }
    Ok((bound, sockets))
}

impl OwnAddresses {
    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &SocketAddr> {
        self.served.iter().chain(&self.opened)
    }
}

/// Lets clients connect, where they can't yet.
pub(super) fn begin(socket: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match socket.is_listener()? {
        true => Ok(()),
        false => socket.listen(BACKLOG),
    }
}

/// Whether two addresses are different ones, and connections to one of them may be for the other: they
/// have a port in common, and one has all addresses of the machine.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |address: SocketAddr| address.ip().is_unspecified();
    one != other && one.port() == other.port() && (covers(one) || covers(other))
}

/// Prepares sockets of this address that were opened elsewhere.
pub(super) fn adopt(
    address: SocketAddr,
    sockets: Vec<TcpListener>,
) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    let failed = |source| BindError::Socket { address, source };
    for socket in &sockets {
        prepare(&SockRef::from(socket)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
    }
    Ok((address, sockets))
}

/// The same with the address that they really have.
pub(super) fn adopt_all(
    configured: SocketAddr,
    sockets: Vec<TcpListener>,
) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    let real = sockets.first().map(TcpListener::local_addr).transpose();
    let failed = |source| BindError::Socket {
        address: configured,
        source,
    };
    adopt(real.map_err(failed)?.unwrap_or(configured), sockets)
}

/// Sets what connections inherit. A client that has closed its side may still read, so it is probed:
/// the kernel of a client that has gone answers with a reset, at the latest when it forgets the
/// connection (on Linux a minute after the close).
fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE),
    )
}

/// Checks that nobody else has the port. Sockets with SO_REUSEPORT share it with any other
/// program of the same user that sets it, too, such as a gateway that was forgotten; half of the
/// requests would go there. So the port is first bound without that option.
fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    socket(address)?.bind(&SockAddr::from(address))
}

/// A socket that shares its address with others of this process.
fn shared(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(address))?;
    prepare(&socket)?;
    Ok(socket)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for old connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn explain(address: SocketAddr, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        io::ErrorKind::PermissionDenied => BindError::Denied { address },
        io::ErrorKind::AddrNotAvailable => BindError::NotHere { address },
        // A kernel without IPv6.
        _ if source.raw_os_error() == Some(libc::EAFNOSUPPORT) => BindError::NotHere { address },
        _ => BindError::Socket { address, source },
    }
}
