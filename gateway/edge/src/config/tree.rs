//! A YAML value whose parts know their place in the text.
//!
//! Built by [`super::parser`], changed by [`super::expand`], read by [`super::de`].

use super::problem::{Path, Step};

/// A place in the text: line and column from 1, in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    pub line: usize,
    pub column: usize,
    /// Characters on that line that belong to it.
    pub width: usize,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    pub at: Mark,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A text, number, truth value or nothing; which of them the reader's type and the quoting decide.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scalar {
    pub text: String,
    /// Written without quotes, so it may be a number.
    pub plain: bool,
    /// A variable was put in; then the type that is wanted decides what it is.
    pub expanded: bool,
}

#[derive(Clone, Debug)]
pub struct Key {
    pub name: String,
    pub at: Mark,
}

impl Node {
    /// The places of the value and of the key at `path`; of the nearest ancestor if there is no such node.
    pub fn find(&self, path: &Path) -> (Mark, Mark) {
        let (mut node, mut key) = (self, self.at);
        for step in &path.0 {
            let next = match (step, &node.body) {
                (Step::Key(name), Body::Map(entries)) => entries
                    .iter()
                    .find(|(k, _)| k.name == *name)
                    .map(|(k, v)| (v, k.at)),
                (Step::Index(n), Body::List(items)) => items.get(*n).map(|item| (item, item.at)),
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
    pub fn node(&self, path: &Path) -> Option<&Self> {
        path.0
            .iter()
            .try_fold(self, |node, step| match (step, &node.body) {
                (Step::Key(name), _) => node.get(name),
                (Step::Index(n), Body::List(items)) => items.get(*n),
                (Step::Index(_), _) => None,
            })
    }

    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match &self.body {
            Body::Map(entries) => entries.iter().find(|(k, _)| k.name == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Nodes and bytes, the price of copying.
    pub fn weight(&self) -> usize {
        match &self.body {
            Body::Scalar(s) => 1 + s.text.len(),
            Body::List(items) => 1 + items.iter().map(Self::weight).sum::<usize>(),
            Body::Map(entries) => {
                1 + entries
                    .iter()
                    .map(|(k, v)| 1 + k.name.len() + v.weight())
                    .sum::<usize>()
            }
        }
    }
}

/// Something missing inside a block is best shown at the key that opens the block.
fn key_or_own(node: &Node, key: Mark) -> Mark {
    match node.body {
        Body::Scalar(_) => node.at,
        Body::List(_) | Body::Map(_) => key,
    }
}
