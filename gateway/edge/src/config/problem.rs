//! What is wrong with a configuration, described so that a person can correct it.
//!
//! A [`ConfigFinding`] has a path and a message. When its position in the text is known, it becomes
//! a [`ConfigProblem`] with file, line, column and source line. Secrets are never shown:
//! [`super::excerpt`] masks the line.

use std::fmt;

use super::excerpt::{excerpt, excerpt_of_key, inside};
use super::secret_text::without_secrets;
use super::sources::{self, ConfigSources};
use super::tree::{YamlNode, YamlPosition};

/// One step of the path to a value: `routes[2].match` has three.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigPathStep {
    Key(String),
    Index(usize),
}

/// The path to a value from the top of the file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ConfigPath(pub Vec<ConfigPathStep>);

/// Something wrong at a path; `place` tells which part of the text it is about.
#[derive(Clone, Debug)]
pub struct ConfigFinding {
    pub path: ConfigPath,
    pub place: FindingPlace,
    pub message: String,
}

/// Which part of the text a finding points at.
#[derive(Clone, Copy, Debug)]
pub enum FindingPlace {
    /// The key that is the last step of the path.
    Key,
    /// Like `Key`, for an unknown key. Its value is not shown, since it may be a secret under a
    /// misspelt name.
    UnknownKey,
    /// The value at the end of the path.
    Value,
    /// A position that is already known.
    At(YamlPosition),
    /// The source with this number as a whole.
    Source(usize),
}

/// One thing that is wrong, with its place.
#[derive(Clone, Debug)]
pub struct ConfigProblem {
    /// The file name as it was given.
    pub file: String,
    /// Line and column, from 1; absent if the file as a whole is meant.
    pub position: Option<(usize, usize)>,
    /// The path to the key, as in `routes[2].upstream`; empty at the top.
    pub path: String,
    /// What is wrong, what is expected, and the nearest known word.
    pub message: String,
    excerpt: Option<String>,
    /// The number of the file among the sources: problems are listed file by file.
    source: usize,
}

/// The most findings that are kept. If there are more, the rest is left out.
pub const MAX_FINDINGS: usize = 100;

/// All that is wrong with a configuration (the first hundred); never empty.
#[derive(Clone, Debug)]
pub struct ConfigProblems(Vec<ConfigProblem>);

impl ConfigPath {
    pub fn key(&self, name: impl Into<String>) -> Self {
        self.with(ConfigPathStep::Key(name.into()))
    }

    pub fn index(&self, n: usize) -> Self {
        self.with(ConfigPathStep::Index(n))
    }

    fn with(&self, step: ConfigPathStep) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The path that reads like this, as in `listeners[0].tls.default`; without quotes.
    pub fn read(text: &str) -> Self {
        let mut path = Self::default();
        for piece in text.split('.') {
            let mut parts = piece.split(['[', ']']).filter(|part| !part.is_empty());
            path = parts
                .next()
                .map_or_else(|| path.clone(), |key| path.key(key));
            path = parts
                .filter_map(|number| number.parse().ok())
                .fold(path, |path, n| path.index(n));
        }
        path
    }

    /// Whether the path leads to a secret, whose value must not be repeated.
    pub fn is_secret(&self) -> bool {
        matches!(self.0.last(), Some(ConfigPathStep::Key(name)) if super::secret::resembles_secret_name(name))
    }
}

/// The path of a chain of keys that are known in the code.
pub fn path(keys: &[&str]) -> ConfigPath {
    ConfigPath(
        keys.iter()
            .map(|k| ConfigPathStep::Key((*k).to_owned()))
            .collect(),
    )
}

impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                ConfigPathStep::Index(n) => write!(f, "[{n}]")?,
                ConfigPathStep::Key(name) => {
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

impl ConfigFinding {
    /// A finding about the value at `path`.
    pub fn value(path: ConfigPath, message: impl Into<String>) -> Self {
        Self {
            path,
            place: FindingPlace::Value,
            message: message.into(),
        }
    }

    /// A finding about the last key of `path`.
    pub fn key(path: ConfigPath, message: impl Into<String>) -> Self {
        Self {
            path,
            place: FindingPlace::Key,
            message: message.into(),
        }
    }

    /// A finding about the last key of `path`, which is unknown.
    pub fn unknown_key(path: ConfigPath, message: impl Into<String>) -> Self {
        Self {
            place: FindingPlace::UnknownKey,
            ..Self::key(path, message)
        }
    }

    /// A finding at a known position.
    pub fn at(mark: YamlPosition, message: impl Into<String>) -> Self {
        Self {
            path: ConfigPath::default(),
            place: FindingPlace::At(mark),
            message: message.into(),
        }
    }

    /// A finding about the main file as a whole.
    pub fn file(message: impl Into<String>) -> Self {
        Self::source(sources::MAIN, message)
    }

    /// A finding about the source with this number as a whole.
    pub fn source(number: usize, message: impl Into<String>) -> Self {
        Self {
            path: ConfigPath::default(),
            place: FindingPlace::Source(number),
            message: message.into(),
        }
    }

    /// The finding with the position that it has in this tree, which may then change.
    pub fn pinned(mut self, root: &YamlNode) -> Self {
        if let Some(mark) = self.mark(Some(root)) {
            self.place = FindingPlace::At(mark);
        }
        self
    }

    /// The finding below a path.
    pub fn below(mut self, path: &ConfigPath) -> Self {
        self.path = ConfigPath([path.0.clone(), self.path.0].concat());
        self
    }

    /// Adds the nearest known word as a question.
    pub fn near(mut self, nearest: Option<&str>) -> Self {
        if let Some(word) = nearest {
            self.message.push_str(&format!("; did you mean `{word}`?"));
        }
        self
    }

    fn mark(&self, root: Option<&YamlNode>) -> Option<YamlPosition> {
        match self.place {
            FindingPlace::At(mark) => Some(mark),
            FindingPlace::Source(_) => None,
            FindingPlace::Value => root.map(|node| node.find(&self.path).0),
            FindingPlace::Key | FindingPlace::UnknownKey => {
                root.map(|node| node.find(&self.path).1)
            }
        }
    }

    /// The finding with its position in the source where it stands.
    pub fn locate(self, sources: &ConfigSources, root: Option<&YamlNode>) -> ConfigProblem {
        let mark = self.mark(root);
        let number = match (mark, self.place) {
            (Some(mark), _) => mark.source,
            (None, FindingPlace::Source(number)) => number,
            (None, _) => sources::MAIN,
        };
        let (file, text) = sources.name_and_text(number);
        let mark = mark.map(|mark| inside(text, mark));
        let excerpt_of = match self.place {
            FindingPlace::UnknownKey => excerpt_of_key,
            FindingPlace::Key
            | FindingPlace::Value
            | FindingPlace::At(_)
            | FindingPlace::Source(_) => excerpt,
        };
        ConfigProblem {
            file: file.to_owned(),
            position: mark.map(|m| (m.line, m.column)),
            excerpt: mark.and_then(|mark| excerpt_of(text, mark)),
            path: self.path.to_string(),
            message: without_secrets(&self.message),
            source: number,
        }
    }
}

impl ConfigProblems {
    /// Collects problems, sorted by file and position. `None` if there are none.
    pub fn new(mut problems: Vec<ConfigProblem>) -> Option<Self> {
        problems.sort_by_key(|p| (p.position.is_none(), p.source, p.position));
        (!problems.is_empty()).then_some(Self(problems))
    }

    pub fn one(problem: ConfigProblem) -> Self {
        Self(vec![problem])
    }

    pub fn iter(&self) -> std::slice::Iter<'_, ConfigProblem> {
        self.0.iter()
    }

    /// The number of problems; at least one.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl std::error::Error for ConfigProblems {}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { "\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}

impl ConfigProblem {
    /// `file:line:col: path: message` on one line, for logs.
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

/// The headline, then the source line with a caret below it.
impl fmt::Display for ConfigProblem {
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

/// The word of `known` that `given` most likely stands for, if one is close enough.
pub fn nearest<'a, S: AsRef<str>>(given: &str, known: &'a [S]) -> Option<&'a str> {
    // The cost grows with the square of the length, and a misspelt word is shorter than 64 letters.
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
        for text in ["listeners[0].tls.certificates[12].key", "acme", ""] {
            assert_eq!(ConfigPath::read(text).to_string(), text);
        }
    }
}
