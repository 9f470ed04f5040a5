//! The command line.

use anyhow::{Context, bail};

/// How it is called.
pub const USAGE: &str = "soak [--calls N] [--rate N] [--seconds N]";

/// What to run.
pub struct SoakOptions {
    /// Trapping calls, half of them of a key and half of a loader.
    pub calls: u64,
    /// Calls a second.
    pub rate: u64,
    /// Length of a round's parts without and with loops.
    pub seconds: u64,
}

impl SoakOptions {
    pub fn from_arguments() -> anyhow::Result<Self> {
        let mut options = Self {
            calls: 100_000,
            rate: 2_000,
            seconds: 3,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .with_context(|| format!("{name} needs a value"))?;
            let number = value
                .parse()
                .with_context(|| format!("{name} takes a number"))?;
            match name.as_str() {
                "--calls" => options.calls = number,
                "--rate" => options.rate = number,
                "--seconds" => options.seconds = number,
                _ => bail!("{name} is unknown; {USAGE}"),
            }
        }
        if options.rate == 0 || options.seconds == 0 {
            bail!("--rate and --seconds are at least 1");
        }
        Ok(options)
    }
}
