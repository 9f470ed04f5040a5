//! `differential [--seed N] [--requests N] [--front NAME]`: ours beside nginx and Varnish.
//!
//! One seeded stream of sequences ([`generate`]), each a few requests about one URL and
//! what the origin would answer, is played against the three ([`run`]), each before an
//! origin of its own that follows the same script ([`script`]). What a server made of a
//! request ([`observe`]) is compared with what ours did ([`compare`]). A difference is
//! either in a class that `tests/differential/differences.yaml` explains ([`rules`],
//! [`table`]), or is made small ([`shrink`]), printed, and fails the run.
//!
//! Before that, pages of fragments are compared with Varnish ([`esi`]), and answers by the same rules
//! with nginx ([`same_rules`]).

mod compare;
mod esi;
mod generate;
mod observe;
mod options;
mod report;
mod rules;
mod run;
mod same_rules;
mod script;
mod sequence;
mod servers;
mod shrink;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::bail;
use futures_util::{StreamExt, stream};

use options::DifferentialOptions;
use report::DifferentialReport;
use run::{PlayStage, PlayedSequence};
use script::RunScript;
use servers::ComparedServers;

/// Unexplained differences that are made small and shown.
const SHOWN: usize = 40;
const SHRUNK_AT_ONCE: usize = 8;

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(options::USAGE) {
        return Ok(());
    }
    let options = DifferentialOptions::from_arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(differential(&options))
}

async fn differential(options: &DifferentialOptions) -> anyhow::Result<()> {
    esi::compare(options.seed).await?;
    same_rules::compare(options.seed).await?;
    let table = table::read()?;
    let script = RunScript::new();
    let servers = ComparedServers::start(&script, options.front).await?;
    let stage = PlayStage { script, servers };
    let sequences = generate::stream(options.seed, options.requests);
    let played = stage
        .play(sequences.into_iter().map(Arc::new).collect())
        .await;
    let report = DifferentialReport::of(&played);
    println!(
        "Ours over {}: {}",
        options.front.name(),
        report.text(&table)
    );
    if report.slow * 10 > report.sequences {
        bail!("{} sequences were too slow to be judged", report.slow);
    }
    match show(&stage, &played, &report).await {
        0 => Ok(()),
        n => bail!(
            "{} differences are not explained, of {n} kinds at least (seed {})",
            report.unexplained.len(),
            options.seed
        ),
    }
}

/// Makes what is not explained small and shows each example once; answers how many kinds
/// there are. What does not come again is no finding, but shown.
async fn show(stage: &PlayStage, played: &[PlayedSequence], report: &DifferentialReport) -> usize {
    let every = report.unexplained.len().div_ceil(SHOWN).max(1);
    let some = report.unexplained.iter().step_by(every);
    let shrinking = some.map(|(likeness, number)| async {
        let before = &played[*number];
        match shrink::smallest(stage, &before.sequence, *likeness).await {
            Some(smallest) => (true, report::steps(&smallest)),
            None => (false, report::steps(before)),
        }
    });
    let examples: BTreeSet<(bool, String)> = stream::iter(shrinking)
        .buffered(SHRUNK_AT_ONCE)
        .collect()
        .await;
    for (again, text) in &examples {
        let title = if *again {
            "unexplained"
        } else {
            "did not come again"
        };
        println!("{title}:\n{text}");
    }
    examples.iter().filter(|(again, _)| *again).count()
}
