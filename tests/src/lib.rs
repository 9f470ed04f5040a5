//! The harness of Lamina's tests through the front door.
//!
//! A test starts an [`origin::Origin`] (its behaviour is a closure), a
//! [`gateway::Gateway`] (the real binary, as a process, from YAML), asks through
//! a [`client::Client`] and then looks at what the origin saw. Decision: every
//! answer that a client reads goes through [`check`], so that each test guards
//! against leaked and illegal headers without saying so.
//!
//! Invariant: nothing here sleeps to let something happen. Tests wait for a
//! condition with a limit ([`wait`]) or hold a [`gate::Gate`] shut until they
//! have seen what they wanted to see.

// This is test code: a panic is a failed test with a place and a message.
#![allow(clippy::unwrap_used)]

pub mod acme_responder;
pub mod attack;
pub mod browser;
pub mod certificates;
pub mod check;
pub mod cli;
pub mod client;
pub mod cms;
pub mod crash;
pub mod debian13;
pub mod documents;
pub mod fleet;
pub mod free_port;
pub mod front;
pub mod gate;
pub mod gateway;
pub mod guest;
pub mod h2raw;
pub mod h3;
pub mod load;
pub mod mediawiki;
pub mod metrics;
pub mod name_server;
pub mod named_pipe;
pub mod nats;
pub mod origin;
pub mod pace;
pub mod pebble;
pub mod peers;
pub mod php;
pub mod places;
pub mod process;
pub mod rabbit;
pub mod random;
pub mod raw;
pub mod redis;
pub mod reload;
pub mod reply;
pub mod rfc;
pub mod rogue;
pub mod scripted_names;
pub mod setup;
pub mod silent;
pub mod small_disk;
pub mod tap;
pub mod terminal;
pub mod tls;
pub mod tls_origin;
pub mod tools;
pub mod two_nodes;
pub mod upgrade;
pub mod wait;
pub mod wall_clock;
pub mod wire;
pub mod wordpress;
