//! Servers and their locations: which routes there are, in the order in which nginx would look.

mod placing;

use std::collections::HashMap;

use super::super::draft::{ConfigDraft, DraftMap, STAND_IN, name_of_route};
use super::super::expression::ExpressionCase;
use super::super::source::{EarlierNotes, SourceStatement};
use super::blocks::BlockChain;
use super::hosts::{self, ServerHosts};
use super::precedence::{self, PlacedRoute, RouteOrder, RouteReach};
use super::server_location::{
    BEFORE_LOCATIONS, BEHIND_LOCATIONS, LocationKind, PrefixSurroundings, ServerLocation,
    collect_locations,
};
use super::{access, answers, fields, guards, listeners, policy, rewrites, unsaid, upstreams};
use placing::{RoutePlace, SAME_NAMES, is_new};

/// All servers; the default one takes what no other has, and so comes last.
pub fn translate(inside: &[SourceStatement], draft: &mut ConfigDraft) {
    let mut placed = Vec::new();
    let http = BlockChain::of_http(inside);
    for group in hosts::grouped(inside) {
        let begun = draft.routes.len();
        for (server, hosts) in group {
            server.translated();
            let mut routes = ServerRoutes {
                server,
                http: inside,
                chain: http.within_server(server),
                hosts,
                placed: Vec::new(),
            };
            routes.translate(draft);
            placed.extend(routes.placed);
        }
        sort_routes(&mut draft.routes[begun..], &placed);
    }
    precedence::keep_strict(&placed, draft);
}

/// Sorts the routes of servers with the same hosts by the order of their locations.
fn sort_routes(routes: &mut [DraftMap], placed: &[PlacedRoute<'_>]) {
    let named = placed
        .iter()
        .filter_map(|one| Some((one.name.clone()?, one.order)));
    let orders: HashMap<String, RouteOrder> = named.collect();
    routes.sort_by_key(|route| name_of_route(route).and_then(|name| orders.get(&name).copied()));
}

/// What was noted of these does not depend on the route: files are read before, and redirects are routes
/// of their own.
const SETTLED: [&str; 2] = ["include", "rewrite"];

struct ServerRoutes<'a> {
    server: &'a SourceStatement,
    http: &'a [SourceStatement],
    chain: BlockChain<'a>,
    hosts: ServerHosts,
    placed: Vec<PlacedRoute<'a>>,
}

impl<'a> ServerRoutes<'a> {
    fn translate(&mut self, draft: &mut ConfigDraft) {
        if self.hosts.are_none() {
            let why =
                "no request reaches it in nginx: it has no name, and another server is the default";
            return self.server.in_part(why);
        }
        self.redirects(draft);
        let returns = self
            .server
            .inside()
            .iter()
            .find(|one| one.name() == "return");
        let leads_to_https = answers::redirect_whole_listener(self.server, self.http, draft);
        match returns {
            _ if leads_to_https => {}
            Some(one) => self.returned(one, draft),
            None => self.locations(draft),
        }
        let names = self.placed.iter().rev().filter_map(|one| one.name.clone());
        let main = names.into_iter().next();
        if !leads_to_https {
            self.guard(draft);
        }
        if let Some(main) = main {
            let own = self.server.inside().iter();
            for one in own.filter(|one| one.home().is_none()) {
                one.belongs_to(&main);
            }
        }
    }

    /// A server that only answers.
    fn returned(&mut self, one: &'a SourceStatement, draft: &mut ConfigDraft) {
        let mut route = self.route(draft, "all", &[]);
        if !answers::returned(one, &self.hosts.names(), &mut route) {
            route.set("respond.status", 403);
            one.remarked("what it answers can't be said, so it is 403");
        }
        if !is_new(&route, draft) {
            return one.in_part(SAME_NAMES);
        }
        let place = RoutePlace::of_server(one, BEHIND_LOCATIONS, &[]);
        self.place(route, place, draft);
    }

    /// `rewrite … permanent` of the server, and others that take requests away.
    fn redirects(&mut self, draft: &mut ConfigDraft) {
        let server = self.server;
        for one in server.inside().iter().filter(|one| one.name() == "rewrite") {
            if !self.redirect(one, draft) && self.chain.rewrites().lead_away(one) {
                self.refuse_rewritten(one, draft);
            }
        }
    }

    /// Says one that redirects, if it can be said.
    fn redirect(&mut self, one: &'a SourceStatement, draft: &mut ConfigDraft) -> bool {
        let Some(redirect) = rewrites::redirecting_rewrite(one) else {
            return false;
        };
        let mut route = self.route(draft, "redirect", &redirect.patterns);
        let names = self.hosts.names();
        if !answers::set_redirect(&redirect.to, redirect.status, &names, &mut route) {
            return false;
        }
        one.translated();
        if let Some(difference) = redirect.difference {
            one.remarked(difference);
        }
        let place = RoutePlace::of_server(one, BEFORE_LOCATIONS, &redirect.patterns);
        self.place(route, place, draft);
        true
    }

