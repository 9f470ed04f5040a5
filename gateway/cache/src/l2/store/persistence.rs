//! What of the last moments is there again after a store's server has crashed.

use std::time::Duration;

/// How a server keeps its changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// Each change goes into a file that is appended to.
    Appended(FsyncPolicy),
    /// The whole is written now and then, by these rules.
    Snapshots(Vec<SnapshotRule>),
    /// Nothing is kept: after a crash it is empty.
    Nothing,
}

/// When an appended change is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FsyncPolicy {
    BeforeTheAnswer,
    EachSecond,
    /// When the kernel writes it.
    ByTheKernel,
}

/// A snapshot is written when there were so many changes, so long after the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotRule {
    pub after: Duration,
    pub changes: u64,
}

/// What a server says of how it keeps what it was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Durability {
    pub persistence: Persistence,
    /// Replicas that must be connected for it to take a write.
    pub min_replicas: u64,
}
