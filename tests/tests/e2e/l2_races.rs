//! 10,000 seeded races of purges, hard and soft, against loads, promotions and writes over
//! two nodes and one Redis: nothing that was purged is seen again, here, there, or after a
//! restart.
//!
//! A race bumps a page's version at the origin and purges it on either node, with reads of
//! both racing it. The node that acknowledged knows the purge at once; the other one once
//! it says that it applied the purge's number. From then on a version from before a hard
//! purge may not be seen there, and one from before a soft purge only as a stale copy.
//! Half of the pages leave L1 after milliseconds, so that most reads of them are
//! promotions; in the second half of the races one node has no leases, so that its loads
//! are written behind; some pages have variants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use e2e::client::Client;
use e2e::gateway::Gateway;
use e2e::origin::{Asked, Origin};
use e2e::random::Random;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, within};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

const RACES: u64 = 10_000;
const WORKERS: u64 = 100;
const PAGES: usize = 300;
const HOST: &str = "site.example";
/// Between two looks at how far a node has applied the purge log.
const LOOK: Duration = Duration::from_millis(200);

/// What the origin says, and what may be seen where.
struct OriginVersions {
    /// The version of each page.
    current: Vec<AtomicU64>,
    /// The least that each node may show of each page: at all, and as fresh.
    hard: [Vec<AtomicU64>; 2],
    soft: [Vec<AtomicU64>; 2],
    checked: AtomicU64,
    stale: AtomicU64,
}

/// Two running gateways.
struct RacingNodes {
    gateways: [Gateway; 2],
    clients: [Client; 2],
    /// The newest purge that each has applied, as it says.
    applied: [watch::Sender<u64>; 2],
}

impl OriginVersions {
    fn new() -> Self {
        let numbers = || (0..PAGES).map(|_| AtomicU64::new(0)).collect();
        Self {
            current: numbers(),
            hard: [numbers(), numbers()],
            soft: [numbers(), numbers()],
            checked: AtomicU64::new(0),
            stale: AtomicU64::new(0),
        }
    }

    /// Every purge is in the log, so whoever has read the log knows all of them.
    fn all_know(&self) {
        for floors in [&self.hard, &self.soft] {
            for (one, other) in floors[0].iter().zip(&floors[1]) {
                let most = one.load(Ordering::SeqCst).max(other.load(Ordering::SeqCst));
                one.store(most, Ordering::SeqCst);
                other.store(most, Ordering::SeqCst);
            }
        }
    }

    fn raise(&self, node: usize, page: usize, version: u64, soft: bool) {
        let floors = if soft { &self.soft } else { &self.hard };
        floors[node][page].store(version, Ordering::SeqCst);
    }
}

/// Half of the pages stay in L1 for milliseconds.
fn path(page: usize) -> String {
    match page % 2 {
        0 => format!("/page/{page}"),
        _ => format!("/brief/{page}"),
    }
}

fn url(page: usize) -> String {
    format!("http://{HOST}{}", path(page))
}

/// Reads the version when the request comes in, then dawdles, so that loads from before a
/// purge end after it.
async fn answer(world: Arc<OriginVersions>, asked: Asked) -> Reply {
    let page: usize = asked.seen.path.rsplit('/').next().unwrap().parse().unwrap();
    let version = world.current[page].load(Ordering::SeqCst);
    let mut random = Random::new(version << 16 | page as u64);
    for _ in 0..random.below(40) {
        tokio::task::yield_now().await;
    }
    let reply = Reply::ok(version.to_string())
        .header("cache-control", "max-age=600")
        .header("surrogate-key", &format!("page-{page}"));
    match page % 5 {
        0 => reply.header("vary", "accept-language"),
        _ => reply,
    }
}

impl RacingNodes {
    async fn start(origin: &Origin, redis: &Redis, leases: [bool; 2]) -> Self {
        let [one, other] = leases.map(|lease| {
            let l2 = format!(
                "{{redis: {{url: \"{}\"}}, read_timeout: 10s, write_timeout: 10s, \
                  breaker: {{failure_threshold: 0}}, lease: {{enabled: {lease}}}}}",
                redis.url()
            );
            Setup::new(origin)
                .top("cache", &format!("{{l2: {l2}}}"))
                .top("telemetry", "{access_log: off}")
                .top("purge_method", "{enabled: true, allow: [\"127.0.0.0/8\"]}")
                .route("{name: brief, match: {path: /brief/*}, upstream: origin, policy: {mode: override, ttl: 600s, l1: {ttl: 10ms}}}")
                .route("{name: page, upstream: origin}")
        });
        let gateways = [one.start().await, other.start().await];
        let clients = [gateways[0].client(), gateways[1].client()];
        Self {
            gateways,
            clients,
            applied: Default::default(),
        }
    }

