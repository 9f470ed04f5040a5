//! One cache out of many nodes: real gateways over a real bus. One suite for all
//! transports; `cluster!(name, Broker)` at the end runs it for one more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use e2e::fleet::{Fleet, node, purge_everywhere, shown, state};
use e2e::gateway::Gateway;
use e2e::random::Random;
use e2e::wait::{SOON, wait_for, within};
use e2e::wire::Wire;
use lamina_cluster::bus::event::{BusEvent, EventShape};
use serde_json::json;
use tokio::task::JoinSet;

use crate::bus_transport::{Broker, Node};

/// How a gateway's YAML names the broker.
pub trait Configured: Broker {
    fn yaml(&self, port: u16, node: &str) -> String;
}

/// Nodes over a broker that is left as it is.
async fn fleet<B: Configured>(size: usize) -> (B, Fleet) {
    over(B::shared().await, size).await
}

/// Nodes over a broker that may be harmed.
async fn frail<B: Configured>(size: usize) -> (B, Fleet) {
    over(B::start().await, size).await
}

async fn over<B: Configured>(broker: B, size: usize) -> (B, Fleet) {
    let port = broker.port();
    let fleet = Fleet::start(size, |name| broker.yaml(port, name)).await;
    (broker, fleet)
}

/// Purges of others that a node has applied.
pub async fn applied(node: &Gateway) -> f64 {
    node.metric("lamina_cluster_purges_total", &[]).await
}

pub async fn has_applied(node: &Gateway, purges: f64) {
    wait_for("all purges come", SOON * 4, || async {
        (applied(node).await >= purges).then_some(())
    })
    .await;
}

pub async fn is(node: &Gateway, wanted: &str) {
    wait_for(&format!("a node is {wanted}"), SOON * 4, || async {
        (state(node).await == wanted).then_some(())
    })
    .await;
}

pub async fn every_selector_reaches_every_node<B: Configured>() {
    let (_broker, fleet) = fleet::<B>(3).await;
    let url = |path: &str| format!("http://{}{path}", fleet.nodes[0].address);
    for (n, selector) in [
        json!({"tag": "page"}),
        json!({"tag": "/p/1"}),
        json!({"prefix": "/p/"}),
        json!({"pattern": "*/p/?"}),
        json!({"pattern": "/p/1"}),
        json!({"url": url("/p/1")}),
        json!({"route": "site"}),
        json!({"all": true}),
    ]
    .into_iter()
    .enumerate()
    {
        let host = fleet.nodes[0].address.to_string();
        for node in &fleet.nodes {
            // One URL on all nodes.
            node.client().request("/p/1").host(&host).send().await;
        }
        let version = fleet.pages.change("/p/1");
        let receipt = purge_everywhere(&fleet.nodes[n % 3], selector.clone()).await;
        assert_eq!(receipt["peers"]["complete"], true, "{selector}: {receipt}");
        assert_eq!(receipt["peers"]["nodes"].as_array().unwrap().len(), 2);
        for node in &fleet.nodes {
            let answer = node.client().request("/p/1").host(&host).send().await;
            assert_eq!(answer.text(), version.to_string(), "{selector}");
        }
    }
}

pub async fn a_value_that_one_node_loaded_is_there_on_the_others<B: Configured>() {
    let (_broker, fleet) = fleet::<B>(2).await;
    for node in &fleet.nodes {
        node.client()
            .request("/p/1")
            .host("site.example")
            .send()
            .await;
    }
    fleet.pages.change("/p/1");
    purge_everywhere(&fleet.nodes[0], json!({"tag": "page"})).await;
    fleet.origin.forget();
    let stored = [("outcome", "stored")];
    let values = "lamina_cluster_values_total";
    let before = fleet.nodes[1].metric(values, &stored).await;
    fleet.nodes[0]
        .client()
        .request("/p/1")
        .host("site.example")
        .send()
        .await;
    fleet.nodes[1]
        .metric_until(values, &stored, |n| n > before)
        .await;
    let answer = fleet.nodes[1]
        .client()
        .request("/p/1")
        .host("site.example")
        .send()
        .await;
    assert!(answer.is_hit(), "{:?}", answer.cache());
    assert_eq!(answer.text(), "2");
    assert_eq!(fleet.origin.count(), 1);
}

