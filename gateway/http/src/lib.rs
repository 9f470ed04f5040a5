//! HTTP that knows no cache, no plugin and no route: what RFC 9110 and 9112 say about messages.
//!
//! The pure half is functions over header maps that read no clock (`now` is an
//! argument) and never fail: what cannot be read has a defined meaning.
//! [`cache_control`], [`cache_groups`], [`date`], [`age`], [`vary`], [`etag`] say what a message
//! means; [`conditional`] and [`range`] say which answer a stored response gives;
//! [`forward`] and [`max_forwards`] say what may pass a proxy, how far, and for whom;
//! [`trace`] is about methods whose answer repeats the request, [`sensitive`] about names whose
//! value is a secret; [`reference`] is the URI that a field names, [`path`] the one form of
//! its spellings; [`cidr`] is whom we believe;
//! [`cache_status`] and [`proxy_status`] tell the client what happened.
//!
//! The other half moves bytes: [`server`] is the listener, [`guard`] refuses what a
//! request must not be, [`frames`] counts what an HTTP/2 peer sends for nothing, [`fair`]
//! ends the turn of a connection that is fed without end, [`memory`] counts what answers
//! hold and bounds it, [`proxy_protocol`] is how a proxy
//! without HTTP names the client, [`body`] is the one type of body.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// The names under which the modules of this crate know the crates below.
use lamina_base::{telemetry, units};

pub mod age;
pub mod bearer;
pub mod body;
pub mod cache_control;
pub mod cache_groups;
pub mod cache_status;
pub mod cidr;
pub mod conditional;
pub mod config;
pub mod date;
pub mod endpoint;
pub mod etag;
pub mod fair;
pub mod forward;
pub mod frames;
pub mod guard;
mod hpack;
mod list;
pub mod max_forwards;
pub mod media;
pub mod memory;
mod numbered;
pub mod path;
pub mod proxy_protocol;
pub mod proxy_status;
pub mod range;
pub mod reference;
pub mod sensitive;
pub mod server;
pub mod trace;
#[cfg(test)]
mod upgrade_hazards;
pub mod vary;
