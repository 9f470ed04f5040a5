//! Statements of `vcl_recv` that change the request: its URL, cookies and other fields.

use serde_json::json;

use super::super::draft::DraftMap;
use super::super::expression::{self, PatternList};
use super::super::source::SourceStatement;
use super::program::{assigned, call_arguments, literal};

/// Whether a block only cuts parameters out of the URL.
pub(super) fn is_tracking(inside: &[&SourceStatement]) -> bool {
    let cuts = |one: &&SourceStatement| {
        assigned(one)
            .is_some_and(|(left, right)| left == "req.url" && cut_parameters(right).is_some())
    };
    let of_url = |one: &&SourceStatement| assigned(one).is_some_and(|(left, _)| left == "req.url");
    inside.iter().any(cuts) && inside.iter().all(of_url)
}

/// Forms that tidy a URL up after parameters were cut out.
const TIDIES: [&str; 8] = [
    "\\?&",
    "\\?$",
    "(\\?|&)$",
    "[?|&]+$",
    "(\\?&|\\?|&)$",
    "[?&]+$",
    "\\?&+",
    "(\\?)&",
];

/// What no client sends.
const FRAGMENTS: [&str; 2] = ["\\#.*$", "#.*$"];

/// Whether a statement only takes what is left of separators, or a fragment, off the URL.
pub(super) fn is_tidying(one: &SourceStatement) -> bool {
    let tidies = |right: &str| {
        let arguments =
            call_arguments(right, "regsuball").or_else(|| call_arguments(right, "regsub"))?;
        let expression = literal(arguments.get(1)?)?;
        Some(TIDIES.contains(&expression) || FRAGMENTS.contains(&expression))
    };
    let of_url = assigned(one).filter(|(left, _)| left == "req.url");
    of_url.is_some_and(|(_, right)| tidies(right) == Some(true))
}

/// What `regsuball(req.url, "…", "")` cuts out: names of parameters, or none where it only tidies up.
fn cut_parameters(call: &str) -> Option<PatternList> {
    let arguments = call_arguments(call, "regsuball").or_else(|| call_arguments(call, "regsub"))?;
    let [_, expression, with] = arguments.as_slice() else {
        return None;
    };
    let expression = literal(expression)?;
    let with = literal(with)?;
    if !matches!(with, "" | "?" | "\\1" | "&") || !expression.contains('=') {
        return None;
    }
    // What stands for the value may be anything: the name counts.
    let at = closing_equals(expression)?;
    expression::parameter_names(&expression[..=at])
}

/// The place of the `=` after the names, outside of parentheses and classes.
fn closing_equals(expression: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, c) in expression.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '=' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// `set req.url = …`.
pub(super) fn url_step(one: &SourceStatement, right: &str, route: &mut DraftMap) {
    if right.starts_with("std.querysort(") {
        route.set("key.query.sort", true);
        one.translated();
        let inside = right.trim_start_matches("std.querysort(");
        if let Some(list) = inside.strip_suffix(')').and_then(cut_parameters) {
            drop_parameters(one, &list, route);
        }
        return;
    }
    if let Some(list) = cut_parameters(right) {
        return drop_parameters(one, &list, route);
    }
    let arguments = call_arguments(right, "regsuball").or_else(|| call_arguments(right, "regsub"));
    let Some([_, expression, with]) = arguments.as_deref() else {
        return;
    };
    let (expression, with) = (literal(expression).unwrap_or_default(), literal(with));
    match expression {
        "\\?.*$" | "\\?.*" if with == Some("") => {
            route.set("key.query.include", json!([]));
            one.translated();
        }
        expression if TIDIES.contains(&expression) => one.needs_nothing(),
        expression if FRAGMENTS.contains(&expression) => one.needs_nothing(),
        _ => {}
    }
}

