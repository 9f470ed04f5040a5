//! Services in Node.js that publish as `lazy-layers-cache` does, and read what we publish:
//! `tests/bus`, over msgpackr and the clients from npm, and none of our code.

use std::process::Stdio;

use e2e::fleet::{Fleet, shown};
use e2e::wait::{SOON, wait_for, within};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::cluster::Configured;

/// Where a service finds the broker: the control's word for it, URL and channel.
struct Place {
    transport: &'static str,
    url: String,
    channel: String,
}

/// The program of `tests/bus`, begun.
fn control(arguments: &[&str]) -> Command {
    let script = e2e::cli::repository().join("tests/bus/control.sh");
    let mut command = Command::new(script);
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn publish(place: &Place, event: &Value) {
    let event = event.to_string();
    let arguments = [
        "publish",
        place.transport,
        &place.url,
        &place.channel,
        &event,
    ];
    let output = within(
        "the service publishes",
        SOON * 2,
        control(&arguments).output(),
    )
    .await;
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
}

/// `del`, `pattern` and `set` of a service invalidate the edge, and a value of its comes
/// nowhere.
async fn what_a_service_says_invalidates_the_edge(fleet: &Fleet, place: &Place) {
    let Fleet { nodes, pages, .. } = fleet;
    for event in [
        json!({"type": "del", "keys": ["/p/1"], "generation": 3}),
        json!({"type": "del", "keys": ["page"], "generation": 4}),
        json!({"type": "set", "keys": ["page"], "value": {"not": "a page"}, "ttlMs": 60_000}),
        json!({"type": "pattern", "pattern": "/p/*"}),
        json!({"type": "pattern", "pattern": "user:*"}),
    ] {
        shown(&nodes[0], "/p/1").await;
        let version = pages.change("/p/1");
        let mut event = event;
        event["source"] = json!("a-service");
        event["ts"] = json!(1_700_000_000_000_u64);
        event["id"] = json!(format!("event-{version}"));
        publish(place, &event).await;
        wait_for("the edge shows the new page", SOON, || async {
            (shown(&nodes[0], "/p/1").await == version).then_some(())
        })
        .await;
    }
    let foreign = nodes[0].metric("lamina_cluster_foreign_total", &[]).await;
    assert_eq!(foreign, 5.0);
}

/// Whatever a service stores, its key is purged: also a value of 1.2 MB, and what is no JSON.
async fn a_value_of_any_kind_invalidates_the_edge(fleet: &Fleet, place: &Place) {
    let Fleet { nodes, pages, .. } = fleet;
    let odd = ["large", "deep", "records", "cycle", "types", "undefined"];
    for name in odd {
        shown(&nodes[0], "/p/1").await;
        let version = pages.change("/p/1");
        let event = json!({
            "id": format!("odd-{version}"), "type": "set", "source": "a-service", "keys": ["page"],
            "ts": 1_700_000_000_000_u64, "value": format!("<odd {name}>"), "ttlMs": 60_000,
        });
        publish(place, &event).await;
        wait_for(&format!("the page is new after {name}"), SOON, || async {
            (shown(&nodes[0], "/p/1").await == version).then_some(())
        })
        .await;
    }
    let malformed = [("outcome", "malformed")];
    let malformed = nodes[0].metric("lamina_bus_received_total", &malformed);
    assert_eq!(malformed.await, 0.0);
}

/// A key that is too long is counted by reason, and the log says how it begins.
async fn a_key_that_is_too_long_is_told(fleet: &Fleet, place: &Place) {
    let node = &fleet.nodes[0];
    let key = format!("catalogue:{}", "k".repeat(70_000));
    let event = json!({
        "id": "long", "type": "set", "source": "a-service", "keys": [key], "ts": 1, "value": 1,
    });
    publish(place, &event).await;
    let reason = [("reason", "too_long")];
    node.metric_until("lamina_bus_malformed_total", &reason, |n| n == 1.0)
        .await;
    let of_it = |line: &str| line.contains("catalogue:kkkk") && line.contains("are not purged");
    node.logged("the line about the key", of_it).await;
}

/// A purge by tag is the deletion of the key of that name to a service.
async fn a_service_hears_what_the_edge_purges(fleet: &Fleet, place: &Place) {
    let arguments = [
        "read",
        place.transport,
        &place.url,
        &place.channel,
        "100",
        "20000",
    ];
    let mut reader = control(&arguments).spawn().unwrap();
    let mut ready = BufReader::new(reader.stderr.take().unwrap()).lines();
    let subscribed = within("the service subscribes", SOON * 2, ready.next_line()).await;
    assert_eq!(subscribed.unwrap().unwrap(), "ready");
    fleet.nodes[0].purge(json!({"tag": "user:7"})).await;
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    let heard = within("the purge is heard", SOON * 2, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it reads on");
            let event: Value = serde_json::from_str(&line).unwrap();
            assert!(event.get("malformed").is_none(), "{event}");
            if event["keys"] != json!(["lamina:"]) {
                return event;
            }
        }
    });
    let event = heard.await;
    assert_eq!(
        (&event["type"], &event["keys"]),
        (&json!("del"), &json!(["user:7"]))
    );
    assert_eq!(event["source"], "a");
}

async fn over<B: Configured>(transport: &'static str, channel: impl Fn(&B) -> String) {
    let broker = B::shared().await;
    let port = broker.port();
    let scheme = match transport {
        "jetstream" => "nats",
        "rabbitmq" => "amqp",
        other => other,
    };
    let place = Place {
        transport,
        url: format!("{scheme}://127.0.0.1:{port}"),
        channel: channel(&broker),
    };
    let fleet = Fleet::start(1, |name| broker.yaml(port, name)).await;
    what_a_service_says_invalidates_the_edge(&fleet, &place).await;
    a_value_of_any_kind_invalidates_the_edge(&fleet, &place).await;
    a_key_that_is_too_long_is_told(&fleet, &place).await;
    a_service_hears_what_the_edge_purges(&fleet, &place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_the_edge_hear_each_other_over_redis() {
    over::<crate::bus_redis::PubSub>("redis", |_| "lamina:events".to_owned()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_the_edge_hear_each_other_over_nats() {
    over::<crate::bus_nats::Core>("nats", |_| "cache.invalidations".to_owned()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_the_edge_hear_each_other_over_jetstream() {
    over::<crate::bus_nats::JetStream>("jetstream", |_| "cache.invalidations".to_owned()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_the_edge_hear_each_other_over_rabbitmq() {
    over::<crate::bus_rabbitmq_broker::Plain>("rabbitmq", |broker| broker.exchange.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_the_edge_hear_each_other_over_durable_rabbitmq() {
    over::<crate::bus_rabbitmq_broker::Durable>("rabbitmq", |broker| broker.exchange.clone()).await;
}
