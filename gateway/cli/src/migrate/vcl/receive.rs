//! `vcl_recv`, from the first statement to the one that ends it.

use serde_json::json;

use super::super::draft::ConfigDraft;
use super::super::source::{self, SourceStatement};
use super::branches::{SubOutcome, is_end};
use super::cleaning::{
    cookie_module, cookie_step, is_cookie_work, is_tidying, is_tracking, kept_cookies,
    removed_field, request_field, url_step,
};
use super::condition::VclCondition;
use super::passes::{self, VclPasses};
use super::program::{VclProgram, assignment, quoted_text, removed_variable, returned_step};
use super::routes::{RouteRestraint, VclRoutes};
use super::target::{TargetDifference, TargetPatterns};
use super::unsaid::{self, StatementScope};
use super::walk::{BlockReading, StatementTranslator, walk};
use super::{answers, hosts, purges, settled};

pub fn translate(program: &VclProgram<'_>, routes: &mut VclRoutes, draft: &mut ConfigDraft) {
    let statements = program.sub("vcl_recv");
    let mut steps = ReceiveSteps {
        program,
        routes,
        draft,
        decided: None,
    };
    if walk(program, &statements, &mut steps) == SubOutcome::Ended {
        return;
    }
    // The rules that Varnish has built in.
    routes.restrain_rest(RouteRestraint::CookiesPass);
    routes.restrain_rest(RouteRestraint::AuthorizationPasses);
    for one in program.declared("sub", "vcl_recv") {
        one.translated();
        one.remarked(
            "it ends without a return, so Varnish also passes what has cookies or Authorization: \
             that is in bypass",
        );
    }
}

struct ReceiveSteps<'a, 'b> {
    program: &'b VclProgram<'a>,
    routes: &'b mut VclRoutes,
    draft: &'b mut ConfigDraft,
    /// Paths whose block says `return (hash)`, until all of the block is weighed.
    decided: Option<Vec<String>>,
}

impl StatementTranslator for ReceiveSteps<'_, '_> {
    fn plain(&mut self, one: &SourceStatement) {
        match returned_step(one) {
            Some("hash" | "lookup") => one.needs_nothing(),
            Some("pass" | "pipe") => {
                self.routes.restrain_rest(RouteRestraint::Uncached);
                one.translated();
            }
            _ => self.step(one),
        }
    }

    fn block(&mut self, one: &SourceStatement, condition: &VclCondition) -> BlockReading {
        if self.says_of_all(one, condition) || self.says_of_some(one, condition) {
            return BlockReading::Whole;
        }
        let is_work = |inner: &SourceStatement| is_cookie_work(inner, "req.http.cookie");
        match is_set(condition, "req.http.cookie") && one.inside().iter().all(is_work) {
            true => BlockReading::AsIfForAll,
            false => BlockReading::Whole,
        }
    }

    fn weigh(&mut self, one: &SourceStatement) {
        let scope = StatementScope::Rest;
        unsaid::weigh(one, "vcl_recv", scope, self.program, self.routes);
        if let Some(paths) = self.decided.take() {
            self.routes.look_up(&paths);
        }
    }
}

impl ReceiveSteps<'_, '_> {
    /// A statement for all requests.
    fn step(&mut self, one: &SourceStatement) {
        if let Some((left, right)) = assignment(one) {
            match left.as_str() {
                "req.backend_hint" | "req.backend" => {
                    if let Some(name) = self.backend(right) {
                        self.routes.send_all(name);
                        one.translated();
                    }
                }
                "req.url" => url_step(one, right, &mut self.routes.site),
                "req.http.cookie" => cookie_step(one, right, &mut self.routes.site),
                "req.http.surrogate-capability" => {
                    self.routes.site.set_default("esi", json!({}));
                    one.translated();
                    one.remarked(
                        "esi of the route sends it; take it out where no page has fragments",
                    );
                }
                _ => request_field(one, &left, right, &mut self.routes.site),
            }
        } else if let Some(what) = removed_variable(one) {
            match what.as_str() {
                "req.http.cookie" => {
                    self.routes.site.set("cookies.keep", json!([]));
                    one.translated();
                }
                "req.http.proxy" => one.needs_nothing(),
                _ => removed_field(one, &what, &mut self.routes.site),
            }
        } else if one.text.starts_with("std.collect(") {
            one.needs_nothing();
        } else {
            cookie_module(one, &mut self.routes.site);
        }
    }

