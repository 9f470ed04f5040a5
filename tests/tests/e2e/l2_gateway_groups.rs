//! A gateway over a Sentinel group and over a Cluster, while masters change: clients get
//! their pages, metrics tell what happened, and the store is used again by itself.

use e2e::redis::{Cluster, Redis, Sentinels};
use e2e::wait::SOON;

use crate::l2::{ask, over};
use crate::l2_gateway_damage::{BELOW, numbered};
use crate::l2_gateway_faults::{CALM, served, told, used_again};

/// Deadlines that end no call that is answered, and silence that is noticed.
fn group_at(url: &str) -> String {
    format!("{{redis: {{url: \"{url}\", connect_timeout: 5s, silence_timeout: 5s}}, {CALM}}}")
}

const DOWN: (&str, &[(&str, &str)]) = ("lamina_l2_calls_total", &[("outcome", "down")]);

#[tokio::test]
async fn a_killed_master_behind_sentinel_costs_nobody_a_page() {
    let mut group = Sentinels::start().await;
    let origin = numbered().await;
    let node = over(&origin, &group_at(&group.url()), BELOW).await;
    used_again(&node).await;
    let first = group.master().await.expect("there is a master");
    group.servers[first].cli(&["WAIT", "2", "20000"]).await;
    group.servers[first].kill();
    group.impatient().await;
    told(&node, DOWN).await;
    used_again(&node).await;
    assert_ne!(group.master().await, Some(first));
}

/// The old master lives on as a replica, and the connections to it stand.
#[tokio::test]
async fn a_master_that_became_a_replica_is_left_for_the_new_one() {
    let group = Sentinels::start().await;
    let origin = numbered().await;
    let node = over(&origin, &group_at(&group.url()), BELOW).await;
    used_again(&node).await;
    let first = group.master().await.expect("there is a master");
    group.servers[first].cli(&["WAIT", "2", "20000"]).await;
    let next = (first + 1) % 3;
    let other = &group.servers[next];
    other.cli(&["REPLICAOF", "NO", "ONE"]).await;
    let port = other.port.to_string();
    group.servers[first]
        .cli(&["REPLICAOF", "127.0.0.1", &port])
        .await;
    // Whichever write meets it first, which need be none of a request.
    node.metric_until(
        "lamina_l2_refusals_total",
        &[("reason", "read-only")],
        |n| n > 0.0,
    )
    .await;
    group.follow(next).await;
    used_again(&node).await;
}

/// The name of the record of the only page so far.
async fn only_record(nodes: &[Redis]) -> String {
    let mut names = Vec::new();
    for node in nodes {
        let said = node.cli(&["--scan", "--pattern", "lamina:*r"]).await;
        names.extend(said.lines().map(str::to_owned));
    }
    // Its replica has it, too.
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 1, "{names:?}");
    names.remove(0)
}

#[tokio::test]
async fn a_cluster_that_loses_a_node_and_moves_a_slot_costs_nobody_a_page() {
    let mut cluster = Cluster::start().await;
    let origin = numbered().await;
    let node = over(&origin, &group_at(&cluster.url()), BELOW).await;
    used_again(&node).await;
    let name = only_record(&cluster.nodes).await;
    let from = cluster.owner(0, &name).await.expect("somebody has it");
    let to = Cluster::masters().find(|node| *node != from).unwrap();
    cluster.move_slot(&name, to).await;
    e2e::wait::wait_for("the moved page comes from below", SOON, || async {
        ask(&node, "/again/0").await.is_hit().then_some(())
    })
    .await;
    cluster.nodes[to].kill();
    cluster.impatient().await;
    for n in 0..20 {
        served(&node, &format!("/meanwhile/{n}")).await;
    }
    told(&node, DOWN).await;
    used_again(&node).await;
    // The page of the dead node as well.
    e2e::wait::wait_for("its page comes from below", SOON * 2, || async {
        served(&node, "/again/0").await;
        ask(&node, "/again/0").await.is_hit().then_some(())
    })
    .await;
}
