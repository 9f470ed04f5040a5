//! Automatic certificates of several nodes: one orders, all serve and answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::pebble::{Pebble, PebbleOptions};
use e2e::places::PLACES;
use e2e::redis::Redis;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use futures_util::future::join_all;
use lamina_base::redis::RedisConnectionSettings;
use lamina_edge::acme::AcmeRedisSettings;
use lamina_edge::acme::storage::redis::AcmeRedis;
use lamina_edge::acme::storage::{
    AcmeLease, AcmeRecordKey, AcmeRecordKind, AcmeStorage, AcmeStorageError,
};

use crate::acme::{SHOP, Wanted, obtained, page};
use crate::acme_failures::slow_validation;

/// Nodes at 127.0.0.1, 127.0.0.2, … that share a storage.
struct Nodes {
    nodes: Vec<Gateway>,
    pebble: Pebble,
}

impl Nodes {
    /// `storage` is what `acme` says of it; the issuer has these further keys.
    async fn start(
        count: u8,
        (pebble, origin): (Pebble, &Origin),
        issuer: &str,
        change: impl Fn(Setup) -> Setup,
    ) -> Self {
        let _places = PLACES.reserve(count.into()).await;
        let wanted = Wanted::default();
        let mut nodes = Vec::new();
        for n in 1..=count {
            let listeners = wanted.listeners(&format!("127.0.0.{n}"), &pebble, "pebble");
            let acme = format!(
                "{{storage: STORE, lease: 2s, poll_interval: 200ms, retry: {{min: 1s, max: 2s}}, issuers: {{pebble: {}}}}}",
                pebble.issuer(issuer)
            );
            let setup = Setup::new(origin).top("listeners", &listeners);
            nodes.push(change(setup.top("acme", &acme)).start().await);
        }
        Self { nodes, pebble }
    }

    fn secured(&self, n: usize) -> SocketAddr {
        let last = u8::try_from(n + 1).unwrap();
        SocketAddr::from(([127, 0, 0, last], self.pebble.tls_port))
    }

    /// Waits until all of them show the same certificate. Returns for how long after the first one
    /// the last one did not.
    async fn all_serve(&self) -> Duration {
        let serve = (0..self.nodes.len()).map(|n| async move {
            let shown = obtained(&self.pebble, self.secured(n), SHOP).await;
            (Instant::now(), shown)
        });
        let shown = join_all(serve).await;
        assert!(
            shown.iter().all(|one| one.1 == shown[0].1),
            "one certificate"
        );
        let times = shown.iter().map(|one| one.0);
        times.clone().max().unwrap() - times.min().unwrap()
    }
}

/// Puts the storage into a Redis.
fn in_redis(redis: &Redis, setup: Setup) -> Setup {
    let cache = format!("{{l2: {{redis: {{url: \"{}\"}}}}}}", redis.url());
    let stored = "storage: redis, seal_key: 0123456789abcdef0123456789abcdef";
    setup
        .replaced("acme", "storage: STORE", stored)
        .top("cache", &cache)
}

/// Waits until a storage can be used.
async fn usable(redis: &Redis) -> AcmeRedis {
    let settings = RedisConnectionSettings {
        url: &redis.url(),
        service: "mymaster",
        username: None,
        password: None,
        sentinel_username: None,
        sentinel_password: None,
        ca_file: None,
        connect_timeout: SOON,
        silence_timeout: SOON,
        reconnect_max: Duration::from_secs(1),
    };
    let settings = AcmeRedisSettings::new(&settings, "lamina:".to_owned()).unwrap();
    let storage = AcmeRedis::open(settings, "0123456789abcdef0123456789abcdef").unwrap();
    wait_for("the storage is connected", SOON, || async {
        storage.version().await.ok()
    })
    .await;
    storage
}

/// A node that was asleep for longer than its lease, and does not know it.
#[tokio::test]
async fn a_former_owner_of_a_lease_in_redis_writes_nothing() {
    const LONG: Duration = Duration::from_secs(60);
    let redis = Redis::start().await;
    let (first, second) = (usable(&redis).await, usable(&redis).await);
    let lease = first.acquire("c", LONG).await.unwrap().unwrap();
    assert_eq!(second.acquire("c", LONG).await, Ok(None));
    let key = AcmeRecordKey::new(AcmeRecordKind::Certificate, "c");
    let write = async |storage: &AcmeRedis, record: &str, lease: &AcmeLease| {
        let record = record.as_bytes().to_vec();
        storage.write(&key, record, None, Some(lease)).await
    };
    assert_eq!(write(&first, "first", &lease).await, Ok(()));
    assert_eq!(
        first.renew(&lease, Duration::from_millis(1)).await,
        Ok(true)
    );
    let taken = wait_for("the lease is over", SOON, || async {
        second.acquire("c", LONG).await.unwrap()
    })
    .await;
    assert_eq!(taken.number, lease.number + 1, "the fence is higher");
    assert_eq!(first.renew(&lease, LONG).await, Ok(false));
    let late = write(&first, "late", &lease).await;
    assert_eq!(late, Err(AcmeStorageError::LeaseLost));
    // Neither does it give back what another one has.
    first.release(&lease).await.unwrap();
    assert_eq!(first.acquire("c", LONG).await, Ok(None));
    assert_eq!(first.read(&key).await, Ok(Some(b"first".to_vec())));
    assert_eq!(write(&second, "second", &taken).await, Ok(()));
    assert_eq!(first.read(&key).await, Ok(Some(b"second".to_vec())));
    second.release(&taken).await.unwrap();
    let again = first.acquire("c", LONG).await.unwrap().unwrap();
    assert_eq!(again.number, taken.number + 1);
}

