//! `rewrite`: which path the origin gets, which requests are redirected, and which ones nginx takes away
//! from what the draft would show them.

use std::collections::HashSet;

use super::super::draft::DraftMap;
use super::super::expression::{self, ExpressionCase, PatternList};
use super::super::source::{self, SourceStatement};
use super::precedence::patterns_overlap;
use super::request_uri::spelled_out;
use super::server_location::{LocationKind, ServerLocation, collect_locations};
use super::unsaid;
use super::values;

/// How often a path may be rewritten into one that is rewritten: nginx gives up then, too.
const MOST_CYCLES: usize = 10;

/// The most pairs of a `rewrite` and a location that are compared. In a server with more of them, every
/// `rewrite` counts as one that takes requests away.
const MOST_PAIRS: usize = 4_000_000;

/// Beginnings of a target that make every `rewrite` a redirect.
const ABSOLUTE: [&str; 3] = ["http://", "https://", "$scheme"];

/// What comes after a `rewrite`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RewriteEnd {
    /// The client is sent elsewhere, with this status.
    Redirected(u16),
    /// The location stays the same (`break`).
    Stays,
    /// nginx looks for a location for the new path.
    Searched,
}

/// A `rewrite` with its parts.
struct ReadRewrite<'a> {
    expression: &'a str,
    to: &'a str,
    end: RewriteEnd,
}

impl<'a> ReadRewrite<'a> {
    fn of(one: &'a SourceStatement) -> Option<Self> {
        let [expression, to, flags @ ..] = one.arguments() else {
            return None;
        };
        let is_absolute = ABSOLUTE.iter().any(|begin| to.starts_with(begin));
        let end = match flags.first().map(String::as_str) {
            Some("permanent") => RewriteEnd::Redirected(301),
            Some("redirect") => RewriteEnd::Redirected(302),
            _ if is_absolute => RewriteEnd::Redirected(302),
            Some("break") => RewriteEnd::Stays,
            _ => RewriteEnd::Searched,
        };
        Some(Self {
            expression,
            to,
            end,
        })
    }

    /// Whether it sends clients to the same page under another spelling, as one with a slash at its end.
    fn leads_to_the_same_page(&self, names: &[&String]) -> bool {
        let own = ["$host", "$http_host", "$server_name"];
        let own = own
            .into_iter()
            .chain(names.iter().map(|name| name.as_str()));
        let to = self.to.trim_end_matches('?');
        let path = match to.split_once("://") {
            Some((_, rest)) => own
                .filter_map(|name| rest.strip_prefix(name))
                .find(|rest| rest.starts_with(['/', '$'])),
            None => Some(to),
        };
        let Some(path) = path else { return false };
        let path = with_whole_path(self.expression, path);
        ["$uri", "$uri/", "$document_uri", "$request_uri"].contains(&values::without_query(&path))
    }
}

/// A target in which the capture of all of the path is `$uri`.
fn with_whole_path(expression: &str, to: &str) -> String {
    let inside = expression
        .strip_prefix('^')
        .map(|rest| rest.strip_suffix('$').unwrap_or(rest));
    match inside {
        Some("/(.*)" | "/?(.*)" | "/(.+)") => to.replace("/$1", "$uri"),
        Some(inside) if is_one_group(inside) => to.replace("$1", "$uri"),
        None if expression == "(.*)" => to.replace("$1", "$uri"),
        _ => to.to_owned(),
    }
}

/// Whether an expression is one group and nothing else.
fn is_one_group(expression: &str) -> bool {
    let mut open = 0_usize;
    let mut rest = expression.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '\\' => drop(rest.next()),
            '(' => open += 1,
            ')' => open = open.saturating_sub(1),
            _ => {}
        }
        if open == 0 {
            return c == ')' && at + 1 == expression.len();
        }
    }
    false
}

/// The `rewrite` directives of a server, its locations and its `if` blocks that take requests away: they
/// lead out of the server, or to a location that may refuse them.
#[derive(Default)]
pub struct ServerRewrites {
    leading_away: HashSet<*const SourceStatement>,
}

/// One of them that has not been judged yet.
struct UnjudgedRewrite<'a> {
    statement: &'a SourceStatement,
    /// The location that it stands in.
    home: Option<usize>,
    /// The locations that its target may reach.
    reached: Vec<usize>,
}

