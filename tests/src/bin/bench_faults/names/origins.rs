//! The origins that a name leads to, each with its own count of what has reached it.

use std::net::SocketAddr;
use std::sync::Arc;

use e2e::name_server::loopback;

use crate::arrivals::ArrivalCounts;
use crate::target::FaultyTarget;

/// Two origins at the same port of two addresses.
pub struct AddressPair {
    pub old: FaultyTarget,
    pub new: FaultyTarget,
}

/// Which of the two has read a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskedAddress {
    /// The one that the name leads to at first and in the end, be it alone or not.
    Old,
    New,
    Neither,
}

impl AddressPair {
    /// Starts both.
    ///
    /// # Errors
    /// When they don't get the same port.
    pub async fn start() -> anyhow::Result<Self> {
        let old = counted(SocketAddr::new(loopback(2), 0)).await?;
        let new = counted(SocketAddr::new(loopback(3), old.address.port())).await?;
        Ok(Self { old, new })
    }

    pub fn port(&self) -> u16 {
        self.old.address.port()
    }

    /// Who has read the request for this path.
    pub fn asked(&self, path: &str) -> AskedAddress {
        match (self.old.has_read(path), self.new.has_read(path)) {
            (true, _) => AskedAddress::Old,
            (false, true) => AskedAddress::New,
            (false, false) => AskedAddress::Neither,
        }
    }
}

/// So many origins at the same address.
///
/// # Errors
/// When there is no free port.
pub async fn beside_each_other(count: usize) -> anyhow::Result<Vec<FaultyTarget>> {
    let mut targets = Vec::new();
    for _ in 0..count {
        targets.push(counted(SocketAddr::new(loopback(2), 0)).await?);
    }
    Ok(targets)
}

/// A target that shares its count with no other.
async fn counted(address: SocketAddr) -> anyhow::Result<FaultyTarget> {
    FaultyTarget::start_at(address, Arc::new(ArrivalCounts::default())).await
}
