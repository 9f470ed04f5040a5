//! The command line.

use anyhow::{Context, bail};
use e2e::front::Front;

/// How it is called.
pub const USAGE: &str = "differential [--seed N] [--requests N] [--front NAME]";

/// What to run.
pub struct DifferentialOptions {
    /// The same seed gives the same stream.
    pub seed: u64,
    /// Requests of the stream, to each server.
    pub requests: usize,
    /// How ours is asked; the others always in clear text.
    pub front: Front,
}

impl DifferentialOptions {
    pub fn from_arguments() -> anyhow::Result<Self> {
        let mut options = Self {
            seed: 1,
            requests: 12_000,
            front: Front::Clear,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .with_context(|| format!("{name} needs a value"))?;
            let number = || {
                let number = value.parse::<u64>();
                number.with_context(|| format!("{name} takes a number"))
            };
            match name.as_str() {
                "--seed" => options.seed = number()?,
                "--requests" => options.requests = number()? as usize,
                "--front" => {
                    options.front = Front::parse(&value).map_err(anyhow::Error::msg)?;
                }
                _ => bail!("{name} is unknown; {USAGE}"),
            }
        }
        Ok(options)
    }
}
