//! `vcl_backend_response`: what becomes of an origin's answer.
//!
//! Varnish does not store what says `private` or `no-store` after all that a VCL says, unless the VCL ends
//! with `return (deliver)`. So a lifetime is an upper bound here (`mode: cap`) wherever that rule, or
//! one of the VCL's own, stands in its way.

use serde_json::{Value, json};

use super::super::draft::DraftMap;
use super::super::source::{self, SourceStatement};
use super::condition::VclCondition;
use super::delivery::{answer_field, removed_field};
use super::passes::VclPasses;
use super::patterns;
use super::program::{
    VclProgram, assignment, duration_seconds, removed_variable, returned_step, written_duration,
};
use super::receive::path_patterns;
use super::routes::{BlockFollowUp, RouteRestraint, VclRoutes};
use super::unsaid::{self, StatementScope};
use super::walk::{BlockReading, StatementTranslator, walk};

/// Says it.
pub fn translate(program: &VclProgram<'_>, routes: &mut VclRoutes) {
    for name in ["vcl_backend_response", "vcl_fetch"] {
        let statements = program.sub(name);
        let guards = match is_guarded(&statements) {
            true => LifetimeGuard::Stands,
            false => LifetimeGuard::Lacks,
        };
        let mut steps = ResponseSteps {
            program,
            routes,
            guards,
            set_cookie: SetCookieRule::Stored,
        };
        walk(program, &statements, &mut steps);
    }
    tell_of_surrogates(program);
}

/// What is said where Varnish reads `Surrogate-Control`.
const SURROGATES: &str = "Varnish does not store what says Surrogate-Control: no-store, and here that field is \
                          read for ESI alone: have the origin say Cache-Control";

/// The rules that Varnish has built in come after those of the VCL, unless these always end with
/// `return (deliver)`.
fn tell_of_surrogates(program: &VclProgram<'_>) {
    let names = ["vcl_backend_response", "vcl_fetch"];
    let delivers = |name: &str| {
        let statements = program.sub(name);
        statements
            .last()
            .is_some_and(|last| returned_step(last) == Some("deliver"))
    };
    if names.into_iter().any(delivers) {
        return;
    }
    let subs = names.into_iter().chain(["vcl_recv"]);
    let declared = subs.flat_map(|name| program.declared("sub", name));
    let others = program.statements.iter();
    let others = others.filter(|one| matches!(one.name(), "vcl" | "backend"));
    if let Some(one) = declared.chain(others).next() {
        one.translated();
        one.also_remarked(SURROGATES);
    }
}

/// Whether something keeps answers out of the cache, whatever lifetime they are given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LifetimeGuard {
    Stands,
    Lacks,
}

/// Whether an answer that sets a cookie may be stored without the cookie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SetCookieRule {
    Stored,
    KeptOut,
}

/// Whether what Varnish has built in comes after these statements, or they keep something out
/// themselves.
fn is_guarded(statements: &[&SourceStatement]) -> bool {
    let delivers = statements
        .last()
        .is_some_and(|last| returned_step(last) == Some("deliver"));
    let every = statements
        .iter()
        .flat_map(|one| source::all(std::slice::from_ref(*one)));
    let mut guards = every.filter(|one| keeps_out(one) || one.name() == "call");
    !delivers || guards.next().is_some()
}

/// Whether a statement keeps the answer out of the cache.
fn keeps_out(one: &SourceStatement) -> bool {
    if let Some((left, right)) = assignment(one) {
        return match left.as_str() {
            "beresp.uncacheable" => right == "true",
            "beresp.ttl" => duration_seconds(right).is_some_and(|time| time <= 0.0),
            _ => false,
        };
    }
    let steps = ["pass", "hit_for_pass"];
    returned_step(one).is_some_and(|step| steps.iter().any(|kept| step.starts_with(kept)))
}

struct ResponseSteps<'a, 'b> {
    program: &'b VclProgram<'a>,
    routes: &'b mut VclRoutes,
    guards: LifetimeGuard,
    set_cookie: SetCookieRule,
}

impl StatementTranslator for ResponseSteps<'_, '_> {
    fn plain(&mut self, one: &SourceStatement) {
        if keeps_out(one) {
            self.routes.restrain_all(RouteRestraint::Uncached);
            return one.translated();
        }
        if assignment(one).is_some_and(|(left, _)| left == "beresp.ttl") {
            self.routes.lifetime_of_all();
        }
        let limited = self.routes.site.has("policy.stale_while_revalidate");
        let terms = (self.guards, self.set_cookie);
        response_step(one, &mut self.routes.site, terms, limited);
    }

