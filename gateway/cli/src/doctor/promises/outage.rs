//! What happens if a node is away, if a broker is down, and in a partition.

use super::{PromiseConditions, staleness};
use lamina_cache::l2::description::{NOTHING_KEPT, StoreDescription};
use lamina_cluster::bus::config::BusConfig;
use lamina_cluster::bus::description::TransportDescription;
use lamina_cluster::bus::transport::Guarantee;

pub(super) fn of(
    case: &PromiseConditions<'_>,
    bus: &BusConfig,
    transport: &dyn TransportDescription,
) -> Vec<String> {
    let guarantee = transport.guarantee();
    let mut all = Vec::new();
    if bus.subscribe_to_events {
        all.push(away(case, guarantee));
    }
    all.push(down(case, bus, guarantee));
    all.push(killed(case, bus));
    all.push(staleness(case));
    all.push(
        "a node that the network cuts off behaves like a node whose broker is down, and so do the \
         nodes on the other side: /readyz says `degraded`"
            .to_owned(),
    );
    all
}

/// How a node gets the purges of the time when it did not listen.
fn away(case: &PromiseConditions<'_>, guarantee: Guarantee) -> String {
    match (guarantee, case.log) {
        (Guarantee::Durable, _) => {
            "purges that happen while a node is away are delivered when it is back; until then it \
             validates what it has before it is served"
                .to_owned()
        }
        (Guarantee::AtMostOnce, Some(server)) => format!(
            "purges that happen while a node is away are read from the log in {server} when it is \
             back; until then it validates what it has before it is served"
        ),
        (Guarantee::AtMostOnce, None) => {
            "purges that happen while a node is away may be lost for it: when it is back, \
             everything that it stored before is validated at its origin, once, before it is served"
                .to_owned()
        }
    }
}

fn down(case: &PromiseConditions<'_>, bus: &BusConfig, guarantee: Guarantee) -> String {
    let queue = &bus.retry_queue;
    let waits = match (queue.enabled, guarantee) {
        (true, _) => format!(
            "up to {} purges ({}) wait until it is back; if there are more, one purge of \
             everything replaces them",
            queue.max_size, queue.max_bytes
        ),
        (false, Guarantee::AtMostOnce) => format!(
            "a purge that can't be published at once does not wait (retry_queue.enabled: false): \
             the other nodes notice it with a heartbeat ({}) once the broker is back, and request \
             it",
            bus.heartbeat_interval
        ),
        (false, Guarantee::Durable) => {
            "a purge that can't be published at once does not wait (retry_queue.enabled: false): \
             the other nodes notice it with this node's next purge, and not before"
                .to_owned()
        }
    };
    let log = match case.log {
        Some(server) => format!("; the log in {server} distributes it nevertheless"),
        None => String::new(),
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
    let kept = case
        .store
        .map_or(NOTHING_KEPT, StoreDescription::kept_over_kill);
    let begins = format!("a node that is killed comes back with {kept}");
    match (bus.retry_queue.enabled, case.log) {
        (true, None) => format!("{begins}; purges that it could not publish yet are lost"),
        (true, Some(server)) => format!(
            "{begins}; purges that it could not publish yet are lost, except those in {server}'s log"
        ),
        (false, _) => begins,
    }
}
