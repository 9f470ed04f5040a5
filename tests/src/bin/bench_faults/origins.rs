//! The targets behind a proxy, with one count of what has reached them.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::arrivals::ArrivalCounts;
use crate::target::{FaultyTarget, TargetBehaviour};

/// Three targets.
pub struct ThreeTargets {
    pub targets: [FaultyTarget; 3],
    pub arrivals: Arc<ArrivalCounts>,
}

impl ThreeTargets {
    /// Starts them; all answer.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start() -> anyhow::Result<Self> {
        let arrivals = Arc::new(ArrivalCounts::default());
        let start = || FaultyTarget::start(Arc::clone(&arrivals));
        Ok(Self {
            targets: [start().await?, start().await?, start().await?],
            arrivals,
        })
    }

    pub fn addresses(&self) -> [SocketAddr; 3] {
        self.targets.each_ref().map(|target| target.address)
    }

    pub fn ports(&self) -> [u16; 3] {
        self.addresses().map(|address| address.port())
    }

    /// The one that has the fault: neither the first of a list nor the last.
    pub fn second(&mut self) -> &mut FaultyTarget {
        &mut self.targets[1]
    }

    /// All of them behave so from now on.
    ///
    /// # Errors
    /// When a port can't be taken again.
    pub async fn all(&mut self, behaviour: TargetBehaviour) -> anyhow::Result<()> {
        for target in &mut self.targets {
            target.behave(behaviour).await?;
        }
        Ok(())
    }
}
