//! A process that takes the place of another one on its node.

use super::*;

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
    let heard = two.cluster.heard_since(doubts);
    assert!(new.cluster.inherit(heard));
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
    assert!(!new.cluster.inherit(two.cluster.heard_since(doubts)));
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
    assert!(new.cluster.inherit(two.cluster.heard_since(doubts)));
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
            _ => two.cluster.heard_since(doubts),
        };
        assert_eq!(heard.is_some(), misses == "new", "{misses}");
        assert!(!new.cluster.inherit(heard), "{misses}");
        assert_eq!(new.look("/p/1"), Met::Stale, "{misses}");
    }
}
