//! Redis freezes under load: no client gets an error, calls are soon not tried any more,
//! and it is used again when it thaws.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use e2e::client::Client;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, wait_until};
use tokio::task::JoinSet;

/// Clients that ask for one page again and again, and as many for pages that are new.
const CLIENTS: u64 = 6;

#[derive(Default)]
struct Load {
    hits: AtomicU64,
    misses: AtomicU64,
    ends: AtomicBool,
}

impl Load {
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
    let load = Arc::new(Load::default());
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
