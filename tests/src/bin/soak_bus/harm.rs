//! What is done to a broker, to the nodes' second tier or to one node in a round, for a while,
//! and then undone.

use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::bail;
use e2e::random::Random;

use crate::broker::{SoakBroker, TransportKind};
use crate::tier::{RunningTier, TierKind};

/// A fault, as it is drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum InjectedFault {
    /// SIGKILL, then started again with what it had on its disk.
    BrokerKilled,
    /// SIGSTOP, then SIGCONT.
    BrokerFrozen,
    /// All connections end, and new ones do so too.
    BrokerCut,
    /// What one node sends and is sent stays on its way; connections stand.
    OneNodeParted,
    /// RabbitMQ's memory alarm: publishers are blocked.
    BrokerBlocked,
    /// SIGKILL, then started again without data.
    StoreKilled,
    /// SIGKILL, then started again with a dump from the round's beginning.
    StoreOlder,
    StoreFrozen,
    StoreCut,
    /// Redis: `noeviction` and no room. A disk: not a byte of room.
    StoreFull,
    /// A replica of nobody who answers: every write is refused.
    StoreReadOnly,
    /// `allkeys-random` and room for a little.
    StoreEvicting,
    /// FLUSHALL.
    StoreFlushed,
    /// SIGKILL to the last node, then started again with what is on its disk.
    NodeKilled,
}

/// Which of them are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrawnFaults {
    /// Those of the broker and of nodes.
    Bus,
    /// Those of the second tier and of nodes.
    Store,
    All,
}

/// The least and the most that a fault lasts, in milliseconds.
const SPAN: [u64; 2] = [50, 1_500];

impl FromStr for DrawnFaults {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "bus" => Ok(Self::Bus),
            "store" => Ok(Self::Store),
            "all" => Ok(Self::All),
            _ => bail!("{text:?} can't be harmed; {}", crate::options::USAGE),
        }
    }
}

impl InjectedFault {
    const ALL: [Self; 14] = [
        Self::BrokerKilled,
        Self::BrokerFrozen,
        Self::BrokerCut,
        Self::OneNodeParted,
        Self::BrokerBlocked,
        Self::StoreKilled,
        Self::StoreOlder,
        Self::StoreFrozen,
        Self::StoreCut,
        Self::StoreFull,
        Self::StoreReadOnly,
        Self::StoreEvicting,
        Self::StoreFlushed,
        Self::NodeKilled,
    ];

    /// Those that there are for a transport and a second tier.
    pub fn of(kind: TransportKind, tier: TierKind, drawn: DrawnFaults) -> Vec<Self> {
        let possible = |harm: &Self| match harm {
            Self::NodeKilled => true,
            Self::BrokerBlocked => {
                drawn != DrawnFaults::Store
                    && matches!(
                        kind,
                        TransportKind::Rabbitmq | TransportKind::RabbitmqDurable
                    )
            }
            Self::BrokerKilled | Self::BrokerFrozen | Self::BrokerCut | Self::OneNodeParted => {
                drawn != DrawnFaults::Store
            }
            Self::StoreFull => drawn != DrawnFaults::Bus && tier != TierKind::None,
            _ => drawn != DrawnFaults::Bus && tier == TierKind::Redis,
        };
        Self::ALL.into_iter().filter(possible).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::BrokerKilled => "broker killed",
            Self::BrokerFrozen => "broker frozen",
            Self::BrokerCut => "broker cut off from all nodes",
            Self::OneNodeParted => "one node's packets lost",
            Self::BrokerBlocked => "broker's memory alarm",
            Self::StoreKilled => "store killed, empty",
            Self::StoreOlder => "store killed, older dump",
            Self::StoreFrozen => "store frozen",
            Self::StoreCut => "store cut off",
            Self::StoreFull => "store full",
            Self::StoreReadOnly => "store read-only",
            Self::StoreEvicting => "store evicting",
            Self::StoreFlushed => "store flushed",
            Self::NodeKilled => "node killed",
        }
    }

    /// Harms for `span` and undoes it; answers when the server answers again. A node that is
    /// killed is the caller's.
    pub async fn for_a_while(
        self,
        broker: &mut SoakBroker,
        tier: &mut RunningTier,
        span: Duration,
    ) -> Instant {
        match self {
            Self::BrokerKilled => return broker.killed_for(span).await,
            Self::BrokerFrozen => return broker.frozen_for(span).await,
            Self::BrokerCut => broker.lines.cut_for(span).await,
            Self::OneNodeParted => broker.lines.parted_for(span).await,
            Self::BrokerBlocked => broker.blocked_for(span).await,
            Self::NodeKilled => unreachable!("a node is killed by who holds it"),
            _ => tier.harmed_for(self, span).await,
        }
        Instant::now()
    }
}

/// How long a fault lasts.
pub fn span(random: &mut Random) -> Duration {
    let [least, most] = SPAN;
    Duration::from_millis(least + random.below(most - least))
}
