//! The event bus: what one node tells all others.
//!
//! Inside: `transport` (the trait) and its four kinds `redis`, `nats`, `jetstream` and
//! `rabbitmq`; `event` (what is said, and its bytes); `outbox` (publishing behind the
//! caller, tried again until it is out) and `inbox` (from bytes to what is to be applied:
//! namespace, own echo, duplicates, holes). What is done about an event is `cluster`'s.

pub mod config;
mod dedupe;
pub mod event;
pub mod inbox;
pub mod outbox;
pub mod rabbitmq;
pub mod transport;
