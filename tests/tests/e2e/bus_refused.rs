//! Purges that are larger than a broker takes: the others are told of a wider one, and what
//! comes after is not held up.

use e2e::fleet::{Fleet, purge_everywhere, shown};
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::rabbit::harmed;
use e2e::redis::Redis;
use serde_json::json;

/// Bytes of a message that the brokers here take.
const LIMIT: usize = 4_096;

async fn nats_with_small_payloads() -> (Nats, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("nats.conf");
    std::fs::write(&config, format!("max_payload: {LIMIT}\n")).unwrap();
    let nats = Nats::start_with(&["-c", config.to_str().unwrap()]).await;
    (nats, dir)
}

/// A long tag becomes everything, a long prefix a shorter one, and a short tag that comes
/// behind them arrives as it is. `limit`: what the line of the log has to name.
async fn what_is_too_large_is_told_as_a_wider_purge(fleet: &Fleet, limit: usize) {
    let [a, b] = &fleet.nodes[..] else { panic!() };
    let long = "x".repeat(2 * limit);
    for path in ["/other", "/short"] {
        assert_eq!(shown(b, path).await, 1);
    }
    fleet.pages.change("/other");
    let receipt = purge_everywhere(a, json!({"tag": long})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    assert_eq!(shown(b, "/other").await, 2, "everything was purged there");

    fleet.pages.change("/short");
    shown(a, "/kept").await;
    shown(b, "/kept").await;
    fleet.origin.forget();
    let receipt = purge_everywhere(a, json!({"prefix": format!("/{long}")})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    shown(b, "/kept").await;
    assert_eq!(
        fleet.origin.count(),
        0,
        "a shorter prefix reaches no more than it says"
    );

    let receipt = purge_everywhere(a, json!({"tag": "/short"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    assert_eq!(shown(b, "/short").await, 2);
    let widened = a.metric("lamina_bus_purges_too_large_total", &[]).await;
    assert_eq!(widened, 2.0);
    names_the_purge_and_the_limit(a, limit).await;
}

async fn names_the_purge_and_the_limit(node: &Gateway, limit: usize) {
    let line = node
        .logged("the purge that is too large", |line| {
            line.contains("a purge is larger than the broker accepts")
        })
        .await;
    for word in ["tag:xxx", &format!("limit\":{limit}"), "told\":\"all\""] {
        assert!(line.contains(word), "{word}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_holds_nothing_up_behind_what_is_larger_than_its_payload() {
    let (nats, _dir) = nats_with_small_payloads().await;
    let fleet = Fleet::start(2, |_| format!("nats: {{servers: [\"{}\"]}}", nats.url())).await;
    what_is_too_large_is_told_as_a_wider_purge(&fleet, LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_holds_nothing_up_behind_what_is_larger_than_its_payload() {
    let (nats, _dir) = nats_with_small_payloads().await;
    let fleet = Fleet::start(2, |name| jetstream(&nats, name)).await;
    what_is_too_large_is_told_as_a_wider_purge(&fleet, LIMIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_holds_nothing_up_behind_what_is_larger_than_its_stream_takes() {
    let nats = Nats::start().await;
    let stream = |method: &str| format!("$JS.API.STREAM.{method}.CACHE_INVALIDATIONS");
    let config = |limit: usize| {
        json!({
            "name": "CACHE_INVALIDATIONS",
            "subjects": ["cache.invalidations"],
            "max_msg_size": limit,
        })
    };
    let made = nats
        .ask(&stream("CREATE"), &config(LIMIT).to_string())
        .await;
    assert!(!made.contains("error"), "{made}");
    let fleet = Fleet::start(2, |name| jetstream(&nats, name)).await;
    what_is_too_large_is_told_as_a_wider_purge(&fleet, LIMIT).await;

    // Nobody tells a node that the limit is another one now.
    let less = nats
        .ask(&stream("UPDATE"), &config(LIMIT / 2).to_string())
        .await;
    assert!(!less.contains("error"), "{less}");
    let tag = "y".repeat(LIMIT / 3);
    for selector in [json!({"tag": tag}), json!({"tag": "short"})] {
        let receipt = purge_everywhere(&fleet.nodes[0], selector).await;
        assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    }
}

fn jetstream(nats: &Nats, name: &str) -> String {
    let url = nats.url();
    format!("nats: {{servers: [\"{url}\"], mode: jetstream, jetstream: {{durable_name: {name}}}}}")
}

/// Redis takes a message of any size, and drops the subscribers that have no room for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_drops_no_subscriber_for_a_purge_that_is_larger_than_its_buffer() {
    const BUFFER: usize = 64 << 10;
    let limit = format!("pubsub {BUFFER} {BUFFER} 0");
    let redis = Redis::start_with(&["--client-output-buffer-limit", &limit]).await;
    let fleet = Fleet::start(2, |_| format!("redis: {{url: \"{}\"}}", redis.url())).await;
    let gaps = fleet.nodes[1]
        .metric("lamina_cluster_gaps_total", &[])
        .await;
    let tag = "x".repeat(BUFFER / 2 - 100);
    let receipt = purge_everywhere(&fleet.nodes[0], json!({"tag": tag})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    let receipt = purge_everywhere(&fleet.nodes[0], json!({"tag": "short"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    names_the_purge_and_the_limit(&fleet.nodes[0], BUFFER / 2).await;
    let after = fleet.nodes[1]
        .metric("lamina_cluster_gaps_total", &[])
        .await;
    assert_eq!(after, gaps, "its connection stood");
}

/// RabbitMQ says how large a message may be when it closes the channel for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_holds_nothing_up_behind_what_is_larger_than_it_takes() {
    let rabbit = harmed().await;
    let set = |bytes: usize| format!("application:set_env(rabbit, max_message_size, {bytes}).");
    rabbit.ctl(&["eval", &set(LIMIT)]).await;
    let url = rabbit.url();
    for (exchange, durable) in [
        ("small-plain", ""),
        (
            "small-durable",
            ", durable_invalidation_mode: true, queue_name: small-",
        ),
    ] {
        let fleet = Fleet::start(2, |name| {
            let durable = match durable {
                "" => String::new(),
                durable => format!("{durable}{name}"),
            };
            format!("rabbitmq: {{url: \"{url}\", exchange: {exchange}{durable}}}")
        })
        .await;
        what_is_too_large_is_told_as_a_wider_purge(&fleet, LIMIT).await;
    }
    rabbit.ctl(&["eval", &set(128 << 20)]).await;
}
