//! Checks the meaning of routes: their references, and whether each can be reached.

use std::collections::{BTreeMap, HashMap};

use super::{FindingCollector, form};
use crate::config::GatewayConfig;
use crate::config::problem::{ConfigPath, nearest, one_of, path};
use crate::http::config::{ListenerConfig, NO_FINGERPRINTS};
use crate::plugin::config::LoaderError;
use crate::proxy::config::{
    InvalidateConfig, LetterCase, OneOrMany, PurgeRule, RouteConfig, RouteMatchConfig,
    ValueMatchConfig, normal_host_pattern, paths,
};

pub fn check(config: &GatewayConfig, report: &mut FindingCollector) {
    if config.routes.is_empty() {
        report.add(path(&["routes"]), "no routes; expected at least one");
    }
    let mut earlier = EarlierRoutes {
        names: HashMap::new(),
        matches: HashMap::new(),
    };
    for (i, route) in config.routes.iter().enumerate() {
        let at = path(&["routes"]).index(i);
        let whole = RouteCheckScope {
            config,
            route,
            at: &at,
        };
        if let Some(first) = earlier.names.get(route.name.as_str()) {
            report.add(
                at.key("name"),
                format!(
                    "routes[{first}] is also named `{}`; expected a different name",
                    route.name
                ),
            );
        }
        report.form(&at.key("name"), form::name(&route.name));
        whole.references(report);
        whole.limits(report);
        super::rules::check(config, route, &at, report);
        super::rules::limits::check(config, route, &at, report);
        whole.matches(report);
        whole.reachable(&earlier, report);
        whole.key(report);
        for (n, rule) in route.invalidate.iter().enumerate() {
            whole.invalidate(rule, &at.key("invalidate").index(n), report);
        }
        report.each(&at.key("tags"), &route.tags, form::tag);
        super::policy::check(
            &route.policy,
            &config.defaults.policy,
            &at.key("policy"),
            report,
        );
        earlier.names.entry(&route.name).or_insert(i);
        earlier.matches.entry(normal(&route.matches)).or_insert(i);
    }
}

/// The earlier routes, by the values that must be unique.
struct EarlierRoutes<'a> {
    names: HashMap<&'a str, usize>,
    matches: HashMap<NormalizedMatch, usize>,
}

/// One route and its position.
struct RouteCheckScope<'a> {
    config: &'a GatewayConfig,
    route: &'a RouteConfig,
    at: &'a ConfigPath,
}

