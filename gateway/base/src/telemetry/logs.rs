//! Where log lines go: standard error, as text or JSON.
//!
//! A line never makes a request wait: lines go through a bounded queue to a thread, and lines
//! that do not fit are dropped and counted.

mod json_line;
mod line;
mod line_time;
mod text_line;

use std::io::IsTerminal;
use std::sync::Arc;

use prometheus::IntCounter;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::JsonFields;

use crate::telemetry::config::{LogFormat, LogLevel, TelemetryConfig};
use crate::telemetry::metrics::Registry;
use line::LogLineFormat;

/// Lines that may wait to be written.
const QUEUE: usize = 16_384;

/// Keeps the writing thread alive. Dropping it writes the lines that wait.
pub struct LogWriterGuard {
    _guard: WorkerGuard,
    dropped: ErrorCounter,
    set_level: LevelSetter,
}

/// Sets another level for the lines of the process.
pub type LevelSetter = Arc<dyn Fn(LogLevel) + Send + Sync>;

/// Starts logging for the whole process. `RUST_LOG` takes precedence over the configured level.
///
/// A second call in one process has no effect: the settings of the first one stay.
pub fn start(config: &TelemetryConfig) -> LogWriterGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let shown = filter(level(config.log_level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(shown)
        .with_writer(writer);
    // An error means that another subscriber is set already, as in tests of the library.
    // The handles of the two forms have different types.
    let set_level: LevelSetter = match config.log_format {
        LogFormat::Json => {
            let builder = builder
                .with_ansi(false)
                .event_format(LogLineFormat::json())
                .fmt_fields(JsonFields::new())
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Arc::new(move |wanted| drop(handle.reload(filter(level(wanted)))))
        }
        LogFormat::Text => {
            let is_terminal = std::io::stderr().is_terminal();
            let builder = builder
                .with_ansi(is_terminal)
                .event_format(LogLineFormat::text())
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Arc::new(move |wanted| drop(handle.reload(filter(level(wanted)))))
        }
    };
    LogWriterGuard {
        _guard: guard,
        dropped,
        set_level,
    }
}

impl LogWriterGuard {
    /// Sets another level; `RUST_LOG` still takes precedence.
    pub fn level_setter(&self) -> LevelSetter {
        Arc::clone(&self.set_level)
    }

    /// Registers the counter of lines that did not fit.
    ///
    /// # Errors
    /// When the registry has it already.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<DroppedLines> {
        let counter = IntCounter::new(
            "lamina_log_lines_dropped_total",
            "Log lines that were dropped because the writer could not keep up.",
        )?;
        registry.register(Box::new(counter.clone()))?;
        Ok(DroppedLines {
            seen: self.dropped.clone(),
            counter,
        })
    }
}

/// Copies the count of dropped lines into the metrics.
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

/// Lines that libraries write are shown only with `debug` or `trace`, whatever their own level:
/// they help to find a fault inside a library, and the code that uses it already logs the result
/// once.
fn filter(level: LevelFilter) -> EnvFilter {
    let directives = match level < LevelFilter::DEBUG {
        true => format!("off,lamina={level}"),
        // lapin logs each step of a lost connection as an error, and prints whole messages.
        false => format!("{level},lapin=off"),
    };
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    // A level without a target applies to everything; other directives are added to ours.
    let mut parts = asked.split(',').map(str::trim);
    let directives = match parts.any(|part| part.parse::<LevelFilter>().is_ok()) {
        _ if asked.is_empty() => directives,
        true => asked.clone(),
        false => format!("{directives},{asked}"),
    };
    let filter = EnvFilter::builder().parse_lossy(directives);
    // Audit lines are written whatever the level of other lines.
    match "lamina::audit=info".parse() {
        Ok(told) if !asked.contains("lamina::audit") => filter.add_directive(told),
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

    #[test]
    fn lines_of_libraries_are_shown_with_debug_alone() {
        for level in [LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO] {
            let shown = filter(level).to_string();
            assert!(
                shown.contains("off") && shown.contains(&format!("lamina={level}")),
                "{shown}"
            );
        }
        assert!(
            !filter(LevelFilter::DEBUG)
                .to_string()
                .contains("lamina=debug")
        );
    }
}
