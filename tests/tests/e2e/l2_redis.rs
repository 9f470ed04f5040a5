//! The Redis store on one real server: every promise of the `Store` trait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::redis::Redis;
use e2e::wait::{SOON, wait_for, within};
use lamina_cache::l2::redis::{config, open};
use lamina_cache::l2::store::{
    Lease, LeaseAcquisition, LogFault, LogNumber, LogOrder, LogPlace, LoggedPurge, PurgeLogRange,
    Store, StoreError, StoreKey, StorePut, StorePutOutcome, nothing,
};

pub const MINUTE: Duration = Duration::from_secs(60);
/// Longer than any record here.
pub const MAX: usize = 1 << 20;

/// A server that is waited for, however busy the machine is.
pub fn config_of(url: &str) -> config::RedisTierConfig {
    config::RedisTierConfig {
        url: url.to_owned(),
        connect_timeout: lamina_base::units::ConfigDuration::secs(60),
        silence_timeout: lamina_base::units::ConfigDuration::secs(600),
        ..config::RedisTierConfig::default()
    }
}

/// A store that has connected.
pub async fn connected(config: &config::RedisTierConfig) -> Arc<dyn Store> {
    let store = open(config).expect("the configuration is right");
    back(&*store).await;
    store
}

/// Waits until calls succeed.
pub async fn back(store: &dyn Store) {
    let lease = Lease::of(key(0xfffe));
    wait_for("the store answers", SOON * 2, || async {
        let read = store.get(&key(0xffff), MAX).await.ok();
        let write = store.acquire(&lease, Duration::from_millis(1)).await;
        read.and(write.ok())
    })
    .await;
    // Nothing of this is left; if no answer comes, it has run out by then.
    let _ = store.release(&lease).await;
}

pub fn key(n: u32) -> StoreKey {
    StoreKey::of(&n.to_be_bytes())
}

/// The place of a number, as stores keep it.
pub fn numbered(number: u64) -> LogOrder {
    LogNumber::new(number).order()
}

/// A place in a log that nobody has read yet.
pub fn place(order: LogOrder) -> LogPlace {
    LogPlace {
        generation: 0,
        order,
    }
}

/// A record born at a number of such a log.
pub fn put<'a>(key: &'a StoreKey, record: &'static [u8], born: u64) -> StorePut<'a> {
    put_at(key, record, place(numbered(born)))
}

pub fn put_at<'a>(key: &'a StoreKey, record: &'static [u8], born: LogPlace) -> StorePut<'a> {
    StorePut {
        key,
        record: Bytes::from_static(record),
        life: MINUTE,
        born,
        lease: None,
    }
}

pub fn purge(selector: &str) -> LoggedPurge {
    LoggedPurge {
        selector: selector.to_owned(),
        soft: false,
    }
}

pub fn numbers(log: &PurgeLogRange) -> Vec<u64> {
    log.purges
        .iter()
        .map(|logged| logged.number.value())
        .collect()
}

/// The name of a key's record, lease and so on, as other programs find it.
pub fn name(key: &StoreKey, kind: char) -> String {
    let hex: String = key.id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("lamina:{{{}}}{hex}{kind}", key.home)
}

async fn record(store: &dyn Store, key: &StoreKey) -> Option<Bytes> {
    store.get(key, MAX).await.unwrap().map(|found| found.record)
}

pub async fn owned(store: &dyn Store, key: &StoreKey, ttl: Duration) -> Lease {
    let lease = Lease::of(*key);
    let answer = store.acquire(&lease, ttl).await.unwrap();
    assert_eq!(answer, LeaseAcquisition::Owned, "the lease is free");
    lease
}