/// With no further traffic at all.
pub async fn what_was_purged_while_the_broker_was_dead_arrives<B: Configured>() {
    let (mut broker, fleet) = frail::<B>(2).await;
    broker.kill();
    is(&fleet.nodes[0], "degraded").await;
    let before = applied(&fleet.nodes[1]).await;
    for n in 0..50 {
        fleet.nodes[0].purge(json!({"tag": format!("t{n}")})).await;
    }
    broker.respawn();
    has_applied(&fleet.nodes[1], before + 50.0).await;
    fleet.whole().await;
}

pub async fn what_was_purged_while_the_broker_stood_still_arrives<B: Configured>() {
    let (broker, fleet) = frail::<B>(2).await;
    let before = applied(&fleet.nodes[1]).await;
    broker.freeze();
    for n in 0..50 {
        fleet.nodes[0].purge(json!({"tag": format!("t{n}")})).await;
    }
    broker.thaw();
    has_applied(&fleet.nodes[1], before + 50.0).await;
}

/// What was purged meanwhile is not shown; what was not is asked for, or known to be good,
/// and is in L1 still.
pub async fn who_was_cut_off_shows_nothing_old_unchecked<B: Configured>() {
    let broker = B::shared().await;
    let (port, wire) = (broker.port(), Wire::to(broker.port()).await);
    let fleet = Fleet::start(2, |name| match name {
        "a" => broker.yaml(port, name),
        _ => broker.yaml(wire.address.port(), name),
    })
    .await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    for path in ["/old", "/same"] {
        assert_eq!(shown(b, path).await, 1);
    }
    wire.part();
    fleet.pages.change("/old");
    a.purge(json!({"tag": "/old"})).await;
    is(b, "degraded").await;
    fleet.origin.forget();
    assert_eq!(shown(b, "/same").await, 1, "it serves while it is cut off");
    wire.cut();
    let hears = async |whether: f64| {
        wait_for("the other node hears, or does not", SOON * 4, || async {
            let consuming = b.metric("lamina_bus_consuming", &[]).await;
            (consuming == whether).then_some(())
        })
        .await;
    };
    hears(0.0).await;
    wire.heal();
    hears(1.0).await;
    assert_eq!(shown(b, "/old").await, 2);
    assert_eq!(shown(b, "/same").await, 1);
    let seen = fleet.origin.seen();
    let whole = |path: &str| {
        let of = seen.iter().filter(|seen| seen.path_only() == path);
        of.filter(|seen| seen.header("if-none-match").is_empty())
            .count()
    };
    assert_eq!(whole("/same"), 0, "it was in L1 still");
}

pub async fn a_node_that_was_killed_brings_nothing_old_back<B: Configured>() {
    let (broker, fleet) = fleet::<B>(1).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("l2");
    let disk = format!("{{l2: {{disk: {{path: \"{}\"}}}}}}", file.display());
    let setup = node(&fleet.origin, "b", &broker.yaml(broker.port(), "b")).top("cache", &disk);
    let get = async |node: &Gateway, path: &str| {
        let answer = node
            .client()
            .request(path)
            .host("site.example")
            .send()
            .await;
        answer.text().to_owned()
    };
    let b = setup.start().await;
    is(&b, "serving").await;
    for path in ["/old", "/same"] {
        assert_eq!(get(&b, path).await, "1");
    }
    let written = [("outcome", "stored")];
    b.metric_until("lamina_l2_writes_total", &written, |n| n >= 2.0)
        .await;
    b.kill();
    drop(b);
    fleet.pages.change("/old");
    fleet.nodes[0].purge(json!({"tag": "/old"})).await;
    let b = setup.start().await;
    is(&b, "serving").await;
    assert_eq!(get(&b, "/old").await, "2");
    assert_eq!(get(&b, "/same").await, "1");
}

