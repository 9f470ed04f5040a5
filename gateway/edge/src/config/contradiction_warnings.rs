//! Warnings about rules of a route that contradict each other, so that one of them does nothing, and
//! about what they make of one client for an answer that all may get.

use super::GatewayConfig;
use super::problem::{ConfigFinding, ConfigPath, path};
use crate::pattern::Pattern;
use crate::proxy::config::rules::access;
use crate::proxy::config::rules::headers::{self, HeaderChangesConfig};
use crate::proxy::config::rules::redirect::{self, TargetHost};
use crate::proxy::config::rules::{TemplatePiece, TextTemplate};
use crate::proxy::config::{OnOffSwitch, OneOrMany, RouteConfig};

/// Finds the contradictions in a valid configuration.
pub fn warnings(config: &GatewayConfig) -> Vec<ConfigFinding> {
    let trusted = config.listeners.iter().flat_map(|one| &one.trusted_headers);
    let trusted: Vec<&String> = trusted.collect();
    let mut found = Vec::new();
    for (n, route) in config.routes.iter().enumerate() {
        let at = path(&["routes"]).index(n);
        found.extend(fields_of_other_rules(config, route, &at));
        found.extend(answers_of_other_rules(route, &at));
        found.extend(made_of_the_client(route, &trusted, &at));
        found.extend(places_that_stay_empty(route, &at));
        found.extend(routed_by_what_is_taken(route, &at));
        found.extend(allowed_and_denied(route, &at));
        found.extend(redirects_to_itself(&config.routes[..=n], &at));
        found.extend(preflights_of_a_redirect(route, &at));
        found.extend(prefix_that_is_never_there(route, &at));
        found.extend(mirrored_to_itself(route, &at));
        found.extend(no_depth(route, &at));
        found.extend(shared_beside_auth(route, &at));
    }
    found
}

/// The fields that a rule writes, each with its values and its place.
fn written<'a>(
    changes: &'a HeaderChangesConfig,
    at: &ConfigPath,
) -> Vec<(&'a str, Vec<&'a str>, ConfigPath)> {
    let set = changes.set.iter().map(|(name, value)| {
        let at = at.key("set").key(name.as_str());
        (name.as_str(), vec![value.as_str()], at)
    });
    let add = changes.add.iter().map(|(name, values)| {
        let at = at.key("add").key(name.as_str());
        let values = values.as_slice().iter().map(String::as_str);
        (name.as_str(), values.collect(), at)
    });
    set.chain(add).collect()
}

