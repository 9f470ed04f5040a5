//! Expressions about `req.url`, which is the path with the query. Lamina has conditions of its own for
//! each of both, so every alternative of an expression is either about the path or about the query.

use super::super::expression::{self, PatternList, PatternMeaning, literal_text};
use super::patterns;

/// The most alternatives of one expression.
const MOST: usize = 128;

/// What an expression about a URL says.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct TargetPatterns {
    /// Patterns for paths.
    pub paths: Vec<String>,
    /// Patterns for the names of parameters.
    pub parameters: Vec<String>,
    /// Patterns for the names of parameters, out of words that may stand in the path as well.
    pub words: Vec<String>,
    /// How many alternatives can't be said.
    pub unsaid: usize,
    differences: Vec<TargetDifference>,
}

/// How patterns differ from their expression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetDifference {
    /// They match more.
    Wider,
    /// The expression takes capital and small letters for the same.
    Case,
    /// The expression looks for the text of a path in the query, too.
    Anywhere,
    /// The expression says something of the value of a parameter, or of what stands before it, or looks
    /// for the name in paths and values, too.
    OnlyNames,
}

impl TargetDifference {
    fn words(self) -> &'static str {
        match self {
            Self::Wider => "the patterns match a little more than the expression",
            Self::Case => "case counts in patterns, which are here in small and in capital letters",
            Self::Anywhere => "patterns for paths don't look at the query",
            Self::OnlyNames => "of the query the names of parameters count alone",
        }
    }
}

impl TargetPatterns {
    /// Those of `req.url ~ "…"` and `req.url == "…"`.
    pub fn of(operator: &str, right: &str) -> Option<Self> {
        let mut found = Self::default();
        match operator {
            "==" if right.starts_with('/') && !right.contains('?') => {
                found.paths.push(literal_text(right));
            }
            "~" => {
                if patterns::takes_both_cases(right) {
                    found.differs(TargetDifference::Case);
                }
                for one in alternatives(patterns::readable(right)?)? {
                    if found.add(&one).is_none() {
                        found.unsaid += 1;
                    }
                }
            }
            _ => return None,
        }
        let says_any = !found.paths.is_empty() || !found.parameters.is_empty();
        says_any.then_some(found)
    }

    /// What both say, of which one suffices.
    pub fn join(&mut self, other: Self) {
        extend(&mut self.paths, other.paths);
        extend(&mut self.parameters, other.parameters);
        extend(&mut self.words, other.words);
        self.unsaid += other.unsaid;
        other.differences.iter().for_each(|one| self.differs(*one));
    }

    /// Whether all of it is about paths.
    pub fn is_of_paths(&self) -> bool {
        let about_all = self.paths.iter().any(|pattern| pattern == "*");
        self.parameters.is_empty() && self.unsaid == 0 && !about_all
    }

    pub fn has(&self, difference: TargetDifference) -> bool {
        self.differences.contains(&difference)
    }

    /// Whether the expression takes capital and small letters for the same; the patterns are then there
    /// with both. A word that has both kinds stays unsaid.
    pub fn in_both_cases(&mut self) -> bool {
        if !self.has(TargetDifference::Case) {
            return false;
        }
        for list in [&mut self.paths, &mut self.parameters, &mut self.words] {
            for pattern in list.clone() {
                extend(list, vec![pattern.to_lowercase(), pattern.to_uppercase()]);
            }
        }
        true
    }

