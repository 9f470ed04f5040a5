//! The client library for Redis. It is named in this file alone, so that another one can take
//! its place: what is listed here is all that the gateway uses of it.
//!
//! fred has had no release since February 2025. Should it stay so, the crate `redis` (with its
//! features for tokio, Cluster and Sentinel) is what would replace it: connections with our own
//! supervision ([`connection`](super::connection)), single commands, scripts, streams and
//! subscriptions are what it has to offer under these names.

pub use fred::clients::Client;
pub use fred::error::{Error, ErrorKind};
pub use fred::interfaces::{
    ClientLike, EventInterface, KeysInterface, LuaInterface, PubsubInterface, StreamsInterface,
};
pub use fred::socket2::TcpKeepalive;
pub use fred::types::config;
pub use fred::types::scripts::Script;
pub use fred::types::{
    ClusterHash, ConnectHandle, CustomCommand, Message, MessageKind, RespVersion, Value,
};
pub use fred::util::redis_keyslot;
pub use fred::{rustls, rustls_native_certs};
