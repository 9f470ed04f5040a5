//! `if (…) { return STATUS; }` and `limit_except`: requests that are answered before, or instead of, what
//! a block says. Requests that a `match` can describe get a route of their own before it; where a `match`
//! describes all others, the route is for these, and what it leaves is answered behind it.

use serde_json::{Value, json};

use super::super::draft::DraftMap;
use super::super::expression::{self, ExpressionCase, PatternMeaning};
use super::super::source::SourceStatement;
use super::answers;
use super::blocks::BlockChain;
use super::conditions::{
    ConditionOperator, RequestCondition, TextTruth, cookie_pattern, definitions_of, truth_of_text,
    value_pattern,
};
use super::request_uri::{RequestUriPatterns, names_in_any_case};

/// The most routes that one condition becomes.
const MOST_ALTERNATIVES: usize = 16;

/// One part of a `match`.
#[derive(Clone, Debug)]
enum MatchPart {
    Header(String, Value),
    Query(String, Value),
    Methods(Vec<String>),
    Hosts(Vec<String>),
    Paths(Vec<String>),
}

/// The requests that a guard answers.
#[derive(Debug)]
enum GuardedRequests {
    /// Those of any of these parts.
    Any(Vec<MatchPart>),
    /// All that are not of this part.
    AllBut(MatchPart),
}

/// Routes around the one of a block.
#[derive(Default)]
pub struct GuardRoutes {
    pub before: Vec<DraftMap>,
    pub behind: Vec<DraftMap>,
}

impl MatchPart {
    /// Takes the values of another part for the same field or parameter as well; false if it is for
    /// something else.
    fn join(&mut self, other: &Self) -> bool {
        let (known, more) = match (self, other) {
            (Self::Header(name, known), Self::Header(other, more))
            | (Self::Query(name, known), Self::Query(other, more))
                if name == other =>
            {
                (known, more)
            }
            _ => return false,
        };
        let both = known["case"] == more["case"];
        if *known == json!("*") || *more == json!("*") {
            *known = json!("*");
            return true;
        }
        let more = more["any"].as_array().cloned();
        match (known["any"].as_array_mut().filter(|_| both), more) {
            (Some(known), Some(more)) => {
                known.extend(more);
                true
            }
            _ => false,
        }
    }

    /// Makes a route be for requests of this part alone; false if it already asks for something else
    /// of the same kind.
    fn narrow(&self, route: &mut DraftMap) -> bool {
        match self {
            Self::Header(name, value) => narrow_in(route, "match.header", name, value),
            Self::Query(name, value) => narrow_in(route, "match.query", name, value),
            Self::Methods(methods) => narrow_list(route, "match.method", methods),
            Self::Hosts(hosts) => narrow_hosts(route, hosts),
            Self::Paths(paths) => narrow_list(route, "match.path", paths),
        }
    }
}

fn narrow_in(route: &mut DraftMap, path: &str, name: &str, value: &Value) -> bool {
    let known = route.get(path).and_then(|known| known.get(name)).cloned();
    if known.is_none() {
        route.set_in(path, name, value.clone());
    }
    known.is_none_or(|known| known == *value)
}

fn narrow_list(route: &mut DraftMap, path: &str, list: &[String]) -> bool {
    if !route.has(path) {
        route.set(path, list);
        return true;
    }
    route.get(path) == Some(&json!(list))
}

/// Of the hosts of a route, those that fit stay.
fn narrow_hosts(route: &mut DraftMap, hosts: &[String]) -> bool {
    let Some(known) = route.get("match.host").and_then(Value::as_array).cloned() else {
        let are_hosts = hosts.iter().all(|host| !host.contains(['?', '\\']));
        if are_hosts {
            route.set("match.host", hosts);
        }
        return are_hosts;
    };
    let patterns: Vec<_> = hosts
        .iter()
        .map(|host| lamina_base::pattern::Pattern::new(host))
        .collect();
    let fits = |host: &&Value| {
        let host = host.as_str().unwrap_or_default();
        patterns.iter().any(|pattern| pattern.matches(host))
    };
    let kept: Vec<Value> = known.iter().filter(fits).cloned().collect();
    if kept.is_empty() {
        return false;
    }
    route.set("match.host", kept);
    true
}

/// Whether a statement answers some requests of its block, or keeps some methods for some clients.
pub fn is_guard(one: &SourceStatement) -> bool {
    let returns = |one: &SourceStatement| one.inside().iter().any(|one| one.name() == "return");
    one.name() == "limit_except" || (one.name() == "if" && returns(one))
}

