//! What the log says of a bus that fails: one line when it begins, one with how long it lasted
//! when it ends, and none of a library.

use e2e::fleet::{Fleet, Pages, node};
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use serde_json::{Value, json};

use crate::cluster::Configured;

fn lines(node: &Gateway, has: &str) -> Vec<Value> {
    let log = node.log().into_iter();
    let lines = log.filter(|line| line.contains(has));
    lines
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect()
}

fn is_trouble(line: &Value) -> bool {
    line["level"] == "WARN" || line["level"] == "ERROR"
}

/// It is tried many times while the purge waits.
async fn a_wrong_password_is_told_once(bus: &str) {
    let origin = Pages::default().origin().await;
    let node = node(&origin, "a", bus).start().await;
    node.logged("why not", |line| line.contains(BEGINS)).await;
    let receipt = node.purge(json!({"tag": "x", "wait": "3s"})).await;
    assert_eq!(receipt["peers"]["outcome"], "unknown", "{receipt}");
    let trouble: Vec<Value> = lines(&node, "").into_iter().filter(is_trouble).collect();
    assert_eq!(trouble.len(), 1, "{trouble:#?}");
}

/// A server that wants the password `right`, which the nodes do not have.
async fn nats_with_a_password(more: &[&str]) -> Nats {
    let wanted = ["--user", "u", "--pass", "right"];
    let nats = Nats::spawn(e2e::free_port::free_port(), &[&wanted, more].concat());
    wait_for("it listens", SOON, || async {
        tokio::net::TcpStream::connect(("127.0.0.1", nats.port))
            .await
            .ok()
    })
    .await;
    nats
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_of_nats_is_told_once() {
    let nats = nats_with_a_password(&[]).await;
    let url = nats.url();
    a_wrong_password_is_told_once(&format!(
        "nats: {{servers: [\"{url}\"], username: u, password: wrong}}"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_of_redis_is_told_once() {
    let redis = Redis::start().await;
    redis.cli(&["CONFIG", "SET", "requirepass", "right"]).await;
    a_wrong_password_is_told_once(&format!(
        "redis: {{url: \"{}\", password: wrong}}",
        redis.url()
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_of_jetstream_is_told_once() {
    let nats = nats_with_a_password(&["-js"]).await;
    let url = nats.url();
    a_wrong_password_is_told_once(&format!(
        "nats: {{servers: [\"{url}\"], username: u, password: wrong, mode: jetstream, \
         jetstream: {{durable_name: a}}}}"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_of_rabbitmq_is_told_once() {
    let url = e2e::rabbit::shared().await.url();
    for (exchange, durable) in [
        ("password-plain", ""),
        (
            "password-durable",
            ", durable_invalidation_mode: true, queue_name: password-a",
        ),
    ] {
        a_wrong_password_is_told_once(&format!(
            "rabbitmq: {{url: \"{url}\", exchange: {exchange}, password: wrong{durable}}}"
        ))
        .await;
    }
}

/// What each transport writes when its connection is lost, in whatever words.
const BEGINS: &str = "; reconnecting";

async fn is_told(node: &Gateway, words: &str, times: usize) {
    wait_for(&format!("{words}, {times} times"), SOON * 2, || async {
        (lines(node, words).len() == times).then_some(())
    })
    .await;
}

pub async fn an_outage_has_a_line_at_its_beginning_and_one_at_its_end<B: Configured>() {
    let mut broker = B::start().await;
    let fleet = Fleet::start(1, |name| broker.yaml(broker.port(), name)).await;
    let [node] = &fleet.nodes[..] else { panic!() };
    broker.kill();
    is_told(node, BEGINS, 1).await;
    let receipt = node.purge(json!({"tag": "x", "wait": "1s"})).await;
    assert_eq!(receipt["peers"]["outcome"], "unknown", "{receipt}");
    broker.respawn();
    fleet.whole().await;
    let ended = wait_for("that it ends", SOON, || async {
        let lines = lines(node, "after_seconds");
        lines
            .into_iter()
            .find(|line| line["after_seconds"].as_f64() >= Some(0.5))
    })
    .await;
    assert_eq!(ended["level"], "INFO", "{ended}");
    let trouble: Vec<Value> = lines(node, "").into_iter().filter(is_trouble).collect();
    assert_eq!(trouble.len(), 1, "{trouble:#?}");
    assert_eq!(
        lines(node, "after_seconds").len(),
        2,
        "the start and the end"
    );
}

/// The server comes back, and goes again before its connection counts as a good one.
pub async fn an_outage_that_soon_follows_another_one_is_told_too<B: Configured>() {
    let mut broker = B::start().await;
    let fleet = Fleet::start(1, |name| broker.yaml(broker.port(), name)).await;
    let [node] = &fleet.nodes[..] else { panic!() };
    is_told(node, "after_seconds", 1).await;
    for outage in 1..=2 {
        broker.kill();
        is_told(node, BEGINS, outage).await;
        broker.respawn();
        is_told(node, "after_seconds", 1 + outage).await;
    }
}

/// The facts for one transport.
macro_rules! outages {
    ($name:ident, $broker:ty) => {
        outages!($name, $broker:
            an_outage_has_a_line_at_its_beginning_and_one_at_its_end
            an_outage_that_soon_follows_another_one_is_told_too
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

outages!(redis, crate::bus_redis::PubSub);
outages!(nats, crate::bus_nats::Core);
outages!(jetstream, crate::bus_nats::JetStream);
outages!(rabbitmq, crate::bus_rabbitmq_broker::Plain);
outages!(rabbitmq_durable, crate::bus_rabbitmq_broker::Durable);

/// The second tier has several connections to one Redis, which are lost together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_second_tier_has_one_line_at_either_end_whatever_its_connections() {
    let mut redis = Redis::start().await;
    let origin = Origin::pages(|seen| Reply::ok(seen.path.clone())).await;
    let l2 = format!(
        "{{l2: {{redis: {{url: \"{}\", connections: 4}}}}}}",
        redis.url()
    );
    let node = Setup::new(&origin).top("cache", &l2).start().await;
    let connected = async |times| {
        wait_for("the store is connected", SOON, || async {
            (lines(&node, "after_seconds").len() == times).then_some(())
        })
        .await;
    };
    connected(1).await;
    redis.kill();
    node.logged("that it begins", |line| line.contains("no connection to"))
        .await;
    redis.restart().await;
    connected(2).await;
    assert_eq!(lines(&node, "no connection to").len(), 1);
}

/// A connection that may not do its duty is no outage, and hides none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_may_not_listen_hides_no_outage_of_the_second_tier() {
    let mut redis = Redis::start().await;
    let user = "ACL SETUSER edge on >right ~* +@all resetchannels";
    redis.cli(&user.split(' ').collect::<Vec<_>>()).await;
    let origin = Origin::pages(|seen| Reply::ok(seen.path.clone())).await;
    let l2 = format!(
        "{{l2: {{redis: {{url: \"{}\", username: edge, password: right}}}}}}",
        redis.url()
    );
    let node = Setup::new(&origin).top("cache", &l2).start().await;
    let has = async |words: &str| {
        wait_for("the log says so", SOON, || async {
            (lines(&node, words).len() == 1).then_some(())
        })
        .await;
    };
    has("after_seconds").await;
    redis.kill();
    has("no connection to").await;
}
