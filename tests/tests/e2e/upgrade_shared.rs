//! Another process takes the place of a gateway that shares something with other nodes: the event
//! bus, a second tier in Redis, the storage of certificates. For a moment there are two processes of
//! one name.

use e2e::fleet::{Pages, known, node, purge_everywhere, shown};
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::origin::Origin;
use e2e::pebble::{Pebble, PebbleOptions};
use e2e::places::PLACES;
use e2e::rabbit::{self, Rabbit};
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::upgrade::server;
use e2e::wait::{SOON, wait_for, wait_until};
use http::Method;
use serde_json::json;

use crate::acme::{SHOP, Wanted, obtained, page};
use crate::acme_dns::{RecordProgram, was_made_and_removed};
use crate::acme_failures::slow_validation;

const SITE: &str = "site.example";
/// Pages that both nodes hold.
const PAGES: usize = 24;

fn path(n: usize) -> String {
    format!("/{n}")
}

/// Two nodes over a bus, of which the first can be replaced and hands over what it holds.
async fn two_nodes(pages: &Pages, bus: impl Fn(&str) -> String) -> (Origin, Gateway, Gateway) {
    let origin = pages.origin().await;
    let _places = PLACES.reserve(2).await;
    let replaced = node(&origin, "a", &bus("a"))
        .top("server", &server(""))
        .top("cache", "{warm: {snapshot: 10MiB}}");
    let replaced = replaced.start().await;
    let other = node(&origin, "b", &bus("b")).start().await;
    for gateway in [&replaced, &other] {
        hears_one(gateway).await;
    }
    (origin, replaced, other)
}

async fn hears_one(gateway: &Gateway) {
    wait_for("one other node is heard", SOON * 2, || async {
        (known(gateway).await == 1).then_some(())
    })
    .await;
}

