//! The same measured more than once: rounds, and runs of a round that the machine has spoilt.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// A client that is later than this measures what else runs on the machine, and the run is
/// repeated,
const IN_TIME: Duration = Duration::from_millis(50);
/// until there are so many.
const MOST_RUNS: usize = 4;

/// What a run knows of its client.
pub trait ClientLateness {
    /// The most by which the client was late.
    fn late(&self) -> Duration;
}

/// All rounds, or as many as have succeeded.
pub struct MeasuredRounds<T> {
    pub tallies: Vec<T>,
    /// Why there are no more.
    pub problem: Option<String>,
}

impl<T: ClientLateness + Display> MeasuredRounds<T> {
    /// Measures so many rounds with this program, if it can be had. `what` is told with each run.
    pub async fn measure(
        what: &str,
        program: Result<&Path, &String>,
        count: usize,
        run: impl AsyncFn(&Path) -> anyhow::Result<T>,
    ) -> Self {
        let mut rounds = Self {
            tallies: Vec::new(),
            problem: program.err().cloned(),
        };
        if let Ok(program) = program {
            for _ in 0..count {
                match quiet_run(what, async || run(program).await).await {
                    Ok(tally) => rounds.tallies.push(tally),
                    Err(problem) => rounds.problem = Some(format!("{problem:#}")),
                }
            }
        }
        if let Some(problem) = &rounds.problem {
            eprintln!("{what}: {problem}");
        }
        rounds
    }
}

impl<T> MeasuredRounds<T> {
    /// One figure where all rounds agree, else the least and the most.
    pub fn spread<N: Ord>(&self, figure: fn(&T) -> N, text: fn(N) -> String) -> String {
        let least = self.tallies.iter().map(figure).min();
        let most = self.tallies.iter().map(figure).max();
        match (least, most) {
            (Some(least), Some(most)) if least != most => {
                format!("{}–{}", text(least), text(most))
            }
            (_, most) => most.map(text).unwrap_or_default(),
        }
    }

    /// What stands in a table instead of figures.
    pub fn why_none(&self) -> String {
        let why = self.problem.as_deref().unwrap_or("not run");
        why.replace(['|', '\n'], " ")
    }
}

/// A run in which the client was in time; after [`MOST_RUNS`] the one in which it was least late.
async fn quiet_run<T: ClientLateness + Display>(
    what: &str,
    run: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut quietest: Option<T> = None;
    for _ in 0..MOST_RUNS {
        let tally = run().await?;
        eprintln!("{what}: {tally}");
        let late = tally.late();
        if quietest.as_ref().is_none_or(|least| late < least.late()) {
            quietest = Some(tally);
        }
        if late <= IN_TIME {
            break;
        }
    }
    quietest.context("no run")
}
