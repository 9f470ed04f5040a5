//! What JetStream keeps for nodes that are away, in sentences for `lamina doctor`.
//!
//! Decision: each sentence is derived from the setting that decides it, so that it does not go on
//! describing a default that was changed.

use super::config::{JetStreamConfig, StreamStorage};
use crate::units::ConfigDuration;

pub(super) fn in_stream(jetstream: &JetStreamConfig) -> Vec<String> {
    let name = jetstream.durable_name.as_deref().unwrap_or_default();
    let mut all = vec![
        format!(
            "purges are kept in the stream {} until this node has applied them; after a restart \
             it continues where it stopped, as {name}, a name that no other node is allowed to \
             have",
            jetstream.stream
        ),
        storage(jetstream),
        format!(
            "if this node is away for longer than {} (inactive_threshold), the stream forgets it, \
             and it validates what it has when it is back",
            jetstream.inactive_threshold
        ),
        format!(
            "a purge that can't be applied is given up after {} deliveries: then all stored \
             entries are validated",
            jetstream.max_deliver
        ),
    ];
    let age = jetstream.max_age_ms.map(ConfigDuration::millis);
    let age = age.map(|age| format!("what is older than {age} (max_age_ms)"));
    let count = (jetstream.max_msgs >= 0)
        .then(|| format!("what is beyond {} messages (max_msgs)", jetstream.max_msgs));
    let drops: Vec<String> = age.into_iter().chain(count).collect();
    all.push(match drops.is_empty() {
        true => {
            "neither max_age_ms nor max_msgs is set: the stream grows without a limit".to_owned()
        }
        false => format!(
            "the stream drops {}: a node that has not read it by then validates what it has",
            drops.join(" and ")
        ),
    });
    all
}

fn storage(jetstream: &JetStreamConfig) -> String {
    let down = (jetstream.replicas.saturating_sub(1)) / 2;
    let servers = jetstream.replicas;
    match (jetstream.storage, servers) {
        (StreamStorage::File, 1) => {
            "the stream is on the disk of one server: it survives a restart of that server, but \
             not the loss of its disk"
                .to_owned()
        }
        (StreamStorage::File, _) => format!(
            "the stream is on the disks of {servers} servers, and works while {down} of them are \
             down"
        ),
        (StreamStorage::Memory, 1) => {
            "storage: memory: when the server restarts, the kept purges are lost; nodes then \
             validate what they have"
                .to_owned()
        }
        (StreamStorage::Memory, _) => format!(
            "storage: memory: the stream works while {down} of {servers} servers are down, and is \
             lost when all of them restart"
        ),
    }
}
