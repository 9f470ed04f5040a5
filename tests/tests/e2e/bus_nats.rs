//! NATS as the bus: what it alone has. The rest is in `bus_transport`.

use std::sync::Arc;
use std::time::Instant;

use e2e::fleet::{Fleet, purge_everywhere, shown};
use e2e::nats::{Cluster, Nats};
use e2e::wait::{SOON, passed, wait_for};
use e2e::wire::Wire;
use lamina_base::units::ConfigDuration;
use lamina_cluster::bus::nats::config::{self, NatsMode, StreamStorage};
use lamina_cluster::bus::nats::open;
use lamina_cluster::bus::transport::{BusTransport, PublishError, TransportEvent};
use serde_json::json;

use crate::bus_transport::{Broker, DELIVERIES, Node, applied, number};

const STREAM: &str = "CACHE_INVALIDATIONS";

/// NATS without a store.
pub struct Core(Nats);

/// NATS with JetStream.
pub struct JetStream(pub Nats);

pub fn config_of(port: u16, mode: NatsMode, node: &str) -> config::NatsConfig {
    config::NatsConfig {
        servers: vec![format!("nats://127.0.0.1:{port}")],
        mode,
        ping_interval: ConfigDuration::secs(1),
        reconnect_max: ConfigDuration::millis(500),
        jetstream: config::JetStreamConfig {
            durable_name: Some(node.to_owned()),
            max_deliver: DELIVERIES,
            ..config::JetStreamConfig::default()
        },
        ..config::NatsConfig::default()
    }
}

macro_rules! broker {
    ($kind:ident, $durable:expr, $mode:expr) => {
        impl Broker for $kind {
            const DURABLE: bool = $durable;

            async fn start() -> Self {
                Self(Nats::start().await)
            }

            fn port(&self) -> u16 {
                self.0.port
            }

            fn kill(&mut self) {
                self.0.kill();
            }

            fn respawn(&mut self) {
                self.0.respawn();
            }

            fn freeze(&self) {
                self.0.freeze();
            }

            fn thaw(&self) {
                self.0.thaw();
            }

            fn open(&self, port: u16, node: &str) -> Arc<dyn BusTransport> {
                open(&config_of(port, $mode, node)).unwrap()
            }
        }
    };
}

broker!(Core, false, NatsMode::Core);
broker!(JetStream, true, NatsMode::Jetstream);

/// Waits until what this node publishes is refused; answers the words.
async fn refused(node: &Node) -> String {
    wait_for("the refusal is told", SOON, || async {
        match node.transport.publish(&[number(1)]).await {
            (0, Some(PublishError::Down(why))) if why.contains("not connected yet") => None,
            (0, Some(PublishError::Down(why) | PublishError::Refused(why))) => Some(why),
            said => panic!("{said:?}"),
        }
    })
    .await
}

fn stream_of(port: u16, change: impl FnOnce(&mut config::NatsConfig)) -> Arc<dyn BusTransport> {
    let mut config = config_of(port, NatsMode::Jetstream, "a");
    change(&mut config);
    open(&config).unwrap()
}

#[tokio::test]
async fn a_wrong_password_is_told_and_a_right_one_lets_in() {
    let nats = Nats::spawn(
        e2e::free_port::free_port(),
        &["--user", "edge", "--pass", "right"],
    );
    let with = |password: &str| {
        let config = config_of(nats.port, NatsMode::Core, "a");
        open(&config::NatsConfig {
            username: Some("edge".to_owned()),
            password: Some(password.to_owned()),
            ..config
        })
        .unwrap()
    };
    let wrong = Node::begin(with("wrong"));
    wait_for("the refusal is told", SOON, || async {
        let why = refused(&wrong).await;
        why.contains("authorization").then_some(())
    })
    .await;
    Node::join(with("right")).await;
}

/// A server with one user, who has these rights.
async fn with_rights(rights: &str) -> (Nats, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nats.conf");
    let user = format!("{{user: edge, password: pw, permissions: {{{rights}}}}}");
    std::fs::write(&file, format!("authorization: {{users: [{user}]}}")).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    (Nats::spawn(e2e::free_port::free_port(), &config), folder)
}

fn edge(port: u16) -> Arc<dyn BusTransport> {
    let config = config_of(port, NatsMode::Core, "a");
    open(&config::NatsConfig {
        username: Some("edge".to_owned()),
        password: Some("pw".to_owned()),
        ..config
    })
    .unwrap()
}

