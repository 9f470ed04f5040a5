//! Checks how nodes hear of each other: the transport, its seal and its bounds.

use super::collector::FindingCollector;
use super::{in_words, seal_key};
use crate::bus::config::BusConfig;
use crate::config::GatewayConfig;
use crate::config::problem::{ConfigFinding, one_of, path};
use crate::units::ByteSize;

/// The most bytes of a node's name, as the bus allows.
const MAX_NAME: usize = 255;

pub(super) fn check(config: &GatewayConfig, bus: &BusConfig, report: &mut FindingCollector) {
    let at = path(&["bus"]);
    sealed_events(config, bus, report);
    let source = bus.source.as_ref();
    if let Some(name) = source.filter(|name| !(1..=MAX_NAME).contains(&name.len())) {
        let bytes = name.len();
        let message = format!("{bytes} bytes; expected a name of 1 to {MAX_NAME} bytes");
        report.add(at.key("source"), message);
    }
    let transports = bus.transports();
    let all = one_of(BusConfig::TRANSPORTS);
    let problem = match transports.len() {
        0 => Some(format!("no transport to the other nodes; expected {all}")),
        1 => None,
        _ => Some(format!(
            "another transport is given beside {all}; expected only one of the {}",
            in_words(BusConfig::TRANSPORTS.len())
        )),
    };
    if let Some(message) = problem {
        report.push(ConfigFinding::key(at.clone(), message));
    }
    for (key, number) in [
        (
            "heartbeat_interval",
            bus.heartbeat_interval.0.as_millis() as u64,
        ),
        ("publish_timeout", bus.publish_timeout.0.as_millis() as u64),
        ("handler_concurrency", bus.handler_concurrency as u64),
        ("max_nodes", bus.max_nodes as u64),
        ("expect", bus.expect.unwrap_or(1) as u64),
    ] {
        report.positive(at.key(key), number);
    }
    let forget_after = bus.nodes.forget_after.0;
    if forget_after < bus.heartbeat_interval.0 * 10 {
        report.add(
            at.key("nodes").key("forget_after"),
            "less than ten times `heartbeat_interval`, so that a node which is only slow is forgotten; expected more",
        );
    }
    if bus.broadcast_set_max_bytes > ByteSize::kib(768) {
        report.add(
            at.key("broadcast_set_max_bytes"),
            "more than 768KiB, which no event has room for; expected less",
        );
    }
    let invalid = transports
        .iter()
        .find_map(|transport| Some((transport.name(), transport.check().err()?)));
    if let Some((section, error)) = invalid {
        report.add_below(at.key(section), error.key(), error.to_string());
    }
}

/// Checks whether events are sealed, and whose events are accepted.
fn sealed_events(config: &GatewayConfig, bus: &BusConfig, report: &mut FindingCollector) {
    let at = path(&["bus"]);
    seal_key(&bus.seal_key, &at.key("seal_key"), report);
    let accepted = at.key("accepted_seal_key");
    seal_key(&bus.accepted_seal_key, &accepted, report);
    if bus.accepted_seal_key.is_some() && config.bus_seal_key().is_none() {
        let message = "no `seal_key` is given beside it, so that nothing would be sealed; \
                       expected both, or `seal_key` alone";
        report.push(ConfigFinding::key(accepted, message));
    }
}
