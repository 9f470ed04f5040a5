//! Checks how the requests of a route show who sends them.

use std::collections::BTreeSet;

use crate::config::GatewayConfig;
use crate::config::check::{FindingCollector, form};
use crate::config::problem::ConfigPath;
use crate::proxy::config::auth::htpasswd;
use crate::proxy::config::auth::{
    AuthConfig, ForwardAuthConfig, JwtAlgorithm, JwtConfig, KeyLocation, VerdictCacheConfig,
};
use crate::proxy::config::{OnOffSwitch, RouteConfig, SplitBy, UnkeyedAction};
use crate::rate_limit::config::{LimitKey, LimitPlace};

/// The least octets of a secret of HS256 (RFC 7518 §3.2).
const LEAST_SECRET: usize = 32;

/// Fields of a connection (RFC 9110 §7.6.1).
const OF_THE_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that the origin must have from nobody but the client or the connection.
const NOT_TAKEN: [&str; 7] = [
    "authorization",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "range",
    "via",
];

/// Checks the section at `at`.
pub fn check(
    config: &GatewayConfig,
    route: &RouteConfig,
    auth: &AuthConfig,
    (at, report): (&ConfigPath, &mut FindingCollector),
) {
    kinds(auth, at, report);
    if let Some(realm) = &auth.realm
        && !realm
            .bytes()
            .all(|octet| matches!(octet, b' '..=b'~') && !b"\"\\".contains(&octet))
    {
        let message = "expected letters, digits and signs of ASCII without \" and \\";
        report.add(at.key("realm"), message);
    }
    if let Some(users) = &auth.users
        && let Err(reason) = htpasswd::parse(users)
    {
        report.add(at.key("basic"), reason);
    }
    if let Some(forward) = &auth.forward {
        self::forward(config, forward, &at.key("forward"), report);
    }
    if let Some(jwt) = &auth.jwt {
        self::jwt(config, jwt, &at.key("jwt"), report);
    }
    taken(route, auth, at, report);
    chosen_before(config, route, auth, (at, report));
}

/// What is looked at before anybody has said who sends the request, and what is looked at when his
/// credentials are gone.
fn chosen_before(
    config: &GatewayConfig,
    route: &RouteConfig,
    auth: &AuthConfig,
    (at, report): (&ConfigPath, &mut FindingCollector),
) {
    let section = match auth.forward {
        Some(_) => at.key("forward").key("take"),
        None => at.key("jwt").key("take"),
    };
    let is_taken = |name: &str| {
        let mut taken = auth.taken().into_iter();
        taken.any(|taken| taken.eq_ignore_ascii_case(name))
    };
    for name in &route.limit {
        let Some(limit) = config.limits.get(name) else {
            continue;
        };
        if let LimitKey::Header(field) = &limit.key
            && limit.at == LimitPlace::Edge
            && is_taken(field.as_str())
        {
            let message = format!(
                "the limit `{name}` counts by `{field}`, which clients choose themselves where it \
                 counts: before `auth`; expected `at: origin` for that limit, or another `key`"
            );
            report.add(section.clone(), message);
        }
    }
    if let Some(SplitBy::Header(field)) = route.split.as_ref().map(|split| &split.by)
        && is_taken(field.as_str())
    {
        let message = format!(
            "`split` goes by `{field}`, which clients choose themselves there: before `auth`; \
             expected another `by`"
        );
        report.add(section, message);
    }
    if auth.passes() {
        return;
    }
    let is_credential = |name: &String| name.eq_ignore_ascii_case("authorization");
    if route.key.headers.iter().any(is_credential) {
        let message = "the key has `authorization`, which ends here before the key is derived, so that \
                       all users share one entry; expected `pass: true`, or a key without it";
        report.add(at.clone(), message);
    }
    let cookie = auth.jwt.as_ref().and_then(|jwt| jwt.cookie.as_ref());
    if let Some(name) = cookie.filter(|name| route.key.cookies.contains(name)) {
        let message = format!(
            "the key has the cookie `{name}`, which ends here before the key is derived, so that all \
             users share one entry; expected `pass: true`, or a key without it"
        );
        report.add(at.key("jwt").key("cookie"), message);
    }
}

/// There is one kind of them.
fn kinds(auth: &AuthConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let kinds = [
        ("basic", auth.basic.is_some()),
        ("forward", auth.forward.is_some()),
        ("jwt", auth.jwt.is_some()),
    ];
    let mut given = kinds.iter().filter(|(_, is_given)| *is_given);
    let Some((first, _)) = given.next() else {
        report.add(at.clone(), "expected one of `basic`, `forward` and `jwt`");
        return;
    };
    for (kind, _) in given {
        let message = format!("given beside `{first}`; expected one of the two");
        report.add(at.key(*kind), message);
    }
}

/// What the origin learns of the sender must tell answers apart.
fn taken(route: &RouteConfig, auth: &AuthConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let section = match auth.forward {
        Some(_) => at.key("forward").key("take"),
        None => at.key("jwt").key("take"),
    };
    let mut folded = BTreeSet::new();
    for name in auth.taken() {
        report.form(&section, form::header_name(name));
        let lower = name.to_ascii_lowercase();
        let is_odd = !name
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
        if is_odd || !folded.insert(lower.clone()) {
            let message = format!("`{name}`: expected letters, digits and `-`, and each name once");
            report.add(section.clone(), message);
        }
        if OF_THE_HOP.contains(&&*lower) || NOT_TAKEN.contains(&&*lower) {
            let message =
                format!("`{name}` is not a field about the sender; expected another name");
            report.add(section.clone(), message);
        }
        let mut keyed = route.key.headers.iter();
        let is_keyed = keyed.any(|keyed| keyed.eq_ignore_ascii_case(name));
        let is_told = route.unkeyed != UnkeyedAction::Warn;
        if !is_keyed && !is_told && route.cache == OnOffSwitch::On {
            let message = format!(
                "the origin gets `{name}`, and what it makes of it would be stored for everybody; \
                 expected `key: {{ headers: [{name}] }}`, or `cache: off`"
            );
            report.add(section.clone(), message);
        }
    }
}

