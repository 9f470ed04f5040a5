//! What RabbitMQ keeps for nodes that are away, in sentences for `lamina doctor`.
//!
//! Decision: each sentence is derived from the setting that decides it, so that it does not go on
//! describing a default that was changed.

use super::config::RabbitMqConfig;
use crate::units::ConfigDuration;

pub(super) fn in_queue(rabbitmq: &RabbitMqConfig) -> Vec<String> {
    let name = rabbitmq.queue_name.as_deref().unwrap_or_default();
    vec![
        format!(
            "purges are kept in the queue {name} until this node has applied them, even if the \
             broker restarts; no other node is allowed to use that name"
        ),
        match rabbitmq.expires() {
            Some(expires) => format!(
                "if this node is away for longer than {} (queue_expires), it loses its queue, and \
                 it validates what it has when it is back",
                ConfigDuration(expires)
            ),
            None => "queue_expires: 0: the queue of a node that never comes back grows until you \
                     delete it"
                .to_owned(),
        },
        format!(
            "a purge that can't be applied is given up after {} more deliveries: then all stored \
             entries are validated",
            rabbitmq.max_redeliveries
        ),
    ]
}

/// Describes a queue that looks durable although durable mode is off.
pub(super) fn half_durable(rabbitmq: &RabbitMqConfig) -> Option<String> {
    let stays = rabbitmq.queue_name.as_ref();
    let stays = stays.filter(|_| !rabbitmq.is_exclusive() && !rabbitmq.is_auto_delete());
    match stays {
        Some(name) => {
            let end = match rabbitmq.expires() {
                Some(expires) => format!("it is deleted after {}", ConfigDuration(expires)),
                None => "nothing deletes it, and it grows while this node is away".to_owned(),
            };
            Some(format!(
                "the queue {name} stays when this node is away, but durable_invalidation_mode is \
                 off, so it is not relied on; {end}"
            ))
        }
        None if rabbitmq.is_durable() || rabbitmq.is_persistent() => Some(
            "`durable` and `persistent` without durable_invalidation_mode keep no purge: the \
             queue is deleted with its connection"
                .to_owned(),
        ),
        None => None,
    }
}
