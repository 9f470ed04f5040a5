//! Two nodes take turns at the origin: a thousand clients each on one cold key are one
//! load, without Redis two; and a node that lost its turn overwrites nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::client::Answer;
use e2e::free_port::free_port;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use futures_util::future::join_all;
use serde_json::json;

use crate::l2::reads_below;

const HERD: usize = 1_000;
/// Longer than any test waits: whoever waits for a lease without need fails it.
const PATIENT: &str = "{ttl: 10m, wait_timeout: 10m}";

/// A Redis that works is waited for, however busy the machine is.
const SLOW: &str = ", read_timeout: 10m, write_timeout: 10m";

async fn node(origin: &Origin, redis: &str, lease: &str, more: &str) -> Gateway {
    let redis = format!("{{url: \"{redis}\", connect_timeout: 1m, silence_timeout: 10m}}");
    let l2 = format!("{{redis: {redis}, lease: {lease}{more}}}");
    // Who waits for a load of this node's own waits as long as for a lease.
    let inflight = "inflight: {wait_timeout: 10m}";
    Setup::new(origin)
        .top("cache", &format!("{{l2: {l2}, {inflight}}}"))
        .policy("{mode: override, ttl: 1d}")
        .start()
        .await
}

/// An origin whose `n`th request passes the `n`th gate and gets `v{n + 1}`.
async fn gated(gates: [Gate; 2]) -> Origin {
    let count = Arc::new(AtomicUsize::new(0));
    Origin::start(move |_| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let gate = gates.get(n).cloned();
        async move {
            if let Some(gate) = gate {
                gate.pass().await;
            }
            Reply::ok(format!("v{}", n + 1))
        }
    })
    .await
}

async fn ask(gateway: &Gateway) -> Answer {
    let request = gateway.client().request("/").host("site.example");
    request.send().await
}

