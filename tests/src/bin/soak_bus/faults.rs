//! What is done to the bus while purges go on: the broker is killed and comes back, stands
//! still and goes on, a node is killed and comes back.

use std::time::{Duration, Instant};

use crate::broker::SoakBroker;
use crate::nodes::SoakNodes;
use crate::purges::{PurgeTurns, steadily};
use crate::readers::{PageReaders, ReadTally};
use crate::truth::PromisedVersions;

/// How long the broker is away.
const SPAN: Duration = Duration::from_secs(10);
/// Between two purges meanwhile.
const PACE: Duration = Duration::from_millis(20);
/// How long the node that was killed is away.
const AWAY: Duration = Duration::from_secs(5);

/// What one of them came to.
pub struct FaultOutcome {
    pub name: &'static str,
    /// Purges that were taken from its beginning until all was whole again.
    pub purges: usize,
    /// From the broker's or the node's return until every node heard and had told everything.
    pub whole_after: Duration,
    /// Whether each purge came to every node that lived.
    pub arrived: bool,
    pub read: ReadTally,
}

/// All three, one after the other.
pub async fn all(
    broker: &mut SoakBroker,
    nodes: &mut SoakNodes,
    truth: &PromisedVersions,
    turns: &PurgeTurns,
    readers: &PageReaders,
) -> Vec<FaultOutcome> {
    let killed = broker_away(true, broker, nodes, truth, turns, readers).await;
    let frozen = broker_away(false, broker, nodes, truth, turns, readers).await;
    let node = node_away(nodes, truth, turns, readers).await;
    vec![killed, frozen, node]
}

async fn broker_away(
    kill: bool,
    broker: &mut SoakBroker,
    nodes: &SoakNodes,
    truth: &PromisedVersions,
    turns: &PurgeTurns,
    readers: &PageReaders,
) -> FaultOutcome {
    truth.settled().await;
    truth.hold();
    let before = readers.tally();
    let away = async {
        match kill {
            true => broker.killed_for(SPAN).await,
            false => broker.frozen_for(SPAN).await,
        }
    };
    let (mut purges, back) = steadily(&nodes.all, &nodes.keys, truth, turns, PACE, away).await;
    // Nothing more is purged: what waits has to go without a push.
    let whole = nodes.whole().await;
    truth.release();
    let arrived = nodes.all_arrived().await;
    truth.settled().await;
    let calm = tokio::time::sleep(Duration::from_secs(2));
    purges += steadily(&nodes.all, &nodes.keys, truth, turns, PACE, calm)
        .await
        .0;
    truth.settled().await;
    FaultOutcome {
        name: if kill {
            "broker SIGKILL"
        } else {
            "broker SIGSTOP"
        },
        purges,
        whole_after: whole - back,
        arrived: arrived && nodes.all_arrived().await,
        read: readers.tally().since(before),
    }
}

/// Purges of the victim end before: those that it has taken and not told go with it.
async fn node_away(
    nodes: &mut SoakNodes,
    truth: &PromisedVersions,
    turns: &PurgeTurns,
    readers: &PageReaders,
) -> FaultOutcome {
    truth.settled().await;
    let last = nodes.all.len() - 1;
    let before = readers.tally();
    let calm = tokio::time::sleep(Duration::from_secs(1));
    let (early, ()) = steadily(&nodes.all[..last], &nodes.keys, truth, turns, PACE, calm).await;
    // What it takes from here on is awaited when it is back.
    truth.hold();
    readers.moved(last, None);
    nodes.kill_the_last().await;
    let sleeping = tokio::time::sleep(AWAY);
    let living = &nodes.all[..last];
    let (while_away, ()) = steadily(living, &nodes.keys, truth, turns, PACE, sleeping).await;
    let coming = nodes.start_the_last();
    let (meanwhile, victim) = steadily(living, &nodes.keys, truth, turns, PACE, coming).await;
    let back = Instant::now();
    readers.moved(last, Some(victim.address));
    nodes.all.push(victim);
    let whole = nodes.whole().await;
    truth.release();
    truth.settled().await;
    FaultOutcome {
        name: "node SIGKILL",
        purges: early + while_away + meanwhile,
        whole_after: whole - back,
        arrived: nodes.all_arrived().await,
        read: readers.tally().since(before),
    }
}