    /// What a comment says of all differences.
    pub fn difference(&self) -> Option<String> {
        let words: Vec<&str> = self.differences.iter().map(|one| one.words()).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    fn differs(&mut self, difference: TargetDifference) {
        if !self.has(difference) {
            self.differences.push(difference);
        }
    }

    /// Adds one alternative.
    fn add(&mut self, alternative: &str) -> Option<()> {
        let parts = TargetParts::of(alternative);
        let is_query = parts.value.is_some() || parts.has_ampersand;
        match patterns::paths(alternative) {
            Some(list) if !is_query => self.add_paths(alternative, list),
            _ if is_query || parts.has_mark => self.add_parameter(&parts),
            _ => None,
        }
    }

    fn add_paths(&mut self, alternative: &str, list: PatternList) -> Option<()> {
        let is_query = |pattern: &String| pattern.contains(['?', '#']) && pattern.contains('=');
        let usable = |pattern: &String| pattern.starts_with(['/', '*']) && !is_query(pattern);
        if !list.patterns.iter().all(usable) {
            return None;
        }
        if !alternative.starts_with('^') || runs_into_query(alternative) {
            self.differs(TargetDifference::Anywhere);
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !alternative.is_empty() && alternative.chars().all(is_word) {
            extend(&mut self.words, vec![format!("*{alternative}*")]);
        }
        self.add_list(list, |all| &mut all.paths);
        Some(())
    }

    fn add_parameter(&mut self, parts: &TargetParts) -> Option<()> {
        let start = match parts.start {
            NameStart::AtMark => "^",
            NameStart::AfterOpenPlace if parts.value.is_none() => return None,
            NameStart::Anywhere | NameStart::AfterOpenPlace => "",
        };
        let end = if parts.value.is_some() { "$" } else { "" };
        let list = patterns::values(&format!("{start}{}{end}", parts.name))?;
        let is_name = |pattern: &String| !pattern.contains(['/', '\\']);
        if !list.patterns.iter().all(is_name) {
            return None;
        }
        if parts.says_more() || parts.start == NameStart::Anywhere {
            self.differs(TargetDifference::OnlyNames);
        }
        self.add_list(list, |all| &mut all.parameters);
        Some(())
    }

    fn add_list(&mut self, list: PatternList, place: fn(&mut Self) -> &mut Vec<String>) {
        if list.meaning == PatternMeaning::Wider {
            self.differs(TargetDifference::Wider);
        }
        extend(place(self), list.patterns);
    }
}

fn extend(list: &mut Vec<String>, more: Vec<String>) {
    for one in more {
        if !list.contains(&one) {
            list.push(one);
        }
    }
}

/// An alternative cut at the marks of a query.
struct TargetParts {
    /// What stands before the last mark.
    before: String,
    has_mark: bool,
    has_ampersand: bool,
    start: NameStart,
    name: String,
    value: Option<String>,
}

/// Where the name of a parameter begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NameStart {
    /// What is there is its end.
    Anywhere,
    /// Behind a mark of a query.
    AtMark,
    /// Behind a place of the expression that may run through marks: its end is there as well.
    AfterOpenPlace,
}

impl TargetParts {
    fn of(alternative: &str) -> Self {
        let mut parts = Self {
            before: String::new(),
            has_mark: false,
            has_ampersand: false,
            start: NameStart::Anywhere,
            name: String::new(),
            value: None,
        };
        let mut rest = alternative;
        while let Some(piece) = first_piece(rest) {
            rest = &rest[piece.len()..];
            if let Some(value) = &mut parts.value {
                value.push_str(piece);
            } else if piece == "=" {
                parts.value = Some(String::new());
            } else if is_mark(piece) {
                rest = rest.trim_start_matches(['?', '+', '*']);
                parts.has_mark = true;
                parts.has_ampersand |= piece.contains('&');
                parts.begin_name(NameStart::AtMark);
            } else if expression::may_hold(piece, MARKS) {
                rest = behind_count(rest);
                parts.name.push_str(piece);
                parts.begin_name(NameStart::AfterOpenPlace);
            } else {
                parts.name.push_str(piece);
            }
        }
        parts
    }

    /// What was read as a name stands before it.
    fn begin_name(&mut self, start: NameStart) {
        self.before.push_str(&std::mem::take(&mut self.name));
        self.start = start;
    }

