//! HTTP without any notion of a cache, a plugin or a route: what RFC 9110 and RFC 9112 say about
//! messages.
//!
//! One half is pure: functions over header maps that read no clock (`now` is an argument) and
//! never fail, since a field that cannot be parsed has a defined meaning.
//! [`cache_control`], [`cache_groups`], [`date`], [`age`], [`vary`] and [`etag`] say what a
//! message means; [`conditional`] and [`range`] decide which answer a stored response gives;
//! [`forward`] and [`max_forwards`] decide what may pass a proxy, how far, and for whom;
//! [`trace`] covers methods whose answer repeats the request, and [`sensitive`] names of fields
//! whose value is a secret; [`reference`] resolves the URI that a field names, and [`path`]
//! gives all spellings of a path one form; [`cidr`] is the list of networks that are trusted;
//! [`cookies`] reads
//! the cookies of a request; [`coding`] reads which codings of content a client takes, makes and undoes them;
//! [`priority`] reads which answers a client wants first;
//! [`cache_status`] and [`proxy_status`] tell the client what happened.
//!
//! The other half moves bytes: [`server`] is the listener, [`guard`] refuses requests that are
//! malformed or too large, [`frames`] limits HTTP/2 frames that cost work and carry nothing,
//! [`fair`] makes a connection that always has input yield to others, [`memory`] counts and
//! bounds the memory that answers hold, [`proxy_protocol`] reads how a proxy below HTTP names
//! the client, and [`body`] is the one type of body.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

// The names under which the modules of this crate use the crates that it builds on.
use lamina_base::{telemetry, units};

pub mod accept_language;
pub mod age;
pub mod bearer;
pub mod body;
pub mod cache_control;
pub mod cache_groups;
pub mod cache_status;
pub mod cidr;
pub mod coding;
pub mod conditional;
pub mod config;
pub mod cookies;
pub mod date;
pub mod digest;
pub mod endpoint;
pub mod esi;
pub mod etag;
pub mod fair;
pub mod fetch_metadata;
pub mod field_value;
pub mod forward;
pub mod frames;
pub mod grpc;
pub mod guard;
mod hpack;
pub mod http3;
mod list;
pub mod max_forwards;
pub mod media;
pub mod memory;
mod numbered;
pub mod path;
pub mod priority;
pub mod proxy_protocol;
pub mod proxy_status;
pub mod quic_identity;
pub mod range;
pub mod reference;
pub mod sensitive;
pub mod server;
pub mod tls;
pub mod trace;
#[cfg(test)]
mod upgrade_hazards;
pub mod vary;
