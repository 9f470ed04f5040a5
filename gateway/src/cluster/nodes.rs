//! The other nodes: who was heard of, when, and how many of its purges.
//!
//! Each publisher counts its purges, and every event of its tells how many there are.
//! Pure: `now` is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The nodes that were heard of lately.
#[derive(Default)]
pub struct Nodes {
    known: HashMap<String, Node>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    boot: u64,
    /// Its purges that came here, or are known to be missing.
    purges: u64,
    pub heard: Instant,
    /// By its own word; none before its first heartbeat.
    pub state: Option<State>,
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub healthy: bool,
    pub version: String,
}

/// What a count of purges tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Nothing is missing.
    Whole,
    /// It was not heard before, and has purged: how much of that matters here is unknown.
    Stranger,
    /// From this number on some did not come.
    Hole(u64),
    /// It was known to be missing, or came already.
    Late,
}

impl Arrival {
    /// The first number that did not come.
    pub fn first_missing(self) -> Option<u64> {
        match self {
            Self::Whole | Self::Late => None,
            Self::Stranger => Some(1),
            Self::Hole(first) => Some(first),
        }
    }
}

/// After this silence a node is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Nodes at most; more are not told apart from none.
const NODES: usize = 10_000;

impl Nodes {
    /// A purge with this number came.
    pub fn purged(&mut self, source: &str, boot: u64, number: u64, now: Instant) -> Arrival {
        let before = number.saturating_sub(1);
        let Some((node, is_new)) = self.node(source, boot, now) else {
            return Arrival::Stranger;
        };
        let known = node.purges;
        node.purges = known.max(number);
        match known {
            known if known == before => Arrival::Whole,
            known if known > before => Arrival::Late,
            _ if is_new => Arrival::Stranger,
            known => Arrival::Hole(known + 1),
        }
    }

    /// An event came that says how many purges there were before it.
    pub fn counted(&mut self, source: &str, boot: u64, purges: u64, now: Instant) -> Arrival {
        let Some((node, is_new)) = self.node(source, boot, now) else {
            return Arrival::Stranger;
        };
        let known = node.purges;
        node.purges = known.max(purges);
        match known < purges {
            true if is_new => Arrival::Stranger,
            true => Arrival::Hole(known + 1),
            false => Arrival::Whole,
        }
    }

    /// A sign of life that tells no count.
    pub fn heard(&mut self, source: &str, boot: u64, now: Instant) {
        let _ = self.node(source, boot, now);
    }

    /// What a node said of itself.
    pub fn stated(&mut self, source: &str, state: State) {
        if let Some(node) = self.known.get_mut(source) {
            node.state = Some(state);
        }
    }

    /// The node, and whether this is the first word of this life of it.
    fn node(&mut self, source: &str, boot: u64, now: Instant) -> Option<(&mut Node, bool)> {
        let mut is_new = !self.known.contains_key(source);
        if is_new && self.known.len() >= NODES {
            self.forget(now);
            if self.known.len() >= NODES {
                return None;
            }
        }
        let node = self.known.entry(source.to_owned()).or_insert(Node {
            boot,
            purges: 0,
            heard: now,
            state: None,
        });
        if node.boot != boot {
            node.boot = boot;
            node.purges = 0;
            is_new = true;
        }
        node.heard = now;
        Some((node, is_new))
    }

    fn forget(&mut self, now: Instant) {
        self.known
            .retain(|_, node| now.saturating_duration_since(node.heard) < FORGOTTEN);
    }

    /// All that were heard of lately, by name.
    pub fn list(&mut self, now: Instant) -> Vec<(String, Node)> {
        self.forget(now);
        let mut list: Vec<_> = self
            .known
            .iter()
            .map(|(name, node)| (name.clone(), node.clone()))
            .collect();
        list.sort_by(|(one, _), (other, _)| one.cmp(other));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_in_the_numbers_is_seen_once() {
        let (mut nodes, now) = (Nodes::default(), Instant::now());
        assert_eq!(nodes.purged("a", 1, 1, now), Arrival::Whole);
        assert_eq!(nodes.purged("a", 1, 4, now), Arrival::Hole(2));
        assert_eq!(nodes.purged("a", 1, 3, now), Arrival::Late);
        assert_eq!(nodes.purged("a", 1, 5, now), Arrival::Whole);
        assert_eq!(nodes.counted("a", 1, 5, now), Arrival::Whole);
        assert_eq!(nodes.counted("a", 1, 6, now), Arrival::Hole(6));
        assert_eq!(nodes.counted("a", 1, 6, now), Arrival::Whole);
    }

    #[test]
    fn another_life_counts_from_its_beginning() {
        let (mut nodes, now) = (Nodes::default(), Instant::now());
        nodes.purged("a", 1, 1, now);
        assert_eq!(nodes.counted("a", 2, 0, now), Arrival::Whole);
        assert_eq!(nodes.purged("a", 2, 1, now), Arrival::Whole);
        assert_eq!(nodes.counted("a", 3, 2, now), Arrival::Stranger);
        assert_eq!(nodes.counted("a", 3, 3, now), Arrival::Hole(3));
    }

    #[test]
    fn a_silent_node_is_forgotten() {
        let (mut nodes, now) = (Nodes::default(), Instant::now());
        nodes.heard("a", 1, now);
        assert_eq!(nodes.list(now).len(), 1);
        assert!(nodes.list(now + FORGOTTEN).is_empty());
    }
}
