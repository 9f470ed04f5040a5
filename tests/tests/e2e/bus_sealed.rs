//! A bus whose nodes share a `seal_key`: what others publish there, or recorded and publish
//! again, does nothing. One suite for all transports, as in `cluster`.

use bytes::Bytes;
use e2e::fleet::{Fleet, node, purge_everywhere, shown, state};
use e2e::gateway::Gateway;
use e2e::wait::{SOON, wait_for};
use lamina_base::envelope::EnvelopeCodec;
use lamina_cluster::bus::event::{BusEvent, EventShape};
use lamina_cluster::bus::seal::SealKeys;
use serde_json::json;

use crate::bus_attacker::{
    Attacker, forged, heartbeat, is_of, kind, nothing_comes_of, purge_all, refused,
};
use crate::bus_transport::Broker;
use crate::cluster::Configured;

const KEY: &str = "a key that all nodes share";
const OTHER_KEY: &str = "a key that nobody here has";

/// The YAML of a bus with a key. The clocks of these nodes are one.
fn sealed(key: &str, bus: &str) -> String {
    format!("seal_key: \"{key}\", clock_tolerance: 0s, {bus}")
}

/// The version of a page that all nodes know by one name.
async fn see(node: &Gateway, path: &str) -> u64 {
    let answer = node
        .client()
        .request(path)
        .host("site.example")
        .send()
        .await;
    answer.text().parse().unwrap()
}

/// Loads a page at one node after the other; waits until each has heard of what the other loaded.
async fn load(fleet: &Fleet, path: &str) -> u64 {
    let values = "lamina_cluster_values_total";
    for (at, node) in fleet.nodes.iter().enumerate() {
        let other = &fleet.nodes[1 - at];
        let heard = other.metric(values, &[]).await;
        let ask = node.client().request(path).host("site.example");
        if !ask.send().await.is_hit() {
            other.metric_until(values, &[], |n| n > heard).await;
        }
    }
    see(&fleet.nodes[0], path).await
}

