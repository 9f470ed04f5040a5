//! What `proxy_cache_bypass` and `proxy_no_cache` name: variables of the request, and variables that
//! `if` and `map` set.

use serde_json::json;

use super::super::draft::DraftMap;
use super::super::expression::{self, PatternList};
use super::super::source::SourceStatement;
use super::locations::BlockChain;

/// What became of a condition.
enum ConditionOutcome {
    /// `bypass` of the route says it; how that differs, if it does.
    Said(Option<&'static str>),
    /// Lamina does so by itself.
    ByItself,
    Unknown,
}

/// Says in `bypass` what the directives of these names name.
pub fn bypass(chain: &BlockChain<'_>, route: &mut DraftMap) {
    for name in ["cache_bypass", "no_cache"] {
        for one in chain.cache_directives(name) {
            let unsaid: Vec<&str> = one
                .arguments()
                .iter()
                .map(String::as_str)
                .filter(|variable| !is_said(variable, chain, route))
                .collect();
            match unsaid.is_empty() {
                true => one.translated(),
                false => one.in_part(&format!("{} can't be said", unsaid.join(" "))),
            }
        }
    }
}

/// Says one variable.
fn is_said(variable: &str, chain: &BlockChain<'_>, route: &mut DraftMap) -> bool {
    if !matches!(say(variable, "", "", route), ConditionOutcome::Unknown) {
        return true;
    }
    let mut found = false;
    for block in chain.blocks() {
        for one in block {
            found |= match one.name() {
                "set" if one.argument() == variable => {
                    one.translated();
                    true
                }
                "if" => sets(one, variable) && said_if(one, route),
                "map" if one.arguments().get(1).is_some_and(|name| name == variable) => {
                    said_map(one, route)
                }
                _ => false,
            };
        }
    }
    found
}

fn sets(block: &SourceStatement, variable: &str) -> bool {
    let mut inside = block.inside().iter();
    inside.any(|one| one.name() == "set" && one.argument() == variable)
}

/// `if (CONDITION) { set $variable 1; }`. A variable that is also set back is too much.
fn said_if(block: &SourceStatement, route: &mut DraftMap) -> bool {
    let sets_back = block
        .inside()
        .iter()
        .any(|one| one.name() == "set" && one.arguments().get(1).is_some_and(|value| value == "0"));
    let Some((variable, operator, value)) = condition(block).filter(|_| !sets_back) else {
        return true;
    };
    mark(block, say(&variable, &operator, &value, route));
    true
}

fn mark(block: &SourceStatement, outcome: ConditionOutcome) {
    match outcome {
        ConditionOutcome::Said(difference) => {
            block.translated_whole();
            if let Some(difference) = difference {
                block.remarked(difference);
            }
        }
        ConditionOutcome::ByItself => block.needs_nothing_whole(),
        ConditionOutcome::Unknown => {}
    }
}

/// Variable, operator and value of `if (…)`.
pub fn condition(block: &SourceStatement) -> Option<(String, String, String)> {
    let text = block.arguments().join(" ");
    let text = text.trim().strip_prefix('(')?.strip_suffix(')')?.trim();
    let mut parts = text.splitn(3, ' ');
    let variable = parts.next()?.to_owned();
    let operator = parts.next().unwrap_or_default().to_owned();
    let value = parts.next().unwrap_or_default().trim().to_owned();
    variable
        .starts_with('$')
        .then_some((variable, operator, value))
}

fn said_map(block: &SourceStatement, route: &mut DraftMap) -> bool {
    let source = block.argument();
    block.translated();
    for one in block.inside() {
        let is_set = !matches!(one.argument(), "" | "0");
        let (operator, value) = match one.name() {
            name if name.starts_with("~*") => ("~*", &name[2..]),
            name if name.starts_with('~') => ("~", &name[1..]),
            name => ("=", name),
        };
        match (one.name(), is_set) {
            ("default" | "hostnames" | "volatile", false) => one.translated(),
            (_, true) if one.name() != "default" => mark(one, say(source, operator, value, route)),
            _ => {}
        }
    }
    true
}

/// Says that requests for which this holds go past the cache.
fn say(variable: &str, operator: &str, value: &str, route: &mut DraftMap) -> ConditionOutcome {
    let is_set = operator.is_empty() || (operator == "!=" && value.is_empty());
    let pattern = |list: Option<PatternList>| list.filter(|_| operator.starts_with('~'));
    if let Some(name) = variable.strip_prefix("$cookie_") {
        return match is_set {
            true => said(route, |route| route.add("bypass.cookie", name)),
            false => ConditionOutcome::Unknown,
        };
    }
    if let Some(name) = variable.strip_prefix("$arg_") {
        return valued(route, "bypass.query", name, operator, value);
    }
    match variable {
        "$request_method" => match (operator, value) {
            ("=", "POST" | "PUT" | "DELETE" | "PATCH") => ConditionOutcome::ByItself,
            ("!=", "GET") => ConditionOutcome::ByItself,
            ("~" | "~*", text) if !text.contains("GET") => ConditionOutcome::ByItself,
            ("!~" | "!~*", text) if text.contains("GET") => ConditionOutcome::ByItself,
            _ => ConditionOutcome::Unknown,
        },
        "$query_string" | "$args" | "$is_args" if is_set => {
            said(route, |route| route.add_value("bypass.query", "*", "*"))
        }
        "$query_string" | "$args" => match pattern(expression::parameter_names(value)) {
            Some(list) => {
                for name in &list.patterns {
                    route.add_value("bypass.query", name, "*");
                }
                ConditionOutcome::Said(list.difference())
            }
            None => ConditionOutcome::Unknown,
        },
        "$http_cookie" if is_set => said(route, |route| route.add("bypass.cookie", "*")),
        "$http_cookie" => listed(
            route,
            "bypass.cookie",
            pattern(expression::cookie_names(value)),
        ),
        "$request_uri" | "$uri" | "$document_uri" => match operator {
            "=" => said(route, |route| route.add("bypass.path", value)),
            _ => listed(route, "bypass.path", pattern(expression::paths(value))),
        },
        _ => match variable.strip_prefix("$http_") {
            Some(name) => valued(
                route,
                "bypass.header",
                &name.replace('_', "-"),
                operator,
                value,
            ),
            None => ConditionOutcome::Unknown,
        },
    }
}

fn said(route: &mut DraftMap, add: impl Fn(&mut DraftMap)) -> ConditionOutcome {
    add(route);
    ConditionOutcome::Said(None)
}

fn listed(route: &mut DraftMap, path: &str, list: Option<PatternList>) -> ConditionOutcome {
    let Some(list) = list else {
        return ConditionOutcome::Unknown;
    };
    for pattern in &list.patterns {
        route.add(path, pattern.clone());
    }
    ConditionOutcome::Said(list.difference())
}

/// A field or a parameter with a value.
fn valued(
    route: &mut DraftMap,
    path: &str,
    name: &str,
    operator: &str,
    value: &str,
) -> ConditionOutcome {
    let (pattern, difference) = match operator {
        "" => (json!("*"), None),
        "!=" if value.is_empty() => (json!("*"), None),
        "=" => (json!(value), None),
        "~" | "~*" => match expression::values(value) {
            Some(list) => {
                let case = if operator == "~*" { "ignore" } else { "exact" };
                let difference = list.difference();
                (json!({ "any": list.patterns, "case": case }), difference)
            }
            None => return ConditionOutcome::Unknown,
        },
        _ => return ConditionOutcome::Unknown,
    };
    route.add_value(path, name, pattern);
    ConditionOutcome::Said(difference)
}
