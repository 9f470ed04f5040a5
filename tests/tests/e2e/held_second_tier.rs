//! Bodies that clients get from the second tier, from a disk or from Redis: who reads slowly, but
//! steadily, gets all of one, who stops is cut, and what nobody reads is counted and bounded as any
//! other body is (`limits.min_rate`, `server.max_held_bytes`).

use e2e::attack::held::{LARGE_PATH, page, streams};
use e2e::gateway::Gateway;
use e2e::h2raw::{H2, get, setting};
use e2e::h3::SecuredGateway;
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, wait_until};
use tempfile::TempDir;

use crate::l2::{PATIENCE, reads_below, redis_at, written};
use crate::steady_readers::{LIMITS, reads_all_by_http1, reads_all_by_http2, reads_all_by_http3};

const HELD: &str = "lamina_held_bytes";
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Enough for all large pages of a test.
const LARGE_L1: &str = "24MiB";
/// Which host the clients of HTTP/2 name.
const HTTP2_HOST: &str = "attacker.test";

/// Pages of 1 MiB each, of which half at most may be held.
const PAGES: usize = 32;
/// What all answers may hold, and what may be on its way beyond that.
const IN_ALL: u32 = 12 << 20;
const ON_ITS_WAY: u32 = 2 << 20;
/// What stands still is not cut for that.
const PATIENT: &str = "{max_held_bytes: 64MiB, body_timeout: 10m, min_rate: 0}";

/// Where a body lies, outside of the gateway's memory.
enum SecondTier {
    Disk(TempDir),
    Redis(Redis),
}

impl SecondTier {
    async fn both() -> [Self; 2] {
        let folder = tempfile::tempdir().unwrap();
        [Self::Disk(folder), Self::Redis(Redis::start().await)]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Disk(_) => "disk",
            Self::Redis(_) => "Redis",
        }
    }

    fn yaml(&self) -> String {
        match self {
            Self::Disk(folder) => {
                let path = folder.path().join("l2");
                format!("{{disk: {{path: \"{}\"}}, {PATIENCE}}}", path.display())
            }
            Self::Redis(redis) => redis_at(&redis.url()),
        }
    }

    fn setup(&self, origin: &Origin, l1: &str) -> Setup {
        let cache = format!("{{l1: {{max_bytes: {l1}}}, l2: {}}}", self.yaml());
        Setup::new(origin).top("cache", &cache)
    }

    /// Has pages of this host put into the tier, by a gateway that ends then.
    async fn fill(&self, origin: &Origin, host: &str, paths: &[String]) {
        let mut gateway = self.setup(origin, LARGE_L1).start().await;
        reads_below(&gateway).await;
        for path in paths {
            gateway.client().request(path).host(host).send().await;
        }
        written(&gateway, paths.len() as f64).await;
        gateway.terminate();
        assert!(gateway.ended(SOON).await.success());
    }
}

async fn origin() -> Origin {
    Origin::pages(|seen| page(&seen.path).unwrap_or_else(|| Reply::fresh("small"))).await
}

fn large(name: &str) -> String {
    format!("{LARGE_PATH}/{name}")
}

async fn reader_of(setup: Setup) -> Gateway {
    let gateway = setup.start().await;
    reads_below(&gateway).await;
    gateway
}

/// Asks for a page, takes a part of it and no more, until the gateway ends that.
async fn stops_and_is_cut(gateway: &Gateway, path: &str) {
    let before = gateway.open_files();
    let mut raw = RawConnection::narrow(gateway.address).await;
    raw.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
        .await;
    assert_eq!(raw.head().await.status, 200, "{path}");
    raw.exactly(64 << 10).await;
    wait_until("who stops is cut", SOON, || gateway.open_files() <= before).await;
}