#[tokio::test]
async fn a_record_is_read_back_byte_for_byte_with_the_life_it_has_left() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    assert_eq!(store.kind(), "redis");
    assert_eq!(store.get(&key(1), MAX).await.unwrap(), None);
    let bytes: Vec<u8> = (0..=255).collect();
    let one = key(1);
    let record = StorePut {
        record: Bytes::from(bytes.clone()),
        ..put(&one, b"", 0)
    };
    assert_eq!(store.put(record).await.unwrap(), StorePutOutcome::Stored);
    let found = store.get(&key(1), MAX).await.unwrap().unwrap();
    assert_eq!(found.record, bytes);
    assert!(found.left <= MINUTE && found.left > MINUTE / 2);
    let length = redis.cli(&["STRLEN", &name(&key(1), 'r')]).await;
    assert_eq!(length, "256", "the value is the record and nothing else");
    store.sync().await.unwrap();
}

#[tokio::test]
async fn a_record_ends_with_its_life() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let one = key(1);
    let short = StorePut {
        life: Duration::from_millis(50),
        ..put(&one, b"short", 0)
    };
    assert_eq!(store.put(short).await.unwrap(), StorePutOutcome::Stored);
    wait_for("the record is gone", SOON, || async {
        let gone = store.get(&key(1), MAX).await.unwrap().is_none();
        gone.then_some(())
    })
    .await;
    let left = redis.cli(&["EXISTS", &name(&key(1), 'b')]).await;
    assert_eq!(left, "0", "what belongs to it went with it");
}

#[tokio::test]
async fn an_older_load_never_overwrites_a_newer_one() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    for (born, written) in [
        (5, StorePutOutcome::Stored),
        (4, StorePutOutcome::Overtaken),
        (5, StorePutOutcome::Stored),
        (6, StorePutOutcome::Stored),
    ] {
        let text: &'static [u8] = [b"4".as_slice(), b"5", b"6"][born - 4];
        let wrote = store.put(put(&key(1), text, born as u64)).await.unwrap();
        assert_eq!(wrote, written, "born {born}");
    }
    assert_eq!(record(&*store, &key(1)).await.unwrap(), "6");
}

/// Lua's numbers have 53 bits; an order has 64.
#[tokio::test]
async fn orders_compare_to_the_last_bit() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let high = numbered((1 << 36) - 1);
    let one = key(1);
    let at = |born| StorePut {
        born: place(born),
        ..put(&one, b"x", 0)
    };
    store
        .delete(&key(1), place(high.right_after()))
        .await
        .unwrap();
    assert_eq!(
        store.put(at(high)).await.unwrap(),
        StorePutOutcome::Overtaken
    );
    assert_eq!(
        store.put(at(high.right_after())).await.unwrap(),
        StorePutOutcome::Stored
    );
}

#[tokio::test]
async fn a_load_from_before_a_delete_is_not_written_after_it() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    store.put(put(&key(1), b"old", 1)).await.unwrap();
    store.delete(&key(1), place(numbered(2))).await.unwrap();
    assert_eq!(record(&*store, &key(1)).await, None);
    let late = store.put(put(&key(1), b"late", 1)).await.unwrap();
    assert_eq!(late, StorePutOutcome::Overtaken);
    let next = store.put(put(&key(1), b"new", 2)).await.unwrap();
    assert_eq!(next, StorePutOutcome::Stored);
    let ttl: i64 = redis
        .cli(&["PTTL", &name(&key(1), 't')])
        .await
        .parse()
        .unwrap();
    assert!(ttl > 500_000, "the tombstone outlives every load: {ttl} ms");
}

/// A delete that failed is tried again; by then the next load may have been stored.
#[tokio::test]
async fn a_delete_that_comes_late_leaves_a_newer_record() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    store.put(put(&key(1), b"new", 3)).await.unwrap();
    store.delete(&key(1), place(numbered(2))).await.unwrap();
    assert_eq!(record(&*store, &key(1)).await.unwrap(), "new");
    store.delete(&key(1), place(numbered(4))).await.unwrap();
    store.delete(&key(1), place(numbered(3))).await.unwrap();
    let late = store.put(put(&key(1), b"late", 3)).await.unwrap();
    assert_eq!(
        late,
        StorePutOutcome::Overtaken,
        "the later tombstone stays"
    );
}