    /// Keeps `applied` up to date, for ever.
    async fn follow(&self) -> std::convert::Infallible {
        loop {
            for (gateway, applied) in self.gateways.iter().zip(&self.applied) {
                let number = gateway.metric("lamina_l2_purge_log_number", &[]).await;
                applied.send_replace(number as u64);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a node has applied this purge.
    async fn heard(&self, node: usize, number: u64) {
        let mut applied = self.applied[node].subscribe();
        let heard = applied.wait_for(|applied| *applied >= number);
        within("the purge is applied", SOON * 2, heard)
            .await
            .unwrap();
    }

    /// Purges, until the log has it; its number.
    async fn purge(&self, node: usize, purge: &Value) -> u64 {
        wait_for("the purge is in the log", SOON * 2, || async {
            self.gateways[node].purge(purge.clone()).await["l2"]["number"].as_u64()
        })
        .await
    }

    async fn purge_by_method(&self, node: usize, page: usize, soft: bool) {
        let purge = Method::from_bytes(b"PURGE").unwrap();
        let client = self.clients[node].clone().uncached();
        let ask = client.ask(purge, &path(page)).host(HOST);
        let ask = ask.header("x-purge", if soft { "soft" } else { "hard" });
        assert_eq!(ask.send().await.status, 200);
    }

    async fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let [one, other] = &self.gateways;
        one.metric(name, labels).await + other.metric(name, labels).await
    }
}

/// One race after the other on pages of a worker's own, so that one task raises a floor.
struct RaceWorker {
    nodes: Arc<RacingNodes>,
    world: Arc<OriginVersions>,
    random: Random,
    pages: Vec<usize>,
}

impl RaceWorker {
    fn new(nodes: &Arc<RacingNodes>, world: &Arc<OriginVersions>, seed: u64, number: u64) -> Self {
        Self {
            nodes: Arc::clone(nodes),
            world: Arc::clone(world),
            random: Random::new(seed << 32 | number),
            pages: (0..PAGES)
                .filter(|page| *page as u64 % WORKERS == number)
                .collect(),
        }
    }

    async fn race(&mut self) {
        let page = self.pages[self.random.below(self.pages.len() as u64) as usize];
        let (near, soft) = (self.random.below(2) as usize, self.random.below(4) == 0);
        let mut racing = Vec::new();
        for _ in 0..self.random.below(3) {
            let node = self.random.below(2) as usize;
            racing.push(tokio::spawn(self.read(node, page)));
        }
        for _ in 0..self.random.below(30) {
            tokio::task::yield_now().await;
        }
        let version = self.world.current[page].fetch_add(1, Ordering::SeqCst) + 1;
        let mut purge = self.selector(page, soft);
        if self.random.below(2) == 0 {
            // The method is answered before the log has the purge.
            self.nodes.purge_by_method(near, page, soft).await;
            purge = json!({"url": url(page), "soft": soft});
            self.world.raise(near, page, version, soft);
            self.read(near, page).await;
        }
        let number = self.nodes.purge(near, &purge).await;
        self.world.raise(near, page, version, soft);
        self.read(near, page).await;
        let far = 1 - near;
        let late = tokio::spawn(self.read(far, page));
        self.nodes.heard(far, number).await;
        self.world.raise(far, page, version, soft);
        self.read(far, page).await;
        for read in racing.into_iter().chain([late]) {
            read.await.unwrap();
        }
        if soft {
            self.refreshed(near, page, version).await;
            self.refreshed(far, page, version).await;
        }
    }

    /// What the node may not show is looked up before it is asked.
    fn read(&mut self, node: usize, page: usize) -> impl Future<Output = u64> + Send + use<> {
        let (nodes, world) = (Arc::clone(&self.nodes), Arc::clone(&self.world));
        let language = ["de", "fr"][self.random.below(2) as usize];
        async move {
            let floor = |floors: &[Vec<AtomicU64>; 2]| floors[node][page].load(Ordering::SeqCst);
            let (hard, soft) = (floor(&world.hard), floor(&world.soft));
            let path = path(page);
            let ask = nodes.clients[node].request(&path).host(HOST);
            let answer = ask.header("accept-language", language).send().await;
            let seen: u64 = answer.text().parse().unwrap();
            let cache = answer.cache();
            assert!(
                seen >= hard,
                "{path} on node {node}: {seen} after {hard} was acknowledged: {cache:?}"
            );
            if seen < soft {
                world.stale.fetch_add(1, Ordering::SeqCst);
                assert_eq!(
                    cache.detail.as_deref(),
                    Some("revalidating"),
                    "{path} on node {node}: {seen} as fresh after {soft} was acknowledged: {cache:?}"
                );
            }
            world.checked.fetch_add(1, Ordering::SeqCst);
            seen
        }
    }

    /// Waits until a soft purge has led to a new copy.
    async fn refreshed(&mut self, node: usize, page: usize, version: u64) {
        wait_for("the page is refreshed", SOON * 2, || {
            let seen = self.read(node, page);
            async move { (seen.await >= version).then_some(()) }
        })
        .await;
    }

    fn selector(&mut self, page: usize, soft: bool) -> Value {
        let mut purge = match self.random.below(64) {
            0 => json!({"all": true}),
            1 => json!({"route": if page.is_multiple_of(2) { "page" } else { "brief" }}),
            2..10 => json!({"pattern": format!("http://{HOST}/*/{page}")}),
            10..18 => json!({"prefix": url(page)}),
            18..42 => json!({"url": url(page)}),
            _ => json!({"tag": format!("page-{page}")}),
        };
        purge["soft"] = soft.into();
        purge
    }
}

/// Races on nodes with cold L1s, which may show nothing old from the beginning.
async fn races(nodes: &Arc<RacingNodes>, world: &Arc<OriginVersions>, seed: u64, races: u64) {
    let workers = (0..WORKERS).map(|number| {
        let mut worker = RaceWorker::new(nodes, world, seed, number);
        tokio::spawn(async move {
            for _ in 0..races / WORKERS {
                worker.race().await;
            }
        })
    });
    let all = within("all races", Duration::from_secs(900), join_all(workers));
    tokio::select! {
        ended = all => ended.into_iter().for_each(|worker| worker.unwrap()),
        never = nodes.follow() => match never {},
    }
}

/// Every page once on each node.
async fn look_at_all(nodes: &Arc<RacingNodes>, world: &Arc<OriginVersions>) {
    // So that the log is not empty, and has a number to wait for.
    nodes.purge(0, &json!({"tag": "nothing"})).await;
    for node in 0..2 {
        nodes.gateways[node]
            .metric_until("lamina_l2_purge_log_number", &[], |number| number > 0.0)
            .await;
        let mut worker = RaceWorker::new(nodes, world, 0, 0);
        join_all((0..PAGES).map(|page| worker.read(node, page))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_is_seen_on_no_node_again_whatever_raced_the_purge() {
    let redis = Redis::start().await;
    let world = Arc::new(OriginVersions::new());
    let origin = {
        let world = Arc::clone(&world);
        Origin::start(move |asked| answer(Arc::clone(&world), asked)).await
    };
    for (seed, leases) in [(1, [true, true]), (2, [true, false])] {
        let nodes = Arc::new(RacingNodes::start(&origin, &redis, leases).await);
        look_at_all(&nodes, &world).await;
        races(&nodes, &world, seed, RACES / 2).await;
        for outcome in ["hit", "miss"] {
            let labels = [("tier", "l2"), ("result", outcome)];
            assert!(nodes.sum("lamina_cache_lookups_total", &labels).await > 100.0);
        }
        let stored = nodes.sum("lamina_l2_writes_total", &[("outcome", "stored")]);
        assert!(stored.await > 100.0);
        world.all_know();
    }
    let nodes = Arc::new(RacingNodes::start(&origin, &redis, [true, true]).await);
    look_at_all(&nodes, &world).await;
    let below = [("tier", "l2"), ("result", "hit")];
    assert!(nodes.sum("lamina_cache_lookups_total", &below).await > 0.0);
    let count = |of: &AtomicU64| of.load(Ordering::SeqCst);
    assert!(
        count(&world.checked) >= 3 * RACES,
        "each race was looked at"
    );
    assert!(count(&world.stale) > 0, "soft purges left stale copies");
}
