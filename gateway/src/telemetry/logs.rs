//! Where log lines go: standard error, as text or JSON.
//!
//! A line never makes a request wait: lines go through a bounded queue to a thread,
//! and what does not fit is dropped and counted.

use std::io::IsTerminal;

use prometheus::IntCounter;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::telemetry::config::{Config, LogFormat, LogLevel};
use crate::telemetry::metrics::Registry;

/// Lines that may wait to be written.
const QUEUE: usize = 16_384;

/// Keeps the writing thread; dropping it writes what waits.
pub struct Logs {
    _guard: WorkerGuard,
    dropped: ErrorCounter,
}

/// Starts logging for the whole process. `RUST_LOG` goes before the configured level.
///
/// A second call in one process keeps the first's settings.
pub fn start(config: &Config) -> Logs {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let filter = filter(level(config.log_level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false);
    // An error means that another subscriber is set already, as in tests of the library.
    let _ = match config.log_format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
    };
    Logs {
        _guard: guard,
        dropped,
    }
}

impl Logs {
    /// Registers the count of lines that did not fit.
    ///
    /// # Errors
    /// When the registry has it already.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<DroppedLines> {
        let counter = IntCounter::new(
            "lamina_log_lines_dropped_total",
            "Log lines dropped since the writer could not keep up.",
        )?;
        registry.register(Box::new(counter.clone()))?;
        Ok(DroppedLines {
            seen: self.dropped.clone(),
            counter,
        })
    }
}

/// Brings the count of dropped lines into the metrics.
pub struct DroppedLines {
    seen: ErrorCounter,
    counter: IntCounter,
}

impl DroppedLines {
    pub fn update(&self) {
        let seen = self.seen.dropped_lines() as u64;
        self.counter.inc_by(seen.saturating_sub(self.counter.get()));
    }
}

fn filter(level: LevelFilter) -> EnvFilter {
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env_lossy();
    let asked = |target: &str| std::env::var("RUST_LOG").is_ok_and(|asked| asked.contains(target));
    // Who did what is told whatever the level of other lines.
    let filter = match "lamina::audit=info".parse() {
        Ok(told) if !asked("lamina::audit") => filter.add_directive(told),
        _ => filter,
    };
    // It calls each step of a lost connection an error, and prints whole messages; what it
    // comes to is told by the bus.
    match "lapin=off".parse() {
        Ok(quiet) if !asked("lapin") => filter.add_directive(quiet),
        _ => filter,
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_what_is_told_at_every_level() {
        for level in [LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::TRACE] {
            let filter = filter(level).to_string();
            assert!(filter.contains("lamina::audit=info"), "{filter}");
        }
    }
}
