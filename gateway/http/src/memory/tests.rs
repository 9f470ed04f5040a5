//! Tests of `http::memory`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::stored::{AnswerCut, AnswersAtOnce, StoredBody};
use super::{ConnectionMemory, MemoryLedger, claim};

const BODY: usize = 100_000;

fn ledger(bound: u64) -> &'static MemoryLedger {
    let ledger = Box::leak(Box::new(MemoryLedger::new()));
    ledger.set_bound(bound);
    ledger
}

fn connection(ledger: &'static MemoryLedger, bound: u64) -> Arc<ConnectionMemory> {
    Arc::new(ConnectionMemory::new(ledger, bound))
}

fn answer(connection: &Arc<ConnectionMemory>) -> Arc<AnswerCut> {
    Arc::new(AnswerCut::new(Arc::clone(connection)))
}

fn body(ledger: &'static MemoryLedger) -> StoredBody {
    StoredBody::on(ledger, Bytes::from(vec![0; BODY]))
}

#[test]
fn what_arrived_counts_until_its_last_slice_is_gone() {
    let ledger = ledger(1 << 20);
    let connection = connection(ledger, 150_000);
    let piece = claim(Bytes::from(vec![0; BODY]), ledger, Some(&connection));
    let slice = piece.slice(1..2);
    drop(piece);
    assert_eq!((ledger.held(), connection.held()), (100_000, 100_000));
    assert!(!connection.is_full());
    let more = claim(Bytes::from(vec![0; BODY]), ledger, Some(&connection));
    assert!(connection.is_full() && !ledger.is_full());
    drop((slice, more));
    assert_eq!((ledger.held(), connection.held()), (0, 0));
}

#[test]
fn a_stored_body_counts_from_its_last_owner_to_its_last_reader() {
    let ledger = ledger(1 << 20);
    let first = body(ledger);
    let renewed = first.clone();
    let read = first.bytes();
    drop(first);
    assert_eq!(ledger.held(), 0, "the renewed entry owns it");
    drop(renewed);
    assert_eq!(ledger.held(), 100_000);
    drop(read);
    assert_eq!(ledger.held(), 0);
    drop(body(ledger));
    assert_eq!(ledger.held(), 0, "nobody read it");
}

#[test]
fn a_few_octets_of_a_stored_body_do_not_hold_it() {
    let ledger = ledger(1 << 20);
    let stored = body(ledger);
    let (few, many) = (stored.octets(7..9), stored.octets(0..50_000));
    drop(stored);
    assert_eq!(ledger.held(), 100_000);
    drop(many);
    assert_eq!(ledger.held(), 0);
    assert_eq!(few.len(), 2);
}

#[test]
fn a_connection_is_charged_once_for_a_body_that_many_of_its_answers_read() {
    let ledger = ledger(1 << 20);
    let connection = connection(ledger, 150_000);
    let stored = body(ledger);
    let readers = Arc::clone(stored.readers(AnswersAtOnce::Many).unwrap());
    let (one, other) = (answer(&connection), answer(&connection));
    let seats = (readers.join(&one), readers.join(&other));
    let read = stored.bytes();
    assert_eq!(connection.held(), 0);
    drop(stored);
    assert_eq!(connection.held(), 100_000);
    let late = readers.join(&one);
    assert_eq!(connection.held(), 100_000);
    assert!(!one.is_cut() && !other.is_cut());
    drop((seats, read));
    assert_eq!(connection.held(), 100_000, "one answer has not ended");
    drop(late);
    assert_eq!(connection.held(), 0);
}

