//! The nodes' second tier in rounds of faults: none, a disk each, or a Redis that they share.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use e2e::redis::Redis;
use e2e::small_disk::SmallDisk;
use e2e::wire::Wire;
use tempfile::TempDir;

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
    /// A disk with a file for each node, and a file of the last one from a former round.
    Disk(SmallDisk, Option<TempDir>),
    Redis {
        server: Redis,
        line: Wire,
    },
}

/// Room for a dozen of the pages, so that most are read from the second tier.
const SMALL_L1: &str = "l1: {max_bytes: 16KiB, max_object_bytes: 4KiB}";
/// MiB of the disk.
const DISK: u64 = 96;
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
                let disk = SmallDisk::mount_ext4(DISK);
                Self::Disk(disk.expect("the rights to mount a small disk"), None)
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
            Self::Disk(disk, _) => {
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

    /// Puts the file that a node which does not run had at the last call in the place of the one
    /// that it has.
    pub fn bring_back_older_file(&mut self, node: &str) {
        let Self::Disk(disk, before) = self else {
            unreachable!("files are on disks");
        };
        let kept = tempfile::tempdir().unwrap();
        copy_files_of(node, disk.path(), kept.path());
        if let Some(older) = before.replace(kept) {
            copy_files_of(node, older.path(), disk.path());
        }
    }

    /// Harms it for `span`, then undoes that.
    pub async fn harmed_for(&mut self, harm: InjectedFault, span: Duration) {
        let sleep = tokio::time::sleep(span);
        let (server, line) = match self {
            Self::None => unreachable!("{harm:?} is drawn where there is a second tier"),
            Self::Disk(disk, _) => {
                match harm {
                    InjectedFault::StoreFull => {
                        disk.fill();
                        sleep.await;
                        disk.make_room();
                    }
                    InjectedFault::StoreReadOnly => {
                        disk.seal(disk.path());
                        sleep.await;
                        disk.unseal(disk.path());
                    }
                    _ => unreachable!("{harm:?} is no harm of a disk"),
                }
                return;
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

/// Copies the file of a node's second tier, and what lies beside it.
fn copy_files_of(node: &str, from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(node) {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
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
