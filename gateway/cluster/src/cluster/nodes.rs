//! The other nodes: which were heard, when, and how many of their purges came.
//!
//! Each publisher counts its purges, and each of its events carries the count. Where events are not
//! authenticated, any program can publish any number under any name. Therefore a number is never
//! trusted permanently: if it jumps further ahead than a publisher could publish again, or stays
//! below what was known some seconds ago, the history of the node counts as lost, and the count
//! continues from that number. A number that is a little lower is that of an event which purges
//! overtook.
//!
//! Pure: `now` is an argument. Invariant: names take a bounded amount of memory, and names that are
//! not authenticated are accepted at a bounded rate.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::inheritance::{HeardPublisher, NodeLife};
use super::orders::HeardPurges;
use crate::bus::event::PublisherNumber;
use crate::bus::inbox::EventTrust;

/// The nodes that were heard lately.
pub struct NodeTable {
    known: HashMap<String, PeerNode>,
    most: usize,
    forget_after: Duration,
    /// How many more names that are not authenticated may be accepted now.
    room: f64,
    /// The time up to which `room` is computed.
    counted: Option<Instant>,
}

/// The sender of an event.
#[derive(Clone, Copy, Debug)]
pub struct SendingNode<'a> {
    pub source: &'a str,
    pub boot: u64,
    pub trust: EventTrust,
}

/// One other node.
#[derive(Clone, Debug)]
pub struct PeerNode {
    boot: u64,
    /// Its purges that were received here, or are known to be missing.
    purges: PublisherNumber,
    /// How many it had published when it was first heard in this life of it.
    unheard: PublisherNumber,
    /// Other lives of it, of which the last one may go on: two processes speak under one name while
    /// one takes the place of the other.
    others: Vec<PeerLife>,
    /// `settled` is what `purges` was some time ago (between [`OVERTAKEN`] and twice as long).
    /// `looked` is what it was at the last look, and the time of that look.
    settled: PublisherNumber,
    looked: (PublisherNumber, Instant),
    /// A count of its purges that are still to come over a durable transport, and since when they
    /// are waited for.
    claimed: Option<(PublisherNumber, Instant)>,
    pub heard: Instant,
    /// What it says of itself; none before its first heartbeat.
    pub state: Option<NodeState>,
    /// It announced that it leaves, and was not heard since.
    has_left: bool,
    /// The life of it that asked last for heartbeats, which it does when it begins to hear the bus.
    asked: Option<u64>,
}

/// What was heard of another life of a node.
#[derive(Clone, Copy, Debug)]
struct PeerLife {
    boot: u64,
    purges: PublisherNumber,
    unheard: PublisherNumber,
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeState {
    pub healthy: bool,
    pub version: String,
}

/// What a count of purges means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeCountVerdict {
    /// Nothing is missing.
    Whole,
    /// The node was not heard before, and has purged: how much of that matters here is unknown.
    Stranger,
    /// From this number on, purges did not come.
    Hole(PublisherNumber),
    /// The purge was known to be missing, or had come already.
    Late,
    /// Its numbers went back, or jumped further ahead than it can publish again: nothing is known
    /// of what it purged before.
    Lost,
    /// There are too many nodes, or too many new ones, to remember this one.
    Crowd,
}

impl PurgeCountVerdict {
    /// The first number that did not come.
    pub fn first_missing(self) -> Option<PublisherNumber> {
        match self {
            Self::Whole | Self::Late | Self::Lost | Self::Crowd => None,
            Self::Stranger => Some(PublisherNumber::FIRST),
            Self::Hole(first) => Some(first),
        }
    }
}

/// Whether a durable transport has delivered what it kept while this node was away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeptDelivery {
    UnderWay,
    CaughtUp,
}

/// How many names that are not authenticated are accepted at once, and how many a second.
const CROWD: f64 = 256.0;
const CROWD_PER_SECOND: f64 = 4.0;
/// An event that purges overtook comes at most this much later.
const OVERTAKEN: Duration = Duration::from_secs(5);
/// The most lives of a node that are remembered beside the one that speaks.
const OTHER_LIVES: usize = 3;
/// The most purges that a publisher can publish again.
const HISTORY: u64 = 10_000;

