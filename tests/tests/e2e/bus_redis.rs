//! Redis Pub/Sub as the bus: what it alone has. The rest is in `bus_transport`.

use std::sync::Arc;

use e2e::fleet::{Fleet, purge_everywhere, shown};
use e2e::redis::{self as server, Cluster, Redis, Sentinels};
use e2e::wait::{SOON, wait_for};
use lamina_base::units::ConfigDuration;
use lamina_cluster::bus::redis::{config, open};
use lamina_cluster::bus::transport::{BusTransport, PublishError};
use serde_json::json;

use crate::bus_transport::{Broker, Node, number};

/// One server.
pub struct PubSub(pub Redis);

fn config_of(url: String) -> config::RedisBusConfig {
    config::RedisBusConfig {
        url,
        connect_timeout: ConfigDuration::secs(1),
        silence_timeout: ConfigDuration::secs(1),
        reconnect_max: ConfigDuration::millis(500),
        ..config::RedisBusConfig::default()
    }
}

/// A node's way to the server behind `port`.
fn at(port: u16) -> Arc<dyn BusTransport> {
    open(&config_of(format!("redis://127.0.0.1:{port}"))).unwrap()
}

impl Broker for PubSub {
    const DURABLE: bool = false;

    async fn start() -> Self {
        Self(Redis::start().await)
    }

    fn port(&self) -> u16 {
        self.0.port
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    fn respawn(&mut self) {
        self.0.respawn(&[]);
    }

    fn freeze(&self) {
        self.0.freeze();
    }

    fn thaw(&self) {
        self.0.thaw();
    }

    fn open(&self, port: u16, _node: &str) -> Arc<dyn BusTransport> {
        at(port)
    }
}

/// A node of a Cluster.
fn member(cluster: &Cluster, sharded: bool) -> Arc<dyn BusTransport> {
    let config = config_of(cluster.url());
    open(&config::RedisBusConfig { sharded, ..config }).unwrap()
}

async fn everybody_hears_in_order(sharded: bool) {
    let cluster = Cluster::start().await;
    let mut a = Node::join(member(&cluster, sharded)).await;
    let mut b = Node::join(member(&cluster, sharded)).await;
    let all: Vec<_> = (0..1_000).map(number).collect();
    a.publish(&all).await;
    for message in all {
        assert_eq!(a.message().await, message);
        assert_eq!(b.message().await, message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_everybody_hears_in_order() {
    everybody_hears_in_order(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_shards_do_it_too() {
    if server::major_version() < 7 {
        eprintln!("an older Redis has no sharded channels");
        return;
    }
    everybody_hears_in_order(true).await;
}

/// The server ends the subscriptions of a slot that moves away, and the client is not told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_moved_away_with_its_slot_is_noticed() {
    if server::major_version() < 7 {
        eprintln!("an older Redis has no sharded channels");
        return;
    }
    let cluster = Cluster::start().await;
    let a = Node::join(member(&cluster, true)).await;
    let mut b = Node::join(member(&cluster, true)).await;
    let channel = config::RedisBusConfig::default().channel;
    let owner = cluster.owner(0, &channel).await.unwrap();
    let to = Cluster::masters().find(|node| *node != owner).unwrap();
    cluster.move_slot(&channel, to).await;
    b.down().await;
    assert_eq!(b.up().await, None);
    a.insist(b"hello").await;
    b.find(b"hello").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_listen_is_not_up_and_told_why() {
    let redis = Redis::start().await;
    redis
        .cli(&["ACL", "SETUSER", "default", "resetchannels"])
        .await;
    let mut node = Node::begin(at(redis.port));
    wait_for("the refusal is told", SOON, || async {
        let said = node.transport.publish(&[number(1)]).await;
        let (0, Some(PublishError::Down(why))) = said else {
            panic!("{said:?}");
        };
        why.contains("ACL SETUSER default +subscribe &")
            .then_some(())
    })
    .await;
    redis
        .cli(&["ACL", "SETUSER", "default", "allchannels"])
        .await;
    assert_eq!(node.up().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_while_sentinels_chose_another_master_is_not_shown() {
    let mut group = Sentinels::start().await;
    group.impatient().await;
    let brief = "connect_timeout: 1s, silence_timeout: 1s, reconnect_max: 500ms";
    let fleet = Fleet::start(2, |_| {
        format!("redis: {{url: \"{}\", {brief}}}", group.url())
    })
    .await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    for path in ["/old", "/same"] {
        assert_eq!(shown(b, path).await, 1);
    }
    let master = group.master().await.unwrap();
    group.servers[master].kill();
    fleet.pages.change("/old");
    a.purge(json!({"tag": "/old"})).await;
    wait_for("there is another master", SOON, || async {
        (group.master().await? != master).then_some(())
    })
    .await;
    fleet.whole().await;
    fleet.origin.forget();
    assert_eq!(shown(b, "/old").await, 2);
    assert_eq!(shown(b, "/same").await, 1);
    let seen = fleet.origin.seen();
    let mut of_same = seen.iter().filter(|seen| seen.path_only() == "/same");
    assert!(
        of_same.all(|seen| !seen.header("if-none-match").is_empty()),
        "it was in L1 still"
    );
    fleet.pages.change("/same");
    let receipt = purge_everywhere(a, json!({"tag": "/same"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    assert_eq!(shown(b, "/same").await, 2);
}

#[tokio::test]
async fn a_channel_of_redis_itself_is_refused() {
    for channel in ["", "__keyspace@0__:x", "__keyevent@0__:del"] {
        let config = config::RedisBusConfig {
            channel: channel.to_owned(),
            ..config_of("redis://a".to_owned())
        };
        let error = open(&config).err().expect("refused");
        assert!(error.to_string().contains("channel"), "{error}");
    }
}
