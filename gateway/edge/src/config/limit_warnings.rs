//! Warnings about rate limits that have no effect, or another one than their author may think.

use super::GatewayConfig;
use super::problem::{ConfigFinding, path};
use crate::proxy::config::OnOffSwitch;
use crate::rate_limit::config::{LimitPlace, RateLimitConfig};

/// Finds what is risky about the limits of a valid configuration.
pub fn warnings(config: &GatewayConfig) -> Vec<ConfigFinding> {
    let limits = config.limits.iter();
    let found = limits.flat_map(|(name, limit)| {
        [
            unused(config, name),
            shared_without_a_bus(config, name, limit),
            fields_of_loads(config, name, limit),
        ]
    });
    found.flatten().collect()
}

fn unused(config: &GatewayConfig, name: &str) -> Option<ConfigFinding> {
    let mut named = config.routes.iter().flat_map(|route| &route.limit);
    if named.any(|named| named == name) {
        return None;
    }
    let message = format!(
        "no route names the limit `{name}`, so nothing is limited by it; expected \
         `limit: [{name}]` in a route"
    );
    Some(ConfigFinding::key(path(&["limits"]).key(name), message))
}

/// While Redis is away each node admits the rate divided by the number of nodes, which the bus
/// tells.
fn shared_without_a_bus(
    config: &GatewayConfig,
    name: &str,
    limit: &RateLimitConfig,
) -> Option<ConfigFinding> {
    if !limit.shared || config.bus.is_some() {
        return None;
    }
    let message = format!(
        "without a `bus` a node does not know how many there are: while Redis is away each one \
         admits the whole {} of the limit `{name}`",
        limit.rate
    );
    let at = path(&["limits"]).key(name).key("shared");
    Some(ConfigFinding::value(at, message))
}

/// A limit of what goes to the origin, on routes where everything does.
fn fields_of_loads(
    config: &GatewayConfig,
    name: &str,
    limit: &RateLimitConfig,
) -> Option<ConfigFinding> {
    let names = |named: &[String]| named.iter().any(|named| named == name);
    let mut routes = config
        .routes
        .iter()
        .filter(|route| names(&route.limit))
        .peekable();
    routes.peek()?;
    let caches_none = routes.all(|route| route.cache == OnOffSwitch::Off);
    if limit.at == LimitPlace::Edge || !limit.fields || !caches_none {
        return None;
    }
    let message = format!(
        "the routes of the limit `{name}` cache nothing, so that all their requests go to the \
         origin; with `at: edge` every answer tells clients what is left, and not refusals alone"
    );
    let at = path(&["limits"]).key(name).key("fields");
    Some(ConfigFinding::value(at, message))
}