    fn block(&mut self, one: &SourceStatement, condition: &VclCondition) -> BlockReading {
        self.conditional(one, condition);
        BlockReading::Whole
    }

    fn weigh(&mut self, one: &SourceStatement) {
        let scope = StatementScope::All;
        unsaid::weigh(
            one,
            "vcl_backend_response",
            scope,
            self.program,
            self.routes,
        );
    }
}

impl ResponseSteps<'_, '_> {
    fn conditional(&mut self, one: &SourceStatement, condition: &VclCondition) {
        let every = source::all(one.inside());
        let is_kept_out = one.inside().iter().any(keeps_out);
        let only_ends = !one.inside().is_empty()
            && every
                .iter()
                .all(|inner| returned_step(inner) == Some("deliver"));
        let sets_cookie = |leaf: &&VclCondition| leaf.left() == "beresp.http.set-cookie";
        if (is_kept_out || only_ends) && condition.leaves().iter().any(sets_cookie) {
            self.set_cookie = SetCookieRule::KeptOut;
        }
        let of_surrogates = |leaf: &&VclCondition| leaf.left() == "beresp.http.surrogate-control";
        if (is_kept_out || only_ends) && is_unshared(condition) {
            match condition.leaves().iter().any(of_surrogates) {
                true => {
                    one.translated();
                    one.remarked(SURROGATES);
                }
                false => one.needs_nothing(),
            }
            return one.inside().iter().for_each(kept_out);
        }
        let abandons = one
            .inside()
            .iter()
            .any(|inner| returned_step(inner) == Some("abandon"));
        let is_known = |one: &&VclCondition| is_unshared(one) || is_failure(one);
        if (abandons || is_kept_out) && condition.alternatives().iter().all(is_known) {
            one.translated();
            one.remarked("errors are stored only if they state a lifetime themselves");
            one.inside().iter().for_each(kept_out);
            return;
        }
        if is_kept_out {
            return self.uncacheable(one, condition);
        }
        if let Some(statuses) = statuses(condition) {
            return lifetime(one, "statuses", json!(statuses), self.routes);
        }
        if self.fragments(one, condition) || self.compressed(one) {
            return;
        }
        if let Some(mut list) = path_patterns(condition).filter(|_| self.routes.have_room()) {
            list.in_both_cases();
            return self.of_paths(one, &list.paths, list.difference());
        }
        if let Some(types) = types(condition) {
            lifetime(one, "types", json!(types), self.routes);
        }
    }

    /// A block that keeps answers to some requests out.
    fn uncacheable(&mut self, one: &SourceStatement, condition: &VclCondition) {
        let rest: Vec<VclCondition> = condition
            .alternatives()
            .into_iter()
            .filter(|alternative| !is_unshared(alternative) && !is_failure(alternative))
            .cloned()
            .collect();
        let of_answers = |one: &VclCondition| {
            let leaves = one.leaves();
            leaves.iter().all(|leaf| leaf.left().starts_with("beresp."))
        };
        if rest.iter().any(of_answers) {
            return;
        }
        let rest = match rest.len() {
            1 => rest[0].clone(),
            _ => VclCondition::Any(rest),
        };
        VclPasses::new(self.program, self.routes).translate(one, &rest);
        if !one.is_untouched() {
            one.inside().iter().for_each(kept_out);
        }
    }

    fn of_paths(&mut self, one: &SourceStatement, paths: &[String], differs: Option<String>) {
        let delivers = one.inside().last().and_then(returned_step) == Some("deliver");
        let guards = match (delivers, self.has_guard_before(one)) {
            (true, false) => LifetimeGuard::Lacks,
            _ => self.guards,
        };
        let terms = (guards, self.set_cookie);
        if one
            .inside()
            .iter()
            .any(|inner| assignment(inner).is_some_and(|(left, _)| left == "beresp.ttl"))
        {
            self.routes.lifetime_of_paths(paths, BlockFollowUp::of(one));
        }
        let limited = self.routes.site.has("policy.stale_while_revalidate");
        let route = self.routes.of_paths(paths, one);
        one.translated();
        if let Some(differs) = differs {
            one.remarked(&differs);
        }
        for inner in one.inside() {
            match returned_step(inner) {
                Some("deliver") => inner.needs_nothing(),
                _ => response_step(inner, route, terms, limited),
            }
        }
    }

