//! Sandboxed WASM plugins.

pub mod config;
