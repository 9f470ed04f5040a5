//! Warnings about rules of routes that have no effect, or work against each other.

use super::GatewayConfig;
use super::problem::{ConfigFinding, ConfigPath, path};
use crate::cache::config::LifetimeRuleConfig;
use crate::pattern::Pattern;
use crate::proxy::config::rules::maintenance::MaintenanceServing;
use crate::proxy::config::rules::pages::{ErrorMaker, ErrorPageConfig};
use crate::proxy::config::{CompressConfig, OnOffSwitch, RouteConfig};

/// Finds what is without effect in the rules of a valid configuration.
pub fn warnings(config: &GatewayConfig) -> Vec<ConfigFinding> {
    let defaults = path(&["defaults"]);
    let mut found = covered_lifetimes(config.defaults.policy.lifetimes.as_deref(), &defaults);
    for (n, route) in config.routes.iter().enumerate() {
        let at = path(&["routes"]).index(n);
        if route.cache == OnOffSwitch::Off {
            found.extend(beside_no_cache(route, &at));
        }
        found.extend(keyed_cookies_that_are_removed(route, &at));
        found.extend(language_keyed_twice(route, &at));
        found.extend(pages_that_are_not_compressed(
            route,
            config.defaults.compress.as_ref(),
            &at,
        ));
        found.extend(covered_pages(&route.errors, &at));
        let lifetimes = route.policy.lifetimes.as_deref();
        found.extend(covered_lifetimes(lifetimes, &at.key("policy")));
    }
    found
}

/// What is about stored answers, on a route that stores none.
fn beside_no_cache(route: &RouteConfig, at: &ConfigPath) -> Vec<ConfigFinding> {
    let mut found = Vec::new();
    let cleans = [
        ("cookies", route.cookies != Default::default()),
        ("accept_language", !route.accept_language.is_empty()),
    ];
    let cleans = cleans.into_iter().filter(|(_, is_given)| *is_given);
    let cleans: Vec<_> = cleans.map(|(key, _)| key).collect();
    for key in &cleans {
        let message = format!(
            "with `cache: off` nothing is stored that it could keep from being split, and the \
             origin does not get what the client has sent; expected no `{key}` here"
        );
        found.push(ConfigFinding::key(at.key(*key), message));
    }
    // Requests that bypass the cache keep their cookies and languages.
    if cleans.is_empty() && route.bypass != Default::default() {
        let message = "without effect: with `cache: off` every request bypasses the cache; \
                       expected no `bypass` here";
        found.push(ConfigFinding::key(at.key("bypass"), message));
    }
    if route.maintenance.serve == MaintenanceServing::Cached {
        let message = "without effect: with `cache: off` nothing is stored that could be served \
                       during maintenance; expected no `serve` here";
        let at = at.key("maintenance").key("serve");
        found.push(ConfigFinding::value(at, message));
    }
    found
}

/// A cookie that is removed before the key is derived tells no requests apart.
fn keyed_cookies_that_are_removed(route: &RouteConfig, at: &ConfigPath) -> Vec<ConfigFinding> {
    let names = |texts: &[String], name: &str| {
        let mut texts = texts.iter();
        texts.any(|text| Pattern::new(text).matches(name))
    };
    let filter = &route.cookies;
    let removed = |name: &str| {
        let is_kept = filter.keep.as_deref().is_none_or(|keep| names(keep, name));
        !is_kept || names(&filter.drop, name)
    };
    let keyed = route.key.cookies.iter().enumerate();
    let keyed = keyed.filter(|(_, name)| removed(name));
    let found = keyed.map(|(n, name)| {
        let message = format!(
            "`cookies` removes {name} before the key is derived, so that it tells no requests \
             apart; expected it to be kept, or a key without it"
        );
        let at = at.key("key").key("cookies").index(n);
        ConfigFinding::value(at, message)
    });
    found.collect()
}

/// The language that was chosen is in the key already.
fn language_keyed_twice(route: &RouteConfig, at: &ConfigPath) -> Option<ConfigFinding> {
    let headers = &route.key.headers;
    let is_language = |name: &String| name.eq_ignore_ascii_case("accept-language");
    let n = headers.iter().position(is_language)?;
    if route.accept_language.is_empty() {
        return None;
    }
    let message = "`accept_language` puts the language that it has chosen into the key; expected a \
                   key without this field";
    let at = at.key("key").key("headers").index(n);
    Some(ConfigFinding::value(at, message))
}

