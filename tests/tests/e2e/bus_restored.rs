//! A durable broker that lost messages which it had taken: a stream from a backup, one from which
//! somebody deleted, a queue that somebody emptied. The node that was away meanwhile learns of what
//! it missed without a further purge.

use e2e::fleet::{Fleet, shown, state};
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::wait::{SOON, wait_for};
use e2e::wire::Wire;
use serde_json::json;

use crate::bus_nats::JetStream;
use crate::bus_rabbitmq_broker::Of;
use crate::bus_transport::Broker;
use crate::cluster::Configured;

const STREAM: &str = "CACHE_INVALIDATIONS";

/// All that the node had published is with the broker.
async fn has_published(node: &Gateway) {
    node.metric_until("lamina_bus_purges_waiting", &[], |n| n == 0.0)
        .await;
}

async fn hears(node: &Gateway, whether: f64) {
    node.metric_until("lamina_bus_consuming", &[], |n| n == whether)
        .await;
}

/// The second node shows the page as it is now, and knows that it had missed something.
async fn learns_of_it(fleet: &Fleet, gaps: f64) {
    let b = &fleet.nodes[1];
    wait_for("the purge comes to the other node", SOON * 2, || async {
        (shown(b, "/p").await == fleet.pages.version("/p")).then_some(())
    })
    .await;
    b.metric_until("lamina_cluster_gaps_total", &[], |n| n > gaps)
        .await;
}

async fn gaps(node: &Gateway) -> f64 {
    node.metric("lamina_cluster_gaps_total", &[]).await
}

/// The node that published a purge notices that the stream lacks it, and tells it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_from_a_backup_is_noticed_by_who_has_seen_more_of_it() {
    let mut broker = JetStream(Nats::start().await);
    let fleet = Fleet::start(2, |name| broker.yaml(broker.port(), name)).await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    assert_eq!(shown(b, "/p").await, 1);
    a.purge(json!({"tag": "before"})).await;
    has_published(a).await;
    broker.0.kill();
    let backup = broker.0.backup();
    broker.0.respawn();
    fleet.whole().await;
    b.freeze();
    fleet.pages.change("/p");
    a.purge(json!({"tag": "/p"})).await;
    has_published(a).await;
    broker.0.kill();
    broker.0.restore(backup);
    b.thaw();
    let before = gaps(b).await;
    broker.0.respawn();
    learns_of_it(&fleet, before).await;
    a.logged("what the stream lacks", |line| {
        line.contains("WARN") && line.contains("the stream lacks messages that were in it")
    })
    .await;
    assert!(gaps(a).await > 0.0);
    fleet.whole().await;
}

/// A stream that was deleted and made anew begins at 1, and everybody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_made_anew_is_noticed() {
    let broker = JetStream(Nats::start().await);
    let fleet = Fleet::start(2, |name| broker.yaml(broker.port(), name)).await;
    let before = [gaps(&fleet.nodes[0]).await, gaps(&fleet.nodes[1]).await];
    let deleted = format!("$JS.API.STREAM.DELETE.{STREAM}");
    let answer = broker.0.ask(&deleted, "").await;
    assert!(answer.contains("\"success\":true"), "{answer}");
    for (node, before) in fleet.nodes.iter().zip(before) {
        node.logged("what the stream lacks", |line| {
            line.contains("it was deleted and made anew")
        })
        .await;
        node.metric_until("lamina_cluster_gaps_total", &[], |n| n > before)
            .await;
    }
    fleet.whole().await;
}

/// Nothing that the server says of the stream differs from what the node knows, so only the
/// publisher's own count in its heartbeats tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_a_stream_lost_is_missed_by_the_count_of_its_publisher() {
    let broker = JetStream(Nats::start().await);
    let (port, wire) = (broker.port(), Wire::to(broker.port()).await);
    let fleet = Fleet::start(2, |name| match name {
        "a" => broker.yaml(port, name),
        _ => broker.yaml(wire.address.port(), name),
    })
    .await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    // It stays in the stream, so that the stream's first number does not tell.
    a.purge(json!({"tag": "before"})).await;
    b.metric_until("lamina_cluster_purges_total", &[], |n| n >= 1.0)
        .await;
    assert_eq!(shown(b, "/p").await, 1);
    let before = gaps(b).await;
    wire.part();
    wire.cut();
    hears(b, 0.0).await;
    fleet.pages.change("/p");
    a.purge(json!({"tag": "/p"})).await;
    has_published(a).await;
    let info = broker
        .0
        .ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), "")
        .await;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let last = &info["state"]["last_seq"];
    let delete = format!("$JS.API.STREAM.MSG.DELETE.{STREAM}");
    let answer = broker.0.ask(&delete, &format!("{{\"seq\":{last}}}")).await;
    assert!(answer.contains("\"success\":true"), "{answer}");
    wire.heal();
    learns_of_it(&fleet, before).await;
}

/// RabbitMQ tells nothing of what a queue had held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_a_queue_lost_is_missed_by_the_count_of_its_publisher() {
    let broker = Of::<true>::shared().await;
    let (port, wire) = (broker.port(), Wire::to(broker.port()).await);
    let fleet = Fleet::start(2, |name| match name {
        "a" => broker.yaml(port, name),
        _ => broker.yaml(wire.address.port(), name),
    })
    .await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    assert_eq!(shown(b, "/p").await, 1);
    let before = gaps(b).await;
    wire.part();
    wire.cut();
    hears(b, 0.0).await;
    fleet.pages.change("/p");
    a.purge(json!({"tag": "/p"})).await;
    has_published(a).await;
    broker
        .ctl(&["purge_queue", &format!("{}-b", broker.exchange)])
        .await;
    wire.heal();
    learns_of_it(&fleet, before).await;
    wait_for("it is over", SOON, || async {
        (state(b).await == "serving").then_some(())
    })
    .await;
}
