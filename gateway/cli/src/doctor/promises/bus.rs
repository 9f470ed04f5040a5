//! What the other nodes are told, and how reliably.

use super::PromiseConditions;
use lamina_base::units::ConfigDuration;
use lamina_cluster::bus::config::{BusConfig, EventAdmission, Priming};
use lamina_cluster::bus::nats::config::{JetStreamConfig, NatsMode, StreamStorage};
use lamina_cluster::bus::rabbitmq::RabbitMqConfig as RabbitMq;

pub(super) fn of(case: &PromiseConditions<'_>, bus: &BusConfig) -> Vec<String> {
    let mut all = vec![
        "a purge holds here from its answer on, on the others when they have heard it; \
         `lamina purge --wait` waits for their word"
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
            "no `namespace`: this node takes events from everybody who publishes there".to_owned(),
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
            "events are not sealed: whoever may publish there may purge and prime; see bus.seal_key_file"
        }
        (true, EventAdmission::Accept) => {
            "events are sealed by your key, and those without a seal count as well \
             (unsealed_events: accept): whoever may publish there may purge and prime"
        }
        (true, EventAdmission::Refuse) if foreign => {
            "events of nodes count with the seal of your key alone, and once; services may purge \
             without one (foreign_events: accept), and so may whoever else publishes there"
        }
        (true, EventAdmission::Refuse) => {
            "events count with the seal of your key alone, and once: what others publish there, or \
             recorded and publish again, does nothing"
        }
    }
}

fn deaf(case: &PromiseConditions<'_>) -> String {
    let rest = match case.has_log {
        true => "follows the purge log in Redis",
        false => "keeps what others purge for as long as it is fresh",
    };
    format!("subscribe_to_events: false: this node tells and does not listen; it {rest}")
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
        "{by} delivers at most once: a purge that was lost is noticed by the next one or a \
         heartbeat, after {} at most, and asked for again",
        bus.heartbeat_interval
    )
}

fn in_stream(jetstream: &JetStreamConfig) -> Vec<String> {
    let name = jetstream.durable_name.as_deref().unwrap_or_default();
    let mut all = vec![
        format!(
            "purges are kept in the stream {} until this node has applied them; it goes on where it \
             stopped, as {name}, a name that no other node may have",
            jetstream.stream
        ),
        storage(jetstream),
        format!(
            "away for longer than {} (inactive_threshold) this node is forgotten, and validates what \
             it has when it is back",
            jetstream.inactive_threshold
        ),
        format!(
            "a purge that can't be applied is given up after {} deliveries: what is stored is \
             validated then",
            jetstream.max_deliver
        ),
    ];
    let age = jetstream.max_age_ms.map(ConfigDuration::millis);
    let age = age.map(|age| format!("what is older than {age} (max_age_ms)"));
    let count = (jetstream.max_msgs >= 0)
        .then(|| format!("what is beyond {} messages (max_msgs)", jetstream.max_msgs));
    let drops: Vec<String> = age.into_iter().chain(count).collect();
    all.push(match drops.is_empty() {
        true => "neither max_age_ms nor max_msgs is set: the stream grows for ever".to_owned(),
        false => format!(
            "the stream drops {}: a node that did not read it by then validates what it has",
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
            "the stream is on the disk of one server: it outlives that server's restart, not its disk"
                .to_owned()
        }
        (StreamStorage::File, _) => format!(
            "the stream is on the disks of {servers} servers, and goes on while {down} of them are down"
        ),
        (StreamStorage::Memory, 1) => {
            "storage: memory: a restart of the server forgets what was kept; nodes then validate \
             what they have"
                .to_owned()
        }
        (StreamStorage::Memory, _) => format!(
            "storage: memory: the stream goes on while {down} of {servers} servers are down, and is \
             forgotten when all of them restart"
        ),
    }
}

fn in_queue(rabbitmq: &RabbitMq) -> Vec<String> {
    let name = rabbitmq.queue_name.as_deref().unwrap_or_default();
    vec![
        format!(
            "purges are kept in the queue {name} until this node has applied them, also over a \
             restart of the broker; no other node may have that name"
        ),
        match rabbitmq.expires() {
            Some(expires) => format!(
                "away for longer than {} (queue_expires) this node loses its queue, and validates \
                 what it has when it is back",
                ConfigDuration(expires)
            ),
            None => "queue_expires: 0: the queue of a node that never comes back grows until you \
                     delete it"
                .to_owned(),
        },
        format!(
            "a purge that can't be applied is given up after {} more deliveries: what is stored is \
             validated then",
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
                "the queue {name} stays without this node, but durable_invalidation_mode is off: it is \
                 not relied on; {end}"
            ))
        }
        None if rabbitmq.is_durable() || rabbitmq.is_persistent() => Some(
            "durable or persistent without durable_invalidation_mode keep no purge: the queue ends \
             with its connection"
                .to_owned(),
        ),
        None => None,
    }
}

fn values(case: &PromiseConditions<'_>, bus: &BusConfig) -> String {
    if !bus.broadcast_set {
        return "what is loaded here is not told (broadcast_set): the others load for themselves"
            .to_owned();
    }
    let taken = match bus.priming {
        Priming::Off => {
            return "values are told, and this node takes none (priming: off)".to_owned();
        }
        Priming::Resident => "takes those of keys that it holds or was lately asked for",
        Priming::Always => "takes all of them (priming: always), which may push out what it uses",
    };
    let seal = match case.config.bus_seal_key() {
        Some(_) => "sealed by your key",
        None => "sealed against damage alone, so that whoever may publish there may make some",
    };
    let most = bus.broadcast_set_max_bytes;
    format!(
        "values up to {most} are told, and of larger ones that they changed, {seal}; this node {taken}"
    )
}
