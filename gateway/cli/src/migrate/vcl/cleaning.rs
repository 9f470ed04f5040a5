//! Statements of `vcl_recv` that change the request: its URL, cookies and other fields.

use serde_json::json;

use super::super::draft::{DraftMap, is_touchable};
use super::super::expression::PatternList;
use super::super::source::SourceStatement;
use super::condition::VclCondition;
use super::patterns;
use super::program::{
    assignment, branch_kind, call_arguments, quoted_text, removed_variable, returned_step,
};

/// Whether a block only cuts parameters out of the URL.
pub(super) fn is_tracking(inside: &[SourceStatement]) -> bool {
    let cuts = |one: &SourceStatement| {
        assignment(one)
            .is_some_and(|(left, right)| left == "req.url" && cut_parameters(right).is_some())
    };
    let of_url = |one: &SourceStatement| assignment(one).is_some_and(|(left, _)| left == "req.url");
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

/// The scheme of an absolute target. Varnish and Lamina take scheme and host off by themselves.
const SCHEMES: [&str; 4] = ["^http[s]?://", "^https?://", "^http://", "^https://"];

/// Whether a statement only takes what is left of separators, a fragment or a scheme off the URL.
pub(super) fn is_tidying(one: &SourceStatement) -> bool {
    let tidies = |right: &str| {
        let arguments =
            call_arguments(right, "regsuball").or_else(|| call_arguments(right, "regsub"))?;
        let is_url = arguments.first()?.eq_ignore_ascii_case("req.url");
        let expression = quoted_text(arguments.get(1)?).filter(|_| is_url)?;
        let cuts_scheme = SCHEMES.contains(&expression)
            && arguments.get(2).and_then(|with| quoted_text(with)) == Some("");
        Some(TIDIES.contains(&expression) || FRAGMENTS.contains(&expression) || cuts_scheme)
    };
    let of_url = assignment(one).filter(|(left, _)| left == "req.url");
    of_url.is_some_and(|(_, right)| tidies(right) == Some(true))
}

/// What `regsuball(req.url, "…", "")` cuts out: names of parameters, or none where it only tidies up.
fn cut_parameters(call: &str) -> Option<PatternList> {
    let arguments = call_arguments(call, "regsuball").or_else(|| call_arguments(call, "regsub"))?;
    let [of, expression, with] = arguments.as_slice() else {
        return None;
    };
    let expression = quoted_text(expression)?;
    let with = quoted_text(with)?;
    let is_url = of.eq_ignore_ascii_case("req.url");
    if !is_url || !matches!(with, "" | "?" | "\\1" | "&") || !expression.contains('=') {
        return None;
    }
    let at = closing_equals(expression)?;
    if !is_any_value(&expression[at + 1..]) {
        return None;
    }
    patterns::parameter_names(&expression[..=at])
}

/// Whether what stands for the value of a parameter may be more than digits or certain words. Cutting a
/// parameter out whatever its value would else make one key of two.
fn is_any_value(expression: &str) -> bool {
    let mut rest = expression;
    let mut is_any = false;
    while let Some(c) = rest.chars().next() {
        let class = rest
            .strip_prefix('[')
            .and_then(|inside| inside.split_once(']'));
        rest = match (c, class) {
            (_, Some((members, after))) => {
                is_any |= members.starts_with('^') || members.contains(char::is_alphabetic);
                after
            }
            ('\\', _) => {
                let escaped = rest[1..].chars().next().unwrap_or_default();
                is_any |= matches!(escaped, 'w' | 'S');
                if escaped == 'd' {
                    return false;
                }
                rest.get(1 + escaped.len_utf8()..).unwrap_or_default()
            }
            ('.', _) => {
                is_any = true;
                &rest[1..]
            }
            (c, _) if c.is_alphanumeric() => return false,
            (c, _) => &rest[c.len_utf8()..],
        };
    }
    is_any
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

/// Says what a statement does to requests of a route: to the URL, to cookies or to other fields.
pub(super) fn request_step(one: &SourceStatement, route: &mut DraftMap) {
    if let Some((left, right)) = assignment(one) {
        match left.as_str() {
            "req.url" => url_step(one, right, route),
            "req.http.cookie" => cookie_step(one, right, route),
            left => request_field(one, left, right, route),
        }
    } else if let Some(what) = removed_variable(one) {
        match what.as_str() {
            "req.http.cookie" => {
                route.set("cookies.keep", json!([]));
                one.translated();
            }
            "req.http.proxy" => one.needs_nothing(),
            what => removed_field(one, what, route),
        }
    }
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
    let Some([of, expression, with]) = arguments.as_deref() else {
        return;
    };
    if !of.eq_ignore_ascii_case("req.url") {
        return;
    }
    let (expression, with) = (
        quoted_text(expression).unwrap_or_default(),
        quoted_text(with),
    );
    match expression {
        "\\?.*$" | "\\?.*" if with == Some("") => {
            route.set("key.query.include", json!([]));
            one.translated();
        }
        expression if TIDIES.contains(&expression) => one.needs_nothing(),
        expression if FRAGMENTS.contains(&expression) => one.needs_nothing(),
        expression if SCHEMES.contains(&expression) && with == Some("") => one.needs_nothing(),
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
fn cookie_step(one: &SourceStatement, right: &str, route: &mut DraftMap) {
    if right == "cookie.get_string()" {
        return one.needs_nothing();
    }
    let arguments = call_arguments(right, "regsuball").or_else(|| call_arguments(right, "regsub"));
    let Some([of, expression, with]) = arguments.as_deref() else {
        return;
    };
    if !of.eq_ignore_ascii_case("req.http.cookie") {
        return;
    }
    let expression = quoted_text(expression).unwrap_or_default();
    if !expression.contains('=') {
        // What is left of separators.
        if expression.chars().all(|c| "^;\\s*+$ []()|,".contains(c)) {
            one.needs_nothing();
        }
        return;
    }
    if !matches!(quoted_text(with), Some("" | "\\1" | ";" | "; ")) {
        return;
    }
    let names =
        closing_equals(expression).and_then(|at| patterns::cookie_names(&expression[..=at]));
    if let Some(list) = names {
        for name in &list.patterns {
            // The expressions of VCLs for cookies are not anchored, and their authors mean names.
            route.add("cookies.drop", name.trim_start_matches('*'));
        }
        one.translated();
        if let Some(difference) = list.difference() {
            one.remarked(difference);
        }
        if patterns::takes_both_cases(expression) {
            one.also_remarked("case counts in names of cookies");
        }
        let value = closing_equals(expression).map_or("", |at| &expression[at + 1..]);
        if !is_any_value(value) {
            one.also_remarked("the cookie is taken out whatever its value");
        }
    }
}

/// Whether a statement is about the cookies alone, or a copy of them in another field.
pub(super) fn is_cookie_work(one: &SourceStatement, copy: &str) -> bool {
    let is_cookie = |what: &str| what == "req.http.cookie" || what == copy;
    if branch_kind(one).is_some() {
        let condition = VclCondition::of(&one.text);
        let is_about = condition.map_or(one.text == "else", |condition| {
            let leaves = condition.leaves();
            leaves.iter().all(|leaf| is_cookie(&leaf.left()))
        });
        let mut inside = one.inside().iter();
        return is_about && inside.all(|inner| is_cookie_work(inner, copy));
    }
    let touched = assignment(one)
        .map(|(left, _)| left)
        .or_else(|| removed_variable(one));
    let of_cookie = touched.is_some_and(|what| is_cookie(&what));
    let is_step = matches!(returned_step(one), Some("pass" | "hash" | "lookup"));
    of_cookie || is_step && one.block.is_none() || one.text.starts_with("cookie.")
}

/// The module `cookie`.
pub(super) fn cookie_module(one: &SourceStatement, route: &mut DraftMap) {
    for (call, path) in [
        ("cookie.filter", "cookies.drop"),
        ("cookie.delete", "cookies.drop"),
        ("cookie.keep", "cookies.keep"),
    ] {
        let Some(arguments) = call_arguments(&one.text, call) else {
            continue;
        };
        if let Some(names) = arguments.first().and_then(|names| quoted_text(names)) {
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

/// Cookies that a VCL keeps.
pub(super) struct KeptCookies {
    pub names: PatternList,
    /// The field that it works on: the cookies themselves, or a copy.
    pub field: String,
}

/// The names in the expression that marks cookies to keep: `regsuball(…, ";(A|B)=", "; \1=")`.
pub(super) fn kept_cookies(block: &SourceStatement) -> Option<KeptCookies> {
    block.inside().iter().find_map(|one| {
        let (left, right) = assignment(one)?;
        let arguments = call_arguments(right, "regsuball")?;
        let [_, expression, with] = arguments.as_slice() else {
            return None;
        };
        let is_mark = left.contains("cookie") && quoted_text(with) == Some("; \\1=");
        let names = quoted_text(expression)?.strip_prefix(';')?;
        let names = patterns::cookie_names(&format!(";{names}")).filter(|_| is_mark)?;
        Some(KeptCookies { names, field: left })
    })
}

/// `set req.http.X = "text"`.
fn request_field(one: &SourceStatement, left: &str, right: &str, route: &mut DraftMap) {
    let Some(name) = left.strip_prefix("req.http.") else {
        return;
    };
    match (name, quoted_text(right)) {
        ("x-forwarded-for" | "x-forwarded-proto", _) => one.needs_nothing(),
        ("grace", _) => one.needs_nothing(),
        ("host" | "cookie", _) => {}
        (name, Some(value)) if is_touchable(name) && !value.contains(['{', '}']) => {
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

/// `unset req.http.X`.
fn removed_field(one: &SourceStatement, what: &str, route: &mut DraftMap) {
    let own = ["accept-encoding", "x-forwarded-for", "x-forwarded-proto"];
    if let Some(name) = what
        .strip_prefix("req.http.")
        .filter(|name| is_touchable(name) && !own.contains(name))
    {
        route.add("headers.request.remove", name);
        one.translated();
    }
}
