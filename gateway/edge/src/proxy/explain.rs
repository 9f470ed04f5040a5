//! `explain`: what would be done with a request and why, without doing it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Request, Uri};

use crate::cache::entry::Entry;
use crate::cache::freshness::FreshnessState;
use crate::cache::key::{KeyBuf, describe};
use crate::cache::l2::L2Lookup;
use crate::http::body::Body;
use crate::http::cache_status::ForwardReason;
use crate::http::forward::{self, ForwardingContext, PeerTrust, RequestSender};
use crate::http::path::{self, PathRules};
use crate::plugin::Plugin;
use crate::plugin::config::RequestError;
use crate::proxy::came;
use crate::proxy::context::DerivedKey;
use crate::proxy::generation::Generation;
use crate::proxy::lookup::{HitSample, RoutedRequest};
use crate::proxy::message_hooks::{self, PluginHeadChanges, RequestPluginOutcome};
use crate::proxy::mirror::config::MirroredRequests;
use crate::proxy::miss::source::for_loader;
use crate::proxy::plan::{self, RequestPlan};
use crate::proxy::route::Route;
use crate::proxy::rules::{RouteRules, maintenance};
use crate::proxy::target::{PathRefusal, RoutingOutcome};
use crate::proxy::{Proxy, context, esi, origin_query, sticky};

mod explanation;
mod policy_lines;

pub use explanation::Explanation;

use explanation::ExplainedKey;
use policy_lines::{lifetime, source, stale, with_cookies, withheld};

impl Proxy {
    /// Explains a request, and looks into the tiers of this node.
    pub async fn explain_here(&self, request: Request<()>) -> Explanation {
        let mut parts = request.into_parts().0;
        let (mut explanation, keyed) = self.generation().explained(&mut parts);
        if let Some(keyed) = keyed {
            let now = Instant::now();
            let held = self.cache.fallback(&keyed.key, &parts.headers, now);
            let held = held.map(|(entry, _)| state(&entry, now));
            explanation.tiers.push(tier("l1", held));
            if let Some(second_tier) = self.cache.second_tier() {
                let found = second_tier.find(&keyed.key, &parts.headers).await;
                explanation.tiers.push(self.told(second_tier.kind(), found));
            }
        }
        explanation
    }

    fn told(&self, kind: &str, found: L2Lookup) -> String {
        match found {
            L2Lookup::Found(found) if self.cache.shows(&found.entry) => {
                tier(kind, Some(state(&found.entry, Instant::now())))
            }
            L2Lookup::Found(_) => tier(kind, Some("hidden by a purge".to_owned())),
            L2Lookup::Miss => tier(kind, None),
            L2Lookup::Unknown => tier(kind, Some("can't be read at the moment".to_owned())),
        }
    }
}

impl Generation {
    /// Explains a request.
    pub fn explain(&self, request: Request<()>) -> Explanation {
        self.explained(&mut request.into_parts().0).0
    }

    /// The key of a request, if it is cached.
    pub fn key(&self, request: Request<()>) -> Option<KeyBuf> {
        let keyed = self.explained(&mut request.into_parts().0).1;
        keyed.map(|keyed| keyed.key)
    }

    /// Normalizes the head of a request as the listeners do. If they trust proxies, the request is
    /// explained as if one of these proxies had sent it.
    fn received(&self, parts: &mut Parts) -> ForwardingContext {
        let scheme = match parts.uri.scheme_str() {
            Some("https") => "https",
            _ => "http",
        };
        let belief = match &self.trust {
            Some(trust) => PeerTrust::Proxy(trust),
            None => PeerTrust::Nothing,
        };
        let nobody = RequestSender::nobody(scheme);
        // A listener would have set it, and removed that of the client.
        let ja4 = parts.headers.get(forward::CLIENT_JA4).cloned();
        let ja4 = ja4.filter(|_| scheme == "https");
        let received = forward::receive(&mut parts.headers, parts.version, nobody, belief).0;
        let told = ja4.map(|ja4| (forward::CLIENT_JA4, ja4));
        parts.headers.extend(told);
        received
    }

    /// The route of a request, whose path gets its normal form. Otherwise what is decided without
    /// one. It is unknown which listener the request would come to, so the rules of the first one
    /// apply.
    fn route_of(&self, parts: &mut Parts, host: &str) -> Result<&Arc<Route>, String> {
        let target = match path::arrive(&mut parts.uri) {
            Ok(spelling) => {
                let rules = self.path_rules[0];
                self.routes.target(host, parts, spelling, rules)
            }
            Err(fault) => RoutingOutcome::Refused(PathRefusal::Fault(fault)),
        };
        match target {
            RoutingOutcome::Route(route) => Ok(route),
            RoutingOutcome::Shaped(route, target) => {
                path::set(&mut parts.uri, target);
                Ok(route)
            }
            RoutingOutcome::Nowhere => Err("404: no route matches".to_owned()),
            RoutingOutcome::Refused(refused) => Err(format!("refuse (400): {refused}")),
        }
    }

