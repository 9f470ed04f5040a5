//! The lines about a route's policy: what gives the lifetime, when stale copies are shown, and where
//! a missing value comes from.

use http::Method;

use crate::cache::config::{RangeLoadMode, TtlMode};
use crate::cache::policy::Credentials;
use crate::proxy::miss::ranges;
use crate::proxy::route::Route;

pub(super) fn lifetime(route: &Route) -> Vec<String> {
    let policy = &route.policy;
    let ttl = policy.ttl.map(|ttl| format!("{ttl:?}"));
    let mut rules = Vec::new();
    if route.loader.is_some() {
        rules.push("the loader's own ttl, if it gives one".to_owned());
    }
    let listed = policy.lifetimes.iter();
    rules.extend(listed.map(|rule| rule.describe().to_owned()));
    match (policy.mode, ttl) {
        (TtlMode::Override, Some(ttl)) => rules.push(format!(
            "policy.ttl {ttl}, whatever the response says (mode: override)"
        )),
        (TtlMode::Cap, Some(ttl)) => rules.push(format!(
            "the response's freshness (RFC 9111), at most policy.ttl {ttl} (mode: cap)"
        )),
        (_, Some(ttl)) => {
            rules.push("the response's explicit freshness (s-maxage, max-age, Expires)".to_owned());
            rules.push(format!(
                "else policy.ttl {ttl}, for the statuses {:?}",
                policy.statuses
            ));
        }
        (_, None) => {
            rules.push("the response's freshness (RFC 9111); the route adds none".to_owned())
        }
    }
    for target in &policy.targeted {
        rules.push(format!(
            "a valid {target} replaces Cache-Control and Expires (RFC 9213)"
        ));
    }
    if let Some(cap) = policy.l1_cap {
        rules.push(format!(
            "in L1 at most {cap:?}; then the second tier is asked again"
        ));
    }
    if let Some(ttl) = policy.ttl_l2.filter(|ttl| Some(*ttl) != policy.ttl) {
        rules.push(format!(
            "where policy.ttl applies, {ttl:?} in the second tier"
        ));
    }
    if let Some((ttl, statuses)) = &policy.negative {
        rules.push(format!(
            "for {statuses:?} without explicit freshness: negative_cache.ttl {ttl:?}"
        ));
    }
    rules
}

/// What cookies in a request mean on this route.
pub(super) fn with_cookies(route: &Route) -> Option<String> {
    let line = match route.policy.gives_lifetime(Credentials::Cookies) {
        true if route.policy.cookies.is_none() => return None,
        true => "cookies of a request make no difference (policy.cookies: ignore)",
        false => {
            "for a request with cookies or Authorization that the key does not contain, only what \
             the response states (policy.cookies: private)"
        }
    };
    Some(line.to_owned())
}

/// What the credentials of this request mean for its response.
pub(super) fn withheld(route: &Route, credentials: Credentials) -> Option<String> {
    let what = match credentials {
        _ if route.policy.gives_lifetime(credentials) => return None,
        Credentials::Authorization => "Authorization",
        Credentials::Cookies | Credentials::Keyed => "cookies",
    };
    Some(format!(
        "this request has {what} that the key does not contain: a response that states no \
         lifetime is not stored"
    ))
}

pub(super) fn stale(route: &Route) -> Vec<String> {
    let line = |name: &str, window: Option<std::time::Duration>| match window {
        Some(window) => {
            format!("{name}: {window:?} after expiry, unless the response says otherwise")
        }
        None => format!("{name}: as the response says"),
    };
    vec![
        line("stale_while_revalidate", route.policy.while_revalidate),
        line("stale_if_error", route.policy.if_error),
    ]
}

pub(super) fn source(route: &Route, method: &Method) -> String {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return match &route.origin {
            Some(origin) => format!("upstream {}", origin.name()),
            None => "nothing: the route has no upstream for this method (405)".to_owned(),
        };
    }
    let whole = whole_source(route);
    let parts = "for a range that is not stored, only the missing parts";
    match (ranges::are_kept(route), route.policy.ranges) {
        (false, _) | (true, RangeLoadMode::Whole) => whole,
        (true, RangeLoadMode::Parts) => format!("{whole}; {parts}"),
        (true, RangeLoadMode::Auto) => {
            format!("{whole}; where it is too large for the cache, {parts}")
        }
    }
}

fn whole_source(route: &Route) -> String {
    match (&route.loader, &route.origin) {
        (Some((plugin, _)), _) => format!("loader plugin {}", plugin.name()),
        (None, Some(origin)) => format!("upstream {}", origin.name()),
        (None, None) => "nothing: the route has neither upstream nor loader".to_owned(),
    }
}
