//! `purge --wait`: every node of the membership counts until it leaves, and what was not told
//! to anybody is never called complete.

use e2e::cli::{Ran, run};
use e2e::fleet::{Fleet, known, node, state};
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::wait::{SOON, wait_for};
use e2e::wire::Wire;
use http::Method;
use serde_json::{Value, json};

fn over(port: u16) -> String {
    format!(
        "nats: {{servers: [\"nats://127.0.0.1:{port}\"], ping_interval: 300ms, reconnect_max: 500ms}}"
    )
}

/// `lamina purge --tag x --wait …` against a node.
async fn purge(node: &Gateway, wait: &str) -> Ran {
    let (admin, wait) = (node.admin.to_string(), wait.to_owned());
    let ran = tokio::task::spawn_blocking(move || {
        run(&["purge", "--tag", "x", "--wait", &wait, "--admin", &admin])
    });
    ran.await.unwrap()
}

/// What a node says of another one; null if it knows nobody of this name.
pub async fn listed(node: &Gateway, name: &str) -> Value {
    let answer = node.admin(Method::GET, "/v1/nodes", "").await;
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    let nodes = body["nodes"].as_array().unwrap();
    let found = nodes.iter().find(|node| node["node"] == name);
    found.cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_is_named_as_silent_and_one_that_left_is_not_waited_for() {
    let nats = Nats::start().await;
    let mut fleet = Fleet::start(3, |_| over(nats.port)).await;
    let ran = purge(&fleet.nodes[0], "20s").await;
    assert_eq!(ran.code, Some(0), "{}", ran.output());

    fleet.nodes[1].kill();
    wait_for("the killed node is silent", SOON, || async {
        (listed(&fleet.nodes[0], "b").await["state"] == "silent").then_some(())
    })
    .await;
    assert_eq!(listed(&fleet.nodes[0], "b").await["healthy"], false);
    let ran = purge(&fleet.nodes[0], "300ms").await;
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    assert!(ran.stdout.contains("b: silent for "), "{}", ran.stdout);
    assert!(ran.stdout.contains("1 of 2 other nodes"), "{}", ran.stdout);

    fleet.nodes[2].terminate();
    fleet.nodes[2].ended(SOON * 2).await;
    wait_for("the other one has left", SOON, || async {
        (known(&fleet.nodes[0]).await == 1).then_some(())
    })
    .await;
    let ran = purge(&fleet.nodes[0], "300ms").await;
    assert!(ran.stdout.contains("0 of 1 other nodes"), "{}", ran.stdout);
    assert_eq!(ran.code, Some(1), "the killed one did not leave");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_does_not_know_where_a_purge_holds() {
    let mut nats = Nats::start().await;
    let fleet = Fleet::start(2, |_| over(nats.port)).await;
    nats.kill();
    let ran = purge(&fleet.nodes[0], "1s").await;
    assert_eq!(ran.code, Some(3), "{}", ran.output());
    assert!(
        ran.stdout.contains("unknown where the purge applies"),
        "{}",
        ran.stdout
    );
    let receipt = fleet.nodes[0]
        .purge(json!({"tag": "x", "wait": "300ms"}))
        .await;
    assert_eq!(receipt["peers"]["complete"], false, "{receipt}");
    assert_eq!(receipt["peers"]["outcome"], "unknown", "{receipt}");
    nats.respawn();
    fleet.whole().await;
    let ran = purge(&fleet.nodes[0], "20s").await;
    assert_eq!(ran.code, Some(0), "{}", ran.output());
}

/// The broker is there and takes nothing: a purge of nobody else is not complete either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_others_does_not_call_complete_what_was_not_published() {
    let nats = Nats::start().await;
    let wire = Wire::to(nats.port).await;
    let fleet = Fleet::start(1, |_| over(wire.address.port())).await;
    let node = &fleet.nodes[0];
    let whole = wait_for("the purge is taken", SOON, || async {
        let ran = purge(node, "2s").await;
        (ran.code == Some(0)).then_some(ran)
    });
    assert!(whole.await.stdout.contains("0 of 0 other nodes"));
    wire.part();
    let ran = purge(node, "300ms").await;
    assert_eq!(ran.code, Some(3), "{}", ran.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_expected_and_were_never_heard_are_missing() {
    let nats = Nats::start().await;
    let bus = format!("expect: 3, {}", over(nats.port));
    let fleet = Fleet::start(2, |_| bus.clone()).await;
    let ran = purge(&fleet.nodes[0], "2s").await;
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    assert!(
        ran.stdout.contains("1 more nodes are expected"),
        "{}",
        ran.stdout
    );
    let third = node(&fleet.origin, "c", &bus).start().await;
    wait_for("the third node is heard", SOON, || async {
        (known(&fleet.nodes[0]).await == 2 && state(&third).await == "serving").then_some(())
    })
    .await;
    let ran = purge(&fleet.nodes[0], "20s").await;
    assert_eq!(ran.code, Some(0), "{}", ran.output());
}

/// It gets no answers of others, so it can't know where a purge applies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_listen_does_not_call_a_purge_complete() {
    let nats = Nats::start().await;
    let fleet = Fleet::start(1, |_| over(nats.port)).await;
    let bus = format!("subscribe_to_events: false, {}", over(nats.port));
    let deaf = node(&fleet.origin, "deaf", &bus).start().await;
    wait_for("the other node hears it", SOON, || async {
        (known(&fleet.nodes[0]).await == 1 && state(&deaf).await == "serving").then_some(())
    })
    .await;
    let ran = purge(&deaf, "300ms").await;
    assert_eq!(ran.code, Some(3), "{}", ran.output());
    assert!(
        ran.stdout.contains("bus.subscribe_to_events: false"),
        "{}",
        ran.stdout
    );
}