impl NodeTable {
    /// Remembers at most `most` nodes, each for `forget_after` after it was last heard.
    pub fn new(most: usize, forget_after: Duration) -> Self {
        Self {
            known: HashMap::new(),
            most: most.max(1),
            forget_after,
            room: CROWD,
            counted: None,
        }
    }

    /// A purge with this number came.
    pub fn purged(
        &mut self,
        who: SendingNode<'_>,
        number: PublisherNumber,
        now: Instant,
    ) -> PurgeCountVerdict {
        let before = number.before();
        let Some((node, is_new)) = self.node(who, now) else {
            return crowd(before);
        };
        if is_new {
            node.unheard = before;
        }
        let known = node.purges;
        node.purges = known.max(number);
        match known {
            known if known == before => PurgeCountVerdict::Whole,
            known if known > before => PurgeCountVerdict::Late,
            _ if is_new => PurgeCountVerdict::Stranger,
            known if before.since(known) > HISTORY => PurgeCountVerdict::Lost,
            known => PurgeCountVerdict::Hole(known.next()),
        }
    }

    /// An event came that carries the number of purges published before it.
    pub fn counted(
        &mut self,
        who: SendingNode<'_>,
        purges: PublisherNumber,
        now: Instant,
    ) -> PurgeCountVerdict {
        let Some((node, is_new)) = self.node(who, now) else {
            return crowd(purges);
        };
        if is_new {
            node.unheard = purges;
        }
        let known = node.purges;
        if known.since(purges).max(purges.since(known)) > HISTORY || purges < node.settled(now) {
            node.begin(purges, now);
            return match is_new {
                true => PurgeCountVerdict::Stranger,
                false => PurgeCountVerdict::Lost,
            };
        }
        node.purges = known.max(purges);
        match known < purges {
            true if is_new => PurgeCountVerdict::Stranger,
            true => PurgeCountVerdict::Hole(known.next()),
            false => PurgeCountVerdict::Whole,
        }
    }

    /// An event came over a durable transport that carries the number of purges published before
    /// it, and may have overtaken them. Purges that still have not come some seconds later, though
    /// the transport has nothing left for this node, never will: its broker lost them. What a node
    /// published before it was first heard may have come to an earlier life of this one.
    pub fn claimed(
        &mut self,
        who: SendingNode<'_>,
        purges: PublisherNumber,
        delivery: KeptDelivery,
        now: Instant,
    ) -> PurgeCountVerdict {
        let Some((node, is_new)) = self.node(who, now) else {
            return PurgeCountVerdict::Whole;
        };
        if is_new {
            node.purges = purges;
        }
        if purges.since(node.purges) > HISTORY {
            node.begin(purges, now);
            return PurgeCountVerdict::Lost;
        }
        if delivery == KeptDelivery::UnderWay || purges <= node.purges {
            node.claimed = None;
            return PurgeCountVerdict::Whole;
        }
        match node.claimed {
            Some((claimed, since)) if claimed > node.purges => {
                if now.saturating_duration_since(since) < OVERTAKEN {
                    return PurgeCountVerdict::Whole;
                }
                let first = node.purges.next();
                node.purges = claimed;
                node.claimed = None;
                PurgeCountVerdict::Hole(first)
            }
            _ => {
                node.claimed = Some((purges, now));
                PurgeCountVerdict::Whole
            }
        }
    }

    /// The node announced that it leaves: nobody waits for it until it is heard again.
    pub fn left(&mut self, source: &str) {
        if let Some(node) = self.known.get_mut(source) {
            node.has_left = true;
        }
    }

    /// A life of a node asked for heartbeats.
    pub fn asked(&mut self, who: SendingNode<'_>) {
        if let Some(node) = self.known.get_mut(who.source) {
            node.asked = Some(who.boot);
        }
    }

