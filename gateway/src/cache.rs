//! The cache: lookup, fill, admit, invalidate.

pub mod config;