    /// What a `rewrite` takes away gets a route that refuses it. Where no pattern says which paths these
    /// are, all routes are closed.
    fn refuse_rewritten(&mut self, one: &'a SourceStatement, draft: &mut ConfigDraft) {
        let Some(patterns) = rewrites::rewritten_paths(one) else {
            return;
        };
        one.in_part(rewrites::TAKEN_AWAY);
        let mut route = self.route(draft, "rewritten", &patterns);
        route.refuse(one, rewrites::TAKEN_AWAY);
        let place = RoutePlace::of_server(one, BEFORE_LOCATIONS, &patterns);
        self.place(route, place, draft);
    }

    /// `if (…) { return … }` of the server, around all of its routes.
    fn guard(&mut self, draft: &mut ConfigDraft) {
        let names: Vec<&String> = self
            .placed
            .iter()
            .filter_map(|one| one.name.as_ref())
            .collect();
        let is_own =
            |route: &DraftMap| name_of_route(route).is_some_and(|name| names.contains(&&name));
        let places: Vec<usize> = (0..draft.routes.len())
            .filter(|at| is_own(&draft.routes[*at]))
            .collect();
        let mut own: Vec<DraftMap> = places.iter().map(|at| draft.routes[*at].clone()).collect();
        let base = self.route(draft, "guard", &[]);
        let hosts = self.hosts.names();
        let around = guards::around(self.server.inside(), &self.chain, &hosts, &base, &mut own);
        for (at, route) in places.into_iter().zip(own) {
            draft.routes[at] = route;
        }
        self.leave_out_hidden(draft);
        let before = around.before.into_iter();
        let before = before.map(|route| (route, BEFORE_LOCATIONS, RouteReach::Exact));
        let behind = around.behind.into_iter();
        let behind = behind.map(|route| (route, BEHIND_LOCATIONS, RouteReach::Rest));
        for (route, rank, reach) in before.chain(behind) {
            let paths = path_patterns(&route);
            let mut place = RoutePlace::of_server(self.server, rank, &paths);
            place.reach = reach;
            self.place(route, place, draft);
        }
    }

    fn locations(&mut self, draft: &mut ConfigDraft) {
        let mut locations = Vec::new();
        collect_locations(self.server.inside(), &[], &mut locations);
        let surroundings = PrefixSurroundings::of(&locations);
        for (n, location) in locations.iter_mut().enumerate() {
            location.find_order(n, &surroundings);
        }
        locations.sort_by_key(|one| one.order);
        tell_of_moved(&locations);
        let php = self.lifted(&locations);
        let mut has_root = false;
        for location in &locations {
            let is_prefix = matches!(
                location.kind,
                LocationKind::Prefix | LocationKind::PrefixFirst
            );
            let is_root = is_prefix && location.path == "/";
            has_root |= is_root;
            let is_php = php.is_some_and(|php| std::ptr::eq(php, location.block));
            let mut chain = self.chain.clone();
            if let Some(php) = php.filter(|_| is_root) {
                chain = chain.within(php.inside());
            }
            for parent in &location.parents {
                chain = chain.within(parent.inside());
            }
            let chain = chain.within(location.block.inside());
            match is_php {
                true => self.lift(location, &chain, draft),
                false => self.location(location, &chain, draft),
            }
        }
        if !has_root && !self.serves_files() && !self.hosts.matched().is_empty() {
            // What no location takes must not meet the default server.
            let mut route = self.route(draft, "rest", &[]);
            route.set("respond.status", 404);
            let place = RoutePlace::of_server(self.server, BEHIND_LOCATIONS - 1, &[]);
            self.place(route, place, draft);
        } else if !has_root && self.serves_files() {
            let route = self.route(draft, "", &[]);
            let chain =
                php.map_or_else(|| self.chain.clone(), |php| self.chain.within(php.inside()));
            let route = served(route, &chain, None, draft);
            let place = RoutePlace::of_server(self.server, BEHIND_LOCATIONS - 1, &[]);
            self.place(route, place, draft);
        }
    }

    /// Whether requests that no location takes are answered: from files, or by an `index.php`.
    fn serves_files(&self) -> bool {
        let names = ["root", "try_files", "fastcgi_pass", "index"];
        let inside = self.server.inside();
        inside.iter().any(|one| names.contains(&one.name()))
            || !inside.iter().any(|one| one.name() == "location")
    }

