//! Certificates that are obtained from certificate authorities, and renewed (RFC 8555).

pub mod config;
