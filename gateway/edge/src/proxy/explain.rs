//! `explain`: what would be done with a request and why, without doing it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Method, Request, Uri};
use serde::Serialize;

use crate::cache::config::{RangeLoadMode, TtlMode};
use crate::cache::entry::Entry;
use crate::cache::freshness::FreshnessState;
use crate::cache::key::{KeyBuf, KeyId, describe};
use crate::cache::l2::L2Lookup;
use crate::cache::policy::Credentials;
use crate::http::body::Body;
use crate::http::cache_status::ForwardReason;
use crate::http::forward::{self, ForwardingContext, PeerTrust, RequestSender};
use crate::http::path::{self, PathRules};
use crate::plugin::Plugin;
use crate::plugin::config::RequestError;
use crate::proxy::came;
use crate::proxy::context::DerivedKey;
use crate::proxy::miss::{ranges, source as sources};
use crate::proxy::plan::{self, RequestPlan};
use crate::proxy::route::Route;
use crate::proxy::rules::RouteRules;
use crate::proxy::target::{PathRefusal, RoutingOutcome};
use crate::proxy::watch::{self, PluginHeadChanges, RequestPluginOutcome};
use crate::proxy::{
    Generation, HitSample, Proxy, RoutedRequest, context, esi, origin_query, sticky,
};

/// What would be done with a request.
#[derive(Default, Debug, Serialize)]
pub struct Explanation {
    pub url: String,
    /// The normal form of the URL that routes, key, purges, log and origin use, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// The fingerprint of the client's software that the request was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja4: Option<String>,
    /// The route. None: the request would get 404.
    pub route: Option<String>,
    /// The steps that the rules of the route take before the request plugin and the key, and what
    /// they do to answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// What the route's request plugin changes in the request. Everything below is about the
    /// changed request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// `cache`, `pass (…)` or `refuse (…)`.
    pub decision: String,
    pub key: Option<ExplainedKey>,
    /// The rules that may give the lifetime, in their order.
    pub lifetime: Vec<String>,
    pub stale: Vec<String>,
    /// Where a missing value comes from.
    pub source: Option<String>,
    /// The upstream's targets: which of them a request may go to now, and why not to the others. Empty
    /// if there is only one, and nothing is wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// What the loader or the response plugin sees, or the request plugin sets, and the key does
    /// not cover. The response's `Vary` may still cover it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unkeyed: Vec<String>,
    /// What each tier holds. Only a running gateway can tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<String>,
}

/// The key and its parts.
#[derive(Debug, Serialize)]
pub struct ExplainedKey {
    /// The short name, for `POST /v1/purge {"key": …}`.
    pub id: String,
    pub parts: String,
    /// The plugin that derived the key.
    pub plugin: Option<String>,
    /// The path and query that the origin gets, if the key leaves out part of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_gets: Option<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "url       {}", self.url)?;
        if let Some(form) = &self.form {
            writeln!(f, "form      {form}")?;
        }
        if let Some(ja4) = &self.ja4 {
            writeln!(f, "ja4       {ja4}")?;
        }
        writeln!(f, "route     {}", self.route.as_deref().unwrap_or("none"))?;
        self.rules
            .iter()
            .try_for_each(|rule| writeln!(f, "rule      {rule}"))?;
        if let Some(request) = &self.request {
            writeln!(f, "request   {request}")?;
        }
        writeln!(f, "decision  {}", self.decision)?;
        if let Some(key) = &self.key {
            writeln!(f, "key       {}", key.id)?;
            writeln!(f, "  of      {}", key.parts)?;
            writeln!(
                f,
                "  by      {}",
                key.plugin
                    .as_deref()
                    .map_or_else(|| "the route's key rules".into(), |p| format!("plugin {p}"))
            )?;
            if let Some(target) = &key.origin_gets {
                writeln!(f, "  origin  {target}")?;
            }
        }
        self.lifetime
            .iter()
            .try_for_each(|rule| writeln!(f, "lifetime  {rule}"))?;
        self.stale
            .iter()
            .try_for_each(|rule| writeln!(f, "stale     {rule}"))?;
        self.source
            .iter()
            .try_for_each(|source| writeln!(f, "source    {source}"))?;
        self.targets
            .iter()
            .try_for_each(|target| writeln!(f, "target    {target}"))?;
        self.unkeyed
            .iter()
            .try_for_each(|field| writeln!(f, "unkeyed   {field}"))?;
        self.tiers
            .iter()
            .try_for_each(|tier| writeln!(f, "tier      {tier}"))
    }
}

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
            decision: "404: no route matches".into(),
            ..Explanation::default()
        };
        // It is unknown which listener the request would come to, so the rules of the first one
        // apply.
        let rules = self.path_rules[0];
        let target = match path::arrive(&mut parts.uri) {
            Ok(spelling) => self.routes.target(&host, parts, spelling, rules),
            Err(fault) => RoutingOutcome::Refused(PathRefusal::Fault(fault)),
        };
        let route = match target {
            RoutingOutcome::Route(route) => route,
            RoutingOutcome::Shaped(route, target) => {
                path::set(&mut parts.uri, target);
                route
            }
            RoutingOutcome::Nowhere => return (explanation, None),
            RoutingOutcome::Refused(refused) => {
                explanation.decision = format!("refuse (400): {refused}");
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
        let rules_of = |rules: &Arc<RouteRules>| rules.describe();
        let closed = route.maintenance.describe(Instant::now());
        explanation.rules.extend(closed);
        explanation
            .rules
            .extend(route.rules.iter().flat_map(rules_of));
        let answered = route.rules.as_ref().and_then(|rules| rules.answer_here());
        if let Some(by) = answered {
            explanation.decision = format!("answered by {by}, before the cache");
            return (explanation, None);
        }
        let mirror = route.mirror.as_ref();
        explanation
            .rules
            .extend(mirror.map(|mirror| mirror.describe()));
        if route.esi.is_some() {
            let line = "esi: pages are put together from fragments when they are delivered";
            explanation.rules.push(line.to_owned());
        }
        if let Some(rules) = &route.rules {
            rules.pretend(parts);
        }
        route.clean(parts);
        esi::prepare(route, parts);
        if let Some((plugin, on_error)) = &route.request_plugin {
            let about = (scheme, &*host, caller.client());
            let rules = route.path.over(rules);
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
        };
        let keyed = explain(&mut explanation, &visit);
        (explanation, keyed)
    }
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
    let wish = watch::ask(plugin, &route.name, parts, about, rules);
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
    explanation.decision = decision;
    explanation.lifetime = lifetime(route);
    explanation.lifetime.extend(with_cookies(route));
    explanation.stale = stale(route);
    explanation.source = Some(source(route, &visit.parts.method));
    let origin = route.origin.as_ref();
    explanation.targets = origin.map_or_else(Vec::new, |origin| origin.explain_targets());
    if let Some(keyed) = &keyed {
        let by = route.key_plugin.as_ref();
        explanation.key = Some(ExplainedKey {
            id: KeyId::of(keyed.key.as_bytes()).to_string(),
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
        let headers = sources::for_loader(visit.parts);
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

fn lifetime(route: &Route) -> Vec<String> {
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
fn with_cookies(route: &Route) -> Option<String> {
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
fn withheld(route: &Route, credentials: Credentials) -> Option<String> {
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

fn stale(route: &Route) -> Vec<String> {
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

fn source(route: &Route, method: &Method) -> String {
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
