//! Checks the upstreams: their targets, how requests are distributed, health, names and TLS.

use std::collections::HashSet;

use super::collector::FindingCollector;
use super::form;
use crate::config::GatewayConfig;
use crate::config::problem::{ConfigFinding, ConfigPath, path};
use crate::origin::config::{
    BalanceMethod, HedgeDelay, NameResolutionConfig, OriginVerification, TargetConfig,
    TargetLocation, UpstreamConfig,
};
use crate::units::{ByteSize, ConfigDuration};

/// What a stream to an origin may be read ahead: at least a frame (RFC 9113 §4.2).
const STREAM_WINDOWS: std::ops::RangeInclusive<ByteSize> = ByteSize::kib(16)..=ByteSize::mib(1_024);

pub(super) fn check(config: &GatewayConfig, report: &mut FindingCollector) {
    for (name, upstream) in &config.upstreams {
        let at = path(&["upstreams"]).key(name);
        report.form_of_key(&at, form::name(name));
        if upstream.targets.is_empty() && upstream.targets_file.is_none() {
            report.add(
                at.key("targets"),
                "no targets; expected at least one URL, as in http://127.0.0.1:9000",
            );
        }
        report
            .findings
            .extend(listed_targets(&upstream.targets, &at.key("targets")));
        name_resolution(&upstream.resolver, &at.key("resolver"), report);
        balance(upstream, &at, report);
        active_health(upstream, &at, report);
        origin_tls(upstream, &at, report);
        let timeouts = &upstream.timeouts;
        for (key, time) in [
            ("connect", timeouts.connect),
            ("first_byte", timeouts.first_byte),
            ("idle", timeouts.idle),
            ("tunnel", timeouts.tunnel),
        ] {
            report.positive(at.key("timeouts").key(key), time.0.as_millis() as u64);
        }
        report.positive(
            at.key("load").key("max_concurrent"),
            upstream.load.max_concurrent as u64,
        );
        adaptive_limit(upstream, &at, report);
    }
}

/// Checks a list of targets that stands at this place.
pub fn listed_targets(targets: &[TargetConfig], at: &ConfigPath) -> Vec<ConfigFinding> {
    let mut report = FindingCollector::default();
    for (n, target) in targets.iter().enumerate() {
        let at = at.index(n);
        match &target.location {
            TargetLocation::Url(url) => report.form(&at, form::target(url)),
            TargetLocation::Dns(named) => {
                report.form(&at.key("dns"), form::host_name(&named.name));
                if named.port == Some(0) {
                    report.add(at.key("port"), "0 is no port; expected 1 to 65535");
                }
            }
            TargetLocation::Srv(service) => {
                report.form(&at.key("srv"), form::host_name(&service.name));
            }
        }
    }
    report.findings
}

/// A target with the name of one before it: what operators order concerns both, and nobody can tell
/// them apart. `at` is the list.
pub fn named_twice(targets: &[TargetConfig], at: &ConfigPath) -> Option<ConfigFinding> {
    let mut seen = HashSet::new();
    let is_known = |target: &TargetConfig| match (&target.name, &target.location) {
        (Some(name), _) => !seen.insert(name.clone()),
        (None, TargetLocation::Url(_)) => {
            !seen.insert(target.url().trim_end_matches('/').to_owned())
        }
        (None, TargetLocation::Dns(_) | TargetLocation::Srv(_)) => false,
    };
    let nth = targets.iter().position(is_known)?;
    let message = "a target before it has the same name: an order concerns both, metrics add them \
                   up, and `balance.hash` gives one of them all that is meant for either of the \
                   two; expected a `name` of its own, or one target with a greater `weight`";
    Some(ConfigFinding::value(at.index(nth), message))
}

/// Checks how names are resolved.
fn name_resolution(
    resolver: &NameResolutionConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    if resolver.floor < ConfigDuration::secs(1) {
        let said = format!("{} is too often; expected at least 1s", resolver.floor);
        report.add(at.key("floor"), said);
    }
    if resolver.ceiling < resolver.floor {
        let said = format!(
            "{} is less than the floor of {}; expected as much or more",
            resolver.ceiling, resolver.floor
        );
        report.add(at.key("ceiling"), said);
    }
    report.positive(at.key("max_targets"), resolver.max_targets as u64);
}

