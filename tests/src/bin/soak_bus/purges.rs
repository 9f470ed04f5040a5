//! Purges: a page changes at its origin, then it is purged on one node by each selector in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::nodes::SoakNodes;
use crate::readers::HOST;
use crate::truth::{PromisedVersions, WantedVersion};

/// `all` and `route` once each in so many purges, lest nothing stays in the caches.
const RARELY: usize = 400;

/// A purge that nobody waits for and that takes longer is told: no broker may hold one up.
const SLOW: Duration = Duration::from_millis(500);

/// Which purge it is: says the selector, the page and whether it is soft.
pub struct PurgeTurns(AtomicUsize);

/// What purges with receipts took.
#[derive(Default)]
pub struct ReceiptTimes {
    /// From the purge to the last node's answer, as its receipt tells; sorted.
    pub last_node: Vec<Duration>,
    /// Receipts that lacked a node.
    pub incomplete: usize,
}

/// What purges without receipts took.
pub struct PipelinedTimes {
    pub purges: usize,
    /// Until the last was taken.
    pub taken: Duration,
    /// Until the last node had applied the last; none when that never came.
    pub applied: Option<Duration>,
}

/// A purge that is to be made.
struct PlannedPurge {
    wanted: WantedVersion,
    body: Value,
}

impl PurgeTurns {
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Changes the next page; then the purge of it.
    fn next(&self, truth: &PromisedVersions, keys: &[String]) -> PlannedPurge {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        // Coprime to the kinds, so that each page meets each selector.
        let page = turn * 7 % truth.size();
        let path = truth.path(page);
        let version = truth.pages.change(path);
        let mut body = match (turn % RARELY, turn % 5) {
            (100, _) => json!({"all": true}),
            (300, _) => json!({"route": "site"}),
            (_, 0) => json!({"tag": path}),
            (_, 1) => json!({"url": format!("http://{HOST}{path}")}),
            (_, 2) => json!({"prefix": path}),
            (_, 3) => json!({"pattern": format!("*{path}")}),
            _ => json!({"key": keys[page]}),
        };
        let soft = turn / 5 % 2 == 1;
        body["soft"] = json!(soft);
        let wanted = WantedVersion {
            page,
            version,
            soft,
        };
        PlannedPurge { wanted, body }
    }
}

/// So many purges one after the other, each awaited on all nodes.
pub async fn with_receipts(
    nodes: &SoakNodes,
    truth: &PromisedVersions,
    turns: &PurgeTurns,
    count: usize,
) -> ReceiptTimes {
    let mut latencies = ReceiptTimes::default();
    for n in 0..count {
        let at = n % nodes.all.len();
        let mut purge = turns.next(truth, &nodes.keys);
        purge.body["wait"] = json!("20s");
        let receipt = nodes.all[at].purge(purge.body).await;
        truth.promise(at, purge.wanted);
        latencies.incomplete += usize::from(receipt["peers"]["complete"] != true);
        let answers = receipt["peers"]["nodes"].as_array().expect("answers");
        let applied = answers.iter().filter(|node| node["applied"] == true);
        let mut last = 0.0_f64;
        for node in applied {
            let name = node["node"].as_str().expect("a name");
            let number = nodes.names.iter().position(|known| known == name);
            truth.promise(number.expect("one of ours"), purge.wanted);
            last = last.max(node["after_ms"].as_f64().unwrap_or_default());
        }
        latencies
            .last_node
            .push(Duration::from_secs_f64(last / 1e3));
        nodes.origin.forget();
    }
    latencies.last_node.sort_unstable();
    latencies
}

/// So many purges on all nodes at once, as quickly as the nodes take them.
pub async fn pipelined(
    nodes: &SoakNodes,
    truth: &PromisedVersions,
    turns: &PurgeTurns,
    count: usize,
) -> PipelinedTimes {
    let began = Instant::now();
    let left = AtomicUsize::new(count);
    let takes = |left: usize| left.checked_sub(1);
    join_all(nodes.all.iter().enumerate().map(async |(at, node)| {
        while left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, takes)
            .is_ok()
        {
            untold(node, at, &nodes.keys, truth, turns).await;
        }
    }))
    .await;
    let taken = began.elapsed();
    let arrived = nodes.all_arrived().await;
    nodes.origin.forget();
    PipelinedTimes {
        purges: count,
        taken,
        applied: arrived.then(|| began.elapsed()),
    }
}

/// A purge on each of `nodes` in turn at this pace, until `end` is over; how many there were.
pub async fn steadily<T>(
    nodes: &[Gateway],
    keys: &[String],
    truth: &PromisedVersions,
    turns: &PurgeTurns,
    pace: Duration,
    end: impl Future<Output = T>,
) -> (usize, T) {
    let mut end = std::pin::pin!(end);
    let mut beats = tokio::time::interval(pace);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for count in 0.. {
        tokio::select! {
            ended = &mut end => return (count, ended),
            _ = beats.tick() => {}
        }
        let at = count % nodes.len();
        untold(&nodes[at], at, keys, truth, turns).await;
    }
    unreachable!("it counts without an end")
}

async fn untold(
    node: &Gateway,
    at: usize,
    keys: &[String],
    truth: &PromisedVersions,
    turns: &PurgeTurns,
) {
    let purge = turns.next(truth, keys);
    let began = Instant::now();
    let receipt = node.purge(purge.body).await;
    if began.elapsed() > SLOW {
        eprintln!(
            "node {at} took {:.1?} for a purge: {receipt}",
            began.elapsed()
        );
    }
    truth.taken(at, purge.wanted);
}

impl ReceiptTimes {
    /// In milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let at = (self.last_node.len() as f64 * share) as usize;
        let time = self
            .last_node
            .get(at.min(self.last_node.len().saturating_sub(1)));
        time.map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

impl PipelinedTimes {
    /// Purges a second until all nodes had applied them.
    pub fn rate(&self) -> f64 {
        let applied = self.applied.map_or(0.0, |span| span.as_secs_f64());
        if applied > 0.0 {
            self.purges as f64 / applied
        } else {
            0.0
        }
    }
}
