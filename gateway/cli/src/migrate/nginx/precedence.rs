//! Requests that meet another route than with nginx: since a pattern matches more than its expression,
//! since there is no pattern, or since servers on different ports have the same names. The route that
//! they meet must be as strict as the one that they would have met.

use std::collections::HashMap;

use super::super::draft::{ConfigDraft, DraftMap, name_of_route};
use super::super::expression::{ExpressionCase, PatternList, PatternMeaning};
use super::super::source::SourceStatement;
use super::hosts::ServerHosts;

/// Which requests the patterns of a route take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteReach {
    /// Those of its location.
    Exact,
    /// More than these.
    Wider,
    /// Fewer: some spellings go to routes behind it.
    Narrower,
    /// More than these, and of these some spellings go to routes behind it.
    Shifted,
    /// A prefix that stands before an expression which nginx would prefer.
    BeforeExpressions,
    /// What all other routes of its server leave.
    Rest,
    /// None: there is no route for it.
    None,
}

impl RouteReach {
    /// Whether some spellings of its paths go to routes behind it.
    pub fn loses_spellings(self) -> bool {
        matches!(self, Self::Narrower | Self::Shifted)
    }
}

/// The order in which nginx looks at locations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RouteOrder {
    pub rank: u8,
    /// Longer prefixes come first; expressions come as they stand.
    pub within: usize,
    /// Of what one location becomes.
    pub part: u8,
}

/// A route, or what would be one, with what says where it stands.
pub struct PlacedRoute<'a> {
    /// The name of the route, if there is one.
    pub name: Option<String>,
    /// What the original asks for its requests.
    pub rules: DraftMap,
    /// Patterns that match all paths of its location, in any spelling where case is ignored.
    pub paths: Vec<String>,
    pub path_case: ExpressionCase,
    pub server: &'a SourceStatement,
    pub hosts: ServerHosts,
    pub order: RouteOrder,
    pub reach: RouteReach,
    pub is_expression: bool,
    pub statement: &'a SourceStatement,
}

impl PlacedRoute<'_> {
    /// Whether requests that nginx would give to the other one may meet this one.
    fn may_take_from(&self, other: &Self, positions: &RoutePositions<'_>) -> bool {
        let is_lost = other.reach == RouteReach::None || other.reach.loses_spellings();
        let may_take = if std::ptr::eq(self.server, other.server) {
            let reaches = match self.reach {
                RouteReach::Wider | RouteReach::Shifted => true,
                RouteReach::BeforeExpressions => other.is_expression,
                _ => false,
            };
            let reaches = reaches && other.reach != RouteReach::Rest;
            (is_lost && self.order > other.order) || (reaches && self.order < other.order)
        } else {
            let is_before = positions.of(self) < positions.of(other);
            is_before && self.hosts.may_take_from(&other.hosts)
        };
        may_take && self.has_path_of(other)
    }

    /// Patterns for all spellings of its paths, and for more.
    fn any_spelling(&self) -> Vec<String> {
        let list = PatternList {
            patterns: self.paths.clone(),
            meaning: PatternMeaning::Same,
            case: self.path_case,
        };
        list.any_spelling()
    }

    fn has_path_of(&self, other: &Self) -> bool {
        let ignores_case = [self.path_case, other.path_case].contains(&ExpressionCase::Ignored);
        let of = |paths: &[String]| -> Vec<String> {
            match (paths.is_empty(), ignores_case) {
                (true, _) => vec!["*".to_owned()],
                (false, true) => paths.iter().map(|path| path.to_ascii_lowercase()).collect(),
                (false, false) => paths.to_vec(),
            }
        };
        let (own, others) = (of(&self.paths), of(&other.paths));
        own.iter()
            .any(|one| others.iter().any(|other| patterns_overlap(one, other)))
    }
}

/// At which place of the draft routes stand.
struct RoutePositions<'a>(HashMap<&'a str, usize>);

impl RoutePositions<'_> {
    /// What is no route stands behind all.
    fn of(&self, placed: &PlacedRoute<'_>) -> usize {
        let name = placed.name.as_deref();
        let known = name.and_then(|name| self.0.get(name));
        known.copied().unwrap_or(usize::MAX)
    }
}

