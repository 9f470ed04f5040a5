//! The nodes' second tier in rounds of faults: none, a disk each, or a Redis that they share.

use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use e2e::redis::Redis;
use e2e::small_disk::SmallDisk;
use e2e::wire::Wire;

use crate::harm::InjectedFault;

/// Which second tier the nodes have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TierKind {
    None,
    Disk,
    Redis,
}

/// It, as it runs.
pub enum RunningTier {
    None,
    /// A disk with a folder for each node.
    Disk(SmallDisk),
    Redis {
        server: Redis,
        line: Wire,
    },
}

/// Room for a dozen of the pages, so that most are read from the second tier.
const SMALL_L1: &str = "l1: {max_bytes: 16KiB, max_object_bytes: 4KiB}";
/// MiB of the disk.
const DISK: u32 = 96;
/// What an evicting Redis has beyond what it uses.
const ROOM: u64 = 256 << 10;

impl TierKind {
    pub const ALL: [Self; 3] = [Self::None, Self::Disk, Self::Redis];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Disk => "disk",
            Self::Redis => "redis",
        }
    }
}

impl FromStr for TierKind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match Self::ALL.into_iter().find(|kind| kind.name() == text) {
            Some(kind) => Ok(kind),
            None => bail!("{text:?} is no second tier; {}", crate::options::USAGE),
        }
    }
}

impl RunningTier {
    pub async fn start(kind: TierKind) -> Self {
        match kind {
            TierKind::None => Self::None,
            TierKind::Disk => {
                let disk = SmallDisk::mount(DISK);
                Self::Disk(disk.expect("the rights to mount a small disk"))
            }
            TierKind::Redis => {
                let server = Redis::start().await;
                let line = Wire::to(server.port).await;
                Self::Redis { server, line }
            }
        }
    }

    /// What a node has as its `cache`.
    pub fn yaml(&self, node: &str) -> String {
        match self {
            Self::None => "{}".to_owned(),
            Self::Disk(disk) => {
                let path = disk.path().join(node);
                format!(
                    "{{{SMALL_L1}, l2: {{disk: {{path: \"{}\"}}}}}}",
                    path.display()
                )
            }
            Self::Redis { line, .. } => {
                format!(
                    "{{{SMALL_L1}, l2: {{redis: {{url: \"redis://{}\"}}}}}}",
                    line.address
                )
            }
        }
    }

    /// Harms it for `span`, then undoes that.
    pub async fn harmed_for(&mut self, harm: InjectedFault, span: Duration) {
        let sleep = tokio::time::sleep(span);
        let (server, line) = match self {
            Self::None => unreachable!("{harm:?} is drawn where there is a second tier"),
            Self::Disk(disk) => {
                assert_eq!(
                    harm,
                    InjectedFault::StoreFull,
                    "is all that is drawn for a disk"
                );
                disk.fill();
                sleep.await;
                return disk.make_room();
            }
            Self::Redis { server, line } => (server, line),
        };
        match harm {
            InjectedFault::StoreKilled => {
                server.kill();
                server.forget();
                sleep.await;
                server.restart().await;
            }
            InjectedFault::StoreOlder => {
                server.cli(&["SAVE"]).await;
                sleep.await;
                server.kill();
                server.restart().await;
                server.forget();
            }
            InjectedFault::StoreFrozen => {
                server.freeze();
                sleep.await;
                server.thaw();
            }
            InjectedFault::StoreCut => line.cut_for(span).await,
            InjectedFault::StoreFull => {
                set(
                    server,
                    &[("maxmemory-policy", "noeviction"), ("maxmemory", "1")],
                )
                .await;
                sleep.await;
                set(server, &[("maxmemory", "0")]).await;
            }
            InjectedFault::StoreReadOnly => {
                server.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
                sleep.await;
                server.cli(&["REPLICAOF", "NO", "ONE"]).await;
            }
            InjectedFault::StoreEvicting => {
                let room = (used(server).await + ROOM).to_string();
                set(
                    server,
                    &[("maxmemory-policy", "allkeys-random"), ("maxmemory", &room)],
                )
                .await;
                sleep.await;
                set(server, &[("maxmemory", "0")]).await;
            }
            InjectedFault::StoreFlushed => {
                server.cli(&["FLUSHALL"]).await;
                sleep.await;
            }
            _ => unreachable!("{harm:?} is no harm of a store"),
        }
    }
}

async fn set(server: &Redis, values: &[(&str, &str)]) {
    for (name, value) in values {
        let said = server.cli(&["CONFIG", "SET", name, value]).await;
        assert_eq!(said, "OK", "{name} {value}");
    }
}

async fn used(server: &Redis) -> u64 {
    let said = server.cli(&["INFO", "memory"]).await;
    let mut lines = said.lines();
    let line = lines.find_map(|line| line.trim().strip_prefix("used_memory:"));
    line.expect("used_memory").parse().expect("bytes")
}
