//! A YAML value whose parts know their position: the file, and the place in its text.
//!
//! [`super::parser`] builds it, [`super::expand`] changes it, [`super::de`] reads it.

use super::problem::{ConfigPath, ConfigPathStep};

/// A position in a text: line and column from 1, in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct YamlPosition {
    /// The number of the text among [`super::sources::ConfigSources`].
    pub source: usize,
    pub line: usize,
    pub column: usize,
    /// The number of characters on that line that belong to it.
    pub width: usize,
}

/// A value and its position.
#[derive(Clone, Debug)]
pub struct YamlNode {
    pub at: YamlPosition,
    pub body: YamlValue,
}

#[derive(Clone, Debug)]
pub enum YamlValue {
    Scalar(YamlScalar),
    List(Vec<YamlNode>),
    /// In the order of the file.
    Map(Vec<(YamlKey, YamlNode)>),
}

/// A text, number, truth value or null. The type that is wanted and the quoting decide which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct YamlScalar {
    pub text: String,
    /// Whether it is written without quotes, so that it may be a number.
    pub plain: bool,
    /// Whether a variable was expanded in it; then the wanted type decides what it is.
    pub expanded: bool,
    /// The names of the variables that were expanded in it.
    pub variables: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct YamlKey {
    pub name: String,
    pub at: YamlPosition,
}

impl YamlNode {
    /// The positions of the value and of the key at `path`, or those of the nearest ancestor if
    /// there is no such node.
    pub fn find(&self, path: &ConfigPath) -> (YamlPosition, YamlPosition) {
        let (mut node, mut key) = (self, self.at);
        for step in &path.0 {
            let next = match (step, &node.body) {
                (ConfigPathStep::Key(name), YamlValue::Map(entries)) => entries
                    .iter()
                    .find(|(k, _)| k.name == *name)
                    .map(|(k, v)| (v, k.at)),
                (ConfigPathStep::Index(n), YamlValue::List(items)) => {
                    items.get(*n).map(|item| (item, item.at))
                }
                _ => None,
            };
            match next {
                Some((value, at)) => (node, key) = (value, at),
                None => return (key_or_own(node, key), key),
            }
        }
        (node.at, key)
    }

    /// The node at `path`.
    pub fn node(&self, path: &ConfigPath) -> Option<&Self> {
        path.0
            .iter()
            .try_fold(self, |node, step| match (step, &node.body) {
                (ConfigPathStep::Key(name), _) => node.get(name),
                (ConfigPathStep::Index(n), YamlValue::List(items)) => items.get(*n),
                (ConfigPathStep::Index(_), _) => None,
            })
    }

    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match &self.body {
            YamlValue::Map(entries) => entries.iter().find(|(k, _)| k.name == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The number of nodes and bytes: what a copy costs.
    pub fn weight(&self) -> usize {
        match &self.body {
            YamlValue::Scalar(s) => 1 + s.text.len(),
            YamlValue::List(items) => 1 + items.iter().map(Self::weight).sum::<usize>(),
            YamlValue::Map(entries) => {
                1 + entries
                    .iter()
                    .map(|(k, v)| 1 + k.name.len() + v.weight())
                    .sum::<usize>()
            }
        }
    }
}

/// Something missing inside a block is best shown at the key that begins the block.
fn key_or_own(node: &YamlNode, key: YamlPosition) -> YamlPosition {
    match node.body {
        YamlValue::Scalar(_) => node.at,
        YamlValue::List(_) | YamlValue::Map(_) => key,
    }
}
