//! Rate limits that nodes share over the Redis of the second tier (LM3, LM7): one allowance for all
//! of them, and each node's part of it while Redis is away.

use std::time::{Duration, Instant};

use e2e::fleet::known;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::pace::{PacedRequest, admitted, paced, passed};
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::wait::{SOON, wait_for};

/// Two gateways with the limit `per`, whose allowances are in `store`. They hear each other over
/// `bus`.
async fn nodes(origin: &Origin, store: &Redis, bus: &Redis, limit: &str) -> [Gateway; 2] {
    let _places = e2e::places::PLACES.reserve(2).await;
    let node = |name: &str| {
        let l2 = format!("{{redis: {{url: \"{}\"}}}}", store.url());
        let bus = format!("redis: {{url: \"{}\"}}", bus.url());
        e2e::fleet::node(origin, name, &bus)
            .listener("trusted_proxies", "[127.0.0.0/8]")
            .top(
                "cache",
                &format!("{{inflight: {{wait_timeout: 10m}}, l2: {l2}}}"),
            )
            .top("limits", &format!("{{per: {limit}}}"))
            .route("{name: one, match: {path: /one/*}, upstream: origin, limit: [per]}")
            .route("{name: two, upstream: origin, limit: [per]}")
    };
    let nodes = [node("a").start().await, node("b").start().await];
    for node in &nodes {
        shares(node).await;
        wait_for("it hears the other node", SOON * 2, || async {
            (known(node).await == 1).then_some(())
        })
        .await;
    }
    nodes
}

async fn degraded(node: &Gateway) -> f64 {
    node.metric("lamina_limit_degraded", &[("limit", "per")])
        .await
}

/// Waits until a node asks Redis. Each question is of another client.
async fn shares(node: &Gateway) {
    let mut client = 0;
    wait_for("the limit is shared", SOON * 2, || {
        client += 1;
        async move {
            let before = degraded(node).await;
            let address = format!("198.51.100.{client}");
            let ask = node.client().uncached().request("/page");
            ask.header("x-forwarded-for", &address).send().await;
            (degraded(node).await == before).then_some(())
        }
    })
    .await;
}

/// Both nodes are asked for a while, each 100 times a second, by one client.
async fn both(nodes: &[Gateway; 2], span: Duration) -> Vec<PacedRequest> {
    let [a, b] = nodes;
    let (a, b) = (a.client().uncached(), b.client().uncached());
    let (mut all, more) =
        tokio::join!(paced(&a, "/page", 100, span), paced(&b, "/page", 100, span));
    all.extend(more);
    all
}

async fn origin() -> Origin {
    Origin::pages(|_| Reply::fresh("page")).await
}

#[tokio::test]
async fn of_twice_the_rate_half_passes_on_two_nodes_together() {
    let (origin, redis) = (origin().await, Redis::start().await);
    let nodes = nodes(
        &origin,
        &redis,
        &redis,
        "{rate: 100/s, burst: 20, shared: true}",
    )
    .await;
    let requests = both(&nodes, Duration::from_secs(5)).await;
    let (passed, expected) = (passed(&requests), admitted(&requests, 100.0, 20.0, 20.0));
    let apart = [degraded(&nodes[0]).await, degraded(&nodes[1]).await];
    println!(
        "{passed} of {} have passed, and {expected} should; degraded {apart:?}",
        requests.len()
    );
    // What Redis has not answered in time a node has judged by its own part.
    let late = apart.iter().sum::<f64>() as usize;
    // Three a second.
    let tolerance = 3 * 5 + late.min(expected / 20);
    assert!(
        passed.abs_diff(expected) <= tolerance,
        "{passed}, expected {expected}"
    );
}

#[tokio::test]
async fn an_allowance_is_one_for_all_nodes_and_routes() {
    let (origin, redis) = (origin().await, Redis::start().await);
    let nodes = nodes(
        &origin,
        &redis,
        &redis,
        "{rate: 1/h, burst: 10, shared: true}",
    )
    .await;
    let began = [degraded(&nodes[0]).await, degraded(&nodes[1]).await];
    let mut passed = 0;
    for n in 0..40 {
        let client = nodes[n % 2].client().uncached();
        let path = if n % 4 < 2 { "/one/page" } else { "/two" };
        passed += usize::from(client.get(path).await.status == 200);
    }
    // A node that did not get its answer in time has admitted a request by its own part.
    let apart = degraded(&nodes[0]).await - began[0] + degraded(&nodes[1]).await - began[1];
    assert!(
        (10..=10 + apart as usize).contains(&passed),
        "{passed} have passed, {apart} apart"
    );
    let keys = redis.cli(&["--scan", "--pattern", "*{limit:per}*"]).await;
    assert!(!keys.is_empty() && !keys.contains("127.0.0.1"), "{keys}");
}

#[tokio::test]
async fn when_redis_is_killed_each_node_admits_its_part() {
    let (origin, mut redis, bus) = (origin().await, Redis::start().await, Redis::start().await);
    let nodes = nodes(
        &origin,
        &redis,
        &bus,
        "{rate: 100/s, burst: 20, shared: true}",
    )
    .await;
    let before = both(&nodes, Duration::from_secs(3)).await;
    redis.kill();
    let after = both(&nodes, Duration::from_secs(5)).await;
    let apart = degraded(&nodes[0]).await + degraded(&nodes[1]).await;
    let expected = admitted(&after, 100.0, 20.0, 0.0);
    let (with, without) = (passed(&before), passed(&after));
    println!(
        "{with} of {} have passed with Redis; {without} of {} without, and {expected} should; \
         degraded {apart}",
        before.len(),
        after.len()
    );
    assert!(
        apart >= after.len() as f64 / 2.0,
        "{apart}: they were judged apart"
    );
    let tolerance = expected / 10 + 4;
    assert!(
        without.abs_diff(expected) <= tolerance,
        "{without}, expected {expected}"
    );
    redis.restart().await;
    for node in &nodes {
        shares(node).await;
    }
}

#[tokio::test]
async fn a_redis_that_never_answers_holds_up_nobody_and_lets_in_no_crowd() {
    let (origin, redis, bus) = (origin().await, Redis::start().await, Redis::start().await);
    let nodes = nodes(
        &origin,
        &redis,
        &bus,
        "{rate: 1/h, burst: 10, shared: true}",
    )
    .await;
    redis.freeze();
    let began = Instant::now();
    let mut passed = 0;
    for _ in 0..100 {
        passed += usize::from(nodes[0].client().uncached().get("/page").await.status == 200);
    }
    let took = began.elapsed();
    println!("100 requests took {took:?}; {passed} have passed");
    redis.thaw();
    assert!((1..=10).contains(&passed), "{passed} of its part of 10");
    assert!(degraded(&nodes[0]).await >= 50.0);
}
