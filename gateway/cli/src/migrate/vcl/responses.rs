//! `vcl_hash`, `vcl_hit`, `vcl_backend_response` and `vcl_deliver`.

use serde_json::json;

use super::super::draft::DraftMap;
use super::super::expression;
use super::super::source::{self, SourceStatement};
use super::condition::VclCondition;
use super::program::{
    BranchKind, VclProgram, assigned, branch, call_arguments, duration, literal, returned, unset,
};
use super::receive::url_patterns;
use super::routes::VclRoutes;

/// `hash_data`.
pub fn hash(program: &VclProgram<'_>, routes: &mut VclRoutes) {
    for one in program.sub("vcl_hash") {
        hashed(one, program, &mut routes.site, 0);
    }
}

fn hashed(one: &SourceStatement, program: &VclProgram<'_>, site: &mut DraftMap, depth: usize) {
    if branch(one).is_some() {
        one.inside()
            .iter()
            .for_each(|inner| hashed(inner, program, site, depth));
        let conditions = VclCondition::of(&one.text);
        let of_fields = conditions
            .iter()
            .flat_map(VclCondition::leaves)
            .all(|leaf| leaf.left().starts_with("req.http."));
        let said = one.inside().iter().all(|inner| !inner.is_untouched());
        if said && of_fields {
            one.translated();
        }
        return;
    }
    if one.name() == "call" && depth < 8 {
        let inside = program.sub(one.argument());
        inside
            .iter()
            .for_each(|inner| hashed(inner, program, site, depth + 1));
        if inside.iter().all(|inner| !inner.is_untouched()) && !inside.is_empty() {
            one.translated();
        }
        return;
    }
    let Some(arguments) = call_arguments(&one.text, "hash_data") else {
        return;
    };
    let what = arguments.first().copied().unwrap_or_default();
    let small = what.to_lowercase();
    match small.as_str() {
        "req.url" | "req.http.host" | "server.ip" => return one.needs_nothing(),
        "req.http.x-forwarded-proto" => return one.needs_nothing(),
        _ => {}
    }
    if let Some(name) = small
        .strip_prefix("req.http.")
        .filter(|name| !name.is_empty())
    {
        site.add("key.headers", name);
        return one.translated();
    }
    if let Some([of, expression, _]) = call_arguments(what, "regsub").as_deref() {
        let name = literal(expression).and_then(cookie_of);
        if let (true, Some(name)) = (of.eq_ignore_ascii_case("req.http.cookie"), name) {
            site.add("key.cookies", name);
            one.translated();
        }
    }
}

/// The name in `^.*?NAME=([^;]+);*.*$`.
fn cookie_of(expression: &str) -> Option<String> {
    let (before, _) = expression.split_once("=(")?;
    let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    let name: Vec<char> = before.chars().rev().take_while(is_part).collect();
    let name: String = name.into_iter().rev().collect();
    (!name.is_empty()).then_some(name)
}

/// The usual grace by health: stale copies while a refresh runs, and while the backend is sick.
pub fn hit(program: &VclProgram<'_>, routes: &mut VclRoutes) {
    let statements = program.sub("vcl_hit");
    let healthy = statements
        .iter()
        .any(|one| one.text.contains("std.healthy"));
    for one in &statements {
        let fresh = one.text.replace(' ', "") == "if(obj.ttl>=0s)";
        if fresh || (healthy && branch(one).is_some()) {
            one.translated_whole();
        }
    }
    for one in statements
        .iter()
        .flat_map(|one| source::all(std::slice::from_ref(*one)))
    {
        let limit = one
            .text
            .split("obj.ttl + ")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        if let Some(limit) = limit.and_then(duration).filter(|_| healthy) {
            routes.site.set("policy.stale_while_revalidate", limit);
        }
    }
}

