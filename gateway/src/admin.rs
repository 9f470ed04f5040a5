//! The admin listener.

pub mod config;
