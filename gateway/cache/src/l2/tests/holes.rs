//! Order, values and time: the weaknesses of the seed that can be shown with one store (the table
//! of all of them is in tests/tests/e2e/l2_holes.rs).

use super::*;

/// An entry that selectors of every kind reach.
fn reachable(key: &KeyBuf, born: PurgeOrder) -> Entry {
    let mut entry = entry(key, Duration::ZERO, born);
    entry.marks.identity = 7;
    entry.marks.route = hash64(b"r");
    entry.marks.groups = Box::new([9]);
    entry.marks.url = "site.example/a".into();
    entry
}

fn selectors(key: &KeyBuf) -> [Selector; 8] {
    [
        Selector::Key(KeyId::of(key.as_bytes())),
        Selector::Url(7),
        Selector::Prefix("/a".into()),
        Selector::Pattern(crate::pattern::Pattern::new("site.*/?")),
        Selector::Tag("x".into()),
        Selector::Group(9),
        Selector::Route("r".into()),
        Selector::All,
    ]
}

/// A load racing a delete, a pattern purge racing a set: written late, in the second tier and in
/// L1.
#[tokio::test]
async fn what_was_loaded_before_a_purge_is_shown_by_no_node_however_late_it_is_written() {
    let key = key("a");
    for selector in selectors(&key) {
        let store = Arc::new(Memory::default());
        let (one, other) = (Node::known(&store).await, Node::known(&store).await);
        let born = one.cache.order();
        let told = other.cache.purge_everywhere(&selector, PurgeKind::Hard).1;
        one.hears(told.unwrap().await.unwrap()).await;
        one.put(&reachable(&key, born)).await;
        assert_eq!(store.records(), 1, "no write waits for purges");
        for node in [&one, &other] {
            assert!(node.shown(&key).await.is_none(), "{selector}");
            let late = Arc::new(reachable(&key, born));
            assert!(!node.cache.admit(key.to_key(), &Vary::None, late));
        }
        other.put(&reachable(&key, other.cache.order())).await;
        assert!(one.shown(&key).await.is_some(), "{selector}: the next load");
    }
}

/// An L2 read racing a delete, then promoted.
#[tokio::test]
async fn what_is_read_while_a_purge_comes_is_not_promoted() {
    let store = Arc::new(Memory::default());
    let node = Node::with(&store, |l2| {
        l2.read_timeout = crate::units::ConfigDuration(LIFE)
    })
    .await;
    assert!(node.tier.known(LIFE).await);
    for removed in [false, true] {
        let old = Arc::new(entry(&key("a"), Duration::ZERO, node.cache.order()));
        node.put(&old).await;
        let (answers, reads) = (store.answers.write().await, store.reads.load(SeqCst));
        let key = key("a");
        let deletes = store.deletes.load(SeqCst);
        let comes = async {
            while store.reads.load(SeqCst) == reads {
                tokio::task::yield_now().await;
            }
            match removed {
                true => node.cache.drop_entry(&old),
                false => drop(
                    node.cache
                        .purge(&Selector::Tag("x".into()), PurgeKind::Hard),
                ),
            }
            while removed && store.deletes.load(SeqCst) == deletes {
                tokio::task::yield_now().await;
            }
            drop(answers);
        };
        let (shown, ()) = tokio::join!(node.shown(&key), comes);
        assert!(shown.is_none(), "removed: {removed}");
        let found = node.cache.lookup(&key, &HeaderMap::new(), Instant::now());
        assert!(matches!(found, Lookup::Miss(..)), "removed: {removed}");
        node.tier.feed.settled().await;
    }
}

