//! RabbitMQ with an alarm takes nothing from publishers: nodes, log and `doctor` name it alike, and
//! what was purged meanwhile arrives when it is over.

use e2e::cli::run;
use e2e::fleet::{Fleet, node, shown, state};
use e2e::gateway::Gateway;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::{Value, json};

use crate::bus_rabbitmq_broker::Of;
use crate::bus_transport::Broker;
use crate::cluster::Configured;

const NAME: &str = "connection.blocked";

async fn an_alarm_has_one_name_everywhere_and_holds_purges_up<const DURABLE: bool>() {
    let broker = Of::<DURABLE>::start().await;
    let fleet = Fleet::start(2, |name| broker.yaml(broker.port(), name)).await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    assert_eq!(shown(b, "/p").await, 1);
    let watermark = "set_vm_memory_high_watermark";
    broker.ctl(&[watermark, "0.0001"]).await;
    // RabbitMQ blocks a connection when something is published on it.
    wait_for("the node says that it can't publish", SOON * 2, || async {
        let nodes = a.admin(Method::GET, "/v1/nodes", "").await.text;
        nodes.contains(NAME).then_some(())
    })
    .await;
    fleet.pages.change("/p");
    a.purge(json!({"tag": "/p"})).await;
    assert_eq!(state(a).await, "degraded");
    a.logged("why", |line| line.contains("WARN") && line.contains(NAME))
        .await;
    wait_for("nodes, /readyz and metrics count alike", SOON, || async {
        let [ready, nodes] = [waiting(a, "/readyz").await, waiting(a, "/v1/nodes").await];
        let metric = a.metric("lamina_bus_purges_waiting", &[]).await;
        (ready == 1 && nodes == 1 && metric == 1.0).then_some(())
    })
    .await;
    let (_dir, file) = node(&fleet.origin, "d", &broker.yaml(broker.port(), "d")).write();
    let file = file.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&["doctor", "-c", &file]));
    let ran = ran.await.unwrap();
    broker.ctl(&[watermark, "0.9"]).await;
    assert!(ran.stdout.contains(NAME), "{}", ran.output());
    wait_for("the purge arrives", SOON * 2, || async {
        (shown(b, "/p").await == 2).then_some(())
    })
    .await;
    fleet.whole().await;
    for path in ["/readyz", "/v1/nodes"] {
        assert_eq!(waiting(a, path).await, 0, "{path}");
    }
}

/// How many purges wait, as this path of the admin listener says.
async fn waiting(node: &Gateway, path: &str) -> Value {
    let body = node.admin(Method::GET, path, "").await.text;
    let body: Value = serde_json::from_str(&body).unwrap();
    body["bus"]["purges_waiting"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_has_one_name_everywhere_and_holds_purges_up_until_it_is_over() {
    an_alarm_has_one_name_everywhere_and_holds_purges_up::<false>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_of_a_broker_with_durable_queues_too() {
    an_alarm_has_one_name_everywhere_and_holds_purges_up::<true>().await;
}

/// RabbitMQ reads nothing from a connection that it has blocked, so it answers no check either.
async fn hearing_goes_on_while_an_alarm_lasts<const DURABLE: bool>() {
    let broker = Of::<DURABLE>::start().await;
    let yaml = |name: &str| {
        let yaml = broker.yaml(broker.port(), name);
        yaml.replace("connect_timeout: 10s", "connect_timeout: 2s")
    };
    let fleet = Fleet::start(2, yaml).await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    let watermark = "set_vm_memory_high_watermark";
    broker.ctl(&[watermark, "0.0001"]).await;
    for node in [a, b] {
        wait_for(
            "the alarm outlasts checks of the binding",
            SOON * 2,
            || async {
                let bus = bus(node).await;
                let why = bus["reason"].as_str().unwrap_or_default();
                assert_eq!(bus["hears"], true, "{bus}");
                assert!(why.is_empty() || why.contains(NAME), "{bus}");
                let outlasts = why.contains(NAME) && bus["for_ms"].as_u64() > Some(9_000);
                outlasts.then_some(())
            },
        )
        .await;
    }
    broker.ctl(&[watermark, "0.9"]).await;
    fleet.whole().await;
    for node in [a, b] {
        let lost = node.log().iter().any(|line| line.contains("reconnecting"));
        assert!(!lost, "{:?}", node.log());
    }
}

async fn bus(node: &Gateway) -> Value {
    let body = node.admin(Method::GET, "/v1/nodes", "").await.text;
    let body: Value = serde_json::from_str(&body).unwrap();
    body["bus"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hears_while_an_alarm_lasts() {
    hearing_goes_on_while_an_alarm_lasts::<false>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_durable_queue_hears_while_an_alarm_lasts() {
    hearing_goes_on_while_an_alarm_lasts::<true>().await;
}
