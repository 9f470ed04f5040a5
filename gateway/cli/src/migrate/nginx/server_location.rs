//! One location of a server: how it takes requests, which patterns say so, and where it stands among the
//! others.

use super::super::draft::DraftMap;
use super::super::expression::{self, ExpressionCase, PatternList, PatternMeaning};
use super::super::source::SourceStatement;
use super::answers;
use super::precedence::{RouteOrder, RouteReach};

/// Whether an expression has alternatives outside of groups: then its beginning is that of one alone.
fn has_outer_alternatives(expression: &str) -> bool {
    let mut open = 0_usize;
    let mut characters = expression.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '(' => open += 1,
            ')' => open = open.saturating_sub(1),
            '|' if open == 0 => return true,
            _ => {}
        }
    }
    false
}

/// All locations, those inside of others with what is around them.
pub fn collect_locations<'a>(
    block: &'a [SourceStatement],
    parents: &[&'a SourceStatement],
    found: &mut Vec<ServerLocation<'a>>,
) {
    for one in block.iter().filter(|one| one.name() == "location") {
        found.push(ServerLocation::new(one, parents));
        let within: Vec<_> = parents.iter().copied().chain([one]).collect();
        collect_locations(one.inside(), &within, found);
    }
}

/// How a location takes requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LocationKind {
    Exact,
    /// `^~`: before expressions.
    PrefixFirst,
    Expression,
    Prefix,
    /// `@name`.
    Named,
}

/// What is said of a location with too many spellings.
const OTHER_SPELLINGS: &str = "patterns tell capital and small letters apart: other spellings go to routes behind this one, there past the cache; put those that there are";

/// The most patterns that one location becomes where capital and small letters are the same to it.
const MOST_SPELLINGS: usize = 256;

/// The rank of routes that stand before those of locations.
pub const BEFORE_LOCATIONS: u8 = 0;
/// The rank of routes that stand behind those of locations.
pub const BEHIND_LOCATIONS: u8 = 9;

/// Ranks of locations.
const EXACT: u8 = 1;
const PREFIX_FIRST: u8 = 2;
const EXPRESSION_IN_PREFIX: u8 = 3;
const EXPRESSION: u8 = 4;
const PREFIX: u8 = 5;

/// Paths of prefixes that decide where longer ones stand.
pub struct PrefixSurroundings {
    /// Those with `^~`.
    first: Vec<String>,
    /// Those with expressions in them.
    with_expressions: Vec<String>,
    /// All others.
    prefixes: Vec<String>,
}

impl PrefixSurroundings {
    pub fn of(locations: &[ServerLocation<'_>]) -> Self {
        let of_kind = |kind: LocationKind| locations.iter().filter(move |one| one.kind == kind);
        let paths = |kind| of_kind(kind).map(|one| one.path.clone()).collect();
        Self {
            first: paths(LocationKind::PrefixFirst),
            prefixes: paths(LocationKind::Prefix),
            with_expressions: of_kind(LocationKind::Expression)
                .filter_map(ServerLocation::parent_path)
                .collect(),
        }
    }
}

/// A location of a server.
pub struct ServerLocation<'a> {
    pub block: &'a SourceStatement,
    /// The locations that it stands in, the outermost first.
    pub parents: Vec<&'a SourceStatement>,
    pub kind: LocationKind,
    pub path: String,
    pub ignores_case: bool,
    pub order: RouteOrder,
    /// Whether it is a prefix that stands before expressions, although nginx prefers these.
    pub is_moved: bool,
}