/// A herd at once, each on a connection of its own; what all of them got.
async fn herd(gateway: &Gateway) -> String {
    let client = gateway.client();
    let asks = (0..HERD).map(|_| {
        let request = client.request("/").host("site.example");
        tokio::spawn(request.send())
    });
    let answers: Vec<_> = join_all(asks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let first = answers[0].text();
    assert!(answers.iter().all(|answer| answer.text() == first));
    first.to_owned()
}

/// Waits until all but one client of a herd follow the one that leads.
async fn all_follow(gateway: &Gateway) {
    let name = "lamina_cache_coalesced_requests_total";
    wait_for("the herd follows", SOON * 2, || async {
        (gateway.metric(name, &[]).await >= (HERD - 1) as f64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_thousand_clients_on_each_of_two_cold_nodes_are_one_load() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    let origin = gated([gate.clone(), gate.clone()]).await;
    let one = node(&origin, &redis.url(), PATIENT, SLOW).await;
    let other = node(&origin, &redis.url(), PATIENT, SLOW).await;
    tokio::join!(reads_below(&one), reads_below(&other));
    let opening = async {
        tokio::join!(all_follow(&one), all_follow(&other));
        gate.reached_by(1).await;
        gate.open();
    };
    let (first, second, ()) = tokio::join!(herd(&one), herd(&other), opening);
    assert_eq!((first.as_str(), second.as_str()), ("v1", "v1"));
    assert_eq!(origin.count(), 1);
}

/// A lease error taken for a busy lease would hold each cold key up.
#[tokio::test]
async fn without_redis_a_thousand_clients_on_each_node_are_two_loads_and_none_waits() {
    let gate = Gate::new();
    let origin = gated([gate.clone(), gate.clone()]).await;
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let one = node(&origin, &nowhere, PATIENT, "").await;
    let other = node(&origin, &nowhere, PATIENT, "").await;
    two_loads(&one, &other, &gate, &origin).await;
    let receipt = one.purge(json!({"tag": "x"})).await;
    assert_eq!(receipt["applied"], true);
    assert_eq!(receipt["l2"]["logged"], false, "{receipt}");
}

#[tokio::test]
async fn with_a_frozen_redis_a_thousand_clients_on_each_node_are_two_loads_and_none_waits() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    let origin = gated([gate.clone(), gate.clone()]).await;
    let one = node(&origin, &redis.url(), PATIENT, "").await;
    let other = node(&origin, &redis.url(), PATIENT, "").await;
    tokio::join!(reads_below(&one), reads_below(&other));
    redis.freeze();
    two_loads(&one, &other, &gate, &origin).await;
}

async fn two_loads(one: &Gateway, other: &Gateway, gate: &Gate, origin: &Origin) {
    let opening = async {
        gate.reached_by(2).await;
        tokio::join!(all_follow(one), all_follow(other));
        gate.open();
    };
    let (first, second, ()) = tokio::join!(herd(one), herd(other), opening);
    assert_ne!(first, second);
    assert_eq!(origin.count(), 2);
}

/// A lease that is left behind would hold up the next load of its key on every node.
#[tokio::test]
async fn leases_are_given_back_however_many_calls_are_under_way() {
    let redis = Redis::start().await;
    let origin = Origin::pages(|_| Reply::ok("page").header("cache-control", "no-store")).await;
    let narrow = ", max_concurrent: 2, breaker: {failure_threshold: 0}, read_timeout: 10m";
    let node = node(&origin, &redis.url(), PATIENT, narrow).await;
    reads_below(&node).await;
    let client = node.client();
    let asks = (0..200).map(|n| {
        let request = client.request(&format!("/{n}"));
        tokio::spawn(request.send())
    });
    for answer in join_all(asks).await {
        assert_eq!(answer.unwrap().text(), "page");
    }
    let owned = [("outcome", "owned")];
    assert!(node.metric("lamina_l2_leases_total", &owned).await > 0.0);
    no_lease_is_left(&redis).await;
}

#[tokio::test]
async fn a_lease_that_could_not_be_given_back_is_when_redis_answers_again() {
    let redis = Redis::start().await;
    let gate = Gate::new();
    let origin = gated([gate.clone(), gate.clone()]).await;
    // The first calls have to get through.
    let brittle =
        ", breaker: {failure_threshold: 1, cooldown: 500ms}, read_timeout: 5s, write_timeout: 5s";
    let node = node(&origin, &redis.url(), PATIENT, brittle).await;
    reads_below(&node).await;
    let events = async {
        gate.reached_by(1).await;
        redis.freeze();
        gate.open();
        node.metric_until("lamina_l2_breaker_open", &[], |open| open == 1.0)
            .await;
        let skipped = [("operation", "release"), ("outcome", "skipped")];
        node.metric_until("lamina_l2_calls_total", &skipped, |n| n > 0.0)
            .await;
        redis.thaw();
    };
    let (answer, ()) = tokio::join!(ask(&node), events);
    assert_eq!(answer.text(), "v1");
    no_lease_is_left(&redis).await;
}

/// Each would hold for minutes.
pub async fn no_lease_is_left(redis: &Redis) {
    wait_for("no lease is left", SOON, || async {
        let held = redis.cli(&["--scan", "--pattern", "lamina:*l"]).await;
        held.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_holder_frozen_past_its_lease_does_not_overwrite_what_the_winner_stored() {
    frozen_holder(true).await;
}

#[tokio::test]
async fn a_holder_frozen_past_its_lease_writes_nothing_while_the_winner_loads() {
    frozen_holder(false).await;
}

/// One node gets its turn, freezes past its lease and goes on when the other one has
/// stored its answer, or while it still loads.
async fn frozen_holder(after_the_winner: bool) {
    let redis = Redis::start().await;
    let gates = [Gate::new(), Gate::new()];
    let origin = gated(gates.clone()).await;
    let loser = node(&origin, &redis.url(), PATIENT, SLOW).await;
    let winner = node(&origin, &redis.url(), PATIENT, SLOW).await;
    tokio::join!(reads_below(&loser), reads_below(&winner));
    let asks = async {
        let loses = ask(&loser);
        let wins = async {
            gates[0].reached_by(1).await;
            loser.freeze();
            tokio::join!(ask(&winner), its_lease_ends(&redis, &winner)).0
        };
        tokio::join!(loses, wins)
    };
    let events = async {
        gates[1].reached_by(1).await;
        if after_the_winner {
            gates[1].open();
            written(&winner, "stored").await;
        }
        gates[0].open();
        loser.thaw();
        written(&loser, "not-owner").await;
        if !after_the_winner {
            let held = redis.cli(&["--scan", "--pattern", "lamina:*l"]).await;
            assert!(!held.is_empty(), "the winner's lease stands");
            gates[1].open();
            written(&winner, "stored").await;
        }
    };
    let ((lost, won), ()) = tokio::join!(asks, events);
    assert_eq!((lost.text(), won.text()), ("v1", "v2"));
    let cold = node(&origin, &redis.url(), PATIENT, SLOW).await;
    reads_below(&cold).await;
    assert_eq!(ask(&cold).await.text(), "v2");
    assert_eq!(origin.count(), 2);
    let lost = loser.metric("lamina_l2_writes_total", &[("outcome", "stored")]);
    assert_eq!(lost.await, 0.0);
}

/// Once somebody waits for the lease, Redis ends it, as it would in time: a lease short
/// enough to wait for would now and then end under the winner, too.
async fn its_lease_ends(redis: &Redis, winner: &Gateway) {
    let busy = [("outcome", "busy")];
    winner
        .metric_until("lamina_l2_leases_total", &busy, |busy| busy >= 1.0)
        .await;
    let lease = redis.cli(&["--scan", "--pattern", "lamina:*l"]).await;
    assert_eq!(redis.cli(&["PEXPIRE", &lease, "1"]).await, "1");
}

async fn written(gateway: &Gateway, outcome: &str) {
    wait_for("the write is through", SOON, || async {
        let labels = [("outcome", outcome)];
        let writes = gateway.metric("lamina_l2_writes_total", &labels).await;
        (writes > 0.0).then_some(())
    })
    .await;
}