impl ServerRewrites {
    pub fn of(server: &SourceStatement) -> Self {
        let names = server.inside().iter();
        let names = names.filter(|one| one.name() == "server_name");
        let names: Vec<&String> = names.flat_map(|one| one.arguments()).collect();
        let mut locations = Vec::new();
        collect_locations(server.inside(), &[], &mut locations);
        let mut all = rewrites_in(server.inside(), None);
        for (n, location) in locations.iter().enumerate() {
            all.extend(rewrites_in(location.block.inside(), Some(n)));
        }
        let is_too_much = all.len().saturating_mul(locations.len()) > MOST_PAIRS;
        let mut leading_away = HashSet::new();
        let mut unjudged = Vec::new();
        for (statement, home) in all {
            let Some(read) = ReadRewrite::of(statement) else {
                continue;
            };
            let is_away = match (read.end, home) {
                (RewriteEnd::Redirected(_), _) => !read.leads_to_the_same_page(&names),
                (RewriteEnd::Stays, Some(_)) => continue,
                _ if is_too_much => true,
                _ => {
                    let reached = reached_locations(read.to, &locations);
                    let is_nowhere = reached.is_empty();
                    unjudged.push(UnjudgedRewrite {
                        statement,
                        home,
                        reached,
                    });
                    is_nowhere
                }
            };
            if is_away {
                leading_away.insert(std::ptr::from_ref(statement));
            }
        }
        let mut found = Self { leading_away };
        let withheld: Vec<bool> = locations
            .iter()
            .map(|one| unsaid::may_withhold(one.block))
            .collect();
        found.judge(&unjudged, withheld);
        found
    }

    /// Finds those that reach a location that may withhold something, perhaps by a further `rewrite`.
    fn judge(&mut self, unjudged: &[UnjudgedRewrite<'_>], mut withheld: Vec<bool>) {
        for _ in 0..MOST_CYCLES {
            for one in unjudged {
                if one.reached.iter().any(|at| withheld[*at]) {
                    self.leading_away.insert(std::ptr::from_ref(one.statement));
                }
            }
            for one in unjudged.iter().filter(|one| self.lead_away(one.statement)) {
                if let Some(home) = one.home {
                    withheld[home] = true;
                }
            }
        }
    }

    /// Whether this one takes requests away.
    pub fn lead_away(&self, one: &SourceStatement) -> bool {
        self.leading_away.contains(&std::ptr::from_ref(one))
    }
}

/// The `rewrite` directives of a block and of each `if` in it.
fn rewrites_in(
    block: &[SourceStatement],
    home: Option<usize>,
) -> Vec<(&SourceStatement, Option<usize>)> {
    let conditional = block.iter().filter(|one| one.name() == "if");
    let inside = conditional.flat_map(|one| source::all(one.inside()));
    block
        .iter()
        .chain(inside)
        .filter(|one| one.name() == "rewrite")
        .map(|one| (one, home))
        .collect()
}

/// The locations that may take a path which begins with what a target says before its first variable.
fn reached_locations(to: &str, locations: &[ServerLocation<'_>]) -> Vec<usize> {
    let path = to.split('?').next().unwrap_or_default();
    let at = path.find('$').unwrap_or(path.len());
    let (literal, has_variable) = (&path[..at], at < path.len());
    let tail = if has_variable { "*" } else { "" };
    let pattern = format!("{}{tail}", expression::literal_text(literal)).to_ascii_lowercase();
    let is_prefix = |one: &ServerLocation<'_>| {
        matches!(one.kind, LocationKind::Prefix | LocationKind::PrefixFirst)
    };
    let shorter = locations
        .iter()
        .filter(|one| is_prefix(one) && literal.starts_with(&one.path));
    let longest = shorter.map(|one| one.path.len()).max();
    let may_take = |one: &ServerLocation<'_>| match one.kind {
        LocationKind::Named => false,
        LocationKind::Exact => match has_variable {
            true => one.path.starts_with(literal),
            false => one.path == literal,
        },
        LocationKind::Prefix | LocationKind::PrefixFirst => {
            let is_longest = literal.starts_with(&one.path) && Some(one.path.len()) == longest;
            is_longest || (has_variable && one.path.starts_with(literal))
        }
        LocationKind::Expression => {
            let (paths, _) = one.covering_patterns();
            let overlaps = |path: &String| patterns_overlap(&pattern, &path.to_ascii_lowercase());
            paths.is_empty() || paths.iter().any(overlaps)
        }
    };
    let every = locations.iter().enumerate();
    every
        .filter(|(_, one)| may_take(one))
        .map(|(n, _)| n)
        .collect()
}

/// Patterns for the paths that a `rewrite` is for, in all spellings and perhaps more; none if there are
/// none.
pub fn rewritten_paths(one: &SourceStatement) -> Option<Vec<String>> {
    let read = ReadRewrite::of(one)?;
    let list = expression::paths(read.expression)?;
    Some(match list.case {
        ExpressionCase::Told => list.patterns,
        ExpressionCase::Ignored => list.any_spelling(),
    })
}

/// What is said of a `rewrite` that takes requests away.
pub const TAKEN_AWAY: &str = "nginx answers these paths elsewhere, so they get 403 here";

