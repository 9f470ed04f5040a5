//! Reads an expression and writes down all alternatives that it stands for.

use super::{END, ExpressionCase, PatternList, PatternMeaning, START, literal};

/// The most patterns that one expression may become.
const MOST_PATTERNS: usize = 128;
/// The most bytes of all of them together: counts in counts multiply them.
const MOST_PATTERN_BYTES: usize = 8192;
/// The greatest depth of nested groups. It is bounded, since the reader calls itself for each group.
const DEEPEST_GROUP: usize = 32;

/// An expression that is being read; its characters stand in reverse.
pub struct ExpressionReader {
    rest: Vec<char>,
    meaning: PatternMeaning,
    case: ExpressionCase,
    open_groups: usize,
}

impl ExpressionReader {
    pub fn new(expression: &str, case: ExpressionCase) -> Self {
        Self {
            rest: expression.chars().rev().collect(),
            meaning: PatternMeaning::Same,
            case,
            open_groups: 0,
        }
    }

    /// The whole expression. None: something in it is no matter of patterns.
    pub fn read_all(mut self) -> Option<PatternList> {
        let patterns = self.alternatives()?;
        self.rest.is_empty().then_some(PatternList {
            patterns,
            meaning: self.meaning,
            case: self.case,
        })
    }

    /// `a|b|c`, up to a closing parenthesis or the end.
    fn alternatives(&mut self) -> Option<Vec<String>> {
        let mut found = self.sequence()?;
        while self.rest.last() == Some(&'|') {
            self.rest.pop();
            found.extend(self.sequence()?);
            if found.len() > MOST_PATTERNS {
                return None;
            }
        }
        Some(found)
    }

    fn sequence(&mut self) -> Option<Vec<String>> {
        let mut found = vec![String::new()];
        while let Some(&next) = self.rest.last() {
            if next == '|' || next == ')' {
                break;
            }
            let one = self.piece()?;
            let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
            let product = bytes(&found) * one.len() + bytes(&one) * found.len();
            if found.len() * one.len() > MOST_PATTERNS || product > MOST_PATTERN_BYTES {
                return None;
            }
            found = found
                .iter()
                .flat_map(|text| one.iter().map(move |more| format!("{text}{more}")))
                .collect();
        }
        Some(found)
    }

    /// One atom with what says how often.
    fn piece(&mut self) -> Option<Vec<String>> {
        let next = self.rest.pop()?;
        let (texts, is_literal) = match next {
            '^' => return Some(vec![START.to_string()]),
            '$' => return Some(vec![END.to_string()]),
            '.' => (vec!["?".to_owned()], false),
            '(' => (self.group()?, true),
            '[' => (self.class()?, true),
            '\\' => self.escaped()?,
            '*' | '+' | '{' | '?' => return None,
            c => (vec![literal(c)], true),
        };
        self.repeated(texts, is_literal)
    }

    fn group(&mut self) -> Option<Vec<String>> {
        self.open_groups += 1;
        if self.open_groups > DEEPEST_GROUP {
            return None;
        }
        if self.rest.last() == Some(&'?') {
            self.rest.pop();
            self.kind_of_group()?;
        }
        let found = self.alternatives()?;
        self.open_groups -= 1;
        (self.rest.pop()? == ')').then_some(found)
    }

    /// Reads what stands behind `(?`: `:`, `i:` or a name. Nothing else can be written as a pattern.
    fn kind_of_group(&mut self) -> Option<()> {
        match self.rest.pop()? {
            ':' => Some(()),
            'i' if self.rest.last() == Some(&':') => {
                self.rest.pop();
                self.case = ExpressionCase::Ignored;
                Some(())
            }
            'P' if self.rest.last() == Some(&'<') => {
                self.rest.pop();
                self.name_of_group('>')
            }
            '<' => self.name_of_group('>'),
            '\'' => self.name_of_group('\''),
            _ => None,
        }
    }

    /// `name>`; a look behind has `=` or `!` in its place.
    fn name_of_group(&mut self, end: char) -> Option<()> {
        loop {
            match self.rest.pop()? {
                c if c == end => return Some(()),
                c if c.is_ascii_alphanumeric() || c == '_' => {}
                _ => return None,
            }
        }
    }

    /// A class of few characters is that many alternatives, and another one any character.
    fn class(&mut self) -> Option<Vec<String>> {
        let mut members = Vec::new();
        let mut is_range = false;
        loop {
            match self.rest.pop()? {
                ']' if !members.is_empty() => break,
                '\\' => {
                    let escaped = self.rest.pop()?;
                    is_range |= escaped.is_alphanumeric();
                    members.push(escaped);
                }
                '^' if members.is_empty() => {
                    is_range = true;
                    members.push('^');
                }
                '-' if !members.is_empty() && self.rest.last() != Some(&']') => is_range = true,
                c => members.push(c),
            }
        }
        if members == ['^', '?'] {
            // All that is no query: for a path, any character.
            return Some(vec!["?".to_owned()]);
        }
        if is_range || members.len() > 4 {
            self.meaning = PatternMeaning::Wider;
            return Some(vec!["?".to_owned()]);
        }
        Some(members.into_iter().map(literal).collect())
    }

    fn escaped(&mut self) -> Option<(Vec<String>, bool)> {
        let c = self.rest.pop()?;
        match c {
            'd' | 'w' | 's' | 'D' | 'W' | 'S' => {
                self.meaning = PatternMeaning::Wider;
                Some((vec!["?".to_owned()], false))
            }
            c if c.is_alphanumeric() => None,
            c => Some((vec![literal(c)], true)),
        }
    }

    fn repeated(&mut self, texts: Vec<String>, is_literal: bool) -> Option<Vec<String>> {
        let any = texts == ["?"];
        let many = match self.rest.last() {
            Some('?') => {
                self.rest.pop();
                let mut both = vec![String::new()];
                both.extend(texts);
                return Some(both);
            }
            Some('*') => vec!["*".to_owned()],
            Some('+') if any => vec!["?*".to_owned()],
            Some('+') => texts.iter().map(|text| format!("{text}*")).collect(),
            Some('{') => return self.counted(&texts),
            _ => return Some(texts),
        };
        self.rest.pop();
        if self.rest.last() == Some(&'?') {
            // As few as possible: for whether it matches at all, that is the same.
            self.rest.pop();
        }
        if is_literal && !any {
            self.meaning = PatternMeaning::Wider;
        }
        Some(many)
    }

    /// `{3}`, `{3,}` or `{3,5}`.
    fn counted(&mut self, texts: &[String]) -> Option<Vec<String>> {
        self.rest.pop();
        let mut inside = String::new();
        loop {
            match self.rest.pop()? {
                '}' => break,
                c => inside.push(c),
            }
        }
        let (least, open) = match inside.split_once(',') {
            Some((least, _)) => (least, true),
            None => (inside.as_str(), false),
        };
        let least: usize = least.trim().parse().ok().filter(|n| *n <= 64)?;
        let [one] = texts else { return None };
        if one.len() * least > MOST_PATTERN_BYTES {
            return None;
        }
        let mut text = one.repeat(least);
        if open {
            self.meaning = PatternMeaning::Wider;
            text.push('*');
        }
        Some(vec![text])
    }
}
