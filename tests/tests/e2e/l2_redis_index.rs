//! The index of the Redis store: every promise of the `Store` trait that is about it.

use std::time::Duration;

use e2e::redis::{Cluster, Redis};
use e2e::wait::{SOON, wait_for};
use lamina_cache::l2::redis::config;
use lamina_cache::l2::store::{
    IndexMember, IndexNote, IndexedUrl, Store, StoreKey, StorePutOutcome,
};

use crate::l2_redis::{MAX, MINUTE, config_of, connected, key, name, numbered, place, put};

const INDEX: &str = "lamina:index:{0}";
const TEXTS: &str = "lamina:index:{0}u";
const DAY: Duration = Duration::from_secs(86_400);

/// With an index of so many shards.
fn indexed(url: &str, shards: u16) -> config::RedisTierConfig {
    let enabled = true;
    config::RedisTierConfig {
        index: config::RedisIndexConfig { enabled, shards },
        ..config_of(url)
    }
}

/// A record born at a number of the purge log.
fn noted(key: StoreKey, url: &str, born: u64, life: Duration) -> IndexNote {
    IndexNote {
        key,
        born: numbered(born),
        life,
        text: IndexedUrl::of(url),
    }
}

/// All members of a shard.
async fn members(store: &dyn Store, shard: u16) -> Vec<IndexMember> {
    let mut members = Vec::new();
    let mut from = 0;
    loop {
        let page = store.page(shard, from, 10).await.unwrap();
        members.extend(page.members);
        from = page.next;
        if from == 0 {
            return members;
        }
    }
}

async fn number(redis: &Redis, command: &[&str]) -> f64 {
    redis.cli(command).await.parse().unwrap()
}

#[tokio::test]
async fn what_is_noted_is_found_by_pages_with_its_birth_and_url() {
    let redis = Redis::start().await;
    let store = connected(&indexed(&redis.url(), 1)).await;
    assert_eq!(store.index_shards(), 1);
    assert!(members(&*store, 0).await.is_empty());
    let all: Vec<_> = (0..1_000)
        .map(|n| noted(key(n), &format!("shop.example/é?{n}"), 3, MINUTE))
        .collect();
    for some in all.chunks(64) {
        store.note(0, some).await.unwrap();
    }
    let first = store.page(0, 0, 10).await.unwrap();
    assert!(first.members.len() < 100 && first.next != 0, "in pages");
    let mut found = members(&*store, 0).await;
    found.sort_by_key(|member| member.key.id);
    found.dedup();
    let mut wanted = all;
    wanted.sort_by_key(|noted| noted.key.id);
    assert_eq!(found.len(), 1_000);
    for (member, noted) in found.iter().zip(&wanted) {
        assert_eq!((member.key, &member.text), (noted.key, &noted.text));
        assert_eq!(member.born, numbered(3));
        assert_eq!(member.name, name(&noted.key, 'r'));
    }
}

#[tokio::test]
async fn a_key_that_is_loaded_by_other_urls_is_one_member_with_the_last_of_them() {
    let redis = Redis::start().await;
    let store = connected(&indexed(&redis.url(), 1)).await;
    for n in 0..20 {
        let url = format!("shop.example/?utm={n}");
        let again = [noted(key(1), &url, 3, MINUTE)];
        store.note(0, &again).await.unwrap();
    }
    let members = members(&*store, 0).await;
    assert_eq!(members.len(), 1);
    assert_eq!(&*members[0].text.url, "shop.example/?utm=19");
    assert_eq!(number(&redis, &["ZCARD", INDEX]).await, 1.0);
}

#[tokio::test]
async fn expired_members_go_by_their_time_along_with_what_is_noted() {
    let redis = Redis::start().await;
    let store = connected(&indexed(&redis.url(), 1)).await;
    let brief: Vec<_> = (0..50)
        .map(|n| noted(key(n), "a/", 1, Duration::from_millis(1)))
        .collect();
    store.note(0, &brief).await.unwrap();
    let lasting = [noted(key(100), "b/", 1, MINUTE)];
    wait_for("the others are gone", SOON, || async {
        store.note(0, &lasting).await.unwrap();
        let left = number(&redis, &["ZCARD", INDEX]).await;
        (left == 1.0).then_some(())
    })
    .await;
    let left = members(&*store, 0).await;
    assert_eq!(left.len(), 1, "their texts went with them");
    assert_eq!(left[0].key, key(100));
}

