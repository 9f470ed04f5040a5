//! Lines in the gateway's log, under the plugin's name. Rate-limited there; up to
//! 2 KiB of a message are kept. In native tests they go to standard error.

use crate::bindings::lamina::plugin::log::{Level, write};

/// For whoever writes the plugin.
pub fn debug(message: &str) {
    send(Level::Debug, message);
}

/// What happened.
pub fn info(message: &str) {
    send(Level::Info, message);
}

/// Served, but not as it should be.
pub fn warn(message: &str) {
    send(Level::Warn, message);
}

/// A person must act.
pub fn error(message: &str) {
    send(Level::Error, message);
}

fn send(level: Level, message: &str) {
    if cfg!(target_arch = "wasm32") {
        write(level, message);
    } else {
        eprintln!("{level:?}: {message}");
    }
}
