//! Checks the meaning of a policy, alone or together with `defaults`.

use super::{FindingCollector, form};
use crate::cache::config::{CachePolicyConfig, LifetimeRuleConfig, TtlMode};
use crate::config::problem::ConfigPath;

/// Checks `own`, whose configuration is at path `at`. What it leaves out comes from `defaults`.
pub fn check(
    own: &CachePolicyConfig,
    defaults: &CachePolicyConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    lifetime(own, defaults, at, report);
    timeouts(own, defaults, at, report);
    if let Some(jitter) = own.jitter.filter(|percent| *percent > 100) {
        report.add(
            at.key("jitter"),
            format!("{jitter} is more than 100 percent; expected 0 to 100"),
        );
    }
    for (n, rule) in own.lifetimes.iter().flatten().enumerate() {
        lifetime_rule(rule, &at.key("lifetimes").index(n), report);
    }
    if let Some(statuses) = &own.statuses {
        self::statuses(statuses, &at.key("statuses"), report);
    }
    if let Some(targeted) = &own.targeted {
        report.each(&at.key("targeted"), targeted, form::header_name);
    }
    for (n, field) in own.tags_from.iter().flatten().enumerate() {
        let at = at.key("tags_from").index(n).key("header");
        report.form(&at, form::header_name(&field.header));
    }
    if let Some(negative) = &own.negative_cache {
        statuses(
            &negative.statuses,
            &at.key("negative_cache").key("statuses"),
            report,
        );
    }
}

fn lifetime_rule(rule: &LifetimeRuleConfig, at: &ConfigPath, report: &mut FindingCollector) {
    report.each(&at.key("types"), &rule.types, form::content_type);
    report.each(&at.key("paths"), &rule.paths, form::path_pattern);
    statuses(&rule.statuses, &at.key("statuses"), report);
    if let (Some(min), Some(max)) = (rule.min_bytes, rule.max_bytes)
        && min.0 > max.0
    {
        let message = format!("{min} is more than max_bytes ({max}), so no response is meant");
        report.add(at.key("min_bytes"), message);
    }
}

/// The modes override and cap need a configured lifetime.
fn lifetime(
    own: &CachePolicyConfig,
    defaults: &CachePolicyConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    let Some(mode @ (TtlMode::Override | TtlMode::Cap)) = own.mode else {
        return;
    };
    let given = [own, defaults]
        .iter()
        .any(|p| p.ttl.is_some() || p.l1.is_some() || p.lifetimes.is_some());
    if !given {
        let word = if mode == TtlMode::Override {
            "override"
        } else {
            "cap"
        };
        report.add(
            at.key("mode"),
            format!("mode `{word}` without a lifetime; expected `ttl` beside it, as in `ttl: 60s`"),
        );
    }
}

fn timeouts(
    own: &CachePolicyConfig,
    defaults: &CachePolicyConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    let Some(given) = own.timeouts else { return };
    let base = defaults.timeouts.unwrap_or_default();
    let (soft, hard) = (given.soft.or(base.soft), given.hard.or(base.hard));
    if let (Some(soft), Some(hard)) = (soft, hard)
        && soft >= hard
    {
        let key = if given.soft.is_some() { "soft" } else { "hard" };
        report.add(
            at.key("timeouts").key(key),
            format!("soft ({soft}) is not below hard ({hard}); expected soft < hard"),
        );
    }
    if hard.is_some_and(|h| h.0.is_zero()) {
        report.add(
            at.key("timeouts").key("hard"),
            "0 lets no load finish; expected a duration, as in 30s",
        );
    }
}

fn statuses(codes: &[u16], at: &ConfigPath, report: &mut FindingCollector) {
    for (n, code) in codes.iter().enumerate() {
        report.form(&at.index(n), form::status(*code));
    }
}
