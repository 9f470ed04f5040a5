//! Purges wait behind nothing that other calls did: they have a schedule of their own, and a
//! breaker closes when the store or broker answers.
//!
//! The breakers here rest for ten minutes, so that whoever waits for them is noticed.

use e2e::fleet::{Fleet, Pages, purge_everywhere, shown, state};
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use serde_json::json;

/// A node without a bus: purges go by the store's log.
async fn over_redis(origin: &Origin, redis: &Redis) -> Gateway {
    let l2 = format!(
        "{{l2: {{redis: {{url: \"{}\"}}, breaker: {{cooldown: 10m}}}}}}",
        redis.url()
    );
    Setup::new(origin).top("cache", &l2).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_goes_out_when_redis_answers_again_whatever_reads_came_to() {
    let redis = Redis::start().await;
    let pages = Pages::default();
    let origin = pages.origin().await;
    let (a, b) = (
        over_redis(&origin, &redis).await,
        over_redis(&origin, &redis).await,
    );
    for node in [&a, &b] {
        node.metric_until(
            "lamina_l2_calls_total",
            &[("operation", "watch"), ("outcome", "ok")],
            |n| n > 0.0,
        )
        .await;
    }
    for node in [&a, &b] {
        let answer = node
            .client()
            .request("/p")
            .host("site.example")
            .send()
            .await;
        assert_eq!(answer.text(), "1");
    }
    redis.freeze();
    let mut n = 0;
    wait_for("reads open the breaker", SOON, || {
        n += 1;
        let a = &a;
        async move {
            shown(a, &format!("/other/{n}")).await;
            (a.metric("lamina_l2_breaker_open", &[]).await == 1.0).then_some(())
        }
    })
    .await;
    pages.change("/p");
    let receipt = a.purge(json!({"tag": "/p"})).await;
    assert_eq!(receipt["l2"]["logged"], false, "{receipt}");
    wait_for("the state says so", SOON, || async {
        (state(&a).await == "degraded").then_some(())
    })
    .await;
    redis.thaw();
    wait_for("the other node shows the new page", SOON, || async {
        let answer = b.client().request("/p").host("site.example").send().await;
        (answer.text() == "2").then_some(())
    })
    .await;
    wait_for("it serves as before", SOON, || async {
        let open = a.metric("lamina_l2_breaker_open", &[]).await;
        (open == 0.0 && state(&a).await == "serving").then_some(())
    })
    .await;
}

/// Values that are larger than the broker takes are dropped, and say nothing about purges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_the_broker_refuses_hold_back_no_purge() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("nats.conf");
    std::fs::write(&config, "max_payload: 4096\n").unwrap();
    let nats = Nats::start_with(&["-c", config.to_str().unwrap()]).await;
    let bus = format!(
        "nats: {{servers: [\"{}\"]}}, circuit_breaker: {{cooldown_ms: 600000}}",
        nats.url()
    );
    let pages = Pages::default();
    let large = "x".repeat(8_000);
    let origin = Origin::pages(move |seen| {
        let tag = seen.path_only().to_owned();
        e2e::reply::Reply::ok(large.clone())
            .header("cache-control", "max-age=3600")
            .header("surrogate-key", &tag)
    })
    .await;
    let fleet = Fleet::over(origin, pages, 2, |_| bus.clone()).await;
    for n in 0..10 {
        let answer = fleet.nodes[0].client().get(&format!("/large/{n}")).await;
        assert_eq!(answer.status, 200);
    }
    let receipt = purge_everywhere(&fleet.nodes[0], json!({"tag": "/large/1"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    assert_eq!(state(&fleet.nodes[0]).await, "serving");
    let oversize = "lamina_bus_values_oversize_total";
    fleet.nodes[0]
        .metric_until(oversize, &[], |n| n >= 10.0)
        .await;
}

/// With no word from anybody: `waiting` counts what is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_nodes_count_the_same_purges_while_the_broker_stands_still() {
    let nats = Nats::start().await;
    let fleet = Fleet::start(2, |_| format!("nats: {{servers: [\"{}\"]}}", nats.url())).await;
    nats.freeze();
    for n in 0..5 {
        fleet.nodes[0].purge(json!({"tag": format!("t{n}")})).await;
    }
    let waiting = fleet.nodes[0]
        .metric("lamina_bus_purges_waiting", &[])
        .await;
    assert_eq!(waiting, 5.0);
    let answer = fleet.nodes[0]
        .admin(http::Method::GET, "/v1/nodes", "")
        .await;
    let body: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(body["bus"]["purges_waiting"], 5, "{body}");
    nats.thaw();
    fleet.nodes[0]
        .metric_until("lamina_bus_purges_waiting", &[], |n| n == 0.0)
        .await;
}