/// What becomes of a response.
pub fn backend_response(program: &VclProgram<'_>, routes: &mut VclRoutes) {
    for name in ["vcl_backend_response", "vcl_fetch"] {
        let statements = program.sub(name);
        for one in &statements {
            match branch(one) {
                Some(BranchKind::If) => conditional(one, routes),
                Some(BranchKind::Else) => {
                    let condition = VclCondition::of(&one.text);
                    if condition.is_some_and(|condition| is_unshared(one, &condition)) {
                        one.needs_nothing_whole();
                    }
                }
                None => {
                    let limited = routes.site.has("policy.stale_while_revalidate");
                    response_step(one, &mut routes.site, limited);
                }
            }
        }
    }
}

/// A statement about a response of a route.
fn response_step(one: &SourceStatement, route: &mut DraftMap, limited: bool) {
    if let Some((left, right)) = assigned(one) {
        match left.as_str() {
            "beresp.ttl" => {
                if let Some(time) = duration(right) {
                    route.set("policy.ttl", time);
                    route.set("policy.mode", "override");
                    route.set_default("policy.cookies", "private");
                    one.translated();
                    one.remarked("mode: override also stores what says no-store or private; without it the lifetime is for answers that state none");
                }
            }
            "beresp.grace" => {
                if let Some(time) = duration(right) {
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
    } else if let Some(what) = unset(one) {
        match what.as_str() {
            "beresp.http.set-cookie" => {
                route.set("policy.set_cookie", "strip");
                one.translated();
            }
            what => removed_field(one, what, "beresp.http.", route),
        }
    } else if one.text.starts_with("std.collect(") {
        one.needs_nothing();
    }
}

fn conditional(one: &SourceStatement, routes: &mut VclRoutes) {
    let Some(condition) = VclCondition::of(&one.text) else {
        return;
    };
    if is_unshared(one, &condition) || is_failure(one, &condition) {
        return one.needs_nothing_whole();
    }
    if let Some(statuses) = statuses(&condition) {
        return lifetime(one, "statuses", json!(statuses), &mut routes.site);
    }
    if sets(one, "beresp.do_esi") {
        let declared = condition
            .leaves()
            .iter()
            .any(|leaf| leaf.left() == "beresp.http.surrogate-control");
        let pages = if declared {
            json!({})
        } else {
            json!({ "pages": "all" })
        };
        routes.site.set("esi", pages);
        return one.translated_whole();
    }
    if sets(one, "beresp.do_gzip") && one.inside().len() == 1 {
        routes.site.set_default("compress", json!({}));
        return one.translated_whole();
    }
    if let Some(list) = url_patterns(&condition) {
        let route = routes.of_paths(&list, one);
        one.translated();
        for inner in one.inside() {
            match returned(inner) {
                Some("deliver") => inner.needs_nothing(),
                _ => response_step(inner, route, false),
            }
        }
        return;
    }
    if let Some(types) = types(&condition) {
        lifetime(one, "types", json!(types), &mut routes.site);
    }
}

fn sets(block: &SourceStatement, what: &str) -> bool {
    block
        .inside()
        .iter()
        .any(|one| assigned(one).is_some_and(|(left, right)| left == what && right == "true"))
}

/// `set beresp.ttl` for some responses.
fn lifetime(block: &SourceStatement, kind: &str, of: serde_json::Value, site: &mut DraftMap) {
    let time = block.inside().iter().find_map(|one| {
        let (left, right) = assigned(one)?;
        (left == "beresp.ttl").then(|| duration(right)).flatten()
    });
    let Some(time) = time.filter(|_| !sets(block, "beresp.uncacheable")) else {
        return;
    };
    site.add("policy.lifetimes", json!({ kind: of, "ttl": time }));
    block.translated();
    block.remarked("where the response states no lifetime itself");
    for one in block.inside() {
        if assigned(one).is_some_and(|(left, _)| left == "beresp.ttl") {
            one.translated();
        } else if returned(one) == Some("deliver") {
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
    let list = expression::values(right)?.patterns;
    let type_of = |pattern: &String| {
        let text = pattern.trim_matches('*').trim_end_matches('/');
        match text.contains('/') {
            true => text.to_owned(),
            false => format!("{text}/*"),
        }
    };
    Some(list.iter().map(type_of).collect())
}

/// Whether a block keeps out what may not be shared anyhow.
fn is_unshared(block: &SourceStatement, condition: &VclCondition) -> bool {
    let marks = ["no-cache", "no-store", "private", "no_cache"];
    let known = |leaf: &&VclCondition| match leaf {
        VclCondition::Set(left) => {
            let left = left.to_lowercase();
            matches!(
                left.as_str(),
                "beresp.http.set-cookie" | "beresp.http.surrogate-control" | "bereq.uncacheable"
            )
        }
        one => one
            .comparison()
            .is_some_and(|(left, _, right)| match left.as_str() {
                "beresp.ttl" => right == "0s",
                "beresp.http.vary" => right == "*",
                "beresp.http.cache-control" | "beresp.http.surrogate-control" => {
                    marks.iter().any(|mark| right.contains(mark))
                }
                _ => false,
            }),
    };
    let keeps_out = sets(block, "beresp.uncacheable")
        || source::all(block.inside())
            .iter()
            .all(|one| returned(one) == Some("deliver"));
    keeps_out && condition.leaves().iter().all(known)
}

/// Whether a block is about errors, which are not stored, or for which a stale copy is shown.
fn is_failure(block: &SourceStatement, condition: &VclCondition) -> bool {
    let fails = |leaf: &&VclCondition| {
        leaf.comparison().is_some_and(|(left, operator, right)| {
            let status = right.parse::<u16>().unwrap_or(0);
            let high = matches!(operator, "==" | ">=" | ">") && status >= 500;
            left == "beresp.status" && (high || (operator == "==" && status == 403))
        })
    };
    let abandons = block
        .inside()
        .iter()
        .any(|one| matches!(returned(one), Some("abandon")));
    (abandons || sets(block, "beresp.uncacheable")) && condition.leaves().iter().all(fails)
}

/// Fields of answers, as clients get them.
pub fn deliver(program: &VclProgram<'_>, routes: &mut VclRoutes) {
    for one in program.sub("vcl_deliver") {
        match branch(one) {
            Some(_) => {
                let text = one.text.to_lowercase();
                let about_hits = text.contains("obj.hits")
                    || text.contains("obj.uncacheable")
                    || one.name() == "else";
                let only_tells = source::all(one.inside()).into_iter().all(|inner| {
                    assigned(inner).is_some_and(|(left, _)| left.starts_with("resp.http."))
                });
                if about_hits && only_tells {
                    one.needs_nothing_whole();
                }
            }
            None => {
                if let Some((left, right)) = assigned(one) {
                    match right.contains("obj.hits") {
                        true => one.needs_nothing(),
                        false => answer_field(one, &left, right, "resp.http.", &mut routes.site),
                    }
                } else if let Some(what) = unset(one) {
                    removed_field(one, &what, "resp.http.", &mut routes.site);
                }
            }
        }
    }
}

/// Fields that no rule can touch, or that clients never get.
const ITS_OWN: [&str; 7] = [
    "via",
    "age",
    "content-length",
    "connection",
    "date",
    "vary",
    "cache-status",
];
const NEVER_SENT: [&str; 9] = [
    "x-varnish",
    "x-url",
    "x-host",
    "xkey",
    "surrogate-key",
    "cache-tag",
    "cache-tags",
    "x-cache-tags",
    "x-magento-tags",
];

fn answer_field(one: &SourceStatement, left: &str, right: &str, kind: &str, route: &mut DraftMap) {
    let Some(name) = left.strip_prefix(kind).filter(|name| !name.is_empty()) else {
        return;
    };
    let value = literal(right).filter(|value| !value.contains(['{', '}']) && !value.is_empty());
    match value {
        Some(value) if !ITS_OWN.contains(&name) => {
            route.set_in("headers.response.set", name, value);
            one.translated();
        }
        _ => {}
    }
}

fn removed_field(one: &SourceStatement, what: &str, kind: &str, route: &mut DraftMap) {
    let Some(name) = what.strip_prefix(kind).filter(|name| !name.is_empty()) else {
        return;
    };
    match name {
        name if NEVER_SENT.contains(&name) => one.needs_nothing(),
        name if ITS_OWN.contains(&name) => one.remarked("this field is the gateway's own"),
        name => {
            route.add("headers.response.remove", name);
            one.translated();
        }
    }
}
