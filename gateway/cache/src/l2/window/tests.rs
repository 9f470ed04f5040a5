//! Tests of the window between the store's purge log and our own order.

use proptest::prelude::*;

use super::*;
use crate::l2::store::LoggedPurge;

fn numbered(number: u64) -> PurgeOrder {
    PurgeOrder::numbered(number)
}

/// A number of the store, as stores keep it.
fn stored(number: u64) -> LogOrder {
    LogNumber::new(number).order()
}

fn after(order: PurgeOrder, steps: u64) -> PurgeOrder {
    PurgeOrder::new(order.value() + steps)
}

fn log(generation: u64, numbers: &[u64], newest: u64, whole: bool) -> PurgeLogRange {
    let purge = || LoggedPurge {
        selector: "tag:a".to_owned(),
        soft: false,
    };
    let purges = numbers.iter().map(|number| PurgeLogEntry {
        since: (*number).into(),
        number: (*number).into(),
        purge: purge(),
    });
    PurgeLogRange {
        generation,
        newest: newest.into(),
        whole,
        purges: purges.collect(),
        fault: None,
    }
}

fn window(next: LogWindowAdvance) -> PurgeLogWindow {
    match next {
        LogWindowAdvance::Further(window) | LogWindowAdvance::Anew(window, _) => window,
        LogWindowAdvance::Nothing => panic!("there is news"),
    }
}

#[test]
fn a_log_that_is_all_there_is_followed_by_its_numbers() {
    let first = PurgeLogWindow::next(None, &log(7, &[1, 2], 2, true), 1.into());
    let LogWindowAdvance::Further(begun) = first else {
        panic!("{first:?}");
    };
    assert_eq!(begun.order_of(2.into()), Ok(numbered(2)));
    assert_eq!(begun.order_of(3.into()), Err(L2LookupOutcome::Ahead));
    assert_eq!(begun.place_of(after(numbered(1), 5)), Some(stored(1)));
    let order = after(numbered(2), 3);
    let further = window(PurgeLogWindow::next(
        Some(&begun),
        &log(7, &[3, 4], 4, true),
        order,
    ));
    assert_eq!(further.order_of(4.into()), Ok(numbered(4)));
    let again = PurgeLogWindow::next(Some(&further), &log(7, &[], 4, true), order);
    assert_eq!(again, LogWindowAdvance::Nothing);
}

#[test]
fn numbers_that_no_purges_lead_to_are_a_new_beginning_above_all_that_was_given_out() {
    let begun = window(PurgeLogWindow::next(
        None,
        &log(7, &[1, 2], 2, true),
        1.into(),
    ));
    let order = after(numbered(2), 9);
    for (numbers, newest, whole) in [
        (&[9][..], 9, true),
        (&[3, 5], 5, true),
        (&[], 1 << 34, false),
        (&[1 << 34], 1 << 34, true),
        (&[u64::MAX], u64::MAX, true),
        (&[0, 1, 2, 3], 4, true),
    ] {
        let next = PurgeLogWindow::next(Some(&begun), &log(7, numbers, newest, whole), order);
        let LogWindowAdvance::Anew(anew, fault) = next else {
            panic!("{numbers:?}: {next:?}");
        };
        assert_eq!(fault, Some(LogFault::Missing), "{numbers:?}");
        assert_eq!(anew.begins_at(), 3, "one further, whatever the number is");
        assert!(anew.order_at(newest.into()) <= numbered(6), "{numbers:?}");
        assert_eq!(anew.order_of(2.into()), Err(L2LookupOutcome::Outdated));
        assert_eq!(anew.place_of(order), None, "it began before");
    }
}

#[test]
fn another_generation_may_begin_at_any_number() {
    let begun = window(PurgeLogWindow::next(
        None,
        &log(7, &[1, 2], 2, true),
        1.into(),
    ));
    for (numbers, newest) in [(&[][..], 0), (&[1], 1), (&[], 2), (&[900, 901], 901)] {
        let next = PurgeLogWindow::next(Some(&begun), &log(8, numbers, newest, true), numbered(2));
        let LogWindowAdvance::Anew(anew, Some(LogFault::Lost)) = next else {
            panic!("{numbers:?}: {next:?}");
        };
        assert_eq!(anew.newest, LogNumber::new(newest));
        assert_eq!(
            anew.place_of(anew.order_at(newest.into())),
            Some(stored(newest))
        );
        assert!(anew.order_of(newest.into()).unwrap() >= numbered(3));
    }
}

#[test]
fn who_comes_late_to_a_log_judges_what_the_rest_of_it_tells() {
    let late = PurgeLogWindow::next(None, &log(7, &[41, 42], 42, false), 1.into());
    let LogWindowAdvance::Anew(late, None) = late else {
        panic!("{late:?}");
    };
    assert_eq!(late.order_of(39.into()), Err(L2LookupOutcome::Outdated));
    assert_eq!(late.order_of(40.into()), Ok(numbered(1)));
    assert_eq!(late.first(), LogNumber::new(40));
    let hole = PurgeLogWindow::next(None, &log(7, &[1, 3], 3, true), 1.into());
    assert!(matches!(
        hole,
        LogWindowAdvance::Anew(_, Some(LogFault::Missing))
    ));
}

