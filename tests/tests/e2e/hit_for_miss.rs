//! A key whose answers could not be shared a moment ago: its requests go side by side, and
//! the first answer that may be stored is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::client::herd;
use e2e::gate::Gate;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, within};

#[tokio::test]
async fn the_first_answer_that_may_be_stored_is_stored_although_the_key_is_marked() {
    let private = Arc::new(AtomicBool::new(true));
    let now = private.clone();
    let origin = Origin::pages(move |_| match now.load(Ordering::SeqCst) {
        true => Reply::ok("private").header("cache-control", "no-store"),
        false => Reply::fresh("page"),
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", "{inflight: {hit_for_miss: 1h}}")
        .start()
        .await;
    let client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "private");
    }
    private.store(false, Ordering::SeqCst);
    let first = client.get("/").await;
    assert!(first.cache().stored, "{:?}", first.cache());
    assert!(client.get("/").await.is_hit());
    gateway.purge(serde_json::json!({"all": true})).await;
    let after = client.get("/").await;
    assert!(after.cache().stored, "{:?}", after.cache());
    assert_eq!(origin.count(), 5);
}

#[tokio::test]
async fn loads_of_a_marked_key_go_side_by_side_and_the_next_requests_follow_what_is_stored() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            if asked.number == 0 {
                return Reply::ok("private").header("cache-control", "no-store");
            }
            held.pass().await;
            Reply::fresh(format!("page {}", asked.number))
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", "{inflight: {hit_for_miss: 1h}}")
        .start()
        .await;
    gateway.client().get("/").await;
    let client = gateway.client();
    let asking = tokio::spawn(async move { herd(&client, 10, "/").await });
    gate.reached_by(10).await;
    gate.open();
    let answers = within("ten side by side", SOON, asking).await.unwrap();
    let stored = answers.iter().filter(|answer| {
        let answer = answer.as_ref().unwrap();
        assert!(answer.text().starts_with("page"));
        answer.cache().stored
    });
    assert!(stored.count() >= 1);
    assert!(gateway.client().get("/").await.is_hit());
    assert_eq!(origin.count(), 11);
}

/// Guards against a mark that outlives the answers it was for.
#[tokio::test]
async fn a_mark_ends_with_the_first_answer_that_is_stored() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            match asked.number {
                0 => Reply::ok("private").header("cache-control", "no-store"),
                1 => Reply::fresh("page"),
                _ => {
                    held.pass().await;
                    Reply::fresh("page")
                }
            }
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", "{inflight: {wait_timeout: 10m, hit_for_miss: 1h}}")
        .start()
        .await;
    for _ in 0..2 {
        gateway.client().get("/").await;
    }
    gateway.purge(serde_json::json!({"all": true})).await;
    let client = gateway.client();
    let asking = tokio::spawn(async move { herd(&client, 10, "/").await });
    gateway
        .metric_until("lamina_cache_coalesced_requests_total", &[], |n| n >= 9.0)
        .await;
    gate.open();
    for answer in asking.await.unwrap() {
        assert_eq!(answer.unwrap().text(), "page");
    }
    assert_eq!(origin.count(), 3, "one load for all of them");
}

/// Guards against an answer that is stored although a purge came after its load began.
#[tokio::test]
async fn a_purge_hides_what_a_load_side_by_side_brings() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            match asked.number {
                0 => Reply::ok("private").header("cache-control", "no-store"),
                1 => {
                    held.pass().await;
                    Reply::fresh("old")
                }
                _ => Reply::fresh("new"),
            }
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", "{inflight: {hit_for_miss: 1h}}")
        .start()
        .await;
    gateway.client().get("/").await;
    let client = gateway.client();
    let asking = tokio::spawn(async move { client.get("/").await });
    gate.reached_by(1).await;
    gateway.purge(serde_json::json!({"all": true})).await;
    gate.open();
    assert_eq!(asking.await.unwrap().text(), "old");
    assert_eq!(gateway.client().get("/").await.text(), "new");
}