    /// The upstream of `x`, `x.backend()` or `x.backend("host")`.
    fn backend(&mut self, text: &str) -> Option<String> {
        let (name, call) = text.split_once(".backend(").unwrap_or((text, ")"));
        let known = self
            .draft
            .upstreams
            .iter()
            .position(|(known, _)| known == name)?;
        let upstream = &mut self.draft.upstreams[known].1;
        if let Some(host) = quoted_text(call.trim_end_matches(')')).filter(|host| !host.is_empty())
        {
            let port = upstream
                .get("port")
                .and_then(|port| port.as_str())
                .unwrap_or("80");
            let url = format!("http://{host}:{port}");
            upstream.add("targets", url);
        }
        upstream.remove("port");
        upstream.has("targets").then(|| name.to_owned())
    }

    /// Whether a block is one of which Lamina needs to know nothing, or whose words hold for all requests.
    fn says_of_all(&mut self, one: &SourceStatement, condition: &VclCondition) -> bool {
        let inside = one.inside();
        let of_cookies = || kept_cookies(one).filter(|_| is_set(condition, "req.http.cookie"));
        if !purges::methods(condition).is_empty() {
            purges::translate(one, condition, self.program, self.draft);
        } else if settled::is_by_itself(one, condition) {
            one.needs_nothing_whole();
        } else if condition.is_about("req.http.accept-encoding")
            && settled::only_touches(one, "accept-encoding")
        {
            self.routes.site.set_default("compress", json!({}));
            one.translated_whole();
        } else if let Some(names) = of_cookies() {
            passes::only_kept_cookies(one, &names, &mut self.routes.site);
        } else if answers::is_refusal_or_answer(one) {
            answers::translate(one, condition, self.program, self.routes);
        } else if inside.iter().all(is_tidying) {
            one.needs_nothing_whole();
        } else if is_tracking(inside) && is_of_query(condition) {
            one.translated();
            for inner in inside {
                if let Some((_, right)) = assignment(inner) {
                    url_step(inner, right, &mut self.routes.site);
                }
            }
        } else {
            return false;
        }
        true
    }

    /// Whether a block says what becomes of some requests: they pass, or have a route of their own. So does
    /// one that there is no room for.
    fn says_of_some(&mut self, one: &SourceStatement, condition: &VclCondition) -> bool {
        let last = one.inside().last().and_then(returned_step);
        if matches!(last, Some("pass" | "pipe")) {
            self.other_steps(one, condition);
            VclPasses::new(self.program, self.routes).translate(one, condition);
        } else if !self.routes.have_room() {
            return true;
        } else if let Some(patterns) = path_patterns(condition) {
            self.of_paths(one, patterns);
        } else if let Some(hosts) = hosts::of(condition) {
            self.of_hosts(one, &hosts);
        } else {
            return passes::without_cookies(one, condition, self.program, self.routes);
        }
        true
    }

    /// What a block that passes says besides: another upstream, or fields.
    fn other_steps(&mut self, one: &SourceStatement, condition: &VclCondition) {
        let others = one
            .inside()
            .split_last()
            .map_or(&[][..], |(_, others)| others);
        if others.is_empty() || !self.routes.have_room() {
            return;
        }
        let list = path_patterns(condition).filter(|list| !list.has(TargetDifference::Case));
        if let Some(list) = list {
            for inner in others {
                self.of_path(inner, &list.paths, one);
            }
            return self.routes.keep_upstream_of_paths(&list.paths);
        }
        let Some(hosts) = hosts::of(condition) else {
            return;
        };
        for inner in others {
            self.send_hosts(inner, &hosts);
        }
        self.routes.keep_upstream_of_hosts(&hosts);
    }

    /// `if (req.url ~ …) { unset req.http.Cookie; … }`: a route for these paths.
    fn of_paths(&mut self, one: &SourceStatement, mut patterns: TargetPatterns) {
        let inside = one.inside();
        let takes_more = patterns.has(TargetDifference::Case);
        let only_caches = |inner: &SourceStatement| {
            removed_variable(inner).is_some_and(|what| what == "req.http.cookie")
                || matches!(returned_step(inner), Some("hash" | "lookup"))
                || is_tidying(inner)
        };
        if takes_more && !inside.iter().all(only_caches) {
            return one.remarked("case counts in patterns for paths");
        }
        patterns.in_both_cases();
        let paths = patterns.paths.clone();
        self.routes.of_paths(&paths, one);
        one.translated();
        if let Some(difference) = patterns.difference() {
            one.remarked(&difference);
        }
        for inner in inside {
            self.of_path(inner, &paths, one);
        }
    }

