//! Copies that were purged softly and come from the second tier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use serde_json::json;

/// How long the page may be shown after a soft purge if its origin fails.
const WINDOW: Duration = Duration::from_secs(1);

/// Where a copy comes from the second tier, it is compared with all purges at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn further_soft_purges_do_not_prolong_the_stale_window() {
    let (redis, fails) = (Redis::start().await, Arc::new(AtomicBool::new(false)));
    let broken = Arc::clone(&fails);
    let origin = Origin::start(move |_| {
        let reply = match broken.load(Ordering::SeqCst) {
            true => Reply::status_only(503),
            false => Reply::ok("page").header("cache-control", "max-age=600, stale-if-error=1"),
        };
        async move { reply }
    })
    .await;
    let setup = Setup::new(&origin).top(
        "cache",
        &format!("{{l2: {{redis: {{url: \"{}\"}}}}}}", redis.url()),
    );
    let [loads, reads] = [setup.start().await, setup.start().await];
    assert_eq!(loads.client().get("/p").await.status, 200);
    let stored = [("outcome", "stored")];
    loads
        .metric_until("lamina_l2_writes_total", &stored, |writes| writes > 0.0)
        .await;
    fails.store(true, Ordering::SeqCst);
    let (first, mut newest) = (Instant::now(), 0.0);
    while first.elapsed() < 2 * WINDOW {
        let page = json!({"url": format!("http://{}/p", loads.address), "soft": true});
        let everything = json!({"all": true, "soft": true});
        for purge in [page, everything] {
            let purged = loads.purge(purge).await;
            newest = purged["l2"]["number"].as_f64().unwrap_or(newest);
        }
    }
    reads
        .metric_until("lamina_l2_purge_log_number", &[], |number| number >= newest)
        .await;
    let answer = reads
        .client()
        .request("/p")
        .host(&loads.address.to_string())
        .send()
        .await;
    assert_eq!(answer.status, 503, "{:?}", answer.cache());
}
