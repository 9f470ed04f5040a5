//! A process that takes the place of another one on its node.

use super::*;

impl Site {
    /// What the process before tells this one.
    async fn told_by(&self, before: &Self, doubts: DoubtCount) -> Option<Vec<HeardPublisher>> {
        let identity = &self.cluster.outbox.identity;
        let life = NodeLife {
            source: identity.source.clone(),
            boot: identity.boot,
        };
        let patience = Duration::from_millis(200);
        before.cluster.await_successor(&life, patience).await;
        before.cluster.heard_since(doubts, &life).ok()
    }

    async fn inherits_of(&self, before: &Self, doubts: DoubtCount) -> bool {
        self.cluster.inherit(self.told_by(before, doubts).await)
    }
}

/// A process that begins with a page, beside the one that it replaces.
fn replacing(hub: &Arc<Hub>) -> Site {
    hub.keep_nothing();
    let new = Site::after(
        NodeBefore::ReplacedProcess,
        (hub, "two", 3),
        Guarantee::AtMostOnce,
        |_| {},
    );
    new.store("/p/1", "kept", PurgeOrder::BEFORE_ALL);
    new
}

/// Two nodes of which the first has purged once, and the second is to be replaced.
async fn two_nodes(hub: &Arc<Hub>) -> (Site, Site) {
    let (one, two) = (Site::join(hub, "one", 1), Site::join(hub, "two", 2));
    after(BEAT).await;
    one.purge("tag:u");
    settle().await;
    (one, two)
}

#[tokio::test(start_paused = true)]
async fn what_the_process_before_has_heard_is_not_doubted() {
    let hub = Arc::default();
    let (one, two) = two_nodes(&hub).await;
    let doubts = two.cluster.doubts_so_far();
    let new = replacing(&hub);
    after(BEAT).await;
    assert_eq!(new.look("/p/1"), Met::Stale, "until it is known");
    assert!(new.inherits_of(&two, doubts).await);
    assert_eq!(new.look("/p/1"), Met::Fresh);
    assert!(!new.cluster.standing().doubts);
    after(BEAT).await;
    assert_eq!(new.look("/p/1"), Met::Fresh, "nobody is a stranger");
    one.purge("tag:t");
    settle().await;
    assert_eq!(new.look("/p/1"), Met::Nothing);
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_came_to_neither_process_is_doubted() {
    let hub = Arc::default();
    let (one, two) = two_nodes(&hub).await;
    let doubts = two.cluster.doubts_so_far();
    two.port.set_deaf(true);
    one.purge("tag:v");
    settle().await;
    let new = replacing(&hub);
    after(BEAT).await;
    assert!(!new.inherits_of(&two, doubts).await);
    assert_eq!(new.look("/p/1"), Met::Stale);
}

/// Nobody but the process before knows that node, and its next word tells of one more purge.
#[tokio::test(start_paused = true)]
async fn a_count_of_the_process_before_shows_what_was_missed_later() {
    let hub = Arc::default();
    let (one, two) = two_nodes(&hub).await;
    let doubts = two.cluster.doubts_so_far();
    let new = replacing(&hub);
    new.port.set_deaf(true);
    settle().await;
    assert!(new.inherits_of(&two, doubts).await);
    assert_eq!(new.look("/p/1"), Met::Fresh);
    one.purge("tag:t");
    settle().await;
    new.port.set_deaf(false);
    after(BEAT).await;
    assert_ne!(new.look("/p/1"), Met::Fresh);
}

#[tokio::test(start_paused = true)]
async fn what_either_process_may_have_missed_meanwhile_is_doubted() {
    for misses in ["old", "new", "older"] {
        let hub = Arc::default();
        let (one, two) = two_nodes(&hub).await;
        let doubts = two.cluster.doubts_so_far();
        let new = replacing(&hub);
        after(BEAT).await;
        let site = if misses == "new" { &new } else { &two };
        site.port.set_deaf(true);
        one.purge("tag:v");
        settle().await;
        site.port.set_deaf(false);
        after(BEAT).await;
        let heard = match misses {
            "older" => None,
            _ => new.told_by(&two, doubts).await,
        };
        assert_eq!(heard.is_some(), misses == "new", "{misses}");
        assert!(!new.cluster.inherit(heard), "{misses}");
        assert_eq!(new.look("/p/1"), Met::Stale, "{misses}");
    }
}

/// Its connection has ended without a word, and not every purge has a number.
#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_hear_the_next_one_has_not_heard_all() {
    let hub = Arc::<Hub>::default();
    let (_one, two) = two_nodes(&hub).await;
    let doubts = two.cluster.doubts_so_far();
    two.port.set_deaf(true);
    let keys = vec!["t".to_owned()];
    hub.deliver(&foreign(EventShape::Del { keys }));
    settle().await;
    let new = replacing(&hub);
    after(BEAT).await;
    assert!(two.cluster.standing().hears, "as it seems");
    assert!(!new.inherits_of(&two, doubts).await);
    assert_eq!(new.look("/p/1"), Met::Stale);
}