/// Counters that restart at zero after a reboot.
#[tokio::test]
async fn a_node_that_begins_anew_takes_up_the_order_where_it_was() {
    let store = Arc::new(Memory::default());
    let first = Node::known(&store).await;
    let born = first.cache.order();
    let tag = Selector::Tag("x".into());
    let told = first.cache.purge_everywhere(&tag, PurgeKind::Hard).1;
    let number = told.unwrap().await.unwrap();
    drop(first);
    let again = Node::known(&store).await;
    again.put(&entry(&key("a"), Duration::ZERO, born)).await;
    assert!(again.shown(&key("a")).await.is_none(), "an old value won");
    let loaded = entry(&key("b"), Duration::ZERO, again.cache.order());
    again.put(&loaded).await;
    assert!(again.shown(&key("b")).await.is_some(), "a new one is shown");
    let told = again.cache.purge_everywhere(&tag, PurgeKind::Hard).1;
    assert!(told.unwrap().await.unwrap() > number);
    assert!(again.shown(&key("b")).await.is_none(), "a delete was lost");
}

/// Peers that delete from L2 again on each event and so destroy a newer value.
#[tokio::test]
async fn who_hears_of_a_purge_deletes_nothing_below() {
    let store = Arc::new(Memory::default());
    let (one, other) = (Node::known(&store).await, Node::known(&store).await);
    one.put(&entry(&key("a"), Duration::ZERO, one.cache.order()))
        .await;
    let id = Selector::Key(KeyId::of(key("a").as_bytes()));
    let told = one.cache.purge_everywhere(&id, PurgeKind::Hard).1;
    let number = told.unwrap().await.unwrap();
    one.put(&entry(&key("a"), Duration::ZERO, one.cache.order()))
        .await;
    other.hears(number).await;
    other.hears(store.purge("tag:else")).await;
    assert_eq!(store.deletes.load(SeqCst), 0);
    assert!(other.shown(&key("a")).await.is_some(), "the newer value");
}

/// An event marked as seen before it was applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_counts_as_known_only_when_its_purges_hold() {
    const MANY: u64 = 20_000;
    let store = Arc::new(Memory::default());
    let node = Arc::new(Node::known(&store).await);
    // Appended as one range.
    let news = store.answers.write().await;
    for n in 1..MANY {
        store.purge(&format!("tag:t{n}"));
    }
    store.purge("tag:x");
    drop(news);
    let entry = entry(&key("a"), Duration::ZERO, 1);
    let looking = Arc::clone(&node);
    let shown = tokio::task::spawn_blocking(move || {
        while looking.tier.feed.applied().value() < MANY {
            std::hint::spin_loop();
        }
        looking.cache.shows(&entry)
    });
    assert!(!shown.await.unwrap());
}

/// Promotion that restarts the TTL; a stale window counted from the last touch.
#[tokio::test]
async fn no_clock_restarts_below_or_on_the_way_up() {
    let store = Arc::new(Memory::default());
    let (one, other) = (Node::known(&store).await, Node::known(&store).await);
    let window = Duration::from_secs(100);
    let mut page = entry(&key("a"), Duration::ZERO, 1);
    page.freshness.while_revalidate = window;
    one.put(&page).await;
    let near = Duration::from_secs(10);
    store.pass(LIFE - near);
    let found = other.find(&key("a")).await.unwrap();
    assert!(found.freshness.ttl(Instant::now()) <= 10);
    assert!(found.remaining_life(Instant::now()) <= near + window);
    store.pass(near + window / 2);
    for _ in 0..3 {
        let state = other.shown(&key("a")).await;
        assert!(matches!(state, Some(FreshnessState::Stale(w)) if w.while_revalidate));
        store.pass(window / 8);
    }
    store.pass(window / 8);
    assert!(other.shown(&key("a")).await.is_none(), "the window is over");
}