    /// Whether that life was the last one of its node that asked.
    pub fn has_asked(&self, life: &NodeLife) -> bool {
        let node = self.known.get(&life.source);
        node.is_some_and(|node| node.asked == Some(life.boot))
    }

    /// Notes what a node says of itself.
    pub fn stated(&mut self, source: &str, state: NodeState) {
        if let Some(node) = self.known.get_mut(source) {
            node.state = Some(state);
        }
    }

    /// The node, and whether this is the first event of this life of it.
    fn node(&mut self, who: SendingNode<'_>, now: Instant) -> Option<(&mut PeerNode, bool)> {
        let SendingNode { source, boot, .. } = who;
        let mut is_new = !self.known.contains_key(source);
        if is_new && !self.has_room(who.trust, now) {
            return None;
        }
        let node = self.known.entry(source.to_owned()).or_insert(PeerNode {
            boot,
            purges: PublisherNumber::ZERO,
            unheard: PublisherNumber::ZERO,
            others: Vec::new(),
            settled: PublisherNumber::ZERO,
            looked: (PublisherNumber::ZERO, now),
            claimed: None,
            heard: now,
            state: None,
            has_left: false,
            asked: None,
        });
        if node.boot != boot {
            is_new = !node.goes_on_with(boot, now);
        }
        node.heard = now;
        node.has_left = false;
        Some((node, is_new))
    }

    fn has_room(&mut self, trust: EventTrust, now: Instant) -> bool {
        if self.known.len() >= self.most {
            self.forget(now);
        }
        if self.known.len() >= self.most {
            return false;
        }
        if trust == EventTrust::Sealed {
            return true;
        }
        let since = self.counted.map(|then| now.saturating_duration_since(then));
        let more = since.unwrap_or_default().as_secs_f64() * CROWD_PER_SECOND;
        self.room = (self.room + more).min(CROWD);
        self.counted = Some(now);
        let has_room = self.room >= 1.0;
        self.room -= f64::from(u8::from(has_room));
        has_room
    }

    fn forget(&mut self, now: Instant) {
        let forget_after = self.forget_after;
        self.known
            .retain(|_, node| now.saturating_duration_since(node.heard) < forget_after);
    }

    /// How many purges of each publisher were received here, or are known to be missing.
    pub fn heard(&self) -> HeardPurges {
        let lives = |(name, node): (&String, &PeerNode)| {
            let name = name.clone();
            let lives = node.lives().collect::<Vec<_>>().into_iter();
            lives.map(move |life| (name.clone(), life.boot, life.purges))
        };
        self.known.iter().flat_map(lives).collect()
    }

    /// Goes on with the counts of another process of this node. Returns whether each purge came to
    /// one of the two, so far as that can be known.
    pub fn inherit(&mut self, heard: &[HeardPublisher], now: Instant) -> bool {
        let counts = heard.iter();
        let counts: HashMap<_, _> = counts
            .map(|of| ((of.source.as_str(), of.boot), of.purges))
            .collect();
        let is_whole = self.known.iter().all(|(source, node)| {
            node.lives().all(|life| {
                let known = counts.get(&(source.as_str(), life.boot)).copied();
                life.unheard <= known.unwrap_or_default()
            })
        });
        for of in heard {
            let who = SendingNode {
                source: &of.source,
                boot: of.boot,
                trust: EventTrust::Sealed,
            };
            match self.known.get_mut(&of.source) {
                Some(node) => node.inherit(of.boot, of.purges),
                None => {
                    if let Some((node, _)) = self.node(who, now) {
                        node.begin(of.purges, now);
                    }
                }
            }
        }
        is_whole
    }

    /// All nodes that were heard lately and have not left, by name.
    pub fn list(&mut self, now: Instant) -> Vec<(String, PeerNode)> {
        self.forget(now);
        let mut list: Vec<_> = self
            .known
            .iter()
            .filter(|(_, node)| !node.has_left)
            .map(|(name, node)| (name.clone(), node.clone()))
            .collect();
        list.sort_by(|(one, _), (other, _)| one.cmp(other));
        list
    }
}

