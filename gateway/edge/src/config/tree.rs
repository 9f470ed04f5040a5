//! A YAML value whose parts know their place in the text.
//!
//! Built by [`super::parser`], changed by [`super::expand`], read by [`super::de`].

use super::problem::{ConfigPath, ConfigPathStep};

/// A place in the text: line and column from 1, in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct YamlPosition {
    pub line: usize,
    pub column: usize,
    /// Characters on that line that belong to it.
    pub width: usize,
}

/// A value and its place.
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

/// A text, number, truth value or nothing; which of them the reader's type and the quoting decide.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct YamlScalar {
    pub text: String,
    /// Written without quotes, so it may be a number.
    pub plain: bool,
    /// A variable was put in; then the type that is wanted decides what it is.
    pub expanded: bool,
}

#[derive(Clone, Debug)]
pub struct YamlKey {
    pub name: String,
    pub at: YamlPosition,
}

impl YamlNode {
    /// The places of the value and of the key at `path`; of the nearest ancestor if there is no such node.
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

    /// Nodes and bytes, the price of copying.
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

/// Something missing inside a block is best shown at the key that opens the block.
fn key_or_own(node: &YamlNode, key: YamlPosition) -> YamlPosition {
    match node.body {
        YamlValue::Scalar(_) => node.at,
        YamlValue::List(_) | YamlValue::Map(_) => key,
    }
}
