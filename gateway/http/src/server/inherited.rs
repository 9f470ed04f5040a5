//! Sockets that were open before this process began: of a `.socket` unit, kept by the service
//! manager since an earlier process, or handed over by the process before ([`super::handed`]). A
//! listener whose address one of them has is served on it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Socket, Type};

use super::bind_error::BindError;
use super::handed::{HandedPort, SocketPurpose};
use super::port::speaks_http3;
use super::quic::passage::EarlierProcess;
use super::socket::{OwnAddresses, overlap};
use super::unix::{self, SocketFile};
use crate::config::ListenerConfig;
use crate::endpoint::{Endpoint, SocketMode};

/// Sockets that were inherited and that no listener has taken yet.
#[derive(Default)]
pub struct InheritedSockets {
    sockets: Vec<InheritedSocket>,
    /// What the process before has handed over and no listener has taken yet.
    handed: Vec<HandedPort>,
    /// Where the listeners are that have taken some of that.
    taken: Vec<Endpoint>,
}

struct InheritedSocket {
    socket: Socket,
    kind: Type,
    address: SocketAddr,
    name: String,
}

/// The sockets that a listener has inherited.
#[derive(Default)]
pub(super) struct ListenerInheritance {
    pub(super) streams: Vec<TcpListener>,
    pub(super) datagrams: Vec<UdpSocket>,
    /// Processes that still have connections on them.
    pub(super) earlier: Vec<EarlierProcess>,
}

impl ListenerInheritance {
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.datagrams.is_empty()
    }
}

/// How the names of sockets begin that an earlier process had kept.
const KEPT: &str = "lamina_";

/// The name under which the sockets of a listener are kept. It may have no colon.
pub fn kept_name(address: SocketAddr) -> String {
    format!("{KEPT}{}", address.to_string().replace(':', "_"))
}

impl InheritedSocket {
    /// Whether an earlier process had it kept.
    fn was_kept(&self) -> bool {
        self.name.starts_with(KEPT)
    }
}