    /// Explains a request. The route's plugin may change it.
    fn explained(&self, parts: &mut Parts) -> (Explanation, Option<DerivedKey>) {
        let ForwardingContext { caller, wishes, .. } = self.received(parts);
        let scheme = caller.scheme();
        let host = context::host(parts, scheme).into_owned();
        let url = |uri: &Uri| {
            let target = uri.path_and_query().map_or("/", |target| target.as_str());
            format!("{scheme}://{host}{target}")
        };
        let ja4 = parts.headers.get(forward::CLIENT_JA4);
        let mut explanation = Explanation {
            ja4: ja4.map(|ja4| String::from_utf8_lossy(ja4.as_bytes()).into_owned()),
            url: url(&parts.uri),
            ..Explanation::default()
        };
        let route = match self.route_of(parts, &host) {
            Ok(route) => route,
            Err(decision) => {
                explanation.decision = decision;
                return (explanation, None);
            }
        };
        let route = match &route.split {
            None => route,
            Some(split) => {
                explanation.rules.push(split.describe());
                split.explain(parts, caller.client()).unwrap_or(route)
            }
        };
        if let Some(cookie) = sticky::of(route) {
            sticky::take(cookie, parts);
        }
        let form = url(&parts.uri);
        explanation.form = (form != explanation.url).then_some(form);
        explanation.route = Some(route.name.to_string());
        explanation.rules.extend(admission_lines(route));
        let rules = route.rules.as_ref();
        let client = caller.client();
        let answered = match rules {
            Some(rules) => rules.answer_here(parts, client, &wishes),
            None => {
                let page = route.maintenance.answer(parts, client, Instant::now());
                page.map(|_| RouteRules::CLOSED.to_owned())
            }
        };
        if !rules.is_some_and(|rules| rules.asks_nobody()) {
            explanation.rules.extend(origin_lines(route));
        }
        explanation.rules.extend(delivery_lines(route));
        if let Some(by) = answered {
            explanation.decision = format!("answered by {by}, before the cache");
            return (explanation, None);
        }
        if let Some(rules) = &route.rules {
            rules.pretend(parts);
        }
        route.clean(parts);
        esi::prepare(route, parts);
        if let Some((plugin, on_error)) = &route.request_plugin {
            let about = (scheme, &*host, caller.client());
            let rules = route.path.over(self.path_rules[0]);
            let (told, goes_on) = asked(plugin, *on_error, route, parts, about, rules);
            explanation.request = Some(told);
            if !goes_on {
                explanation.decision = "answered by the request plugin".to_owned();
                return (explanation, None);
            }
        }
        let visit = RoutedRequest {
            parts,
            body: &Body::empty(),
            host: &host,
            scheme,
            wishes: &wishes,
            route,
            started: Instant::now(),
            trail: None,
            sample: HitSample::LeftOut,
            codings: None,
        };
        let keyed = explain(&mut explanation, &visit);
        (explanation, keyed)
    }
}

/// What is done with a request before the request plugin and the key.
fn admission_lines(route: &Route) -> Vec<String> {
    let closed = route.maintenance.describe(Instant::now());
    match &route.rules {
        Some(rules) => rules.describe_admission(closed),
        None => closed.into_iter().collect(),
    }
}

/// What is done beside the look-up, and on the way to the origin.
fn origin_lines(route: &Route) -> Vec<String> {
    let mirror = |of: MirroredRequests| {
        let mirror = route.mirror.iter().filter(move |mirror| mirror.of() == of);
        mirror.map(|mirror| mirror.describe())
    };
    let rules = route.rules.iter().flat_map(|rules| rules.describe_origin());
    let all = mirror(MirroredRequests::All);
    all.chain(rules)
        .chain(mirror(MirroredRequests::Origin))
        .collect()
}

/// What is done to the answer when it is delivered.
fn delivery_lines(route: &Route) -> Vec<String> {
    let esi = route
        .esi
        .iter()
        .map(|_| "esi: pages are put together from fragments when they are delivered".to_owned());
    let rules = route.rules.iter();
    let rules = rules.flat_map(|rules| rules.describe_delivery());
    esi.chain(rules).collect()
}

