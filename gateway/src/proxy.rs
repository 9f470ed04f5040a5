//! The path of one request.

pub mod config;