/// What was begun while one log was followed and comes when there is another one: its order may
/// be far above all that this log will give out.
#[tokio::test]
async fn what_is_of_a_log_that_has_ended_keeps_nothing_out() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let ended = store
        .append(&purge("tag:x"), LogNumber::ZERO)
        .await
        .unwrap()
        .end();
    redis.cli(&["DEL", "lamina:{log}", "lamina:{log}h"]).await;
    let today = store
        .append(&purge("tag:x"), LogNumber::ZERO)
        .await
        .unwrap()
        .end();
    assert!(today.generation > ended.generation);
    let high = LogPlace {
        order: LogOrder::new(u64::MAX >> 1),
        ..ended
    };
    let one = key(1);
    let at = |born| StorePut {
        born,
        ..put(&one, b"x", 0)
    };
    let noted = async || store.get_noted(&one, MAX, 7).await.unwrap().1;
    assert_eq!(
        store.put(at(high)).await.unwrap(),
        StorePutOutcome::Overtaken
    );
    store.delete(&one, high).await.unwrap();
    noted().await;
    assert!(
        store.invalidate(7, high).await.is_err(),
        "it is to be asked again"
    );
    assert_eq!(noted().await, LogOrder::BEFORE_ALL);
    assert_eq!(store.put(at(today)).await.unwrap(), StorePutOutcome::Stored);
    store.delete(&one, high).await.unwrap();
    assert_eq!(store.clear(0, &[one], high).await.unwrap(), 0);
    assert!(record(&*store, &one).await.is_some());
    assert!(store.invalidate(7, today).await.unwrap());
    assert_eq!(noted().await, today.order);
}

#[tokio::test]
async fn a_value_over_the_limit_is_not_fetched() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let hundred = (100 << 20).to_string();
    let name = name(&key(1), 'r');
    redis.cli(&["SETRANGE", &name, &hundred, "x"]).await;
    redis.cli(&["PEXPIRE", &name, "60000"]).await;
    let before = sent(&redis).await;
    for _ in 0..20 {
        let size = (100 << 20) + 1;
        match store.get(&key(1), MAX).await {
            Err(StoreError::TooLarge { size: told, limit }) => {
                assert_eq!((told, limit), (size, MAX));
            }
            other => panic!("{other:?}"),
        }
    }
    let sent = sent(&redis).await - before;
    assert!(sent < 1 << 20, "it was fetched: {sent} bytes");
}

#[tokio::test]
async fn what_is_not_ours_is_no_record() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    redis.cli(&["SET", &name(&key(1), 'r'), "for ever"]).await;
    let endless = store.get(&key(1), MAX).await;
    assert!(
        matches!(endless, Err(StoreError::Foreign(_))),
        "{endless:?}"
    );
    redis.cli(&["LPUSH", &name(&key(2), 'r'), "a", "b"]).await;
    match store.get(&key(2), MAX).await {
        Err(StoreError::Foreign(word)) => assert!(word.contains("WRONGTYPE"), "{word}"),
        other => panic!("{other:?}"),
    }
    let over = store.put(put(&key(2), b"ours", 0)).await.unwrap();
    assert_eq!(over, StorePutOutcome::Stored, "a write puts it right");
    assert_eq!(record(&*store, &key(2)).await.unwrap(), "ours");
}

#[tokio::test]
async fn purges_get_growing_numbers_and_are_read_from_any_place() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let empty = store.read_log(LogNumber::ZERO).await.unwrap();
    assert!(empty.whole && empty.purges.is_empty() && empty.newest == LogNumber::ZERO);
    let first = store
        .append(&purge("tag:a"), LogNumber::ZERO)
        .await
        .unwrap();
    assert_eq!(
        (numbers(&first), first.newest),
        (vec![1], LogNumber::new(1))
    );
    let soft = LoggedPurge {
        soft: true,
        ..purge("prefix:/é b")
    };
    let second = store.append(&soft, LogNumber::ZERO).await.unwrap();
    assert_eq!(numbers(&second), [1, 2]);
    assert_eq!(second.purges[1].purge, soft);
    assert_eq!(second.generation, empty.generation);
    let rest = store.read_log(LogNumber::new(1)).await.unwrap();
    assert_eq!((numbers(&rest), rest.whole), (vec![2], true));
}