    fn of_path(&mut self, inner: &SourceStatement, paths: &[String], block: &SourceStatement) {
        if let Some(("req.backend_hint" | "req.backend", right)) = assignment(inner)
            .as_ref()
            .map(|(left, right)| (left.as_str(), *right))
        {
            if let Some(name) = self.backend(right) {
                self.routes.send_paths(paths, name);
                inner.translated();
            }
            return;
        }
        if matches!(returned_step(inner), Some("hash" | "lookup")) {
            self.decided = Some(paths.to_vec());
            return inner.needs_nothing();
        }
        let route = self.routes.of_paths(paths, block);
        if let Some((left, right)) = assignment(inner) {
            match left.as_str() {
                "req.url" => url_step(inner, right, route),
                "req.http.cookie" => cookie_step(inner, right, route),
                _ => request_field(inner, &left, right, route),
            }
        } else if let Some(what) = removed_variable(inner) {
            match what.as_str() {
                "req.http.cookie" => {
                    route.set("cookies.keep", json!([]));
                    inner.translated();
                }
                what => removed_field(inner, what, route),
            }
        }
    }

    /// `if (req.http.host ~ …) { set req.backend_hint = …; }`.
    fn of_hosts(&mut self, one: &SourceStatement, hosts: &[String]) {
        for inner in one.inside() {
            self.send_hosts(inner, hosts);
        }
        if one.inside().iter().any(|inner| !inner.is_untouched()) {
            one.translated();
        }
        if one.inside().last().is_some_and(is_end) {
            self.routes.keep_upstream_of_hosts(hosts);
        }
    }

    fn send_hosts(&mut self, inner: &SourceStatement, hosts: &[String]) {
        let Some((left, right)) = assignment(inner) else {
            return;
        };
        if !matches!(left.as_str(), "req.backend_hint" | "req.backend") {
            return;
        }
        if let Some(upstream) = self.backend(right) {
            self.routes.send_hosts(hosts, upstream);
            inner.translated();
        }
    }
}

/// Whether a condition is that there is this field, or that it is not empty.
fn is_set(condition: &VclCondition, field: &str) -> bool {
    let is_known = match condition {
        VclCondition::Set(_) => true,
        one => one.comparison().is_some_and(|(_, operator, right)| {
            matches!(operator, "!=" | "!~") && settled::is_blank(right)
        }),
    };
    is_known && condition.left() == field
}

/// Whether a condition asks for parameters, and for nothing of the path.
fn is_of_query(condition: &VclCondition) -> bool {
    let of = |one: &&VclCondition| {
        let (left, operator, right) = one.comparison()?;
        let is_url = left == "req.url";
        TargetPatterns::of(operator, right).filter(|_| is_url)
    };
    let all: Option<Vec<TargetPatterns>> = condition.alternatives().iter().map(of).collect();
    all.is_some_and(|all| {
        all.iter()
            .all(|one| one.paths.is_empty() && one.unsaid == 0)
    })
}

/// The paths of a condition that is about nothing else.
pub fn path_patterns(condition: &VclCondition) -> Option<TargetPatterns> {
    let mut found: Option<TargetPatterns> = None;
    for alternative in condition.alternatives() {
        let (left, operator, right) = alternative.comparison()?;
        if !matches!(left.as_str(), "req.url" | "bereq.url") {
            return None;
        }
        let one = TargetPatterns::of(operator, right)?;
        match &mut found {
            Some(all) => all.join(one),
            None => found = Some(one),
        }
    }
    found.filter(TargetPatterns::is_of_paths)
}

/// Fields that the VCL sets itself: a condition about one is none about what the client sent.
pub fn own_fields(program: &VclProgram<'_>) -> Vec<String> {
    let every = source::all(program.statements);
    let fields = every.into_iter().filter_map(assignment);
    // A host without its port is still the client's.
    let is_port = |right: &str| right.contains("\":[0-9]+\"") || right.contains("\":\\d+\"");
    let fields = fields.filter(|(left, right)| left != "req.http.host" || !is_port(right));
    fields
        .map(|(left, _)| left.strip_prefix("be").map(str::to_owned).unwrap_or(left))
        .filter(|left| left.starts_with("req.http.") && left != "req.http.cookie")
        .collect()
}