impl PeerNode {
    fn lives(&self) -> impl Iterator<Item = PeerLife> {
        let last = PeerLife {
            boot: self.boot,
            purges: self.purges,
            unheard: self.unheard,
        };
        self.others.iter().copied().chain([last])
    }

    /// Another life of it speaks. Returns whether that was heard before.
    fn goes_on_with(&mut self, boot: u64, now: Instant) -> bool {
        let known = self.others.iter().position(|life| life.boot == boot);
        let next = known.map(|at| self.others.remove(at));
        let lives = self.lives().collect();
        self.others = lives;
        self.bound();
        self.boot = boot;
        self.begin(next.map_or(PublisherNumber::ZERO, |life| life.purges), now);
        self.unheard = next.map_or(PublisherNumber::ZERO, |life| life.unheard);
        known.is_some()
    }

    /// Another process of our node has heard as many purges of this life.
    fn inherit(&mut self, boot: u64, purges: PublisherNumber) {
        if self.boot == boot {
            self.purges = self.purges.max(purges);
            return;
        }
        match self.others.iter_mut().find(|life| life.boot == boot) {
            Some(life) => life.purges = life.purges.max(purges),
            None => {
                let unheard = PublisherNumber::ZERO;
                self.others.push(PeerLife {
                    boot,
                    purges,
                    unheard,
                });
                self.bound();
            }
        }
    }

    fn bound(&mut self) {
        let over = self.others.len().saturating_sub(OTHER_LIVES);
        self.others.drain(..over);
    }

    /// Counts its purges from here on.
    fn begin(&mut self, purges: PublisherNumber, now: Instant) {
        self.purges = purges;
        self.settled = PublisherNumber::ZERO;
        self.looked = (purges, now);
        self.claimed = None;
    }

    /// What was known some time ago.
    fn settled(&mut self, now: Instant) -> PublisherNumber {
        let (seen, at) = self.looked;
        if now.saturating_duration_since(at) >= OVERTAKEN {
            self.settled = seen;
            self.looked = (self.purges, now);
        }
        self.settled
    }
}

