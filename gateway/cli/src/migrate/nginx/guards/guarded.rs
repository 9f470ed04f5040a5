//! Which requests a guard answers, as far as a `match` can describe them: the condition of an `if`, or
//! those of a `map` and of an `if` with a `set` that give its variable the value.

use serde_json::{Value, json};

use super::MatchPart;
use crate::migrate::expression::{self, ExpressionCase, PatternMeaning};
use crate::migrate::nginx::blocks::BlockChain;
use crate::migrate::nginx::conditions::{
    ConditionOperator, RequestCondition, TextTruth, cookie_pattern, definitions_of, truth_of_text,
    value_pattern,
};
use crate::migrate::nginx::request_uri::{self, RequestUriPatterns, names_in_any_case};
use crate::migrate::nginx::values;
use crate::migrate::source::SourceStatement;

/// The most routes that one condition becomes.
const MOST_ALTERNATIVES: usize = 16;

/// The requests that a guard answers.
#[derive(Debug)]
pub(super) enum GuardedRequests {
    /// Those of any of these parts.
    Any(Vec<MatchPart>),
    /// All that are not of this part.
    AllBut(MatchPart),
}

/// The requests for which an `if` holds.
pub(super) fn requests(block: &SourceStatement, chain: &BlockChain<'_>) -> Option<GuardedRequests> {
    let condition = RequestCondition::of_if(block)?;
    let definitions = definitions_of(chain, &condition.variable);
    if definitions.is_empty() {
        return described(&condition);
    }
    let is_asked_for = match condition.operator {
        ConditionOperator::Given => true,
        ConditionOperator::Equals => truth_of_text(&condition.value) == TextTruth::Always,
        _ => false,
    };
    let conditions = is_asked_for.then(|| conditions_of(&definitions, &condition))??;
    let mut parts: Vec<MatchPart> = Vec::new();
    for one in &conditions {
        let GuardedRequests::Any(more) = described(one)? else {
            return None;
        };
        for part in more {
            if !parts.iter_mut().any(|known| known.join(&part)) {
                parts.push(part);
            }
        }
    }
    (!parts.is_empty() && parts.len() <= MOST_ALTERNATIVES).then_some(GuardedRequests::Any(parts))
}

/// The conditions of which one must hold for a variable to have the text that is asked for, or any: those
/// of a `map`, or of `if` with a `set` in it.
fn conditions_of(
    definitions: &[&SourceStatement],
    asked: &RequestCondition,
) -> Option<Vec<RequestCondition>> {
    let is_meant = |text: &str| match asked.operator {
        ConditionOperator::Equals => text == asked.value,
        _ => truth_of_text(text) == TextTruth::Always,
    };
    let is_constant =
        |text: &str| truth_of_text(text) != TextTruth::ByRequest && !text.contains('$');
    let mut found = Vec::new();
    for one in definitions {
        match one.name() {
            "set" if is_constant(one.words.last()?) && !is_meant(one.words.last()?) => {}
            "if" => {
                let mut inside = one.inside().iter();
                let set = inside.find(|inner| inner.name() == "set")?;
                let value = set.words.last()?;
                if !is_constant(value) || !is_meant(value) {
                    return None;
                }
                found.push(RequestCondition::of_if(one)?);
            }
            "map" => {
                let pieces = values::variables(one.argument());
                let [source] = pieces.as_slice() else {
                    return None;
                };
                for entry in one.inside() {
                    let value = entry.argument();
                    if !is_constant(value) || entry.name() == "include" {
                        return None;
                    }
                    match (entry.name(), is_meant(value)) {
                        ("default", true) => return None,
                        (_, false) => {}
                        (key, true) => found.push(RequestCondition::of_map_entry(source, key)),
                    }
                }
            }
            _ => return None,
        }
    }
    Some(found)
}

/// The requests for which a condition about the request itself holds.
fn described(condition: &RequestCondition) -> Option<GuardedRequests> {
    let name = condition.variable.as_str();
    let found = match name {
        "request_method" => by_list(condition, methods(condition)?, MatchPart::Methods)?,
        "host" | "http_host" => by_list(condition, hosts(condition)?, MatchPart::Hosts)?,
        "uri" | "document_uri" | "request_uri" => {
            GuardedRequests::Any(vec![MatchPart::Paths(paths(condition)?)])
        }
        "args" | "query_string" | "is_args" => GuardedRequests::Any(parameters(condition)?),
        _ => {
            if let Some(parameter) = name.strip_prefix("arg_") {
                of_parameter(condition, parameter)?
            } else if let Some(cookie) = name.strip_prefix("cookie_") {
                let is_given = condition.operator == ConditionOperator::Given
                    || (condition.operator == ConditionOperator::Differs
                        && condition.value.is_empty());
                let part = MatchPart::Header("cookie".to_owned(), cookie_pattern(cookie));
                is_given.then_some(GuardedRequests::Any(vec![part]))?
            } else {
                let field = name.strip_prefix("http_")?.replace('_', "-");
                by_value(condition, |value| MatchPart::Header(field.clone(), value))?
            }
        }
    };
    match &found {
        GuardedRequests::Any(parts) if parts.len() > MOST_ALTERNATIVES => None,
        _ => Some(found),
    }
}

/// Requests with one of these methods or hosts, or all others.
fn by_list(
    condition: &RequestCondition,
    list: Vec<String>,
    part: impl FnOnce(Vec<String>) -> MatchPart,
) -> Option<GuardedRequests> {
    match condition.operator {
        ConditionOperator::Equals | ConditionOperator::Matches(_) => {
            Some(GuardedRequests::Any(vec![part(list)]))
        }
        ConditionOperator::Differs | ConditionOperator::MatchesNot(_) => {
            Some(GuardedRequests::AllBut(part(list)))
        }
        ConditionOperator::Given | ConditionOperator::EqualsInAnyCase => None,
    }
}

