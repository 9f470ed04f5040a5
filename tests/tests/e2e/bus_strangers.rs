//! Somebody on the bus of nodes that share no key: what it can't do all the same. And how people
//! are asked for a key.

use bytes::Bytes;
use e2e::cli;
use e2e::fleet::{Fleet, known, purge_everywhere, shown, state};
use e2e::gateway::Gateway;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use lamina_cluster::bus::event::{BusEvent, EventShape, Message, PublisherNumber};
use serde_json::json;

use crate::bus_attacker::{Attacker, forged, heartbeat, is_of, kind, purge_all};
use crate::bus_transport::Broker;
use crate::cluster::Configured;

type Redis = crate::bus_redis::PubSub;

async fn fleet(keys: &str, size: usize) -> (Redis, Attacker, Fleet) {
    let broker = Redis::start().await;
    let attacker = Attacker::join(&broker).await;
    let port = broker.port();
    let fleet = Fleet::start(size, |name| format!("{keys}{}", broker.yaml(port, name))).await;
    (broker, attacker, fleet)
}

const KEY: &str = "seal_key: \"a key that all nodes share\", ";

/// Waits until a node has read all that was published before. It is told by a message that is
/// malformed in a way of its own: what else is malformed may be counted at any time.
async fn has_read(attacker: &Attacker, node: &Gateway) {
    let of_the_mark = [("reason", "truncated")];
    let malformed = "lamina_bus_malformed_total";
    let before = node.metric(malformed, &of_the_mark).await;
    let mark = Bytes::from_static(b"HC1");
    attacker.publish(&[mark]).await;
    node.metric_until(malformed, &of_the_mark, |n| n > before)
        .await;
}

async fn gaps(node: &Gateway) -> f64 {
    node.metric("lamina_cluster_gaps_total", &[]).await
}

fn heartbeats(count: u64, purges: u64, name: impl Fn(u64) -> String) -> Vec<Bytes> {
    let all = (0..count).map(|n| forged(&name(n), n, purges, heartbeat()).encode());
    all.collect()
}

#[tokio::test]
async fn ten_thousand_unknown_nodes_leave_a_hit_a_hit() {
    for (keys, purges, doubts) in [(KEY, 7, 0.0), ("", 0, 0.0), ("", 7, 1.0)] {
        let (_broker, attacker, fleet) = fleet(keys, 1).await;
        let node = &fleet.nodes[0];
        assert_eq!(shown(node, "/p").await, 1);
        let before = gaps(node).await;
        let all = heartbeats(10_000, purges, |n| format!("stranger-{n}"));
        attacker.publish(&all[..100]).await;
        has_read(&attacker, node).await;
        // Who nothing vouches for may have the page validated, once.
        assert_eq!(shown(node, "/p").await, 1);
        // All at once, a busy machine would lose some of them, which is a doubt of its own.
        for some in all[100..].chunks(300) {
            attacker.publish(some).await;
            has_read(&attacker, node).await;
        }
        assert_eq!(
            gaps(node).await - before,
            doubts,
            "{keys:?}, {purges} purges"
        );
        let answer = node.client().get("/p").await;
        assert!(answer.is_hit(), "{keys:?}: {:?}", answer.cache());
        assert_eq!(state(node).await, "serving");
        assert!(known(node).await <= 300, "of 10,000");
    }
}

#[tokio::test]
async fn names_without_end_take_no_memory() {
    for keys in ["", KEY] {
        let (_broker, attacker, fleet) = fleet(keys, 1).await;
        let node = &fleet.nodes[0];
        assert_eq!(shown(node, "/p").await, 1);
        let long = "n".repeat(60_000);
        let version = |n: u64| Message::Heartbeat {
            healthy: true,
            version: format!("{long}{n}"),
            asks: false,
        };
        let publish = async |from: u64| {
            let mut all = heartbeats(60, 0, |n| format!("{long}{}", from + n));
            all.extend((0..6).map(|n| forged(&format!("v{n}"), 1, 0, version(n)).encode()));
            let ids = (0..6).map(|n| BusEvent {
                id: format!("{long}{n}"),
                ..forged("a", 1, 1 + n, purge_all())
            });
            all.extend(ids.map(|event| event.encode()));
            attacker.publish(&all).await;
            has_read(&attacker, node).await;
        };
        const BATCH: u64 = 72;
        const BATCHES: u64 = 50;
        // The first batches make the transport's buffers as large as they become.
        const FIRST: u64 = 5;
        for batch in 0..FIRST {
            publish(batch * BATCH).await;
        }
        let memory = node.resident_bytes();
        for batch in FIRST..FIRST + BATCHES {
            publish(batch * BATCH).await;
        }
        let grown = node.resident_bytes().saturating_sub(memory);
        // Kept, they were 216 MB. A machine under load queues some of them.
        assert!(grown < 48 << 20, "{grown} bytes more");
        assert_eq!(known(node).await, 0);
        let reason = [("reason", "name")];
        let refused = node.metric("lamina_bus_malformed_total", &reason).await;
        assert_eq!(refused, ((FIRST + BATCHES) * BATCH) as f64);
        let answer = node.client().get("/p").await;
        assert!(answer.is_hit(), "{:?}", answer.cache());
    }
}

