//! The store on disk: what it keeps, what it refuses, and what it does with a damaged file.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::key::KeyId;
use crate::l2::description::StoreOwnerBefore;
use crate::l2::store::{LogPlace, PurgeLogEntry};

const LIFE: Duration = Duration::from_secs(60);

fn store(folder: &std::path::Path, max_bytes: u64) -> Arc<dyn Store> {
    open(&configured(folder, max_bytes), StoreOwnerBefore::Nobody).unwrap()
}

fn configured(folder: &std::path::Path, max_bytes: u64) -> config::DiskTierConfig {
    config::DiskTierConfig {
        path: folder.join("l2"),
        max_bytes: crate::units::ByteSize(max_bytes),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_next_process_has_the_file_when_this_one_has_closed_it() {
    let dir = tempfile::tempdir().unwrap();
    let old = store(dir.path(), 1 << 20);
    assert_eq!(put(&*old, 1, b"one", 0).await, StorePutOutcome::Stored);
    let config = configured(dir.path(), 1 << 20);
    let next = open(&config, StoreOwnerBefore::ReplacedProcess).unwrap();
    assert!(matches!(
        next.read_log(LogNumber::ZERO).await,
        Err(StoreError::Down(_))
    ));
    // A purge that comes meanwhile is not lost.
    let purge = LoggedPurge {
        selector: "tag:a".into(),
        soft: false,
    };
    assert!(next.append(&purge, LogNumber::ZERO).await.is_err());
    old.close().await.unwrap();
    assert!(old.get(&key(1), 1 << 20).await.is_err(), "it is closed");
    assert!(old.sync().await.is_err());
    let mut log = next.read_log(LogNumber::ZERO).await;
    let begun = Instant::now();
    while log.is_err() && begun.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        log = next.read_log(LogNumber::ZERO).await;
    }
    let purges: Vec<_> = log
        .unwrap()
        .purges
        .into_iter()
        .map(|one| one.purge)
        .collect();
    assert_eq!(purges, [purge]);
    assert_eq!(read(&*next, 1).await.unwrap(), &b"one"[..]);
    assert_eq!(put(&*next, 2, b"two", 9).await, StorePutOutcome::Stored);
}

fn key(n: u8) -> StoreKey {
    StoreKey {
        id: [n; 16],
        home: KeyId(n.into()),
    }
}

/// A disk's log has one generation.
fn place(order: u64) -> LogPlace {
    LogPlace {
        order: order.into(),
        ..LogPlace::default()
    }
}

async fn put(store: &dyn Store, n: u8, record: &[u8], born: u64) -> StorePutOutcome {
    let put = StorePut {
        key: &key(n),
        record: Bytes::copy_from_slice(record),
        life: LIFE,
        born: place(born),
        lease: None,
    };
    store.put(put).await.unwrap()
}

async fn read(store: &dyn Store, n: u8) -> Option<Bytes> {
    let found = store.get(&key(n), 1 << 20).await.unwrap()?;
    assert!(found.left <= LIFE);
    Some(found.record)
}

/// Closes the store by dropping its last user, which ends its thread, and opens it again.
async fn closed(store: Arc<dyn Store>, folder: &std::path::Path, max_bytes: u64) -> Arc<dyn Store> {
    store.sync().await.unwrap();
    drop(store);
    loop {
        // The thread that writes releases the file a little later.
        let config = config::DiskTierConfig {
            path: folder.join("l2"),
            max_bytes: crate::units::ByteSize(max_bytes),
            ..Default::default()
        };
        match open(&config, StoreOwnerBefore::Nobody) {
            Ok(store) => return store,
            Err(DiskStoreOpenError::InUse { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path(), 1 << 20);
    assert_eq!(put(&*first, 1, b"one", 5).await, StorePutOutcome::Stored);
    let purge = LoggedPurge {
        selector: "tag:x".into(),
        soft: true,
    };
    let log = first.append(&purge, 7.into()).await.unwrap();
    assert_eq!((log.newest, log.whole), (8.into(), true));
    let again = closed(first, folder.path(), 1 << 20).await;
    assert_eq!(read(&*again, 1).await.unwrap(), "one");
    let read = again.read_log(0.into()).await.unwrap();
    assert_eq!(read.generation, log.generation);
    assert_eq!(
        read.purges,
        [PurgeLogEntry {
            since: 8.into(),
            number: 8.into(),
            purge
        }]
    );
}

#[tokio::test]
async fn a_late_write_beats_neither_a_removal_nor_a_newer_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), 1 << 20);
    put(&*store, 1, b"new", 9).await;
    assert_eq!(put(&*store, 1, b"old", 8).await, StorePutOutcome::Overtaken);
    assert_eq!(read(&*store, 1).await.unwrap(), "new");
    store.delete(&key(1), place(10)).await.unwrap();
    assert_eq!(
        put(&*store, 1, b"late", 9).await,
        StorePutOutcome::Overtaken
    );
    assert_eq!(read(&*store, 1).await, None);
    assert_eq!(put(&*store, 1, b"next", 10).await, StorePutOutcome::Stored);
}

#[tokio::test]
async fn the_oldest_go_when_it_is_full_and_the_large_stay_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), 10_000);
    for n in 0..20 {
        put(&*store, n, &[n; 1_000], 1).await;
    }
    assert_eq!(read(&*store, 0).await, None);
    assert_eq!(read(&*store, 19).await.unwrap(), vec![19; 1_000]);
    let error = store.get(&key(19), 999).await.unwrap_err();
    assert_eq!(error.reason(), "too-large");
}