#[tokio::test]
async fn a_slow_and_steady_reader_gets_all_of_a_body_from_below() {
    for tier in SecondTier::both().await {
        let origin = origin().await;
        let [one, other] = ["one", "other"].map(large);
        tier.fill(&origin, "x", std::slice::from_ref(&one)).await;
        tier.fill(&origin, HTTP2_HOST, std::slice::from_ref(&other))
            .await;
        let gateway = reader_of(tier.setup(&origin, LARGE_L1).listener("limits", LIMITS)).await;
        tokio::join!(
            reads_all_by_http1(&gateway, &one),
            reads_all_by_http2(&gateway, &other),
        );
        for path in [&one, &other] {
            assert_eq!(origin.count_of(path), 1, "{path}: from {}", tier.name());
        }
    }
}

#[tokio::test]
async fn a_slow_and_steady_reader_of_http3_gets_all_of_a_body_from_below() {
    for tier in SecondTier::both().await {
        let origin = origin().await;
        let mut filler = SecuredGateway::start(tier.setup(&origin, LARGE_L1)).await;
        reads_below(&filler.gateway).await;
        filler.client().await.get(LARGE_PATH).await;
        written(&filler.gateway, 1.0).await;
        filler.gateway.terminate();
        assert!(filler.gateway.ended(SOON).await.success());
        let setup = tier.setup(&origin, LARGE_L1).listener("limits", LIMITS);
        let reader = SecuredGateway::start(setup).await;
        reads_below(&reader.gateway).await;
        reads_all_by_http3(&reader, LARGE_PATH, 16 << 10).await;
        assert_eq!(origin.count(), 1, "it came from {}", tier.name());
    }
}

#[tokio::test]
async fn who_stops_reading_a_body_from_below_is_cut() {
    for tier in SecondTier::both().await {
        let origin = origin().await;
        let path = large("stopped");
        tier.fill(&origin, "x", std::slice::from_ref(&path)).await;
        let gateway = reader_of(tier.setup(&origin, LARGE_L1).listener("limits", LIMITS)).await;
        stops_and_is_cut(&gateway, &path).await;
        assert_eq!(origin.count(), 1, "it came from {}", tier.name());
        gateway.metric_until(HELD, &[], |held| held == 0.0).await;
    }
}

/// The first tier has room for few of them, so that the others are held for their clients alone.
#[tokio::test]
async fn bodies_from_below_that_nobody_reads_are_counted_and_bounded() {
    for tier in SecondTier::both().await {
        let origin = origin().await;
        let paths: Vec<_> = (0..PAGES).map(|n| format!("/held/{n}")).collect();
        tier.fill(&origin, HTTP2_HOST, &paths).await;
        let setup = tier.setup(&origin, "8MiB");
        let in_all = format!("{{threads: 2, max_held_bytes: {IN_ALL}}}");
        let setup = setup.top("server", &in_all).listener("limits", PATIENT);
        let gateway = reader_of(setup).await;
        let mut clients = Vec::new();
        for paths in paths.chunks(PAGES / 8) {
            let mut h2 = H2::open(gateway.address).await;
            let asks = streams(paths.len()).zip(paths);
            let asks = asks.flat_map(|(stream, path)| get(stream, path)).collect();
            let shut = setting(INITIAL_WINDOW_SIZE, 0);
            h2.write([shut, asks].concat()).await;
            clients.push(h2);
        }
        let asked = |n| n >= PAGES as f64;
        gateway
            .metric_until("lamina_requests_total", &[], asked)
            .await;
        // Less than what makes answers be cut.
        let counted = |held| held >= f64::from(IN_ALL) / 2.0;
        gateway.metric_until(HELD, &[], counted).await;
        wait_for("no more is held than may be", SOON, || async {
            let held = gateway.metric(HELD, &[]).await;
            (held <= f64::from(IN_ALL + ON_ITS_WAY)).then_some(())
        })
        .await;
        for path in &paths {
            assert_eq!(origin.count_of(path), 1, "{path}: from {}", tier.name());
        }
        drop(clients);
        gateway.metric_until(HELD, &[], |held| held == 0.0).await;
    }
}