/// Whether routes can answer what this `return` in an `if` answers. Which way a client came, over TLS or
/// not, is a matter of listeners.
pub fn is_said(block: &SourceStatement, one: &SourceStatement, chain: &BlockChain<'_>) -> bool {
    let names = chain.directives("server_name").into_iter();
    let names = names.flat_map(|one| one.arguments()).cloned();
    let names: Vec<String> = names.filter(|name| !name.starts_with(['~', '_'])).collect();
    is_about_transport(block, one)
        || (requests(block, chain).is_some() && answer(one, &names, DraftMap::default()).is_some())
}

/// Whether an `if` sends clients to the same page over https.
fn is_about_transport(block: &SourceStatement, one: &SourceStatement) -> bool {
    let transport = ["scheme", "https", "server_port", "http_x_forwarded_proto"];
    let condition = RequestCondition::of_if(block);
    let is_about_it =
        condition.is_some_and(|condition| transport.contains(&condition.variable.as_str()));
    let target = one.arguments().last().map_or("", String::as_str);
    target.starts_with("https://") && (is_about_it || answers::is_same_page_over_https(target))
}

/// What a `return` answers, as a route.
fn answer(one: &SourceStatement, hosts: &[String], mut route: DraftMap) -> Option<DraftMap> {
    answers::returned(one, hosts, &mut route).then_some(route)
}

/// The routes for the guards among these statements, which stand in the innermost of the blocks: `base`
/// is a route for all requests of the block, and `routes` are those that the guards protect.
pub fn around(
    statements: &[SourceStatement],
    chain: &BlockChain<'_>,
    hosts: &[String],
    base: &DraftMap,
    routes: &mut [DraftMap],
) -> GuardRoutes {
    let mut found = GuardRoutes::default();
    for block in statements.iter().filter(|one| one.name() == "if") {
        let Some(one) = block.inside().iter().find(|one| one.name() == "return") else {
            continue;
        };
        if is_about_transport(block, one) {
            block.remarked("redirect_to_https of a listener sends clients to https");
            continue;
        }
        let Some(requests) = requests(block, chain) else {
            continue;
        };
        let answered = match &requests {
            GuardedRequests::Any(parts) => {
                before(parts, |route| answer(one, hosts, route), base, &mut found)
            }
            GuardedRequests::AllBut(part) => match answer(one, hosts, base.clone()) {
                Some(rest) => {
                    narrow_all(block, part, routes);
                    found.behind.push(rest);
                    true
                }
                None => false,
            },
        };
        if answered {
            block.translated();
            one.translated();
            if let Some(difference) = difference(block) {
                block.remarked(difference);
            }
        } else {
            for route in routes.iter_mut() {
                route.close(block, "it is not said here");
            }
        }
    }
    found
}

/// A route for each part; one whose hosts no request of the block has is left out.
fn before(
    parts: &[MatchPart],
    answer: impl Fn(DraftMap) -> Option<DraftMap>,
    base: &DraftMap,
    found: &mut GuardRoutes,
) -> bool {
    for part in parts {
        let mut route = base.clone();
        if !part.narrow(&mut route) && !matches!(part, MatchPart::Hosts(_)) {
            return false;
        }
        let Some(route) = answer(route) else {
            return false;
        };
        found.before.push(route);
    }
    true
}

fn narrow_all(block: &SourceStatement, part: &MatchPart, routes: &mut [DraftMap]) {
    for route in routes {
        if !part.narrow(route) {
            route.close(
                block,
                "it asks for what the route already asks for otherwise",
            );
        }
    }
}

/// `limit_except METHODS { … }`: all other methods are for those whom its block lets in. `rest` makes the
/// route for them.
pub fn limit_except(
    block: &SourceStatement,
    route: &mut DraftMap,
    rest: impl FnOnce(&DraftMap) -> DraftMap,
) -> Option<DraftMap> {
    let mut methods = block.arguments().to_vec();
    if methods.iter().any(|method| method == "GET") && !methods.iter().any(|one| one == "HEAD") {
        methods.push("HEAD".to_owned());
    }
    let others = rest(route);
    if !MatchPart::Methods(methods).narrow(route) {
        route.close(
            block,
            "it asks for what the route already asks for otherwise",
        );
        return None;
    }
    block.translated();
    Some(others)
}

/// The requests for which an `if` holds.
fn requests(block: &SourceStatement, chain: &BlockChain<'_>) -> Option<GuardedRequests> {
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
                let pieces = super::values::variables(one.argument());
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
    match super::request_uri::spelled_out(&patterns, case) {
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
fn difference(block: &SourceStatement) -> Option<&'static str> {
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