impl<'a> ServerLocation<'a> {
    pub fn new(block: &'a SourceStatement, parents: &[&'a SourceStatement]) -> Self {
        // The sign may stand before the path without a space.
        let words = block.arguments().join(" ");
        let signs = [
            ("^~", LocationKind::PrefixFirst),
            ("~*", LocationKind::Expression),
            ("~", LocationKind::Expression),
            ("=", LocationKind::Exact),
            ("@", LocationKind::Named),
        ];
        let found = signs
            .iter()
            .find_map(|(sign, kind)| Some((words.strip_prefix(sign)?, *kind)));
        let (path, kind) = found.unwrap_or((&words, LocationKind::Prefix));
        Self {
            block,
            parents: parents.to_vec(),
            kind,
            path: path.trim().to_owned(),
            ignores_case: words.starts_with("~*"),
            order: RouteOrder {
                rank: PREFIX,
                within: 0,
                part: 0,
            },
            is_moved: false,
        }
    }

    /// nginx takes an exact path. Else it finds the longest prefix; if that has `^~`, it is taken, and
    /// else the first expression, and else that prefix. So a prefix that is longer than one with `^~`
    /// stands before that one, and before expressions, although these should come first. So does one that
    /// nobody may have and that is longer than a prefix with expressions in it: nginx never looks at those
    /// for its requests. No route for a still longer prefix may stand behind it.
    pub fn find_order(&mut self, n: usize, surroundings: &PrefixSurroundings) {
        let longest_first = usize::MAX - self.path.len();
        let is_longer = |path: &String| self.path.starts_with(path) && self.path.len() > path.len();
        let is_shorter =
            |path: &String| path.starts_with(&self.path) && path.len() > self.path.len();
        let passes_expressions = self.parents.is_empty()
            && answers::is_closed(self.block)
            && surroundings.with_expressions.iter().any(is_longer)
            && !surroundings.prefixes.iter().any(is_shorter);
        let goes_first = surroundings.first.iter().any(is_longer) || passes_expressions;
        self.is_moved = self.kind == LocationKind::Prefix && goes_first;
        let (rank, within) = match self.kind {
            LocationKind::Exact => (EXACT, n),
            LocationKind::PrefixFirst => (PREFIX_FIRST, longest_first),
            LocationKind::Prefix if goes_first => (PREFIX_FIRST, longest_first),
            LocationKind::Expression if !self.parents.is_empty() => (EXPRESSION_IN_PREFIX, n),
            LocationKind::Expression => (EXPRESSION, n),
            LocationKind::Prefix => (PREFIX, longest_first),
            LocationKind::Named => (BEFORE_LOCATIONS, n),
        };
        self.order.rank = rank;
        self.order.within = within;
    }

    /// The path of the prefix around it.
    pub fn parent_path(&self) -> Option<String> {
        let parent = self.parents.last()?;
        let parent = Self::new(parent, &[]);
        (parent.kind != LocationKind::Expression).then_some(parent.path)
    }

    /// The patterns for its paths; none of them is every path.
    pub fn patterns(&self) -> Option<PatternList> {
        let exactly = |patterns: Vec<String>| PatternList {
            patterns,
            meaning: PatternMeaning::Same,
            case: ExpressionCase::Told,
        };
        match self.kind {
            LocationKind::Expression => self.expression_patterns(),
            _ if !self.path.starts_with('/') => None,
            LocationKind::Exact => Some(exactly(vec![expression::literal_text(&self.path)])),
            LocationKind::Prefix | LocationKind::PrefixFirst if self.path == "/" => {
                Some(exactly(Vec::new()))
            }
            LocationKind::Prefix | LocationKind::PrefixFirst => Some(exactly(vec![format!(
                "{}*",
                expression::literal_text(&self.path)
            )])),
            LocationKind::Named => None,
        }
    }

    /// Those of an expression; inside of a prefix they begin with that.
    pub fn expression_patterns(&self) -> Option<PatternList> {
        let mut list = expression::paths(&self.path)?;
        if self.ignores_case {
            list.case = ExpressionCase::Ignored;
        }
        if self.parents.is_empty() {
            return Some(list);
        }
        let prefix = expression::literal_text(&self.parent_path()?);
        let within = |pattern: &String| match pattern.strip_prefix('*') {
            Some(rest) => Some(format!("{prefix}*{}", rest.trim_start_matches('*'))),
            None => pattern.starts_with(&prefix).then(|| pattern.clone()),
        };
        let patterns: Option<Vec<String>> = list.patterns.iter().map(within).collect();
        Some(PatternList {
            patterns: patterns?,
            meaning: PatternMeaning::Wider,
            case: list.case,
        })
    }

    /// What all of its patterns begin with, and is written as it stands: the prefix around an expression.
    fn certain_beginning(&self) -> String {
        let parent = match self.kind {
            LocationKind::Expression => self.parent_path(),
            _ => None,
        };
        parent.map_or_else(String::new, |path| expression::literal_text(&path))
    }

    /// Patterns that match all of its paths, and more perhaps.
    pub fn covering_patterns(&self) -> (Vec<String>, ExpressionCase) {
        if let Some(list) = self.patterns() {
            return (list.patterns, list.case);
        }
        let of_prefix = |path: &str| vec![format!("{}*", expression::literal_text(path))];
        let case = match self.ignores_case || self.path.contains("(?i") {
            true => ExpressionCase::Ignored,
            false => ExpressionCase::Told,
        };
        let expression = self.path.strip_prefix("(?i)").unwrap_or(&self.path);
        let begun = expression
            .strip_prefix('^')
            .filter(|rest| !has_outer_alternatives(rest));
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || "/_-".contains(*c);
        let literal: String = begun
            .unwrap_or_default()
            .chars()
            .take_while(is_plain)
            .collect();
        // What stands last may be repeated, or not be there at all.
        let certain = literal.rfind('/').map_or("", |at| &literal[..=at]);
        let paths = match (certain.len(), self.parent_path()) {
            (0 | 1, Some(path)) => of_prefix(&path),
            (0 | 1, None) => Vec::new(),
            _ => of_prefix(certain.trim_end_matches('/')),
        };
        (paths, case)
    }

    /// The patterns that the route gets, with how much they take. Where the case of letters is lost, a
    /// route that restricts takes all spellings and more.
    pub fn spelled(&self, list: PatternList, route: &mut DraftMap) -> (Vec<String>, RouteReach) {
        let wider = match list.meaning {
            PatternMeaning::Wider => RouteReach::Wider,
            PatternMeaning::Same if self.is_moved => RouteReach::BeforeExpressions,
            PatternMeaning::Same => RouteReach::Exact,
        };
        let told = PatternList {
            case: ExpressionCase::Told,
            ..list.clone()
        };
        if let Some(difference) = told.difference() {
            self.block.remarked(difference);
        }
        if list.case == ExpressionCase::Told {
            return (list.patterns, wider);
        }
        let restricts = route.is_closed() || route.has("access") || route.has("auth");
        let beginning = self.certain_beginning();
        let list = list.without_beginning(&beginning);
        let (patterns, reach) = match (list.spellings(MOST_SPELLINGS), restricts) {
            (Some(all), _) => (all, wider),
            (None, true) => {
                self.block.remarked("any character stands for each letter, since patterns tell capital and small letters apart; put the spellings that there are");
                (list.any_spelling(), RouteReach::Wider)
            }
            (None, false) => {
                self.block.remarked(OTHER_SPELLINGS);
                let reach = match wider {
                    RouteReach::Wider => RouteReach::Shifted,
                    _ => RouteReach::Narrower,
                };
                (list.usual_spellings(), reach)
            }
        };
        let patterns: Vec<String> = patterns
            .iter()
            .map(|pattern| format!("{beginning}{pattern}"))
            .collect();
        route.set("match.path", patterns.clone());
        (patterns, reach)
    }
}
