//! Targets with more to do than they can: their active checks fail, and nobody is refused for that.

use std::sync::Arc;
use std::time::Duration;

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use tokio::sync::Semaphore;

/// How many requests a target can do at once.
const AT_ONCE: usize = 4;
/// Of each of twice as many clients.
const REQUESTS: usize = 40;

/// A target that does so many requests at once, and comes to no check meanwhile.
async fn starving() -> Origin {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    Origin::start(move |asked| {
        let places = Arc::clone(&places);
        async move {
            if asked.seen.path == "/healthz" {
                return std::future::pending().await;
            }
            let _place = places.acquire().await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            Reply::ok("page")
        }
    })
    .await
}

async fn before(targets: &[&Origin]) -> Gateway {
    let targets: Vec<_> = targets.iter().map(|target| target.url()).collect();
    let targets = targets.join(", ");
    let health = "active: {path: /healthz, interval: 100ms, timeout: 50ms, fall: 1}";
    let load = format!("max_concurrent: {AT_ONCE}, max_queued: 1000, queue_timeout: 10m");
    let upstream = format!("{{targets: [{targets}], health: {{{health}}}, load: {{{load}}}}}");
    let gateway = Setup::default()
        .upstream("shop", &upstream)
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await;
    let upstream = [("upstream", "shop")];
    gateway
        .metric_until("lamina_upstream_usable_targets", &upstream, |n| n == 0.0)
        .await;
    gateway
}

/// Twice as many at once as one target can do; each is answered.
async fn all_are_answered(gateway: &Gateway) {
    let clients = (0..2 * AT_ONCE).map(|_| {
        let client = gateway.client().uncached();
        tokio::spawn(async move {
            for _ in 0..REQUESTS {
                assert_eq!(client.get("/").await.status, 200);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

fn pages(target: &Origin) -> usize {
    target.count_of("/")
}

#[tokio::test]
async fn the_only_target_is_asked_although_its_check_times_out() {
    let only = starving().await;
    let gateway = before(&[&only]).await;
    all_are_answered(&gateway).await;
    assert_eq!(pages(&only), 2 * AT_ONCE * REQUESTS);
    let labels = [("upstream", "shop"), ("outcome", "timeout")];
    let checks = gateway.metric("lamina_upstream_checks_total", &labels);
    assert!(checks.await >= 1.0);
}

#[tokio::test]
async fn where_the_checks_of_all_targets_time_out_all_are_asked() {
    let (a, b) = (starving().await, starving().await);
    let gateway = before(&[&a, &b]).await;
    all_are_answered(&gateway).await;
    let shares = (pages(&a), pages(&b));
    assert_eq!(shares.0 + shares.1, 2 * AT_ONCE * REQUESTS);
    assert!(shares.0.min(shares.1) > REQUESTS, "{shares:?}");
    let upstream = [("upstream", "shop")];
    assert_eq!(
        gateway.metric("lamina_upstream_panic", &upstream).await,
        1.0
    );
}
