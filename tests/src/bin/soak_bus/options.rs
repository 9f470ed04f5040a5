//! The command line.

use anyhow::{Context, bail};

use crate::broker::TransportKind;
use crate::harm::DrawnFaults;
use crate::tier::TierKind;

/// How it is called.
pub const USAGE: &str = "soak_bus [--transport redis|nats|jetstream|rabbitmq|rabbitmq_durable]… \
                         [--nodes N] [--purges N] [--pages N] [--flood N] [--faults] \
                         [--rounds N [--seed N] [--tier none|disk|redis]… [--harm bus|store|all|clock]]";

/// What to run.
#[derive(Debug)]
pub struct SoakOptions {
    pub transports: Vec<TransportKind>,
    pub nodes: usize,
    /// Purges of a transport, half of them each awaited on all nodes, half not awaited.
    /// Those of the faults come on top.
    pub purges: usize,
    pub pages: usize,
    /// Events that are none of ours, straight to the broker.
    pub flood: usize,
    /// Whether the broker is killed and frozen, and a node is killed.
    pub faults: bool,
    /// Rounds of faults that a seed draws, for each transport and second tier; in place of
    /// everything else where it is not 0.
    pub rounds: usize,
    pub seed: u64,
    pub tiers: Vec<TierKind>,
    pub drawn: DrawnFaults,
}

impl SoakOptions {
    /// # Errors
    /// What is wrong with them.
    pub fn from_arguments() -> anyhow::Result<Self> {
        let mut options = Self {
            transports: Vec::new(),
            nodes: 8,
            purges: 10_000,
            pages: 64,
            flood: 0,
            faults: false,
            rounds: 0,
            seed: 1,
            tiers: Vec::new(),
            drawn: DrawnFaults::All,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .with_context(|| format!("{name}: of what?"))
            };
            match name.as_str() {
                "--transport" => options.transports.push(value()?.parse()?),
                "--nodes" => options.nodes = number(&name, &value()?)?,
                "--purges" => options.purges = number(&name, &value()?)?,
                "--pages" => options.pages = number(&name, &value()?)?,
                "--flood" => options.flood = number(&name, &value()?)?,
                "--faults" => options.faults = true,
                "--rounds" => options.rounds = number(&name, &value()?)?,
                "--seed" => options.seed = number(&name, &value()?)? as u64,
                "--tier" => options.tiers.push(value()?.parse()?),
                "--harm" => options.drawn = value()?.parse()?,
                _ => bail!("{name} is unknown; {USAGE}"),
            }
        }
        if options.transports.is_empty() {
            options.transports = TransportKind::ALL.to_vec();
        }
        if options.tiers.is_empty() {
            options.tiers = TierKind::ALL.to_vec();
        }
        if !(2..=26).contains(&options.nodes) || !(1..=1_000).contains(&options.pages) {
            bail!("--nodes is from 2 to 26, --pages from 1 to 1000");
        }
        Ok(options)
    }
}

fn number(name: &str, text: &str) -> anyhow::Result<usize> {
    text.parse()
        .with_context(|| format!("{name} takes a number"))
}
