//! What to run: `bench [--rounds N] [--seconds N] [--only NAME,NAME]`.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::peers::MeasuredServer;

/// How it is called.
pub const USAGE: &str = "bench [--rounds N] [--seconds N] [--only NAME,NAME]";

/// The command line.
pub struct BenchOptions {
    pub rounds: usize,
    /// Length of one measurement.
    pub seconds: u64,
    /// Names of servers; empty means all.
    pub only: Vec<String>,
    /// The release build of `lamina`.
    pub lamina: PathBuf,
}

impl BenchOptions {
    pub fn from_arguments() -> anyhow::Result<Self> {
        let mut options = Self {
            rounds: 10,
            seconds: 2,
            only: Vec::new(),
            lamina: e2e::cli::beside_this_program(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--rounds" => options.rounds = value.parse().context("--rounds takes a number")?,
                "--seconds" => {
                    options.seconds = value.parse().context("--seconds takes a number")?
                }
                "--only" => options.only = value.split(',').map(str::to_owned).collect(),
                _ => {
                    bail!("{name} is unknown; {USAGE}")
                }
            }
        }
        Ok(options)
    }

    pub fn wants(&self, kind: MeasuredServer) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == kind.name())
    }
}