impl RouteCheckScope<'_> {
    fn references(&self, report: &mut FindingCollector) {
        let plugins = &self.config.plugins.by_name;
        if let Some(name) = &self.route.upstream {
            report.known(
                self.at.key("upstream"),
                "upstream",
                name,
                &self.config.upstreams,
            );
        }
        let hooks = [
            ("loader", &self.route.loader),
            ("request", &self.route.request),
            ("response", &self.route.response),
        ];
        for (key, hooked) in hooks {
            let Some(hooked) = hooked else { continue };
            report.known(
                self.at.key(key).key("plugin"),
                "plugin",
                &hooked.plugin,
                plugins,
            );
        }
        if let Some(name) = &self.route.key.plugin {
            report.known(self.at.key("key").key("plugin"), "plugin", name, plugins);
        }
        self.guarded(report);
        self.further_upstreams(report);
        let has_source = self.route.upstream.is_some() || self.route.split.is_some();
        if !has_source && super::rules::answering_key(self.route).is_none() {
            self.without_upstream(report);
        }
    }

    /// Checks the upstreams that get a share or a copy of the requests.
    fn further_upstreams(&self, report: &mut FindingCollector) {
        let known = &self.config.upstreams;
        if let Some(mirror) = &self.route.mirror {
            let at = self.at.key("mirror");
            report.known(at.key("upstream"), "upstream", &mirror.upstream, known);
            if mirror.percent > 100 {
                let message = format!("{} is more than 100; expected 0 to 100", mirror.percent);
                report.add(at.key("percent"), message);
            }
            report.positive(at.key("max_in_flight"), mirror.max_in_flight.into());
        }
        let Some(split) = &self.route.split else {
            return;
        };
        let at = self.at.key("split");
        if self.route.upstream.is_some() {
            let message =
                "given beside `split`, which says where requests go; expected one of the two";
            report.add(self.at.key("upstream"), message);
        }
        for (n, share) in split.to.iter().enumerate() {
            let at = at.key("to").index(n).key("upstream");
            report.known(at.clone(), "upstream", &share.upstream, known);
            if split.to[..n]
                .iter()
                .any(|other| other.upstream == share.upstream)
            {
                report.add(at, format!("`{}` stands here twice", share.upstream));
            }
        }
        if split.to.iter().all(|share| share.weight == 0) {
            let message = "no upstream has a weight above 0; expected at least one";
            report.add(at.key("to"), message);
        }
    }

    /// A span of nothing would end every request body and every stream at once.
    fn limits(&self, report: &mut FindingCollector) {
        let (limits, timeouts) = (&self.route.limits, &self.route.timeouts);
        for (section, key, span) in [
            ("limits", "body_timeout", limits.body_timeout),
            ("limits", "upload_timeout", limits.upload_timeout),
            ("limits", "min_rate_grace", limits.min_rate_grace),
            ("timeouts", "stream_idle", timeouts.stream_idle),
            ("timeouts", "tunnel", timeouts.tunnel),
        ] {
            let millis = span.map_or(1, |span| span.0.as_millis() as u64);
            report.positive(self.at.key(section).key(key), millis);
        }
    }

    /// A plugin that looks at requests may guard something, so the configuration must say what
    /// happens when it fails.
    fn guarded(&self, report: &mut FindingCollector) {
        let Some(hooked) = &self.route.request else {
            return;
        };
        let plugin = self.config.plugins.by_name.get(&hooked.plugin);
        if plugin.is_some_and(|plugin| plugin.on_error.request.is_none()) {
            report.add(
                self.at.key("request").key("plugin"),
                format!(
                    "plugin `{0}` looks at requests, and may protect something; expected \
                     `plugins.{0}.on_error.request`: refuse (answer 500 when a call fails) or \
                     continue",
                    hooked.plugin
                ),
            );
        }
    }

    /// A route without an upstream that does not answer by itself needs a loader whose failure does
    /// not send the request to an upstream.
    fn without_upstream(&self, report: &mut FindingCollector) {
        let names: Vec<&String> = self.config.upstreams.keys().collect();
        let choice = if names.is_empty() {
            "one, after defining it under `upstreams`".to_owned()
        } else {
            one_of(&names)
        };
        let at = self.at.key("upstream");
        let Some(loader) = &self.route.loader else {
            report.add(
                at,
                format!(
                    "the route has neither `upstream` nor `loader`; expected an upstream: {choice}"
                ),
            );
            return;
        };
        let asks_origin = self
            .config
            .plugins
            .by_name
            .get(&loader.plugin)
            .is_some_and(|p| p.on_error.loader == LoaderError::Origin);
        if asks_origin {
            report.add(
                at,
                format!(
                    "missing, but plugin `{}` has `on_error.loader: origin`; expected {choice}",
                    loader.plugin
                ),
            );
        }
    }

    fn matches(&self, report: &mut FindingCollector) {
        let (given, at) = (&self.route.matches, self.at.key("match"));
        let parts: [(&str, &Option<OneOrMany>, ValueCheck); 3] = [
            ("host", &given.host, form::host),
            ("path", &given.path, form::path_pattern),
            ("method", &given.method, form::method),
        ];
        for (key, value, check) in parts {
            match value {
                Some(OneOrMany::One(text)) => report.form(&at.key(key), check(text)),
                Some(OneOrMany::Many(texts)) if texts.is_empty() => report.add(
                    at.key(key),
                    "an empty list matches nothing; expected at least one",
                ),
                Some(OneOrMany::Many(texts)) => report.each(&at.key(key), texts, check),
                None => {}
            }
        }
        self.paths(&at.key("path"), report);
        for name in given.header.keys() {
            let listeners = &self.config.listeners;
            let checked =
                form::header_name(name).and_then(|()| ListenerConfig::arrives(name, listeners));
            report.form_of_key(&at.key("header").key(name), checked);
        }
        if let Some(tls) = &given.tls {
            let at = at.key("tls").key("ja4");
            if tls.ja4.as_slice().is_empty() {
                let empty = "an empty list matches nothing; expected at least one";
                report.add(at.clone(), empty);
            }
            let listeners = &self.config.listeners;
            if !listeners.iter().any(ListenerConfig::tells_fingerprints) {
                report.add(at, NO_FINGERPRINTS);
            }
        }
        for (key, given) in [("header", &given.header), ("query", &given.query)] {
            for (name, values) in given {
                if values.patterns().as_slice().is_empty() {
                    let empty = "an empty list matches nothing; expected at least one";
                    report.add(at.key(key).key(name), empty);
                }
            }
        }
    }

    fn paths(&self, at: &ConfigPath, report: &mut FindingCollector) {
        let Some(given) = &self.route.matches.path else {
            return;
        };
        let listeners: Vec<_> = self.config.listeners.iter().map(|one| one.path).collect();
        let all = given.as_slice();
        for (n, pattern) in all.iter().enumerate() {
            let at = match given {
                OneOrMany::One(_) => at.clone(),
                OneOrMany::Many(_) => at.index(n),
            };
            let judged = paths::check(pattern, all, self.route.path, &listeners);
            report.form(&at, judged);
        }
    }

    /// The first route that matches is used, so a route with the same match as an earlier one, or
    /// after one that matches everything, is never reached.
    fn reachable(&self, earlier: &EarlierRoutes<'_>, report: &mut FindingCollector) {
        let same = earlier.matches.get(&normal(&self.route.matches));
        let all = earlier.matches.get(&normal(&RouteMatchConfig::default()));
        let (n, how) = match (same, all) {
            (Some(n), _) => (*n, "has the same match"),
            (None, Some(n)) => (*n, "matches every request"),
            (None, None) => return,
        };
        let at = if self.route.matches == RouteMatchConfig::default() {
            self.at.clone()
        } else {
            self.at.key("match")
        };
        let name = &self.config.routes[n].name;
        report.add(at, format!("never reached: routes[{n}] (`{name}`) {how} and comes first; expected the narrower route first"));
    }

    fn key(&self, report: &mut FindingCollector) {
        let (key, at) = (&self.route.key, self.at.key("key"));
        report.each(&at.key("headers"), &key.headers, |name| {
            form::header_name(name)
                .and_then(|()| ListenerConfig::arrives(name, &self.config.listeners))
        });
        report.each(&at.key("cookies"), &key.cookies, |name| {
            let bad = name.is_empty()
                || name
                    .contains(|c: char| c.is_whitespace() || c.is_control() || "=;,".contains(c));
            if bad {
                Err(format!("{name:?} is not the name of a cookie"))
            } else {
                Ok(())
            }
        });
    }

    fn invalidate(&self, rule: &InvalidateConfig, at: &ConfigPath, report: &mut FindingCollector) {
        if rule.on.is_empty() {
            report.add(
                at.key("on"),
                "an empty list never purges; expected at least one method",
            );
        }
        if rule.purge.is_empty() {
            report.add(at.key("purge"), "nothing to purge; expected at least one of `url`, `prefix`, `pattern`, `tag` or `route`");
        }
        report.each(&at.key("on"), &rule.on, form::method);
        for (n, rule) in rule.purge.iter().enumerate() {
            let at = at.key("purge").index(n);
            match rule {
                PurgeRule::Url(t) => report.form(&at.key("url"), form::template(t)),
                PurgeRule::Prefix(t) => report.form(&at.key("prefix"), form::template(t)),
                PurgeRule::Pattern(t) => report.form(&at.key("pattern"), form::template(t)),
                PurgeRule::Tag(t) => report.form(&at.key("tag"), form::template(t)),
                PurgeRule::Route(t) => self.purged_route(t, at.key("route"), report),
            }
        }
    }

    fn purged_route(&self, template: &str, at: ConfigPath, report: &mut FindingCollector) {
        report.form(&at, form::template(template));
        let routes = &self.config.routes;
        let fixed = !template.is_empty() && !template.contains(['{', '}']);
        if fixed && !report.is_full() && routes.iter().all(|r| r.name != template) {
            let names: Vec<&str> = routes.iter().map(|r| r.name.as_str()).collect();
            report.add_near(
                at,
                format!(
                    "no route is named `{template}`; expected {}",
                    one_of(&names)
                ),
                nearest(template, &names),
            );
        }
    }
}