/// A hole of the seed: an index scored by write time. Here a score is when the record ends,
/// and it only grows: of two writes that are noted in the other order the longer counts.
#[tokio::test]
async fn a_member_is_scored_by_the_end_of_its_record_and_never_set_back() {
    let redis = Redis::start().await;
    let store = connected(&indexed(&redis.url(), 1)).await;
    let new = noted(key(1), "new/", 5, DAY);
    let late = noted(key(1), "late/", 4, Duration::from_millis(1));
    store.note(0, &[new]).await.unwrap();
    let clock = redis.cli(&["TIME"]).await;
    let now: f64 = clock.lines().next().unwrap().parse().unwrap();
    store.note(0, &[late]).await.unwrap();
    let member = redis.cli(&["ZRANGE", INDEX, "0", "-1", "WITHSCORES"]).await;
    let score: f64 = member.lines().last().unwrap().parse().unwrap();
    let ahead = score / 1_000.0 - now;
    assert!((86_000.0..=86_401.0).contains(&ahead), "{ahead} s");
    let members = members(&*store, 0).await;
    assert_eq!(members[0].born, numbered(5), "the later birth stays");
    assert_eq!(&*members[0].text.url, "new/");
}

#[tokio::test]
async fn a_shard_ends_with_its_last_record() {
    let redis = Redis::start().await;
    let store = connected(&indexed(&redis.url(), 1)).await;
    let both = [
        noted(key(1), "a/", 1, DAY),
        noted(key(2), "a/", 1, Duration::from_secs(1)),
    ];
    store.note(0, &both).await.unwrap();
    store.note(0, &both[1..]).await.unwrap();
    for name in [INDEX, TEXTS] {
        let left = number(&redis, &["PTTL", name]).await;
        assert!((86_000_000.0..=86_400_000.0).contains(&left), "{left}");
    }
}

/// As `maxmemory-policy allkeys-lru` may do with any key.
#[tokio::test]
async fn an_index_that_lost_one_of_its_halves_goes_on() {
    let redis = Redis::start().await;
    let store = connected(&indexed(&redis.url(), 1)).await;
    let one = |n| [noted(key(n), "a/", 1, MINUTE)];
    store.note(0, &one(1)).await.unwrap();
    redis.cli(&["DEL", INDEX]).await;
    store.note(0, &one(2)).await.unwrap();
    let texts = number(&redis, &["HLEN", TEXTS]).await;
    assert_eq!(texts, 1.0, "nobody would ever trim the other");
    redis.cli(&["DEL", TEXTS]).await;
    store.note(0, &one(3)).await.unwrap();
    let members = members(&*store, 0).await;
    assert_eq!(members.len(), 1);
    assert!(number(&redis, &["PTTL", TEXTS]).await > 0.0);
}

#[tokio::test]
async fn only_what_is_there_and_ends_has_time_left() {
    let redis = Redis::start().await;
    let store = connected(&indexed(&redis.url(), 1)).await;
    store.put(put(&key(1), b"x", 1)).await.unwrap();
    redis.cli(&["SET", &name(&key(2), 'r'), "for ever"]).await;
    let left = store.left(&[key(1), key(2), key(3)]).await.unwrap();
    assert!(left[0].is_some_and(|left| left <= MINUTE && left > MINUTE / 2));
    assert_eq!(left[1..], [None, None]);
}

#[tokio::test]
async fn what_was_born_before_a_purge_is_cleared_and_leaves_nothing() {
    let redis = Redis::start().await;
    let store = connected(&indexed(&redis.url(), 1)).await;
    let size = number(&redis, &["DBSIZE"]).await;
    let keys: Vec<_> = (0..50).map(key).collect();
    for key in &keys {
        store.put(put(key, b"x", 4)).await.unwrap();
        let one = [noted(*key, "a/", 4, MINUTE)];
        store.note(0, &one).await.unwrap();
    }
    let clear = || store.clear(0, &keys, place(numbered(5)));
    assert_eq!(clear().await.unwrap(), 50);
    assert_eq!(number(&redis, &["DBSIZE"]).await, size, "no tombstones");
    assert_eq!(clear().await.unwrap(), 0, "they are gone");
}