#[test]
fn a_purge_of_nothing_that_stands_for_many_numbers_is_one_here() {
    let spanning = |spans: &[(u64, u64)]| {
        let numbers: Vec<u64> = spans.iter().map(|(_, number)| *number).collect();
        let mut log = log(7, &numbers, numbers[numbers.len() - 1], true);
        let purges = log.purges.iter_mut().zip(spans);
        purges.for_each(|(logged, (since, _))| logged.since = (*since).into());
        log
    };
    let far = 1 << 34;
    let log = spanning(&[(1, 1), (2, 9), (10, 10), (11, far)]);
    let all = window(PurgeLogWindow::next(None, &log, 1.into()));
    for (number, ours) in [
        (0, 0),
        (1, 1),
        (2, 2),
        (8, 2),
        (9, 2),
        (10, 3),
        (11, 4),
        (far, 4),
    ] {
        assert_eq!(all.order_of(number.into()), Ok(numbered(ours)), "{number}");
    }
    for (ours, number) in [(0, 0), (1, 1), (2, 9), (3, 10), (4, far), (5, far)] {
        assert_eq!(all.place_of(after(numbered(ours), 7)), Some(stored(number)));
    }
    // For a node that already knows a part of it.
    let known = window(PurgeLogWindow::next(
        None,
        &spanning(&[(1, 1), (2, 5)]),
        1.into(),
    ));
    let rest = spanning(&[(2, 9), (10, 10)]);
    let LogWindowAdvance::Further(further) = PurgeLogWindow::next(Some(&known), &rest, numbered(2))
    else {
        panic!("there is no hole");
    };
    assert_eq!(
        (further.order_of(5.into()), further.order_of(9.into())),
        (Ok(numbered(2)), Ok(numbered(3)))
    );
    let hole = PurgeLogWindow::next(Some(&known), &spanning(&[(7, 9)]), numbered(2));
    assert!(matches!(hole, LogWindowAdvance::Anew(..)), "{hole:?}");
}

#[test]
fn a_window_with_many_anchors_lets_the_oldest_go() {
    let mut known = window(PurgeLogWindow::next(None, &log(7, &[1], 1, true), 1.into()));
    for n in 1..3_000_u64 {
        let mut log = log(7, &[10 * n], 10 * n, true);
        log.purges[0].since = 1.into();
        let order = known.order_at(known.newest);
        known = window(PurgeLogWindow::next(Some(&known), &log, order));
    }
    assert_eq!(known.order_of(1.into()), Err(L2LookupOutcome::Outdated));
    assert!(known.order_of(29_000.into()).is_ok());
}

#[test]
fn an_order_that_is_used_up_judges_nothing() {
    let last = numbered(MAX_NUMBER - 1);
    let next = window(PurgeLogWindow::next(None, &log(7, &[41], 41, false), last));
    assert!(next.is_used_up());
    assert_eq!(next.order_of(41.into()), Err(L2LookupOutcome::Skipped));
    assert_eq!(next.place_of((u64::MAX >> 1).into()), None);
    let again = PurgeLogWindow::next(
        Some(&next),
        &log(7, &[42], 42, true),
        (u64::MAX >> 1).into(),
    );
    assert!(matches!(again, LogWindowAdvance::Anew(used, _) if used.is_used_up()));
}

proptest! {
    /// Whatever a store shows, in whatever order: our order never decreases and grows by the purges
    /// that are there, no arithmetic overflows, and a place in our order that is mapped to the
    /// store maps back to itself.
    #[test]
    fn our_order_grows_by_what_is_there(looks in prop::collection::vec((1..3_u64, prop::collection::vec(any::<u64>(), 0..4), prop::collection::vec(0..9_u64, 0..4), any::<u64>(), any::<bool>()), 0..12)) {
        let (mut known, mut order, mut shown) = (None, PurgeOrder::new(1), 0);
        for (generation, wild, near, newest, whole) in looks {
            let near = near.iter().map(|step| newest.saturating_sub(3).saturating_add(*step));
            let numbers: Vec<u64> = wild.into_iter().chain(near).collect();
            shown += numbers.len() as u64 + 1;
            let next = PurgeLogWindow::next(known.as_ref(), &log(generation, &numbers, newest, whole), order);
            let (LogWindowAdvance::Further(window) | LogWindowAdvance::Anew(window, _)) = next else {
                continue;
            };
            let end = window.order_at(newest.into());
            prop_assert!(end >= order.shared(), "it fell");
            prop_assert!(end.number() <= shown, "it grew by numbers");
            prop_assert_eq!(window.order_of(newest.into()), Ok(end));
            prop_assert_eq!(window.place_of(end), Some(stored(newest)));
            order = order.max(end).next();
            known = Some(window);
        }
    }
}
