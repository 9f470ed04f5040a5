//! The second tier: what outlives L1, and what nodes share.
//!
//! Inside: `store` (the trait of what holds records), `redis`, `breaker`.

pub mod breaker;
pub mod redis;
pub mod store;
