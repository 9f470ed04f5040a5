//! `if (…) { return STATUS; }` and `limit_except`: requests that are answered before, or instead of, what
//! a block says. Requests that a `match` can describe get a route of their own before it; where a `match`
//! describes all others, the route is for these, and what it leaves is answered behind it.

mod guarded;

use serde_json::{Value, json};

use super::super::draft::DraftMap;
use super::super::source::SourceStatement;
use super::answers;
use super::blocks::BlockChain;
use super::conditions::RequestCondition;
use guarded::{GuardedRequests, difference, requests};

/// One part of a `match`.
#[derive(Clone, Debug)]
enum MatchPart {
    Header(String, Value),
    Query(String, Value),
    Methods(Vec<String>),
    Hosts(Vec<String>),
    Paths(Vec<String>),
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