#[tokio::test]
async fn who_may_not_listen_is_not_up_and_told_why() {
    let rights = "publish: \">\", subscribe: \"_INBOX.>\"";
    let (nats, _folder) = with_rights(rights).await;
    let node = Node::begin(edge(nats.port));
    wait_for("the refusal is told", SOON, || async {
        let why = refused(&node).await;
        why.contains("Permissions Violation").then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_may_not_publish_is_refused_and_listens_all_the_same() {
    let rights = "publish: \"_INBOX.>\", subscribe: \">\"";
    let (nats, _folder) = with_rights(rights).await;
    let node = Node::join(edge(nats.port)).await;
    let said = node.transport.publish(&[number(1)]).await;
    let (0, Some(PublishError::Refused(why))) = said else {
        panic!("{said:?}");
    };
    assert!(why.contains("Permissions Violation"), "{why}");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_those_before_it_are_not() {
    for mode in [NatsMode::Core, NatsMode::Jetstream] {
        let nats = Nats::start().await;
        let mut node = Node::join(open(&config_of(nats.port, mode, "a")).unwrap()).await;
        let large = vec![0; (1 << 20) + 1].into();
        let said = node.transport.publish(&[number(1), large, number(2)]).await;
        assert!(
            matches!(said, (1, Some(PublishError::TooLarge { .. }))),
            "{said:?}"
        );
        assert_eq!(node.message().await, number(1));
    }
}

#[tokio::test]
async fn a_stream_that_is_full_and_discards_what_is_new_refuses() {
    let nats = Nats::start().await;
    let node = Node::join(stream_of(nats.port, |_| {})).await;
    node.publish(&[number(1)]).await;
    let full = json!({"name": STREAM, "subjects": ["cache.invalidations"], "retention": "limits",
        "storage": "file", "max_msgs": 1, "discard": "new", "num_replicas": 1});
    let update = format!("$JS.API.STREAM.UPDATE.{STREAM}");
    let said = nats.ask(&update, &full.to_string()).await;
    assert!(said.contains("\"discard\":\"new\""), "{said}");
    let said = node.transport.publish(&[number(2)]).await;
    let (0, Some(PublishError::Refused(why))) = said else {
        panic!("{said:?}");
    };
    assert!(why.contains("maximum messages exceeded"), "{why}");
}

#[tokio::test]
async fn a_stream_that_is_deleted_is_made_again_and_nothing_is_said_to_be_kept() {
    let nats = Nats::start().await;
    let mut node = Node::join(stream_of(nats.port, |_| {})).await;
    node.publish(&[number(1)]).await;
    assert_eq!(node.message().await, number(1));
    let said = nats
        .ask(&format!("$JS.API.STREAM.DELETE.{STREAM}"), "")
        .await;
    assert!(said.contains("\"success\":true"), "{said}");
    node.down().await;
    assert_eq!(node.up().await, None);
    node.insist(b"again").await;
    node.find(b"again").await;
}

#[tokio::test]
async fn a_consumer_that_is_deleted_is_made_again_and_nothing_is_said_to_be_kept() {
    let nats = Nats::start().await;
    let mut node = Node::join(stream_of(nats.port, |_| {})).await;
    let said = nats
        .ask(&format!("$JS.API.CONSUMER.DELETE.{STREAM}.a"), "")
        .await;
    assert!(said.contains("\"success\":true"), "{said}");
    node.down().await;
    assert_eq!(node.up().await, None);
    node.insist(b"again").await;
    node.find(b"again").await;
}

#[tokio::test]
async fn a_stream_in_memory_is_lost_with_its_server_and_that_is_told() {
    let mut nats = Nats::start().await;
    let memory = |c: &mut config::NatsConfig| c.jetstream.storage = StreamStorage::Memory;
    let mut node = Node::join(stream_of(nats.port, memory)).await;
    nats.respawn();
    node.down().await;
    assert_eq!(node.up().await, None);
}

#[tokio::test]
async fn what_is_missing_is_not_made_where_it_may_not_be() {
    let nats = Nats::start().await;
    let no_stream = stream_of(nats.port, |c| c.jetstream.ensure_stream = false);
    let mut no_stream = Node::begin(no_stream);
    let told = |node: &Node, word: &'static str| {
        let transport = Arc::clone(&node.transport);
        async move {
            wait_for("the reason is told", SOON, || async {
                let said = transport.publish(&[number(1)]).await;
                matches!(said, (0, Some(PublishError::Down(why))) if why.contains(word))
                    .then_some(())
            })
            .await;
        }
    };
    told(&no_stream, "stream not found").await;
    let consumer = stream_of(nats.port, |c| c.jetstream.ensure_consumer = false);
    told(&Node::begin(consumer), "ensure_consumer").await;
    // It made the stream.
    told(&no_stream, "").await;
    no_stream.up().await;
}

#[tokio::test]
async fn a_stream_that_was_made_otherwise_is_used_as_it_is_and_the_consumer_is_changed() {
    let nats = Nats::start().await;
    drop(Node::join(stream_of(nats.port, |_| {})).await);
    let otherwise = |c: &mut config::NatsConfig| {
        c.jetstream.max_msgs = 5;
        c.jetstream.max_deliver = 7;
        c.jetstream.ack_wait_ms = 12_345;
    };
    let mut node = Node::join(stream_of(nats.port, otherwise)).await;
    node.publish(&[number(1)]).await;
    assert_eq!(node.message().await, number(1));
    let stream = nats.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), "").await;
    assert!(stream.contains("\"max_msgs\":-1"), "{stream}");
    let consumer = nats
        .ask(&format!("$JS.API.CONSUMER.INFO.{STREAM}.a"), "")
        .await;
    assert!(consumer.contains("\"max_deliver\":8"), "{consumer}");
    assert!(consumer.contains("\"ack_wait\":12345000000"), "{consumer}");
}

#[tokio::test]
async fn what_the_stream_dropped_before_a_node_came_back_is_told() {
    let nats = Nats::start().await;
    let small = |c: &mut config::NatsConfig| c.jetstream.max_msgs = 5;
    drop(Node::join(stream_of(nats.port, small)).await);
    let other = config_of(nats.port, NatsMode::Jetstream, "b");
    let other = Node::join(open(&other).unwrap()).await;
    other
        .publish(&(0..20).map(number).collect::<Vec<_>>())
        .await;
    let mut node = Node::begin(stream_of(nats.port, small));
    assert_eq!(node.up().await, None);
    node.find(&number(19)).await;
}

#[tokio::test]
async fn two_nodes_with_one_durable_name_are_told() {
    let nats = Nats::start().await;
    let mut one = Node::join(stream_of(nats.port, |_| {})).await;
    let mut two = Node::join(stream_of(nats.port, |_| {})).await;
    let publisher = Node::join(open(&config_of(nats.port, NatsMode::Core, "c")).unwrap()).await;
    let publish = async {
        loop {
            publisher.publish(&[number(1)]).await;
        }
    };
    let lost = async |node: &mut Node| loop {
        match node.word().await {
            TransportEvent::Lost(what) => return what,
            TransportEvent::Message(delivery) => applied(delivery),
            other => panic!("{other:?}"),
        };
    };
    let what = tokio::select! {
        what = lost(&mut one) => what,
        what = lost(&mut two) => what,
        () = publish => unreachable!(),
    };
    assert!(what.contains("same durable name"), "{what}");
}

/// No ping of the client's would notice it here.
async fn a_connection_that_has_fallen_silent_is_replaced(mode: NatsMode) {
    let nats = Nats::start().await;
    let wire = Wire::to(nats.port).await;
    let at = |port, node| config::NatsConfig {
        ping_interval: ConfigDuration::secs(600),
        ..config_of(port, mode, node)
    };
    let mut a = Node::join(open(&at(wire.address.port(), "a")).unwrap()).await;
    let b = Node::join(open(&at(nats.port, "b")).unwrap()).await;
    wire.strand();
    a.down().await;
    a.up().await;
    b.insist(b"after it").await;
    a.find(b"after it").await;
    a.insist(b"and from it").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_has_fallen_silent_is_replaced_by_one_that_answers() {
    a_connection_that_has_fallen_silent_is_replaced(NatsMode::Core).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_a_stream_that_has_fallen_silent_is_replaced_too() {
    a_connection_that_has_fallen_silent_is_replaced(NatsMode::Jetstream).await;
}

#[tokio::test]
async fn who_does_not_read_for_a_while_is_not_taken_for_dead() {
    let nats = Nats::start().await;
    let mut node = Node::join(stream_of(nats.port, |_| {})).await;
    let publisher = Node::join(open(&config_of(nats.port, NatsMode::Core, "c")).unwrap()).await;
    let start = Instant::now();
    for batch in (0..10_000).map(number).collect::<Vec<_>>().chunks(500) {
        publisher.publish(batch).await;
    }
    // The server says every interval that it is there; two without are one too many.
    passed(start, config_of(0, NatsMode::Core, "a").ping_interval.0 * 3).await;
    for n in 0..10_000 {
        assert_eq!(node.message().await, number(n));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_the_leader_of_the_stream_goes_on() {
    let mut cluster = Cluster::start().await;
    let ports: Vec<_> = cluster.nodes.iter().map(|node| node.port).collect();
    let at = |first: usize, name: &str| {
        let mut config = config_of(ports[first], NatsMode::Jetstream, name);
        config.jetstream.replicas = 3;
        open(&config).unwrap()
    };
    let mut a = Node::join(at(0, "a")).await;
    let mut b = Node::join(at(1, "b")).await;
    a.publish(&[number(1)]).await;
    assert_eq!(b.message().await, number(1));
    let leader = cluster.leader(0, STREAM).await;
    cluster.nodes[leader].kill();
    // Whoever was connected there finds another one, that it was told of.
    for n in 2..20 {
        a.insist(&number(n)).await;
    }
    for n in 2..20 {
        b.find(&number(n)).await;
    }
    b.insist(b"back").await;
    a.find(b"back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_store_a_cluster_goes_on_through_another_server() {
    let mut cluster = Cluster::start_core().await;
    let (first, second) = (cluster.nodes[0].port, cluster.nodes[1].port);
    let mut a = Node::join(open(&config_of(first, NatsMode::Core, "a")).unwrap()).await;
    let mut b = Node::join(open(&config_of(second, NatsMode::Core, "b")).unwrap()).await;
    cluster.nodes[0].kill();
    a.down().await;
    a.up().await;
    // Servers learn of each other's listeners in their own time.
    let again_and_again = async {
        loop {
            a.insist(b"hello").await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = b.find(b"hello") => {}
        () = again_and_again => {}
    }
}

/// Gateways over these servers.
async fn gateways(servers: &[Nats], mode: &str) -> Fleet {
    let urls: Vec<_> = servers
        .iter()
        .map(|server| format!("{:?}", server.url()))
        .collect();
    let urls = urls.join(", ");
    Fleet::start(2, |name| {
        let jetstream = format!("jetstream: {{durable_name: {name}, max_msgs: 1000}}");
        format!("nats: {{servers: [{urls}], mode: {mode}, reconnect_max: 500ms, {jetstream}}}")
    })
    .await
}

async fn purges_arrive(fleet: &Fleet) {
    for node in &fleet.nodes {
        let receipt = purge_everywhere(node, json!({"tag": "x"})).await;
        assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_hear_each_other_while_one_server_of_three_lives() {
    let mut cluster = Cluster::start_core().await;
    let fleet = gateways(&cluster.nodes, "core").await;
    purges_arrive(&fleet).await;
    for dead in 0..2 {
        cluster.nodes[dead].kill();
        purges_arrive(&fleet).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_use_a_stream_as_it_is_and_make_it_again_when_it_is_deleted() {
    let nats = Nats::start().await;
    let other = json!({"name": STREAM, "subjects": ["cache.invalidations"], "retention": "limits",
        "storage": "memory", "max_msgs": 7, "num_replicas": 1});
    let create = format!("$JS.API.STREAM.CREATE.{STREAM}");
    let said = nats.ask(&create, &other.to_string()).await;
    assert!(said.contains("\"max_msgs\":7"), "{said}");
    let servers = [nats];
    let fleet = gateways(&servers, "jetstream").await;
    let differs = "max_msgs is 7, configured is 1000";
    for node in &fleet.nodes {
        let told = |line: &str| line.contains("used as it is") && line.contains(differs);
        node.logged("the differences", told).await;
    }
    let info = format!("$JS.API.STREAM.INFO.{STREAM}");
    let said = servers[0].ask(&info, "").await;
    assert!(said.contains("\"max_msgs\":7"), "{said}");
    purges_arrive(&fleet).await;
    let delete = format!("$JS.API.STREAM.DELETE.{STREAM}");
    assert_eq!(shown(&fleet.nodes[1], "/p").await, 1);
    servers[0].ask(&delete, "").await;
    fleet.pages.change("/p");
    fleet.nodes[0].purge(json!({"tag": "/p"})).await;
    // The new stream may have taken it before the other node listened.
    wait_for("what was purged is not shown", SOON, || async {
        (shown(&fleet.nodes[1], "/p").await == 2).then_some(())
    })
    .await;
    let said = servers[0].ask(&info, "").await;
    assert!(said.contains("\"max_msgs\":1000"), "{said}");
    fleet.whole().await;
    purges_arrive(&fleet).await;
}
