//! What happens if a node is away, if a broker is down, and in a partition.

use super::{PromiseConditions, staleness};
use lamina_cluster::bus::config::BusConfig;
use lamina_cluster::bus::nats::config::NatsMode;

pub(super) fn of(case: &PromiseConditions<'_>, bus: &BusConfig) -> Vec<String> {
    let mut all = Vec::new();
    if bus.subscribe_to_events {
        all.push(away(case, bus));
    }
    all.push(down(case, bus));
    all.push(killed(case, bus));
    all.push(staleness(case));
    all.push(
        "a node that the network cuts off behaves like a node whose broker is down, and so do the \
         nodes on the other side: /readyz says `degraded`"
            .to_owned(),
    );
    all
}

/// Whether the broker keeps purges for nodes that are away.
fn is_durable(bus: &BusConfig) -> bool {
    let nats = bus.nats.as_ref().map(|n| n.mode == NatsMode::Jetstream);
    let rabbitmq = bus.rabbitmq.as_ref();
    nats.or(rabbitmq.map(|r| r.durable_invalidation_mode)) == Some(true)
}

/// How a node gets the purges of the time when it did not listen.
fn away(case: &PromiseConditions<'_>, bus: &BusConfig) -> String {
    match (is_durable(bus), case.has_log) {
        (true, _) => "purges that happen while a node is away are delivered when it is back; \
                      until then it validates what it has before it is served"
            .to_owned(),
        (false, true) => "purges that happen while a node is away are read from the log in Redis \
                          when it is back; until then it validates what it has before it is \
                          served"
            .to_owned(),
        (false, false) => "purges that happen while a node is away may be lost for it: when it is \
                           back, everything that it stored before is validated at its origin, \
                           once, before it is served"
            .to_owned(),
    }
}

fn down(case: &PromiseConditions<'_>, bus: &BusConfig) -> String {
    let queue = &bus.retry_queue;
    let waits = match (queue.enabled, is_durable(bus)) {
        (true, _) => format!(
            "up to {} purges ({}) wait until it is back; if there are more, one purge of \
             everything replaces them",
            queue.max_size, queue.max_bytes
        ),
        (false, false) => format!(
            "a purge that can't be published at once does not wait (retry_queue.enabled: false): \
             the other nodes notice it with a heartbeat ({}) once the broker is back, and request \
             it",
            bus.heartbeat_interval
        ),
        (false, true) => "a purge that can't be published at once does not wait \
                          (retry_queue.enabled: false): the other nodes notice it with this \
                          node's next purge, and not before"
            .to_owned(),
    };
    let log = match case.has_log {
        true => "; the log in Redis distributes it nevertheless",
        false => "",
    };
    let rest = match bus.circuit_breaker.failure_threshold {
        0 => String::new(),
        n => format!(
            "; after {n} failures in a row no values are published for {}, or until the \
             connection is back",
            lamina_base::units::ConfigDuration::millis(bus.circuit_breaker.cooldown_ms)
        ),
    };
    format!("while the broker is down no request waits for it, and {waits}{log}{rest}")
}

fn killed(case: &PromiseConditions<'_>, bus: &BusConfig) -> String {
    let begins = match &case.config.cache.l2.disk {
        Some(_) => {
            "a node that is killed comes back with what is on its disk, and validates it as after \
             any absence"
        }
        None => "a node that is killed comes back with an empty L1",
    };
    let takes = match (bus.retry_queue.enabled, case.has_log) {
        (true, false) => "; purges that it could not publish yet are lost",
        (true, true) => {
            "; purges that it could not publish yet are lost, except those in Redis's log"
        }
        (false, _) => "",
    };
    format!("{begins}{takes}")
}
