//! What the guarantees of a purge say about faults, over every transport alike: nodes that fall
//! silent, a broker that comes back, wall clocks that are wrong, connections that end in the
//! middle of a purge.

use std::time::{Duration, Instant};

use e2e::cli::run;
use e2e::fleet::{Fleet, Pages, known, node, purge_everywhere, shown};
use e2e::gateway::Gateway;
use e2e::wait::{SOON, wait_for};
use e2e::wire::Wire;
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::cluster::{Configured, applied, has_applied, is};
use crate::l2_clocks::{WallClock, library};
use crate::purge_wait::listed;

/// How long a silent node counts here: long enough for the test to look twice.
const FORGET_AFTER: Duration = Duration::from_secs(8);
/// A purge arrives within this time after the broker is back.
const ARRIVES_WITHIN: Duration = Duration::from_secs(1);
/// How often the broker is killed. The median of the times counts, since the machine has other work.
const RESTARTS: usize = 3;
/// Purges that wait while the broker is away.
const WAITING: usize = 3;
const HOUR: i64 = 3_600;

async fn knows(node: &Gateway, others: usize) {
    wait_for(
        &format!("{others} other nodes are known"),
        SOON * 2,
        || async { (known(node).await == others).then_some(()) },
    )
    .await;
}

/// The receipt of a purge that waits a little for the others.
async fn purge(node: &Gateway) -> Value {
    node.purge(json!({"tag": "x", "wait": "2s"})).await
}

