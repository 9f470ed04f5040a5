//! Which cache keys belong to a URL: the keys of a GET request for it.
//!
//! A client's URL goes through the route's request plugin before its key is derived, and so it does
//! here. The plugin may treat the requests of two clients differently, and whoever purges may know
//! either URL. So both keys count: that of the URL as it is written, and that of the URL as the
//! plugin changes it. Purging one key too many is never wrong.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, Request, Uri};

use crate::cache::key::KeyBuf;
use crate::cache::purge::Selector;
use crate::http::body::Body;
use crate::http::forward::{CHOSEN_UPSTREAM, HopWishes};
use crate::http::path::{self, PathRules};
use crate::plugin::Plugin;
use crate::proxy::context::{self, DerivedKey};
use crate::proxy::generation::Generation;
use crate::proxy::lookup::{HitSample, RoutedRequest};
use crate::proxy::message_hooks::{self, RequestPluginOutcome};
use crate::proxy::plan::{self, RequestPlan};
use crate::proxy::route::Route;
use crate::proxy::rules::RouteRules;
use crate::proxy::target::RoutingOutcome;

/// What a purge of a URL must reach.
#[derive(Default)]
pub struct UrlPurgeSelectors {
    /// Empty if no route caches the URL or if it is refused: then nothing is stored.
    pub selectors: Vec<Selector>,
    /// What the purge may not reach, as text for people.
    pub note: Option<String>,
    /// Why the URL is refused on every listener, as text for people.
    pub refusal: Option<String>,
}

/// The keys of a GET for a URL.
#[derive(Default)]
pub struct UrlKeys {
    pub keys: Vec<KeyBuf>,
    /// What these keys may not cover, as text for people.
    pub note: Option<String>,
    /// Why the URL is refused, on every listener if there is no key.
    refusal: Option<String>,
}

impl Generation {
    /// What a purge of this URL must reach: its identities under the route, the request plugin and
    /// the key rules that apply to a GET for it.
    pub fn by_url(&self, scheme: &str, host: &str, uri: &Uri) -> UrlPurgeSelectors {
        let found = self.keys_of_get(scheme, host, uri, HeaderMap::new());
        let mut identities: Vec<_> = found.keys.iter().map(KeyBuf::identity).collect();
        identities.sort_unstable();
        identities.dedup();
        UrlPurgeSelectors {
            refusal: found.refusal.filter(|_| identities.is_empty()),
            selectors: identities.into_iter().map(Selector::Url).collect(),
            note: found.note,
        }
    }

    /// The key of a GET for this URL with these headers, both as the request plugin left them. None
    /// if it is not cached.
    pub fn key_of_seen(
        &self,
        scheme: &str,
        host: &str,
        uri: &Uri,
        headers: HeaderMap,
    ) -> Option<KeyBuf> {
        let mut parts = get(uri, headers);
        let host = &*context::normal_host(host, scheme);
        let route = self.routes.find(host, &parts)?;
        key_as_cleaned(route, &mut parts, scheme, host)
    }

    /// The keys under which GETs for this URL with these headers are looked up, on every listener.
    /// There is none where a listener or the route answers before that, or the route takes nothing
    /// from the cache.
    pub fn keys_of_lookup(
        &self,
        scheme: &str,
        host: &str,
        uri: &Uri,
        headers: HeaderMap,
    ) -> Vec<KeyBuf> {
        let mut parts = get(uri, headers);
        let host = &*context::normal_host(host, scheme);
        let Ok(spelling) = path::arrive(&mut parts.uri) else {
            return Vec::new();
        };
        if self.purge_method.takes(&parts) {
            return Vec::new();
        }
        let now = Instant::now();
        let looked_up = self.path_rules.iter().filter_map(|rules| {
            let mut parts = parts.clone();
            let route = match self.routes.target(host, &parts, spelling, *rules) {
                RoutingOutcome::Route(route) => route,
                RoutingOutcome::Shaped(route, target) => {
                    path::set(&mut parts.uri, target);
                    route
                }
                RoutingOutcome::Nowhere | RoutingOutcome::Refused(_) => return None,
            };
            let key = key_as_cleaned(route, &mut parts, scheme, host)?;
            let keeps_away = |rules: &Arc<RouteRules>| rules.keep_from_cache(&parts);
            let is_looked_up = route.cached
                && !route.maintenance.is_for_everybody(now)
                && !route.rules.as_ref().is_some_and(keeps_away);
            is_looked_up.then_some(key)
        });
        looked_up.collect()
    }