#[test]
fn answers_beyond_the_bound_of_their_connection_are_cut_and_no_others() {
    let ledger = ledger(1 << 20);
    let (greedy, modest) = (connection(ledger, 150_000), connection(ledger, 150_000));
    let (first, second) = (body(ledger), body(ledger));
    let (one, two, other) = (answer(&greedy), answer(&greedy), answer(&modest));
    let read = (first.bytes(), second.bytes());
    let seats = (
        first.readers(AnswersAtOnce::Many).unwrap().join(&one),
        second.readers(AnswersAtOnce::Many).unwrap().join(&two),
        second.readers(AnswersAtOnce::Many).unwrap().join(&other),
    );
    drop((first, second));
    assert_eq!(
        [one.is_cut(), two.is_cut(), other.is_cut()],
        [false, true, false]
    );
    drop((seats, read));
    assert_eq!((greedy.held(), modest.held(), ledger.held()), (0, 0, 0));
}

#[test]
fn one_body_that_is_larger_than_the_bound_of_a_connection_may_be_read() {
    let ledger = ledger(1 << 20);
    let connection = connection(ledger, 10);
    let stored = body(ledger);
    let (read, answer) = (stored.bytes(), answer(&connection));
    let _seat = stored.readers(AnswersAtOnce::Many).unwrap().join(&answer);
    drop(stored);
    assert!(!answer.is_cut() && !read.is_empty());
}

#[test]
fn who_has_read_an_evicted_body_for_the_longest_time_is_cut_first_and_only_as_many_as_needed() {
    // Three quarters of it may be held by evicted bodies: two of them.
    let ledger = ledger(280_000);
    let answers: Vec<_> = (0..4)
        .map(|_| answer(&connection(ledger, 1 << 20)))
        .collect();
    let mut held = Vec::new();
    for answer in &answers {
        let stored = body(ledger);
        let seat = stored.readers(AnswersAtOnce::Many).unwrap().join(answer);
        held.push((stored.bytes(), seat));
    }
    let cut = || answers.iter().map(|a| a.is_cut()).collect::<Vec<_>>();
    assert_eq!(cut(), [true, true, false, false]);
    // The bodies that were cut will be free soon: no other reader must be cut for these bytes.
    let small = claim(Bytes::from(vec![0; 10]), ledger, None);
    assert_eq!(cut(), [true, true, false, false]);
    drop((held, small));
    assert_eq!(ledger.held(), 0);
    assert!(!ledger.is_full());
}

#[test]
fn a_seat_that_outlives_an_uncharged_body_gives_nothing_back() {
    let ledger = ledger(1 << 20);
    let connection = connection(ledger, 150_000);
    let stored = body(ledger);
    let seat = stored
        .readers(AnswersAtOnce::Many)
        .unwrap()
        .join(&answer(&connection));
    drop(stored);
    assert_eq!((connection.held(), ledger.held()), (0, 0));
    drop(seat);
    assert_eq!(connection.held(), 0);
}

#[test]
fn who_reads_on_is_cut_after_those_who_stand_still() {
    let ledger = ledger(280_000);
    let answers: Vec<_> = (0..4)
        .map(|_| answer(&connection(ledger, 1 << 20)))
        .collect();
    let mut held = Vec::new();
    for (n, answer) in answers.iter().enumerate() {
        let stored = body(ledger);
        let seat = stored.readers(AnswersAtOnce::Many).unwrap().join(answer);
        held.push((stored.bytes(), seat));
        drop(stored);
        if n == 0 {
            std::thread::sleep(Duration::from_millis(1));
            answer.moved();
        }
    }
    let cut: Vec<_> = answers.iter().map(|answer| answer.is_cut()).collect();
    assert_eq!(cut, [false, true, true, false]);
}

#[test]
fn an_answer_that_joins_after_its_body_was_evicted_can_be_cut() {
    let ledger = ledger(120_000);
    let (stored, late) = (body(ledger), answer(&connection(ledger, 1 << 20)));
    let (read, readers) = (
        stored.bytes(),
        Arc::clone(stored.readers(AnswersAtOnce::Many).unwrap()),
    );
    drop(stored);
    assert_eq!(ledger.held(), 100_000, "nobody is there to be cut");
    let seat = readers.join(&late);
    assert!(late.is_cut());
    drop((seat, read));
    assert_eq!(ledger.held(), 0);
}
