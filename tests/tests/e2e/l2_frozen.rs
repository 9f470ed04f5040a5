//! Redis freezes under load: no client gets an error, calls are soon not tried any more,
//! and it is used again when it thaws.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use e2e::client::{Answer, Client};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, wait_until, within};
use e2e::wire::Wire;
use tokio::task::JoinSet;

/// Clients that ask for one page again and again, and as many for pages that are new.
const CLIENTS: u64 = 6;

#[derive(Default)]
struct FrozenTierLoad {
    hits: AtomicU64,
    misses: AtomicU64,
    ends: AtomicBool,
}

impl FrozenTierLoad {
    fn start(self: &Arc<Self>, gateway: &Gateway) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            clients.spawn(Arc::clone(self).hits(gateway.client()));
            clients.spawn(Arc::clone(self).misses(gateway.client(), number));
        }
        clients
    }

    async fn hits(self: Arc<Self>, client: Client) {
        while !self.ends.load(Ordering::SeqCst) {
            let answer = client.get("/warm").await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, "/warm"));
            assert!(answer.is_hit(), "{:?}", answer.cache());
            self.hits.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn misses(self: Arc<Self>, client: Client, number: u64) {
        for turn in 0.. {
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            let path = format!("/{number}/{turn}");
            let answer = client.get(&path).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, &*path));
            assert!(!answer.is_hit(), "{:?}", answer.cache());
            self.misses.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits for more answers of both sorts.
    async fn goes_on(&self) {
        let counts = [&self.hits, &self.misses];
        let wanted = counts.map(|count| count.load(Ordering::SeqCst) + 100);
        wait_until("clients get answers", SOON * 2, || {
            let both = counts.iter().zip(wanted);
            both.into_iter()
                .all(|(count, wanted)| count.load(Ordering::SeqCst) >= wanted)
        })
        .await;
    }
}

async fn stored(gateway: &Gateway) -> f64 {
    let labels = [("outcome", "stored")];
    gateway.metric("lamina_l2_writes_total", &labels).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_freezes_under_load_harms_no_client_and_is_used_again() {
    let redis = Redis::start().await;
    let origin =
        Origin::pages(|seen| Reply::ok(seen.path.clone()).header("cache-control", "max-age=86400"))
            .await;
    let l2 = format!(
        "{{redis: {{url: \"{}\", silence_timeout: 500ms}}, breaker: {{cooldown: 1s}}}}",
        redis.url()
    );
    let gateway = Setup::new(&origin)
        .top("cache", &format!("{{l2: {l2}}}"))
        .start()
        .await;
    gateway.client().get("/warm").await;
    let load = Arc::new(FrozenTierLoad::default());
    let mut clients = load.start(&gateway);
    load.goes_on().await;
    wait_for("records are stored", SOON, || async {
        (stored(&gateway).await > 0.0).then_some(())
    })
    .await;
    redis.freeze();
    gateway
        .metric_until("lamina_l2_breaker_open", &[], |open| open == 1.0)
        .await;
    let skipped = [("operation", "get"), ("outcome", "skipped")];
    let before = gateway.metric("lamina_l2_calls_total", &skipped).await;
    load.goes_on().await;
    let after = gateway.metric("lamina_l2_calls_total", &skipped).await;
    assert!(after > before, "calls are not tried while it is open");
    let written = stored(&gateway).await;
    redis.thaw();
    gateway
        .metric_until("lamina_l2_breaker_open", &[], |open| open == 0.0)
        .await;
    wait_for("it is written to again", SOON, || async {
        (stored(&gateway).await > written).then_some(())
    })
    .await;
    load.goes_on().await;
    load.ends.store(true, Ordering::SeqCst);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

/// A node that asks for a lease and gets no answer does not know that it has it: nobody may have
/// to wait until such a lease runs out.
#[tokio::test]
async fn a_lease_whose_answer_was_lost_is_given_back() {
    let redis = Redis::start().await;
    let wire = Wire::to(redis.port).await;
    let origin = Origin::pages(|seen| Reply::ok(seen.path.clone())).await;
    let near = node_at(&origin, &redis.url()).await;
    let far = node_at(&origin, &format!("redis://{}", wire.address)).await;
    leases_are(&redis, 0).await;
    // Late answers, so that one can be held back when the lease is seen in Redis.
    wire.slow(Duration::from_millis(500));
    let load = tokio::spawn(page(far.client()));
    leases_are(&redis, 1).await;
    wire.hold();
    let answer = within("the load without a lease", SOON, load)
        .await
        .unwrap();
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "/page"));
    let unknown = [("outcome", "unknown")];
    assert_eq!(far.metric("lamina_l2_leases_total", &unknown).await, 1.0);
    wire.slow(Duration::ZERO);
    wire.release();
    let answer = within("the other node's load", SOON, page(near.client())).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "/page"));
    assert_eq!(origin.count_of("/page"), 2);
}

/// A page that is the same for both nodes.
async fn page(client: Client) -> Answer {
    client.request("/page").host("site.example").send().await
}

/// Waits until so many leases stand in Redis.
async fn leases_are(redis: &Redis, wanted: usize) {
    wait_for("leases stand in Redis, or none", SOON, || async {
        let keys = redis.cli(&["KEYS", "lamina:{*}*l"]).await;
        (keys.lines().count() == wanted).then_some(())
    })
    .await;
}

/// A node that knows the log, without which it asks for no lease.
async fn node_at(origin: &Origin, url: &str) -> Gateway {
    let l2 = format!(
        "{{redis: {{url: \"{url}\", silence_timeout: 1m}}, read_timeout: 3s, \
         lease: {{ttl: 10m, wait_timeout: 5m}}}}"
    );
    let node = Setup::new(origin)
        .top("cache", &format!("{{l2: {l2}}}"))
        .start()
        .await;
    let turn = AtomicU64::new(0);
    wait_for("the node asks for leases", SOON, || async {
        let path = format!("/before/{}", turn.fetch_add(1, Ordering::SeqCst));
        node.client().get(&path).await;
        let owned = [("outcome", "owned")];
        (node.metric("lamina_l2_leases_total", &owned).await > 0.0).then_some(())
    })
    .await;
    node
}
