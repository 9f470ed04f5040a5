//! What the other nodes are told, and how reliably.

use super::PromiseConditions;
use lamina_base::units::ConfigDuration;
use lamina_cluster::bus::config::{BusConfig, EventAdmission, Priming};
use lamina_cluster::bus::nats::config::{JetStreamConfig, NatsMode, StreamStorage};
use lamina_cluster::bus::rabbitmq::RabbitMqConfig as RabbitMq;

pub(super) fn of(case: &PromiseConditions<'_>, bus: &BusConfig) -> Vec<String> {
    let mut all = vec![
        "a purge applies on this node as soon as it is answered, and on the other nodes when they \
         have received it; `lamina purge --wait` waits for their confirmation"
            .to_owned(),
    ];
    if !bus.subscribe_to_events {
        all.push(deaf(case));
    }
    all.extend(carried(bus));
    all.push(values(case, bus));
    all.push(writers(case, bus).to_owned());
    if bus.namespace.is_none() && case.config.bus_seal_key().is_none() {
        all.push(
            "no `namespace`: this node accepts events from everybody who publishes on the bus"
                .to_owned(),
        );
    }
    all
}

/// Whose events are accepted.
fn writers(case: &PromiseConditions<'_>, bus: &BusConfig) -> &'static str {
    let sealed = case.config.bus_seal_key().is_some();
    let foreign = bus.foreign_events == Some(EventAdmission::Accept);
    match (sealed, bus.unsealed_events) {
        (false, _) => {
            "events are not sealed: whoever can publish on the bus can purge, and can put values \
             into caches; see bus.seal_key_file"
        }
        (true, EventAdmission::Accept) => {
            "events are sealed with your key, but events without a seal are accepted as well \
             (unsealed_events: accept): whoever can publish on the bus can purge, and can put \
             values into caches"
        }
        (true, EventAdmission::Refuse) if foreign => {
            "events of nodes are accepted only with the seal of your key, and only once; services \
             can purge without a seal (foreign_events: accept), and so can everybody else who \
             publishes on the bus"
        }
        (true, EventAdmission::Refuse) => {
            "events are accepted only with the seal of your key, and only once: what others \
             publish on the bus, or record and publish again, has no effect"
        }
    }
}

fn deaf(case: &PromiseConditions<'_>) -> String {
    let rest = match case.has_log {
        true => "follows the purge log in Redis",
        false => "keeps serving what others purge for as long as it is fresh",
    };
    format!("subscribe_to_events: false: this node publishes events and does not listen; it {rest}")
}

/// How reliably each event arrives.
fn carried(bus: &BusConfig) -> Vec<String> {
    if let Some(nats) = &bus.nats {
        return match nats.mode {
            NatsMode::Core => vec![at_most_once("NATS", bus)],
            NatsMode::Jetstream => in_stream(&nats.jetstream),
        };
    }
    match &bus.rabbitmq {
        Some(rabbitmq) if rabbitmq.durable_invalidation_mode => in_queue(rabbitmq),
        Some(rabbitmq) => {
            let mut all = vec![at_most_once("RabbitMQ", bus)];
            all.extend(half_durable(rabbitmq));
            all
        }
        None => vec![at_most_once("Redis Pub/Sub", bus)],
    }
}

fn at_most_once(by: &str, bus: &BusConfig) -> String {
    format!(
        "{by} delivers at most once: a lost purge is noticed with the next purge or heartbeat, \
         after {} at most, and is requested again",
        bus.heartbeat_interval
    )
}

fn in_stream(jetstream: &JetStreamConfig) -> Vec<String> {
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

fn in_queue(rabbitmq: &RabbitMq) -> Vec<String> {
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
fn half_durable(rabbitmq: &RabbitMq) -> Option<String> {
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

fn values(case: &PromiseConditions<'_>, bus: &BusConfig) -> String {
    if !bus.broadcast_set {
        return "values that are loaded here are not published (broadcast_set: false): the other \
                nodes load for themselves"
            .to_owned();
    }
    let taken = match bus.priming {
        Priming::Off => {
            return "values are published, and this node accepts none (priming: off)".to_owned();
        }
        Priming::Resident => "accepts those of keys that it holds or that were requested recently",
        Priming::Always => {
            "accepts all of them (priming: always), which may push out entries that it uses"
        }
    };
    let seal = match case.config.bus_seal_key() {
        Some(_) => "sealed with your key",
        None => {
            "protected against damage only, so that whoever can publish on the bus can forge some"
        }
    };
    let most = bus.broadcast_set_max_bytes;
    format!(
        "values up to {most} are published, and of larger ones only that they changed, {seal}; \
         this node {taken}"
    )
}
