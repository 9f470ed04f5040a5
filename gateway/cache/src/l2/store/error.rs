//! Why a store has not done what it was asked for.

/// Why a store did not do what was requested.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached.
    #[error("not reachable: {0}")]
    Down(String),
    #[error("no answer in time")]
    Timeout,
    /// It refused, with an explanation of its own.
    #[error("refused: {1}")]
    Refused(StoreRefusal, String),
    /// What it holds under our name belongs to somebody else: it is of another type, or never
    /// expires.
    #[error("not written by Lamina: {0}")]
    Foreign(String),
    /// What it holds is damaged.
    #[error("damaged: {0}")]
    Corrupt(String),
    #[error("{size} bytes, over the limit of {limit}")]
    TooLarge { size: usize, limit: usize },
}

/// Why a store refuses; each reason needs another remedy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreRefusal {
    OutOfMemory,
    /// It is a replica: another server is the master now.
    ReadOnly,
    /// Too few replicas follow it (`min-replicas-to-write`).
    NoReplicas,
    /// It can't save its snapshots, and stops writes for that.
    Unsaved,
    /// It has just started and is still loading its data.
    Loading,
    /// The password is missing or wrong, or the user lacks the right.
    NoAccess,
    /// The disk, or our share of it, is full.
    DiskFull,
    /// The disk can't be read or written.
    Disk,
    Other,
}

/// Something that the server does not let us do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreRight {
    /// To run a command.
    Command(String),
    /// To reach the keys with this pattern.
    Keys(String),
    /// To hear what is published on a channel. The store works without it: nodes ask again and
    /// again for leases of which they would hear that they are free.
    Subscribe(String),
    /// To publish on a channel, with the same consequence.
    Publish(String),
}

impl StoreError {
    /// The name of this failure in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Down(_) => "down",
            Self::Timeout => "timeout",
            Self::Refused(..) => "refused",
            Self::Foreign(_) => "foreign",
            Self::Corrupt(_) => "corrupt",
            Self::TooLarge { .. } => "too-large",
        }
    }

    /// What is wrong and what to do about it, as far as that is known, and then what the store said.
    pub fn with_remedy(&self) -> String {
        let remedy = match self {
            Self::Refused(refusal, _) => refusal.remedy(),
            _ => None,
        };
        match remedy {
            Some(remedy) => format!("{remedy} ({self})"),
            None => self.to_string(),
        }
    }
}

impl StoreRefusal {
    /// What is wrong, and what an operator can do. None where only the store's own words tell.
    fn remedy(self) -> Option<&'static str> {
        match self {
            Self::OutOfMemory => Some(
                "its memory is full and nothing is evicted: raise its maxmemory, or set \
                 maxmemory-policy volatile-ttl, which evicts records and never the purge log",
            ),
            Self::ReadOnly => Some(
                "it is a replica: configure the address of the master, or of Sentinel or the \
                 Cluster, which know the master",
            ),
            Self::NoReplicas => Some(
                "fewer replicas follow it than its min-replicas-to-write asks for: start them, or \
                 lower that setting",
            ),
            Self::Unsaved => Some(
                "it can't save its snapshots and refuses writes for that: make room on its disk, or \
                 see its log",
            ),
            Self::NoAccess => Some("give its user the right that this message names"),
            Self::DiskFull => Some(
                "make room on the disk of cache.l2.disk.path, or lower cache.l2.disk.max_bytes; \
                 writing then resumes by itself",
            ),
            Self::Disk => Some("check the disk of cache.l2.disk.path"),
            Self::Loading | Self::Other => None,
        }
    }

    /// Whether purges may be refused for this reason while other writes are not. Redis takes purges
    /// while it is full, but for versions before 7.
    pub fn may_be_of_purges_alone(self) -> bool {
        match self {
            Self::DiskFull | Self::Disk | Self::ReadOnly | Self::NoReplicas | Self::Unsaved => {
                false
            }
            Self::OutOfMemory | Self::Loading | Self::NoAccess | Self::Other => true,
        }
    }

    /// Whether a refusal of one write means that all are refused.
    pub fn is_of_every_write(self) -> bool {
        matches!(
            self,
            Self::OutOfMemory | Self::ReadOnly | Self::NoReplicas | Self::Unsaved
        )
    }

    pub const ALL: [Self; 9] = [
        Self::OutOfMemory,
        Self::ReadOnly,
        Self::NoReplicas,
        Self::Unsaved,
        Self::Loading,
        Self::NoAccess,
        Self::DiskFull,
        Self::Disk,
        Self::Other,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out-of-memory",
            Self::ReadOnly => "read-only",
            Self::NoReplicas => "no-replicas",
            Self::Unsaved => "unsaved",
            Self::Loading => "loading",
            Self::NoAccess => "no-access",
            Self::DiskFull => "disk-full",
            Self::Disk => "disk",
            Self::Other => "other",
        }
    }
}
