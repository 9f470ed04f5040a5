//! What a configuration guarantees, in plain words.
//!
//! Inside: `l2` (the second tier), `bus` (what nodes are told), `outage` (who is away, what
//! is down). Pure: the words follow from the configuration alone. Decision: each sentence is made by what decides
//! it, so that no sentence stays true of a default that was changed.

mod bus;
mod l2;
mod outage;

use lamina_base::units::ConfigDuration;
use lamina_edge::config::GatewayConfig;
use lamina_edge::proxy::config::OnOffSwitch;

/// What decides between sentences.
struct PromiseConditions<'a> {
    config: &'a GatewayConfig,
    /// Whether nodes follow a purge log that they share.
    has_log: bool,
}

/// The sentences, in the order in which they are of interest.
pub(super) fn of(config: &GatewayConfig) -> Vec<String> {
    let case = PromiseConditions {
        config,
        has_log: config.cache.l2.redis.is_some(),
    };
    let mut all = l2::of(&case);
    match &config.bus {
        Some(bus) if bus.transports() > 0 => {
            all.extend(bus::of(&case, bus));
            all.extend(outage::of(&case, bus));
        }
        Some(_) | None => all.extend(alone(&case)),
    }
    all
}

fn alone(case: &PromiseConditions<'_>) -> Option<String> {
    // With a log it has been said.
    let alone = !case.has_log;
    alone.then(|| "there is no bus: purges reach this node alone".to_owned())
}

/// How old what is served may be while nothing is heard.
fn staleness(case: &PromiseConditions<'_>) -> String {
    let defaults = case.config.defaults.max_staleness;
    let routes = &case.config.routes;
    let routes = routes.iter().filter(|route| route.cache == OnOffSwitch::On);
    let bounds: Vec<(&str, Option<ConfigDuration>)> = routes
        .map(|route| (route.name.as_str(), route.policy.max_staleness.or(defaults)))
        .collect();
    let unbounded: Vec<&str> = bounds
        .iter()
        .filter(|(_, bound)| bound.is_none())
        .map(|(name, _)| *name)
        .collect();
    let longest = bounds.iter().filter_map(|(_, bound)| *bound).max();
    let silence = "while a node does not hear the bus, what";
    match (longest, unbounded.is_empty()) {
        (Some(longest), true) => format!(
            "{silence} is older than {longest} (max_staleness) is validated at its origin before it is shown"
        ),
        (Some(longest), false) => format!(
            "{silence} is older than {longest} (max_staleness) is validated at its origin before it is \
             shown, but on {}, without a max_staleness: that is served for as long as it is fresh",
            unbounded.join(", ")
        ),
        (None, _) => format!(
            "{silence} it has is served for as long as it is fresh: no route has a max_staleness"
        ),
    }
}

#[cfg(test)]
mod tests;