#[tokio::test]
async fn a_watcher_is_woken_by_an_append_and_else_by_its_patience() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let start = Instant::now();
    let idle = wait_for("the waiting connection stands", SOON, || async {
        store
            .watch_log(LogNumber::ZERO, Duration::from_millis(100))
            .await
            .ok()
    })
    .await;
    assert!(idle.purges.is_empty() && start.elapsed() >= Duration::from_millis(100));
    let watching = tokio::spawn({
        let store = store.clone();
        async move { store.watch_log(LogNumber::ZERO, MINUTE).await }
    });
    wait_for("the server has a blocked client", SOON, || async {
        let clients = redis.cli(&["INFO", "clients"]).await;
        clients.contains("blocked_clients:1").then_some(())
    })
    .await;
    store.append(&purge("all"), LogNumber::ZERO).await.unwrap();
    let woken = within("being woken", SOON, watching)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(numbers(&woken), [1]);
}

#[tokio::test]
async fn a_log_that_was_trimmed_says_so_to_those_who_missed_something() {
    let redis = Redis::start().await;
    let config = config::RedisTierConfig {
        purge_log_length: 10,
        ..config_of(&redis.url())
    };
    let store = connected(&config).await;
    // Redis trims by whole nodes of 100 entries.
    redis
        .cli(&["CONFIG", "SET", "stream-node-max-entries", "10"])
        .await;
    let mut last = LogNumber::ZERO;
    for n in 0..100 {
        last = store
            .append(&purge(&format!("tag:{n}")), last)
            .await
            .unwrap()
            .newest;
    }
    assert_eq!(last, LogNumber::new(100));
    assert!(!store.read_log(LogNumber::ZERO).await.unwrap().whole);
    let near = store.read_log(LogNumber::new(95)).await.unwrap();
    assert!(near.whole);
    assert_eq!(numbers(&near), [96, 97, 98, 99, 100]);
}

#[tokio::test]
async fn a_log_behind_what_a_node_knows_gets_another_generation() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let before = store
        .append(&purge("tag:a"), LogNumber::ZERO)
        .await
        .unwrap();
    // As after a failover that lost 2 to 9.
    let after = store
        .append(&purge("tag:b"), LogNumber::new(9))
        .await
        .unwrap();
    assert_ne!(after.generation, before.generation);
    assert_eq!(
        (numbers(&after), after.newest),
        (vec![10], LogNumber::new(10))
    );
    let other = store.read_log(LogNumber::new(1)).await.unwrap();
    assert!(!other.whole, "2 to 9 are not there");
}

/// A number that was asked for alone gives its entry to the next one.
#[tokio::test]
async fn a_number_that_stands_in_the_entry_of_a_later_one_is_found_again() {
    let redis = Redis::start().await;
    let (one, other) = two(&redis).await;
    one.append(&purge("tag:a"), LogNumber::ZERO).await.unwrap();
    let known = one.append(&nothing(), LogNumber::new(1)).await.unwrap();
    let mut last = other.read_log(LogNumber::ZERO).await.unwrap().newest;
    for _ in 0..5 {
        last = other.append(&nothing(), last).await.unwrap().newest;
    }
    assert_eq!(redis.cli(&["XLEN", "lamina:{log}"]).await, "2");
    let log = one.read_log(known.newest).await.unwrap();
    assert_eq!(
        (log.generation, log.newest),
        (known.generation, LogNumber::new(7))
    );
    assert_eq!((log.fault, log.whole), (None, true));
}

