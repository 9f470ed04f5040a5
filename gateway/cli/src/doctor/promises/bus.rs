//! What the other nodes are told, and how reliably.

use super::PromiseConditions;
use lamina_cluster::bus::config::{BusConfig, EventAdmission, Priming};
use lamina_cluster::bus::description::TransportDescription;

pub(super) fn of(
    case: &PromiseConditions<'_>,
    bus: &BusConfig,
    transport: &dyn TransportDescription,
) -> Vec<String> {
    let mut all = vec![
        "a purge applies on this node as soon as it is answered, and on the other nodes when they \
         have received it; `lamina purge --wait` waits for their confirmation"
            .to_owned(),
    ];
    if !bus.subscribe_to_events {
        all.push(deaf(case));
    }
    all.extend(transport.promises(bus.heartbeat_interval));
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
    let rest = match case.log {
        Some(server) => format!("follows the purge log in {server}"),
        None => "keeps serving what others purge for as long as it is fresh".to_owned(),
    };
    format!("subscribe_to_events: false: this node publishes events and does not listen; it {rest}")
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
