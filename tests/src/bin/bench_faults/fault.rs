//! The columns of the table: what happens to one target of three.

use std::time::Duration;

use crate::client::FaultLoad;
use crate::target::TargetBehaviour;

/// Requests a second: a third of them is a target's share.
pub const PER_SECOND: u32 = 200;
pub const SPAN: Duration = Duration::from_secs(10);
/// The fault lasts from here, after the start of the load,
pub const BEGINS: Duration = Duration::from_secs(2);
/// to here.
pub const ENDS: Duration = Duration::from_secs(7);

/// A way in which the second target fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetFault {
    Refused,
    Hangs,
    BlackHole,
    Fast500,
    Slow,
    /// With POST: sending it again may do a thing twice.
    PostReset,
}

impl TargetFault {
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::Hangs,
        Self::BlackHole,
        Self::Fast500,
        Self::Slow,
        Self::PostReset,
    ];

    /// On the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Hangs => "hangs",
            Self::BlackHole => "black-hole",
            Self::Fast500 => "fast-500",
            Self::Slow => "slow",
            Self::PostReset => "post-reset",
        }
    }

    /// The heading of its column.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Hangs => "hangs",
            Self::BlackHole => "black hole",
            Self::Fast500 => "fast 500",
            Self::Slow => "slow 1 s",
            Self::PostReset => "POST + reset: failed / twice",
        }
    }

    pub fn behaviour(self) -> TargetBehaviour {
        match self {
            Self::Refused => TargetBehaviour::Refuses,
            Self::Hangs => TargetBehaviour::Hangs,
            Self::BlackHole => TargetBehaviour::BlackHole,
            Self::Fast500 => TargetBehaviour::Fails(500),
            Self::Slow => TargetBehaviour::Slow,
            Self::PostReset => TargetBehaviour::Resets,
        }
    }

    pub fn load(self) -> FaultLoad {
        FaultLoad {
            method: if self == Self::PostReset {
                "POST"
            } else {
                "GET"
            },
            per_second: PER_SECOND,
            span: SPAN,
            path: |number| format!("/{number}"),
        }
    }

    /// What Lamina's upstream has beside its defaults in this column, as lines of YAML.
    pub fn lamina(self) -> &'static str {
        match self {
            Self::Hangs | Self::BlackHole => "    timeouts: { first_byte: 1s }\n",
            Self::Fast500 => "    retry: { on: [5xx] }\n    health: { passive: { on: [5xx] } }\n",
            Self::Refused | Self::Slow | Self::PostReset => "",
        }
    }

    /// What Lamina must keep to (issue 16): failed, slow, twice; none where nothing is said.
    pub fn demands(self) -> [Option<u64>; 3] {
        match self {
            Self::Refused => [Some(0), Some(0), None],
            Self::Hangs => [Some(0), Some(5), None],
            Self::BlackHole => [None, None, None],
            Self::Fast500 => [Some(3), None, None],
            Self::Slow => [None, Some(7), None],
            Self::PostReset => [None, None, Some(0)],
        }
    }
}