/// Ids were a life's mark and a count.
#[tokio::test]
async fn an_id_that_was_foreseen_hides_no_purge() {
    let (_broker, attacker, fleet) = fleet("", 2).await;
    for node in &fleet.nodes {
        assert_eq!(shown(node, "/p").await, 1);
    }
    let (_, beat) = attacker.hears("a node", |event| is_of(event, "a")).await;
    let life = beat.id.split('-').next().unwrap();
    let boot = beat.ours.unwrap().boot;
    // As the node itself, and as a service.
    let foreseen = (0..2_000).flat_map(|n| {
        let id = format!("{life}-{n:x}");
        let of = String::new();
        let word = forged("a", boot, 0, Message::Applied { of, order: 1 });
        let service = BusEvent {
            source: "service".to_owned(),
            ours: None,
            ..word.clone()
        };
        [word, service].map(|event| BusEvent {
            id: id.clone(),
            ..event
        })
    });
    let foreseen: Vec<_> = foreseen.map(|event| event.encode()).collect();
    attacker.publish(&foreseen).await;
    has_read(&attacker, &fleet.nodes[1]).await;
    fleet.pages.change("/p");
    let receipt = purge_everywhere(&fleet.nodes[0], json!({"tag": "page"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    assert_eq!(shown(&fleet.nodes[1], "/p").await, 2);
}

#[tokio::test]
async fn two_services_with_the_same_ids_are_both_heard() {
    let (_broker, attacker, fleet) = fleet("", 1).await;
    let node = &fleet.nodes[0];
    for service in ["orders", "stock", "prices"] {
        shown(node, "/p").await;
        let version = fleet.pages.change("/p");
        let event = BusEvent {
            id: "1".to_owned(),
            shape: EventShape::Del {
                keys: vec!["page".to_owned()],
            },
            ours: None,
            ..forged(service, 1, 1, heartbeat())
        };
        // Twice: the second is the same event.
        attacker.publish(&[event.encode(), event.encode()]).await;
        wait_for("the service is heard", SOON, || async {
            (shown(node, "/p").await == version).then_some(())
        })
        .await;
    }
    let foreign = node.metric("lamina_cluster_foreign_total", &[]).await;
    assert_eq!(foreign, 3.0);
}

/// A count that was believed would hide every hole that comes after it.
#[tokio::test]
async fn forged_counts_leave_the_next_hole_visible_and_no_doubt_for_ever() {
    let (_broker, attacker, fleet) = fleet("", 2).await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    purge_everywhere(a, json!({"tag": "nobody"})).await;
    let (_, beat) = attacker.hears("a node", |event| is_of(event, "a")).await;
    let boot = beat.ours.unwrap().boot;
    let before = gaps(b).await;
    let counts = [1 << 20, 1 << 35, (1 << 48) - 1, 1 << 48, 1 << 63, u64::MAX];
    let words = counts.map(|purges| forged("a", boot, purges, heartbeat()).encode());
    attacker.publish(&words).await;
    has_read(&attacker, b).await;
    let count = [("reason", "count")];
    let refused = b.metric("lamina_bus_malformed_total", &count).await;
    assert_eq!(refused, 3.0, "what no node can have counted");
    // The next true heartbeat corrects it; a purge that is lost then is noticed.
    attacker.forget();
    let is_beat = |event: &BusEvent| is_of(event, "a") && kind(event) == "heartbeat";
    attacker.hears("a true heartbeat", is_beat).await;
    has_read(&attacker, b).await;
    attacker.forget();
    let lost = forged("a", boot, 3, heartbeat());
    attacker.publish(&[lost.encode()]).await;
    attacker
        .hears("it is asked for", |event| {
            is_of(event, "b") && matches!(&event.ours.as_ref().unwrap().message, Message::Missing { from, .. } if from.value() == 2)
        })
        .await;
    assert!(gaps(b).await - before <= 3.0, "{} doubts", gaps(b).await);
    fleet.pages.change("/p");
    let receipt = purge_everywhere(a, json!({"tag": "page"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
}

#[tokio::test]
async fn a_namesake_is_told_however_loud_the_bus_is_and_fills_no_log() {
    let (_broker, attacker, fleet) = fleet("", 1).await;
    let node = &fleet.nodes[0];
    let noise: Vec<_> = (0..2_000)
        .map(|n| Bytes::from(format!("noise {n}")))
        .collect();
    attacker.publish(&noise).await;
    let namesakes: Vec<_> = (0..2_000_u64)
        .map(|boot| forged("a", boot, 0, heartbeat()).encode())
        .collect();
    attacker.publish(&namesakes).await;
    attacker.publish(&noise).await;
    has_read(&attacker, node).await;
    let lines = node.log();
    let told = lines
        .iter()
        .filter(|line| line.contains("another process uses this node's name"));
    assert_eq!(told.count(), 1);
    assert!(lines.len() < 400, "{} lines", lines.len());
}

/// However often so few purges are asked for, they are published again once in 50 ms at most.
#[tokio::test]
async fn who_asks_for_purges_without_end_gets_no_storm() {
    let (_broker, attacker, fleet) = fleet("", 1).await;
    let node = &fleet.nodes[0];
    for n in 0..50 {
        node.purge(json!({"tag": format!("t{n}")})).await;
    }
    let (_, beat) = attacker.hears("a node", |event| is_of(event, "a")).await;
    let life = beat.ours.unwrap().boot;
    let began = std::time::Instant::now();
    let asks: Vec<_> = (0..2_000_u64)
        .map(|n| {
            let of = "a".to_owned();
            forged(
                &format!("s{n}"),
                n,
                0,
                Message::Missing {
                    of,
                    life,
                    from: PublisherNumber::FIRST,
                },
            )
            .encode()
        })
        .collect();
    attacker.publish(&asks).await;
    has_read(&attacker, node).await;
    let again = [("kind", "again")];
    node.metric_until("lamina_bus_published_total", &again, |n| n >= 50.0)
        .await;
    // What it says comes in its order: all that the asking brought about is said before this.
    attacker.forget();
    node.purge(json!({"tag": "the-last"})).await;
    attacker
        .hears("the last purge", |event| {
            matches!(&event.ours, Some(ours) if is_of(event, "a")
                && matches!(&ours.message, Message::Purge { selector, .. } if selector.contains("the-last")))
        })
        .await;
    let said = node.metric("lamina_bus_published_total", &again).await;
    let rounds = began.elapsed().as_millis() as f64 / 50.0 + 2.0;
    assert!(said <= 50.0 * rounds, "{said} in {rounds} rounds");
    assert!(said < 50.0 * 2_000.0, "not each of the events was answered");
}

#[tokio::test]
async fn people_are_asked_for_a_key_where_the_bus_leaves_the_machine() {
    let origin = e2e::fleet::Pages::default().origin().await;
    let far = "redis: {url: \"redis://192.0.2.1:6379\", connect_timeout: 200ms}";
    let near = "redis: {}";
    for (bus, asks) in [
        (format!("{{{far}}}"), true),
        (format!("{{{KEY}{far}}}"), false),
        (format!("{{{near}}}"), false),
    ] {
        let setup = Setup::new(&origin).top("bus", &bus);
        let (_dir, config) = setup.write();
        let config = config.to_str().unwrap();
        let ran = cli::run(&["validate", "-c", config]);
        assert_eq!(ran.code, Some(0), "{}", ran.output());
        let asked = ran.stderr.contains("`seal_key` is not set");
        assert_eq!(asked, asks, "{bus}: {}", ran.output());
    }
    let unsealed = format!("{{{far}}}");
    let setup = Setup::new(&origin).top("bus", &unsealed);
    let node = setup.start().await;
    let line = node
        .logged("it asks", |line| line.contains("`seal_key` is not set"))
        .await;
    assert!(line.contains("WARN"), "{line}");
    let (_dir, config) = setup.write();
    let ran = cli::run(&["doctor", "-c", config.to_str().unwrap()]);
    assert!(
        ran.output()
            .lines()
            .any(|line| line.starts_with("WARNING") && line.contains("`seal_key` is not set")),
        "{}",
        ran.output()
    );
    let short = Setup::new(&origin).top("bus", "{seal_key: brief, redis: {}}");
    let (_dir, config) = short.write();
    let ran = cli::run(&["validate", "-c", config.to_str().unwrap()]);
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    assert!(
        ran.output().contains("5 bytes can be guessed"),
        "{}",
        ran.output()
    );
    assert!(!ran.output().contains("brief"), "{}", ran.output());
}