    fn says_more(&self) -> bool {
        let of_value = self.value.as_deref().unwrap_or_default();
        !self.before.is_empty() || !of_value.is_empty()
    }
}

/// What stands between the parts of a URL.
const MARKS: &str = "?&=";

/// What is behind the count that a text begins with, as `*`, `+?` or `{2,}`.
fn behind_count(text: &str) -> &str {
    let counted = text.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let rest = counted.map_or(text, |(_, rest)| rest);
    rest.trim_start_matches(['?', '+', '*'])
}

/// Whether an expression that begins with the path may find some of its text in the query.
fn runs_into_query(alternative: &str) -> bool {
    let text = alternative.trim_end_matches('$');
    let ends = [".*", ".+", ".*?", ".+?", "."];
    let text = ends
        .iter()
        .find_map(|end| text.strip_suffix(end))
        .unwrap_or(text);
    expression::may_hold(text, "?")
}

/// An escaped character, a class, or another character.
fn first_piece(text: &str) -> Option<&str> {
    let mut chars = text.char_indices();
    let (_, first) = chars.next()?;
    let end = match first {
        '\\' => chars.next().map(|(at, c)| at + c.len_utf8()),
        '[' => class_end(text),
        c => Some(c.len_utf8()),
    };
    Some(&text[..end.unwrap_or(text.len())])
}

/// Where the class ends that a text begins with.
fn class_end(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    chars.next_if(|(_, c)| *c == '^');
    // What stands first is a member, whatever it is.
    let mut is_first = true;
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            ']' if !is_first => return Some(at + 1),
            _ => {}
        }
        is_first = false;
    }
    None
}

/// Whether a piece stands for what separates parameters.
fn is_mark(piece: &str) -> bool {
    let class = piece
        .strip_prefix('[')
        .and_then(|inside| inside.strip_suffix(']'));
    match class {
        Some(members) => {
            let separates = |c: char| "?&\\|;".contains(c);
            members.contains(['?', '&']) && members.chars().all(separates)
        }
        None => matches!(piece, "\\?" | "&" | "\\&"),
    }
}

/// The alternatives of an expression as expressions, where groups stand for one of several texts.
fn alternatives(expression: &str) -> Option<Vec<String>> {
    let mut reader = AlternativeReader { rest: expression };
    let found = reader.list()?;
    reader.rest.is_empty().then_some(found)
}

struct AlternativeReader<'a> {
    rest: &'a str,
}

impl AlternativeReader<'_> {
    fn takes(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn list(&mut self) -> Option<Vec<String>> {
        let mut found = self.sequence()?;
        while self.takes("|") {
            found.extend(self.sequence()?);
            if found.len() > MOST {
                return None;
            }
        }
        Some(found)
    }

    fn sequence(&mut self) -> Option<Vec<String>> {
        let mut found = vec![String::new()];
        while !self.rest.is_empty() && !self.rest.starts_with(['|', ')']) {
            let one = match self.takes("(") {
                true => self.group()?,
                false => {
                    let piece = first_piece(self.rest)?;
                    self.rest = &self.rest[piece.len()..];
                    vec![piece.to_owned()]
                }
            };
            if found.len() * one.len() > MOST {
                return None;
            }
            let with = |text: &String| {
                let longer = one.iter().map(|more| format!("{text}{more}"));
                longer.collect::<Vec<String>>()
            };
            found = match one.as_slice() {
                [one] => {
                    found.iter_mut().for_each(|text| text.push_str(one));
                    found
                }
                _ => found.iter().flat_map(with).collect(),
            };
        }
        Some(found)
    }

    fn group(&mut self) -> Option<Vec<String>> {
        if self.takes("?") && !self.takes(":") {
            return None;
        }
        let mut inside = self.list()?;
        if !self.takes(")") {
            return None;
        }
        if self.rest.starts_with(['*', '+', '{']) {
            return Some(vec![format!("({})", inside.join("|"))]);
        }
        if self.takes("?") {
            self.takes("?");
            inside.push(String::new());
        }
        Some(inside)
    }
}