    /// Whether something before a block keeps answers out.
    fn has_guard_before(&self, block: &SourceStatement) -> bool {
        let mut before = ["vcl_backend_response", "vcl_fetch"]
            .into_iter()
            .flat_map(|name| self.program.sub(name))
            .take_while(|one| !std::ptr::eq(*one, block));
        before.any(|one| {
            let every = source::all(std::slice::from_ref(one));
            every
                .iter()
                .any(|one| keeps_out(one) || one.name() == "call")
        })
    }

    /// A block about ESI and nothing else, for all pages, or for some paths.
    fn fragments(&mut self, one: &SourceStatement, condition: &VclCondition) -> bool {
        let is_switch = |inner: &SourceStatement| {
            let sets = assignment(inner)
                .is_some_and(|(left, right)| left == "beresp.do_esi" && right == "true");
            let tidies =
                removed_variable(inner).is_some_and(|what| what == "beresp.http.surrogate-control");
            sets || tidies
        };
        if !sets(one, "beresp.do_esi") || !one.inside().iter().all(is_switch) {
            return false;
        }
        let lefts: Vec<String> = condition.leaves().iter().map(|leaf| leaf.left()).collect();
        let of = |name: &str| lefts.iter().all(|left| left == name);
        let pages = match (
            of("beresp.http.surrogate-control"),
            of("beresp.http.content-type"),
        ) {
            (true, _) => json!({}),
            (_, true) => json!({ "pages": "all" }),
            _ => return false,
        };
        self.routes.site.set("esi", pages);
        one.translated_whole();
        true
    }

    fn compressed(&mut self, one: &SourceStatement) -> bool {
        let is_all = sets(one, "beresp.do_gzip") && one.inside().len() == 1;
        if is_all {
            self.routes.site.set_default("compress", json!({}));
            one.translated_whole();
        }
        is_all
    }
}

/// Marks what belongs to keeping an answer out.
fn kept_out(one: &SourceStatement) {
    let is_step = returned_step(one).is_some_and(|step| matches!(step, "deliver" | "abandon"));
    let of_lifetime = assignment(one).is_some_and(|(left, _)| {
        matches!(
            left.as_str(),
            "beresp.ttl" | "beresp.grace" | "beresp.keep" | "beresp.uncacheable"
        )
    });
    if is_step || of_lifetime || keeps_out(one) {
        one.needs_nothing();
    }
}

/// A statement about the answers of a route.
fn response_step(
    one: &SourceStatement,
    route: &mut DraftMap,
    (guards, set_cookie): (LifetimeGuard, SetCookieRule),
    limited: bool,
) {
    if let Some((left, right)) = assignment(one) {
        match left.as_str() {
            "beresp.ttl" => {
                if let Some(time) = written_duration(right) {
                    lifetime_of_route(one, route, time, guards);
                }
            }
            "beresp.grace" => {
                if let Some(time) = written_duration(right) {
                    route.set("policy.stale_if_error", time.clone());
                    if !limited {
                        route.set("policy.stale_while_revalidate", time);
                    }
                    one.translated();
                }
            }
            "beresp.do_esi" if right == "true" => {
                route.set("esi", json!({ "pages": "all" }));
                one.translated();
            }
            "beresp.do_gzip" if right == "true" => {
                route.set_default("compress", json!({}));
                one.translated();
            }
            "beresp.do_stream" | "beresp.do_gunzip" => one.needs_nothing(),
            "beresp.http.x-url" | "beresp.http.x-host" => one.needs_nothing(),
            _ => answer_field(one, &left, right, "beresp.http.", route),
        }
    } else if let Some(what) = removed_variable(one) {
        match (what.as_str(), set_cookie) {
            ("beresp.http.set-cookie", SetCookieRule::Stored) => {
                route.set("policy.set_cookie", "strip");
                one.translated();
            }
            ("beresp.http.set-cookie", SetCookieRule::KeptOut) => one.needs_nothing(),
            (what, _) => removed_field(one, what, "beresp.http.", route),
        }
    } else if one.text.starts_with("std.collect(") {
        one.needs_nothing();
    }
}

fn lifetime_of_route(
    one: &SourceStatement,
    route: &mut DraftMap,
    time: String,
    guards: LifetimeGuard,
) {
    route.set("policy.ttl", time);
    one.translated();
    match guards {
        LifetimeGuard::Lacks => {
            route.set("policy.mode", "override");
            route.set_default("policy.cookies", "private");
            one.remarked("mode: override also stores what says no-store or private, as this VCL does; without it the lifetime is for answers that state none");
        }
        LifetimeGuard::Stands => {
            route.set("policy.mode", "cap");
            one.remarked("mode: cap is the upper bound of what answers state, and keeps out what says private or no-store; without a mode the lifetime is for answers that state none, and longer ones hold");
        }
    }
}

