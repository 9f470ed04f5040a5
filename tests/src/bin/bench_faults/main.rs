//! `bench_faults`: what a fault of one target of three costs those who ask, with Lamina and
//! with five other proxies; and what a change of a name costs ([`names`]).
//!
//! Each cell of the first table is a run of its own: three origins of this program ([`target`]), a
//! proxy before them, and an open-loop client ([`client`]) that sends 200 requests a second
//! for 10 s; the second origin has the fault from second 2 to 7 ([`fault`]). Counted are
//! requests that failed, that took 500 ms or more, and, with POST, those that the origins have
//! read twice ([`tally`]). Lamina runs with its defaults, save for the lines in
//! [`fault::TargetFault::lamina`]; the others with theirs and tuned ([`peers`]). Then Lamina alone
//! ([`trials`]). What others on the machine have spoilt is measured again ([`rounds`]). Prints
//! Markdown, and fails when Lamina does not keep to issue 16.

mod arrivals;
mod client;
mod fault;
mod installed;
mod lamina;
mod names;
mod options;
mod origins;
mod peers;
mod report;
mod request;
mod rounds;
mod tally;
mod target;
mod trials;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep_until};

use fault::{BEGINS, ENDS, TargetFault};
use installed::InstalledProxies;
use lamina::Lamina;
use options::{FaultBenchOptions, NamesWanted};
use origins::ThreeTargets;
use report::{FaultBenchReport, FaultCell, MeasuredProxy};
use rounds::MeasuredRounds;
use tally::ExchangeTally;
use target::TargetBehaviour;

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(options::USAGE) {
        return Ok(());
    }
    let options = FaultBenchOptions::from_arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(&options))?;
    println!("{}", report.text());
    let broken = report.broken_demands();
    ensure!(
        broken.is_empty(),
        "Lamina does not keep to: {}",
        broken.join("; ")
    );
    Ok(())
}

async fn measure(options: &FaultBenchOptions) -> anyhow::Result<FaultBenchReport> {
    let mut report = FaultBenchReport::default();
    report.versions.push(lamina::version());
    if !options.faults.is_empty() {
        measure_faults(options, &mut report).await?;
    }
    if options.names == NamesWanted::Yes {
        measure_names(options, &mut report).await?;
    }
    Ok(report)
}

/// The table of faults, and what Lamina must keep to beside it.
async fn measure_faults(
    options: &FaultBenchOptions,
    report: &mut FaultBenchReport,
) -> anyhow::Result<()> {
    for subject in options.subjects() {
        let program = program(subject, options, &mut report.versions);
        let mut cells = Vec::new();
        for fault in &options.faults {
            cells.push(cell(subject, *fault, program.as_deref(), options.rounds).await);
        }
        report.rows.push((subject, cells));
    }
    if options.wants("alone") {
        let home = tempfile::tempdir()?;
        report.trials.extend(trials::run(home.path()).await?);
    }
    Ok(())
}

/// The table of names, and what Lamina must keep to beside it.
async fn measure_names(
    options: &FaultBenchOptions,
    report: &mut FaultBenchReport,
) -> anyhow::Result<()> {
    names::check_tools()?;
    for subject in options.named_subjects() {
        let program = program(subject, options, &mut report.versions);
        let row = names::row(subject, program.as_deref(), options.rounds).await;
        report.names.push(row);
    }
    if options.wants("alone") {
        let home = tempfile::tempdir()?;
        report.trials.extend(names::trials::run(home.path()).await?);
    }
    Ok(())
}

/// The program of a row, or why the row is left out; its version joins the others.
fn program(
    subject: MeasuredProxy,
    options: &FaultBenchOptions,
    versions: &mut Vec<String>,
) -> Result<PathBuf, String> {
    let found = find(subject, options).map_err(|problem| format!("left out: {problem:#}"));
    let (program, version) = found?;
    if !versions.contains(&version) {
        versions.push(version);
    }
    Ok(program)
}

/// The program of a row and its version.
fn find(subject: MeasuredProxy, options: &FaultBenchOptions) -> anyhow::Result<(PathBuf, String)> {
    match subject {
        MeasuredProxy::Lamina => Ok((e2e::cli::binary(), lamina::version())),
        MeasuredProxy::Peer(peer, _) => InstalledProxies::in_folder(&options.peers)?.program(peer),
    }
}

async fn cell(
    subject: MeasuredProxy,
    fault: TargetFault,
    program: Result<&Path, &String>,
    rounds: usize,
) -> FaultCell {
    let what = format!("{} {}", subject.name(), fault.word());
    let run = async |program: &Path| run(subject, fault, program).await;
    FaultCell {
        fault,
        rounds: MeasuredRounds::measure(&what, program, rounds, run).await,
    }
}

/// One run.
async fn run(
    subject: MeasuredProxy,
    fault: TargetFault,
    program: &Path,
) -> anyhow::Result<ExchangeTally> {
    let home = tempfile::tempdir().context("a folder for the proxy's files")?;
    let mut origins = ThreeTargets::start().await?;
    let server = match subject {
        MeasuredProxy::Lamina => {
            Lamina::start(&origins.addresses(), fault.lamina(), home.path())?.server
        }
        MeasuredProxy::Peer(peer, tuning) => {
            peers::start((peer, tuning), program, &origins, home.path())?
        }
    };
    client::settle(server.address).await?;
    origins.arrivals.forget();
    let began = Instant::now();
    let sending = tokio::spawn(client::send(server.address, fault.load(), began));
    sleep_until(began + BEGINS).await;
    origins.second().behave(fault.behaviour()).await?;
    sleep_until(began + ENDS).await;
    origins.second().behave(TargetBehaviour::Answers).await?;
    let exchanges = sending.await.context("the client")?;
    Ok(ExchangeTally::of(&exchanges, &origins.arrivals, BEGINS))
}
