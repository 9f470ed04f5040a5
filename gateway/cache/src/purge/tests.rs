//! Tests of the purge log.

mod interleavings;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::freshness::Freshness;
use crate::key::KeyId;
use crate::key::{KeyBuf, hash64};
use crate::pattern::Pattern;

fn marks(url: &str, tags: &[&str]) -> PurgeAttributes {
    PurgeAttributes {
        id: 7,
        identity: hash64(url.as_bytes()),
        route: hash64(b"pages"),
        tags: tags.iter().map(|t| hash64(t.as_bytes())).collect(),
        groups: [5].into(),
        url: url.into(),
    }
}

fn entry(marks: PurgeAttributes, born: PurgeOrder) -> Entry {
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
            PurgeAttributes {
                id: 8,
                url: "b.example/y".into(),
                ..PurgeAttributes::default()
            },
            log.order(),
        );
        assert_eq!(log.judge(&old), EntryVisibility::Visible);
        log.record(&selector, PurgeKind::Hard);
        assert_eq!(log.judge(&old), EntryVisibility::Hidden, "{selector:?}");
        let reaches_all = matches!(selector, Selector::All);
        assert_eq!(
            log.judge(&other) == EntryVisibility::Hidden,
            reaches_all,
            "{selector:?} and another page"
        );
        assert_eq!(
            log.judge(&entry(marks("a.example/x/1", &["t1"]), log.order())),
            EntryVisibility::Visible,
            "{selector:?}"
        );
    }
}

#[test]
fn a_soft_purge_marks_and_the_mark_stays_when_the_record_goes() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let old = entry(marks("a/1", &["t"]), log.order());
    log.record(&Selector::Tag("t".into()), PurgeKind::Soft);
    assert_eq!(log.judge(&old), EntryVisibility::Marked);
    for _ in 0..2 {
        let begun = log.begin_sweep();
        assert_eq!(log.judge(&old), EntryVisibility::Marked);
        log.end_sweep(begun, Instant::now());
    }
    assert_eq!(log.records(), 0);
    assert_eq!(log.judge(&old), EntryVisibility::Marked);
}

/// A copy from the second tier is compared with all purges at once.
#[test]
fn the_stale_windows_count_from_the_first_of_several_soft_purges() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let (marks, born) = (marks("a/1", &["t"]), log.order());
    let soft = |selector: &Selector| log.record(selector, PurgeKind::Soft);
    soft(&Selector::Url(marks.identity));
    let (between, now) = (log.order(), Instant::now());
    for _ in 0..3 {
        soft(&Selector::Tag("t".into()));
        soft(&Selector::Url(marks.identity));
        soft(&Selector::All);
    }
    let since = |born| {
        let copy = entry(marks.clone(), born);
        assert_eq!(log.judge(&copy), EntryVisibility::Marked);
        copy.stale_since().unwrap()
    };
    assert!(since(born) <= now && since(between) >= now);
    // The second place that the log of all nodes gives the first purge.
    log.record_numbered(
        PurgeInitiator::Operator,
        &Selector::Url(marks.identity),
        PurgeKind::Soft,
        1,
    );
    assert!(since(born) <= now && since(between) >= now);
}

#[test]
fn a_doubt_that_is_cleared_leaves_one_that_lasts() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let old = entry(marks("a/1", &[]), log.order());
    let lasting = log.doubt(DoubtDuration::ForGood);
    let between = entry(marks("a/2", &[]), log.order());
    let cleared = log.doubt(DoubtDuration::UntilKnown);
    assert_eq!(log.judge(&between), EntryVisibility::Doubted);
    log.trust(lasting);
    log.move_doubt(cleared, PurgeOrder::new(log.order().value() + 10));
    let moved = entry(marks("a/3", &[]), cleared);
    assert_eq!(log.judge(&moved), EntryVisibility::Doubted);
    log.trust(cleared);
    for entry in [&between, &moved] {
        assert_eq!(log.judge(entry), EntryVisibility::Visible);
    }
    assert_eq!(log.judge(&old), EntryVisibility::Doubted);
}