/// The verdict on a count of a node that is not remembered. If it has not purged, nothing is
/// missing.
fn crowd(purges: PublisherNumber) -> PurgeCountVerdict {
    match purges {
        PublisherNumber::ZERO => PurgeCountVerdict::Whole,
        _ => PurgeCountVerdict::Crowd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORGOTTEN: Duration = Duration::from_secs(600);

    fn number(value: u64) -> PublisherNumber {
        PublisherNumber::new(value)
    }

    fn a(boot: u64) -> SendingNode<'static> {
        named("a", boot)
    }

    fn named(source: &str, boot: u64) -> SendingNode<'_> {
        SendingNode {
            source,
            boot,
            trust: EventTrust::Unsealed,
        }
    }

    #[test]
    fn who_leaves_in_words_is_not_known_until_it_says_something_again() {
        let (mut nodes, now) = (NodeTable::new(10, FORGOTTEN), Instant::now());
        nodes.purged(a(1), number(1), now);
        nodes.left("a");
        nodes.left("nobody");
        assert!(nodes.list(now).is_empty());
        assert_eq!(
            nodes.counted(a(1), number(1), now),
            PurgeCountVerdict::Whole,
            "its count is known"
        );
        assert_eq!(nodes.list(now).len(), 1);
        assert!(nodes.list(now + FORGOTTEN).is_empty());
    }

    #[test]
    fn a_hole_in_the_numbers_is_seen_once() {
        let (mut nodes, now) = (NodeTable::new(10, FORGOTTEN), Instant::now());
        assert_eq!(nodes.purged(a(1), number(1), now), PurgeCountVerdict::Whole);
        assert_eq!(
            nodes.purged(a(1), number(4), now),
            PurgeCountVerdict::Hole(number(2))
        );
        assert_eq!(nodes.purged(a(1), number(3), now), PurgeCountVerdict::Late);
        assert_eq!(nodes.purged(a(1), number(5), now), PurgeCountVerdict::Whole);
        assert_eq!(
            nodes.counted(a(1), number(5), now),
            PurgeCountVerdict::Whole
        );
        assert_eq!(
            nodes.counted(a(1), number(6), now),
            PurgeCountVerdict::Hole(number(6))
        );
        assert_eq!(
            nodes.counted(a(1), number(6), now),
            PurgeCountVerdict::Whole
        );
    }

    #[test]
    fn another_life_counts_from_its_beginning() {
        let (mut nodes, now) = (NodeTable::new(10, FORGOTTEN), Instant::now());
        nodes.purged(a(1), number(1), now);
        assert_eq!(
            nodes.counted(a(2), number(0), now),
            PurgeCountVerdict::Whole
        );
        assert_eq!(nodes.purged(a(2), number(1), now), PurgeCountVerdict::Whole);
        assert_eq!(
            nodes.counted(a(3), number(2), now),
            PurgeCountVerdict::Stranger
        );
        assert_eq!(
            nodes.counted(a(3), number(3), now),
            PurgeCountVerdict::Hole(number(3))
        );
    }

    /// Both processes of a node speak while one takes the place of the other.
    #[test]
    fn two_lives_that_speak_in_turns_are_no_strangers() {
        let (mut nodes, now) = (NodeTable::new(10, FORGOTTEN), Instant::now());
        nodes.purged(a(1), number(1), now);
        for round in 0..3 {
            let of_new = nodes.counted(a(2), number(0), now);
            assert_eq!(of_new, PurgeCountVerdict::Whole, "{round}");
            let of_old = nodes.counted(a(1), number(1), now);
            assert_eq!(of_old, PurgeCountVerdict::Whole, "{round}");
        }
        let missed = nodes.counted(a(1), number(2), now);
        assert_eq!(missed, PurgeCountVerdict::Hole(number(2)));
        for boot in 3..20 {
            nodes.counted(a(boot), number(0), now);
        }
        assert_eq!(nodes.heard().len(), 1 + OTHER_LIVES);
    }

    /// Guards against a forged count that makes the holes of the real one invisible.
    #[test]
    fn a_count_that_leaps_is_not_believed_for_good() {
        let now = Instant::now();
        for leap in [HISTORY + 3, 1 << 35, 1 << 63, u64::MAX] {
            let mut nodes = NodeTable::new(10, FORGOTTEN);
            nodes.purged(a(1), number(1), now);
            assert_eq!(
                nodes.counted(a(1), number(leap), now),
                PurgeCountVerdict::Lost,
                "{leap}"
            );
            assert_eq!(
                nodes.counted(a(1), number(1), now),
                PurgeCountVerdict::Lost,
                "back again"
            );
            assert_eq!(
                nodes.counted(a(1), number(1), now),
                PurgeCountVerdict::Whole,
                "once"
            );
            assert_eq!(
                nodes.purged(a(1), number(leap), now),
                PurgeCountVerdict::Lost,
                "{leap}"
            );
            assert_eq!(nodes.counted(a(1), number(1), now), PurgeCountVerdict::Lost);
            assert_eq!(
                nodes.purged(a(1), number(3), now),
                PurgeCountVerdict::Hole(number(2)),
                "seen as ever"
            );
        }
    }

    #[test]
    fn a_word_that_purges_overtook_tells_nothing() {
        let (mut nodes, mut now) = (NodeTable::new(10, FORGOTTEN), Instant::now());
        for count in 1..=1_000 {
            assert_eq!(
                nodes.purged(a(1), number(count), now),
                PurgeCountVerdict::Whole
            );
            let overtaken = nodes.counted(a(1), number(count.saturating_sub(3)), now);
            assert_eq!(overtaken, PurgeCountVerdict::Whole, "{count}");
            now += Duration::from_secs(1) / 10;
        }
    }

    #[test]
    fn a_count_that_leaps_a_little_is_corrected_after_a_while() {
        let (mut nodes, start) = (NodeTable::new(10, FORGOTTEN), Instant::now());
        nodes.purged(a(1), number(1), start);
        assert_eq!(
            nodes.counted(a(1), number(50), start),
            PurgeCountVerdict::Hole(number(2))
        );
        let later = |seconds| start + Duration::from_secs(seconds);
        let truth: Vec<_> = (0..20)
            .map(|second| nodes.counted(a(1), number(1), later(second)))
            .collect();
        let lost = truth
            .iter()
            .filter(|arrival| **arrival == PurgeCountVerdict::Lost);
        assert_eq!(lost.count(), 1, "{truth:?}");
        assert_eq!(
            nodes.counted(a(1), number(2), later(20)),
            PurgeCountVerdict::Hole(number(2))
        );
    }

    #[test]
    fn what_a_durable_broker_lost_is_missed_after_a_while() {
        let (mut nodes, start) = (NodeTable::new(10, FORGOTTEN), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let claims = |nodes: &mut NodeTable, purges, millis| {
            nodes.claimed(a(1), number(purges), KeptDelivery::CaughtUp, at(millis))
        };
        assert_eq!(claims(&mut nodes, 7, 0), PurgeCountVerdict::Whole, "new");
        assert_eq!(claims(&mut nodes, 9, 1_000), PurgeCountVerdict::Whole);
        assert_eq!(
            nodes.purged(a(1), number(8), at(1_500)),
            PurgeCountVerdict::Whole,
            "it was overtaken"
        );
        assert_eq!(claims(&mut nodes, 9, 5_900), PurgeCountVerdict::Whole);
        assert_eq!(
            claims(&mut nodes, 10, 6_100),
            PurgeCountVerdict::Hole(number(9))
        );
        assert_eq!(claims(&mut nodes, 10, 6_200), PurgeCountVerdict::Whole);
        let under_way = nodes.claimed(a(1), number(10), KeptDelivery::UnderWay, at(20_000));
        assert_eq!(under_way, PurgeCountVerdict::Whole, "it may still come");
        assert_eq!(claims(&mut nodes, 10, 20_100), PurgeCountVerdict::Whole);
        assert_eq!(
            nodes.purged(a(1), number(10), at(20_200)),
            PurgeCountVerdict::Whole
        );
        assert_eq!(claims(&mut nodes, 10, 40_000), PurgeCountVerdict::Whole);
        assert_eq!(claims(&mut nodes, 1 << 40, 41_000), PurgeCountVerdict::Lost);
    }

    #[test]
    fn a_silent_node_is_forgotten() {
        let (mut nodes, now) = (NodeTable::new(10, FORGOTTEN), Instant::now());
        nodes.counted(a(1), number(0), now);
        assert_eq!(nodes.list(now).len(), 1);
        assert!(nodes.list(now + FORGOTTEN).is_empty());
    }

    #[test]
    fn names_are_bounded_and_those_of_strangers_come_in_slowly() {
        let (mut nodes, now) = (NodeTable::new(1_000, FORGOTTEN), Instant::now());
        let crowd = |nodes: &mut NodeTable, from: u64, trust, now| {
            for n in from..from + 3_000 {
                let source = format!("n{n}");
                let who = SendingNode {
                    trust,
                    ..named(&source, 1)
                };
                nodes.counted(who, number(0), now);
            }
            nodes.list(now).len()
        };
        let first = crowd(&mut nodes, 0, EventTrust::Unsealed, now);
        assert_eq!(first, CROWD as usize);
        let later = now + Duration::from_secs(10);
        let second = crowd(&mut nodes, 10_000, EventTrust::Unsealed, later);
        assert_eq!(second, first + 10 * CROWD_PER_SECOND as usize);
        assert_eq!(
            nodes.counted(named("x", 1), number(5), later),
            PurgeCountVerdict::Crowd
        );
        assert_eq!(
            nodes.counted(named("x", 1), number(0), later),
            PurgeCountVerdict::Whole
        );
        assert_eq!(crowd(&mut nodes, 20_000, EventTrust::Sealed, later), 1_000);
    }
}