fn forward(
    config: &GatewayConfig,
    forward: &ForwardAuthConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    report.known(
        at.key("upstream"),
        "upstream",
        &forward.upstream,
        &config.upstreams,
    );
    report.form(&at.key("path"), form::origin_path(&forward.path));
    report.positive(at.key("timeout"), forward.timeout.0.as_millis() as u64);
    for (n, name) in forward.send.iter().enumerate() {
        let at = at.key("send").index(n);
        report.form(&at, form::header_name(name));
        if is_ours_to_say(name) {
            let message = format!("`{name}` of a client says nothing here; expected another field");
            report.add(at, message);
        }
    }
    for (name, value) in &forward.set {
        let at = at.key("set").key(name.as_str());
        report.form(&at, form::header_name(name));
        report.form(&at, form::header_value(value));
        if is_ours_to_say(name) {
            let message = format!("`{name}` is made by the gateway; expected another field");
            report.add(at, message);
        }
    }
    report.each(&at.key("cookies"), &forward.cookies, super::cookie_pattern);
    if let Some(cache) = &forward.cache {
        verdicts(forward, cache, &at.key("cache"), report);
    }
}

/// Whether the gateway alone says this field to the service.
fn is_ours_to_say(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    OF_THE_HOP.contains(&&*lower)
        || lower.replace(['_', '.'], "-").starts_with("x-forwarded-")
        || ["host", "forwarded", "content-length", "cdn-loop"].contains(&&*lower)
}

/// A remembered yes must not be for somebody else.
fn verdicts(
    forward: &ForwardAuthConfig,
    cache: &VerdictCacheConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    report.positive(at.key("max"), cache.max.0.as_millis() as u64);
    let mut keyed = BTreeSet::new();
    for (n, part) in cache.key.iter().enumerate() {
        let is_good = match part.split_once('.') {
            Some(("header" | "cookie", name)) => {
                keyed.insert(match part.starts_with("cookie.") {
                    true => "cookie".to_owned(),
                    false => name.to_ascii_lowercase(),
                });
                form::header_name(name).is_ok()
            }
            _ => ["method", "host", "uri", "client"].contains(&part.as_str()),
        };
        if !is_good {
            let message = format!(
                "{part:?} is nothing that a key has; expected header.NAME, cookie.NAME, method, \
                 host, uri or client"
            );
            report.add(at.key("key").index(n), message);
        }
    }
    let sent = forward.send.iter().map(|name| name.to_ascii_lowercase());
    for name in sent.filter(|name| name != "accept" && !keyed.contains(name)) {
        let message = format!(
            "the service gets `{name}`, which the key does not have: one client's yes would be \
             another's; expected `{}` in the key, or `send` without it",
            match &*name {
                "cookie" => "cookie.NAME".to_owned(),
                name => format!("header.{name}"),
            }
        );
        report.add(at.key("key"), message);
    }
}

fn jwt(config: &GatewayConfig, jwt: &JwtConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let path = |report: &mut FindingCollector, path: &str| {
        report.form(&at.key("keys"), form::origin_path(path));
    };
    match jwt.location() {
        KeyLocation::Server {
            server,
            path: below,
        } => {
            report.form(&at.key("keys"), form::target(server));
            path(report, below);
        }
        KeyLocation::Upstream { path: url, .. } if url.contains("://") => {
            let message = "a URL given beside `upstream`; expected a path there, or one of the two";
            report.add(at.key("keys"), message);
        }
        KeyLocation::Upstream { name, path: below } => {
            report.known(at.key("upstream"), "upstream", name, &config.upstreams);
            path(report, below);
        }
        KeyLocation::File(_) | KeyLocation::Nowhere => {}
    }
    let is_shared = |algorithm: &JwtAlgorithm| *algorithm == JwtAlgorithm::HS256;
    let has_shared = jwt.algorithms.iter().any(is_shared);
    let has_public = !jwt.algorithms.iter().all(is_shared);
    if jwt.algorithms.is_empty() {
        let message = "no algorithms; expected some of RS256, ES256, EdDSA and HS256";
        report.add(at.key("algorithms"), message);
    }
    if has_public != jwt.keys.is_some() && !jwt.algorithms.is_empty() {
        let message = "`keys` belongs to RS256, ES256 and EdDSA: expected both, or neither";
        report.add(at.key("algorithms"), message);
    }
    if has_shared != jwt.secret.is_some() && !jwt.algorithms.is_empty() {
        let message = "`secret` belongs to HS256: expected both, or neither";
        report.add(at.key("algorithms"), message);
    }
    if jwt
        .secret
        .as_ref()
        .is_some_and(|secret| secret.len() < LEAST_SECRET)
    {
        let message = format!("a short secret; expected {LEAST_SECRET} octets or more");
        report.add(at.key("secret"), message);
    }
    if jwt.issuer.is_empty() {
        report.add(at.key("issuer"), "expected the `iss` of the tokens");
    }
    if jwt.audience.is_empty() || jwt.audience.iter().any(String::is_empty) {
        let message = "expected the values of `aud` that are meant for this gateway: a token for \
                       somebody else must not do here";
        report.add(at.key("audience"), message);
    }
    if let Some(name) = &jwt.cookie {
        report.form(&at.key("cookie"), super::cookie_name(name));
    }
    report.positive(at.key("refresh"), jwt.refresh.0.as_millis() as u64);
}
