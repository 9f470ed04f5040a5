//! Sockets that were open before this process began: of a `.socket` unit, or kept by the service
//! manager since an earlier process. A listener whose address one of them has is served on it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use socket2::{Socket, Type};

use super::BindError;

/// Sockets that were inherited and that no listener has taken yet.
#[derive(Default)]
pub struct InheritedSockets {
    sockets: Vec<InheritedSocket>,
}

struct InheritedSocket {
    socket: Socket,
    kind: Type,
    address: SocketAddr,
    name: String,
}

/// How the names of sockets begin that an earlier process had kept.
const KEPT: &str = "lamina_";

/// The name under which the sockets of a listener are kept. It may have no colon.
pub fn kept_name(address: SocketAddr) -> String {
    format!("{KEPT}{}", address.to_string().replace(':', "_"))
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
        })
    }

    /// The TCP sockets of this address.
    pub(super) fn take_streams(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        self.take(address, Type::STREAM).map(Into::into).collect()
    }

    /// The UDP sockets of this address.
    pub(super) fn take_datagrams(&mut self, address: SocketAddr) -> Vec<UdpSocket> {
        self.take(address, Type::DGRAM).map(Into::into).collect()
    }

    fn take(&mut self, address: SocketAddr, kind: Type) -> impl Iterator<Item = Socket> + use<> {
        let wanted = |one: &mut InheritedSocket| one.kind == kind && one.address == address;
        let taken: Vec<_> = self.sockets.extract_if(.., wanted).collect();
        taken.into_iter().map(|one| one.socket)
    }

    /// The names of kept sockets whose listeners are gone; they are closed.
    ///
    /// # Errors
    /// If there is another socket that no listener has.
    pub fn finish(self) -> Result<Vec<String>, BindError> {
        let mut gone = Vec::new();
        for one in self.sockets {
            if !one.name.starts_with(KEPT) {
                return Err(BindError::NoListener {
                    address: one.address,
                    name: one.name,
                });
            }
            gone.push(one.name);
        }
        gone.sort_unstable();
        gone.dedup();
        Ok(gone)
    }
}
