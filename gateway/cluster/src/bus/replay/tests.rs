//! Which events are accepted once, and which are not accepted at all.

use super::*;
use crate::bus::event::EventShape;
use crate::bus::event::PublisherNumber;

/// When the node of these tests began.
const BEGAN: u64 = 1_700_000_000_000;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

struct Ear {
    replays: ReplayGuard,
    now: Instant,
}

impl Ear {
    fn new(guarantee: Guarantee) -> Self {
        Self::with(guarantee, EarlierPurges::MeanNothing)
    }

    fn with(guarantee: Guarantee, earlier_purges: EarlierPurges) -> Self {
        let rules = ReplayRules {
            guarantee,
            tolerance: Duration::from_secs(5),
            sources: 3,
            earlier_purges,
        };
        Self {
            replays: ReplayGuard::new(rules, BEGAN),
            now: Instant::now(),
        }
    }

    /// Receives an event of `source` this many milliseconds after the beginning.
    fn hears(&mut self, at: u64, event: &BusEvent) -> Result<(), ReplayRefusal> {
        let moment = ArrivalTime {
            clock: BEGAN + at,
            now: self.now + Duration::from_millis(at),
        };
        let ours = event.ours.as_ref().unwrap();
        self.replays.admit(event, ours, moment).map(drop)
    }
}

fn event(source: &str, boot: u64, made: u64, purges: u64, message: Message) -> BusEvent {
    BusEvent {
        id: String::new(),
        source: source.to_owned(),
        namespace: None,
        ts: made,
        shape: EventShape::inert(),
        ours: Some(NodePayload {
            boot,
            purges: PublisherNumber::new(purges),
            sequence: made,
            message,
        }),
    }
}

/// An event made this many milliseconds after the beginning, which is also its number.
fn word(source: &str, boot: u64, made: u64) -> BusEvent {
    let of = String::new();
    let message = Message::Applied { of, order: 1 };
    event(source, boot, BEGAN + made, 4, message)
}

fn purge(boot: u64, made: u64, number: u64) -> BusEvent {
    let message = Message::Purge {
        selector: "all".to_owned(),
        soft: false,
        receipt: false,
    };
    event("a", boot, BEGAN + made, number, message)
}

#[test]
fn a_word_is_taken_once_and_reordered_within_a_window() {
    for guarantee in [Guarantee::AtMostOnce, Guarantee::Durable] {
        let mut ear = Ear::new(guarantee);
        for made in [100, 103, 101, 102] {
            assert_eq!(ear.hears(200, &word("a", 1, made)), Ok(()), "{made}");
        }
        for made in 100..104 {
            let again = ear.hears(300, &word("a", 1, made));
            assert_eq!(again, Err(ReplayRefusal::Replayed), "{made}");
        }
        assert_eq!(
            ear.hears(300, &word("a", 1, 99)),
            Err(ReplayRefusal::Replayed)
        );
    }
}

#[test]
fn a_life_that_is_over_says_nothing_more() {
    let mut ear = Ear::new(Guarantee::AtMostOnce);
    assert_eq!(ear.hears(200, &word("a", 1, 100)), Ok(()));
    assert_eq!(ear.hears(400, &word("a", 2, 300)), Ok(()));
    for made in [100, 200, 300] {
        let again = ear.hears(500, &word("a", 1, made));
        assert_eq!(again, Err(ReplayRefusal::EarlierLife), "{made}");
    }
    let unheard = ear.hears(500, &purge(3, 250, 1));
    assert_eq!(
        unheard,
        Err(ReplayRefusal::EarlierLife),
        "a life of long ago"
    );
    assert_eq!(ear.hears(500, &word("a", 2, 301)), Ok(()));
}

/// Two processes with one name are logged elsewhere, but the purges of neither may disappear.
#[test]
fn two_processes_with_one_name_are_both_heard() {
    let mut ear = Ear::new(Guarantee::AtMostOnce);
    for n in 1..20 {
        assert_eq!(ear.hears(20 * n, &word("a", n % 2, 20 * n)), Ok(()));
        assert_eq!(ear.hears(20 * n, &purge(n % 2, 20 * n + 1, 4 + n)), Ok(()));
    }
}