/// A durable broker's word that all was delivered can't tell either what the life before
/// had heard of and not yet noted on its disk.
pub async fn who_starts_again_and_hears_nobody_shows_nothing_old_unchecked<B: Configured>() {
    let (mut broker, fleet) = frail::<B>(1).await;
    let dir = tempfile::tempdir().unwrap();
    let disk = format!(
        "{{l2: {{disk: {{path: \"{}\"}}}}}}",
        dir.path().join("l2").display()
    );
    let setup = node(&fleet.origin, "b", &broker.yaml(broker.port(), "b")).top("cache", &disk);
    let get = async |node: &Gateway, path: &str| {
        let ask = node.client().request(path).host("site.example");
        ask.send().await.text().to_owned()
    };
    let mut b = setup.start().await;
    is(&b, "serving").await;
    for path in ["/old", "/same"] {
        assert_eq!(get(&b, path).await, "1");
    }
    let written = [("outcome", "stored")];
    b.metric_until("lamina_l2_writes_total", &written, |n| n >= 2.0)
        .await;
    b.terminate();
    b.ended(SOON * 4).await;
    drop(b);
    fleet.pages.change("/old");
    fleet.nodes[0].purge(json!({"tag": "/old"})).await;
    broker.kill();
    fleet.origin.forget();
    let b = setup.start().await;
    assert_eq!(get(&b, "/old").await, "2");
    assert_eq!(get(&b, "/same").await, "1");
    let seen = fleet.origin.seen();
    let asked = seen.iter().find(|seen| seen.path_only() == "/same");
    assert_eq!(asked.unwrap().header("if-none-match"), "\"/same-1\"");
}

