//! Warnings about settings that work but are risky: `validate` prints them, `run` logs them.
//!
//! Unlike with [`check`](super::check), nothing here keeps a gateway from starting.

use super::GatewayConfig;
use super::check;
use super::problem::{ConfigFinding, ConfigPath, path};
use crate::cache::config::{CachePolicyConfig, OriginQuery, TtlMode};
use crate::http::config::ListenerConfig;
use crate::http::config::tls::EarlyDataMode;
use crate::proxy::config::{OnOffSwitch, PurgeRule, RouteConfig};
use crate::telemetry::config::SERIES_OF_A_ROUTE;

/// Finds all risks in a valid configuration that its author should know.
pub fn warnings(config: &GatewayConfig) -> Vec<ConfigFinding> {
    let mut found = Vec::new();
    purges_by_client_data(config, &mut found);
    found.extend(super::seal_warnings::warnings(config));
    found.extend(super::upstream_warnings::warnings(config));
    found.extend(more_series_than_are_made(config));
    found.extend(super::limit_warnings::warnings(config));
    found.extend(super::rule_warnings::warnings(config));
    found.extend(super::contradiction_warnings::warnings(config));
    for (n, listener) in config.listeners.iter().enumerate() {
        found.extend(early_data_beside_shared_tickets(listener, n));
    }
    for (n, route) in config.routes.iter().enumerate() {
        let at = path(&["routes"]).index(n);
        found.extend(override_without_cookie_rule(
            route,
            &config.defaults.policy,
            &at,
        ));
        let compress = config.defaults.compress.as_ref();
        found.extend(check::compress_warnings(route, compress, &at));
        found.extend(query_as_sent(route, &at));
        found.extend(no_place_for_other_methods(route, &at));
        found.extend(one_yes_for_all_paths(route, &at));
    }
    found
}

/// rustls takes early data with sessions alone that are kept in the process.
fn early_data_beside_shared_tickets(listener: &ListenerConfig, n: usize) -> Option<ConfigFinding> {
    let tls = listener.tls.as_ref()?;
    let are_shared = tls.tickets.shared || !tls.tickets.keys.is_empty();
    if tls.early_data == EarlyDataMode::Off || !are_shared {
        return None;
    }
    let message = "with `early_data: safe` sessions of HTTP/3 are kept in this process instead of \
                   tickets: no other node resumes them, and no restart keeps them; \
                   `tickets.keys` and `tickets.shared` hold for TLS over TCP alone";
    let at = path(&["listeners"]).index(n).key("tls").key("early_data");
    Some(ConfigFinding::value(at, message))
}

/// More routes than metric series allow: requests beyond the limit are still counted, but no longer
/// by route.
fn more_series_than_are_made(config: &GatewayConfig) -> Option<ConfigFinding> {
    let (routes, most) = (config.routes.len() as u64, config.telemetry.max_series);
    let reached = routes * SERIES_OF_A_ROUTE;
    if reached <= most {
        return None;
    }
    let message = format!(
        "{routes} routes may make {reached} series of metrics, and `telemetry.max_series` is \
         {most}: a route whose first request comes when they are used up is counted as route \
         `other`; expected {reached}, if the server that scrapes this gateway can take them"
    );
    Some(ConfigFinding::key(path(&["routes"]), message))
}

/// An `invalidate` rule whose selector comes from freely chosen client data lets every client
/// choose what is purged.
fn purges_by_client_data(config: &GatewayConfig, found: &mut Vec<ConfigFinding>) {
    for (n, route) in config.routes.iter().enumerate() {
        for (m, rule) in route.invalidate.iter().enumerate() {
            for (k, purge) in rule.purge.iter().enumerate() {
                let at = path(&["routes"]).index(n).key("invalidate").index(m);
                let at = at.key("purge").index(k);
                found.extend(chosen_by_clients(purge, &at));
            }
        }
    }
}