#[test]
fn a_load_older_than_the_forgotten_records_is_not_admitted() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let born = log.order();
    log.record(&Selector::Tag("t".into()), PurgeKind::Hard);
    for _ in 0..2 {
        log.end_sweep(log.begin_sweep(), Instant::now());
    }
    assert_eq!(log.records(), 0);
    let late = entry(marks("a/1", &["t"]), born);
    assert_eq!(
        log.judge(&late),
        EntryVisibility::Hidden,
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
            log.record(&tag(i), PurgeKind::Hard);
        }
    };
    purge(0..6);
    let young = entry(marks("b/1", &["u"]), log.order());
    let purged = entry(marks("b/2", &["t7"]), log.order());
    purge(6..10);
    assert!(log.records() <= 8);
    let hidden = |entry: &Entry| log.judge(entry) == EntryVisibility::Hidden;
    assert!(hidden(&old), "the purge of t0 is not lost");
    assert!(hidden(&purged));
    assert!(!hidden(&young), "no purge reached it");
}

#[test]
fn purging_one_tag_again_and_again_keeps_one_record() {
    let log = PurgeLog::new(1_000, Duration::ZERO);
    for _ in 0..100 {
        log.record(&Selector::Tag("t".into()), PurgeKind::Hard);
        log.record(&Selector::Prefix("/x".into()), PurgeKind::Soft);
    }
    assert_eq!(log.records(), 2);
}

#[test]
fn a_purge_of_all_waits_for_the_sweep_like_every_other() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let old = entry(marks("a/1", &[]), log.order());
    log.record(&Selector::All, PurgeKind::Hard);
    assert_eq!(log.records(), 1);
    for _ in 0..2 {
        let begun = log.begin_sweep();
        assert_eq!(log.judge(&old), EntryVisibility::Hidden);
        log.end_sweep(begun, Instant::now());
    }
    assert_eq!(log.records(), 0);
    assert_eq!(log.judge(&old), EntryVisibility::Hidden);
}

/// Guards against invalidations that leave records or hide more than they name.
#[test]
fn one_million_invalidations_leave_no_record_and_reach_what_they_name_alone() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let pages: Vec<Entry> = (0..1_000)
        .map(|n| entry(marks(&format!("a/kept/{n}"), &[]), log.order()))
        .collect();
    let named = entry(marks("a/named", &[]), log.order());
    pages.iter().chain([&named]).for_each(|page| log.hold(page));
    for n in 0..1_000_000_u64 {
        log.invalidate(&[n.wrapping_mul(0x9e37_79b9_7f4a_7c15)]);
    }
    log.invalidate(&[named.marks.identity]);
    assert_eq!(log.records(), 0);
    assert!(
        pages
            .iter()
            .all(|page| log.judge(page) == EntryVisibility::Visible)
    );
    assert_eq!(log.judge(&named), EntryVisibility::Hidden);
    let again = entry(named.marks.clone(), log.order());
    assert_eq!(log.judge(&again), EntryVisibility::Visible);
}

/// The same for URLs that are all held once, as for a client that gets and posts ever new URLs.
#[test]
fn cells_of_what_nobody_holds_any_more_go() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let kept = entry(marks("a/kept", &[]), log.order());
    log.hold(&kept);
    for n in 0..300_000 {
        let page = entry(marks(&format!("a/{n}"), &[]), log.order());
        log.hold(&page);
        assert_eq!(log.judge(&page), EntryVisibility::Visible);
        log.invalidate(&[page.marks.identity]);
        assert_eq!(log.judge(&page), EntryVisibility::Hidden);
    }
    assert!(log.stamps.cells() < 20_000, "{}", log.stamps.cells());
    assert_eq!(log.judge(&kept), EntryVisibility::Visible);
}

#[test]
fn an_invalidation_reaches_a_load_whose_group_was_not_known_yet() {
    let log = PurgeLog::new(100, Duration::ZERO);
    let born = log.order();
    log.invalidate(&[5]);
    assert!(log.hides(&marks("a/1", &[]), born));
    assert_eq!(
        log.judge(&entry(marks("a/1", &[]), born)),
        EntryVisibility::Hidden
    );
}