/// A page that is put together is not stored, and only what is stored is compressed.
fn pages_that_are_not_compressed(
    route: &RouteConfig,
    defaults: Option<&CompressConfig>,
    at: &ConfigPath,
) -> Option<ConfigFinding> {
    route.esi.as_ref()?;
    let compress = route.compress.as_ref().or(defaults)?;
    if compress.passes || compress.encodings.is_empty() {
        return None;
    }
    let message = "pages that are put together are not compressed: what a client gets of them is \
                   never stored, and only what is stored is compressed; expected `compress: \
                   { passes: true }`, unless a page holds a secret beside text that clients choose";
    Some(ConfigFinding::key(at.key("esi"), message))
}

/// Pages for errors that earlier ones in the list take.
fn covered_pages(pages: &[ErrorPageConfig], at: &ConfigPath) -> Vec<ConfigFinding> {
    let takes = |earlier: &[ErrorPageConfig], of: ErrorMaker, status: Option<u16>| {
        earlier.iter().any(|page| {
            let is_of = page.of == ErrorMaker::Any || page.of == of;
            let all = page.statuses.is_empty();
            is_of && (all || status.is_some_and(|status| page.statuses.contains(&status)))
        })
    };
    let pages_of = pages.iter().enumerate();
    let covered = pages_of.filter(|(n, page)| {
        let (earlier, mut statuses) = (&pages[..*n], page.statuses.iter());
        match page.statuses.is_empty() {
            true => takes(earlier, page.of, None),
            false => statuses.all(|status| takes(earlier, page.of, Some(*status))),
        }
    });
    let found = covered.map(|(n, _)| {
        let message = "without effect: earlier entries take all of these errors; expected the \
                       narrower entry first";
        ConfigFinding::value(at.key("errors").index(n), message)
    });
    found.collect()
}

/// Lifetimes for answers that one earlier rule in the table takes.
fn covered_lifetimes(rules: Option<&[LifetimeRuleConfig]>, at: &ConfigPath) -> Vec<ConfigFinding> {
    let rules = rules.unwrap_or_default();
    let is_covered = |n: usize, rule| {
        rules[..n]
            .iter()
            .position(|earlier| takes_all(earlier, rule))
    };
    let covered = rules.iter().enumerate();
    let covered = covered.filter_map(|(n, rule)| Some((n, is_covered(n, rule)?)));
    let found = covered.map(|(n, earlier)| {
        let message = format!(
            "without effect: entry {} of the table takes all of these answers; expected the \
             narrower entry first",
            earlier + 1
        );
        ConfigFinding::value(at.key("lifetimes").index(n), message)
    });
    found.collect()
}

/// Whether the first rule holds wherever the second one does.
fn takes_all(first: &LifetimeRuleConfig, second: &LifetimeRuleConfig) -> bool {
    let texts = |first: &[String], second: &[String]| {
        let taken = |text: &String| first.iter().any(|pattern| takes_texts_of(pattern, text));
        first.is_empty() || (!second.is_empty() && second.iter().all(taken))
    };
    // No status means those to which `ttl` applies, which are not told here.
    let statuses = match (first.statuses.is_empty(), second.statuses.is_empty()) {
        (true, true) => true,
        (false, false) => {
            let mut second = second.statuses.iter();
            second.all(|status| first.statuses.contains(status))
        }
        _ => false,
    };
    let least = first.min_bytes.is_none_or(|least| {
        let second = second.min_bytes;
        second.is_some_and(|second| second.0 >= least.0)
    });
    let most = first.max_bytes.is_none_or(|most| {
        let second = second.max_bytes;
        second.is_some_and(|second| second.0 <= most.0)
    });
    let (types, paths) = (
        texts(&first.types, &second.types),
        texts(&first.paths, &second.paths),
    );
    types && paths && statuses && least && most
}

/// Whether a pattern matches all that another one matches, as far as that can be told at once.
fn takes_texts_of(pattern: &str, other: &str) -> bool {
    let is_plain = |text: &str| !text.contains(['*', '?', '\\']);
    let begins = |beginning: &str| is_plain(beginning) && other.starts_with(beginning);
    pattern == other
        || (is_plain(other) && Pattern::new(pattern).matches(other))
        || pattern.strip_suffix('*').is_some_and(begins)
}