    /// Whether the key of a GET for this URL covers headers or cookies here that it does not cover in
    /// `before`: a key of `before` does not say what the request had there.
    pub fn key_covers_more(
        &self,
        before: &Self,
        (scheme, host): (&str, &str),
        uri: &Uri,
        headers: HeaderMap,
    ) -> bool {
        let parts = get(uri, headers);
        let host = &*context::normal_host(host, scheme);
        let routes = [self, before].map(|generation| generation.routes.find(host, &parts));
        match routes {
            [Some(now), Some(then)] => now.key.covers_more_than(&then.key),
            _ => false,
        }
    }

    /// The keys of a GET for this URL with these headers, on every listener: for the URL as it is
    /// and as the route's plugin changes it.
    pub fn keys_of_get(&self, scheme: &str, host: &str, uri: &Uri, headers: HeaderMap) -> UrlKeys {
        let mut parts = get(uri, headers);
        let host = &*context::normal_host(host, scheme);
        let mut found = UrlKeys::default();
        let spelling = match path::arrive(&mut parts.uri) {
            Ok(spelling) => spelling,
            Err(fault) => {
                found.refusal = Some(fault.reason().to_owned());
                return found;
            }
        };
        for rules in &self.path_rules {
            let mut parts = parts.clone();
            let route = match self.routes.target(host, &parts, spelling, *rules) {
                RoutingOutcome::Route(route) => route,
                RoutingOutcome::Shaped(route, target) => {
                    path::set(&mut parts.uri, target);
                    route
                }
                RoutingOutcome::Nowhere => continue,
                RoutingOutcome::Refused(refused) => {
                    found.refusal = Some(refused.to_string());
                    continue;
                }
            };
            route.clean(&mut parts);
            found.keys.extend(key(route, &parts, scheme, host));
            let (changed, note) = as_changed(route, parts, (scheme, host), *rules);
            found.keys.extend(changed);
            found.note = found.note.or(note);
        }
        found
    }
}

/// The key of the request as the route's request plugin changes it, and a note on what that key may
/// not cover.
fn as_changed(
    route: &Arc<Route>,
    mut parts: Parts,
    (scheme, host): (&str, &str),
    rules: PathRules,
) -> (Option<KeyBuf>, Option<String>) {
    let Some((plugin, _)) = &route.request_plugin else {
        return (None, None);
    };
    let rules = route.path.over(rules);
    let asked = message_hooks::ask(plugin, &route.name, &mut parts, (scheme, host, None), rules);
    let note = match asked {
        Ok(RequestPluginOutcome::Further) => {
            let note = depends(plugin).map(|note| told(plugin, &note));
            return (key(route, &parts, scheme, host), note);
        }
        Ok(RequestPluginOutcome::Respond(_) | RequestPluginOutcome::Refuse(_)) => {
            "answers the request itself".to_owned()
        }
        Ok(RequestPluginOutcome::BadPath(fault)) => {
            format!("writes a path that is refused: {}", fault.reason())
        }
        Err(error) => format!("failed when it was called for this URL: {error}"),
    };
    (None, Some(told(plugin, &note)))
}

/// What the answer of a request plugin may depend on besides the URL.
fn depends(plugin: &Plugin) -> Option<String> {
    let note = "may change the URL differently for other headers of a client, or at another time";
    plugin.sees_more_than_urls().then(|| note.to_owned())
}

fn told(plugin: &Plugin, note: &str) -> String {
    let name = plugin.name();
    format!(
        "the request plugin `{name}` {note}; entries that are stored under another URL because of \
         that are not purged: purge them by tag, prefix or pattern"
    )
}

fn get(uri: &Uri, headers: HeaderMap) -> Parts {
    let mut parts = Request::new(()).into_parts().0;
    parts.uri = context::origin_form(uri);
    parts.headers = headers;
    parts
}

/// The key of a request that the request plugin has left like this, cleaned as far as its key tells
/// what it was.
fn key_as_cleaned(
    route: &Arc<Route>,
    parts: &mut Parts,
    scheme: &str,
    host: &str,
) -> Option<KeyBuf> {
    if let Some(rules) = &route.rules {
        rules.clean_known(parts);
    }
    let chosen = parts.headers.get(CHOSEN_UPSTREAM);
    if route.split.as_ref().is_some_and(|split| !split.has(chosen)) {
        return None;
    }
    key(route, parts, scheme, host)
}

/// The key, or None if the request is not cached.
fn key(route: &Arc<Route>, parts: &Parts, scheme: &str, host: &str) -> Option<KeyBuf> {
    let visit = RoutedRequest {
        parts,
        body: &Body::empty(),
        host,
        scheme,
        wishes: &HopWishes::default(),
        route,
        started: Instant::now(),
        trail: None,
        sample: HitSample::LeftOut,
        codings: None,
    };
    match plan::key(&visit) {
        RequestPlan::Cache(DerivedKey { key, .. }) => Some(key),
        RequestPlan::AwaitBody | RequestPlan::Pass(..) | RequestPlan::Refuse(_) => None,
    }
}