#[test]
fn requests_push_out_nothing_that_an_operator_purged() {
    let limits = config::PurgeLogConfig {
        max_records: 8,
        max_request_records: 8,
        max_patterns: 4,
        ..config::PurgeLogConfig::default()
    };
    let log = PurgeLog::alone(&limits);
    let page = |url: &str, tag: &str| entry(marks(url, &[tag]), log.order());
    let (kept, purged) = (page("a.example/kept", "kept"), page("a.example/b", "t"));
    let reached = page("a.example/user/7/x", "u7");
    log.record(&Selector::Tag("t".into()), PurgeKind::Hard);
    for n in 0..1_000 {
        let selectors = [
            Selector::Tag(format!("u{n}")),
            Selector::Prefix(format!("a.example/user/{n}/")),
            Selector::Pattern(Pattern::new(&format!("a.example/user/{n}/*/x"))),
        ];
        for selector in selectors {
            log.record_by(PurgeInitiator::Request, &selector, PurgeKind::Hard);
        }
    }
    assert!(log.records() <= 1 + 8 + 1, "{}", log.records());
    assert_eq!(log.judge(&purged), EntryVisibility::Hidden);
    assert_eq!(
        log.judge(&reached),
        EntryVisibility::Hidden,
        "folded, not lost"
    );
    assert_eq!(log.judge(&kept), EntryVisibility::Visible);
}

#[test]
fn the_oldest_pattern_becomes_the_beginning_that_it_has() {
    let limits = config::PurgeLogConfig {
        max_patterns: 2,
        ..config::PurgeLogConfig::default()
    };
    let log = PurgeLog::alone(&limits);
    let page = |url: &str| entry(marks(url, &[]), log.order());
    let old = [
        page("a.example/x/1/y"),
        page("a.example/z/1/y"),
        page("a.example/x/2"),
    ];
    for n in 0..3 {
        let pattern = Pattern::new(&format!("a.example/x/*/{}", ["y", "q", "r"][n]));
        for _ in 0..2 {
            log.record(&Selector::Pattern(pattern.clone()), PurgeKind::Hard);
        }
    }
    assert_eq!(log.records(), 3, "two patterns and a beginning");
    let verdicts = old.each_ref().map(|page| log.judge(page));
    assert_eq!(
        verdicts,
        [
            EntryVisibility::Hidden,
            EntryVisibility::Visible,
            EntryVisibility::Hidden
        ]
    );
    for pattern in ["*/q", "*/r", "*/s"] {
        log.record(&Selector::Pattern(Pattern::new(pattern)), PurgeKind::Hard);
    }
    assert_eq!(
        log.judge(&old[1]),
        EntryVisibility::Hidden,
        "what might be anything is everything"
    );
}

/// The work of a look-up is counted, not timed.
#[test]
fn the_work_of_a_hit_does_not_grow_with_the_number_of_purges() {
    let work = |purges: usize| {
        let limits = config::PurgeLogConfig {
            max_records: 1_000_000,
            max_request_records: 1_000_000,
            ..config::PurgeLogConfig::default()
        };
        let log = PurgeLog::alone(&limits);
        let page = entry(marks("shop.example/catalogue/1?x=1", &["t"]), log.order());
        for n in 0..purges {
            let prefixes = [format!("shop.example/user-{n:06}/"), format!("/u/{n:06}/")];
            for prefix in prefixes {
                log.record_by(
                    PurgeInitiator::Request,
                    &Selector::Prefix(prefix),
                    PurgeKind::Hard,
                );
            }
            log.record(&Selector::Tag(format!("t{n}")), PurgeKind::Hard);
        }
        let (verdict, first) = steps::of(|| log.judge(&page));
        assert_eq!(verdict, EntryVisibility::Visible);
        let (_, second) = steps::of(|| log.judge(&page));
        // A stream of purges: each hit looks only at the new ones.
        log.record(
            &Selector::Prefix("shop.example/other/".into()),
            PurgeKind::Hard,
        );
        let (_, third) = steps::of(|| log.judge(&page));
        (first, second, third)
    };
    let few = work(10);
    assert_eq!(few, work(100_000));
    assert!(few.0 < 20, "{few:?}");
    assert_eq!((few.1, few.2), (0, 1));
}