/// The methods that a condition names, each by its whole name.
fn methods(condition: &RequestCondition) -> Option<Vec<String>> {
    let names = match condition.expression() {
        Some(list) if list.meaning == PatternMeaning::Same => list.patterns,
        Some(_) => return None,
        None => vec![condition.value.clone()],
    };
    let names = names.iter().map(|name| name.trim_matches('*').to_owned());
    let names: Vec<String> = names.collect();
    let is_name = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase());
    names.iter().all(is_name).then_some(names)
}

/// The hosts that a condition names. They have small letters.
fn hosts(condition: &RequestCondition) -> Option<Vec<String>> {
    let names = match condition.expression() {
        Some(list) if list.meaning == PatternMeaning::Same => list.patterns,
        Some(_) => return None,
        None => vec![expression::literal_text(&condition.value)],
    };
    let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let is_name = |name: &String| !name.is_empty() && !name.contains(['?', '\\', '/', ':']);
    names.iter().all(is_name).then_some(names)
}

/// The paths that a condition names, if they are all of it.
fn paths(condition: &RequestCondition) -> Option<Vec<String>> {
    let (patterns, case) = match condition.operator {
        ConditionOperator::Equals if condition.value.starts_with('/') => {
            let path = condition.value.split('?').next().unwrap_or_default();
            (vec![expression::literal_text(path)], ExpressionCase::Told)
        }
        ConditionOperator::Matches(case) => {
            let list = match condition.variable.as_str() {
                "request_uri" if !condition.value.starts_with("^/") => return None,
                "request_uri" => {
                    let list = RequestUriPatterns::of_whole(&condition.value)?;
                    if !list.parameters.is_empty() {
                        return None;
                    }
                    expression::alternatives(&condition.value).map(|all| (list.paths, all.case))?
                }
                _ => expression::paths(&condition.value).map(|list| (list.patterns, list.case))?,
            };
            match case {
                ExpressionCase::Ignored => (list.0, case),
                ExpressionCase::Told => list,
            }
        }
        _ => return None,
    };
    match request_uri::spelled_out(&patterns, case) {
        (paths, None) => Some(paths),
        (_, Some(_)) => None,
    }
}

/// A part for each parameter that a condition names.
fn parameters(condition: &RequestCondition) -> Option<Vec<MatchPart>> {
    let any = || vec![MatchPart::Query("*".to_owned(), json!("*"))];
    match condition.operator {
        ConditionOperator::Given => Some(any()),
        ConditionOperator::Differs if condition.value.is_empty() => Some(any()),
        ConditionOperator::Matches(ExpressionCase::Told) => {
            let list = RequestUriPatterns::of_query(&condition.value)?;
            let case = expression::alternatives(&condition.value)?.case;
            if list.are_cut() || case == ExpressionCase::Ignored {
                return None;
            }
            let mut parts: Vec<MatchPart> = Vec::new();
            for (name, value) in list.parameters {
                let value = match value.as_str() {
                    "*" => json!("*"),
                    value => json!({ "any": [value], "case": "exact" }),
                };
                let part = MatchPart::Query(name, value);
                if !parts.iter_mut().any(|known| known.join(&part)) {
                    parts.push(part);
                }
            }
            Some(parts)
        }
        _ => None,
    }
}

/// Requests with such a value of a parameter, or all others. nginx takes its name in letters of any case:
/// what is answered has a part for each spelling, and what is left the one that is written.
fn of_parameter(condition: &RequestCondition, name: &str) -> Option<GuardedRequests> {
    let found = by_value(condition, |value| {
        MatchPart::Query(expression::literal_text(name), value)
    })?;
    let GuardedRequests::Any(parts) = &found else {
        return Some(found);
    };
    let (names, _) = names_in_any_case(&expression::literal_text(name));
    let spelled = |part: &MatchPart| -> Vec<MatchPart> {
        let MatchPart::Query(_, value) = part else {
            return vec![part.clone()];
        };
        let of = |name: &String| MatchPart::Query(name.clone(), value.clone());
        names.iter().map(of).collect()
    };
    Some(GuardedRequests::Any(
        parts.iter().flat_map(spelled).collect(),
    ))
}

/// How what a guard asks for differs where nginx takes the name of a parameter in any case.
pub(super) fn difference(block: &SourceStatement) -> Option<&'static str> {
    let condition = RequestCondition::of_if(block)?;
    let name = condition.variable.strip_prefix("arg_")?;
    names_in_any_case(name).1
}

/// Requests with such a value of a field or a parameter, or all others.
fn by_value(
    condition: &RequestCondition,
    part: impl Fn(Value) -> MatchPart,
) -> Option<GuardedRequests> {
    let is_empty = condition.value.is_empty();
    let literal = json!({ "any": [expression::literal_text(&condition.value)], "case": "exact" });
    match condition.operator {
        ConditionOperator::Equals if is_empty => Some(GuardedRequests::AllBut(part(json!("?*")))),
        ConditionOperator::Differs if !is_empty => Some(GuardedRequests::AllBut(part(literal))),
        ConditionOperator::MatchesNot(_) => {
            let list = condition.expression()?;
            if list.meaning != PatternMeaning::Same {
                return None;
            }
            let case = match list.case {
                ExpressionCase::Told => "exact",
                ExpressionCase::Ignored => "ignore",
            };
            let value = json!({ "any": list.patterns, "case": case });
            Some(GuardedRequests::AllBut(part(value)))
        }
        // A request without the field would be meant, too.
        _ if condition.holds_for_nothing() != Some(false) => None,
        _ => Some(GuardedRequests::Any(vec![part(
            value_pattern(condition)?.0,
        )])),
    }
}
