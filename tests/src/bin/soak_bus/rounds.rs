//! Rounds of faults that a seed draws: in each, something is harmed for a while, purges go on
//! at every node, and when it is over each purge must have come to every node, no answer may
//! have been older than was promised, and no client may have got an error.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::random::Random;
use e2e::setup::Setup;

use crate::broker::{SoakBroker, TransportKind};
use crate::harm::{self, DrawnFaults, InjectedFault, RoundClock};
use crate::nodes::{STATED, SoakNodes};
use crate::purges::{PurgeTurns, steadily};
use crate::readers::{PageReaders, ReadTally};
use crate::tier::{RunningTier, TierKind};
use crate::truth::PromisedVersions;

/// Between two purges while something is harmed.
const PACE: Duration = Duration::from_millis(20);
/// What the node that takes most may take more at the end than after the first tenth, in MiB.
const GROWTH: u64 = 24;
/// Of a round.
const NODES: usize = 3;

/// How many rounds, and which faults.
#[derive(Clone, Copy, Debug)]
pub struct RoundPlan {
    pub rounds: usize,
    pub seed: u64,
    pub drawn: DrawnFaults,
    pub pages: usize,
}

/// All rounds of one fault.
#[derive(Default)]
pub struct FaultRounds {
    rounds: usize,
    purges: usize,
    /// From the end of the fault until a purge of each node was confirmed by all others.
    arrived_after: Vec<Duration>,
    /// From the end of the fault until every node said `serving`.
    serving_after: Vec<Duration>,
    reads: u64,
    stale: u64,
    failed: u64,
    unconfirmed: usize,
    old: usize,
}

/// All rounds over one transport with one second tier.
pub struct FaultMatrix {
    kind: TransportKind,
    tier: TierKind,
    seed: u64,
    cells: BTreeMap<InjectedFault, FaultRounds>,
    /// Resident MiB of the node that takes most, after each tenth.
    memory: Vec<u64>,
}

/// What a round needs.
struct RoundStage {
    // First, so that it ends before what it reads from.
    readers: PageReaders,
    turns: PurgeTurns,
    nodes: SoakNodes,
    broker: SoakBroker,
    tier: RunningTier,
    clock: RoundClock,
}

/// Plays all rounds over one transport with one second tier.
pub async fn play(kind: TransportKind, tier_kind: TierKind, plan: RoundPlan) -> FaultMatrix {
    let truth = PromisedVersions::new(NODES, plan.pages);
    let broker = SoakBroker::start(kind).await.with_lines(NODES).await;
    let tier = RunningTier::start(tier_kind).await;
    let clock = RoundClock::of(plan.drawn);
    let complete = |name: &str, setup: Setup| clock.setup(setup.top("cache", &tier.yaml(name)));
    let nodes = SoakNodes::with_setups(NODES, &broker, &truth, complete).await;
    let addresses = nodes.all.iter().map(|node| node.address).collect();
    let readers = PageReaders::start(&truth, addresses);
    let turns = PurgeTurns::new();
    let mut stage = RoundStage {
        broker,
        tier,
        clock,
        nodes,
        turns,
        readers,
    };
    // A node that has just joined confirms nothing for two heartbeats, which is no fault's doing.
    stage.nodes.have_confirmed().await;
    let harms = InjectedFault::of(kind, tier_kind, plan.drawn);
    let mut random = Random::new(plan.seed);
    let mut matrix = FaultMatrix {
        kind,
        tier: tier_kind,
        seed: plan.seed,
        cells: BTreeMap::new(),
        memory: Vec::new(),
    };
    for number in 1..=plan.rounds {
        let harm = harms[random.below(harms.len() as u64) as usize];
        let span = harm::span(&mut random);
        let cell = matrix.cells.entry(harm).or_default();
        let before = (cell.stale, cell.failed, cell.unconfirmed, cell.old);
        stage.round(harm, span, &truth, cell).await;
        if before != (cell.stale, cell.failed, cell.unconfirmed, cell.old) {
            eprintln!(
                "round {number} of seed {} over {} with {}: {} for {span:?} did harm",
                plan.seed,
                kind.name(),
                tier_kind.name(),
                harm.name()
            );
        }
        if number % plan.rounds.div_ceil(10) == 0 {
            let most = stage.nodes.memory().into_iter().max().unwrap_or_default();
            matrix.memory.push(most >> 20);
        }
    }
    matrix
}