/// Guards against a walk over all patterns at each look-up.
#[test]
fn a_pattern_is_compared_with_an_entry_once() {
    let log = PurgeLog::new(1_000, Duration::ZERO);
    let page = entry(marks("a.example/1", &[]), log.order());
    for n in 0..200 {
        let pattern = Pattern::new(&format!("b.example/*/{n}"));
        log.record(&Selector::Pattern(pattern), PurgeKind::Hard);
    }
    let (_, first) = steps::of(|| log.judge(&page));
    log.record(&Selector::Pattern(Pattern::new("c*d")), PurgeKind::Hard);
    let (_, second) = steps::of(|| log.judge(&page));
    assert_eq!((first, second), (200, 1));
}

/// A step of the model: something that happens to a log.
#[derive(Clone, Debug)]
enum Step {
    Load(usize),
    Sweep,
    Purge(PurgeInitiator, String, PurgeKind),
    Invalidate(usize),
}

const URLS: [&str; 5] = ["a.x/", "a.x/b", "a.x/b/c", "b.x/b", "b.x/bb?q"];

fn a_step() -> impl Strategy<Value = Step> {
    let selector = prop_oneof![
        "prefix:(a.x|b.x|)(/|/b|/b/c|)",
        "prefix:http://(a.x|b.x)/b?",
        "pattern:(a.x|\\*|)/(b|\\*|\\?|b\\*|\\*c)(\\*|\\?q)?",
        "tag:t[0-4]",
        "route:pages",
        Just("all".to_owned()),
    ];
    let author = prop_oneof![
        Just(PurgeInitiator::Operator),
        Just(PurgeInitiator::Request)
    ];
    let kind = prop_oneof![Just(PurgeKind::Hard), Just(PurgeKind::Soft)];
    prop_oneof![
        3 => (0..URLS.len()).prop_map(Step::Load),
        1 => Just(Step::Sweep),
        4 => (author, selector, kind).prop_map(|(author, text, kind)| Step::Purge(author, text, kind)),
        2 => (0..URLS.len()).prop_map(Step::Invalidate),
    ]
}

