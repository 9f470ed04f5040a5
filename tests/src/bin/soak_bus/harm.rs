//! What is done to a broker, to the nodes' second tier, to their clocks or to one node in a round, for a while,
//! and then undone.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::bail;
use e2e::random::Random;
use e2e::setup::Setup;
use e2e::wall_clock::{self, WallClock};

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
    /// JetStream: SIGKILL, then started again without a stream.
    BrokerEmptied,
    /// JetStream: SIGKILL, then started again with what it had the last time that it was killed
    /// so.
    BrokerOlder,
    /// SIGKILL, then started again without data.
    StoreKilled,
    /// SIGKILL, then started again with a dump from the round's beginning.
    StoreOlder,
    StoreFrozen,
    StoreCut,
    /// Redis: `noeviction` and no room. A disk: not a byte of room.
    StoreFull,
    /// Redis: a replica of nobody who answers, so that every write is refused. A disk: no file can
    /// be changed, made or removed.
    StoreReadOnly,
    /// `allkeys-random` and room for a little.
    StoreEvicting,
    /// FLUSHALL.
    StoreFlushed,
    /// SIGKILL to the last node, then started again with what is on its disk.
    NodeKilled,
    /// The same, with the file that its disk had the last time that it was killed so.
    NodeOlderFile,
    /// The wall clock of all nodes leaps ahead, and back again.
    ClockAhead,
    /// The wall clock of all nodes leaps back, and ahead again.
    ClockBack,
}

/// Which of them are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrawnFaults {
    /// Those of the broker and of nodes.
    Bus,
    /// Those of the second tier and of nodes.
    Store,
    All,
    /// Those of wall clocks and of nodes: each look at the clock costs such nodes more, so their
    /// times are no others'.
    Clock,
}

/// Seconds by which a clock leaps.
const HOUR: i64 = 3_600;
/// The least and the most that a fault lasts, in milliseconds.
const SPAN: [u64; 2] = [50, 1_500];

impl FromStr for DrawnFaults {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "bus" => Ok(Self::Bus),
            "store" => Ok(Self::Store),
            "all" => Ok(Self::All),
            "clock" => Ok(Self::Clock),
            _ => bail!("{text:?} can't be harmed; {}", crate::options::USAGE),
        }
    }
}

impl InjectedFault {
    const ALL: [Self; 19] = [
        Self::BrokerKilled,
        Self::BrokerFrozen,
        Self::BrokerCut,
        Self::OneNodeParted,
        Self::BrokerBlocked,
        Self::BrokerEmptied,
        Self::BrokerOlder,
        Self::StoreKilled,
        Self::StoreOlder,
        Self::StoreFrozen,
        Self::StoreCut,
        Self::StoreFull,
        Self::StoreReadOnly,
        Self::StoreEvicting,
        Self::StoreFlushed,
        Self::NodeKilled,
        Self::NodeOlderFile,
        Self::ClockAhead,
        Self::ClockBack,
    ];

    /// Those that there are for a transport and a second tier.
    pub fn of(kind: TransportKind, tier: TierKind, drawn: DrawnFaults) -> Vec<Self> {
        let of_brokers = matches!(drawn, DrawnFaults::Bus | DrawnFaults::All);
        let of_stores = matches!(drawn, DrawnFaults::Store | DrawnFaults::All);
        let is_rabbitmq = matches!(
            kind,
            TransportKind::Rabbitmq | TransportKind::RabbitmqDurable
        );
        let possible = |harm: &Self| match harm {
            Self::NodeKilled => true,
            Self::BrokerBlocked => of_brokers && is_rabbitmq,
            // The others keep nothing, or can't be told to come back with less.
            Self::BrokerEmptied | Self::BrokerOlder => {
                of_brokers && kind == TransportKind::Jetstream
            }
            Self::BrokerKilled | Self::BrokerFrozen | Self::BrokerCut | Self::OneNodeParted => {
                of_brokers
            }
            Self::StoreFull | Self::StoreReadOnly => of_stores && tier != TierKind::None,
            Self::NodeOlderFile => of_stores && tier == TierKind::Disk,
            Self::ClockAhead | Self::ClockBack => drawn == DrawnFaults::Clock,
            Self::StoreKilled
            | Self::StoreOlder
            | Self::StoreFrozen
            | Self::StoreCut
            | Self::StoreEvicting
            | Self::StoreFlushed => of_stores && tier == TierKind::Redis,
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
            Self::BrokerEmptied => "broker killed, empty",
            Self::BrokerOlder => "broker killed, older",
            Self::StoreKilled => "store killed, empty",
            Self::StoreOlder => "store killed, older dump",
            Self::StoreFrozen => "store frozen",
            Self::StoreCut => "store cut off",
            Self::StoreFull => "store full",
            Self::StoreReadOnly => "store read-only",
            Self::StoreEvicting => "store evicting",
            Self::StoreFlushed => "store flushed",
            Self::NodeKilled => "node killed",
            Self::NodeOlderFile => "node killed, older file",
            Self::ClockAhead => "clocks an hour ahead",
            Self::ClockBack => "clocks an hour back",
        }
    }

    /// Harms for `span` and undoes it; answers when the server answers again. A node that is
    /// killed is the caller's.
    pub async fn for_a_while(
        self,
        broker: &mut SoakBroker,
        tier: &mut RunningTier,
        clock: &RoundClock,
        span: Duration,
    ) -> Instant {
        match self {
            Self::BrokerKilled => return broker.killed_for(span).await,
            Self::BrokerFrozen => return broker.frozen_for(span).await,
            Self::BrokerEmptied => return broker.emptied_for(span).await,
            Self::BrokerOlder => return broker.older_after(span).await,
            Self::BrokerCut => broker.lines.cut_for(span).await,
            Self::OneNodeParted => broker.lines.parted_for(span).await,
            Self::BrokerBlocked => broker.blocked_for(span).await,
            Self::ClockAhead => clock.leaps_for(HOUR, span).await,
            Self::ClockBack => clock.leaps_for(-HOUR, span).await,
            Self::NodeKilled | Self::NodeOlderFile => {
                unreachable!("a node is killed by who holds it")
            }
            _ => tier.harmed_for(self, span).await,
        }
        Instant::now()
    }
}

/// The wall clock of all nodes, where faults of clocks are drawn.
pub enum RoundClock {
    True,
    /// With the library that makes it.
    Set(WallClock, PathBuf),
}

impl RoundClock {
    pub fn of(drawn: DrawnFaults) -> Self {
        match drawn {
            DrawnFaults::Clock => {
                let library = wall_clock::library().expect("libfaketime is installed");
                Self::Set(WallClock::new(0), library)
            }
            DrawnFaults::Bus | DrawnFaults::Store | DrawnFaults::All => Self::True,
        }
    }

    /// The setup of a node that goes by it.
    pub fn setup(&self, setup: Setup) -> Setup {
        match self {
            Self::True => setup,
            Self::Set(clock, library) => clock.of(&setup, library),
        }
    }

    async fn leaps_for(&self, seconds: i64, span: Duration) {
        let Self::Set(clock, _) = self else {
            unreachable!("it is drawn where the nodes' clock can be set");
        };
        clock.set(seconds);
        tokio::time::sleep(span).await;
        clock.set(0);
    }
}

/// How long a fault lasts.
pub fn span(random: &mut Random) -> Duration {
    let [least, most] = SPAN;
    Duration::from_millis(least + random.below(most - least))
}