pub async fn who_is_silent_counts_until_it_is_forgotten<B: Configured>() {
    let broker = B::shared().await;
    let forget = format!("nodes: {{forget_after: {}s}}", FORGET_AFTER.as_secs());
    let bus = |name: &str| format!("{forget}, {}", broker.yaml(broker.port(), name));
    let fleet = Fleet::start(2, bus).await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    let receipt = purge_everywhere(a, json!({"tag": "x"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    b.kill();
    let killed = Instant::now();
    wait_for("the killed node is silent", SOON, || async {
        (listed(a, "b").await["state"] == "silent").then_some(())
    })
    .await;
    let receipt = purge(a).await;
    assert_eq!(receipt["peers"]["complete"], false, "{receipt}");
    assert_eq!(receipt["peers"]["outcome"], "some", "{receipt}");
    knows(a, 0).await;
    assert!(
        killed.elapsed() > FORGET_AFTER / 2,
        "it was forgotten early"
    );
    let receipt = purge_everywhere(a, json!({"tag": "x"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
    assert_eq!(receipt["peers"]["outcome"], "all", "{receipt}");
}

/// `forget_after` is ten minutes here.
pub async fn who_leaves_in_words_is_not_waited_for<B: Configured>() {
    let broker = B::shared().await;
    let mut fleet = Fleet::start(2, |name| broker.yaml(broker.port(), name)).await;
    fleet.nodes[1].terminate();
    fleet.nodes[1].ended(SOON * 2).await;
    let a = &fleet.nodes[0];
    knows(a, 0).await;
    let receipt = purge_everywhere(a, json!({"tag": "x"})).await;
    assert_eq!(receipt["peers"]["complete"], true, "{receipt}");
}

/// Measured from the moment when the broker takes connections again.
pub async fn a_purge_arrives_soon_after_the_broker_is_back<B: Configured>() {
    let mut broker = B::start().await;
    let fleet = Fleet::start(2, |name| broker.yaml(broker.port(), name)).await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    let mut times = Vec::new();
    for n in 0..RESTARTS {
        broker.kill();
        is(a, "degraded").await;
        is(b, "degraded").await;
        let before = applied(b).await;
        a.purge(json!({"tag": format!("t{n}")})).await;
        broker.respawn();
        wait_for("the broker takes connections", SOON * 4, || async {
            let place = ("127.0.0.1", broker.port());
            TcpStream::connect(place).await.ok()
        })
        .await;
        let back = Instant::now();
        wait_for("the purge arrives", SOON * 4, || async {
            (applied(b).await > before).then_some(())
        })
        .await;
        times.push(back.elapsed());
        fleet.whole().await;
    }
    eprintln!(
        "{}: {times:?} after the broker was back",
        std::any::type_name::<B>()
    );
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(
        median <= ARRIVES_WITHIN,
        "{times:?} after the broker was back"
    );
}

/// What `path` of the admin listener says of the bus.
async fn told_of_the_bus(node: &Gateway, path: &str) -> Value {
    let answer = node.admin(Method::GET, path, "").await;
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    body["bus"].clone()
}

/// Whether `/readyz`, `nodes` and the metrics say that so many purges wait.
async fn agree_that_so_many_wait(node: &Gateway, count: usize) {
    wait_for(
        &format!("{count} purges wait everywhere"),
        SOON * 2,
        || async {
            let [ready, nodes] = [
                told_of_the_bus(node, "/readyz").await,
                told_of_the_bus(node, "/v1/nodes").await,
            ];
            let metric = node.metric("lamina_bus_purges_waiting", &[]).await;
            let agree = ready["purges_waiting"] == count
                && nodes["purges_waiting"] == count
                && metric == count as f64;
            agree.then_some(())
        },
    )
    .await;
}

/// `lamina purge --wait` has nothing to confirm while nothing is published, and whoever looks at
/// the node, its metrics or its commands sees the same.
pub async fn what_is_not_published_is_never_complete_and_counted_alike<B: Configured>() {
    let mut broker = B::start().await;
    let fleet = Fleet::start(2, |name| broker.yaml(broker.port(), name)).await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    agree_that_so_many_wait(a, 0).await;
    let before = applied(b).await;
    broker.kill();
    is(a, "degraded").await;
    for n in 1..WAITING {
        a.purge(json!({"tag": format!("t{n}")})).await;
    }
    let admin = a.admin.to_string();
    let purge = move || run(&["purge", "--tag", "x", "--wait", "300ms", "--admin", &admin]);
    let ran = tokio::task::spawn_blocking(purge).await.unwrap();
    assert_eq!(ran.code, Some(3), "{}", ran.output());
    let unknown = "unknown where the purge applies";
    assert!(ran.stdout.contains(unknown), "{}", ran.stdout);
    agree_that_so_many_wait(a, WAITING).await;
    let standing = told_of_the_bus(a, "/v1/nodes").await;
    assert_eq!(standing["publishes"], false, "{standing}");
    assert!(standing["reason"].is_string(), "{standing}");
    broker.respawn();
    fleet.whole().await;
    agree_that_so_many_wait(a, 0).await;
    has_applied(b, before + WAITING as f64).await;
}

pub async fn a_wall_clock_that_is_wrong_holds_up_no_purge<B: Configured>() {
    let Some(library) = library() else { return };
    for offset in [-HOUR, HOUR] {
        let broker = B::shared().await;
        let pages = Pages::default();
        let origin = pages.origin().await;
        let setup = |name: &str| node(&origin, name, &broker.yaml(broker.port(), name));
        let clock = WallClock::new(offset);
        let nodes = vec![
            setup("a").start().await,
            clock.of(&setup("b"), &library).start().await,
        ];
        let fleet = Fleet {
            origin,
            pages,
            nodes,
        };
        fleet.whole().await;
        for (from, path) in [(0, "/by-a"), (1, "/by-b")] {
            for node in &fleet.nodes {
                assert_eq!(shown(node, path).await, 1, "{offset}");
            }
            fleet.pages.change(path);
            let selector = json!({"tag": path});
            let receipt = purge_everywhere(&fleet.nodes[from], selector).await;
            assert_eq!(receipt["peers"]["complete"], true, "{offset}: {receipt}");
            for node in &fleet.nodes {
                assert_eq!(shown(node, path).await, 2, "{offset}");
            }
        }
    }
}

/// First the connections of the one that purges are cut, then those of the one that listens.
pub async fn a_connection_that_is_cut_during_purges_loses_none<B: Configured>() {
    const PAGES: usize = 30;
    let broker = B::shared().await;
    let port = broker.port();
    let wires = [Wire::to(port).await, Wire::to(port).await];
    let fleet = Fleet::start(2, |name| {
        let wire = &wires[usize::from(name == "b")];
        broker.yaml(wire.address.port(), name)
    })
    .await;
    let [a, b] = &fleet.nodes[..] else { panic!() };
    for wire in &wires {
        let path = |n: usize| format!("/page/{n}");
        let mut old = Vec::new();
        for n in 0..PAGES {
            old.push(shown(b, &path(n)).await);
        }
        for n in 0..PAGES {
            fleet.pages.change(&path(n));
            if n == PAGES / 2 {
                wire.cut();
            }
            a.purge(json!({"tag": path(n)})).await;
        }
        fleet.whole().await;
        for (n, old) in old.into_iter().enumerate() {
            let path = path(n);
            wait_for("the new page is shown", SOON, || async {
                (shown(b, &path).await > old).then_some(())
            })
            .await;
        }
    }
}

/// The facts for one transport.
macro_rules! faults {
    ($name:ident, $broker:ty) => {
        faults!($name, $broker:
            who_is_silent_counts_until_it_is_forgotten
            who_leaves_in_words_is_not_waited_for
            a_purge_arrives_soon_after_the_broker_is_back
            what_is_not_published_is_never_complete_and_counted_alike
            a_wall_clock_that_is_wrong_holds_up_no_purge
            a_connection_that_is_cut_during_purges_loses_none
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

faults!(redis, crate::bus_redis::PubSub);
faults!(nats, crate::bus_nats::Core);
faults!(jetstream, crate::bus_nats::JetStream);
faults!(rabbitmq, crate::bus_rabbitmq_broker::Plain);
faults!(rabbitmq_durable, crate::bus_rabbitmq_broker::Durable);
