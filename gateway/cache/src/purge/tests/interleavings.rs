//! What a look-up sees of purges that come while it is under way, and the other way round. A test says
//! at which moment the other thread acts.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::*;

const PAGE: &str = "a.example/1";

/// A log with a purge of the tag `earlier`, so that its ledgers are looked at.
fn log() -> Arc<PurgeLog> {
    let limits = config::PurgeLogConfig {
        max_records: 8,
        max_patterns: 2,
        ..config::PurgeLogConfig::default()
    };
    let log = PurgeLog::alone(&limits);
    log.record(&Selector::Tag("earlier".into()), PurgeKind::Hard);
    Arc::new(log)
}

fn page(log: &PurgeLog) -> Arc<Entry> {
    let page = Arc::new(entry(marks(PAGE, &["t"]), log.order()));
    assert_eq!(log.judge(&page), EntryVisibility::Visible);
    page
}

fn url() -> Selector {
    Selector::Url(hash64(PAGE.as_bytes()))
}

/// Two sweeps, of which the second one drops the records.
fn sweep_twice(log: &PurgeLog) {
    for _ in 0..2 {
        log.end_sweep(log.begin_sweep(), Instant::now());
    }
}

/// Judges a page that was purged, and looks at a load of it, while the records go for another reason.
#[track_caller]
fn is_not_missed(log: &Arc<PurgeLog>, page: &Entry, looks: usize, drop_records: fn(&PurgeLog)) {
    let later = Arc::clone(log);
    steps::interrupt(LedgerMoment::Look, looks, move || drop_records(&later));
    assert_eq!(log.judge(page), EntryVisibility::Hidden);
}

/// The same for a load that a request wants to follow.
#[track_caller]
fn is_not_followed(log: &Arc<PurgeLog>, page: &Entry, looks: usize, drop_records: fn(&PurgeLog)) {
    let later = Arc::clone(log);
    steps::interrupt(LedgerMoment::Look, looks, move || drop_records(&later));
    assert!(log.hides(&page.marks, page.born));
}

type Check = fn(&Arc<PurgeLog>, &Entry, usize, fn(&PurgeLog));

/// What drops the records of purges.
const WAYS_TO_DROP_RECORDS: [fn(&PurgeLog); 3] = [
    |log| {
        log.record(&Selector::All, PurgeKind::Hard);
    },
    sweep_twice,
    |log| {
        for n in 0..20 {
            log.record(&Selector::Tag(format!("other {n}")), PurgeKind::Hard);
        }
    },
];

#[test]
fn a_purge_is_not_missed_while_its_record_goes() {
    for drop_records in WAYS_TO_DROP_RECORDS {
        for check in [is_not_missed as Check, is_not_followed] {
            let log = log();
            let page = page(&log);
            log.record(&url(), PurgeKind::Hard);
            check(&log, &page, 1, drop_records);
        }
    }
}

#[test]
fn a_purge_by_a_request_is_not_missed_while_its_record_goes() {
    for drop_records in &WAYS_TO_DROP_RECORDS[..2] {
        for (looks, check) in [
            (1, is_not_missed as Check),
            (2, is_not_missed),
            (1, is_not_followed),
            (2, is_not_followed),
        ] {
            let log = log();
            let page = page(&log);
            log.record_by(PurgeInitiator::Request, &url(), PurgeKind::Hard);
            check(&log, &page, looks, *drop_records);
        }
    }
}

/// The other way round: at no moment of such a change is a purged page shown.
#[test]
fn a_purged_page_is_hidden_at_each_moment_in_which_records_go() {
    let by_pattern: fn(&PurgeLog) = |log| {
        for pattern in ["b*b", "b*c", "b*d"] {
            log.record(&Selector::Pattern(Pattern::new(pattern)), PurgeKind::Hard);
        }
    };
    let purge_by_pattern = Selector::Pattern(Pattern::new("*1"));
    let ways = WAYS_TO_DROP_RECORDS.iter().map(|way| (url(), *way));
    for (purge, drop_records) in ways.chain([(purge_by_pattern, by_pattern)]) {
        for moment in 1.. {
            let log = log();
            let page = page(&log);
            log.record(&purge, PurgeKind::Hard);
            let (looked, seen) = (Rc::new(Cell::new(false)), Arc::clone(&log));
            let (done, purged) = (Rc::clone(&looked), Arc::clone(&page));
            steps::interrupt(LedgerMoment::Replaced, moment, move || {
                assert_eq!(seen.judge(&purged), EntryVisibility::Hidden, "{moment}");
                done.set(true);
            });
            drop_records(&log);
            assert_eq!(log.judge(&page), EntryVisibility::Hidden);
            if !looked.get() {
                assert!(moment > 1, "a record was dropped");
                break;
            }
        }
    }
}

#[test]
fn a_doubt_that_ends_during_a_look_up_leaves_nothing_unseen() {
    let log = log();
    let page = page(&log);
    let doubt = log.doubt(DoubtDuration::UntilKnown);
    log.record(&Selector::Tag("other".into()), PurgeKind::Hard);
    let later = Arc::clone(&log);
    // The operators' records were looked at when the purge that had been missed becomes known.
    steps::interrupt(LedgerMoment::Look, 2, move || {
        later.record(&url(), PurgeKind::Hard);
        later.trust(doubt);
    });
    assert_eq!(log.judge(&page), EntryVisibility::Doubted);
    assert_eq!(log.judge(&page), EntryVisibility::Hidden);
}

#[test]
fn a_mark_is_not_lost_when_another_look_up_ends_at_the_same_moment() {
    let log = log();
    let page = page(&log);
    let (before, compared) = (log.order(), Arc::clone(&page));
    log.record(&url(), PurgeKind::Soft);
    // That look-up began before the purge, and did not find the mark.
    steps::interrupt(LedgerMoment::Marked, 1, move || {
        compared.set_checked(before, false);
    });
    assert_eq!(log.judge(&page), EntryVisibility::Marked);
    assert_eq!(log.judge(&page), EntryVisibility::Marked);
    page.set_checked(before, false);
    assert!(page.is_marked());
}