#[tokio::test]
async fn an_append_wakes_who_watches_and_one_file_has_one_user() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), 1 << 20);
    let purge = LoggedPurge {
        selector: "all".into(),
        soft: false,
    };
    let (log, appended) = tokio::join!(
        store.watch_log(0.into(), Duration::from_secs(3_600)),
        store.append(&purge, 0.into())
    );
    assert_eq!(log.unwrap().purges, appended.unwrap().purges);
    let config = config::DiskTierConfig {
        path: folder.path().join("l2"),
        ..Default::default()
    };
    assert!(matches!(
        open(&config, StoreOwnerBefore::Nobody),
        Err(DiskStoreOpenError::InUse { .. })
    ));
}

#[tokio::test]
async fn a_damaged_or_foreign_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(folder.path(), 1 << 20);
    for n in 0..50 {
        put(&*first, n, &[n; 500], 1).await;
    }
    drop(closed(first, folder.path(), 1 << 20).await);
    let file = folder.path().join("l2");
    let sound = std::fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    let cases = [
        b"key: value\n".to_vec(),
        sound[..sound.len() / 2].to_vec(),
        flipped(0),
        flipped(70),
        flipped(sound.len() / 3),
    ];
    for (case, bytes) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("l2"), bytes).unwrap();
        let store = store(folder.path(), 1 << 20);
        assert_eq!(
            put(&*store, 99, b"x", 1).await,
            StorePutOutcome::Stored,
            "{case}"
        );
        assert_eq!(read(&*store, 99).await.unwrap(), "x", "{case}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8, u64),
    Delete(u8, u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..4, any::<u8>(), 0u64..6).prop_map(|(k, v, b)| Step::Put(k, v, b)),
        2 => (0u8..4, 0u64..6).prop_map(|(k, at)| Step::Delete(k, at)),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Compares the store with a plain map that has births and tombstones.
    #[test]
    fn it_behaves_as_a_map_that_knows_births(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut store = store(folder.path(), 1 << 20);
            let mut held: HashMap<u8, (u8, u64)> = HashMap::new();
            let mut buried: HashMap<u8, u64> = HashMap::new();
            for step in steps {
                match step {
                    Step::Put(k, v, born) => {
                        let overtaken = buried.get(&k).is_some_and(|at| *at > born) || held.get(&k).is_some_and(|(_, b)| *b > born);
                        let written = put(&*store, k, &[v], born).await;
                        assert_eq!(written == StorePutOutcome::Overtaken, overtaken);
                        if !overtaken {
                            held.insert(k, (v, born));
                        }
                    }
                    Step::Delete(k, at) => {
                        store.delete(&key(k), place(at)).await.unwrap();
                        held.remove(&k);
                        let was = buried.entry(k).or_default();
                        *was = at.max(*was);
                    }
                    Step::Reopen => {
                        store = closed(store, folder.path(), 1 << 20).await;
                        buried.clear();
                    }
                }
                for k in 0..4 {
                    assert_eq!(read(&*store, k).await.map(|r| r[0]), held.get(&k).map(|(v, _)| *v));
                }
            }
        });
    }
}
