//! Tests of `cache::purge`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::cache::freshness::Freshness;
use crate::cache::key::KeyBuf;

fn marks(url: &str, tags: &[&str]) -> Marks {
    Marks {
        id: 7,
        identity: hash64(url.as_bytes()),
        route: hash64(b"pages"),
        tags: tags.iter().map(|t| hash64(t.as_bytes())).collect(),
        groups: [5].into(),
        url: url.into(),
    }
}

fn entry(marks: Marks, born: Order) -> Entry {
    let freshness = Freshness {
        received: Instant::now(),
        initial_age: Duration::ZERO,
        lifetime: Duration::from_secs(60),
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
        must_revalidate: false,
    };
    Entry::new(
        KeyBuf::default().to_key(),
        StatusCode::OK,
        HeaderMap::new(),
        Bytes::new(),
        freshness,
        marks,
        born,
    )
}

fn selectors() -> Vec<Selector> {
    vec![
        Selector::Key(KeyId(7)),
        Selector::Url(hash64(b"a.example/x/1")),
        Selector::Prefix("a.example/x/".into()),
        Selector::Prefix("/x".into()),
        Selector::Prefix("http://a.example/x".into()),
        Selector::Pattern(Pattern::new("/x/?")),
        Selector::Tag("t1".into()),
        Selector::Group(5),
        Selector::Route("pages".into()),
        Selector::All,
    ]
}

#[test]
fn every_selector_hides_what_was_born_before_it_and_not_what_came_after() {
    for selector in selectors() {
        let log = PurgeLog::new(100, Duration::ZERO);
        let old = entry(marks("a.example/x/1", &["t1"]), log.order());
        let other = entry(
            Marks {
                id: 8,
                url: "b.example/y".into(),
                ..Marks::default()
            },
            log.order(),
        );
        assert_eq!(log.judge(&old), Verdict::Visible);
        log.record(&selector, Kind::Hard);
        assert_eq!(log.judge(&old), Verdict::Hidden, "{selector:?}");
        let reaches_all = matches!(selector, Selector::All);
        assert_eq!(
            log.judge(&other) == Verdict::Hidden,
            reaches_all,
            "{selector:?} and another page"
        );
        assert_eq!(
            log.judge(&entry(marks("a.example/x/1", &["t1"]), log.order())),
            Verdict::Visible,
            "{selector:?}"
        );
    }
}

#[test]
fn a_soft_purge_marks_and_the_mark_stays_when_the_record_goes() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let old = entry(marks("a/1", &["t"]), log.order());
    log.record(&Selector::Tag("t".into()), Kind::Soft);
    assert_eq!(log.judge(&old), Verdict::Marked);
    for _ in 0..2 {
        let begun = log.begin_sweep();
        assert_eq!(log.judge(&old), Verdict::Marked);
        log.end_sweep(begun, Instant::now());
    }
    assert_eq!(log.records(), 0);
    assert_eq!(log.judge(&old), Verdict::Marked);
}

#[test]
fn a_doubt_that_is_cleared_leaves_one_that_lasts() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let old = entry(marks("a/1", &[]), log.order());
    let lasting = log.doubt(Lasts::ForGood);
    let between = entry(marks("a/2", &[]), log.order());
    let cleared = log.doubt(Lasts::UntilKnown);
    assert_eq!(log.judge(&between), Verdict::Doubted);
    log.trust(lasting);
    log.move_doubt(cleared, log.order() + 10);
    let moved = entry(marks("a/3", &[]), cleared);
    assert_eq!(log.judge(&moved), Verdict::Doubted);
    log.trust(cleared);
    for entry in [&between, &moved] {
        assert_eq!(log.judge(entry), Verdict::Visible);
    }
    assert_eq!(log.judge(&old), Verdict::Doubted);
}

#[test]
fn a_load_older_than_the_forgotten_records_is_not_admitted() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let born = log.order();
    log.record(&Selector::Tag("t".into()), Kind::Hard);
    for _ in 0..2 {
        log.end_sweep(log.begin_sweep(), Instant::now());
    }
    assert_eq!(log.records(), 0);
    let late = entry(marks("a/1", &["t"]), born);
    assert_eq!(
        log.judge(&late),
        Verdict::Hidden,
        "its record is gone, so it can't be judged"
    );
    assert!(log.hides(&late.marks, born));
}

#[test]
fn a_full_log_lets_the_older_half_go_and_hides_what_was_not_compared_with_it() {
    let log = PurgeLog::new(8, Duration::ZERO);
    let old = entry(marks("a/1", &["t0"]), log.order());
    let tag = |i: usize| Selector::Tag(format!("t{i}"));
    let purge = |range: std::ops::Range<usize>| {
        for i in range {
            log.record(&tag(i), Kind::Hard);
        }
    };
    purge(0..6);
    let young = entry(marks("b/1", &["u"]), log.order());
    let purged = entry(marks("b/2", &["t7"]), log.order());
    purge(6..10);
    assert!(log.records() <= 8);
    let hidden = |entry: &Entry| log.judge(entry) == Verdict::Hidden;
    assert!(hidden(&old), "the purge of t0 is not lost");
    assert!(hidden(&purged));
    assert!(!hidden(&young), "no purge reached it");
}

#[test]
fn purging_one_tag_again_and_again_keeps_one_record() {
    let log = PurgeLog::new(1_000, Duration::ZERO);
    for _ in 0..100 {
        log.record(&Selector::Tag("t".into()), Kind::Hard);
        log.record(&Selector::Prefix("/x".into()), Kind::Soft);
    }
    assert_eq!(log.records(), 2);
}

#[test]
fn a_purge_of_all_waits_for_the_sweep_like_every_other() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let old = entry(marks("a/1", &[]), log.order());
    log.record(&Selector::All, Kind::Hard);
    assert_eq!(log.records(), 1);
    for _ in 0..2 {
        let begun = log.begin_sweep();
        assert_eq!(log.judge(&old), Verdict::Hidden);
        log.end_sweep(begun, Instant::now());
    }
    assert_eq!(log.records(), 0);
    assert_eq!(log.judge(&old), Verdict::Hidden);
}

proptest! {
    /// The rule itself, against a plain list of everything that ever happened.
    #[test]
    fn visible_exactly_when_no_matching_purge_came_after_birth(steps in prop::collection::vec((0usize..9, any::<bool>(), 0u8..4), 1..40)) {
        let log = PurgeLog::new(1_000, Duration::ZERO);
        let mut alive: Vec<(Entry, bool, bool)> = Vec::new();
        for (which, hard, action) in steps {
            match action {
                0 => alive.push((entry(marks("a.example/x/1", &["t1"]), log.order()), false, false)),
                1 => {
                    let begun = log.begin_sweep();
                    alive.retain(|(e, ..)| log.judge(e) != Verdict::Hidden);
                    log.end_sweep(begun, Instant::now());
                }
                _ => {
                    log.record(&selectors()[which], if hard { Kind::Hard } else { Kind::Soft });
                    alive.iter_mut().for_each(|(_, hidden, marked)| if hard { *hidden = true } else { *marked = true });
                }
            }
            for (e, hidden, marked) in &alive {
                let want = match (hidden, marked) { (true, _) => Verdict::Hidden, (_, true) => Verdict::Marked, _ => Verdict::Visible };
                prop_assert_eq!(log.judge(e), want);
            }
        }
    }
}