/// Calls the route's request plugin. Returns a description of what it did, and whether the request
/// goes on.
fn asked(
    plugin: &Plugin,
    on_error: RequestError,
    route: &Route,
    parts: &mut Parts,
    about: (&str, &str, Option<IpAddr>),
    rules: PathRules,
) -> (String, bool) {
    let (uri, headers) = (parts.uri.clone(), parts.headers.clone());
    let wish = message_hooks::ask(plugin, &route.name, parts, about, rules);
    let name = plugin.name();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    match wish {
        Ok(RequestPluginOutcome::Further) => match (parts.uri == uri, parts.headers == headers) {
            (true, true) => (format!("plugin {name}: unchanged"), true),
            (true, false) => (format!("plugin {name}: other headers"), true),
            (false, true) => (format!("plugin {name}: {path}"), true),
            (false, false) => (format!("plugin {name}: {path}, other headers"), true),
        },
        Ok(RequestPluginOutcome::Respond(response)) => {
            (format!("plugin {name}: answers {}", response.status), false)
        }
        Ok(RequestPluginOutcome::Refuse(status)) => {
            (format!("plugin {name}: refuses ({status})"), false)
        }
        Ok(RequestPluginOutcome::BadPath(fault)) => {
            let why = fault.reason();
            (format!("plugin {name}: refused (400), {why}"), false)
        }
        Err(error) => (
            format!("plugin {name} failed: {error}"),
            on_error == RequestError::Continue,
        ),
    }
}

fn explain(explanation: &mut Explanation, visit: &RoutedRequest<'_>) -> Option<DerivedKey> {
    let route = &**visit.route;
    let (decision, keyed) = match plan::plan(visit) {
        RequestPlan::Cache(keyed) => ("cache".to_owned(), Some(keyed)),
        RequestPlan::AwaitBody => (passes(plan::WITH_BODY.0, plan::WITH_BODY.1), None),
        RequestPlan::Pass(reason, detail) => (passes(reason, detail), None),
        RequestPlan::Refuse(status) => (format!("refuse ({status})"), None),
    };
    explanation.decision = match (&keyed, maintenance::wants_only_stored(visit.parts)) {
        (_, false) => decision,
        (Some(_), true) => format!("{decision}, and maintenance (503) in place of a load"),
        (None, true) => "answered by maintenance (503): this is never stored".to_owned(),
    };
    explanation.lifetime = lifetime(route);
    explanation.lifetime.extend(with_cookies(route));
    explanation.stale = stale(route);
    explanation.source = Some(source(route, &visit.parts.method));
    let origin = route.origin.as_ref();
    explanation.targets = origin.map_or_else(Vec::new, |origin| origin.explain_targets());
    if let Some(keyed) = &keyed {
        let by = route.key_plugin.as_ref();
        explanation.key = Some(ExplainedKey {
            id: keyed.id().to_string(),
            parts: describe(keyed.key.as_bytes()),
            plugin: by.map(|(plugin, _)| plugin.name().to_owned()),
            origin_gets: origin_query::narrowed(&visit.parts.uri, route, &keyed.key)
                .map(|target| target.to_string()),
        });
        explanation.unkeyed = unkeyed(visit, keyed);
        let credentials = came::credentials(route, visit.parts, &keyed.key);
        explanation.lifetime.extend(withheld(route, credentials));
    }
    keyed
}

fn unkeyed(visit: &RoutedRequest<'_>, keyed: &DerivedKey) -> Vec<String> {
    let route = &**visit.route;
    let narrowed = origin_query::narrowed(&visit.parts.uri, route, &keyed.key);
    let query = match &narrowed {
        Some(target) => target.query(),
        None => visit.parts.uri.query(),
    };
    let mut lines = Vec::new();
    let by = visit.parts.extensions.get::<PluginHeadChanges>();
    if let (Some(watch), Some(by)) = (&route.changed, by) {
        lines.extend(watch.explain(route, &keyed.key, &by.seen()));
    }
    if let (Some(watch), Some((plugin, _))) = (&route.unkeyed, &route.loader) {
        let headers = for_loader(visit.parts);
        let seen = plugin.would_see(&headers, query);
        lines.extend(watch.explain(route, &keyed.key, &seen));
    }
    if let (Some(watch), Some((plugin, _))) = (&route.looked, &route.response_plugin) {
        let seen = plugin.response_sees(&visit.parts.headers, query);
        lines.extend(watch.explain(route, &keyed.key, &seen));
    }
    lines
}

fn tier(name: &str, holds: Option<String>) -> String {
    format!("{name}: {}", holds.as_deref().unwrap_or("nothing"))
}

/// An entry in a few words.
fn state(entry: &Entry, now: Instant) -> String {
    let ttl = entry.ttl(now);
    let age = entry.freshness.age(now).as_secs();
    let what = match entry.state(now) {
        FreshnessState::Fresh => "fresh",
        FreshnessState::Stale(_) => "stale",
    };
    let (status, bytes) = (entry.status.as_u16(), entry.body.len());
    format!("{what}, {status}, {bytes} bytes, age {age} s, ttl {ttl} s")
}

fn passes(reason: ForwardReason, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => format!("pass ({}: {detail})", reason.as_str()),
        None => format!("pass ({})", reason.as_str()),
    }
}
