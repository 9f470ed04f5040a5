//! Regular expressions as patterns with `*` and `?`, where these say the same or a little more.
//!
//! An expression becomes all texts that it stands for: each alternative is a pattern of its own. What
//! would be too many of them, or is no matter of patterns, is not translated.

mod class;
mod reader;

use class::CharacterClass;
use reader::ExpressionReader;

/// Where an expanded alternative is anchored at the beginning.
pub const START: char = '\u{1}';
/// Where it is anchored at the end.
pub const END: char = '\u{2}';

/// Whether patterns say the same as the expression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatternMeaning {
    Same,
    /// They match more, since a class of characters became `?` or `*`.
    Wider,
}

/// Whether an expression tells capital and small letters apart, as patterns do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpressionCase {
    Told,
    /// It begins with `(?i)`, or has such a group.
    Ignored,
}

/// What a comment says where the case of letters is lost.
pub const CASE_IS_LOST: &str = "capital and small letters are the same to the expression and are told apart here; put all spellings";

/// The patterns that an expression became.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternList {
    pub patterns: Vec<String>,
    pub meaning: PatternMeaning,
    pub case: ExpressionCase,
}

impl PatternList {
    /// What a comment says of the difference.
    pub fn difference(&self) -> Option<&'static str> {
        match (self.meaning, self.case) {
            (_, ExpressionCase::Ignored) => Some(CASE_IS_LOST),
            (PatternMeaning::Wider, ExpressionCase::Told) => {
                Some("the patterns match a little more than the expression")
            }
            (PatternMeaning::Same, ExpressionCase::Told) => None,
        }
    }

    /// The patterns with every spelling of their letters; none if these are more than `most`.
    pub fn spellings(&self, most: usize) -> Option<Vec<String>> {
        let mut found = Vec::new();
        for pattern in &self.patterns {
            let mut texts = vec![String::new()];
            for c in pattern.chars() {
                let both = [c.to_ascii_lowercase(), c.to_ascii_uppercase()];
                let forms = if c.is_ascii_alphabetic() {
                    &both[..]
                } else {
                    &[c][..]
                };
                let longer = |text: &String| -> Vec<String> {
                    forms.iter().map(|c| format!("{text}{c}")).collect()
                };
                texts = texts.iter().flat_map(longer).collect();
                if texts.len() + found.len() > most {
                    return None;
                }
            }
            found.extend(texts);
        }
        found.sort();
        found.dedup();
        Some(found)
    }

    /// The rests of the patterns behind what all of them begin with.
    pub fn without_beginning(self, beginning: &str) -> Self {
        let rest = |one: &String| one.strip_prefix(beginning).unwrap_or(one).to_owned();
        Self {
            patterns: self.patterns.iter().map(rest).collect(),
            ..self
        }
    }

    /// Patterns that match every spelling and more: any character stands for each letter.
    pub fn any_spelling(&self) -> Vec<String> {
        let any = |c: char| if c.is_ascii_alphabetic() { '?' } else { c };
        let mut found: Vec<String> = Vec::new();
        for pattern in &self.patterns {
            let wide = pattern.chars().map(any).collect();
            if !found.contains(&wide) {
                found.push(wide);
            }
        }
        found
    }

    /// The patterns as they are, and with small and capital letters alone.
    pub fn usual_spellings(&self) -> Vec<String> {
        let mut found = self.patterns.clone();
        let small = self.patterns.iter().map(|one| one.to_ascii_lowercase());
        let capital = self.patterns.iter().map(|one| one.to_ascii_uppercase());
        for one in small.chain(capital) {
            if !found.contains(&one) {
                found.push(one);
            }
        }
        found
    }
}

/// The texts that an expression stands for, as patterns with `START` and `END` where they are anchored;
/// none if it is no matter of patterns.
pub fn alternatives(expression: &str) -> Option<PatternList> {
    each(expanded(expression)?, |text| Some(text.to_owned()))
}

/// Patterns for a path. What the expression says of the query can't be said.
pub fn paths(expression: &str) -> Option<PatternList> {
    let expanded = expanded(expression)?;
    each(expanded, |text| {
        // An expression for the whole URL often says `.css` or `.css?anything`.
        let (path, anchored) = match text.find("\\?") {
            Some(at) => {
                let rest = text[at + 2..].trim_end_matches(END);
                if !rest.is_empty() && rest != "*" {
                    return None;
                }
                (text[..at].to_owned(), true)
            }
            None => (text.to_owned(), false),
        };
        let path = if anchored {
            format!("{path}{END}")
        } else {
            path
        };
        let path = whole(&path)?;
        // A path begins with a slash, so any character that it begins with is that.
        Some(match path.strip_prefix('?') {
            Some(rest) => format!("/{rest}"),
            None => path,
        })
    })
    .map(|mut list| {
        list.patterns.retain(|path| path.starts_with(['/', '*']));
        list
    })
    .filter(|list| !list.patterns.is_empty())
}

/// Patterns for the value of a header field.
pub fn values(expression: &str) -> Option<PatternList> {
    each(expanded(expression)?, whole)
}