fn reaches(selector: &Selector, url: usize) -> bool {
    match selector {
        Selector::Prefix(prefix) => UrlSelector::beginning(prefix).matches(URLS[url]),
        Selector::Pattern(pattern) => UrlSelector::like(pattern).matches(URLS[url]),
        Selector::Tag(tag) => *tag == format!("t{url}"),
        Selector::Route(_) | Selector::All => true,
        Selector::Key(_) | Selector::Url(_) | Selector::Group(_) => unreachable!("not made here"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// Compares both ledgers and the invalidations with a plain list of everything that happened.
    /// When something had to be dropped, more may be hidden, but never less.
    #[test]
    fn the_log_says_what_a_list_of_all_purges_says(
        steps in prop::collection::vec(a_step(), 1..60),
        room in prop_oneof![Just(3_usize), Just(1_000)],
    ) {
        let limits = config::PurgeLogConfig {
            max_records: room,
            max_request_records: room,
            max_patterns: room,
            ..config::PurgeLogConfig::default()
        };
        let log = PurgeLog::alone(&limits);
        let mut alive: Vec<(Entry, usize, EntryVisibility)> = Vec::new();
        for step in steps {
            match step {
                Step::Load(url) => {
                    let marks = PurgeAttributes { id: url as u64, groups: Box::default(), ..marks(URLS[url], &[&format!("t{url}")]) };
                    let loaded = entry(marks, log.order());
                    log.hold(&loaded);
                    alive.push((loaded, url, EntryVisibility::Visible));
                }
                Step::Sweep => {
                    let begun = log.begin_sweep();
                    alive.retain(|(e, ..)| log.judge(e) != EntryVisibility::Hidden);
                    log.end_sweep(begun, Instant::now());
                }
                Step::Purge(author, text, kind) => {
                    let selector: Selector = text.parse().unwrap();
                    log.record_by(author, &selector, kind);
                    for (_, url, wanted) in &mut alive {
                        if reaches(&selector, *url) && *wanted != EntryVisibility::Hidden {
                            *wanted = if kind == PurgeKind::Hard { EntryVisibility::Hidden } else { EntryVisibility::Marked };
                        }
                    }
                }
                Step::Invalidate(url) => {
                    log.invalidate(&[hash64(URLS[url].as_bytes())]);
                    alive.iter_mut().filter(|(_, u, _)| *u == url).for_each(|(.., wanted)| *wanted = EntryVisibility::Hidden);
                }
            }
            for (e, url, wanted) in &alive {
                let (said, loose) = (log.judge(e), room < 1_000);
                let more = loose && (said == EntryVisibility::Hidden || *wanted == EntryVisibility::Visible && said == EntryVisibility::Marked);
                prop_assert!(said == *wanted || more, "{}: {:?}, not {:?}", URLS[*url], said, wanted);
                prop_assert!(log.hides(&e.marks, e.born) || *wanted == EntryVisibility::Visible);
            }
        }
    }
}

proptest! {
    /// Compares the basic rule with a plain list of everything that ever happened.
    #[test]
    fn visible_exactly_when_no_matching_purge_came_after_birth(steps in prop::collection::vec((0usize..9, any::<bool>(), 0u8..4), 1..40)) {
        let log = PurgeLog::new(1_000, Duration::ZERO);
        let mut alive: Vec<(Entry, bool, bool)> = Vec::new();
        for (which, hard, action) in steps {
            match action {
                0 => alive.push((entry(marks("a.example/x/1", &["t1"]), log.order()), false, false)),
                1 => {
                    let begun = log.begin_sweep();
                    alive.retain(|(e, ..)| log.judge(e) != EntryVisibility::Hidden);
                    log.end_sweep(begun, Instant::now());
                }
                _ => {
                    log.record(&selectors()[which], if hard { PurgeKind::Hard } else { PurgeKind::Soft });
                    alive.iter_mut().for_each(|(_, hidden, marked)| if hard { *hidden = true } else { *marked = true });
                }
            }
            for (e, hidden, marked) in &alive {
                let want = match (hidden, marked) { (true, _) => EntryVisibility::Hidden, (_, true) => EntryVisibility::Marked, _ => EntryVisibility::Visible };
                prop_assert_eq!(log.judge(e), want);
            }
        }
    }
}

/// A response that was kept elsewhere knows no purge that came after it was made.
#[test]
fn what_another_cache_has_kept_is_as_old_as_its_age_says() {
    let log = PurgeLog::new(100, Duration::ZERO);
    log.record(&Selector::Tag("t1".into()), PurgeKind::Hard);
    let purged = Instant::now();
    let page = || marks("a.example/x/1", &["t1"]);
    let judged = |age: u64, after: u64| {
        // A little later, so that what was made after the purge was not made at the same moment.
        let at = purged + Duration::from_millis(1_000 * after + 50);
        let order = log.order_of_kept(log.order(), Duration::from_secs(age), at);
        log.judge(&entry(page(), log.order()).knowing(order))
    };
    use EntryVisibility::{Hidden, Visible};
    for (age, after, seen) in [
        (0, 0, Hidden),
        (0, 2, Visible),
        (3_600, 0, Hidden),
        (3_600, 1_800, Hidden),
        (2, 2, Hidden),
        (2, 4, Visible),
        // Loaded in the second of the purge: for a while it may be from before.
        (4, 4, Hidden),
        (10, 10, Visible),
        (11, 10, Hidden),
    ] {
        assert_eq!(
            judged(age, after),
            seen,
            "age {age}, {after} s after the purge"
        );
    }
    let other = log.order_of_kept(log.order(), Duration::from_secs(60), purged);
    let other = entry(marks("a.example/y", &["t2"]), log.order()).knowing(other);
    assert_eq!(log.judge(&other), Visible);
    // Once a purge is forgotten nothing of that age can be judged, and it is as of an origin.
    let sweep = || log.end_sweep(log.begin_sweep(), Instant::now());
    sweep();
    sweep();
    assert_eq!(judged(3_600, 1_800), Visible);
}