/// A `rewrite` of a location that takes some of its requests away, with patterns for these.
pub struct TakenRequests<'a> {
    pub statement: &'a SourceStatement,
    pub patterns: Vec<String>,
}

/// Those of a location for a prefix. One that may take all of its requests is left out: it closes the
/// route.
pub fn taken_requests<'a>(
    location: &ServerLocation<'a>,
    rewrites: &ServerRewrites,
) -> Vec<TakenRequests<'a>> {
    let is_prefix = matches!(
        location.kind,
        LocationKind::Prefix | LocationKind::PrefixFirst
    );
    let beginning = expression::literal_text(&location.path);
    let own = format!("{beginning}*");
    let is_root = location.path == "/";
    let is_part = |pattern: &String| {
        let is_within = pattern.starts_with(&beginning) || is_root;
        is_within && *pattern != own && pattern != "*"
    };
    let all = location.block.inside().iter();
    let away = all.filter(|one| is_prefix && rewrites.lead_away(one));
    let mut found = Vec::new();
    for statement in away {
        let patterns = rewritten_paths(statement).unwrap_or_else(|| vec![own.clone()]);
        let patterns: Vec<String> = patterns
            .into_iter()
            .filter(|pattern| patterns_overlap(&own, pattern))
            .collect();
        if patterns.iter().all(is_part) {
            statement.in_part(TAKEN_AWAY);
            found.push(TakenRequests {
                statement,
                patterns,
            });
        }
    }
    found.retain(|one| !one.patterns.is_empty());
    found
}

/// A `rewrite` that redirects.
pub struct RedirectingRewrite {
    /// The paths; none: all of them.
    pub patterns: Vec<String>,
    pub to: String,
    pub status: u16,
    /// How the patterns differ from the expression.
    pub difference: Option<&'static str>,
}

/// `rewrite EXPRESSION TO permanent|redirect` without captures, or with all of the path as the capture.
pub fn redirecting_rewrite(one: &SourceStatement) -> Option<RedirectingRewrite> {
    let read = ReadRewrite::of(one)?;
    let RewriteEnd::Redirected(status) = read.end else {
        return None;
    };
    let to = read.to.trim_end_matches('?');
    let whole = ["^(.*)$", "^/(.*)$", "^", "^(.*)", "^/(.*)", "(.*)"];
    if whole.contains(&read.expression) {
        let to = with_whole_path(read.expression, to);
        return (!to.contains("$1")).then_some(RedirectingRewrite {
            patterns: Vec::new(),
            to,
            status,
            difference: None,
        });
    }
    if to.contains("$1") {
        return None;
    }
    let list = expression::paths(read.expression)?;
    let (patterns, lost) = spelled_out(&list.patterns, list.case);
    let told = PatternList {
        case: ExpressionCase::Told,
        ..list
    };
    Some(RedirectingRewrite {
        patterns,
        to: to.to_owned(),
        status,
        difference: lost.or(told.difference()),
    })
}

/// `rewrite ^/api/(.*)$ /$1 break` of a location in which all requests have that prefix.
pub fn replaced_prefix(location: &ServerLocation<'_>, route: &mut DraftMap) {
    let is_prefix = matches!(
        location.kind,
        LocationKind::Prefix | LocationKind::PrefixFirst
    );
    let mut inside = location.block.inside().iter();
    let Some(one) = inside.find(|one| one.name() == "rewrite" && is_prefix) else {
        return;
    };
    let Some(read) = ReadRewrite::of(one).filter(|read| read.end == RewriteEnd::Stays) else {
        return;
    };
    let literal = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || "/_-".contains(c))
            && !text.contains("//")
    };
    let begun = read.expression.strip_prefix('^');
    let begun = begun.map(|rest| rest.strip_suffix('$').unwrap_or(rest));
    let prefix = begun.and_then(|rest| {
        let plain = rest.strip_suffix("/(.*)");
        plain.or_else(|| rest.strip_suffix("/?(.*)"))
    });
    let added = read.to.strip_suffix("/$1").filter(|added| literal(added));
    let (Some(prefix), Some(added)) = (prefix.filter(|prefix| literal(prefix)), added) else {
        return;
    };
    let is_of_all = location.path.starts_with(&format!("{prefix}/"));
    let is_of_segments =
        location.path == prefix && added.is_empty() && !read.expression.contains("/?(");
    if !is_of_all && !is_of_segments {
        return;
    }
    // The new path takes the place of one in `proxy_pass`, too.
    route.remove("rewrite");
    if !prefix.is_empty() {
        route.set("rewrite.strip_prefix", prefix);
    }
    if !added.is_empty() {
        route.set("rewrite.add_prefix", added);
    }
    one.translated();
    if !is_of_all {
        one.remarked("the path without a slash behind it is rewritten here, too");
    }
}
