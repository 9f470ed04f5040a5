//! Where a target is reached: at one address, at those of a name, or at a socket of this machine.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::names::ResolvedName;

/// Where a target is reached.
#[derive(Clone)]
pub(super) enum TargetAddresses {
    Fixed(SocketAddr),
    /// All addresses of a name are the same server.
    Named(NamedAddresses),
    /// A Unix domain socket.
    Socket(Arc<Path>),
}

/// The addresses of a name, with the port of the target.
#[derive(Clone)]
pub(super) struct NamedAddresses {
    name: Arc<ResolvedName>,
    port: u16,
    /// How many connections were opened, so that each begins with another address.
    opened: Arc<AtomicUsize>,
}

/// Where a connection may be opened to now.
pub(super) enum ReachableAddresses<'a> {
    Internet(Vec<SocketAddr>),
    Socket(&'a Path),
}

impl TargetAddresses {
    pub(super) fn named(name: Arc<ResolvedName>, port: u16) -> Self {
        Self::Named(NamedAddresses {
            name,
            port,
            opened: Arc::default(),
        })
    }

    /// The name that is resolved for it.
    pub(super) fn name(&self) -> Option<&Arc<ResolvedName>> {
        match self {
            Self::Named(named) => Some(&named.name),
            Self::Fixed(_) | Self::Socket(_) => None,
        }
    }

    /// Where to connect to now. For a name that has never been answered this waits for the first
    /// answer, for `limit` at most.
    ///
    /// # Errors
    /// Why no address is known.
    pub(super) async fn reachable(
        &self,
        limit: Duration,
    ) -> Result<ReachableAddresses<'_>, String> {
        match self {
            Self::Fixed(address) => Ok(ReachableAddresses::Internet(vec![*address])),
            Self::Socket(path) => Ok(ReachableAddresses::Socket(path)),
            Self::Named(named) => {
                let mut addresses = named.name.addresses(limit).await?;
                // IPv6 comes first (RFC 6724 §2.1), each family from another address each time.
                addresses.sort_unstable_by_key(|ip| (ip.is_ipv4(), *ip));
                let begin = named.opened.fetch_add(1, Relaxed);
                let v6 = addresses.partition_point(IpAddr::is_ipv6);
                let (six, four) = addresses.split_at_mut(v6);
                for family in [six, four] {
                    let count = family.len().max(1);
                    family.rotate_left(begin % count);
                }
                let addresses = addresses.into_iter();
                let addresses = addresses.map(|ip| SocketAddr::new(ip, named.port));
                Ok(ReachableAddresses::Internet(addresses.collect()))
            }
        }
    }
}

/// Names are equal if they are the same question.
impl PartialEq for TargetAddresses {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(a), Self::Fixed(b)) => a == b,
            (Self::Socket(a), Self::Socket(b)) => a == b,
            (Self::Named(a), Self::Named(b)) => Arc::ptr_eq(&a.name, &b.name) && a.port == b.port,
            _ => false,
        }
    }
}

impl fmt::Debug for TargetAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => write!(f, "{address}"),
            Self::Named(named) => write!(f, "{}:{}", named.name.question().name, named.port),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
