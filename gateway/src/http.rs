//! HTTP that knows no cache, no plugin and no route: what RFC 9110 and 9112 say about messages.

pub mod body;
pub mod config;
pub mod guard;
pub mod server;
