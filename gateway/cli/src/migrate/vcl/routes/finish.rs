//! The routes of a VCL are put into the draft: the narrower ones first, each with what holds for all.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::super::draft::{ConfigDraft, DraftMap};
use super::{BlockFollowUp, HostRoute, PathLifetime, PathRoute, RouteRestraint, SITE, VclRoutes};

impl VclRoutes {
    /// The rules for kinds of responses: the last one that holds counts in a VCL, and here the first.
    fn lifetime_rules(&self) -> Vec<Value> {
        let mut rules = std::collections::VecDeque::new();
        for (rule, follow_up) in self.lifetimes.iter().rev() {
            match follow_up {
                BlockFollowUp::Ended => rules.push_front(rule.clone()),
                BlockFollowUp::Rest => rules.push_back(rule.clone()),
            }
        }
        rules.into()
    }

    /// Puts all of them into the draft, the narrower ones first.
    pub fn finish(mut self, draft: &mut ConfigDraft) {
        let rules = self.lifetime_rules();
        if !rules.is_empty() {
            self.site.set("policy.lifetimes", rules);
        }
        self.sort_paths();
        let lifetimes = self.lifetimes_of_later_paths();
        let fields = self.fields_of_paths();
        let is_on = |on: &Value| on == true;
        if let Some(only) = &self.only {
            let purges = draft.top.get("purge_method.enabled").is_some_and(is_on);
            let own = (purges && only.kind == "match.method").then(|| "PURGE".to_owned());
            let list: Vec<String> = only.list.iter().cloned().chain(own).collect();
            self.site.set(only.kind, list);
        }
        let mut routes = Vec::new();
        for (mut one, lifetimes) in std::mem::take(&mut self.paths).into_iter().zip(lifetimes) {
            self.complete(&mut one, lifetimes, &fields);
            routes.push((one.route, one.upstream_at));
        }
        if self.site.has("cookies.keep") {
            self.site.remove("cookies.drop");
        }
        apply(&self.restraints, &mut self.site);
        routes.push((self.site.clone(), None));
        draft.routes.append(&mut self.answers);
        draft.routes.append(&mut self.of_hosts(&routes));
        draft
            .routes
            .extend(routes.into_iter().map(|(route, _)| route));
        if let Some(only) = self.only {
            let mut route = DraftMap::default();
            route.set("name", "all-others");
            route.fill_from(&only.answer);
            draft.routes.push(route);
        }
        drop_unreached(&mut draft.routes);
        let is_off = |on: &Value| on == false;
        draft.top.set_default("purge_method.enabled", false);
        if draft.top.get("purge_method.enabled").is_some_and(is_off) {
            draft.top.remove("purge_method");
        }
    }

    /// Guarded paths first, then those with an upstream of their own, of which the last one counts.
    fn sort_paths(&mut self) {
        let rank = |one: &PathRoute| match (one.is_guarded, one.upstream_at) {
            (true, _) => (0, 0),
            (false, Some(at)) => (1, usize::MAX - at),
            (false, None) => (2, 0),
        };
        self.paths.sort_by_key(rank);
    }

    /// For each of the paths, what later blocks of the VCL say of the lifetime of paths that may be the
    /// same.
    fn lifetimes_of_later_paths(&self) -> Vec<Vec<Value>> {
        let of = |n: usize, one: &PathRoute| {
            if one
                .lifetime
                .is_some_and(|own| own.follow_up == BlockFollowUp::Ended)
            {
                return Vec::new();
            }
            let later = self.paths[n + 1..].iter().filter(|other| {
                let theirs = other.lifetime;
                let is_later = |own: PathLifetime| theirs.is_some_and(|theirs| theirs.at > own.at);
                theirs.is_some() && one.lifetime.is_none_or(is_later)
            });
            let rule = |other: &PathRoute| {
                let ttl = other.route.get("policy.ttl")?;
                Some(json!({ "paths": other.paths, "ttl": ttl }))
            };
            let mut rules: Vec<Value> = later.filter_map(rule).collect();
            rules.reverse();
            rules
        };
        self.paths
            .iter()
            .enumerate()
            .map(|(n, one)| of(n, one))
            .collect()
    }