fn places<'a>(values: &'a [&'a str]) -> impl Iterator<Item = TemplatePiece> + 'a {
    let templates = values
        .iter()
        .filter_map(|text| TextTemplate::parse(text).ok());
    templates.flat_map(|template| template.pieces().to_vec())
}

/// Fields of requests that another rule of the route sets.
fn fields_of_other_rules(
    config: &GatewayConfig,
    route: &RouteConfig,
    at: &ConfigPath,
) -> Vec<ConfigFinding> {
    let is = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
    let taken = route.auth.iter().flat_map(|auth| auth.taken());
    let taken: Vec<&str> = taken.collect();
    let compress = route
        .compress
        .as_ref()
        .or(config.defaults.compress.as_ref());
    let compresses = compress.is_some_and(|compress| !compress.encodings.is_empty());
    let at = at.key("headers").key("request");
    let mut found = Vec::new();
    for (name, _, at) in written(&route.headers.request, &at) {
        let rule = if taken.iter().any(|taken| is(name, taken)) {
            "what `auth` has found out about the sender"
        } else if route.device.as_ref().is_some_and(|device| is(name, device)) {
            "the kind of device that `device` tells, which the key holds"
        } else if is(name, "accept-language") && !route.accept_language.is_empty() {
            "the language that `accept_language` has chosen, which the key holds"
        } else if is(name, "x-request-id") && route.request_id == OnOffSwitch::On {
            "the name that `request_id` gives, so that origin and log name the request differently"
        } else if is(name, "accept-encoding") && compresses {
            "what `compress` asks the origin for"
        } else if is(name, "accept-encoding") {
            "what the client takes, and without `compress` nobody undoes a coding that it does not \
             take"
        } else {
            continue;
        };
        let message =
            format!("`{name}` set here hides from the origin {rule}; expected another field");
        found.push(ConfigFinding::key(at, message));
    }
    found
}

/// Fields of answers that another rule of the route, or the cache, sets.
fn answers_of_other_rules(route: &RouteConfig, at: &ConfigPath) -> Vec<ConfigFinding> {
    let at = at.key("headers").key("response");
    let mut found = Vec::new();
    for (name, _, at) in written(&route.headers.response, &at) {
        let lower = name.to_ascii_lowercase();
        let message = match &*lower {
            "etag" | "last-modified" => format!(
                "clients ask with the `{name}` that they got, and it is compared with that of the \
                 stored answer: one that is set here never matches; expected none"
            ),
            cors if cors.starts_with("access-control-") && route.cors.is_some() => format!(
                "without effect: `cors` replaces `{name}` of every answer; expected it there"
            ),
            _ => continue,
        };
        found.push(ConfigFinding::key(at, message));
    }
    found
}

/// Fields for the origin that differ between clients whose requests have one key.
fn made_of_the_client(
    route: &RouteConfig,
    trusted: &[&String],
    at: &ConfigPath,
) -> Vec<ConfigFinding> {
    if route.cache == OnOffSwitch::Off || route.key.plugin.is_some() {
        return Vec::new();
    }
    let keyed = route.key.headers.iter().chain(&route.device);
    let keyed: Vec<&String> = keyed.chain(trusted.iter().copied()).collect();
    let is_keyed = |name: &str| {
        let is_language = name == "accept-language" && !route.accept_language.is_empty();
        let mut keyed = keyed.iter();
        is_language || keyed.any(|keyed| keyed.eq_ignore_ascii_case(name))
    };
    let at = at.key("headers").key("request");
    let mut found = Vec::new();
    for (name, values, at) in written(&route.headers.request, &at) {
        // Every origin gets the client's address, and by the usual names it is asked for no more.
        let names_address = headers::is_posing(name);
        let unkeyed = places(&values).find_map(|place| match place {
            TemplatePiece::Header(source) if !is_keyed(source.as_str()) => Some((
                format!("{{header.{source}}}"),
                format!("`key: {{ headers: [{source}] }}`"),
            )),
            TemplatePiece::Client if !names_address => Some((
                "{client}".to_owned(),
                "answers that do not depend on it".to_owned(),
            )),
            _ => None,
        });
        if let Some((place, expected)) = unkeyed {
            let message = format!(
                "`{name}` depends on who asks ({place}), and what the origin makes of it may be \
                 stored for everybody; expected {expected}, or `cache: off`"
            );
            found.push(ConfigFinding::value(at, message));
        }
    }
    found
}

/// Places for a credential that `auth` has taken out of the request.
fn places_that_stay_empty(route: &RouteConfig, at: &ConfigPath) -> Vec<ConfigFinding> {
    let ends_here = route.auth.as_ref().is_some_and(|auth| !auth.passes());
    let at = at.key("headers").key("request");
    let fields = written(&route.headers.request, &at).into_iter();
    let empty = fields.filter(|(_, values, _)| {
        ends_here
            && places(values).any(
                |place| matches!(place, TemplatePiece::Header(name) if name == "authorization"),
            )
    });
    let found = empty.map(|(name, _, at)| {
        let message = format!(
            "`{name}` stays empty: `auth` takes `Authorization` out of the request; expected \
             `pass: true` there, or a field of its `take`"
        );
        ConfigFinding::value(at, message)
    });
    found.collect()
}

/// A route is found before anybody is asked who sends the request.
fn routed_by_what_is_taken(route: &RouteConfig, at: &ConfigPath) -> Vec<ConfigFinding> {
    let taken = route.auth.iter().flat_map(|auth| auth.taken());
    let taken: Vec<&str> = taken.collect();
    let fields = route.matches.header.keys();
    let named = fields.filter(|name| taken.iter().any(|taken| taken.eq_ignore_ascii_case(name)));
    let found = named.map(|name| {
        let message = format!(
            "the route is found by the client's own `{name}`, before `auth` sets that field; \
             expected another condition"
        );
        let at = at.key("match").key("header").key(name.as_str());
        ConfigFinding::key(at, message)
    });
    found.collect()
}

/// A network that is in both lists is denied.
fn allowed_and_denied(route: &RouteConfig, at: &ConfigPath) -> Vec<ConfigFinding> {
    let network = |text: &String| access::canonical_network(text);
    let denied: Vec<_> = route.access.deny.iter().filter_map(network).collect();
    let allowed = route.access.allow.iter().enumerate();
    let both = allowed.filter(|(_, text)| network(text).is_some_and(|one| denied.contains(&one)));
    let found = both.map(|(n, text)| {
        let message = format!("without effect: `deny` names {text} as well; expected it once");
        let at = at.key("access").key("allow").index(n);
        ConfigFinding::value(at, message)
    });
    found.collect()
}

/// A redirect whose target is the last of these routes again.
fn redirects_to_itself(routes: &[RouteConfig], at: &ConfigPath) -> Option<ConfigFinding> {
    let (route, earlier) = routes.split_last()?;
    let given = route.redirect.as_ref()?;
    let to = TextTemplate::parse(&given.to).ok()?;
    if redirect::target_host(&to) != Ok(TargetHost::Own) {
        return None;
    }
    let comes_back = match to.pieces() {
        [TemplatePiece::Path] => true,
        [TemplatePiece::Text(text)] => {
            let end = text.find(['?', '#']).unwrap_or(text.len());
            let target = &text[..end];
            let is_plain = route.matches.header.is_empty() && route.matches.query.is_empty();
            let mut earlier = earlier.iter();
            is_plain && takes(route, target) && !earlier.any(|earlier| takes(earlier, target))
        }
        _ => false,
    };
    let message = "leads to where this route answers again, so that clients go round until they give \
                   up; expected a target that it does not take";
    comes_back.then(|| ConfigFinding::value(at.key("redirect").key("to"), message))
}

/// Whether a route may take requests for a path.
fn takes(route: &RouteConfig, path: &str) -> bool {
    let patterns = route.matches.path.as_ref().map(OneOrMany::as_slice);
    patterns.is_none_or(|patterns| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| Pattern::new(pattern).matches(path))
    })
}