/// Checks how requests are distributed and repeated.
fn balance(upstream: &UpstreamConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let (balance, at_balance) = (&upstream.balance, at.key("balance"));
    match (balance.by, &balance.hash) {
        (BalanceMethod::Hash, None) => report.add(
            at_balance.key("by"),
            "nothing to choose by; set `hash` to key, client, `header NAME` or `cookie NAME`",
        ),
        (BalanceMethod::LeastRequest | BalanceMethod::RoundRobin, Some(_)) => report.add(
            at_balance.key("hash"),
            "given beside `by` with another method; expected `by: hash`",
        ),
        _ => {}
    }
    if !(1.0..=100.0).contains(&balance.bound) {
        let said = format!(
            "{} is no bound; expected a number from 1 to 100",
            balance.bound
        );
        report.add(at_balance.key("bound"), said);
    }
    if let Some(sticky) = &balance.sticky {
        let at = at_balance.key("sticky");
        report.form(&at.key("cookie"), form::name(&sticky.cookie));
        let seconds = sticky.max_age.map_or(1, |age| age.0.as_secs());
        report.positive(at.key("max_age"), seconds);
    }
    let passive = &upstream.health.passive;
    let percents = [
        (at_balance.key("panic"), balance.panic),
        (
            at.key("health").key("passive").key("max_ejected"),
            passive.max_ejected,
        ),
        (at.key("retry").key("budget"), upstream.retry.budget),
    ];
    for (key, percent) in percents {
        if percent > 100 {
            report.add(
                key,
                format!("{percent} is no share in percent; expected 0 to 100"),
            );
        }
    }
    let window = upstream.pool.stream_window;
    if !STREAM_WINDOWS.contains(&window) {
        let said = format!("{window} is no window of a stream; expected 16KiB to 1GiB");
        report.add(at.key("pool").key("stream_window"), said);
    }
    if let Some(hedge) = &upstream.retry.hedge {
        let at = at.key("retry").key("hedge");
        if let HedgeDelay::Fixed(time) = hedge.after {
            report.positive(at.key("after"), time.0.as_millis() as u64);
        }
        if upstream.retry.attempts < 2 {
            let message = "a second request is one more attempt than `attempts` allows; \
                           expected 2 or more attempts, or no `hedge`";
            report.push(ConfigFinding::key(at, message));
        }
    }
    let attempts = u64::from(upstream.retry.attempts);
    report.positive(at.key("retry").key("attempts"), attempts);
    report.each(
        &at.key("retry").key("methods"),
        &upstream.retry.methods,
        form::method,
    );
}

/// Checks between which bounds a limit is found out.
fn adaptive_limit(upstream: &UpstreamConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let (load, at) = (&upstream.load, at.key("load").key("adaptive").key("min"));
    let Some(adaptive) = &load.adaptive else {
        return;
    };
    report.positive(at.clone(), adaptive.min as u64);
    if adaptive.min > load.max_concurrent {
        let message = format!(
            "{} is more than max_concurrent ({}); expected at most that",
            adaptive.min, load.max_concurrent
        );
        report.add(at, message);
    }
}

/// Checks how targets are asked whether they are well.
fn active_health(upstream: &UpstreamConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let Some(active) = &upstream.health.active else {
        return;
    };
    let at = at.key("health").key("active");
    report.form(&at.key("path"), form::origin_path(&active.path));
    if let Some(host) = &active.host {
        report.form(&at.key("host"), form::host_field(host));
    }
    for (key, number) in [
        ("interval", active.interval.0.as_millis() as u64),
        ("timeout", active.timeout.0.as_millis() as u64),
        ("fall", u64::from(active.fall)),
        ("rise", u64::from(active.rise)),
    ] {
        report.positive(at.key(key), number);
    }
    if active.statuses.is_empty() {
        let message = "no status would be good; expected some, as in [200-399]";
        report.add(at.key("statuses"), message);
    }
}

/// Checks what an upstream says of TLS, as far as that is possible without its files.
fn origin_tls(upstream: &UpstreamConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let (tls, at) = (&upstream.tls, at.key("tls"));
    match (tls.verify, &tls.insecure) {
        (OriginVerification::Off, reason) => {
            let reason = reason.as_deref().unwrap_or_default();
            if reason.trim().is_empty() {
                let message = "anybody on the way can pose as the origin; expected `insecure: \"why\"` beside it, or `ca_file` with the origin's authority";
                report.add(at.key("verify"), message);
            }
        }
        (OriginVerification::On, Some(_)) => {
            let message = "given beside `verify: on`; expected it beside `verify: off` alone";
            report.add(at.key("insecure"), message);
        }
        (OriginVerification::On, None) => {}
    }
}
