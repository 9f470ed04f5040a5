//! Whether a configuration of RabbitMQ is valid, as far as that is known without reading files or
//! using the network.
//!
//! Settings that contradict the durable mode are refused: they would promise what the broker then
//! does not keep.

use std::time::Duration;

use super::config::{RabbitMqConfig, RabbitMqOpenError};
use super::declare::MOMENT;
use super::target::read;

/// The longest short string of AMQP.
const NAME_MAX: usize = 255;
/// The most that Erlang's timers, and so RabbitMQ's `x-expires`, can hold: 2^32 ms, rounded down to
/// whole days.
const EXPIRES_MAX: Duration = Duration::from_secs(49 * 24 * 60 * 60);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);

/// The first setting that is not valid.
pub(super) fn check(config: &RabbitMqConfig) -> Result<(), RabbitMqOpenError> {
    read(&config.url)?;
    check_names(config)?;
    check_mode(config)?;
    if config.prefetch == 0 {
        return Err(RabbitMqOpenError::Prefetch);
    }
    let heartbeat = config.heartbeat.0;
    let whole = heartbeat.subsec_nanos() == 0 && !heartbeat.is_zero();
    if !whole || heartbeat > HEARTBEAT_MAX {
        return Err(RabbitMqOpenError::Heartbeat(heartbeat));
    }
    match config.expires() {
        Some(expires) if expires > EXPIRES_MAX => Err(RabbitMqOpenError::Expires(expires)),
        _ => Ok(()),
    }
}

fn check_names(config: &RabbitMqConfig) -> Result<(), RabbitMqOpenError> {
    let queue = config.queue_name.as_deref().map(str::len);
    let fit = [
        ("vhost", config.vhost.len(), 1..=NAME_MAX),
        (
            "exchange",
            config.exchange.len(),
            1..=NAME_MAX - MOMENT.len(),
        ),
        ("queue_name", queue.unwrap_or(1), 1..=NAME_MAX),
        ("routing_key", config.routing_key.len(), 0..=NAME_MAX),
    ];
    let wrong = fit.iter().find(|(_, length, fits)| !fits.contains(length));
    wrong.map_or(Ok(()), |(key, ..)| Err(RabbitMqOpenError::Name(key)))
}

fn check_mode(config: &RabbitMqConfig) -> Result<(), RabbitMqOpenError> {
    if !config.durable_invalidation_mode {
        return Ok(());
    }
    if config.queue_name.is_none() {
        return Err(RabbitMqOpenError::NoQueue);
    }
    let set = [
        ("durable", config.durable, false),
        ("persistent", config.persistent, false),
        ("exclusive_queue", config.exclusive_queue, true),
        ("auto_delete_queue", config.auto_delete_queue, true),
    ];
    let wrong = set.into_iter().find(|(_, set, bad)| *set == Some(*bad));
    wrong.map_or(Ok(()), |(key, _, value)| {
        Err(RabbitMqOpenError::Contradiction { key, value })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units;

    fn key(change: impl FnOnce(&mut RabbitMqConfig)) -> Option<&'static str> {
        let mut config = RabbitMqConfig::default();
        change(&mut config);
        check(&config).err().map(|e| e.key())
    }

    #[test]
    fn what_cant_be_meant_is_told_with_its_key() {
        assert_eq!(key(|_| {}), None);
        assert_eq!(key(|c| c.vhost.clear()), Some("vhost"));
        assert_eq!(key(|c| c.exchange = "x".repeat(250)), Some("exchange"));
        assert_eq!(
            key(|c| c.queue_name = Some(String::new())),
            Some("queue_name")
        );
        assert_eq!(
            key(|c| c.routing_key = "x".repeat(256)),
            Some("routing_key")
        );
        assert_eq!(key(|c| c.prefetch = 0), Some("prefetch"));
        for heartbeat in [0, 1_500, 61_000] {
            let heartbeat = units::ConfigDuration::millis(heartbeat);
            assert_eq!(key(|c| c.heartbeat = heartbeat), Some("heartbeat"));
        }
        let months = Some(units::ConfigDuration::secs(50 * 86_400));
        assert_eq!(key(|c| c.queue_expires = months), Some("queue_expires"));
    }

    #[test]
    fn durable_mode_needs_a_queue_and_nothing_that_loses_messages() {
        let durable = |change: fn(&mut RabbitMqConfig)| {
            key(|c| {
                c.durable_invalidation_mode = true;
                c.queue_name = Some("node-1".to_owned());
                change(c);
            })
        };
        assert_eq!(durable(|_| {}), None);
        assert_eq!(durable(|c| c.queue_name = None), Some("queue_name"));
        assert_eq!(durable(|c| c.durable = Some(false)), Some("durable"));
        assert_eq!(durable(|c| c.persistent = Some(false)), Some("persistent"));
        assert_eq!(
            durable(|c| c.exclusive_queue = Some(true)),
            Some("exclusive_queue")
        );
        assert_eq!(
            durable(|c| c.auto_delete_queue = Some(true)),
            Some("auto_delete_queue")
        );
    }
}
