//! Tests of [`Fill`] and its readers.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http_body_util::BodyExt;
use proptest::prelude::*;

use super::*;
use crate::http::memory::{self, MemoryLedger};

fn fill(limit: usize, length: Option<u64>) -> Arc<Fill> {
    Fill::new(head(length), limit, None)
}

fn head(length: Option<u64>) -> FillHead {
    let freshness = Freshness {
        received: Instant::now(),
        initial_age: Duration::ZERO,
        lifetime: Duration::from_secs(1),
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
        must_revalidate: false,
    };
    let key = crate::key::KeyBuf::default().to_key();
    FillHead {
        key,
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        own: HeaderMap::new(),
        length,
        freshness,
        knows: 1.into(),
        marks: PurgeAttributes::default(),
        vary: Vary::None,
    }
}

fn read(reader: &mut FillReader) -> Option<Result<Bytes, ()>> {
    let frame = reader.frame().now_or_never()??;
    Some(
        frame
            .map(|f| f.into_data().unwrap_or_default())
            .map_err(|_| ()),
    )
}

#[test]
fn early_and_late_readers_see_the_same_bytes() {
    let fill = fill(100, None);
    let mut early = fill.reader().unwrap();
    assert_eq!(read(&mut early), None);
    fill.push(Bytes::from_static(b"abc"));
    assert_eq!(read(&mut early), Some(Ok(Bytes::from_static(b"abc"))));
    fill.push(Bytes::from_static(b"def"));
    let late = fill.reader().unwrap();
    assert_eq!(fill.complete(None).unwrap().bytes(), "abcdef");
    assert_eq!(
        late.collect().now_or_never().unwrap().unwrap().to_bytes(),
        "abcdef"
    );
    assert_eq!(read(&mut early), Some(Ok(Bytes::from_static(b"def"))));
}

#[test]
fn a_body_that_broke_off_is_an_error_for_readers_and_nothing_to_store() {
    let fill = fill(100, Some(6));
    let mut reader = fill.reader().unwrap();
    fill.push(Bytes::from_static(b"abc"));
    assert!(fill.complete(None).is_none(), "three of six bytes");
    assert!(read(&mut reader).unwrap().is_ok());
    assert_eq!(read(&mut reader), Some(Err(())));
}

#[test]
fn an_outgrown_body_paces_to_the_fastest_and_cuts_the_slowest_loose() {
    let limit = 1 << 20;
    let fill = fill(limit, None);
    let chunk = Bytes::from(vec![0; 128 << 10]);
    let mut slow = fill.reader().unwrap();
    let mut fast = fill.reader().unwrap();
    let mut pushed = 0;
    while pushed < 4 * limit {
        while fill.room().now_or_never() != Some(true) {
            assert!(read(&mut fast).unwrap().is_ok());
        }
        fill.push(chunk.clone());
        pushed += chunk.len();
    }
    assert!(fill.outgrown());
    assert_eq!(read(&mut slow), Some(Err(())), "it fell behind the window");
    assert!(read(&mut fast).unwrap().is_ok());
    assert!(fill.reader().is_none(), "its start is gone");
    drop(slow);
    drop(fast);
    assert_eq!(
        fill.room().now_or_never(),
        Some(false),
        "nobody reads and it can't be stored"
    );
}

#[test]
fn an_outgrown_body_is_unwanted_when_its_last_reader_leaves() {
    let fill = fill(4, None);
    let readers = [fill.reader().unwrap(), fill.reader().unwrap()];
    let mut unwanted = std::pin::pin!(fill.unwanted());
    assert!(unwanted.as_mut().now_or_never().is_none());
    fill.push(Bytes::from_static(b"abcdef"));
    for reader in readers {
        assert!(unwanted.as_mut().now_or_never().is_none(), "one reads");
        drop(reader);
    }
    assert!(unwanted.now_or_never().is_some());
}

#[test]
fn an_outgrown_body_keeps_nothing_that_every_reader_has_passed() {
    let limit = 1 << 20;
    let fill = fill(limit, None);
    let mut reader = fill.reader().unwrap();
    let chunk = Bytes::from(vec![0; 64 << 10]);
    for _ in 0..32 {
        fill.push(chunk.clone());
        while read(&mut reader).is_some() {}
    }
    let stream = fill.stream.lock();
    assert!(fill.limit < stream.arrived as usize);
    let pieces = stream.chunks.count();
    assert!(pieces <= 1, "{pieces} pieces");
}

