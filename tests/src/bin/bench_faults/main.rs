//! `bench_faults`: what a fault of one target of three costs those who ask, with Lamina and
//! with five other proxies.
//!
//! Each cell of the table is a run of its own: three origins of this program ([`target`]), a
//! proxy before them, and an open-loop client ([`client`]) that sends 200 requests a second
//! for 10 s; the second origin has the fault from second 2 to 7 ([`fault`]). Counted are
//! requests that failed, that took 500 ms or more, and, with POST, those that the origins have
//! read twice ([`tally`]). Lamina runs with its defaults, save for the lines in
//! [`fault::Fault::lamina`]; the others with theirs and tuned ([`peers`]). Then Lamina alone
//! ([`trials`]). Prints Markdown, and fails when Lamina does not keep to issue 16.

mod arrivals;
mod client;
mod fault;
mod installed;
mod lamina;
mod options;
mod origins;
mod peers;
mod report;
mod request;
mod tally;
mod target;
mod trials;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep_until};

use fault::{BEGINS, ENDS, Fault};
use installed::Installed;
use lamina::Lamina;
use options::Options;
use origins::Origins;
use report::{Cell, Report, Subject};
use tally::ExchangeTally;
use target::TargetBehaviour;

/// A client that is later than this measures what else runs on the machine, and the run is
/// repeated,
const IN_TIME: Duration = Duration::from_millis(50);
/// until there are so many.
const MOST_RUNS: usize = 4;

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(options::USAGE) {
        return Ok(());
    }
    let options = Options::from_arguments()?;
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

async fn measure(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::default();
    report.versions.push(lamina::version());
    for subject in options.subjects() {
        let program = program(subject, options);
        if let (Subject::Peer(..), Ok((_, version))) = (subject, &program)
            && !report.versions.contains(version)
        {
            report.versions.push(version.clone());
        }
        let program = program.map(|(program, _)| program);
        let program = program.map_err(|problem| format!("left out: {problem:#}"));
        let mut cells = Vec::new();
        for fault in &options.faults {
            cells.push(cell(subject, *fault, program.as_deref(), options.rounds).await);
        }
        report.rows.push((subject, cells));
    }
    if options.wants("alone") {
        let home = tempfile::tempdir()?;
        report.trials = trials::run(home.path()).await?;
    }
    Ok(report)
}

/// The program of a row and its version.
fn program(subject: Subject, options: &Options) -> anyhow::Result<(PathBuf, String)> {
    match subject {
        Subject::Lamina => Ok((e2e::cli::binary(), lamina::version())),
        Subject::Peer(peer, _) => Installed::in_folder(&options.peers)?.program(peer),
    }
}

/// All rounds of a cell, or as many as succeed.
async fn cell(
    subject: Subject,
    fault: Fault,
    program: Result<&Path, &String>,
    rounds: usize,
) -> Cell {
    let mut cell = Cell {
        fault,
        tallies: Vec::new(),
        problem: program.err().cloned(),
    };
    if let Ok(program) = program {
        for _ in 0..rounds {
            match quiet_run(subject, fault, program).await {
                Ok(tally) => cell.tallies.push(tally),
                Err(problem) => cell.problem = Some(format!("{problem:#}")),
            }
        }
    }
    if let Some(problem) = &cell.problem {
        eprintln!("{} {}: {problem}", subject.name(), fault.word());
    }
    cell
}

/// A run in which the client was in time; after [`MOST_RUNS`] the one in which it was least late.
async fn quiet_run(
    subject: Subject,
    fault: Fault,
    program: &Path,
) -> anyhow::Result<ExchangeTally> {
    let mut quietest: Option<ExchangeTally> = None;
    for _ in 0..MOST_RUNS {
        let tally = run(subject, fault, program).await?;
        eprintln!("{} {}: {tally}", subject.name(), fault.word());
        let in_time = tally.late <= IN_TIME;
        if quietest
            .as_ref()
            .is_none_or(|least| tally.late < least.late)
        {
            quietest = Some(tally);
        }
        if in_time {
            break;
        }
    }
    quietest.context("no run")
}

/// One run.
async fn run(subject: Subject, fault: Fault, program: &Path) -> anyhow::Result<ExchangeTally> {
    let home = tempfile::tempdir().context("a folder for the proxy's files")?;
    let mut origins = Origins::start().await?;
    let server = match subject {
        Subject::Lamina => Lamina::start(&origins.addresses(), fault.lamina(), home.path())?.server,
        Subject::Peer(peer, tuning) => {
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