    /// The fields of requests that some path sets or removes. A path of another route may be one of its
    /// paths as well, so no client may send them there.
    fn fields_of_paths(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for one in &self.paths {
            let set = one.route.get("headers.request.set");
            let set = set.and_then(Value::as_object);
            found.extend(set.into_iter().flat_map(|set| set.keys().cloned()));
            let removed = one.route.get("headers.request.remove");
            let removed = removed.and_then(Value::as_array).into_iter().flatten();
            found.extend(removed.filter_map(Value::as_str).map(str::to_owned));
        }
        found.sort();
        found.dedup();
        found
    }

    /// Adds to the route for some paths what holds for all.
    fn complete(&self, one: &mut PathRoute, lifetimes: Vec<Value>, fields: &[String]) {
        let route = &mut one.route;
        for field in fields {
            if !route.has(&format!("headers.request.set.{field}")) {
                route.add("headers.request.remove", field.as_str());
            }
        }
        if !lifetimes.is_empty() {
            // So that they are upper bounds, whatever answers state.
            route.set_default("policy.mode", "cap");
        }
        for rule in lifetimes {
            route.add("policy.lifetimes", rule);
        }
        let has_keep = route.has("cookies.keep");
        let own_esi = route.get("esi").cloned();
        let mut cookies = DraftMap::default();
        if let Some(own) = route.get("cookies") {
            cookies.set("cookies", own.clone());
        }
        route.fill_from(&self.site);
        if one.follow_up == BlockFollowUp::Ended {
            let mut then = DraftMap::default();
            then.set("cookies", one.cookies.clone().unwrap_or_default());
            cookies.fill_from(&then);
            route.remove("cookies");
            if let Some(own) = cookies.get("cookies").filter(|own| !own.is_null()) {
                route.set("cookies", own.clone());
            }
        }
        if has_keep {
            route.remove("cookies.drop");
        }
        // Pages are put together on the route for pages alone.
        route.remove("esi");
        if let Some(esi) = own_esi {
            route.set("esi", esi);
        }
        let is_cached = !one.restraints.contains(&RouteRestraint::Uncached);
        if is_cached && self.restraints.contains(&RouteRestraint::Uncached) {
            route.set("cache", "on");
        }
        apply(&one.restraints, route);
    }

    /// All routes once more for each set of hosts that is treated in a way of its own.
    fn of_hosts(&self, routes: &[(DraftMap, Option<usize>)]) -> Vec<DraftMap> {
        let mut found = Vec::new();
        let mut hosts: Vec<&HostRoute> = self.hosts.iter().collect();
        // Of two assignments the last one counts; what is not stored comes before what is.
        hosts.sort_by_key(|one| {
            let at = one.upstream.as_ref().map_or(0, |(_, at)| *at);
            (one.restraints.is_empty(), usize::MAX - at)
        });
        for (n, one) in hosts.into_iter().enumerate() {
            for (route, upstream_at) in routes {
                let mut named = DraftMap::default();
                let name = route.get("name").and_then(Value::as_str);
                named.set("name", format!("host-{}-{}", n + 1, name.unwrap_or(SITE)));
                let mut rest = route.clone();
                rest.remove("name");
                rest.set("match.host", one.hosts.clone());
                if let Some((upstream, at)) = &one.upstream
                    && upstream_at.is_none_or(|paths_at| paths_at < *at)
                {
                    rest.set("upstream", upstream.clone());
                }
                apply(&one.restraints, &mut rest);
                named.fill_from(&rest);
                found.push(named);
            }
        }
        found
    }
}

/// Of routes with the same match, the first one counts.
fn drop_unreached(routes: &mut Vec<DraftMap>) {
    let mut known: Vec<Option<Value>> = Vec::new();
    routes.retain(|route| {
        let own = route.get("match").cloned();
        let is_new = !known.contains(&own);
        known.push(own);
        is_new
    });
}

/// Says in a route what restrains it.
fn apply(restraints: &BTreeSet<RouteRestraint>, route: &mut DraftMap) {
    for restraint in restraints {
        match restraint {
            RouteRestraint::Uncached => route.set("cache", "off"),
            RouteRestraint::Closed => route.set("maintenance.enabled", true),
            RouteRestraint::AuthorizationPasses => {
                route.add_value("bypass.header", "authorization", "*");
            }
            RouteRestraint::CookiesPass => {
                let kept = route.get("cookies.keep").and_then(Value::as_array).cloned();
                for name in kept.unwrap_or_else(|| vec![json!("*")]) {
                    route.add("bypass.cookie", name);
                }
            }
        }
    }
}
