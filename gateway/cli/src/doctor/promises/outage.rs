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
        "a node in a partition of its own is as one whose broker is down, both sides of it: /readyz \
         says `degraded`"
            .to_owned(),
    );
    all
}

/// How a node gets the purges of the time when it did not listen.
fn away(case: &PromiseConditions<'_>, guarantee: Guarantee) -> String {
    match (guarantee, case.log) {
        (Guarantee::Durable, _) => {
            "what is purged while a node is away comes when it is back; until then it validates what \
             it has before it is shown"
                .to_owned()
        }
        (Guarantee::AtMostOnce, Some(server)) => format!(
            "what is purged while a node is away it reads from the log in {server} when it is back; \
             until then it validates what it has before it is shown"
        ),
        (Guarantee::AtMostOnce, None) => {
            "what is purged while a node is away may not reach it: when it is back, all that it \
             stored before is validated at its origin, once, before it is shown"
                .to_owned()
        }
    }
}

fn down(case: &PromiseConditions<'_>, bus: &BusConfig, guarantee: Guarantee) -> String {
    let queue = &bus.retry_queue;
    let waits = match (queue.enabled, guarantee) {
        (true, _) => format!(
            "up to {} purges ({}) wait until it is back; beyond them one of everything takes their place",
            queue.max_size, queue.max_bytes
        ),
        (false, Guarantee::AtMostOnce) => format!(
            "a purge that can't be told at once does not wait (retry_queue.enabled: false): the others \
             notice by a heartbeat ({}) once it is back, and ask for it",
            bus.heartbeat_interval
        ),
        (false, Guarantee::Durable) => {
            "a purge that can't be told at once does not wait (retry_queue.enabled: \
                          false): the others notice by this node's next purge, and not before"
                .to_owned()
        }
    };
    let log = match case.log {
        Some(server) => format!("; the log in {server} tells it all the same"),
        None => String::new(),
    };
    let rest = match bus.circuit_breaker.failure_threshold {
        0 => String::new(),
        n => format!(
            "; after {n} failures in a row publishing rests for {}, or until the connection is back",
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
        (true, None) => format!("{begins}; purges that it could not tell yet are gone with it"),
        (true, Some(server)) => format!(
            "{begins}; purges that it could not tell yet are gone with it, but for those in \
             {server}'s log"
        ),
        (false, _) => begins,
    }
}
