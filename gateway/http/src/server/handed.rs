//! The sockets of listeners on their way to the process that takes the place of this one.
//!
//! They are duplicates: both processes have them until the earlier one has closed its own, so that
//! no connection that waits in one is reset, and none is refused.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use super::quic::passage::EarlierProcess;
use super::running::RunningListeners;
use crate::endpoint::Endpoint;

/// What a listener is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketPurpose {
    Clients,
    Admin,
}

/// The sockets of one port.
#[derive(Debug)]
pub struct HandedPort {
    pub purpose: SocketPurpose,
    /// Where the configuration says that it is.
    pub configured: Endpoint,
    /// The same with the real port in place of port 0.
    pub bound: Endpoint,
    /// One for each worker that has its own.
    pub streams: Vec<OwnedFd>,
    /// Those of QUIC, in the order of their numbers in the kernel.
    pub datagrams: Vec<OwnedFd>,
    /// What holds the path of a Unix socket.
    pub lock: Option<OwnedFd>,
    /// The ways to processes that still have connections of QUIC there.
    pub earlier: Vec<EarlierProcess>,
}

impl RunningListeners {
    /// Duplicates of all sockets, for the process that takes the place of this one. `configured` is
    /// where the configuration says that a listener without settings of its own is.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn hand_over(
        &self,
        purpose: SocketPurpose,
        configured: &Endpoint,
    ) -> io::Result<Vec<HandedPort>> {
        let ports = self.ports.iter().map(|running| {
            let of_listener = running.listener.as_ref();
            let own = of_listener.map(|listener| Endpoint::Tcp(listener.address));
            let tcp = running.sockets.iter().map(AsFd::as_fd);
            let unix = running.unix.iter().map(AsFd::as_fd);
            let streams = tcp.chain(unix).map(|socket| socket.try_clone_to_owned());
            let lock = self.file.as_ref().map(|file| file.lock());
            let quic = running.quic.as_ref();
            let datagrams = quic.iter().flat_map(|quic| quic.sockets.iter());
            let datagrams = datagrams.map(|one| Ok(one.try_clone()?.into()));
            let ways = match (quic, self.threads.first()) {
                (Some(quic), Some(thread)) => quic.group.ways(thread)?,
                _ => Vec::new(),
            };
            Ok(HandedPort {
                purpose,
                configured: own.unwrap_or_else(|| configured.clone()),
                bound: running.port.endpoint.clone(),
                streams: without_duplicates(streams.collect::<io::Result<_>>()?)?,
                datagrams: datagrams.collect::<io::Result<_>>()?,
                lock: lock.transpose()?,
                earlier: ways,
            })
        });
        ports.collect()
    }
}

/// One descriptor of each socket: with more workers than sockets, some have the same one.
fn without_duplicates(sockets: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    let (mut seen, mut kept) = (HashSet::new(), Vec::new());
    for socket in sockets {
        let file = File::from(socket);
        if seen.insert(file.metadata()?.ino()) {
            kept.push(OwnedFd::from(file));
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_is_handed_over_once() {
        let open = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, two) = (open(), open());
        let addresses = |all: Vec<OwnedFd>| -> Vec<_> {
            let all = all.into_iter().map(TcpListener::from);
            all.map(|one| one.local_addr().unwrap()).collect()
        };
        let all = [&one, &two, &one, &two, &two];
        let all = all.iter().map(|one| one.try_clone().unwrap().into());
        let kept = without_duplicates(all.collect()).unwrap();
        let both = [one.local_addr().unwrap(), two.local_addr().unwrap()];
        assert_eq!(addresses(kept), both);
    }
}
