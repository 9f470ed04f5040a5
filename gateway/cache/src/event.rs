//! What happens in the cache, as one enum that feeds metrics and logs.
//!
//! The names come from the library whose engine this crate brings to HTTP. Emitting an event costs
//! one counter: no lock and no allocation. A log line is only written at level debug.

use std::time::Duration;

use crate::breaker::CircuitState;
use crate::record::CorruptRecord;

mod counters;

pub use counters::CacheEventCounters;

/// One event in the cache.
#[derive(Clone, Copy, Debug)]
pub enum CacheEvent<'a> {
    Hit,
    Miss,
    /// Stored in L1.
    Set {
        key: &'a [u8],
        bytes: usize,
    },
    /// A purge of a key, of a URL, or of something wider was requested.
    Purge(PurgeSelectorKind),
    /// A request made something invalid that is held here.
    Invalidated,
    /// A load began, succeeded (after this time), failed, or took too long.
    LoaderStart {
        key: &'a [u8],
    },
    LoaderSuccess {
        key: &'a [u8],
        took: Duration,
    },
    LoaderError {
        key: &'a [u8],
        detail: &'a str,
    },
    LoaderTimeout {
        key: &'a [u8],
    },
    /// A request followed another request's load, or loaded on its own.
    InflightReuse,
    InflightBypass(UncoalescedReason),
    /// A stale copy was served.
    StaleHit(StaleReason),
    NegativeSet {
        key: &'a [u8],
    },
    /// A load that a purge had overtaken was not stored.
    Overtaken {
        key: &'a [u8],
    },
    /// A response carried more tags than are kept.
    TagsDropped(usize),
    Evicted(Eviction),
    /// A look-up in the second tier for a request.
    SecondTierLookup(L2LookupOutcome),
    /// A write to the second tier and its outcome.
    Wrote(L2WriteOutcome),
    /// A node asked for a lease, or lost one.
    Leased(L2LeaseOutcome),
    /// A record of the second tier can't be used.
    Corrupt(CorruptRecord),
    /// Purges may have been missed: everything older is hidden or in doubt.
    Gap,
    /// The circuit breaker of the second tier changed its state.
    Breaker(CircuitState),
}

/// How far a purge reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeSelectorKind {
    Key,
    Url,
    Prefix,
    Pattern,
    Tag,
    Group,
    Route,
    All,
}

/// Why a request did not follow a flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UncoalescedReason {
    HitForMiss,
    Private,
    OtherVariant,
    WaitTimeout,
    /// Flights were lost, or were of other variants, too often.
    Unsettled,
    /// It asks for a range of a response that only its own client gets.
    Range,
}

/// Why a stale copy was served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StaleReason {
    /// Within `stale_while_revalidate`, or after a soft purge.
    Revalidating,
    LoaderError,
    SoftTimeout,
    /// The key's load failed a short time ago.
    Backoff,
    /// The client sent `max-stale`.
    Tolerated,
    /// The route is under maintenance, and serves what is stored.
    Maintenance,
}

/// Why L1 removed an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eviction {
    Expired,
    Size,
}

/// The outcome of a look-up in the second tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L2LookupOutcome {
    Hit,
    Miss,
    /// The store failed.
    Error,
    /// The store was not asked: it failed a short time ago, is too busy, or its purge log is not
    /// known.
    Skipped,
    Corrupt,
    /// Born in a generation of the purge log that has ended.
    Outdated,
    /// Born after purges that are not known here yet.
    Ahead,
}

/// The outcome of a write to the second tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L2WriteOutcome {
    Stored,
    /// A later record is there.
    Overtaken,
    /// Another node has the lease now.
    NotOwner,
    TooLarge,
    Error,
    Skipped,
}

/// The outcome of asking for a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L2LeaseOutcome {
    Owned,
    Busy,
    /// The store did not answer.
    Unknown,
    /// It was not renewed in time.
    Lost,
    /// Another node's load took longer than this node waits.
    Timeout,
}

macro_rules! names {
    ($type:ty { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            const NAMES: &'static [&'static str] = &[$($name),+];

            /// The name in metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

names!(PurgeSelectorKind { Key => "key", Url => "url", Prefix => "prefix", Pattern => "pattern", Tag => "tag", Group => "group", Route => "route", All => "all" });
names!(UncoalescedReason { HitForMiss => "hit-for-miss", Private => "private", OtherVariant => "other-variant", WaitTimeout => "wait-timeout", Unsettled => "unsettled", Range => "range" });
names!(StaleReason { Revalidating => "revalidating", LoaderError => "loader-error", SoftTimeout => "soft-timeout", Backoff => "backoff", Tolerated => "max-stale", Maintenance => "maintenance" });
names!(Eviction { Expired => "expired", Size => "size" });
names!(L2LookupOutcome { Hit => "hit", Miss => "miss", Error => "error", Skipped => "skipped", Corrupt => "corrupt", Outdated => "outdated", Ahead => "ahead" });
names!(L2WriteOutcome { Stored => "stored", Overtaken => "overtaken", NotOwner => "not-owner", TooLarge => "too-large", Error => "error", Skipped => "skipped" });
names!(L2LeaseOutcome { Owned => "owned", Busy => "busy", Unknown => "unknown", Lost => "lost", Timeout => "timeout" });
