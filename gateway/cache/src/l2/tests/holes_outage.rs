//! Leases and outages: the weaknesses of the seed that a failing store shows.

use super::*;

const COOLDOWN: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(20);

/// Publishes that are dropped while the breaker is open; a retry queue that is drained only on the
/// next publish.
#[tokio::test]
async fn a_purge_made_while_the_breaker_is_open_reaches_the_others_by_itself() {
    let store = Arc::new(Memory::default());
    let one = Node::with(&store, |l2| {
        l2.breaker.cooldown = crate::units::ConfigDuration(COOLDOWN)
    })
    .await;
    let other = Node::known(&store).await;
    assert!(one.tier.known(LIFE).await);
    one.put(&entry(&key("a"), Duration::ZERO, one.cache.order()))
        .await;
    store.down.store(true, SeqCst);
    while one.metric("lamina_l2_breaker_open") == 0.0 {
        assert!(one.find(&key("a")).await.is_none());
    }
    let mut told = one
        .cache
        .purge_everywhere(&Selector::Tag("x".into()), PurgeKind::Hard)
        .1
        .unwrap();
    // Long enough for some failed attempts.
    let early = tokio::time::timeout(COOLDOWN * 10, &mut told).await;
    assert!(early.is_err(), "it waits");
    store.down.store(false, SeqCst);
    let number = tokio::time::timeout(LIMIT, told).await.unwrap().unwrap();
    tokio::time::timeout(LIMIT, other.hears(number))
        .await
        .unwrap();
    assert!(other.shown(&key("a")).await.is_none());
}

/// A failed lock request that is taken for contention.
#[tokio::test]
async fn a_store_that_fails_is_not_another_owner() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    store.down.store(true, SeqCst);
    let home = KeyId::of(key("a").as_bytes());
    for _ in 0..10 {
        let turn = node.tier.wait_for_lease(home, &key("a").to_key()).await;
        assert!(
            matches!(turn, LeaseHolder::Unknown),
            "with the breaker and without"
        );
    }
}

/// A lease that is not renewed.
#[tokio::test(start_paused = true)]
async fn a_lease_is_held_as_long_as_its_load_runs() {
    let store = Arc::new(Memory::default());
    let (one, other) = (Node::known(&store).await, Node::known(&store).await);
    let (home, key) = (KeyId::of(key("a").as_bytes()), key("a").to_key());
    let LeaseHolder::Mine(held) = one.tier.wait_for_lease(home, &key).await else {
        panic!("it is free");
    };
    tokio::time::sleep(LIFE).await;
    assert!(matches!(
        other.tier.wait_for_lease(home, &key).await,
        LeaseHolder::Others
    ));
    drop(held);
    let freed = async {
        while !matches!(
            other.tier.wait_for_lease(home, &key).await,
            LeaseHolder::Mine(_)
        ) {
            tokio::time::sleep(COOLDOWN).await;
        }
    };
    tokio::time::timeout(LIMIT, freed).await.unwrap();
}

/// A second tier without a deadline: here in the tier itself, whatever the store does.
#[tokio::test(start_paused = true)]
async fn no_read_outlives_its_deadline() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    let _silent = store.answers.write().await;
    let began = tokio::time::Instant::now();
    let (name, request) = (key("a"), HeaderMap::new());
    let sought = tokio::time::timeout(LIMIT, node.tier.find(&name, &request)).await;
    assert!(matches!(sought, Ok(L2Lookup::Unknown)));
    assert!(began.elapsed() <= Duration::from_millis(51));
}

/// A removal that is done must not show a key that another removal still hides.
#[tokio::test(start_paused = true)]
async fn a_key_is_hidden_until_its_last_removal_is_done() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    let page = Arc::new(entry(&key("a"), Duration::ZERO, 1));
    node.cache.drop_entry(&page);
    while store.deletes.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    store.down.store(true, SeqCst);
    node.cache.drop_entry(&page);
    tokio::time::sleep(LIFE).await;
    assert!(node.tier.removals.hides(&StoreKey::of(key("a").as_bytes())));
}
