//! Purges in the log of a store.

use super::place::{LogNumber, LogPlace};

/// A purge in the form that the log holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LoggedPurge {
    /// The text of a [`PurgeStatement`](crate::purge::PurgeStatement), which for an operator's
    /// purge is that of its [`Selector`](crate::purge::Selector).
    pub selector: String,
    pub soft: bool,
}

/// A purge that reaches nothing. It is appended to get a number from the log.
pub fn nothing() -> LoggedPurge {
    LoggedPurge {
        selector: "route:".to_owned(),
        soft: false,
    }
}

/// A purge with its place in the order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PurgeLogEntry {
    /// The first number that it stands for: a purge that reaches nothing may stand for several.
    pub since: LogNumber,
    pub number: LogNumber,
    pub purge: LoggedPurge,
}

/// A range of the purge log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PurgeLogRange {
    /// Random, made when the log was begun. A different value means that the old log was lost.
    pub generation: u64,
    pub newest: LogNumber,
    /// False: some purges after the requested number are not there any more.
    pub whole: bool,
    /// In ascending order.
    pub purges: Vec<PurgeLogEntry>,
    /// What the store found wrong with the log in this call. If it was more than single purges, the
    /// store has begun a new generation.
    pub fault: Option<LogFault>,
}

/// Why a purge log, or a part of it, is not trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFault {
    /// It is gone, or a new one has begun.
    Lost,
    /// It ends before what a node has read of it, holds other purges there, or is of a generation
    /// that had ended: the store came back with an older state.
    RolledBack,
    /// It has numbers that a log of ours can't have.
    Numbers,
    /// Something of another type is stored in its place.
    Foreign,
    /// Its generation was not made by a node that knows the secret.
    Replayed,
    /// Purges between two numbers are missing.
    Missing,
    /// A purge does not have the right form, or not the seal of a node that knows the secret.
    Unsealed,
}

impl PurgeLogRange {
    /// The place of its newest purge.
    pub fn end(&self) -> LogPlace {
        LogPlace {
            generation: self.generation,
            order: self.newest.order(),
        }
    }
}

impl LogFault {
    pub const ALL: [Self; 7] = [
        Self::Lost,
        Self::RolledBack,
        Self::Numbers,
        Self::Foreign,
        Self::Replayed,
        Self::Missing,
        Self::Unsealed,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::RolledBack => "rolled-back",
            Self::Numbers => "numbers",
            Self::Foreign => "foreign",
            Self::Replayed => "replayed",
            Self::Missing => "missing",
            Self::Unsealed => "unsealed",
        }
    }

    /// The sentence for the log.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Lost => "it is gone, or another node has begun a new one",
            Self::RolledBack => {
                "the store came back with an older state (a crash, a failover, a restored backup), \
                 so that purges which this node had read there are gone; a new log was begun"
            }
            Self::Numbers => "its numbers are not plausible",
            Self::Foreign => "its key holds a value of another type",
            Self::Replayed => "its generation was not made with this seal_key",
            Self::Missing => "purges between two numbers are missing",
            Self::Unsealed => {
                "a purge does not have the form or the seal of the purges that these nodes write"
            }
        }
    }
}