#[test]
fn what_was_said_before_this_node_began_is_not_taken() {
    let mut ear = Ear::new(Guarantee::Durable);
    let before = |event: &BusEvent| BusEvent {
        ts: BEGAN - 6 * SECOND,
        ..event.clone()
    };
    for event in [word("a", 1, 1), purge(1, 1, 1)] {
        assert_eq!(ear.hears(1, &before(&event)), Err(ReplayRefusal::TooOld));
    }
    let mut ear = Ear::with(Guarantee::Durable, EarlierPurges::Count);
    assert_eq!(ear.hears(1, &before(&purge(1, 1, 1))), Ok(()));
    assert_eq!(
        ear.hears(1, &before(&word("a", 1, 1))),
        Err(ReplayRefusal::TooOld)
    );
}

#[test]
fn words_are_of_the_moment_and_purges_may_come_late() {
    let mut ear = Ear::new(Guarantee::Durable);
    assert_eq!(
        ear.hears(HOUR, &word("a", 1, SECOND)),
        Err(ReplayRefusal::TooOld)
    );
    assert_eq!(ear.hears(HOUR, &purge(1, SECOND, 1)), Ok(()));
    let ahead = ear.hears(SECOND, &word("a", 1, HOUR));
    assert_eq!(ahead, Err(ReplayRefusal::Ahead));
}

#[test]
fn a_purge_is_taken_once_in_any_order_after_the_first() {
    for guarantee in [Guarantee::AtMostOnce, Guarantee::Durable] {
        let mut ear = Ear::new(guarantee);
        for number in [5, 9, 7, 6, 8] {
            assert_eq!(ear.hears(200, &purge(1, 100, number)), Ok(()), "{number}");
        }
        for number in 1..10 {
            let again = ear.hears(300, &purge(1, 100, number));
            assert_eq!(again, Err(ReplayRefusal::Replayed), "{number}");
        }
    }
}

#[test]
fn purges_that_were_counted_before_the_first_word_are_not_to_come() {
    let mut ear = Ear::new(Guarantee::AtMostOnce);
    assert_eq!(ear.hears(200, &word("a", 1, 100)), Ok(()));
    assert_eq!(
        ear.hears(200, &purge(1, 90, 4)),
        Err(ReplayRefusal::Replayed)
    );
    assert_eq!(ear.hears(200, &purge(1, 90, 5)), Ok(()));
}

/// A broker keeps the purges of earlier lives.
#[test]
fn a_durable_transport_brings_purges_of_an_earlier_life_once() {
    let mut ear = Ear::new(Guarantee::Durable);
    assert_eq!(ear.hears(200, &word("a", 9, 150)), Ok(()));
    for number in [3, 4] {
        assert_eq!(ear.hears(200, &purge(1, 100, number)), Ok(()));
        let again = ear.hears(200, &purge(1, 100, number));
        assert_eq!(again, Err(ReplayRefusal::Replayed));
    }
    assert_eq!(
        ear.hears(200, &word("a", 1, 100)),
        Err(ReplayRefusal::EarlierLife)
    );
    assert_eq!(ear.hears(200, &word("a", 9, 151)), Ok(()));
}

#[test]
fn what_was_not_applied_may_come_again() {
    let mut ear = Ear::new(Guarantee::Durable);
    for event in [purge(1, 1, 1), word("a", 1, 1)] {
        assert_eq!(ear.hears(1, &event), Ok(()));
        ear.replays.retract(&TakenNumber {
            source: "a".to_owned(),
            boot: 1,
            number: EventNumber::of(event.ours.as_ref().unwrap()),
        });
        assert_eq!(ear.hears(1, &event), Ok(()));
        assert_eq!(ear.hears(1, &event), Err(ReplayRefusal::Replayed));
    }
}

#[test]
fn sources_and_their_lives_are_bounded() {
    let mut ear = Ear::new(Guarantee::Durable);
    for n in 1..1_000 {
        let name = format!("n{n}");
        assert_eq!(ear.hears(n, &word(&name, 1, n)), Ok(()));
        assert_eq!(ear.hears(n, &word("a", n, n)), Ok(()));
        assert_eq!(ear.hears(n, &purge(1_000 + n, 1, 1)), Ok(()));
    }
    assert_eq!(ear.replays.sources.len(), 3);
    let lives = ear
        .replays
        .sources
        .values()
        .map(|source| source.lives.len());
    assert!(lives.max() <= Some(LIVES));
}