/// A corrupt record that is served as an empty hit.
#[tokio::test]
async fn a_damaged_or_foreign_record_is_a_miss_and_the_next_write_puts_it_right() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    let name = StoreKey::of(key("b").as_bytes());
    node.put(&entry(&key("b"), Duration::ZERO, 1)).await;
    let theirs = store.get(&name, 1 << 20).await.unwrap().unwrap().record;
    let changes: [&dyn Fn(&Bytes) -> Bytes; 7] = [
        &|_| Bytes::new(),
        &|_| Bytes::from_static(b"null"),
        &|_| Bytes::from_static(b"HC1M"),
        &|_| theirs.clone(),
        &|record| record.slice(..record.len() - 1),
        &|record| [b"HC2M", &record[4..]].concat().into(),
        &|record| {
            let mut bytes = record.to_vec();
            bytes[20] ^= 1;
            bytes.into()
        },
    ];
    for change in changes {
        node.put(&entry(&key("a"), Duration::ZERO, 1)).await;
        assert_eq!(node.find(&key("a")).await.unwrap().body.bytes(), "body");
        store.spoil(change);
        assert!(node.find(&key("a")).await.is_none());
    }
    assert_eq!(node.metric("lamina_l2_records_corrupt_total"), 7.0);
}

/// A value equal to a sentinel.
#[tokio::test]
async fn a_body_that_looks_like_nothing_or_like_a_record_is_a_body() {
    let store = Arc::new(Memory::default());
    let (one, other) = (Node::known(&store).await, Node::known(&store).await);
    let bodies: [&'static [u8]; 7] = [
        b"",
        b"null",
        b"undefined",
        b"\0",
        b"HC1M",
        b"HC1G\x1f\x8b",
        b"__lazy_layers_null__",
    ];
    for body in bodies {
        let mut page = entry(&key("a"), Duration::ZERO, 1);
        page.body = Bytes::from_static(body).into();
        one.put(&page).await;
        assert_eq!(other.find(&key("a")).await.unwrap().body.bytes(), body);
    }
}

/// Compression on the event loop.
#[tokio::test]
async fn large_records_are_worked_on_beside_the_runtime() {
    let store = Arc::new(Memory::default());
    let node = Node::over(&store).await;
    assert!(node.tier.known(LIFE).await);
    let mut page = entry(&key("a"), Duration::ZERO, 1);
    let numbers = (0..100_000).map(|n| format!("{n} ")).collect::<String>();
    page.body = Bytes::from(numbers).into();
    node.tier.put(&page.key, &[], &page, LIFE);
    let name = StoreKey::of(key("a").as_bytes());
    let write = node.tier.writer.waiting(&name).unwrap();
    let codec = node.tier.codec();
    let encode = convert::encode(&write, &codec);
    tokio::pin!(encode);
    assert!(futures_util::poll!(encode.as_mut()).is_pending());
    let (record, _) = encode.await.unwrap();
    assert!(record.starts_with(b"HC1G") && record.len() < page.body.len());
    let name = key("a");
    let decode = convert::decode(name.as_bytes(), record, &codec);
    tokio::pin!(decode);
    assert!(futures_util::poll!(decode.as_mut()).is_pending());
    assert!(decode.await.is_ok());
}

/// Two answers of the store may overtake each other while it begins a new log.
#[tokio::test]
async fn an_answer_from_a_log_that_has_ended_does_not_bring_it_back() {
    let store = Arc::new(Memory::default());
    let node = Node::known(&store).await;
    let purged = |selector: &Selector| node.cache.purge_everywhere(selector, PurgeKind::Hard).1;
    let first = purged(&Selector::Tag("other".into()))
        .unwrap()
        .await
        .unwrap();
    let old = reachable(&key("a"), node.tier.order_at(first));
    let (early, born) = (
        node.tier.feed.question(),
        node.tier.place_of(old.born).unwrap(),
    );
    let answer = store.read_log(LogNumber::ZERO).await.unwrap();
    store.lose();
    let late = purged(&Selector::Tag("x".into())).unwrap().await;
    assert!(late.is_ok(), "the new log has the purge");
    let outcome = node.tier.feed.apply(answer, early);
    assert_eq!(outcome, feed::LogAnswerOutcome::Outdated);
    assert_eq!(node.tier.order_of(born.generation, born.order), None);
    let again = node.tier.feed.question();
    let log = store.read_log(LogNumber::ZERO).await.unwrap();
    assert_eq!(
        node.tier.feed.apply(log, again),
        feed::LogAnswerOutcome::Applied
    );
}
