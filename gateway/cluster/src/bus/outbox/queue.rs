//! The bounded queue of what waits to be published.
//!
//! Purges are never lost: a new purge is merged into a waiting one with the same selector, and when
//! too many wait, one purge of everything replaces them all. Purges that clients' requests caused
//! are counted separately and take no room from the operators' purges: when too many of them wait,
//! one event that everything is to be validated replaces them. When bytes run short, values are
//! dropped first, the oldest before the others.

use std::collections::{HashMap, VecDeque};

use crate::bus::event::{EventShape, Message};

/// Who caused a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueuedPurgeAuthor {
    Operator,
    /// A request of a client.
    Request,
}

/// A purge to be published.
#[derive(Clone, PartialEq, Debug)]
pub struct QueuedPurge {
    /// The selector as text, see `cache::purge`.
    pub selector: String,
    pub soft: bool,
    pub author: QueuedPurgeAuthor,
    /// What the event means to services that run `lazy-layers-cache`.
    pub shape: EventShape,
    /// Its place in the order of this node (the value of a `PurgeOrder`, which the bus passes on and
    /// does not know); the last place of several purges that were merged.
    pub order: u64,
    /// How many purges were merged into this one, including itself.
    pub count: u64,
    /// The event id under which receipts are awaited.
    pub receipt: Option<String>,
}

/// A value to be published. The event is made only when it leaves the queue, since it may be
/// dropped before.
pub struct QueuedValue {
    /// Bytes of memory that it holds while it waits.
    pub weight: usize,
    pub make: Box<dyn FnOnce() -> Option<Message> + Send>,
}

/// What was dropped or merged because there was no room.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct QueueOverflow {
    pub values: usize,
    /// The number of purges that became one purge of everything.
    pub widened: usize,
    /// The number of purges that became one event that everything is to be validated.
    pub doubted: usize,
    /// The number of answers and other small events that were dropped.
    pub words: usize,
}

/// The most answers and other small events that wait; beyond them the oldest is dropped. A request
/// that purges thousands of tags and waits gets an answer for each of them from each node.
const WORDS: usize = 1 << 16;
/// The most values that wait.
const VALUES: usize = 1_024;
/// The bytes of a purge in memory besides its texts.
const PURGE_COST: usize = 160;

/// The queue of what waits to be published.
pub struct OutboxQueue {
    /// By a running number; purges with the same selector wait as one.
    purges: HashMap<u64, QueuedPurge>,
    turns: VecDeque<u64>,
    by_selector: HashMap<(String, bool), u64>,
    next: u64,
    words: VecDeque<Message>,
    values: VecDeque<QueuedValue>,
    bytes: usize,
    by_requests: RequestPurgeShare,
    max_purges: usize,
    max_bytes: usize,
}

/// How much of the queue is taken by purges that requests caused.
#[derive(Default)]
struct RequestPurgeShare {
    purges: usize,
    bytes: usize,
}

impl OutboxQueue {
    pub fn new(max_purges: usize, max_bytes: usize) -> Self {
        Self {
            purges: HashMap::new(),
            turns: VecDeque::new(),
            by_selector: HashMap::new(),
            next: 0,
            words: VecDeque::new(),
            values: VecDeque::new(),
            bytes: 0,
            by_requests: RequestPurgeShare::default(),
            max_purges: max_purges.max(1),
            max_bytes,
        }
    }

    /// The number of purges that wait.
    pub fn purges(&self) -> usize {
        self.purges.len()
    }