fn sets(block: &SourceStatement, what: &str) -> bool {
    block
        .inside()
        .iter()
        .any(|one| assignment(one).is_some_and(|(left, right)| left == what && right == "true"))
}

/// `set beresp.ttl` for some answers.
fn lifetime(block: &SourceStatement, kind: &str, of: Value, routes: &mut VclRoutes) {
    let time = block.inside().iter().find_map(|one| {
        let (left, right) = assignment(one)?;
        (left == "beresp.ttl")
            .then(|| written_duration(right))
            .flatten()
    });
    let Some(time) = time else {
        return;
    };
    let follow_up = BlockFollowUp::of(block);
    routes.lifetime_of_kind(json!({ kind: of, "ttl": time }), follow_up);
    block.translated();
    block.remarked(
        "where the response states no lifetime itself, and at most for this long in mode: cap",
    );
    for one in block.inside() {
        if assignment(one).is_some_and(|(left, _)| left == "beresp.ttl") {
            one.translated();
        } else if returned_step(one) == Some("deliver") {
            one.needs_nothing();
        }
    }
}

/// The statuses of a condition that is about nothing else.
fn statuses(condition: &VclCondition) -> Option<Vec<u16>> {
    let all = condition.alternatives();
    let of = |one: &&VclCondition| match one.comparison()? {
        (left, "==", status) if left == "beresp.status" => status.parse().ok(),
        _ => None,
    };
    all.iter().map(of).collect()
}

/// The types of a condition that is about nothing else.
fn types(condition: &VclCondition) -> Option<Vec<String>> {
    let (left, operator, right) = condition.comparison()?;
    if left != "beresp.http.content-type" || operator != "~" {
        return None;
    }
    let list = patterns::values(right)?.patterns;
    let type_of = |pattern: &String| {
        let text = pattern.trim_matches('*').trim_end_matches('/');
        match text.contains('/') {
            true => text.to_owned(),
            false => format!("{text}/*"),
        }
    };
    Some(list.iter().map(type_of).collect())
}

/// Whether what a condition holds for is never shared anyhow.
fn is_unshared(condition: &VclCondition) -> bool {
    match condition {
        VclCondition::Any(list) => list.iter().all(is_unshared),
        VclCondition::All(list) => list.iter().any(is_unshared),
        VclCondition::Set(left) => matches!(
            left.to_lowercase().as_str(),
            "beresp.http.set-cookie" | "bereq.uncacheable" | "beresp.uncacheable"
        ),
        VclCondition::Unset(_) => false,
        VclCondition::Compared { .. } => condition
            .comparison()
            .is_some_and(|(left, operator, right)| is_unshared_value(&left, operator, right)),
    }
}

fn is_unshared_value(left: &str, operator: &str, right: &str) -> bool {
    let marks = ["no-cache", "no-store", "private"];
    match (left, operator) {
        ("beresp.ttl", "<=" | "==") => duration_seconds(right).is_some_and(|time| time <= 0.0),
        ("beresp.ttl", "<") => duration_seconds(right).is_some_and(|time| time <= 1.0),
        ("beresp.http.vary", "==") => right == "*",
        ("beresp.http.vary", "~") => right == "\\*",
        ("beresp.http.cache-control" | "beresp.http.surrogate-control", "~" | "==") => {
            let marks = match left {
                "beresp.http.cache-control" => &marks[..],
                _ => &["no-store"][..],
            };
            let small = right.to_lowercase();
            let list = patterns::values(small.trim_start_matches("(?i)"));
            list.is_some_and(|list| {
                let marked = |text: &String| marks.iter().any(|mark| text.contains(mark));
                list.patterns.iter().all(marked)
            })
        }
        _ => false,
    }
}

/// Whether a condition is about errors, which are not stored, or for which a stale copy is shown.
fn is_failure(condition: &VclCondition) -> bool {
    let fails = |leaf: &&VclCondition| {
        leaf.comparison().is_some_and(|(left, operator, right)| {
            let status = right.parse::<u16>().unwrap_or(0);
            let high = match operator {
                "==" | ">=" => status >= 400,
                ">" => status >= 399,
                _ => false,
            };
            left == "beresp.status" && high
        })
    };
    condition
        .alternatives()
        .iter()
        .all(|one| one.together().iter().any(fails))
}