impl InheritedSockets {
    /// Looks at descriptors with their names.
    ///
    /// # Errors
    /// If one is no socket of TCP or UDP with an address.
    pub fn of(descriptors: impl Iterator<Item = (OwnedFd, String)>) -> Result<Self, BindError> {
        let sockets = descriptors.map(|(descriptor, name)| {
            let socket = Socket::from(descriptor);
            let no_use = |name: &str| BindError::Inherited {
                name: name.to_owned(),
            };
            let kind = socket.r#type().map_err(|_| no_use(&name))?;
            let address = socket.local_addr().ok().and_then(|known| known.as_socket());
            let address = address.ok_or_else(|| no_use(&name))?;
            let listens = kind == Type::DGRAM || socket.is_listener().unwrap_or(false);
            match listens {
                true => Ok(InheritedSocket {
                    socket,
                    kind,
                    address,
                    name,
                }),
                false => Err(no_use(&name)),
            }
        });
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
            handed: Vec::new(),
            taken: Vec::new(),
        })
    }

    /// Those that the process before has handed over, which closes them only when they are in use
    /// here.
    pub fn handed(ports: Vec<HandedPort>) -> Self {
        Self {
            sockets: Vec::new(),
            handed: ports,
            taken: Vec::new(),
        }
    }

    /// The addresses of TCP that no listener has taken yet: the process before serves on those that it
    /// has handed over, and those that were kept are closed in [`finish`](Self::finish).
    pub(super) fn addresses_in_use(&self) -> OwnAddresses {
        let handed = self.handed.iter().filter_map(|one| match &one.bound {
            Endpoint::Tcp(address) => Some(*address),
            Endpoint::Unix(_) => None,
        });
        let kept = self.sockets.iter();
        let kept = kept.filter(|one| one.kind == Type::STREAM && one.was_kept());
        OwnAddresses {
            served: handed.collect(),
            opened: kept.map(|one| one.address).collect(),
        }
    }

    /// Names the inherited socket that is in the way of a listener, if one is.
    pub(super) fn explain(&self, error: BindError) -> BindError {
        let BindError::InUse { address } = error else {
            return error;
        };
        let in_the_way = |one: &&InheritedSocket| {
            one.kind == Type::STREAM && !one.was_kept() && overlap(address, one.address)
        };
        match self.sockets.iter().find(in_the_way) {
            Some(one) => BindError::NoListener {
                address: one.address,
                name: one.name.clone(),
            },
            None => BindError::InUse { address },
        }
    }

    /// The listeners that use what was handed over, as the process before knows them.
    pub fn taken(&self) -> &[Endpoint] {
        &self.taken
    }

    /// The sockets that a listener for clients can use: those with its address, and of UDP only if it
    /// speaks HTTP/3.
    pub(super) fn take_clients(&mut self, listener: &ListenerConfig) -> ListenerInheritance {
        let address = listener.address;
        match self.take_handed(&Endpoint::Tcp(address), SocketPurpose::Clients) {
            Some(handed) => ListenerInheritance {
                streams: handed.streams.into_iter().map(TcpListener::from).collect(),
                datagrams: handed.datagrams.into_iter().map(UdpSocket::from).collect(),
                earlier: handed.earlier,
            },
            None => ListenerInheritance {
                streams: self.take(address, Type::STREAM).map(Into::into).collect(),
                datagrams: match speaks_http3(listener) {
                    true => self.take(address, Type::DGRAM).map(Into::into).collect(),
                    false => Vec::new(),
                },
                earlier: Vec::new(),
            },
        }
    }

    /// The TCP sockets of the admin listener, if it is configured with this address.
    pub(super) fn take_admin(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        match self.take_handed(&Endpoint::Tcp(address), SocketPurpose::Admin) {
            Some(handed) => handed.streams.into_iter().map(TcpListener::from).collect(),
            None => self.take(address, Type::STREAM).map(Into::into).collect(),
        }
    }

    /// The Unix socket at this path, with its file, which gets this mode.
    pub(super) fn take_unix(
        &mut self,
        path: &Path,
        mode: SocketMode,
    ) -> Result<Option<(UnixListener, SocketFile)>, BindError> {
        let endpoint = Endpoint::Unix(path.to_owned());
        let handed = self.take_handed(&endpoint, SocketPurpose::Admin);
        let taken = handed.and_then(|mut handed| Some((handed.streams.pop()?, handed.lock?)));
        let adopted = taken.map(|(listener, lock)| unix::adopt(path, mode, listener.into(), lock));
        adopted.transpose()
    }

    /// What was handed over for a listener: of those that were configured alike, the first one, or
    /// what had this address for the other purpose. That is gone for the process before, as any
    /// listener whose address nobody has.
    fn take_handed(&mut self, configured: &Endpoint, purpose: SocketPurpose) -> Option<HandedPort> {
        let is_wanted = |one: &HandedPort| {
            one.purpose == purpose && (one.configured == *configured || one.bound == *configured)
        };
        let has_its_address = |one: &HandedPort| one.bound == *configured;
        let mut handed = self.handed.iter();
        let at = handed.clone().position(is_wanted);
        let at = at.or_else(|| handed.position(has_its_address))?;
        let handed = self.handed.remove(at);
        if handed.purpose == purpose {
            self.taken.push(handed.bound.clone());
        }
        Some(handed)
    }

    fn take(&mut self, address: SocketAddr, kind: Type) -> impl Iterator<Item = Socket> + use<> {
        let wanted = |one: &mut InheritedSocket| one.kind == kind && one.address == address;
        let taken: Vec<_> = self.sockets.extract_if(.., wanted).collect();
        taken.into_iter().map(|one| one.socket)
    }

    /// The names of kept sockets whose listeners are gone; they are closed, and so are those that
    /// were handed over in vain.
    ///
    /// # Errors
    /// If there is another socket that no listener has.
    pub fn finish(self) -> Result<Vec<String>, BindError> {
        let mut gone = Vec::new();
        for one in self.sockets {
            if !one.was_kept() {
                let (address, name) = (one.address, one.name);
                return Err(match one.kind {
                    Type::DGRAM => BindError::NoHttp3 { address, name },
                    _ => BindError::NoListener { address, name },
                });
            }
            gone.push(one.name);
        }
        gone.sort_unstable();
        gone.dedup();
        Ok(gone)
    }
}
