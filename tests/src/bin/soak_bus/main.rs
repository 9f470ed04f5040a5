//! Many nodes over a real bus, each transport in turn: that no answer is older than was
//! promised, that every purge comes to every node, and what that takes.
//!
//! For each transport: purges that are each awaited on all nodes; with `--faults` the broker is
//! killed and frozen and a node is killed ([`faults`]); purges without waiting; with
//! `--flood` events that are none of ours ([`flood`]); at the end every page is looked at on
//! every node. With `--rounds` it plays rounds of faults that a seed draws instead, on the broker,
//! on a second tier and on nodes ([`rounds`]). A reader a node all the while ([`readers`]), judged by [`truth`]. Prints
//! Markdown; fails when one claim does not hold.

// A panic here is a soak that ended, with a place and a message.
#![allow(clippy::unwrap_used)]

mod broker;
mod faults;
mod flood;
mod harm;
mod nodes;
mod options;
mod purges;
mod readers;
mod report;
mod rounds;
mod tier;
mod truth;

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::gateway::Gateway;

use broker::{SoakBroker, TransportKind};
use nodes::SoakNodes;
use options::SoakOptions;
use purges::PurgeTurns;
use readers::{HOST, PageReaders};
use report::TransportReport;
use truth::PromisedVersions;

/// What a refresh takes at most, of a page that was purged softly.
const REFRESH: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(options::USAGE) {
        return Ok(());
    }
    let options = SoakOptions::from_arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if options.rounds > 0 {
        return runtime.block_on(matrix(&options));
    }
    let mut reports = Vec::new();
    for kind in &options.transports {
        let began = Instant::now();
        reports.push(runtime.block_on(soak(*kind, &options)));
        eprintln!("{}: {:.0?}", kind.name(), began.elapsed());
    }
    println!("{}", report::text(&reports));
    let failures: Vec<String> = reports.iter().flat_map(TransportReport::failures).collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Rounds of faults over each transport with each second tier.
async fn matrix(options: &SoakOptions) -> anyhow::Result<()> {
    let plan = rounds::RoundPlan {
        rounds: options.rounds,
        seed: options.seed,
        drawn: options.drawn,
        pages: options.pages,
    };
    let mut failures = Vec::new();
    for kind in &options.transports {
        for tier in &options.tiers {
            let began = Instant::now();
            let mut matrix = rounds::play(*kind, *tier, plan).await;
            println!("{}", matrix.text());
            failures.extend(matrix.failures());
            eprintln!(
                "{} with {}: {:.0?}",
                kind.name(),
                tier.name(),
                began.elapsed()
            );
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

async fn soak(kind: TransportKind, options: &SoakOptions) -> TransportReport {
    let mut broker = SoakBroker::start(kind).await;
    let truth = PromisedVersions::new(options.nodes, options.pages);
    let mut nodes = SoakNodes::start(options.nodes, &broker, &truth).await;
    let memory = nodes.memory();
    let addresses = nodes.all.iter().map(|node| node.address).collect();
    let readers = PageReaders::start(&truth, addresses);
    let (turns, start) = (PurgeTurns::new(), readers.tally());
    let half = options.purges / 2;
    let receipts = purges::with_receipts(&nodes, &truth, &turns, half).await;
    let receipts_read = readers.tally().since(start);
    let reads_a_second = receipts_read.reads as f64 / (receipts_read.at - start.at).as_secs_f64();
    let faults = match options.faults {
        true => faults::all(&mut broker, &mut nodes, &truth, &turns, &readers).await,
        false => Vec::new(),
    };
    let rest = options.purges - half;
    let pipelined = purges::pipelined(&nodes, &truth, &turns, rest).await;
    truth.settled().await;
    let shown = shown(&nodes, &truth).await;
    let flood = match options.flood {
        0 => None,
        count => Some(flood::flood(count, &broker, &nodes, &readers).await),
    };
    TransportReport {
        kind,
        receipts,
        receipts_read,
        pipelined,
        faults,
        flood,
        shown,
        read: readers.tally().since(start),
        memory: [memory, nodes.memory()],
        reads_a_second,
    }
}

/// Pages of all nodes, and how many are not the newest. Who asks sets off the refresh of what
/// was purged softly, so each is asked for until it is what it should be.
async fn shown(nodes: &SoakNodes, truth: &PromisedVersions) -> (usize, usize) {
    let mut old = 0;
    for (number, node) in nodes.all.iter().enumerate() {
        for page in 0..truth.size() {
            let (path, newest) = (truth.path(page), truth.pages.version(truth.path(page)));
            let begun = Instant::now();
            let mut shown = version(node, path).await;
            while shown != newest && begun.elapsed() < REFRESH {
                tokio::time::sleep(Duration::from_millis(5)).await;
                shown = version(node, path).await;
            }
            if shown != newest {
                eprintln!("OLD: {path} on node {number}: {shown} of {newest}");
                old += 1;
            }
        }
    }
    (nodes.all.len() * truth.size(), old)
}

async fn version(node: &Gateway, path: &str) -> u64 {
    let answer = node.client().request(path).host(HOST).send().await;
    answer.text().parse().unwrap()
}
