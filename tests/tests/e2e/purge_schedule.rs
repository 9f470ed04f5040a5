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

/// Bytes of a message that the brokers here take.
const TAKEN: usize = 4_096;

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

/// Values that are larger than the broker takes are dropped, and say nothing about purges. At
/// least `told` of them are counted: some brokers say only by a refusal what they take.
async fn values_that_the_broker_refuses_hold_back_no_purge(
    bus: impl Fn(&str) -> String,
    told: usize,
) {
    let pages = Pages::default();
    let large = "x".repeat(2 * TAKEN);
    let origin = Origin::pages(move |seen| {
        let tag = seen.path_only().to_owned();
        e2e::reply::Reply::ok(large.clone())
            .header("cache-control", "max-age=3600")
            .header("surrogate-key", &tag)
    })
    .await;
    let rested = |name: &str| {
        let bus = bus(name);
        format!("{bus}, circuit_breaker: {{cooldown_ms: 600000}}")
    };
    let fleet = Fleet::over(origin, pages, 2, rested).await;
    for n in 0..10 {
        let answer = fleet.nodes[0].client().get(&format!("/large/{n}")).await;
        assert_eq!(answer.status, 200);
        let receipt = purge_everywhere(&fleet.nodes[1], json!({"tag": format!("/{n}")})).await;
        assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    }
    let receipt = purge_everywhere(&fleet.nodes[0], json!({"tag": "/large/1"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    fleet.whole().await;
    let oversize = "lamina_bus_values_oversize_total";
    fleet.nodes[0]
        .metric_until(oversize, &[], |n| n >= told as f64)
        .await;
    let log = fleet.nodes[0].log();
    let fails = |line: &&String| line.contains("publishing to the event bus fails");
    assert_eq!(log.iter().find(fails), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_nats_refuses_hold_back_no_purge() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("nats.conf");
    std::fs::write(&config, format!("max_payload: {TAKEN}\n")).unwrap();
    let nats = Nats::start_with(&["-c", config.to_str().unwrap()]).await;
    let bus = format!("nats: {{servers: [\"{}\"]}}", nats.url());
    values_that_the_broker_refuses_hold_back_no_purge(|_| bus.clone(), 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_a_stream_refuses_hold_back_no_purge() {
    let nats = Nats::start().await;
    let stream = json!({
        "name": "CACHE_INVALIDATIONS",
        "subjects": ["cache.invalidations"],
        "max_msg_size": TAKEN,
    });
    let made = nats
        .ask(
            "$JS.API.STREAM.CREATE.CACHE_INVALIDATIONS",
            &stream.to_string(),
        )
        .await;
    assert!(!made.contains("error"), "{made}");
    let url = nats.url();
    let bus = |name: &str| {
        format!(
            "nats: {{servers: [\"{url}\"], mode: jetstream, jetstream: {{durable_name: {name}}}}}"
        )
    };
    values_that_the_broker_refuses_hold_back_no_purge(bus, 10).await;
}

/// A value that is too large closes the channel of transient messages, not that of purges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_rabbitmq_refuses_hold_back_no_purge() {
    let rabbit = e2e::rabbit::harmed().await;
    let set = |bytes: usize| format!("application:set_env(rabbit, max_message_size, {bytes}).");
    rabbit.ctl(&["eval", &set(TAKEN)]).await;
    let url = rabbit.url();
    let place = |exchange: &str| format!("url: \"{url}\", exchange: {exchange}");
    let plain = |_: &str| format!("rabbitmq: {{{}}}", place("values-plain"));
    values_that_the_broker_refuses_hold_back_no_purge(plain, 0).await;
    let durable = |name: &str| {
        format!(
            "rabbitmq: {{{}, durable_invalidation_mode: true, queue_name: values-{name}}}",
            place("values-durable")
        )
    };
    values_that_the_broker_refuses_hold_back_no_purge(durable, 0).await;
    rabbit.ctl(&["eval", &set(128 << 20)]).await;
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