fn chosen_by_clients(purge: &PurgeRule, at: &ConfigPath) -> Option<ConfigFinding> {
    let (selector, template) = match purge {
        PurgeRule::Url(template) => ("url", template),
        PurgeRule::Prefix(template) => ("prefix", template),
        PurgeRule::Pattern(template) => ("pattern", template),
        PurgeRule::Tag(template) => ("tag", template),
        PurgeRule::Route(template) => ("route", template),
    };
    let placeholder = ["{header.", "{query."]
        .into_iter()
        .find(|placeholder| template.contains(placeholder))?;
    let source = placeholder.trim_matches(['{', '.']);
    let message = format!(
        "the {selector} is taken from a {source} that every client chooses, so whoever gets a \
         successful answer here decides what is purged; use `{{path}}` or `{{path.N}}`, or a \
         tag that the origin names in its answers"
    );
    Some(ConfigFinding::value(at.key(selector), message))
}

/// A loader answers GET and HEAD; a route without an upstream cannot answer any other method.
fn no_place_for_other_methods(route: &RouteConfig, at: &ConfigPath) -> Option<ConfigFinding> {
    route.loader.as_ref()?;
    let methods = route.matches.method.as_ref().map(|all| all.as_slice());
    let reads = |all: &[String]| all.iter().all(|one| one == "GET" || one == "HEAD");
    if route.upstream.is_some() || methods.is_some_and(reads) {
        return None;
    }
    let message = format!(
        "route `{}`: its loader answers GET and HEAD, and there is no `upstream` for other \
         methods, which get 405; give one, or say `match: {{ method: [GET, HEAD] }}`",
        route.name
    );
    Some(ConfigFinding::key(at.key("loader"), message))
}

/// In mode override, a response is stored for everybody, even one for a user who is logged in.
fn override_without_cookie_rule(
    route: &RouteConfig,
    defaults: &CachePolicyConfig,
    at: &ConfigPath,
) -> Option<ConfigFinding> {
    let mode = route.policy.mode.or(defaults.mode);
    let key = &route.key;
    let keyed = !key.cookies.is_empty() || key.plugin.is_some();
    let keyed = keyed || key.headers.iter().any(|h| h.eq_ignore_ascii_case("cookie"));
    let ruled = keyed || route.policy.cookies.or(defaults.cookies).is_some();
    if mode != Some(TtlMode::Override) || route.cache == OnOffSwitch::Off || ruled {
        return None;
    }
    let message = format!(
        "route `{}`: mode `override` stores responses to requests with cookies for everybody; \
         expected a cookie rule beside it: `cookies: private` (such a response is stored only \
         as it says itself), `cookies: ignore` (cookies make no difference here), or the names \
         in `key.cookies`",
        route.name
    );
    Some(ConfigFinding::value(at.key("policy").key("mode"), message))
}

/// A service that looks at paths says yes to one, and is not asked about the others.
fn one_yes_for_all_paths(route: &RouteConfig, at: &ConfigPath) -> Option<ConfigFinding> {
    let cache = route.auth.as_ref()?.forward.as_ref()?.cache.as_ref()?;
    if cache.key.iter().any(|part| part == "uri") {
        return None;
    }
    let message = format!(
        "route `{}`: one yes of the auth service counts for all paths of this route; expected \
         `uri` in the key, unless the service decides without looking at paths",
        route.name
    );
    let at = at.key("auth").key("forward").key("cache").key("key");
    Some(ConfigFinding::value(at, message))
}

/// The origin gets parameters that the key leaves out.
fn query_as_sent(route: &RouteConfig, at: &ConfigPath) -> Option<ConfigFinding> {
    let key = &route.key;
    let query = &key.query;
    let narrows = query.include.is_some() || !query.drop.is_empty() || query.sort;
    let narrows = narrows || key.plugin.is_some();
    let as_sent = key.origin_query == OriginQuery::AsSent;
    if !(as_sent && narrows) || route.cache == OnOffSwitch::Off {
        return None;
    }
    let message = format!(
        "route `{}`: the origin gets query parameters that the key leaves out, so one client \
         decides by them what is stored for all the others (an echo of `utm_source`, say); \
         expected `origin_query: as_keyed`, unless the origin's answer does not depend on them",
        route.name
    );
    Some(ConfigFinding::value(
        at.key("key").key("origin_query"),
        message,
    ))
}
