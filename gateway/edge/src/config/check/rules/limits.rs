//! Checks the named rate limits, and what routes name of them.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::GatewayConfig;
use crate::config::check::{FindingCollector, form};
use crate::config::problem::{ConfigPath, path};
use crate::proxy::config::RouteConfig;
use crate::rate_limit::config::RateLimitConfig;

/// For how many values memory may be set aside: 32 bytes for each.
const KEYS: RangeInclusive<usize> = 1..=10_000_000;

/// The longest that a client that has used up its allowance may have to wait until it is full.
const LONGEST_SPAN: Duration = Duration::from_secs(366 * 86_400);

/// Checks the limits under `limits`.
pub fn check_named(config: &GatewayConfig, report: &mut FindingCollector) {
    for (name, limit) in &config.limits {
        let at = path(&["limits"]).key(name);
        report.form_of_key(&at, form::name(name));
        sizes(limit, &at, report);
        if limit.shared && !config.cache.l2.has_shared_redis() {
            let message = "`cache.l2` has no Redis that nodes share; expected one there, or no \
                           `shared` for a limit of each node";
            report.add(at.key("shared"), message);
        }
    }
}

fn sizes(limit: &RateLimitConfig, at: &ConfigPath, report: &mut FindingCollector) {
    if !KEYS.contains(&limit.max_keys) {
        let message = format!(
            "{} keys; expected {} to {}: memory for them is set aside, 32 bytes for each",
            limit.max_keys,
            KEYS.start(),
            KEYS.end()
        );
        report.add(at.key("max_keys"), message);
    }
    let burst = limit.burst();
    let whole = limit.rate.interval().as_nanos() * u128::from(burst);
    if limit.burst == Some(0) {
        report.add(
            at.key("burst"),
            "0 would admit nothing; expected 1 or more, or no key for the number in `rate`",
        );
    } else if whole > LONGEST_SPAN.as_nanos() {
        let message = format!(
            "{burst} requests are more than {} earns in a year; expected a lower burst",
            limit.rate
        );
        report.add(at.key("burst"), message);
    }
}

/// Checks the limits that a route names.
pub fn check(
    config: &GatewayConfig,
    route: &RouteConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    for (n, name) in route.limit.iter().enumerate() {
        let at = at.key("limit").index(n);
        if route.limit[..n].contains(name) {
            let message = format!("`{name}` is named twice; expected each limit once");
            report.add(at, message);
        } else {
            report.known(at, "limit", name, &config.limits);
        }
    }
}
