//! `soak_plugins [--seconds N] [--clients N] [--swap N]`: plugins of all languages under
//! load, one request in a hundred to one that traps, and a new file for another plugin
//! every few seconds.
//!
//! A real gateway has a route for each shipped plugin ([`site`]); clients ask all of them in
//! turn and judge each answer ([`load`]), while files are replaced ([`swap`]). Prints
//! Markdown: answers, swaps, and the gateway's memory over time. Fails when an answer was
//! wrong, a request failed other than on the route that traps, or memory goes on growing.

mod load;
mod report;
mod site;
mod swap;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use load::AnswerTally;
use report::SoakReport;

const USAGE: &str = "soak_plugins [--seconds N] [--clients N] [--swap SECONDS]";

/// What to run.
struct SoakOptions {
    span: Duration,
    clients: usize,
    /// Between two new files.
    swap: Duration,
}

/// Looks at the memory.
const LOOKS: u32 = 60;

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(USAGE) {
        return Ok(());
    }
    let options = options()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(soak(&options))?;
    println!("{}", report.text());
    match report.faults().as_slice() {
        [] => Ok(()),
        faults => bail!("{}", faults.join("; ")),
    }
}

async fn soak(options: &SoakOptions) -> anyhow::Result<SoakReport> {
    let (origin, gateway) = site::start().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let tally = Arc::new(AnswerTally::default());
    let clients: Vec<_> = (0..options.clients)
        .map(|n| tokio::spawn(load::ask(gateway.client(), n, stop.clone(), tally.clone())))
        .collect();
    let mut report = SoakReport::default();
    let began = tokio::time::Instant::now();
    let mut looks = tokio::time::interval(options.span / LOOKS);
    let mut swaps = tokio::time::interval_at(began + options.swap, options.swap);
    while began.elapsed() < options.span {
        tokio::select! {
            _ = looks.tick() => {
                report.memory.push((began.elapsed(), gateway.resident_bytes()));
            }
            _ = swaps.tick() => {
                swap::one(gateway.dir(), report.swaps)?;
                report.swaps += 1;
                // Half an hour of what it saw would be many GB.
                origin.forget();
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.context("a client")?;
    }
    report.scrape = gateway.scrape().await;
    report.routes = tally.routes();
    Ok(report)
}

fn options() -> anyhow::Result<SoakOptions> {
    let mut options = SoakOptions {
        span: Duration::from_secs(1_800),
        clients: 8,
        swap: Duration::from_secs(10),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next();
        let value = value.with_context(|| format!("{name} needs a value"))?;
        let number: u64 = value
            .parse()
            .with_context(|| format!("{name} takes a number"))?;
        match name.as_str() {
            "--seconds" => options.span = Duration::from_secs(number),
            "--clients" => options.clients = number as usize,
            "--swap" => options.swap = Duration::from_secs(number),
            _ => bail!("{name} is unknown; {USAGE}"),
        }
    }
    Ok(options)
}