    /// The number of small events that wait.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push_purge(&mut self, purge: QueuedPurge) -> QueueOverflow {
        let same = (purge.selector.clone(), purge.soft);
        if purge.receipt.is_none()
            && let Some(waiting) = self.by_selector.get(&same).copied()
            && let Some(waiting) = self.purges.get_mut(&waiting)
        {
            waiting.order = waiting.order.max(purge.order);
            waiting.count += purge.count;
            return QueueOverflow::default();
        }
        let mut dropped = self.make_room(cost(&purge));
        match (self.fits(&purge), purge.author) {
            (true, _) => self.insert(same, purge),
            (false, QueuedPurgeAuthor::Operator) => dropped.widened = self.widen(&purge),
            (false, QueuedPurgeAuthor::Request) => dropped.doubted = self.doubt(&purge),
        }
        dropped
    }

    /// Purges that requests caused have half of the room, and take none of the operators' room.
    fn fits(&self, purge: &QueuedPurge) -> bool {
        let (share, cost) = (&self.by_requests, cost(purge));
        match purge.author {
            QueuedPurgeAuthor::Request => {
                share.purges < self.max_purges.div_ceil(2)
                    && share.bytes + cost <= self.max_bytes / 2
            }
            QueuedPurgeAuthor::Operator => {
                self.purges.len() - share.purges < self.max_purges
                    && self.bytes - share.bytes + cost <= self.max_bytes
            }
        }
    }

    fn insert(&mut self, same: (String, bool), purge: QueuedPurge) {
        self.bytes += cost(&purge);
        if purge.author == QueuedPurgeAuthor::Request {
            self.by_requests.purges += 1;
            self.by_requests.bytes += cost(&purge);
        }
        self.by_selector.insert(same, self.next);
        self.turns.push_back(self.next);
        self.purges.insert(self.next, purge);
        self.next += 1;
    }

    /// Replaces all purges by one purge of everything. Receipts that are awaited for them do not
    /// come.
    fn widen(&mut self, last: &QueuedPurge) -> usize {
        let many = self.purges.len() + 1;
        let count: u64 = self.purges.values().map(|purge| purge.count).sum();
        self.bytes -= self.purges.values().map(cost).sum::<usize>();
        self.purges.clear();
        self.turns.clear();
        self.by_selector.clear();
        self.by_requests = RequestPurgeShare::default();
        let all = QueuedPurge {
            selector: "all".to_owned(),
            soft: false,
            author: QueuedPurgeAuthor::Operator,
            shape: EventShape::Pattern("*".to_owned()),
            order: last.order,
            count: count + last.count,
            receipt: None,
        };
        self.insert((all.selector.clone(), false), all);
        many
    }

    /// Replaces all purges that requests caused by one event that everything is to be validated.
    fn doubt(&mut self, last: &QueuedPurge) -> usize {
        let is_one = |purge: &QueuedPurge| purge.author == QueuedPurgeAuthor::Request;
        let mut turns: Vec<u64> = Vec::new();
        turns.extend(
            self.purges
                .iter()
                .filter(|(_, p)| is_one(p))
                .map(|(turn, _)| turn),
        );
        let mut count = last.count;
        for turn in &turns {
            count += self.take(*turn).map_or(0, |purge| purge.count);
        }
        self.turns.retain(|turn| self.purges.contains_key(turn));
        let doubt = QueuedPurge {
            selector: "doubt".to_owned(),
            soft: false,
            author: QueuedPurgeAuthor::Request,
            shape: EventShape::inert(),
            order: last.order,
            count,
            receipt: None,
        };
        self.insert((doubt.selector.clone(), false), doubt);
        turns.len() + 1
    }

    /// Removes a purge that waits.
    fn take(&mut self, turn: u64) -> Option<QueuedPurge> {
        let purge = self.purges.remove(&turn)?;
        self.bytes -= cost(&purge);
        if purge.author == QueuedPurgeAuthor::Request {
            self.by_requests.purges -= 1;
            self.by_requests.bytes -= cost(&purge);
        }
        let same = (purge.selector.clone(), purge.soft);
        if self.by_selector.get(&same) == Some(&turn) {
            self.by_selector.remove(&same);
        }
        Some(purge)
    }

    pub fn push_value(&mut self, value: QueuedValue) -> QueueOverflow {
        let mut dropped = QueueOverflow::default();
        if self.values.len() >= VALUES {
            self.drop_value();
            dropped.values += 1;
        }
        dropped.values += self.make_room(value.weight).values;
        if self.bytes + value.weight > self.max_bytes {
            dropped.values += 1;
            return dropped;
        }
        self.bytes += value.weight;
        self.values.push_back(value);
        dropped
    }

    fn make_room(&mut self, wanted: usize) -> QueueOverflow {
        let mut dropped = QueueOverflow::default();
        while self.bytes + wanted > self.max_bytes && self.drop_value() {
            dropped.values += 1;
        }
        dropped
    }

    fn drop_value(&mut self) -> bool {
        let value = self.values.pop_front();
        self.bytes -= value.as_ref().map_or(0, |value| value.weight);
        value.is_some()
    }

    pub fn push_word(&mut self, mut word: Message) -> QueueOverflow {
        let mut dropped = QueueOverflow::default();
        if let Message::Heartbeat { asks, .. } = &mut word {
            // The newest heartbeat replaces the others, and asks what they would have asked.
            self.words.retain(|earlier| match earlier {
                Message::Heartbeat { asks: asked, .. } => {
                    *asks |= asked;
                    false
                }
                _ => true,
            });
        }
        if self.words.len() >= WORDS {
            self.words.pop_front();
            dropped.words += 1;
        }
        self.words.push_back(word);
        dropped
    }

    /// Takes the next purge.
    pub fn pop_purge(&mut self) -> Option<QueuedPurge> {
        while let Some(turn) = self.turns.pop_front() {
            if let Some(purge) = self.take(turn) {
                return Some(purge);
            }
        }
        None
    }

    /// Takes the next small event. That this node leaves is said after all of its purges.
    pub fn pop_word(&mut self) -> Option<Message> {
        let purges = self.purges();
        let can_go = |word: &mut Message| *word != Message::Leaving || purges == 0;
        self.words.pop_front_if(can_go)
    }

    /// Takes the next value.
    pub fn pop_value(&mut self) -> Option<QueuedValue> {
        let value = self.values.pop_front()?;
        self.bytes -= value.weight;
        Some(value)
    }
}

