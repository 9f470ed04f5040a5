//! No node shows from the second tier what requests made invalid, and nothing else is lost.

use super::*;

/// A page that can be invalidated by its path.
fn page(path: &str, groups: &[u64], born: PurgeOrder) -> (KeyBuf, Entry) {
    let mut key = key(path);
    key.end_identity();
    let plain = entry(&key, Duration::ZERO, born);
    let marks = PurgeAttributes {
        identity: key.identity(),
        groups: groups.into(),
        ..plain.marks.clone()
    };
    let page = Entry::new(
        plain.key.clone(),
        plain.status,
        plain.headers.clone(),
        plain.body.clone(),
        plain.freshness,
        marks,
        born,
    );
    (key, page)
}

async fn noted(node: &Node) {
    while node.metric("lamina_l2_invalidations_waiting") > 0.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_a_request_made_invalid_is_shown_from_below_by_no_node() {
    let store = Arc::new(Memory::default());
    let (node, other) = (Node::known(&store).await, Node::known(&store).await);
    for (path, groups, number) in [
        ("a", &[][..], None),
        ("b", &[77][..], Some(77)),
        ("c", &[78, 79][..], Some(79)),
    ] {
        let (key, old) = page(path, groups, node.cache.order());
        let number = number.unwrap_or(key.identity());
        node.put(&old).await;
        assert!(other.shown(&key).await.is_some(), "{path}");
        node.cache.invalidate(&[number]);
        assert!(node.find(&key).await.is_none(), "{path}: at once here");
        noted(&node).await;
        assert!(other.find(&key).await.is_none(), "{path}");
        // An entry that was loaded before and is written later, by any node.
        let (_, late) = page(path, groups, old.born.shared());
        other.put(&late).await;
        assert!(node.find(&key).await.is_none(), "{path}: written late");
        let (_, new) = page(path, groups, node.cache.order());
        node.put(&new).await;
        assert!(node.shown(&key).await.is_some(), "{path}: the new one");
    }
    assert_eq!(node.cache.log.records(), 0, "no record anywhere");
    let log = store.read_log(LogNumber::ZERO).await.unwrap();
    assert!(log.purges.iter().all(|p| p.purge.selector == "route:"));
}

/// The note is written between the store's answer and its arrival here.
#[tokio::test]
async fn an_answer_of_the_store_that_is_older_than_an_invalidation_is_not_shown() {
    let store = Arc::new(Memory::default());
    let node = Node::with(&store, |l2| {
        l2.read_timeout = crate::units::ConfigDuration(LIFE)
    })
    .await;
    assert!(node.tier.known(LIFE).await);
    for (path, groups) in [("a", &[][..]), ("b", &[77][..])] {
        let (key, old) = page(path, groups, node.cache.order());
        node.put(&old).await;
        let answers = match groups {
            [] => store.answers.write().await,
            _ => store.told.write().await,
        };
        let number = groups.first().copied().unwrap_or(key.identity());
        node.cache.invalidate(&[number]);
        let arrives = async {
            noted(&node).await;
            drop(answers);
        };
        let (shown, ()) = tokio::join!(node.shown(&key), arrives);
        assert!(shown.is_none(), "{path}");
    }
}

#[tokio::test]
async fn a_node_that_is_behind_invalidates_what_is_ahead_of_it() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    let (key, ahead) = page(
        "a",
        &[],
        PurgeOrder::numbered(store.purge("tag:else").value()),
    );
    node.hears(1).await;
    node.put(&ahead).await;
    let behind = Node::known(&store).await;
    behind.cache.invalidate(&[key.identity()]);
    noted(&behind).await;
    assert!(node.find(&key).await.is_none());
}

#[tokio::test]
async fn what_nobody_has_leaves_nothing_in_the_store() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    let (kept, page) = page("kept", &[5], node.cache.order());
    node.put(&page).await;
    for n in 0..20_000 {
        node.cache.invalidate(&[hash64(format!("{n}").as_bytes())]);
    }
    noted(&node).await;
    assert_eq!(store.notes(), 2, "of the page and its group");
    assert_eq!(
        store.read_log(LogNumber::ZERO).await.unwrap().purges.len(),
        0
    );
    assert!(node.shown(&kept).await.is_some());
}

#[tokio::test]
async fn too_many_while_the_store_is_away_have_what_is_stored_validated() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    let (kept, page) = page("kept", &[], node.cache.order());
    node.put(&page).await;
    store.down.store(true, SeqCst);
    for n in 0..70_000_u64 {
        node.cache.invalidate(&[n]);
    }
    assert!(node.metric("lamina_l2_invalidations_waiting") <= 65_536.0);
    store.down.store(false, SeqCst);
    let other = Node::known(&store).await;
    let shown = tokio::time::timeout(LIFE, async {
        loop {
            match other.shown(&kept).await {
                Some(FreshnessState::Stale(_)) => return,
                Some(FreshnessState::Fresh) => tokio::time::sleep(Duration::from_millis(5)).await,
                None => panic!("it is lost"),
            }
        }
    });
    shown.await.expect("it is doubted in the end");
}

#[tokio::test]
async fn a_write_that_an_invalidation_overtook_is_not_made() {
    let store = Arc::new(Memory::default());
    let node = Node::over(&store).await;
    let (key, page) = page("a", &[], node.cache.order());
    let page = Arc::new(page);
    node.cache
        .admit(key.to_key(), &Vary::None, Arc::clone(&page));
    node.cache.invalidate(&[key.identity()]);
    node.put(&page).await;
    assert_eq!(store.records(), 0);
    assert!(node.find(&key).await.is_none());
}