/// It may have been heard before it heard the others itself.
#[tokio::test(start_paused = true)]
async fn only_the_question_of_the_next_process_proves_that_it_is_heard() {
    let hub = Arc::<Hub>::default();
    let (_one, two) = two_nodes(&hub).await;
    let doubts = two.cluster.doubts_so_far();
    two.port.set_deaf(true);
    let new = replacing(&hub);
    settle().await;
    two.port.set_deaf(false);
    after(BEAT).await;
    assert!(!new.inherits_of(&two, doubts).await);
}

#[tokio::test(start_paused = true)]
async fn the_question_of_the_next_process_is_waited_for() {
    let hub = Arc::<Hub>::default();
    let (_one, two) = two_nodes(&hub).await;
    let doubts = two.cluster.doubts_so_far();
    let new = replacing(&hub);
    let inherits = new.inherits_of(&two, doubts);
    assert!(inherits.await, "nothing has been heard at first");
}

/// The doubt of joining is older than the value, which the publisher loaded before the purge.
#[tokio::test(start_paused = true)]
async fn no_value_is_taken_before_it_is_known_what_was_heard() {
    let hub = Arc::<Hub>::default();
    let (one, two) = two_nodes(&hub).await;
    let doubts = two.cluster.doubts_so_far();
    let new = replacing(&hub);
    settle().await;
    one.load("/p/1", "a value");
    after(BEAT).await;
    assert_eq!(new.look("/p/1"), Met::Stale, "the value is not taken");
    let values = |outcome| new.metric("lamina_cluster_values_total", outcome);
    assert_eq!((values("stored"), values("overtaken")), (0.0, 1.0));
    assert!(new.inherits_of(&two, doubts).await);
    one.load("/p/1", "another value");
    settle().await;
    assert_eq!((values("stored"), values("overtaken")), (1.0, 1.0));
}

/// The doubt of a node that was lost would be in no count yet while it waits for its time.
#[tokio::test(start_paused = true)]
async fn a_doubt_that_waits_for_its_time_is_told_to_nobody_as_certainty() {
    let hub = Arc::<Hub>::default();
    let (_one, two) = two_nodes(&hub).await;
    for n in 0..2 {
        let stranger = Site::join(&hub, &format!("stranger{n}"), 10 + n);
        two.port.set_deaf(true);
        stranger.purge("tag:v");
        settle().await;
        two.port.set_deaf(false);
        after(BEAT).await;
    }
    assert!(two.cluster.doubts.are_delayed());
    let doubts = two.cluster.doubts_so_far();
    let new = replacing(&hub);
    after(BEAT).await;
    assert!(new.told_by(&two, doubts).await.is_none());
    after(Duration::from_secs(60)).await;
    assert!(!two.cluster.doubts.are_delayed());
    assert!(new.told_by(&two, doubts).await.is_none(), "it has come");
    let later = two.cluster.doubts_so_far();
    assert!(new.told_by(&two, later).await.is_some(), "before the count");
}

#[tokio::test(start_paused = true)]
async fn the_others_are_not_told_of_the_doubt_before_it_is_settled() {
    for is_whole in [true, false] {
        let hub = Arc::<Hub>::default();
        let (_one, two) = two_nodes(&hub).await;
        let doubts = two.cluster.doubts_so_far();
        let new = replacing(&hub);
        settle().await;
        assert!(new.cluster.doubts.are_open());
        assert!(!new.cluster.standing().doubts, "the process before serves");
        two.port.set_deaf(!is_whole);
        let heard = new.told_by(&two, doubts).await.filter(|_| is_whole);
        assert_eq!(new.cluster.inherit(heard), is_whole);
        assert!(!new.cluster.doubts.are_open());
    }
}

/// Its purges may be refused as made too long before, or as counted already.
#[tokio::test(start_paused = true)]
async fn nothing_is_inherited_over_a_bus_with_seals() {
    let hub = Arc::<Hub>::default();
    let keys = || SealKeys::new(b"a secret of all nodes", None);
    let sealed = |boot, before| {
        let config = (BusConfig::default(), Some(keys()));
        Site::of(before, (&hub, "two", boot), Guarantee::AtMostOnce, config)
    };
    let two = sealed(2, NodeBefore::Nobody);
    after(BEAT).await;
    let doubts = two.cluster.doubts_so_far();
    hub.keep_nothing();
    let new = sealed(3, NodeBefore::ReplacedProcess);
    new.store("/p/1", "kept", PurgeOrder::BEFORE_ALL);
    after(BEAT).await;
    assert!(new.told_by(&two, doubts).await.is_none());
    assert!(!new.cluster.inherit(None));
    assert_eq!(new.look("/p/1"), Met::Stale);
}