#[tokio::test]
async fn five_nodes_order_once_and_all_serve_and_answer() {
    let (origin, pebble, redis) = (page().await, Pebble::start().await, Redis::start().await);
    let nodes = Nodes::start(5, (pebble, &origin), "", |setup| in_redis(&redis, setup)).await;
    let late = nodes.all_serve().await;
    assert!(
        late < Duration::from_secs(5),
        "the last one was late by {late:?}"
    );
    assert_eq!((nodes.pebble.orders(), nodes.pebble.accounts()), (1, 1));
    // The name is at the first node, whoever has ordered.
    let keys = redis.cli(&["KEYS", "lamina:{acme}:*"]).await;
    assert!(keys.contains("certificates/"), "{keys}");
    for key in keys.lines().filter(|key| !key.contains("/leases/")) {
        let value = redis.cli(&["GET", key]).await;
        assert!(
            !value.contains("PRIVATE") && !value.contains("directory"),
            "{key}"
        );
    }
}

/// The name of the second node is at the first one, which wants another certificate.
async fn answered_by_another_node(issuer: &str) {
    let (origin, pebble, redis) = (page().await, Pebble::start().await, Redis::start().await);
    let _places = PLACES.reserve(2).await;
    let mut nodes = Vec::new();
    for (address, name) in [("127.0.0.1", "other.acme.test"), ("127.0.0.2", SHOP)] {
        let wanted = Wanted {
            names: &[name],
            ..Wanted::default()
        };
        let acme = format!(
            "{{storage: STORE, poll_interval: 200ms, issuers: {{pebble: {}}}}}",
            pebble.issuer(issuer)
        );
        let listeners = wanted.listeners(address, &pebble, "pebble");
        let setup = Setup::new(&origin).top("listeners", &listeners);
        let node = in_redis(&redis, setup.top("acme", &acme)).start().await;
        let server = format!("{address}:{}", pebble.tls_port).parse().unwrap();
        obtained(&pebble, server, name).await;
        nodes.push(node);
    }
    assert_eq!((pebble.orders(), pebble.accounts()), (2, 1));
    let answered = nodes[0].log();
    let own = nodes[1].log();
    let is_challenge = |line: &&String| line.contains("/.well-known/acme-challenge/");
    assert_eq!(own.iter().filter(is_challenge).count(), 0);
    if !issuer.contains("tls-alpn-01") {
        assert!(
            answered
                .iter()
                .any(|line| line.contains(SHOP) && is_challenge(&line))
        );
    }
}

#[tokio::test]
async fn any_node_answers_http_01() {
    answered_by_another_node("").await;
}

#[tokio::test]
async fn any_node_answers_tls_alpn_01() {
    answered_by_another_node(", challenge: tls-alpn-01").await;
}

#[tokio::test]
async fn another_node_goes_on_with_the_order_of_one_that_was_killed() {
    let (origin, redis) = (page().await, Redis::start().await);
    let pebble = Pebble::start_with(PebbleOptions {
        environment: slow_validation(),
        ..PebbleOptions::default()
    })
    .await;
    let mut nodes = Nodes::start(3, (pebble, &origin), "", |setup| in_redis(&redis, setup)).await;
    let ordered = |node: &Gateway| {
        let log = node.log();
        log.iter()
            .any(|line| line.contains("a certificate is ordered"))
    };
    let leader = wait_for("somebody orders", SOON, || async {
        nodes.nodes.iter().position(ordered)
    })
    .await;
    // The name must be at one that lives, and nobody looks for the answer meanwhile.
    let other = (leader + 1) % 3 + 1;
    let address = format!("127.0.0.{other}");
    nodes.pebble.name_is_at(SHOP, &address).await;
    nodes.pebble.freeze();
    nodes.nodes[leader].kill();
    nodes.pebble.thaw();
    let survivors = (0..3).filter(|n| *n != leader);
    for n in survivors {
        obtained(&nodes.pebble, nodes.secured(n), SHOP).await;
    }
    assert_eq!((nodes.pebble.orders(), nodes.pebble.accounts()), (1, 1));
    nodes.nodes.clear();
}

#[tokio::test]
async fn nodes_that_share_a_folder_order_once() {
    let (origin, pebble) = (page().await, Pebble::start().await);
    let store = tempfile::tempdir().unwrap();
    let folder = format!("storage: \"{}\"", store.path().join("acme").display());
    let nodes = Nodes::start(2, (pebble, &origin), "", |setup| {
        setup.replaced("acme", "storage: STORE", &folder)
    })
    .await;
    nodes.all_serve().await;
    assert_eq!((nodes.pebble.orders(), nodes.pebble.accounts()), (1, 1));
}

#[tokio::test]
async fn a_node_without_redis_serves_what_it_has() {
    let (origin, pebble, mut redis) = (page().await, Pebble::start().await, Redis::start().await);
    let nodes = Nodes::start(1, (pebble, &origin), "", |setup| in_redis(&redis, setup)).await;
    nodes.all_serve().await;
    redis.kill();
    nodes.nodes[0]
        .logged("it is told", |line| {
            line.contains("the storage of certificates is not connected")
        })
        .await;
    nodes.all_serve().await;
}