pub async fn a_broker_that_is_down_at_the_start_is_joined_when_it_comes<B: Configured>() {
    let mut broker = B::start().await;
    broker.kill();
    let pages = e2e::fleet::Pages::default();
    let origin = pages.origin().await;
    let start = async |name: &str| {
        let setup = node(&origin, name, &broker.yaml(broker.port(), name));
        setup.start().await
    };
    let nodes = vec![start("a").await, start("b").await];
    assert_eq!(shown(&nodes[0], "/p").await, 1);
    is(&nodes[0], "degraded").await;
    broker.respawn();
    let fleet = Fleet {
        origin,
        pages,
        nodes,
    };
    fleet.whole().await;
    let receipt = purge_everywhere(&fleet.nodes[0], json!({"all": true})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
}

pub async fn who_does_not_answer_is_named<B: Configured>() {
    let (_broker, fleet) = fleet::<B>(2).await;
    fleet.nodes[1].freeze();
    let receipt = fleet.nodes[0]
        .purge(json!({"tag": "x", "wait": "300ms"}))
        .await;
    fleet.nodes[1].thaw();
    assert_eq!(receipt["peers"]["complete"], false);
    assert_eq!(receipt["peers"]["outcome"], "some");
    assert_eq!(receipt["peers"]["nodes"][0]["node"], "b");
    assert_eq!(receipt["peers"]["nodes"][0]["applied"], false);
}

/// Malformed, oversize and foreign: counted, and without effect.
pub async fn garbage_on_the_bus_harms_nobody<B: Configured>() {
    let (broker, fleet) = fleet::<B>(1).await;
    let node = &fleet.nodes[0];
    assert_eq!(shown(node, "/p").await, 1);
    let attacker = Node::join(broker.open(broker.port(), "attacker")).await;
    let foreign = BusEvent {
        id: String::new(),
        source: "x".to_owned(),
        namespace: Some("another".to_owned()),
        ts: 0,
        shape: EventShape::Del {
            keys: vec!["nobody".to_owned()],
        },
        ours: None,
    };
    let mut random = Random::new(7);
    // What is allocated once for messages of this size comes with the first of them.
    const FIRST: u64 = 40;
    const ROUNDS: u64 = 1_000;
    let malformed = [("outcome", "malformed")];
    let mut memory = 0;
    for round in 0..ROUNDS {
        if round == FIRST {
            let some = (FIRST * 4) as f64;
            node.metric_until("lamina_bus_received_total", &malformed, |n| n >= some)
                .await;
            memory = node.resident_bytes();
        }
        let noise: Vec<u8> = (0..random.below(200))
            .map(|_| random.below(256) as u8)
            .collect();
        let half = foreign.encode();
        attacker
            .publish(&[
                Bytes::from_static(b"HC1Mnonsense"),
                Bytes::from(noise),
                half.slice(..half.len() / 2),
                Bytes::from(vec![b'x'; 100_000]),
            ])
            .await;
    }
    let all = (ROUNDS * 4) as f64;
    node.metric_until("lamina_bus_received_total", &malformed, |n| n >= all)
        .await;
    let answer = node.client().get("/p").await;
    assert!(answer.is_hit(), "{:?}", answer.cache());
    let grown = node.resident_bytes().saturating_sub(memory);
    // Kept, the large ones alone were 96 MB. A machine under load queues some of them.
    assert!(grown < 72 << 20, "{grown} bytes more");
}

/// Services name pages as they write them.
pub async fn a_foreign_name_in_any_spelling_reaches_the_page<B: Configured>() {
    let (broker, fleet) = fleet::<B>(1).await;
    let node = &fleet.nodes[0];
    let service = Node::join(broker.open(broker.port(), "service")).await;
    for (n, spelling) in [
        "/p/café",
        "/p/caf%c3%a9",
        "/%70/caf%C3%A9",
        "/x/../p/caf%C3%A9",
    ]
    .into_iter()
    .enumerate()
    {
        for (m, shape) in [
            EventShape::Del {
                keys: vec![spelling.to_owned()],
            },
            EventShape::Set {
                keys: vec![spelling.to_owned()],
            },
            EventShape::Pattern(format!("{spelling}*")),
            EventShape::Pattern(format!("*{}", spelling.replace("/x/..", ""))),
        ]
        .into_iter()
        .enumerate()
        {
            for page in ["/p/caf%C3%A9", "/q"] {
                node.client().get(page).await;
                assert!(node.client().get(page).await.is_hit(), "{page}");
            }
            let event = BusEvent {
                id: format!("{n}-{m}"),
                source: "service".to_owned(),
                namespace: None,
                ts: 0,
                shape: shape.clone(),
                ours: None,
            };
            service.publish(&[event.encode()]).await;
            let heard = (4 * n + m + 1) as f64;
            node.metric_until("lamina_cluster_foreign_total", &[], |n| n >= heard)
                .await;
            let answer = node.client().get("/p/caf%C3%A9").await;
            assert!(!answer.is_hit(), "{shape:?}");
            assert!(node.client().get("/q").await.is_hit(), "{shape:?}");
        }
    }
}

/// Readers all the while: no answer is older than what had been purged, with a receipt,
/// before it was asked for.
pub async fn under_load_nothing_old_is_seen_after_a_receipt<B: Configured>() {
    const PAGES: usize = 8;
    const PURGES: usize = 120;
    let (_broker, fleet) = fleet::<B>(3).await;
    let path = |page: usize| format!("/p/{page}");
    let acknowledged: Arc<Vec<AtomicU64>> =
        Arc::new((0..PAGES).map(|_| AtomicU64::new(1)).collect());
    let ends = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for (number, node) in fleet.nodes.iter().enumerate() {
        let (client, acknowledged, ends) = (node.client(), acknowledged.clone(), ends.clone());
        readers.spawn(async move {
            let mut random = Random::new(number as u64);
            let mut read = 0;
            while !ends.load(Ordering::SeqCst) {
                let page = random.below(PAGES as u64) as usize;
                let floor = acknowledged[page].load(Ordering::SeqCst);
                let path = format!("/p/{page}");
                let answer = client.request(&path).host("site.example").send().await;
                let seen: u64 = answer.text().parse().unwrap();
                assert!(seen >= floor, "{path}: {seen} after {floor}");
                read += 1;
            }
            read
        });
    }
    let mut random = Random::new(99);
    for n in 0..PURGES {
        let page = random.below(PAGES as u64) as usize;
        let version = fleet.pages.change(&path(page));
        let selector = match random.below(6) {
            0 => json!({"tag": path(page)}),
            1 => json!({"prefix": path(page)}),
            2 => json!({"pattern": format!("*{}", path(page))}),
            3 => json!({"route": "site"}),
            4 => json!({"all": true}),
            _ => json!({"url": format!("http://site.example{}", path(page))}),
        };
        let receipt = purge_everywhere(&fleet.nodes[n % 3], selector).await;
        assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
        acknowledged[page].store(version, Ordering::SeqCst);
    }
    ends.store(true, Ordering::SeqCst);
    within("readers end", SOON, async {
        while let Some(reader) = readers.join_next().await {
            let read: usize = reader.unwrap();
            assert!(read >= PURGES, "only {read} answers were looked at");
        }
    })
    .await;
    for node in &fleet.nodes {
        for page in 0..PAGES {
            let path = path(page);
            let answer = node
                .client()
                .request(&path)
                .host("site.example")
                .send()
                .await;
            assert_eq!(
                answer.text(),
                fleet.pages.version(&path).to_string(),
                "{path}"
            );
        }
    }
}

/// The suite for one broker.
macro_rules! cluster {
    ($name:ident, $broker:ty) => {
        cluster!($name, $broker:
            every_selector_reaches_every_node
            a_value_that_one_node_loaded_is_there_on_the_others
            what_was_purged_while_the_broker_was_dead_arrives
            what_was_purged_while_the_broker_stood_still_arrives
            who_was_cut_off_shows_nothing_old_unchecked
            a_node_that_was_killed_brings_nothing_old_back
            who_starts_again_and_hears_nobody_shows_nothing_old_unchecked
            a_broker_that_is_down_at_the_start_is_joined_when_it_comes
            who_does_not_answer_is_named
            garbage_on_the_bus_harms_nobody
            a_foreign_name_in_any_spelling_reaches_the_page
            under_load_nothing_old_is_seen_after_a_receipt
        );
    };
    ($name:ident, $broker:ty: $($fact:ident)+) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $fact() {
                    super::$fact::<$broker>().await;
                }
            )+
        }
    };
}

