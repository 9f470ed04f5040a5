//! The text form of a manifest, for `lamina plugin check`.

use std::fmt;

use super::manifest::{HeaderNeed, KeyNeeds, QueryNeed};
use super::names::NamePattern;
use super::reads::DeclaredReads;

impl fmt::Display for KeyNeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = [
            ("method", self.method),
            ("host", self.host),
            ("path", self.path),
            ("the whole query", self.query == QueryNeed::Whole),
        ];
        let whole = whole.into_iter().filter(|(_, needed)| *needed);
        let mut words: Vec<String> = whole.map(|(word, _)| word.to_owned()).collect();
        if let QueryNeed::Parameters(names) = &self.query {
            words.extend(named("parameters", names));
        }
        words.extend(named("headers", &self.headers));
        words.extend(named("cookies", &self.cookies));
        listed(f, &words)
    }
}

impl fmt::Display for DeclaredReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = named("headers", &self.headers).into_iter().collect();
        words.extend(named("cookies", &self.cookies));
        listed(f, &words)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl fmt::Display for HeaderNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name.as_str()),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// For example `headers accept, x-*`; none if there are no names.
fn named<T: fmt::Display>(what: &str, names: &[T]) -> Option<String> {
    let names: Vec<String> = names.iter().map(T::to_string).collect();
    (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
}

fn listed(f: &mut fmt::Formatter<'_>, words: &[String]) -> fmt::Result {
    match words.is_empty() {
        true => f.write_str("nothing"),
        false => f.write_str(&words.join("; ")),
    }
}