    /// The location for PHP, where all pages end by `try_files`: what it says of the cache is said of
    /// them.
    fn lifted(&self, locations: &[ServerLocation<'a>]) -> Option<&'a SourceStatement> {
        let is_php = |one: &&ServerLocation<'a>| {
            let mut inside = one.block.inside().iter();
            inside.any(|inner| inner.name() == "fastcgi_pass") && one.path.contains("php")
        };
        let to_php =
            |one: &SourceStatement| one.name() == "try_files" && one.text.contains("index.php");
        let all = super::super::source::all(self.server.inside());
        let found = locations.iter().find(is_php)?;
        all.into_iter().any(to_php).then_some(found.block)
    }

    /// The location for PHP has no route of its own, and its rules are known all the same.
    fn lift(
        &mut self,
        location: &ServerLocation<'a>,
        chain: &BlockChain<'a>,
        draft: &mut ConfigDraft,
    ) {
        location.block.translated();
        self.lose(location, chain, draft);
    }

    /// Notes the rules of a location that gets no route: what takes its requests must be as strict.
    fn lose(
        &mut self,
        location: &ServerLocation<'a>,
        chain: &BlockChain<'a>,
        draft: &mut ConfigDraft,
    ) {
        let inside = location.block.inside().iter().collect();
        let notes = EarlierNotes::put_aside(inside, &[]);
        let route = self.route(draft, &location.path, &[]);
        let mut rules = self.with_rules(route, location, chain, draft);
        let has_guards = location.block.inside().iter().any(guards::is_guard);
        notes.restore();
        if has_guards {
            rules.deny_everybody();
        }
        let (paths, path_case) = location.covering_patterns();
        self.placed.push(PlacedRoute {
            name: None,
            rules,
            paths,
            path_case,
            server: self.server,
            hosts: self.hosts.clone(),
            order: location.order,
            reach: RouteReach::None,
            is_expression: location.kind == LocationKind::Expression,
            statement: location.block,
        });
    }

    fn location(
        &mut self,
        location: &ServerLocation<'a>,
        chain: &BlockChain<'a>,
        draft: &mut ConfigDraft,
    ) {
        let block = location.block;
        if block.inside().iter().any(answers::purges_by_path) {
            return answers::purging(block, draft);
        }
        if location.kind == LocationKind::Named {
            block.remarked("requests reach it from other locations alone");
            if unsaid::may_restrict(block) {
                self.lose(location, chain, draft);
            }
            return;
        }
        let Some(list) = location.patterns() else {
            block.remarked("no pattern says the same as this expression");
            return self.lose(location, chain, draft);
        };
        let keeps_slashes = chain
            .first("merge_slashes")
            .is_some_and(|one| one.argument() == "off");
        if !keeps_slashes && list.patterns.iter().any(|path| path.contains("//")) {
            return block.in_part("no request has such a path, since slashes in a row are one");
        }
        let mut route = self.route(draft, &location.path, &list.patterns);
        block.belongs_to(&name_of_route(&route).unwrap_or_default());
        block.translated();
        let taken = rewrites::taken_requests(location, chain.rewrites());
        route = self.with_rules(route, location, chain, draft);
        let (patterns, reach) = location.spelled(list, &mut route);
        let (paths, path_case) = match reach {
            reach if reach.loses_spellings() => location.covering_patterns(),
            _ => (patterns, ExpressionCase::Told),
        };
        let place = RoutePlace {
            statement: block,
            paths,
            path_case,
            order: location.order,
            reach,
            is_expression: location.kind == LocationKind::Expression,
        };
        for one in taken {
            let mut refused = self.route(draft, &location.path, &one.patterns);
            refused.refuse(one.statement, rewrites::TAKEN_AWAY);
            let mut before = place.clone();
            before.paths = one.patterns;
            before.reach = RouteReach::Exact;
            self.place(refused, before, draft);
        }
        self.place_guarded(route, location, chain, place, draft);
    }

    /// What a location does with its requests.
    fn with_rules(
        &self,
        mut route: DraftMap,
        location: &ServerLocation<'a>,
        chain: &BlockChain<'a>,
        draft: &mut ConfigDraft,
    ) -> DraftMap {
        let block = location.block;
        let inside = block.inside();
        let has = |name: &str| inside.iter().any(|one| one.name() == name);
        if has("stub_status") || has("internal") {
            route.set("respond.status", 404);
            let why = match has("internal") {
                true => "who asks for it gets 404, as with nginx",
                false => "it is 404: the admin listener has metrics",
            };
            inside.iter().for_each(SourceStatement::needs_nothing_whole);
            block.remarked(why);
        } else if let Some(one) = inside.iter().find(|one| one.name() == "return") {
            if !answers::returned(one, &self.hosts.names(), &mut route) {
                route.set("respond.status", 403);
                one.remarked("what it answers can't be said, so it is 403");
            }
        } else if answers::is_closed(block) {
            route.set("respond.status", 403);
            block.translated_whole();
        } else {
            route = served(route, chain, Some(location), draft);
        }
        route
    }

    /// Puts the route of a location into the draft, with those of its guards around it.
    fn place_guarded(
        &mut self,
        route: DraftMap,
        location: &ServerLocation<'a>,
        chain: &BlockChain<'a>,
        place: RoutePlace<'a>,
        draft: &mut ConfigDraft,
    ) {
        let mut base = self.route(draft, "", &[]);
        for key in ["name", "match"] {
            if let Some(value) = route.get(key) {
                base.set(key, value.clone());
            }
        }
        let mut own = vec![route];
        for one in location.block.inside() {
            if one.name() != "limit_except" {
                continue;
            }
            let others = guards::limit_except(one, &mut own[0], |route| {
                let mut others = route.clone();
                ["access", "auth"].iter().for_each(|key| others.remove(key));
                access::of_route(&chain.within(one.inside()), &mut others, draft);
                others
            });
            own.extend(others);
        }
        let hosts = self.hosts.names();
        let around = guards::around(location.block.inside(), chain, &hosts, &base, &mut own);
        let all = around.before.into_iter().chain(own).chain(around.behind);
        for (part, route) in all.enumerate() {
            let mut place = place.clone();
            place.order.part = u8::try_from(part + 1).unwrap_or(u8::MAX);
            self.place(route, place, draft);
        }
    }
}

/// Says of closed prefixes that they also refuse what expressions behind them would take with nginx.
fn tell_of_moved(locations: &[ServerLocation<'_>]) {
    let at_the_top =
        |one: &&ServerLocation<'_>| one.kind == LocationKind::Expression && one.parents.is_empty();
    let is_moved = |one: &&ServerLocation<'_>| one.is_moved && answers::is_closed(one.block);
    for location in locations.iter().filter(is_moved) {
        let path = location.path.to_ascii_lowercase();
        let own = format!("{}*", super::super::expression::literal_text(&path));
        let takes = |one: &ServerLocation<'_>| {
            let (paths, _) = one.covering_patterns();
            let overlaps =
                |path: &String| precedence::patterns_overlap(&own, &path.to_ascii_lowercase());
            paths.is_empty() || paths.iter().any(overlaps)
        };
        if locations.iter().filter(at_the_top).any(takes) {
            location
                .block
                .remarked("it stands before expressions here, and refuses what these would take");
        }
    }
}

/// A route that goes to an upstream.
fn served<'a>(
    mut route: DraftMap,
    chain: &BlockChain<'a>,
    location: Option<&ServerLocation<'a>>,
    draft: &mut ConfigDraft,
) -> DraftMap {
    let around: Vec<&SourceStatement> = chain.blocks().flatten().copied().collect();
    let notes = EarlierNotes::put_aside(around, &SETTLED);
    let passes = chain.blocks().next().into_iter().flatten();
    let target = passes
        .filter(|one| matches!(one.name(), "proxy_pass" | "grpc_pass"))
        .find_map(|one| upstreams::of_proxy_pass(one, draft));
    let upstream = target
        .as_ref()
        .map_or(STAND_IN, |target| target.upstream.as_str());
    route.set("upstream", upstream);
    if let (Some(target), Some(location)) = (&target, location) {
        let path = target.path.as_deref();
        let is_said =
            path.is_none_or(|path| answers::replaced_path(&location.path, path, &mut route));
        if !is_said {
            let why = "its path is none that can be put before that of a request";
            target.statement.in_part(why);
            route.close(target.statement, why);
        }
        rewrites::replaced_prefix(location, &mut route);
    }
    policy::of_route(chain, &mut route, draft);
    fields::of_route(chain, &mut route, draft);
    access::of_route(chain, &mut route, draft);
    policy::of_upstream(chain, upstream, draft);
    for name in ["client_max_body_size", "client_body_timeout"] {
        for one in chain.directives(name) {
            listeners::body_limits(one, &mut route);
        }
    }
    unsaid::be_careful(chain, &mut route);
    notes.join();
    route
}

fn path_patterns(route: &DraftMap) -> Vec<String> {
    let list = route.get("match.path").and_then(|list| list.as_array());
    let texts = list.into_iter().flatten();
    texts
        .filter_map(|one| Some(one.as_str()?.to_owned()))
        .collect()
}