#[test]
fn when_it_is_stored_slow_readers_go_on_with_the_stored_bytes() {
    let fill = fill(100, None);
    let mut slow = fill.reader().unwrap();
    fill.push(Bytes::from_static(b"abc"));
    assert_eq!(read(&mut slow), Some(Ok(Bytes::from_static(b"abc"))));
    fill.push(Bytes::from_static(b"def"));
    let stored = fill.complete(None).unwrap();
    let rest = read(&mut slow).unwrap().unwrap();
    assert_eq!(rest, "def");
    assert!(stored.as_ptr_range().contains(&rest.as_ptr()));
    assert_eq!(
        fill.stream.lock().chunks.count(),
        0,
        "nothing is held twice"
    );
    assert_eq!(read(&mut slow), None);
}

#[test]
fn while_its_connection_holds_too_much_a_load_is_paced_to_its_readers() {
    static LEDGER: MemoryLedger = MemoryLedger::new();
    let connection = Arc::new(ConnectionMemory::new(&LEDGER, 10));
    let held = memory::claim(Bytes::from(vec![0; 10]), &LEDGER, Some(&connection));
    let paced = Fill::new(head(None), 100, Some(connection));
    let mut reader = paced.reader().unwrap();
    assert_eq!(paced.room().now_or_never(), Some(true));
    paced.push(Bytes::from_static(b"abc"));
    assert_eq!(
        paced.room().now_or_never(),
        None,
        "the reader has nothing of it"
    );
    assert!(read(&mut reader).unwrap().is_ok());
    assert_eq!(paced.room().now_or_never(), Some(true));
    paced.push(Bytes::from_static(b"def"));
    drop(held);
    assert_eq!(
        paced.room().now_or_never(),
        Some(true),
        "there is memory again"
    );
}

#[test]
fn what_fits_is_kept_though_nobody_reads() {
    let fill = fill(10, None);
    drop(fill.reader());
    assert_eq!(fill.room().now_or_never(), Some(true));
    fill.push(Bytes::from_static(b"abc"));
    assert_eq!(fill.complete(None).unwrap().bytes(), "abc");
}

proptest! {
    #[test]
    fn a_window_is_exactly_its_bytes(pieces in prop::collection::vec(1usize..8, 1..10), first in 0u64..40, length in 1u64..40) {
        let total: usize = pieces.iter().sum();
        let all: Vec<u8> = (0..total as u8).collect();
        let last = (first + length - 1).min(total as u64 - 1);
        prop_assume!(first <= last);
        let fill = fill(1_000, Some(total as u64));
        let reader = fill.reader().unwrap().window(first, last);
        prop_assert_eq!(reader.size_hint().exact(), Some(last - first + 1));
        let mut at = 0;
        for piece in pieces {
            fill.push(Bytes::copy_from_slice(&all[at..at + piece]));
            at += piece;
        }
        fill.complete(None);
        let got = reader.collect().now_or_never().unwrap().unwrap().to_bytes();
        prop_assert_eq!(&got[..], &all[first as usize..=last as usize]);
    }
}

#[test]
fn a_body_is_whole_when_it_has_arrived_and_is_stored_and_nothing_follows_it() {
    let arriving = fill(100, Some(3));
    arriving.push(Bytes::from_static(b"abc"));
    assert_eq!(arriving.whole(), None);
    arriving.complete(None).unwrap();
    assert_eq!(arriving.whole(), Some(Bytes::from_static(b"abc")));

    let with_trailers = fill(100, None);
    with_trailers.push(Bytes::from_static(b"abc"));
    with_trailers.complete(Some(HeaderMap::new())).unwrap();
    assert_eq!(with_trailers.whole(), None, "the trailers would be lost");

    let outgrown = fill(2, Some(3));
    outgrown.push(Bytes::from_static(b"abc"));
    assert!(outgrown.complete(None).is_none());
    assert_eq!(outgrown.whole(), None);
}