/// Makes each route as strict as those whose requests it may take.
pub fn keep_strict(placed: &[PlacedRoute<'_>], draft: &mut ConfigDraft) {
    let names: Vec<String> = draft.routes.iter().filter_map(name_of_route).collect();
    let places = names.iter().enumerate();
    let positions = RoutePositions(places.map(|(at, name)| (name.as_str(), at)).collect());
    let demanding = placed.iter().filter(|one| asks_for_something(&one.rules));
    let demanding: Vec<&PlacedRoute<'_>> = demanding.collect();
    for own in placed.iter().filter(|one| one.name.is_some()) {
        let Some(route) = draft.routes.get_mut(positions.of(own)) else {
            continue;
        };
        for other in &demanding {
            if route.answers_itself() || route.is_closed() {
                break;
            }
            if !std::ptr::eq(own, *other) && own.may_take_from(other, &positions) {
                make_as_strict(route, other);
            }
        }
    }
}

/// Whether a route may be stricter than another one. What answers by itself shows nothing that others
/// would hide.
fn asks_for_something(rules: &DraftMap) -> bool {
    rules.is_closed() || !rules.answers_itself()
}

fn make_as_strict(route: &mut DraftMap, other: &PlacedRoute<'_>) {
    let why = "some of its requests meet this route here, which is less strict";
    let rules = &other.rules;
    let same =
        |keys: &[&str], route: &DraftMap| keys.iter().all(|key| route.get(key) == rules.get(key));
    if rules.is_closed() || !same(&["access", "auth"], route) && restricts(rules) {
        return route.close(other.statement, why);
    }
    if !rules.is_uncached() && same(&["policy", "key", "bypass"], route) {
        return;
    }
    match other.reach {
        reach if reach.loses_spellings() && !route.is_uncached() => {
            for path in other.any_spelling() {
                route.add("bypass.path", path);
            }
        }
        _ => route.leave_uncached(other.statement, why),
    }
}

fn restricts(rules: &DraftMap) -> bool {
    rules.has("access") || rules.has("auth")
}

/// Whether some text matches both patterns.
pub fn patterns_overlap(one: &str, other: &str) -> bool {
    let special = ['*', '?', '\\'];
    if !one.contains(special) && !other.contains(special) {
        return one == other;
    }
    let (one, other) = (tokens(one), tokens(other));
    // Whether the rests from here on overlap, row by row from the end.
    let mut below = vec![false; other.len() + 1];
    for at in (0..=one.len()).rev() {
        let mut row = vec![false; other.len() + 1];
        for of in (0..=other.len()).rev() {
            row[of] = match (one.get(at), other.get(of)) {
                (None, None) => true,
                (Some(PatternPiece::Run), right) => below[of] || (right.is_some() && row[of + 1]),
                (left, Some(PatternPiece::Run)) => row[of + 1] || (left.is_some() && below[of]),
                (None, _) | (_, None) => false,
                (Some(left), Some(right)) => left.may_be(right) && below[of + 1],
            };
        }
        below = row;
    }
    below[0]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PatternPiece {
    Run,
    One,
    Letter(char),
}

impl PatternPiece {
    fn may_be(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Letter(own), Self::Letter(other)) => own == other,
            _ => true,
        }
    }
}

fn tokens(pattern: &str) -> Vec<PatternPiece> {
    let mut found = Vec::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        found.push(match c {
            '*' => PatternPiece::Run,
            '?' => PatternPiece::One,
            '\\' => PatternPiece::Letter(rest.next().unwrap_or('\\')),
            c => PatternPiece::Letter(c),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_if_a_text_matches_both() {
        for (one, other, wanted) in [
            ("/a*", "/ab", true),
            ("/a*", "/b*", false),
            ("*.css", "/static/*", true),
            ("*.css", "*.js", false),
            ("/??", "/a", false),
            ("/??", "/*a", true),
            ("*", "", true),
            (r"/\*", "/a", false),
            (r"/\*", "/?", true),
            ("*a*b", "*b*a*", true),
        ] {
            assert_eq!(patterns_overlap(one, other), wanted, "{one} {other}");
            assert_eq!(patterns_overlap(other, one), wanted, "{other} {one}");
        }
    }
}
