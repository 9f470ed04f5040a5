//! Why a listener could not be opened.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cidr::CidrError;
use crate::tls::TlsSetupError;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{address} is in use: stop the program that listens there, or choose another port")]
    InUse { address: SocketAddr },
    #[error(
        "{address} needs a privilege: choose a port of 1024 or higher, or grant \
         CAP_NET_BIND_SERVICE"
    )]
    Denied { address: SocketAddr },
    #[error("{address} is not an address of this machine: try 0.0.0.0 or 127.0.0.1")]
    NotHere { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Socket {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(
        "{} is in use: stop the program that listens there, or choose another path",
        path.display()
    )]
    UnixInUse { path: PathBuf },
    #[error("{} exists and is not a socket: remove it, or choose another path", path.display())]
    NoSocket { path: PathBuf },
    #[error("cannot create the Unix socket {}: does its folder exist, and does this user have the \
             right to write there?", path.display())]
    UnixSocket { path: PathBuf, source: io::Error },
    #[error("listener {address}: trusted_proxies")]
    Network {
        address: SocketAddr,
        source: CidrError,
    },
    #[error(
        "{address} over UDP, for HTTP/3: {source}; stop the program that uses the port, or choose another one"
    )]
    Quic {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("listener {address}")]
    Tls {
        address: SocketAddr,
        /// The place of the listener in the configuration. None if it was opened alone.
        listener: Option<usize>,
        source: TlsSetupError,
    },
    #[error(
        "the inherited descriptor {name:?} is no listening TCP socket and no UDP socket: expected \
         ListenStream=ADDRESS:PORT or ListenDatagram=ADDRESS:PORT in the .socket unit"
    )]
    Inherited { name: String },
    #[error(
        "the inherited socket {name:?} on {address} belongs to no listener of the configuration: add \
         a listener with this address, or take it out of the .socket unit"
    )]
    NoListener { address: SocketAddr, name: String },
    #[error(
        "the inherited UDP socket {name:?} on {address} belongs to no listener of the configuration \
         that speaks HTTP/3: add one with this address, or take the ListenDatagram= out of the \
         .socket unit"
    )]
    NoHttp3 { address: SocketAddr, name: String },
    #[error("cannot start the runtime of a worker thread")]
    Runtime { source: io::Error },
}

impl BindError {
    /// The error with the place of the listener in the configuration.
    pub fn of_listener(self, n: usize) -> Self {
        match self {
            Self::Tls {
                address, source, ..
            } => Self::Tls {
                address,
                listener: Some(n),
                source,
            },
            other => other,
        }
    }
}
