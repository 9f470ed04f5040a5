//! The event bus: it carries the events of one node to all other nodes.
//!
//! Inside: `transport` (the trait) and its kinds, each in a module of its own: `redis`, `nats` (core
//! and JetStream) and `rabbitmq`; `description` (what the rest of the program asks of a configured
//! transport, and the table of all of them); `event` (the events and their bytes); `outbox`
//! (publishes in the background and retries until the broker has taken the event) and `inbox`
//! (turns received bytes into events to apply: namespace, seals, own echo, duplicates and replays);
//! `seal` (proves which nodes an event comes from) and `replay` (recognizes an event that came
//! before); `trial` (the transport under names of its own, for `lamina doctor`). The module
//! `cluster` applies the events.

pub mod config;
mod dedupe;
pub mod description;
pub mod event;
pub mod inbox;
pub mod nats;
pub mod outbox;
pub mod rabbitmq;
pub mod redis;
mod refusals;
mod replay;
pub mod seal;
pub mod transport;
pub mod trial;