impl RoundStage {
    async fn round(
        &mut self,
        harm: InjectedFault,
        span: Duration,
        truth: &PromisedVersions,
        cell: &mut FaultRounds,
    ) {
        truth.hold();
        let before = self.readers.tally();
        let (purges, back) = match harm {
            InjectedFault::NodeKilled | InjectedFault::NodeOlderFile => {
                self.node_killed(harm, span, truth).await
            }
            _ => {
                let away = harm.for_a_while(&mut self.broker, &mut self.tier, &self.clock, span);
                let nodes = &self.nodes;
                steadily(&nodes.all, &nodes.keys, truth, &self.turns, PACE, away).await
            }
        };
        self.nodes.have_told().await;
        let told = back.elapsed();
        let confirmed = self.nodes.have_confirmed().await;
        let arrived = back.elapsed();
        if arrived > STATED && harm != InjectedFault::NodeKilled {
            eprintln!(
                "{} for {span:?}: every node had told everything {told:?} after its end, and all \
                 had confirmed it after {arrived:?}",
                harm.name()
            );
        }
        cell.arrived_after.push(arrived);
        let serving = self.nodes.whole().await;
        cell.serving_after.push(serving - back);
        truth.release_at_once();
        let (_, old) = crate::shown(&self.nodes, truth).await;
        self.nodes.origin.forget();
        cell.add(purges, self.readers.tally().since(before));
        cell.unconfirmed += usize::from(!confirmed);
        cell.old += old;
    }

    async fn node_killed(
        &mut self,
        harm: InjectedFault,
        span: Duration,
        truth: &PromisedVersions,
    ) -> (usize, Instant) {
        let last = self.nodes.all.len() - 1;
        // What the victim has taken and not told would go with it.
        self.nodes.have_told().await;
        self.readers.moved(last, None);
        self.nodes.kill_the_last().await;
        if harm == InjectedFault::NodeOlderFile {
            self.tier.bring_back_older_file(&self.nodes.names[last]);
        }
        let (nodes, turns) = (&self.nodes, &self.turns);
        let sleeping = tokio::time::sleep(span);
        let (first, ()) = steadily(&nodes.all, &nodes.keys, truth, turns, PACE, sleeping).await;
        let coming = nodes.start_the_last();
        let (second, victim) = steadily(&nodes.all, &nodes.keys, truth, turns, PACE, coming).await;
        let back = Instant::now();
        self.readers.moved(last, Some(victim.address));
        self.nodes.all.push(victim);
        (first + second, back)
    }
}

impl FaultRounds {
    fn add(&mut self, purges: usize, read: ReadTally) {
        self.rounds += 1;
        self.purges += purges;
        self.reads += read.reads;
        self.stale += read.stale;
        self.failed += read.failed;
    }

    /// Rounds, purges, times in seconds and what went wrong, as columns.
    fn text(&mut self) -> String {
        let [arrived, serving] = [&mut self.arrived_after, &mut self.serving_after].map(|times| {
            times.sort_unstable();
            let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64();
            format!("{:.2} | {:.2}", at(50), at(100))
        });
        format!(
            "{} | {} | {arrived} | {serving} | {} | {} | {} | {} | {}",
            self.rounds,
            self.purges,
            self.reads,
            self.stale,
            self.unconfirmed,
            self.old,
            self.failed
        )
    }
}

impl FaultMatrix {
    /// The table of this transport with this second tier, and the memory of its nodes.
    pub fn text(&mut self) -> String {
        let mut text =
            "| transport | second tier | fault | rounds | purges meanwhile | on all nodes after s, median | most | serving after s, median | most | reads | stale | rounds without receipts | old at the end | failed |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        let (transport, tier) = (self.kind.name(), self.tier.name());
        for (harm, cell) in &mut self.cells {
            let (harm, cell) = (harm.name(), cell.text());
            text.push_str(&format!("| {transport} | {tier} | {harm} | {cell} |\n"));
        }
        text.push_str(&format!(
            "\n{transport} with {tier}, seed {}: MiB of the largest node after each tenth: {:?}\n",
            self.seed, self.memory
        ));
        text
    }

    /// What was claimed and does not hold.
    pub fn failures(&self) -> Vec<String> {
        let place = format!("{} with {}", self.kind.name(), self.tier.name());
        let mut failures = Vec::new();
        for (harm, cell) in &self.cells {
            let wrong = [
                (cell.stale, "stale answers"),
                (cell.failed, "failed reads"),
                (cell.unconfirmed as u64, "rounds without receipts"),
                (cell.old as u64, "old pages at the end of rounds"),
            ];
            for (count, what) in wrong.into_iter().filter(|(count, _)| *count > 0) {
                failures.push(format!("{place}, {}: {count} {what}", harm.name()));
            }
        }
        let grown = self.memory.last().zip(self.memory.first());
        let grown = grown.map_or(0, |(last, first)| last.saturating_sub(*first));
        if grown > GROWTH {
            failures.push(format!("{place}: memory grew: {:?} MiB", self.memory));
        }
        failures
    }
}
