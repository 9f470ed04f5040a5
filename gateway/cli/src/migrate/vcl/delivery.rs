//! `vcl_deliver`: fields of answers, as clients get them. What is taken out of some answers is taken
//! out of all.

use super::super::draft::DraftMap;
use super::super::source::{self, SourceStatement};
use super::branches::{BlockCondition, VclStep, steps_of};
use super::condition::VclCondition;
use super::program::{VclProgram, assignment, quoted_text, removed_variable};
use super::routes::VclRoutes;

/// Says them.
pub fn translate(program: &VclProgram<'_>, routes: &mut VclRoutes) {
    for step in steps_of(program.sub("vcl_deliver")) {
        match step {
            VclStep::Plain(one) => plain(one, &mut routes.site),
            VclStep::Block(one, BlockCondition::If(condition)) if tells_hits(one, &condition) => {
                one.needs_nothing_whole();
            }
            VclStep::Block(one, _) => removed_for_all(one, &mut routes.site),
        }
    }
}

fn plain(one: &SourceStatement, site: &mut DraftMap) {
    if let Some((left, right)) = assignment(one) {
        match right.contains("obj.hits") {
            true => one.needs_nothing(),
            false => answer_field(one, &left, right, "resp.http.", site),
        }
    } else if let Some(what) = removed_variable(one) {
        removed_field(one, &what, "resp.http.", site);
    }
}

/// Whether a block only tells clients of hits and misses.
fn tells_hits(one: &SourceStatement, condition: &VclCondition) -> bool {
    let about_hits = condition.leaves().iter().all(|leaf| {
        let left = leaf.left();
        matches!(
            left.as_str(),
            "obj.hits" | "obj.uncacheable" | "resp.http.x-varnish"
        )
    });
    let is_x = |left: &str| {
        left.strip_prefix("resp.http.")
            .is_some_and(|name| name.starts_with("x-"))
    };
    let only_tells = source::all(one.inside())
        .into_iter()
        .all(|inner| assignment(inner).is_some_and(|(left, _)| is_x(&left)));
    about_hits && only_tells
}

/// What a block takes out of some answers. Cookies are for one client and stay.
fn removed_for_all(block: &SourceStatement, site: &mut DraftMap) {
    for one in source::all(block.inside()) {
        let Some(what) = removed_variable(one).filter(|what| what != "resp.http.set-cookie") else {
            continue;
        };
        removed_field(one, &what, "resp.http.", site);
        if one.remark().is_none() && !one.is_untouched() {
            one.remarked("it is taken out of all answers");
        }
    }
}

/// Fields that no rule can touch, or that clients never get.
const ITS_OWN: [&str; 9] = [
    "via",
    "age",
    "content-length",
    "connection",
    "date",
    "vary",
    "cache-status",
    "content-encoding",
    "content-range",
];
const NEVER_SENT: [&str; 3] = ["x-varnish", "x-url", "x-host"];

/// Fields of an origin's answer by which it is decided what is stored, and for whom.
const DECIDING: [&str; 4] = [
    "set-cookie",
    "surrogate-control",
    "cdn-cache-control",
    "vary",
];

/// Those with tags, which decide what purges reach. Clients never get them.
const TAGS: [&str; 6] = [
    "xkey",
    "surrogate-key",
    "cache-tag",
    "cache-tags",
    "x-cache-tags",
    "x-magento-tags",
];

/// Whether a field of an origin's answer may decide more than what clients are told.
pub fn may_decide(name: &str) -> bool {
    name == "cache-control" || DECIDING.contains(&name) || TAGS.contains(&name)
}

/// Whether it does so with this value.
fn decides(name: &str, value: &str) -> bool {
    let marks = ["private", "no-store", "no-cache"];
    match name {
        "cache-control" => marks.iter().any(|mark| value.to_lowercase().contains(mark)),
        name => may_decide(name) || NEVER_SENT.contains(&name),
    }
}

/// `set resp.http.X = "text"`, of answers of this kind.
pub fn answer_field(
    one: &SourceStatement,
    left: &str,
    right: &str,
    kind: &str,
    route: &mut DraftMap,
) {
    let Some(name) = left.strip_prefix(kind).filter(|name| !name.is_empty()) else {
        return;
    };
    let value = quoted_text(right).filter(|value| !value.contains(['{', '}']) && !value.is_empty());
    match value {
        Some(value) if kind == "beresp.http." && decides(name, value) => {}
        Some(value) if !ITS_OWN.contains(&name) => {
            route.set_in("headers.response.set", name, value);
            one.translated();
        }
        _ => {}
    }
}

/// `unset resp.http.X`, of answers of this kind.
pub fn removed_field(one: &SourceStatement, what: &str, kind: &str, route: &mut DraftMap) {
    let Some(name) = what.strip_prefix(kind).filter(|name| !name.is_empty()) else {
        return;
    };
    match name {
        name if NEVER_SENT.contains(&name) || TAGS.contains(&name) => one.needs_nothing(),
        name if ITS_OWN.contains(&name) => one.remarked("this field is the gateway's own"),
        name => {
            route.add("headers.response.remove", name);
            one.translated();
        }
    }
}