/// The record is looked at, not what the index says of it: that may be older, or missing.
#[tokio::test]
async fn what_was_born_after_a_purge_is_neither_cleared_nor_forgotten() {
    let redis = Redis::start().await;
    let store = connected(&indexed(&redis.url(), 1)).await;
    // Stored again since it was noted.
    store.put(put(&key(1), b"new", 5)).await.unwrap();
    // Noted again since its record was looked for: by another node, in between.
    let ahead = noted(key(2), "a/", 5, MINUTE);
    // Somebody evicted its birth.
    store.put(put(&key(3), b"?", 1)).await.unwrap();
    redis.cli(&["DEL", &name(&key(3), 'b')]).await;
    let behind = |n| noted(key(n), "a/", 4, MINUTE);
    store.note(0, &[behind(1), ahead, behind(3)]).await.unwrap();
    let keys = [key(1), key(2), key(3)];
    assert_eq!(store.clear(0, &keys, place(numbered(5))).await.unwrap(), 0);
    for n in [1, 3] {
        assert!(store.get(&key(n), MAX).await.unwrap().is_some(), "{n}");
    }
    assert_eq!(members(&*store, 0).await.len(), 3);
}

#[tokio::test]
async fn nested_prefixes_and_globs_in_them_keep_their_indexes_apart() {
    let redis = Redis::start().await;
    let under = |prefix: &str| config::RedisTierConfig {
        prefix: Some(prefix.to_owned()),
        ..indexed(&redis.url(), 1)
    };
    let outer = connected(&under("a*[b]?:")).await;
    let inner = connected(&under("a*[b]?:index:")).await;
    let others = connected(&under("axb1:")).await;
    for (n, store) in [&outer, &inner, &others].into_iter().enumerate() {
        let n = u32::try_from(n).unwrap();
        store.put(put(&key(n), b"x", 1)).await.unwrap();
        let one = [noted(key(n), "a/", 1, MINUTE)];
        store.note(0, &one).await.unwrap();
    }
    let all = [key(0), key(1), key(2)];
    assert_eq!(outer.clear(0, &all, place(numbered(9))).await.unwrap(), 1);
    for (n, store, left) in [(0, &outer, 0), (1, &inner, 1), (2, &others, 1)] {
        let members = members(&**store, 0).await;
        assert_eq!(members.len(), left, "{n}");
        assert!(members.iter().all(|member| member.key == key(n)));
        let record = store.get(&key(n), MAX).await.unwrap();
        assert_eq!(record.is_some(), left == 1, "{n}");
    }
}

#[tokio::test]
async fn on_a_cluster_the_shards_are_spread_and_every_call_works() {
    const SHARDS: u16 = 16;
    let cluster = Cluster::start().await;
    let store = connected(&indexed(&cluster.url(), SHARDS)).await;
    let keys: Vec<_> = (0..200).map(key).collect();
    for key in &keys {
        let wrote = store.put(put(key, b"x", 1)).await.unwrap();
        assert_eq!(wrote, StorePutOutcome::Stored);
        let one = [noted(*key, "a/", 1, MINUTE)];
        store.note(key.shard(SHARDS), &one).await.unwrap();
    }
    let mut owners = std::collections::BTreeSet::new();
    let mut found = 0;
    for shard in 0..SHARDS {
        let index = format!("lamina:index:{{{shard}}}");
        let owner = cluster.owner(0, &index).await.expect("somebody has it");
        let there = number(&cluster.nodes[owner], &["EXISTS", &index]).await;
        assert_eq!(there, 1.0, "{index}");
        owners.insert(owner);
        found += members(&*store, shard).await.len();
    }
    assert_eq!((found, owners.len()), (200, 3));
    let left = store.left(&keys).await.unwrap();
    assert!(left.iter().all(Option::is_some));
    for shard in 0..SHARDS {
        let of = |key: &&StoreKey| key.shard(SHARDS) == shard;
        let some: Vec<_> = keys.iter().filter(of).copied().collect();
        let removed = store.clear(shard, &some, place(numbered(2))).await.unwrap();
        assert_eq!(removed, some.len());
        assert!(members(&*store, shard).await.is_empty());
    }
}
