//! Somebody who can write into Redis forges leases: nobody waits for one longer than a lease
//! holds without renewal, whatever stands in the key.

use std::time::Duration;

use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::wait::{SOON, passed, wait_for, within};

use crate::l2::{ask, over, written};
use crate::l2_forged_record::{eval, records};
use crate::l2_gateway_damage::{BELOW, numbered};

/// A store whose leases hold for `ttl`; who waits without need waits for minutes.
fn leases_at(redis: &Redis, ttl: &str, more: &str) -> String {
    let url = redis.url();
    let lease = format!("lease: {{ttl: {ttl}, wait_timeout: 10m}}");
    format!(
        "{{redis: {{url: \"{url}\", connect_timeout: 1m, silence_timeout: 10m}}, read_timeout: 10m, write_timeout: 10m, {lease}{more}}}"
    )
}

/// Has a page stored and its record removed; the name of its lease.
async fn lease_of(node: &Gateway, redis: &Redis, path: &str) -> String {
    let before = records(redis).await;
    ask(node, path).await;
    wait_for("the record is there", SOON, || async {
        (records(redis).await.len() > before.len()).then_some(())
    })
    .await;
    let record = records(redis).await;
    let record = record.iter().find(|name| !before.contains(name)).unwrap();
    redis.cli(&["DEL", record]).await;
    format!("{}l", record.strip_suffix('r').unwrap())
}

/// Waits until there are so many records: what a load brings is written behind its answer, and must
/// not be taken for the record of the next page.
async fn all_written(redis: &Redis, count: usize) {
    wait_for("all records are written", SOON, || async {
        (records(redis).await.len() == count).then_some(())
    })
    .await;
}

/// What stands for a lease that nobody holds.
const FORGED: &[(&str, &str)] = &[
    (
        "without an end",
        "redis.call('SET', KEYS[1], ('x'):rep(24))",
    ),
    (
        "for years",
        "redis.call('SET', KEYS[1], ('x'):rep(24), 'PX', 315360000000)",
    ),
    ("of nothing", "redis.call('SET', KEYS[1], '')"),
    (
        "of a megabyte",
        "redis.call('SET', KEYS[1], ('x'):rep(1000000), 'PX', 315360000000)",
    ),
    ("a list", "redis.call('RPUSH', KEYS[1], 'x')"),
    (
        "a hash for years",
        "redis.call('HSET', KEYS[1], 'x', 'y') redis.call('PEXPIRE', KEYS[1], 315360000000)",
    ),
    ("a stream", "redis.call('XADD', KEYS[1], '*', 'x', 'y')"),
];

#[tokio::test]
async fn a_lease_that_is_not_renewed_holds_nobody_up_longer_than_its_ttl() {
    let redis = Redis::start().await;
    let origin = numbered().await;
    let node = over(&origin, &leases_at(&redis, "1s", ""), BELOW).await;
    for (n, (name, forge)) in FORGED.iter().enumerate() {
        let path = format!("/{n}");
        let lease = lease_of(&node, &redis, &path).await;
        eval(&redis, forge, &[&lease]).await;
        let answer = within(name, SOON, ask(&node, &path)).await;
        assert_eq!(answer.text(), format!("{path} 2"), "{name}");
        all_written(&redis, n + 1).await;
        // It was taken over, and given back: nobody waits for it again.
        wait_for("the lease is given back", SOON, || async {
            (redis.cli(&["EXISTS", &lease]).await == "0").then_some(())
        })
        .await;
    }
    let timeouts = [("outcome", "timeout")];
    assert_eq!(node.metric("lamina_l2_leases_total", &timeouts).await, 0.0);
}

/// With a secret nobody waits at all, so a long `ttl` does not matter.
#[tokio::test]
async fn a_lease_that_is_not_sealed_holds_nobody_up() {
    let redis = Redis::start().await;
    let origin = numbered().await;
    let l2 = leases_at(&redis, "10m", ", seal_key: a-secret-of-many-bytes");
    let node = over(&origin, &l2, BELOW).await;
    for (n, (name, forge)) in FORGED.iter().enumerate() {
        let path = format!("/{n}");
        let lease = lease_of(&node, &redis, &path).await;
        eval(&redis, forge, &[&lease]).await;
        let answer = within(name, SOON, ask(&node, &path)).await;
        assert_eq!(answer.text(), format!("{path} 2"), "{name}");
        all_written(&redis, n + 1).await;
    }
}

/// Whoever forges renewals, too, is waited for no longer than for another node's load.
#[tokio::test]
async fn a_lease_that_is_forged_again_and_again_holds_nobody_up_longer_than_one_waits() {
    let redis = Redis::start().await;
    let origin = numbered().await;
    let url = redis.url();
    let l2 = format!(
        "{{redis: {{url: \"{url}\", silence_timeout: 10m}}, read_timeout: 10m, write_timeout: 10m, lease: {{ttl: 1s, wait_timeout: 2s}}}}"
    );
    let node = over(&origin, &l2, BELOW).await;
    let lease = lease_of(&node, &redis, "/a").await;
    let forging = async {
        for n in 0_u64.. {
            let value = format!("{n:0>24}");
            redis.cli(&["SET", &lease, &value]).await;
        }
    };
    let answer = within("a page", SOON, async {
        tokio::select! {
            answer = ask(&node, "/a") => answer,
            () = forging => unreachable!("it has no end"),
        }
    })
    .await;
    assert_eq!(answer.text(), "/a 2");
}

/// Guards against a waiter that takes a lease over while its owner renews it.
#[tokio::test]
async fn a_lease_that_is_renewed_is_waited_for_beyond_its_ttl() {
    for more in ["", ", seal_key: a-secret-of-many-bytes"] {
        let redis = Redis::start().await;
        let gate = Gate::new();
        let origin = {
            let gate = gate.clone();
            Origin::start(move |_| {
                let gate = gate.clone();
                async move {
                    gate.pass().await;
                    Reply::ok("loaded once")
                }
            })
            .await
        };
        let l2 = leases_at(&redis, "1s", more);
        let one = over(&origin, &l2, BELOW).await;
        let other = over(&origin, &l2, BELOW).await;
        let loading = async {
            gate.reached_by(1).await;
            let busy = [("outcome", "busy")];
            let name = "lamina_l2_leases_total";
            other.metric_until(name, &busy, |busy| busy >= 1.0).await;
            // Three times as long as a lease holds without renewal.
            passed(std::time::Instant::now(), Duration::from_secs(3)).await;
            assert_eq!(origin.count(), 1, "nobody else loads");
            gate.open();
            written(&one, 1.0).await;
        };
        let asked = async {
            let first = ask(&one, "/");
            let second = async {
                gate.reached_by(1).await;
                ask(&other, "/").await
            };
            tokio::join!(first, second)
        };
        let ((first, second), ()) = tokio::join!(asked, loading);
        assert_eq!(
            (first.text(), second.text()),
            ("loaded once", "loaded once")
        );
        assert_eq!(origin.count(), 1);
    }
}