impl Configured for crate::bus_nats::Core {
    fn yaml(&self, port: u16, _node: &str) -> String {
        format!(
            "nats: {{servers: [\"nats://127.0.0.1:{port}\"], ping_interval: 300ms, reconnect_max: 500ms}}"
        )
    }
}

impl Configured for crate::bus_nats::JetStream {
    fn yaml(&self, port: u16, node: &str) -> String {
        format!(
            "nats: {{servers: [\"nats://127.0.0.1:{port}\"], mode: jetstream, ping_interval: 300ms, \
             reconnect_max: 500ms, jetstream: {{durable_name: {node}}}}}"
        )
    }
}

impl Configured for crate::bus_redis::PubSub {
    fn yaml(&self, port: u16, _node: &str) -> String {
        format!(
            "redis: {{url: \"redis://127.0.0.1:{port}\", connect_timeout: 1s, silence_timeout: 1s, \
             reconnect_max: 500ms}}"
        )
    }
}

impl<const DURABLE: bool> Configured for crate::bus_rabbitmq_broker::Of<DURABLE> {
    fn yaml(&self, port: u16, node: &str) -> String {
        let exchange = &self.exchange;
        let durable = match DURABLE {
            true => format!(", durable_invalidation_mode: true, queue_name: {exchange}-{node}"),
            false => String::new(),
        };
        format!(
            "rabbitmq: {{url: \"amqp://127.0.0.1:{port}\", exchange: {exchange}, heartbeat: 2s, \
             connect_timeout: 10s, reconnect_max: 1s{durable}}}"
        )
    }
}

cluster!(nats, crate::bus_nats::Core);
cluster!(jetstream, crate::bus_nats::JetStream);
cluster!(redis, crate::bus_redis::PubSub);
cluster!(rabbitmq, crate::bus_rabbitmq_broker::Plain);
cluster!(rabbitmq_durable, crate::bus_rabbitmq_broker::Durable);