/// Checks a single value.
type ValueCheck = fn(&str) -> Result<(), String>;

/// Patterns for a value, and how they are compared.
type NormalValues = (Vec<String>, LetterCase);

/// The hosts, paths, methods, headers and parameters of a match, in a form in which equal matches
/// compare as equal.
type NormalizedMatch = (
    Vec<String>,
    Vec<String>,
    Vec<String>,
    BTreeMap<String, NormalValues>,
    BTreeMap<String, NormalValues>,
);

fn normal(given: &RouteMatchConfig) -> NormalizedMatch {
    let sorted = |part: &Option<OneOrMany>, form: fn(&str) -> String| {
        let texts = part.as_ref().map(OneOrMany::as_slice).unwrap_or_default();
        let mut texts: Vec<String> = texts.iter().map(|text| form(text)).collect();
        texts.sort();
        texts.dedup();
        // A list with a bare `*` matches everything, as a missing list does.
        if texts.iter().any(|t| t == "*") {
            Vec::new()
        } else {
            texts
        }
    };
    let values = |values: &ValueMatchConfig| {
        let (mut any, case) = (values.patterns().as_slice().to_vec(), values.case());
        if case == LetterCase::Ignore {
            any.iter_mut().for_each(|text| text.make_ascii_lowercase());
        }
        any.sort();
        any.dedup();
        (any, case)
    };
    let header = given.header.iter();
    let ja4 = given.tls.as_ref().map(|tls| {
        let (name, patterns) = tls.field();
        (name.as_str().to_owned(), values(&patterns))
    });
    let header = header.map(|(k, v)| (k.to_lowercase(), values(v)));
    let header = header.chain(ja4).collect();
    let query = given.query.iter();
    let query = query.map(|(k, v)| (k.clone(), values(v))).collect();
    (
        sorted(&given.host, normal_host_pattern),
        sorted(&given.path, paths::normal_pattern),
        sorted(&given.method, str::to_owned),
        header,
        query,
    )
}