/// Purges on a node that is perhaps being replaced, and then says so.
async fn purge_where_it_is_taken(gateway: &Gateway, tag: &str) {
    wait_for("the purge is taken", SOON, || async {
        let body = json!({ "tag": tag }).to_string();
        let answer = gateway.admin(Method::POST, "/v1/purge", &body).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// Purges on both nodes while one of them is replaced, over this bus.
async fn no_purge_is_lost_over(bus: impl Fn(&str) -> String) {
    let pages = Pages::default();
    let (_origin, mut replaced, other) = two_nodes(&pages, bus).await;
    for n in 0..PAGES {
        for gateway in [&replaced, &other] {
            assert_eq!(shown(gateway, &path(n)).await, 1);
        }
    }
    let purging = async {
        for n in 0..PAGES {
            pages.change(&path(n));
            match n % 2 {
                0 => purge_where_it_is_taken(&replaced, &path(n)).await,
                _ => drop(purge_everywhere(&other, json!({"tag": path(n)})).await),
            }
        }
    };
    let (new, ()) = tokio::join!(replaced.upgrade(), purging);
    for n in 0..PAGES {
        for (name, gateway) in [("a", &replaced), ("b", &other)] {
            wait_for(&format!("{name} shows page {n}"), SOON, || async {
                (shown(gateway, &path(n)).await == 2).then_some(())
            })
            .await;
        }
    }
    replaced.only_the_last_process(SOON).await;
    for gateway in [&replaced, &other] {
        hears_one(gateway).await;
    }
    // Each hears the other one after it as before.
    for (from, to) in [(&replaced, &other), (&other, &replaced)] {
        let page = path(0);
        let version = pages.change(&page);
        let told = purge_everywhere(from, json!({ "tag": page })).await;
        assert_eq!(shown(to, &page).await, version, "{told}");
    }
    // Two processes of one name are no mistake here.
    for gateway in [&replaced, &other] {
        let log = gateway.log();
        let alarm = log
            .iter()
            .find(|line| line.contains("uses this node's name"));
        assert_eq!(alarm, None, "process {new}");
        // That the process before still has a queue is none, either.
        let alarm = log
            .iter()
            .find(|line| line.contains("\"WARN\"") && line.contains("the queue has a consumer"));
        assert_eq!(alarm, None, "process {new}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_over_nats_are_lost_by_neither_process() {
    let nats = Nats::start().await;
    no_purge_is_lost_over(|_| format!("nats: {{servers: [\"{}\"]}}", nats.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_over_redis_are_lost_by_neither_process() {
    let redis = Redis::start().await;
    no_purge_is_lost_over(|_| format!("redis: {{url: \"{}\"}}", redis.url())).await;
}

/// What waits for a node is for either process of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_over_jetstream_are_lost_by_neither_process() {
    let nats = Nats::start().await;
    no_purge_is_lost_over(over_jetstream(&nats)).await;
}

fn over_jetstream(nats: &Nats) -> impl Fn(&str) -> String {
    let url = nats.url();
    move |node| {
        format!(
            "nats: {{servers: [\"{url}\"], mode: jetstream, jetstream: {{durable_name: {node}}}}}"
        )
    }
}

/// A bus over RabbitMQ, with names of its own. In the durable mode each node has a queue of which only
/// one process of it can be the consumer.
fn over_rabbitmq(rabbit: &Rabbit, name: &str, queues: RabbitQueues) -> impl Fn(&str) -> String {
    let url = rabbit.url();
    let exchange = format!("upgrade.{name}");
    move |node| {
        let queue = format!("{exchange}.{node}");
        let queues = match queues {
            RabbitQueues::OfConnections => String::new(),
            RabbitQueues::Exclusive => format!(", queue_name: {queue}, exclusive_queue: true"),
            RabbitQueues::Durable => {
                format!(", queue_name: {queue}, durable_invalidation_mode: true")
            }
        };
        format!("rabbitmq: {{url: \"{url}\", exchange: {exchange}{queues}}}")
    }
}

/// The queues of nodes.
#[derive(Clone, Copy)]
enum RabbitQueues {
    /// Another one with each connection.
    OfConnections,
    /// One with a name, which ends with its connection.
    Exclusive,
    /// One with a name, which keeps what comes meanwhile.
    Durable,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_over_rabbitmq_are_lost_by_neither_process() {
    let rabbit = rabbit::shared().await;
    no_purge_is_lost_over(over_rabbitmq(rabbit, "plain", RabbitQueues::OfConnections)).await;
}

/// The new process has no queue as long as the replaced one has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_over_an_exclusive_queue_of_rabbitmq_are_lost_by_neither_process() {
    let rabbit = rabbit::shared().await;
    no_purge_is_lost_over(over_rabbitmq(rabbit, "exclusive", RabbitQueues::Exclusive)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_over_a_durable_queue_of_rabbitmq_are_lost_by_neither_process() {
    let rabbit = rabbit::shared().await;
    no_purge_is_lost_over(over_rabbitmq(rabbit, "durable", RabbitQueues::Durable)).await;
}

/// What the process before had heard of other nodes, the new one need not doubt (WR2).
async fn nothing_is_in_doubt_over(bus: impl Fn(&str) -> String) {
    let pages = Pages::default();
    let (origin, mut replaced, other) = two_nodes(&pages, bus).await;
    let purge = async |from: &Gateway, n: usize| {
        pages.change(&path(n));
        purge_everywhere(from, json!({"tag": path(n)})).await;
    };
    for n in 0..PAGES {
        assert_eq!(shown(&replaced, &path(n)).await, 1);
    }
    // The numbers of both have begun.
    purge(&other, 0).await;
    purge(&replaced, 1).await;
    for round in 0..2 {
        for n in 0..2 {
            shown(&replaced, &path(n)).await;
        }
        replaced.upgrade().await;
        origin.forget();
        for n in 0..PAGES {
            assert_eq!(shown(&replaced, &path(n)).await, pages.version(&path(n)));
        }
        assert_eq!(origin.count(), 0, "round {round}");
        hears_one(&replaced).await;
        for from in [&other, &replaced] {
            purge(from, round).await;
            assert_eq!(
                shown(&replaced, &path(round)).await,
                pages.version(&path(round))
            );
        }
    }
    replaced.only_the_last_process(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_in_doubt_after_an_upgrade_with_redis_as_the_bus() {
    let redis = Redis::start().await;
    nothing_is_in_doubt_over(|_| format!("redis: {{url: \"{}\"}}", redis.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_in_doubt_after_an_upgrade_with_nats_as_the_bus() {
    let nats = Nats::start().await;
    nothing_is_in_doubt_over(|_| format!("nats: {{servers: [\"{}\"]}}", nats.url())).await;
}

/// Which version of a page of [`SITE`] a node shows. A POST is about a URL, whose host both nodes must
/// have in common.
async fn shown_of_site(node: &Gateway, path: &str) -> u64 {
    let answer = node.client().request(path).host(SITE).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().parse().unwrap()
}

/// A POST on a connection that the replaced process still has: what it makes invalid is invalid in the
/// new process and on the other node.
async fn a_post_to_the_replaced_process_reaches_all_over(bus: impl Fn(&str) -> String) {
    let pages = Pages::default();
    let (_origin, mut replaced, other) = two_nodes(&pages, bus).await;
    let posting = replaced.client();
    assert_eq!(posting.get("/open").await.status, 200);
    replaced.upgrade().await;
    let page = path(0);
    for gateway in [&replaced, &other] {
        assert_eq!(shown_of_site(gateway, &page).await, 1);
    }
    let version = pages.change(&page);
    let post = posting.ask(Method::POST, &page).host(SITE).body("x");
    assert_eq!(post.send().await.status, 200);
    let now = shown_of_site(&replaced, &page).await;
    assert_eq!(now, version, "the new process");
    wait_for("the other node shows what was changed", SOON, || async {
        (shown_of_site(&other, &page).await == version).then_some(())
    })
    .await;
    replaced.only_the_last_process(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_to_the_replaced_process_reaches_all_over_jetstream() {
    let nats = Nats::start().await;
    a_post_to_the_replaced_process_reaches_all_over(over_jetstream(&nats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_to_the_replaced_process_reaches_all_over_a_durable_queue() {
    let bus = over_rabbitmq(rabbit::shared().await, "posted", RabbitQueues::Durable);
    a_post_to_the_replaced_process_reaches_all_over(bus).await;
}

/// Every load of a page below `/held` waits at the gate.
async fn held_site(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |asked| {
        let gate = gate.clone();
        async move {
            if asked.seen.path.starts_with("/held") {
                gate.pass().await;
            }
            Reply::ok(asked.seen.path)
                .header("cache-control", "max-age=600")
                .header("cache-tag", "page")
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_redis_stays_and_a_load_that_holds_a_lease_is_for_both_processes() {
    let (gate, redis) = (Gate::new(), Redis::start().await);
    let origin = held_site(&gate).await;
    let cache = format!("{{l2: {{redis: {{url: \"{}\"}}}}}}", redis.url());
    let mut gateway = Setup::new(&origin)
        .top("server", &server(""))
        .top("cache", &cache)
        .start()
        .await;
    assert_eq!(gateway.client().get("/kept").await.status, 200);
    assert_eq!(gateway.client().get("/purged").await.status, 200);
    wait_for("both are in Redis", SOON, || async {
        let stored = [("outcome", "stored")];
        let written = gateway.metric("lamina_l2_writes_total", &stored).await;
        (written >= 2.0).then_some(())
    })
    .await;
    let client = gateway.client();
    let under_way = tokio::spawn(async move { client.get("/held").await });
    gate.reached_by(1).await;
    gateway.upgrade().await;
    // A purge of the new process is in the log that both follow.
    gateway.purge(json!({"prefix": "/purged"})).await;
    assert!(gateway.client().get("/kept").await.is_hit(), "from Redis");
    assert!(!gateway.client().get("/purged").await.is_hit());
    assert_eq!(origin.count_of("/kept"), 1);
    let client = gateway.client();
    let waiting = tokio::spawn(async move { client.get("/held").await });
    wait_for("the new process waits for the lease", SOON, || async {
        let busy = [("outcome", "busy")];
        let busy = gateway.metric("lamina_l2_leases_total", &busy).await;
        (busy >= 1.0).then_some(())
    })
    .await;
    assert_eq!(origin.count_of("/held"), 1, "the old process loads it");
    gate.open();
    for answer in [under_way, waiting] {
        let answer = answer.await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "/held"));
    }
    assert_eq!(origin.count_of("/held"), 1, "one load for both processes");
    gateway.only_the_last_process(SOON).await;
}

/// A gateway that is replaced while its issuer looks for the answer to a challenge. `storage` are
/// the keys of `acme` that say where certificates are kept.
async fn an_order_goes_on(storage: &str, cache: &str, issuer: &str) {
    order_goes_on_at(&slow_issuer().await, storage, cache, issuer).await;
}

async fn slow_issuer() -> Pebble {
    Pebble::start_with(PebbleOptions {
        environment: slow_validation(),
        ..PebbleOptions::default()
    })
    .await
}

async fn order_goes_on_at(pebble: &Pebble, storage: &str, cache: &str, issuer: &str) {
    let origin = page().await;
    let acme = format!(
        "{{{storage}, lease: 2s, poll_interval: 200ms, retry: {{min: 1s, max: 2s}}, \
         issuers: {{pebble: {}}}}}",
        pebble.issuer(issuer)
    );
    let listeners = Wanted::default().listeners("127.0.0.1", pebble, "pebble");
    let mut gateway = Setup::new(&origin)
        .top("server", &server(""))
        .top("listeners", &listeners)
        .top("cache", cache)
        .top("acme", &acme)
        .start()
        .await;
    let ordered = |line: &str| line.contains("a certificate is ordered");
    gateway.logged("an order", ordered).await;
    wait_until("the issuer has the order", SOON, || pebble.orders() == 1).await;
    gateway.upgrade().await;
    gateway.only_the_last_process(SOON).await;
    let secured = e2e::pebble::here(pebble.tls_port);
    let shown = obtained(pebble, secured, SHOP).await;
    let log = gateway.log().join("\n");
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1), "{log}");
    // And what was obtained is the next one's from its first moment.
    gateway.upgrade().await;
    let again = pebble.shown_by(secured, SHOP).await;
    assert_eq!(again.as_ref(), Ok(&shown));
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1));
    gateway.only_the_last_process(SOON).await;
}

#[tokio::test]
async fn the_new_process_answers_the_challenge_of_an_order_and_ends_it() {
    let store = tempfile::tempdir().unwrap();
    let folder = format!("storage: \"{}\"", store.path().join("acme").display());
    an_order_goes_on(&folder, "{}", "").await;
}

#[tokio::test]
async fn the_new_process_ends_an_order_whose_challenge_is_a_certificate() {
    let redis = Redis::start().await;
    let cache = format!("{{l2: {{redis: {{url: \"{}\"}}}}}}", redis.url());
    let storage = "storage: redis, seal_key: 0123456789abcdef0123456789abcdef";
    an_order_goes_on(storage, &cache, ", challenge: tls-alpn-01").await;
}

/// The issuer looks for a record that the replaced process has made: it stays for the new one, which
/// makes no other one and removes it.
#[tokio::test]
async fn a_record_of_the_dns_is_left_to_the_new_process_which_removes_it() {
    let store = tempfile::tempdir().unwrap();
    let folder = format!("storage: \"{}\"", store.path().join("acme").display());
    let pebble = slow_issuer().await;
    let program = RecordProgram::of(&pebble);
    order_goes_on_at(&pebble, &folder, "{}", &program.issuer).await;
    let name = format!("_acme-challenge.{SHOP}");
    was_made_and_removed(&program.removed().await, &name);
}