fn cost(purge: &QueuedPurge) -> usize {
    2 * purge.selector.len() + PURGE_COST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(selector: &str, order: u64) -> QueuedPurge {
        QueuedPurge {
            selector: selector.to_owned(),
            soft: false,
            author: QueuedPurgeAuthor::Operator,
            shape: EventShape::Del {
                keys: vec![selector.to_owned()],
            },
            order,
            count: 1,
            receipt: None,
        }
    }

    fn value(weight: usize) -> QueuedValue {
        QueuedValue {
            weight,
            make: Box::new(|| None),
        }
    }

    fn drain(queue: &mut OutboxQueue) -> Vec<String> {
        let purges = std::iter::from_fn(|| queue.pop_purge());
        let purges = purges.map(|purge| format!("{}@{}", purge.selector, purge.order));
        let mut all: Vec<_> = purges.collect();
        all.extend(std::iter::from_fn(|| queue.pop_word()).map(|_| "word".to_owned()));
        all.extend(std::iter::from_fn(|| queue.pop_value()).map(|_| "value".to_owned()));
        all
    }

    #[test]
    fn purges_of_one_selector_wait_once_with_the_last_place_in_the_order() {
        let mut queue = OutboxQueue::new(10, 10_000);
        for (selector, order) in [("tag:a", 1), ("tag:b", 2), ("tag:a", 3)] {
            queue.push_purge(purge(selector, order));
        }
        assert_eq!(drain(&mut queue), ["tag:a@3", "tag:b@2"]);
        assert_eq!(queue.bytes(), 0);
        queue.push_purge(purge("tag:a", 4));
        assert_eq!(drain(&mut queue), ["tag:a@4"]);
    }

    #[test]
    fn a_heartbeat_asks_what_the_one_in_its_place_would_have_asked() {
        let beat = |asks| Message::Heartbeat {
            healthy: true,
            version: "1".to_owned(),
            asks,
        };
        let mut queue = OutboxQueue::new(10, 10_000);
        queue.push_word(beat(true));
        queue.push_word(beat(false));
        assert_eq!(queue.pop_word(), Some(beat(true)));
        assert_eq!(queue.pop_word(), None);
    }

    #[test]
    fn a_node_leaves_after_its_purges() {
        let mut queue = OutboxQueue::new(10, 10_000);
        queue.push_purge(purge("tag:a", 1));
        queue.push_word(Message::Leaving);
        assert_eq!(queue.pop_word(), None);
        assert!(queue.pop_purge().is_some());
        assert_eq!(queue.pop_word(), Some(Message::Leaving));
    }

    #[test]
    fn too_many_answers_are_told() {
        let answer = |order| Message::Applied {
            of: String::new(),
            order,
        };
        let mut queue = OutboxQueue::new(10, 10_000);
        for order in 0..WORDS as u64 {
            assert_eq!(queue.push_word(answer(order)), QueueOverflow::default());
        }
        assert_eq!(queue.push_word(answer(0)).words, 1);
        assert_eq!(queue.words(), WORDS);
        assert_eq!(queue.pop_word(), Some(answer(1)), "the oldest is gone");
    }

    #[test]
    fn a_purge_with_a_receipt_is_told_by_itself() {
        let mut queue = OutboxQueue::new(10, 10_000);
        queue.push_purge(purge("tag:a", 1));
        queue.push_purge(QueuedPurge {
            receipt: Some("id".to_owned()),
            ..purge("tag:a", 2)
        });
        assert_eq!(drain(&mut queue), ["tag:a@1", "tag:a@2"]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn too_many_purges_become_one_of_everything() {
        let mut queue = OutboxQueue::new(3, 10_000);
        for n in 1..=3 {
            queue.push_purge(purge(&format!("tag:{n}"), n));
        }
        let dropped = queue.push_purge(purge("tag:4", 4));
        assert_eq!(dropped.widened, 4);
        assert_eq!(drain(&mut queue), ["all@4"]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn what_requests_caused_takes_no_room_from_operators() {
        let mut queue = OutboxQueue::new(4, 10_000);
        let by_request = |n: u64| QueuedPurge {
            author: QueuedPurgeAuthor::Request,
            ..purge(&format!("by-request:tag:{n}"), n)
        };
        queue.push_purge(purge("tag:a", 1));
        for n in 2..100 {
            assert_eq!(queue.push_purge(by_request(n)).widened, 0);
        }
        for n in 100..103 {
            let dropped = queue.push_purge(purge(&format!("tag:{n}"), n));
            assert_eq!(dropped, QueueOverflow::default());
        }
        let left = drain(&mut queue);
        assert!(left.len() <= 6, "{left:?}");
        assert!(left.contains(&"tag:a@1".to_owned()), "{left:?}");
        assert!(left.iter().any(|one| one.starts_with("doubt@")), "{left:?}");
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn values_make_room_for_purges_and_go_after_them() {
        let mut queue = OutboxQueue::new(100, 1_000);
        for _ in 0..3 {
            queue.push_value(value(300));
        }
        let dropped = queue.push_purge(purge("tag:a", 1));
        assert_eq!((dropped.values, dropped.widened), (1, 0));
        queue.push_word(Message::Applied {
            of: String::new(),
            order: 1,
        });
        assert_eq!(drain(&mut queue), ["tag:a@1", "word", "value", "value"]);
        assert_eq!(queue.bytes(), 0);
    }
}
