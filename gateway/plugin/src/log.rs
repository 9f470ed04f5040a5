//! The import `log`: writes lines of a guest to the gateway's log, within the plugin's rate limit.

use std::time::Instant;

use super::bindings::log::{Host, Level};
use super::guest::GuestState;
use super::log_text::one_line;

/// Bytes of a message that are logged.
const MAX_MESSAGE: usize = 2 << 10;

impl Host for GuestState {
    fn write(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        if let Some(dropped) = self.log.admit(Instant::now()) {
            emit(
                &self.plugin,
                level,
                &one_line(&message, MAX_MESSAGE),
                dropped,
            );
        }
        Ok(())
    }
}

fn emit(plugin: &str, level: Level, message: &str, dropped: u64) {
    match level {
        Level::Debug => tracing::debug!(plugin, dropped, "{message}"),
        Level::Info => tracing::info!(plugin, dropped, "{message}"),
        Level::Warn => tracing::warn!(plugin, dropped, "{message}"),
        Level::Error => tracing::error!(plugin, dropped, "{message}"),
    }
}
