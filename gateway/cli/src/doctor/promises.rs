//! What a configuration guarantees, in plain words.
//!
//! The parts: `l2` (the second tier), `bus` (what nodes are told), `outage` (nodes that are away,
//! brokers that are down). The sentences depend on the configuration alone. Decision: each sentence
//! is derived from the setting that decides it, so that it does not go on describing a default that
//! was changed.

mod bus;
mod l2;
mod outage;

use lamina_base::units::ConfigDuration;
use lamina_cache::l2::description::StoreDescription;
use lamina_edge::config::GatewayConfig;
use lamina_edge::proxy::config::OnOffSwitch;

/// The conditions that the sentences depend on.
struct PromiseConditions<'a> {
    config: &'a GatewayConfig,
    store: Option<&'a dyn StoreDescription>,
    /// The server whose purge log the nodes share and follow.
    log: Option<&'static str>,
}

/// The sentences, the most interesting ones first.
pub(super) fn of(config: &GatewayConfig) -> Vec<String> {
    let store = config.cache.l2.store();
    let case = PromiseConditions {
        config,
        store,
        log: store.and_then(StoreDescription::shared_through),
    };
    let mut all = l2::of(&case);
    match case
        .config
        .bus
        .as_ref()
        .and_then(|bus| Some((bus, bus.transport()?)))
    {
        Some((bus, transport)) => {
            all.extend(bus::of(&case, bus, transport));
            all.extend(outage::of(&case, bus, transport));
        }
        None => all.extend(alone(&case)),
    }
    all
}

fn alone(case: &PromiseConditions<'_>) -> Option<String> {
    // If there is a log, another sentence says it.
    let alone = case.log.is_none();
    alone.then(|| "there is no bus: purges reach only this node".to_owned())
}

/// How old a served response may be while the bus is not heard.
fn staleness(case: &PromiseConditions<'_>) -> String {
    let defaults = case.config.defaults.policy.max_staleness;
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
    let silence = "while a node receives no events from the bus, what";
    match (longest, unbounded.is_empty()) {
        (Some(longest), true) => format!(
            "{silence} is older than {longest} (max_staleness) is validated at its origin before \
             it is served"
        ),
        (Some(longest), false) => format!(
            "{silence} is older than {longest} (max_staleness) is validated at its origin before \
             it is served, except on {}, without a max_staleness: there it is served for as long \
             as it is fresh",
            unbounded.join(", ")
        ),
        (None, _) => format!(
            "{silence} it has is served for as long as it is fresh: no route has a max_staleness"
        ),
    }
}

#[cfg(test)]
mod tests;