pub async fn what_is_played_again_does_nothing<B: Configured>() {
    let broker = B::shared().await;
    let attacker = Attacker::join(&broker).await;
    let bus = |name: &str| sealed(KEY, &broker.yaml(broker.port(), name));
    let mut fleet = Fleet::start(2, bus).await;
    load(&fleet, "/p").await;
    fleet.pages.change("/p");
    let receipt = purge_everywhere(&fleet.nodes[0], json!({"tag": "page"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    assert_eq!(load(&fleet, "/p").await, 2);
    for wanted in ["purge", "prime", "heartbeat", "applied"] {
        attacker.hears(wanted, |event| kind(event) == wanted).await;
    }
    fleet.pages.change("/p");
    purge_everywhere(&fleet.nodes[1], json!({"tag": "page"})).await;
    assert_eq!(load(&fleet, "/p").await, 3);
    let recorded = attacker.recorded();
    nothing_comes_of(&attacker, &recorded, &fleet, "/p", 3).await;
    // Who begins anew remembers nothing, first a receiver and then the publisher.
    for (at, name) in [(1, "b"), (0, "a")] {
        fleet.nodes[at].kill();
        fleet.nodes[at] = node(&fleet.origin, name, &bus(name)).start().await;
        fleet.whole().await;
        assert_eq!(load(&fleet, "/p").await, 3);
        nothing_comes_of(&attacker, &recorded, &fleet, "/p", 3).await;
    }
    fleet.pages.change("/p");
    for node in &fleet.nodes {
        let receipt = purge_everywhere(node, json!({"tag": "page"})).await;
        assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    }
    assert_eq!(load(&fleet, "/p").await, 4);
}

/// Events of all kinds that a stranger can make, given two sealed ones of node `a`.
fn forgeries(heartbeat_of_a: (&Bytes, &BusEvent), purge_of_a: (&Bytes, &BusEvent)) -> Vec<Bytes> {
    let boot = heartbeat_of_a.1.ours.as_ref().unwrap().boot;
    let other = SealKeys::new(OTHER_KEY.as_bytes(), None);
    let mut all = Vec::new();
    for source in ["a", "b", "stranger"] {
        for purges in [1, 2, 100, (1 << 48) - 1, 1 << 63, u64::MAX] {
            for message in [purge_all(), heartbeat()] {
                let event = forged(source, boot, purges, message);
                all.extend([event.encode(), event.encode_sealed(&other)]);
            }
        }
    }
    let foreign = BusEvent {
        shape: EventShape::Pattern("*".to_owned()),
        ours: None,
        ..forged("service", 1, 1, heartbeat())
    };
    let text = json!({"id": "1", "type": "pattern", "source": "a", "ts": 1, "pattern": "*"});
    all.extend([foreign.encode(), text.to_string().into()]);
    for (bytes, event) in [heartbeat_of_a, purge_of_a] {
        all.push(event.encode());
        all.extend(damaged(bytes));
    }
    all
}

/// What can be made of the bytes of a sealed event without its key.
fn damaged(sealed: &Bytes) -> Vec<Bytes> {
    assert!(sealed.starts_with(b"HC1M"), "it is small");
    let lamina = sealed.windows(7).position(|w| w == b"\xa6lamina").unwrap();
    let seal = &sealed[sealed.len() - 16..];
    // What is ours, with its seal, in another outer map.
    let outer = b"HC1M\x86\xa2id\xa1i\xa4type\xa7pattern\xa6source\xa1a\xa2ts\x01\xa7pattern\xa1*";
    let pasted = [&outer[..], &sealed[lamina..]].concat();
    // One more field behind the seal, which is a seal.
    let mut doubled = sealed.to_vec();
    doubled[4] += 1;
    doubled.extend_from_slice(b"\xa4seal\xc4\x10");
    doubled.extend_from_slice(seal);
    let emptied = [&sealed[..sealed.len() - 17], b"\0"].concat();
    let mut all = vec![pasted, doubled, emptied];
    all.extend([1, 8, 16].map(|bytes| sealed[..sealed.len() - bytes].to_vec()));
    all.extend((4..sealed.len()).step_by(5).map(|at| {
        let mut changed = sealed.to_vec();
        changed[at] ^= 1;
        changed
    }));
    let codec = lamina_base::envelope::Compression {
        codec: EnvelopeCodec::ZSTD,
        min_bytes: 0,
    };
    // The same event in another envelope.
    all.extend(codec.shrink(sealed));
    all.into_iter().map(Bytes::from).collect()
}

pub async fn what_has_no_seal_of_ours_does_nothing<B: Configured>() {
    let broker = B::shared().await;
    let attacker = Attacker::join(&broker).await;
    let fleet = Fleet::start(2, |name| sealed(KEY, &broker.yaml(broker.port(), name))).await;
    let receipt = purge_everywhere(&fleet.nodes[0], json!({"tag": "nobody"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    load(&fleet, "/p").await;
    let of_a = async |wanted: &str| {
        let heard = attacker.hears(wanted, |event| is_of(event, "a") && kind(event) == wanted);
        heard.await
    };
    let (beat, purge) = (of_a("heartbeat").await, of_a("purge").await);
    let forgeries = forgeries((&beat.0, &beat.1), (&purge.0, &purge.1));
    nothing_comes_of(&attacker, &forgeries, &fleet, "/p", 1).await;
    for node in &fleet.nodes {
        assert_eq!(state(node).await, "serving");
        node.logged("the reason is told", |line| {
            line.contains("an event of the bus was refused") && line.contains("seal_key")
        })
        .await;
        let lines = node.log();
        let told = lines.iter().filter(|line| line.contains("was refused"));
        assert!(told.count() < 20, "a line a reason");
    }
    fleet.pages.change("/p");
    let receipt = purge_everywhere(&fleet.nodes[0], json!({"all": true})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    assert_eq!(load(&fleet, "/p").await, 2);
}

type Redis = crate::bus_redis::PubSub;

/// Nodes over one Redis, with these keys of the bus.
async fn nodes_with(keys: [&str; 2]) -> (Redis, Fleet) {
    let broker = Redis::start().await;
    let port = broker.port();
    let pages = e2e::fleet::Pages::default();
    let origin = pages.origin().await;
    let mut nodes = Vec::new();
    for (name, keys) in ["a", "b"].into_iter().zip(keys) {
        let bus = format!("{keys}{}", broker.yaml(port, name));
        nodes.push(node(&origin, name, &bus).start().await);
    }
    let fleet = Fleet {
        origin,
        pages,
        nodes,
    };
    (broker, fleet)
}

/// Each node purges, and the other one has heard it.
async fn hear_each_other(fleet: &Fleet) {
    fleet.whole().await;
    for node in &fleet.nodes {
        shown(&fleet.nodes[0], "/p").await;
        shown(&fleet.nodes[1], "/p").await;
        let version = fleet.pages.change("/p");
        let receipt = purge_everywhere(node, json!({"tag": "page"})).await;
        assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
        for node in &fleet.nodes {
            assert_eq!(shown(node, "/p").await, version);
        }
    }
}

#[tokio::test]
async fn while_nodes_get_a_key_those_without_one_are_heard() {
    let getting = format!("seal_key: \"{KEY}\", unsealed_events: accept, ");
    let (_broker, fleet) = nodes_with([&getting, ""]).await;
    hear_each_other(&fleet).await;
    fleet.nodes[0]
        .logged("it is warned of", |line| {
            line.contains("WARN") && line.contains("bus.unsealed_events")
        })
        .await;
}

#[tokio::test]
async fn while_nodes_change_their_key_both_are_heard() {
    let with =
        |own: &str, other: &str| format!("seal_key: \"{own}\", accepted_seal_key: \"{other}\", ");
    let (one, two) = (with(KEY, OTHER_KEY), with(OTHER_KEY, KEY));
    let (_broker, fleet) = nodes_with([&one, &two]).await;
    hear_each_other(&fleet).await;
}

#[tokio::test]
async fn the_key_of_the_second_tier_seals_events_where_the_bus_has_none() {
    let broker = Redis::start().await;
    let (port, pages) = (broker.port(), e2e::fleet::Pages::default());
    let origin = pages.origin().await;
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let setup = node(&origin, name, &broker.yaml(port, name));
        let l2 = format!("{{l2: {{seal_key: \"{KEY}\"}}}}");
        nodes.push(setup.top("cache", &l2).start().await);
    }
    let fleet = Fleet {
        origin,
        pages,
        nodes,
    };
    hear_each_other(&fleet).await;
    let attacker = Attacker::join(&broker).await;
    let before = refused(&fleet.nodes[0]).await;
    let unsealed = forged("stranger", 1, 1, purge_all());
    attacker.publish(&[unsealed.encode()]).await;
    wait_for("it is refused", SOON, || async {
        (refused(&fleet.nodes[0]).await > before).then_some(())
    })
    .await;
    let answer = fleet.nodes[0].client().get("/p").await;
    assert!(answer.is_hit(), "{:?}", answer.cache());
}

#[tokio::test]
async fn nodes_with_different_keys_are_told_how_to_mend_it() {
    let keys = [KEY, OTHER_KEY].map(|key| format!("seal_key: \"{key}\", "));
    let (_broker, fleet) = nodes_with([&keys[0], &keys[1]]).await;
    for node in &fleet.nodes {
        let broken = [("reason", "bad-seal")];
        node.metric_until("lamina_bus_refused_total", &broken, |n| n >= 3.0)
            .await;
        let line = node
            .logged("the reason is told", |line| line.contains("bad-seal"))
            .await;
        assert!(line.contains("WARN"), "{line}");
        assert!(line.contains("give all nodes the same"), "{line}");
        let lines = node.log();
        let told = lines.iter().filter(|line| line.contains("bad-seal"));
        assert_eq!(told.count(), 1);
    }
}

#[tokio::test]
async fn services_purge_beside_a_key_where_that_is_said() {
    let accepts = format!("seal_key: \"{KEY}\", foreign_events: accept, ");
    let refuses = format!("seal_key: \"{KEY}\", ");
    let (broker, fleet) = nodes_with([&accepts, &refuses]).await;
    fleet.whole().await;
    for node in &fleet.nodes {
        assert_eq!(shown(node, "/p").await, 1);
    }
    fleet.pages.change("/p");
    let attacker = Attacker::join(&broker).await;
    let del = BusEvent {
        shape: EventShape::Del {
            keys: vec!["page".to_owned()],
        },
        ours: None,
        ..forged("service", 1, 1, heartbeat())
    };
    attacker.publish(&[del.encode()]).await;
    let foreign = [("reason", "foreign")];
    fleet.nodes[1]
        .metric_until("lamina_bus_refused_total", &foreign, |n| n == 1.0)
        .await;
    assert_eq!(shown(&fleet.nodes[1], "/p").await, 1);
    wait_for("the service is heard", SOON, || async {
        (shown(&fleet.nodes[0], "/p").await == 2).then_some(())
    })
    .await;
}

/// The suite for one broker.
macro_rules! sealed {
    ($name:ident, $broker:ty) => {
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn what_is_played_again_does_nothing() {
                super::what_is_played_again_does_nothing::<$broker>().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn what_has_no_seal_of_ours_does_nothing() {
                super::what_has_no_seal_of_ours_does_nothing::<$broker>().await;
            }
        }
    };
}

sealed!(nats, crate::bus_nats::Core);
sealed!(jetstream, crate::bus_nats::JetStream);
sealed!(redis, crate::bus_redis::PubSub);
sealed!(rabbitmq, crate::bus_rabbitmq_broker::Plain);
sealed!(rabbitmq_durable, crate::bus_rabbitmq_broker::Durable);
