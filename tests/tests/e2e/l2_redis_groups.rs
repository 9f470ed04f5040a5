//! The Redis store on a Sentinel group and on a Cluster, while masters die and slots move.

use e2e::redis::{Cluster, Sentinels};
use e2e::wait::{SOON, wait_for, within};
use lamina_cache::l2::redis::config;
use lamina_cache::l2::store::{LogNumber, LogPlace, Store, StoreError, StorePutOutcome};

use crate::l2_redis::{
    MAX, MINUTE, config_of, connected, key, name, numbered, numbers, owned, purge, put, put_at,
};

/// A group whose dead are left in time: what was sent to one is lost by its silence.
fn group_of(url: &str) -> config::RedisTierConfig {
    config::RedisTierConfig {
        connect_timeout: lamina_base::units::ConfigDuration::secs(5),
        silence_timeout: lamina_base::units::ConfigDuration::secs(5),
        ..config_of(url)
    }
}

/// Waits until a write of `n` succeeds.
async fn writes(store: &dyn Store, n: u32) {
    wait_for("writes succeed", SOON * 2, || async {
        let born = LogPlace {
            order: numbered(9),
            ..store.read_log(LogNumber::ZERO).await.ok()?.end()
        };
        let written = store.put(put_at(&key(n), b"again", born)).await.ok()?;
        (written == StorePutOutcome::Stored).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_master_behind_sentinel_is_replaced() {
    let mut group = Sentinels::start().await;
    let store = connected(&group_of(&group.url())).await;
    let log = store
        .append(&purge("tag:a"), LogNumber::ZERO)
        .await
        .unwrap();
    let first = group.master().await.expect("there is a master");
    replicated(&group, first).await;
    group.servers[first].kill();
    group.impatient().await;
    writes(&*store, 1).await;
    let found = store.get(&key(1), MAX).await.unwrap().unwrap();
    assert_eq!(found.record, "again");
    assert_ne!(group.master().await, Some(first));
    let after = store.read_log(LogNumber::ZERO).await.unwrap();
    assert_eq!(after.generation, log.generation, "the log was replicated");
    assert_eq!(numbers(&after), [1]);
}

/// Waits until the replicas have what the master has.
async fn replicated(group: &Sentinels, master: usize) {
    let said = group.servers[master].cli(&["WAIT", "2", "20000"]).await;
    assert_eq!(said, "2");
}

/// A fail-over that cuts no connection: the old master answers READONLY.
#[tokio::test]
async fn a_demoted_master_is_left_for_the_new_one() {
    let group = Sentinels::start().await;
    let store = connected(&group_of(&group.url())).await;
    let first = group.master().await.expect("there is a master");
    replicated(&group, first).await;
    let other = (first + 1) % 3;
    group.servers[other].cli(&["REPLICAOF", "NO", "ONE"]).await;
    let port = group.servers[other].port.to_string();
    // Keeps the connections that stand, as a partial fail-over by hand does.
    group.servers[first]
        .cli(&["REPLICAOF", "127.0.0.1", &port])
        .await;
    match store.put(put(&key(1), b"x", 1)).await {
        Err(StoreError::Refused(_, word)) => assert!(word.contains("READONLY"), "{word}"),
        // Redis may have closed its clients.
        Err(StoreError::Down(_)) => {}
        other => panic!("{other:?}"),
    }
    group.follow(other).await;
    writes(&*store, 1).await;
}

#[tokio::test]
async fn every_call_works_on_a_cluster() {
    let cluster = Cluster::start().await;
    let store = connected(&group_of(&cluster.url())).await;
    for n in 0..50 {
        assert_eq!(
            store.put(put(&key(n), b"x", 1)).await.unwrap(),
            StorePutOutcome::Stored
        );
        assert!(store.get(&key(n), MAX).await.unwrap().is_some());
        let lease = owned(&*store, &key(n), MINUTE).await;
        assert!(store.renew(&lease, MINUTE).await.unwrap());
        store.release(&lease).await.unwrap();
    }
    let log = store
        .append(&purge("tag:a"), LogNumber::ZERO)
        .await
        .unwrap();
    assert_eq!(numbers(&log), [1]);
    let told = store.watch_log(LogNumber::ZERO, MINUTE).await.unwrap();
    assert_eq!(numbers(&told), [1]);
    let mut freed = store.freed().expect("Redis tells");
    let lease = owned(&*store, &key(60), MINUTE).await;
    store.release(&lease).await.unwrap();
    // Word of the leases above may come late.
    let told = async { while freed.recv().await.unwrap() != key(60) {} };
    within("word of a lease", SOON, told).await;
}

#[tokio::test]
async fn a_moved_slot_is_followed() {
    let cluster = Cluster::start().await;
    let store = connected(&group_of(&cluster.url())).await;
    store.put(put(&key(1), b"moved", 1)).await.unwrap();
    let name = name(&key(1), 'r');
    let from = cluster.owner(0, &name).await.expect("somebody has it");
    let to = Cluster::masters().find(|node| *node != from).unwrap();
    cluster.move_slot(&name, to).await;
    let found = wait_for("the slot is found", SOON, || async {
        store.get(&key(1), MAX).await.ok()
    })
    .await;
    assert_eq!(found.unwrap().record, "moved");
    assert_eq!(cluster.owner(to, &name).await, Some(to));
}

#[tokio::test]
async fn a_killed_node_of_a_cluster_is_replaced() {
    let mut cluster = Cluster::start().await;
    let store = connected(&group_of(&cluster.url())).await;
    let dead = cluster
        .owner(0, &name(&key(1), 'r'))
        .await
        .expect("somebody has it");
    cluster.nodes[dead].kill();
    cluster.impatient().await;
    writes(&*store, 1).await;
    for n in 0..20 {
        writes(&*store, n).await;
    }
}