/// Patterns for the names of cookies out of an expression for the whole field.
pub fn cookie_names(expression: &str) -> Option<PatternList> {
    names(expression, &[';', ' ', '*'])
}

/// Patterns for the names of query parameters out of an expression for the whole URL.
pub fn parameter_names(expression: &str) -> Option<PatternList> {
    let mut list = names(expression, &['&', '*'])?;
    for name in &mut list.patterns {
        *name = name.trim_start_matches('*').to_owned();
        if !expression.contains('=') {
            *name = name.trim_end_matches('*').to_owned();
        }
    }
    Some(list).filter(|list| !list.patterns.iter().any(String::is_empty))
}

fn names(expression: &str, before: &[char]) -> Option<PatternList> {
    let expanded = expanded(expression)?;
    each(expanded, |text| {
        let (name, complete) = match text.split_once('=') {
            Some((name, _)) => (name, true),
            None => (text, false),
        };
        let begun = name.starts_with(START) || name.starts_with(before) || name.starts_with("\\?");
        let name = name.trim_start_matches(START).trim_start_matches("\\?");
        let name = name.trim_start_matches(before);
        let ended = name.ends_with(END) || complete;
        let name = name.trim_end_matches(END);
        if name.is_empty() || name.contains([START, END]) {
            return None;
        }
        let name = if begun {
            name.to_owned()
        } else {
            format!("*{name}")
        };
        let name = if ended { name } else { format!("{name}*") };
        Some(simple(&name))
    })
}

/// Whether there may be one of these marks at a place of an expression where any of several characters
/// may stand. A text with such a place is none of a single part between marks.
pub fn may_hold(expression: &str, marks: &str) -> bool {
    let characters: Vec<char> = expression.chars().collect();
    let mut at = 0;
    while let Some(&c) = characters.get(at) {
        at += 1;
        let holds = match c {
            '.' => true,
            '\\' => {
                at += 1;
                matches!(characters.get(at - 1), Some('D' | 'N' | 'S' | 'W' | 'X'))
            }
            '[' => {
                let class = CharacterClass::read(&characters[at..]);
                at += class.length;
                class.may_hold(marks)
            }
            // What is in the group may stand there again and again.
            ')' => matches!(characters.get(at), Some('*' | '+' | '{')),
            _ => false,
        };
        if holds {
            return true;
        }
    }
    false
}

/// Makes a pattern out of each alternative.
fn each(expanded: PatternList, pattern: impl Fn(&str) -> Option<String>) -> Option<PatternList> {
    let mut patterns: Vec<String> = Vec::new();
    for text in expanded.patterns.iter().filter_map(|text| anchored(text)) {
        let one = pattern(&text)?;
        if !patterns.contains(&one) {
            patterns.push(one);
        }
    }
    Some(PatternList {
        patterns,
        ..expanded
    })
    .filter(|list| !list.patterns.is_empty())
}

/// An alternative with its marks at its ends alone; none if it can't match.
fn anchored(text: &str) -> Option<String> {
    let (body, end) = match text.split_once(END) {
        Some((body, rest)) if rest.chars().all(|c| c == '*' || c == END) => (body, true),
        Some(_) => return None,
        None => (text, false),
    };
    let (start, body) = match body.rsplit_once(START) {
        Some((before, body)) if before.chars().all(|c| c == '*' || c == START) => (true, body),
        Some(_) => return None,
        None => (false, body),
    };
    let mark = |set: bool, mark: char| if set { mark.to_string() } else { String::new() };
    Some(format!("{}{body}{}", mark(start, START), mark(end, END)))
}

/// A pattern for all of a text out of an alternative that matches anywhere, unless it is anchored.
fn whole(text: &str) -> Option<String> {
    let (text, before) = match text.strip_prefix(START) {
        Some(rest) => (rest, ""),
        None => (text, "*"),
    };
    let (text, after) = match text.strip_suffix(END) {
        Some(rest) => (rest, ""),
        None => (text, "*"),
    };
    let none = text.contains([START, END]);
    (!none).then(|| simple(&format!("{before}{text}{after}")))
}

/// A pattern without stars that say nothing. One behind a backslash is a letter.
pub fn simple(pattern: &str) -> String {
    let mut text = String::new();
    let mut is_run = false;
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        if c != '*' || !is_run {
            text.push(c);
        }
        is_run = c == '*';
        if c == '\\' {
            text.extend(rest.next());
        }
    }
    text
}

/// All alternatives of an expression, with marks where they are anchored.
fn expanded(expression: &str) -> Option<PatternList> {
    let (expression, case) = match expression.strip_prefix("(?i)") {
        Some(rest) => (rest, ExpressionCase::Ignored),
        None => (expression, ExpressionCase::Told),
    };
    ExpressionReader::new(expression, case).read_all()
}

/// A character as it stands in a pattern.
fn literal(c: char) -> String {
    match c {
        '*' | '?' | '\\' => format!("\\{c}"),
        c => c.to_string(),
    }
}

/// A text as a pattern for itself alone.
pub fn literal_text(text: &str) -> String {
    text.chars().map(literal).collect()
}