/// Numbers of purges come back as numbers that were asked for alone.
#[tokio::test]
async fn an_older_log_that_gave_the_same_numbers_out_again_gets_another_generation() {
    let mut redis = Redis::start().await;
    let (knows, other) = two(&redis).await;
    knows
        .append(&purge("tag:a"), LogNumber::ZERO)
        .await
        .unwrap();
    other.read_log(LogNumber::ZERO).await.unwrap();
    redis.cli(&["SAVE"]).await;
    let before = knows
        .append(&purge("tag:b"), LogNumber::new(1))
        .await
        .unwrap();
    let before = knows.append(&purge("tag:c"), before.newest).await.unwrap();
    redis.restart().await;
    back(&*knows).await;
    back(&*other).await;
    let mut last = LogNumber::new(1);
    for _ in 0..4 {
        last = other.append(&nothing(), last).await.unwrap().newest;
    }
    assert_eq!((before.newest.value(), last.value()), (3, 5));
    let after = knows.read_log(before.newest).await.unwrap();
    assert_eq!(after.fault, Some(LogFault::RolledBack));
    assert!(after.generation > before.generation);
    assert_eq!((after.newest.value(), after.whole), (5, false));
    let told = other.read_log(last).await.unwrap();
    assert_eq!(told.generation, after.generation);
}

async fn two(redis: &Redis) -> (Arc<dyn Store>, Arc<dyn Store>) {
    let config = config_of(&redis.url());
    (connected(&config).await, connected(&config).await)
}

/// As `maxmemory-policy allkeys-lru` may do with any key.
#[tokio::test]
async fn a_log_that_lost_its_stream_or_its_head_gets_another_generation() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let mut generations = vec![
        store
            .append(&purge("tag:a"), LogNumber::ZERO)
            .await
            .unwrap()
            .generation,
    ];
    for name in ["lamina:{log}", "lamina:{log}h"] {
        redis.cli(&["DEL", name]).await;
        let log = store
            .append(&purge("tag:b"), LogNumber::ZERO)
            .await
            .unwrap();
        assert!(!generations.contains(&log.generation), "{name}");
        assert!(!log.whole, "{name}");
        generations.push(log.generation);
    }
}

#[tokio::test]
async fn a_lease_has_one_owner_until_it_ends() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let lease = owned(&*store, &key(1), MINUTE).await;
    let again = Lease::of(key(1));
    let answer = store.acquire(&again, MINUTE).await.unwrap();
    assert_eq!(answer, LeaseAcquisition::Busy);
    assert!(!store.release(&again).await.unwrap(), "it is another's");
    assert!(store.release(&lease).await.unwrap());
    let short = owned(&*store, &key(1), Duration::from_millis(30)).await;
    let next = Lease::of(key(1));
    wait_for("the lease ends by itself", SOON, || async {
        let answer = store.acquire(&next, MINUTE).await.unwrap();
        (answer == LeaseAcquisition::Owned).then_some(())
    })
    .await;
    assert!(!store.renew(&short, MINUTE).await.unwrap(), "it was lost");
    store.release(&short).await.unwrap();
    assert!(
        store.renew(&next, MINUTE).await.unwrap(),
        "it still is held"
    );
}

#[tokio::test]
async fn a_renewed_lease_outlives_its_first_term() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let lease = owned(&*store, &key(1), Duration::from_secs(5)).await;
    assert!(store.renew(&lease, MINUTE).await.unwrap());
    let ttl = redis.cli(&["PTTL", &name(&key(1), 'l')]).await;
    assert!(ttl.parse::<u64>().unwrap() > 30_000, "{ttl}");
}

#[tokio::test]
async fn a_former_owner_never_overwrites_the_winner() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    let former = owned(&*store, &key(1), MINUTE).await;
    redis.cli(&["DEL", &name(&key(1), 'l')]).await;
    let winner = owned(&*store, &key(1), MINUTE).await;
    let one = key(1);
    for (lease, text, written) in [
        (&winner, b"winner", StorePutOutcome::Stored),
        (&former, b"former", StorePutOutcome::NotOwner),
    ] {
        let leased = StorePut {
            lease: Some(lease),
            ..put(&one, text, 1)
        };
        assert_eq!(store.put(leased).await.unwrap(), written);
    }
    assert_eq!(record(&*store, &one).await.unwrap(), "winner");
}