fn drop_parameters(one: &SourceStatement, list: &PatternList, route: &mut DraftMap) {
    for name in &list.patterns {
        route.add("key.query.drop", name.clone());
    }
    one.translated();
    if let Some(difference) = list.difference() {
        one.remarked(difference);
    }
}

/// `set req.http.Cookie = regsuball(req.http.Cookie, "NAME=[^;]+(; )?", "")`.
pub(super) fn cookie_step(one: &SourceStatement, right: &str, route: &mut DraftMap) {
    let arguments = call_arguments(right, "regsuball").or_else(|| call_arguments(right, "regsub"));
    let Some([_, expression, with]) = arguments.as_deref() else {
        return;
    };
    let expression = literal(expression).unwrap_or_default();
    if !expression.contains('=') {
        // What is left of separators.
        if expression.chars().all(|c| "^;\\s*+$ []()|,".contains(c)) {
            one.needs_nothing();
        }
        return;
    }
    if !matches!(literal(with), Some("" | "\\1" | ";" | "; ")) {
        return;
    }
    let names =
        closing_equals(expression).and_then(|at| expression::cookie_names(&expression[..=at]));
    if let Some(list) = names {
        for name in &list.patterns {
            // The expressions of VCLs for cookies are not anchored, and their authors mean names.
            route.add("cookies.drop", name.trim_start_matches('*'));
        }
        one.translated();
        if let Some(difference) = list.difference() {
            one.remarked(difference);
        }
    }
}

/// The module `cookie`.
pub(super) fn cookie_module(one: &SourceStatement, route: &mut DraftMap) {
    for (call, path) in [
        ("cookie.filter", "cookies.drop"),
        ("cookie.keep", "cookies.keep"),
    ] {
        let Some(arguments) = call_arguments(&one.text, call) else {
            continue;
        };
        if let Some(names) = arguments.first().and_then(|names| literal(names)) {
            for name in names.split(',').map(str::trim) {
                route.add(path, name);
            }
            one.translated();
        }
    }
    if one.text.starts_with("cookie.parse(") {
        one.needs_nothing();
    }
}

/// The names in the expression that marks cookies to keep: `regsuball(…, ";(A|B)=", "; \1=")`.
pub(super) fn kept_cookies(block: &SourceStatement) -> Option<PatternList> {
    block.inside().iter().find_map(|one| {
        let (left, right) = assigned(one)?;
        let arguments = call_arguments(right, "regsuball")?;
        let [_, expression, with] = arguments.as_slice() else {
            return None;
        };
        let is_mark = left.contains("cookie") && literal(with) == Some("; \\1=");
        let names = literal(expression)?.strip_prefix(';')?;
        is_mark.then(|| expression::cookie_names(&format!(";{names}")))?
    })
}

/// `set req.http.X = "text"`.
pub(super) fn request_field(one: &SourceStatement, left: &str, right: &str, route: &mut DraftMap) {
    let Some(name) = left.strip_prefix("req.http.") else {
        return;
    };
    match (name, literal(right)) {
        ("x-forwarded-for" | "x-forwarded-proto", _) => one.needs_nothing(),
        ("grace", _) => one.needs_nothing(),
        ("host" | "cookie", _) => {}
        (name, Some(value)) if !name.is_empty() && !value.contains(['{', '}']) => {
            route.set_in("headers.request.set", name, value);
            one.translated();
        }
        ("x-real-ip" | "x-client-ip", None) if right == "client.ip" => {
            route.set_in("headers.request.set", name, "{client}");
            one.translated();
        }
        _ => {}
    }
}

pub(super) fn removed_field(one: &SourceStatement, what: &str, route: &mut DraftMap) {
    let own = [
        "host",
        "accept-encoding",
        "x-forwarded-for",
        "x-forwarded-proto",
    ];
    if let Some(name) = what
        .strip_prefix("req.http.")
        .filter(|name| !name.is_empty() && !own.contains(name))
    {
        route.add("headers.request.remove", name);
        one.translated();
    }
}