/// A redirect answers before a preflight would be.
fn preflights_of_a_redirect(route: &RouteConfig, at: &ConfigPath) -> Option<ConfigFinding> {
    route.redirect.as_ref().and(route.cors.as_ref())?;
    let message = "preflights get the redirect, and browsers follow none for them: scripts can't send \
                   what needs a preflight; expected `cors` on the route that it leads to";
    Some(ConfigFinding::key(at.key("cors"), message))
}

/// A prefix to be removed that no path of the route begins with.
fn prefix_that_is_never_there(route: &RouteConfig, at: &ConfigPath) -> Option<ConfigFinding> {
    let prefix = route.rewrite.strip_prefix.as_deref()?;
    let patterns = route.matches.path.as_ref()?.as_slice();
    let may_begin = |pattern: &String| {
        let end = pattern.find(['*', '?', '\\']);
        let fixed = &pattern[..end.unwrap_or(pattern.len())];
        match end {
            Some(_) => fixed.starts_with(prefix) || prefix.starts_with(fixed),
            None => fixed.starts_with(prefix),
        }
    };
    if patterns.iter().any(may_begin) {
        return None;
    }
    let message = format!(
        "without effect: no path that `match` takes begins with {prefix}; expected a prefix of those \
         paths"
    );
    let at = at.key("rewrite").key("strip_prefix");
    Some(ConfigFinding::value(at, message))
}

/// The origin would get every request twice.
fn mirrored_to_itself(route: &RouteConfig, at: &ConfigPath) -> Option<ConfigFinding> {
    let mirror = route.mirror.as_ref()?;
    if route.upstream.as_ref() != Some(&mirror.upstream) {
        return None;
    }
    let message = format!(
        "the copies go to `{}`, from where the answers come: it gets these requests twice; expected \
         another upstream",
        mirror.upstream
    );
    let at = at.key("mirror").key("upstream");
    Some(ConfigFinding::value(at, message))
}

/// Caches behind this one ask nobody who may have an answer.
fn shared_beside_auth(route: &RouteConfig, at: &ConfigPath) -> Vec<ConfigFinding> {
    if route.auth.is_none() {
        return Vec::new();
    }
    let response = &route.headers.response;
    let fields = written(response, &at.key("headers").key("response"));
    let shared = fields.into_iter().filter(|(name, values, _)| {
        let said = values.join(",").to_ascii_lowercase();
        let directives = || {
            said.split(',')
                .map(|one| one.split_once('=').unwrap_or((one, "")))
        };
        let says = |wanted: &str| directives().any(|(name, _)| name.trim() == wanted);
        let lasts = |wanted: &str| {
            let is_above_zero = |value: &str| value.trim().starts_with(|c| matches!(c, '1'..='9'));
            directives().any(|(name, value)| name.trim() == wanted && is_above_zero(value))
        };
        let name = name.to_ascii_lowercase();
        let is_shared = match &*name {
            "cache-control" => says("public") || lasts("s-maxage"),
            name => {
                let is_targeted = name.ends_with("-cache-control") || name == "surrogate-control";
                is_targeted && (lasts("max-age") || lasts("s-maxage"))
            }
        };
        is_shared && !says("no-store") && !says("private")
    });
    let message = "a cache between the gateway and its clients may give such an answer to those whom \
                   `auth` would refuse; expected `private`, or no such field";
    shared
        .map(|(_, _, at)| ConfigFinding::value(at, message))
        .collect()
}

/// Pages without a single fragment.
fn no_depth(route: &RouteConfig, at: &ConfigPath) -> Option<ConfigFinding> {
    let esi = route.esi.as_ref()?;
    let key = match (esi.depth, esi.includes) {
        (0, _) => "depth",
        (_, 0) => "includes",
        _ => return None,
    };
    let message = "with 0 every include counts as failed; expected 1 or more, or no `esi`";
    Some(ConfigFinding::value(at.key("esi").key(key), message))
}
