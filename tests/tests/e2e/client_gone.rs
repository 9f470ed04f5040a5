//! A client that goes away while its answer is pending: what nobody else waits for, and
//! nothing can be stored of, ends with it. One that has only closed its side, having sent all,
//! gets its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::h2raw;
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_until};
use tokio::sync::Notify;

/// Requests that an origin holds back until it is told, or until nobody waits for them.
#[derive(Clone, Default)]
struct HeldRequests {
    given_up: Arc<AtomicUsize>,
    release: Arc<Notify>,
}

/// Counts itself when it is dropped before its answer.
struct PendingAnswer(Option<Arc<AtomicUsize>>);

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        if let Some(count) = self.0.take() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl HeldRequests {
    /// An origin that holds `/held` back; what it says of storing its pages is given.
    async fn origin(&self, cache_control: &'static str) -> Origin {
        let held = self.clone();
        Origin::start(move |asked| {
            let held = held.clone();
            async move {
                if asked.seen.path.starts_with("/held") {
                    let mut pending = PendingAnswer(Some(Arc::clone(&held.given_up)));
                    held.release.notified().await;
                    pending.0 = None;
                }
                Reply::ok("here it is").header("cache-control", cache_control)
            }
        })
        .await
    }

    async fn given_up(&self) {
        wait_until("the origin's request is given up", SOON, || {
            self.given_up.load(Ordering::SeqCst) > 0
        })
        .await;
    }
}

/// Past the cache; as a loader of a route without one; and for a key whose answers could not
/// be shared a moment ago.
const ROUTES: [&str; 3] = [
    "{name: site, upstream: origin, cache: off}",
    "{name: site, loader: {plugin: p}, cache: off}",
    "{name: site, upstream: origin}",
];

async fn gateway(origin: &Origin, route: &str) -> Gateway {
    Setup::new(origin)
        .file("p.wasm", guest::built("web"))
        .top(
            "plugins",
            "{p: {file: p.wasm, fetch: [origin], limits: {load_timeout: 10m}}}",
        )
        .route(route)
        .start()
        .await
}

/// The path whose answer the origin holds back, as this route gets there.
fn path(route: &str) -> &'static str {
    match route.contains("loader") {
        true => "/fetch?http://origin/held",
        false => "/held",
    }
}

#[tokio::test]
async fn what_nobody_waits_for_ends_with_its_client_over_http1() {
    for route in ROUTES {
        for reset in [true, false] {
            let held = HeldRequests::default();
            let origin = held.origin("no-store").await;
            let gateway = gateway(&origin, route).await;
            let path = path(route);
            if route == ROUTES[2] {
                held.release.notify_one();
                let warm = gateway.client().request(path).host("a.example").send();
                assert_eq!(warm.await.text(), "here it is");
            }
            let before = origin.count();
            let mut client = gateway.raw().await;
            client
                .write(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
                .await;
            origin.saw(before + 1).await;
            match reset {
                true => client.reset(),
                false => drop(client),
            }
            held.given_up().await;
        }
    }
}

#[tokio::test]
async fn what_nobody_waits_for_ends_with_its_client_over_http2() {
    for route in ROUTES {
        let held = HeldRequests::default();
        let origin = held.origin("no-store").await;
        let gateway = gateway(&origin, route).await;
        let path = path(route);
        if route == ROUTES[2] {
            held.release.notify_one();
            let warm = gateway.client().request(path).host("attacker.test").send();
            assert_eq!(warm.await.text(), "here it is");
        }
        let before = origin.count();
        let mut client = h2raw::H2::open(gateway.address).await;
        client.write(h2raw::get(1, path)).await;
        origin.saw(before + 1).await;
        // CANCEL, with the connection left open.
        client.write(h2raw::reset(1, 8)).await;
        held.given_up().await;
    }
}

#[tokio::test]
async fn a_load_that_may_be_stored_goes_on_without_its_client() {
    let held = HeldRequests::default();
    let origin = held.origin("max-age=60").await;
    let gateway = Setup::new(&origin)
        .route("{name: live, match: {path: /held/live}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}")
        .start()
        .await;
    let leave = async |path: &str, nth| {
        let mut client = gateway.raw().await;
        client
            .write(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
            .await;
        origin.saw(nth).await;
        client.reset();
    };
    leave("/held", 1).await;
    leave("/held/live", 2).await;
    // Who left later has been seen to go.
    held.given_up().await;
    held.release.notify_one();
    gateway
        .metric_until("lamina_cache_entries", &[("tier", "l1")], |n| n == 1.0)
        .await;
    let asked = gateway.client().request("/held").host("a.example");
    assert!(asked.send().await.is_hit());
    assert_eq!(held.given_up.load(Ordering::SeqCst), 1);
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_alone_gets_its_answer() {
    for route in ROUTES {
        let held = HeldRequests::default();
        let origin = held.origin("no-store").await;
        let gateway = gateway(&origin, route).await;
        let path = path(route);
        let mut client: RawConnection = gateway.raw().await;
        client
            .write(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
            .await;
        origin.saw(1).await;
        client.finish().await;
        // It is asked whether it is there, and is.
        assert_eq!(client.head().await.status, 100);
        held.release.notify_one();
        assert_eq!(client.head().await.status, 200);
        client.until(b"here it is").await;
        assert_eq!(held.given_up.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn a_client_of_http10_is_asked_nothing() {
    let held = HeldRequests::default();
    let origin = held.origin("no-store").await;
    let gateway = gateway(&origin, ROUTES[0]).await;
    let mut client = gateway.raw().await;
    client
        .write("GET /held HTTP/1.0\r\nHost: a.example\r\n\r\n")
        .await;
    origin.saw(1).await;
    client.finish().await;
    // Another one that leaves later is noticed, so this one has been looked at.
    let mut other = gateway.raw().await;
    other
        .write("GET /held HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    origin.saw(2).await;
    drop(other);
    held.given_up().await;
    assert!(client.is_silent());
    held.release.notify_one();
    assert_eq!(client.head().await.status, 200);
}
