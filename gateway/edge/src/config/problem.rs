//! What is wrong with a configuration, said so that a person can mend it.
//!
//! A [`Finding`] names a path and a message; once its place in the text is
//! known it becomes a [`Problem`] with file, line, column and the source line.
//! Secrets never show: [`super::excerpt`] masks the line.

use std::fmt;

use super::excerpt::{excerpt, excerpt_of_key, inside};
use super::tree::{Mark, Node};

/// One step of the way to a value: `routes[2].match` has three.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// The way to a value from the top of the file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Path(pub Vec<Step>);

/// Something wrong at a path; `at` overrides the place that the path leads to.
#[derive(Clone, Debug)]
pub struct Finding {
    pub path: Path,
    pub place: Place,
    pub message: String,
}

/// Which part of the text a finding points at.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// The key that is the last step of the path.
    Key,
    /// The same for a key that is not known: its value is not shown, since it may be a
    /// secret under a misspelt name.
    UnknownKey,
    /// The value at the end of the path.
    Value,
    /// A place known beforehand.
    At(Mark),
    /// The file as a whole.
    File,
}

/// One thing that is wrong, with its place.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The file as it was named.
    pub file: String,
    /// Line and column, from 1; absent if the file as a whole is meant.
    pub position: Option<(usize, usize)>,
    /// The way to the key, as in `routes[2].upstream`; empty at the top.
    pub path: String,
    /// What is wrong, what is expected, and the nearest known word.
    pub message: String,
    excerpt: Option<String>,
}

/// Findings that are kept; who has more starts with these.
pub const MAX_FINDINGS: usize = 100;

/// All that is wrong with a configuration (the first hundred); never empty.
#[derive(Clone, Debug)]
pub struct Problems(Vec<Problem>);

impl Path {
    pub fn key(&self, name: impl Into<String>) -> Self {
        self.with(Step::Key(name.into()))
    }

    pub fn index(&self, n: usize) -> Self {
        self.with(Step::Index(n))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// Whether the path leads to a secret, whose value must not be repeated.
    pub fn is_secret(&self) -> bool {
        matches!(self.0.last(), Some(Step::Key(name)) if super::secret::resembles_secret_name(name))
    }
}

/// The path of a chain of keys that the code knows.
pub fn path(keys: &[&str]) -> Path {
    Path(keys.iter().map(|k| Step::Key((*k).to_owned())).collect())
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(n) => write!(f, "[{n}]")?,
                Step::Key(name) => {
                    let dot = if i == 0 { "" } else { "." };
                    let plain = !name.is_empty()
                        && name
                            .chars()
                            .all(|c| c.is_alphanumeric() || "_-/*".contains(c));
                    if plain {
                        write!(f, "{dot}{name}")?
                    } else {
                        write!(f, "{dot}{name:?}")?
                    }
                }
            }
        }
        Ok(())
    }
}

impl Finding {
    /// A finding about the value at `path`.
    pub fn value(path: Path, message: impl Into<String>) -> Self {
        Self {
            path,
            place: Place::Value,
            message: message.into(),
        }
    }

    /// A finding about the last key of `path`.
    pub fn key(path: Path, message: impl Into<String>) -> Self {
        Self {
            path,
            place: Place::Key,
            message: message.into(),
        }
    }

    /// A finding about the last key of `path`, which is not known.
    pub fn unknown_key(path: Path, message: impl Into<String>) -> Self {
        Self {
            place: Place::UnknownKey,
            ..Self::key(path, message)
        }
    }

    /// A finding at a known place.
    pub fn at(mark: Mark, message: impl Into<String>) -> Self {
        Self {
            path: Path::default(),
            place: Place::At(mark),
            message: message.into(),
        }
    }

    /// A finding about the file as a whole.
    pub fn file(message: impl Into<String>) -> Self {
        Self {
            path: Path::default(),
            place: Place::File,
            message: message.into(),
        }
    }

    /// Adds the nearest known word as a question.
    pub fn near(mut self, nearest: Option<&str>) -> Self {
        if let Some(word) = nearest {
            self.message.push_str(&format!("; did you mean `{word}`?"));
        }
        self
    }

    fn mark(&self, root: Option<&Node>) -> Option<Mark> {
        match self.place {
            Place::At(mark) => Some(mark),
            Place::File => None,
            Place::Value => root.map(|node| node.find(&self.path).0),
            Place::Key | Place::UnknownKey => root.map(|node| node.find(&self.path).1),
        }
    }

    /// The finding with its place in `text`.
    pub fn locate(self, file: &str, text: &str, root: Option<&Node>) -> Problem {
        let mark = self.mark(root).map(|mark| inside(text, mark));
        let excerpt_of = match self.place {
            Place::UnknownKey => excerpt_of_key,
            Place::Key | Place::Value | Place::At(_) | Place::File => excerpt,
        };
        Problem {
            file: file.to_owned(),
            position: mark.map(|m| (m.line, m.column)),
            excerpt: mark.and_then(|mark| excerpt_of(text, mark)),
            path: self.path.to_string(),
            message: self.message,
        }
    }
}

impl Problems {
    /// `None` if nothing is wrong. Sorted by place.
    pub fn new(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by_key(|p| (p.position.is_none(), p.position));
        (!problems.is_empty()).then_some(Self(problems))
    }

    pub fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// How many; at least one.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { "\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}

impl Problem {
    /// `file:line:col: path: message`, on one line, as a log takes it.
    pub fn headline(&self) -> String {
        let position = self.position;
        let place = position.map(|(line, column)| format!(":{line}:{column}"));
        let place = place.unwrap_or_default();
        let path = match self.path.as_str() {
            "" => String::new(),
            path => format!(": {path}"),
        };
        format!("{}{place}{path}: {}", self.file, self.message)
    }
}

/// The headline, then the source line with a caret below.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        match &self.excerpt {
            Some(excerpt) => write!(f, "\n{excerpt}"),
            None => Ok(()),
        }
    }
}

/// `a`, `b` or `c`.
pub fn one_of<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{}`", w.as_ref())).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The word of `known` that `given` is most likely meant to be; close ones only.
pub fn nearest<'a, S: AsRef<str>>(given: &str, known: &'a [S]) -> Option<&'a str> {
    // The distance costs length times length; nobody mistypes a word of 64 letters.
    let given: String = given.chars().take(64).collect::<String>().to_lowercase();
    let bound = (given.chars().count() / 3).max(1);
    known
        .iter()
        .map(|word| {
            (
                strsim::damerau_levenshtein(&given, &word.as_ref().to_lowercase()),
                word.as_ref(),
            )
        })
        .filter(|(distance, word)| *distance <= bound && *distance < word.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_close_or_absent() {
        let known = ["upstream", "policy", "key"];
        assert_eq!(nearest("upstraem", &known), Some("upstream"));
        assert_eq!(nearest("Policy", &known), Some("policy"));
        assert_eq!(nearest("listeners", &known), None);
        assert_eq!(nearest("", &known), None);
    }

    #[test]
    fn a_path_reads_as_it_is_written_in_code() {
        let p = path(&["plugins", "a.b"]).key("fetch").index(1);
        assert_eq!(p.to_string(), "plugins.\"a.b\".fetch[1]");
    }
}
