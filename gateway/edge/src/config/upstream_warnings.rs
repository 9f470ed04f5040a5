//! Warnings about upstreams: settings that have no effect, and requests that may be made twice.

use super::GatewayConfig;
use super::check::named_twice;
use super::problem::{ConfigFinding, ConfigPath, path};
use crate::origin::config::UpstreamConfig;
use crate::proxy::config::{OnOffSwitch, RouteConfig};

/// The methods that may be sent twice without harm (RFC 9110 §9.2.2).
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];

/// All these warnings.
pub fn warnings(config: &GatewayConfig) -> impl Iterator<Item = ConfigFinding> {
    let all = config.upstreams.iter();
    all.flat_map(|(name, upstream)| {
        let at = path(&["upstreams"]).key(name);
        let repeated = repeated_changes(upstream, &at);
        let stored = sticky_beside_cache(config, name, upstream, &at);
        let found = repeated.into_iter().chain(without_effect(upstream, &at));
        found
            .chain(stored)
            .chain(named_twice(&upstream.targets, &at.key("targets")))
    })
}

/// A request that changes something may be sent to a second target after the first has read it.
fn repeated_changes(upstream: &UpstreamConfig, at: &ConfigPath) -> Option<ConfigFinding> {
    let methods = &upstream.retry.methods;
    let is_change = |method: &&String| !IDEMPOTENT.contains(&method.as_str());
    let nth = methods.iter().position(|method| is_change(&method))?;
    let message = format!(
        "a {} without a body is sent to another target after one has failed, which may have acted \
         on it, so one order may be made twice; expected idempotent methods alone (a request that \
         no target has processed is sent again anyway)",
        methods[nth]
    );
    let at = at.key("retry").key("methods").index(nth);
    Some(ConfigFinding::value(at, message))
}

/// A stored answer never carries the cookie, so clients of a route that caches do not get it there.
fn sticky_beside_cache(
    config: &GatewayConfig,
    name: &str,
    upstream: &UpstreamConfig,
    at: &ConfigPath,
) -> Option<ConfigFinding> {
    upstream.balance.sticky.as_ref()?;
    let caches = |route: &&RouteConfig| {
        route.upstream.as_deref() == Some(name) && route.cache == OnOffSwitch::On
    };
    let route = config.routes.iter().find(caches)?;
    let message = format!(
        "route `{}` caches: a stored answer goes to all clients and never carries the cookie, so \
         that it is only read there, and what is loaded for all may come from any target; \
         expected `cache: off` on routes whose clients must stay with a target",
        route.name
    );
    Some(ConfigFinding::key(at.key("balance").key("sticky"), message))
}

/// Where there is one target, there is nothing to choose.
fn without_effect(upstream: &UpstreamConfig, at: &ConfigPath) -> Vec<ConfigFinding> {
    let mut found = Vec::new();
    if upstream.may_have_several_targets() {
        return found;
    }
    if upstream.balance.hash.is_some() {
        let message = "there is one target, so nothing is chosen; expected several targets, or no \
                       `hash`";
        found.push(ConfigFinding::value(at.key("balance").key("hash"), message));
    }
    if upstream.balance.sticky.is_some() {
        let message = "there is one target, which every client stays with; expected several \
                       targets, or no `sticky`";
        found.push(ConfigFinding::key(at.key("balance").key("sticky"), message));
    }
    if upstream.retry.hedge.is_some() {
        let message = "there is one target, and a second request never goes to the same one; \
                       expected several targets, or no `hedge`";
        found.push(ConfigFinding::key(at.key("retry").key("hedge"), message));
    }
    if upstream.health.active.is_some() {
        let message = "there is one target, which is asked whatever its check says; the check only \
                       prefers stale copies, and counts";
        found.push(ConfigFinding::key(at.key("health").key("active"), message));
    }
    found
}
