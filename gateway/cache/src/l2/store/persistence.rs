//! Which of the last changes a store's server still has after a crash.

use std::time::Duration;

/// How a server keeps its changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// Each change is appended to a file.
    Appended(FsyncPolicy),
    /// The whole data set is written from time to time, by these rules.
    Snapshots(Vec<SnapshotRule>),
    /// Nothing is kept: after a crash the server is empty.
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

/// A snapshot is written after this time if there were at least this many changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotRule {
    pub after: Duration,
    pub changes: u64,
}

/// What a server says about how it keeps its data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Durability {
    pub persistence: Persistence,
    /// The number of replicas that must be connected for it to accept a write.
    pub min_replicas: u64,
    /// Its version, if that is too old to take purges while its memory is full.
    pub too_old_when_full: Option<String>,
}