#[tokio::test]
async fn a_lease_given_back_is_told_to_other_nodes() {
    let redis = Redis::start().await;
    let config = config_of(&redis.url());
    let (here, there) = (connected(&config).await, connected(&config).await);
    let mut freed = there.freed().expect("Redis tells");
    listening(&redis, 2).await;
    let lease = owned(&*here, &key(7), MINUTE).await;
    here.release(&lease).await.unwrap();
    // Word of the lease that `back` took and gave back may come first.
    let told = async { while freed.recv().await.unwrap() != key(7) {} };
    within("word of the lease", SOON, told).await;
}

/// Waits until `stores` listen for leases.
async fn listening(redis: &Redis, stores: usize) {
    let wanted = format!("lamina:freed\n{stores}");
    wait_for("the stores listen", SOON, || async {
        let said = redis.cli(&["PUBSUB", "NUMSUB", "lamina:freed"]).await;
        (said == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_outside_the_prefix_is_touched_and_globs_in_it_mean_nothing() {
    let redis = Redis::start().await;
    for name in ["other", "a:x", "ab:{log}"] {
        redis.cli(&["SET", name, "theirs"]).await;
    }
    let config = config::RedisTierConfig {
        prefix: Some("a*[b]?:".to_owned()),
        ..config_of(&redis.url())
    };
    let store = connected(&config).await;
    store.put(put(&key(1), b"x", 1)).await.unwrap();
    let log = store.append(&purge("all"), LogNumber::ZERO).await.unwrap();
    store.delete(&key(1), log.end()).await.unwrap();
    let lease = owned(&*store, &key(1), MINUTE).await;
    let keys = redis.cli(&["KEYS", "*"]).await;
    let mut ours = 0;
    for name in keys.lines() {
        let theirs = ["other", "a:x", "ab:{log}"].contains(&name);
        assert!(theirs || name.starts_with("a*[b]?:{"), "{name}");
        ours += usize::from(!theirs);
    }
    assert!(ours >= 4, "log, head, tombstone and lease: {keys}");
    for name in ["other", "a:x", "ab:{log}"] {
        assert_eq!(redis.cli(&["GET", name]).await, "theirs");
    }
    store.release(&lease).await.unwrap();
}

/// Every key but the log's ends by itself: nothing is left behind for ever. For the index
/// see l2_redis_index: a_shard_ends_with_its_last_record.
#[tokio::test]
async fn every_key_has_an_end_of_life() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    store.put(put(&key(1), b"x", 1)).await.unwrap();
    store.delete(&key(2), place(numbered(2))).await.unwrap();
    owned(&*store, &key(3), MINUTE).await;
    let keys = redis.cli(&["KEYS", "*"]).await;
    let mut ended = 0;
    for name in keys.lines().filter(|name| !name.contains("{log}")) {
        let ttl: i64 = redis.cli(&["PTTL", name]).await.parse().unwrap();
        assert!(ttl > 0, "{name}: {ttl}");
        ended += 1;
    }
    assert!(ended >= 4, "record, birth, tombstone and lease: {keys}");
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    store.put(put(&key(1), b"x", 1)).await.unwrap();
    redis.cli(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(record(&*store, &key(1)).await.unwrap(), "x");
    store.append(&purge("all"), LogNumber::ZERO).await.unwrap();
}

/// Bytes that the server has sent so far.
async fn sent(redis: &Redis) -> u64 {
    let info = redis.cli(&["INFO", "stats"]).await;
    let line = info
        .lines()
        .find_map(|l| l.strip_prefix("total_net_output_bytes:"));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_dropped_store_leaves_no_connection() {
    let redis = Redis::start().await;
    let store = connected(&config_of(&redis.url())).await;
    listening(&redis, 1).await;
    drop(store);
    wait_for("the server is alone again", SOON, || async {
        let clients = redis.cli(&["CLIENT", "LIST"]).await;
        (clients.lines().count() == 1).then_some(())
    })
    .await;
}
