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
        "a purge holds here from its answer on, on the others when they have heard it; \
         `lamina purge --wait` waits for their word"
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
    let rest = match case.log {
        Some(server) => format!("follows the purge log in {server}"),
        None => "keeps what others purge for as long as it is fresh".to_owned(),
    };
    format!("subscribe_to_events: false: this node tells and does not listen; it {rest}")
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
