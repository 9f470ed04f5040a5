//! A client that goes away while its answer is pending: what nobody else waits for, and
//! nothing can be stored of, ends with it, within a second, over each version of HTTP. One that
//! has only closed its side, having sent all, gets its answer.
//!
//! Hooks of requests and responses wait for nothing and run on the listener's own thread, so it
//! is their time limit that ends them; what would come after them ends with the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::h2raw;
use e2e::h3::{NAME, SecuredGateway};
use e2e::origin::Origin;
use e2e::process;
use e2e::raw::RawConnection;
use e2e::reply::{Pieces, Reply};
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_until, within};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

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

    fn count(&self) -> usize {
        self.given_up.load(Ordering::SeqCst)
    }

    async fn given_up(&self) {
        self.given_up_more_than(0).await;
    }

    async fn given_up_more_than(&self, before: usize) {
        wait_until("the origin's request is given up", SOON, || {
            self.count() > before
        })
        .await;
    }
}

/// Within this a client that goes away is noticed.
const STATED: Duration = Duration::from_secs(1);
/// How often that is timed; the best counts, on a machine that others use.
const TRIES: usize = 3;

/// Processor time by which a guest that loops is known.
const LOOPS: Duration = Duration::from_millis(100);

/// Asks, leaves once the origin holds the request back, and takes the time until that is given up,
/// some times.
async fn noticed_soon(held: &HeldRequests, origin: &Origin, leave: impl AsyncFn(usize)) {
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let (before, asked) = (held.count(), origin.count());
        // It returns when the client has left.
        leave(asked + 1).await;
        let left = Instant::now();
        held.given_up_more_than(before).await;
        times.push(left.elapsed());
    }
    let best = times.iter().min().unwrap();
    assert!(*best <= STATED, "{times:?}");
}

/// Past the cache; as a loader of a route without one; and for a key whose answers could not
/// be shared a moment ago.
const ROUTES: [&str; 3] = [
    "{name: site, upstream: origin, cache: off}",
    "{name: site, loader: {plugin: p}, cache: off}",
    "{name: site, upstream: origin}",
];

fn setup(origin: &Origin, route: &str) -> Setup {
    Setup::new(origin)
        .file("p.wasm", guest::built("web"))
        .top(
            "plugins",
            "{p: {file: p.wasm, fetch: [origin], limits: {load_timeout: 10m}}}",
        )
        .route(route)
}

async fn gateway(origin: &Origin, route: &str) -> Gateway {
    setup(origin, route).start().await
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
            noticed_soon(&held, &origin, async |nth| {
                let mut client = gateway.raw().await;
                client
                    .write(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
                    .await;
                origin.saw(nth).await;
                match reset {
                    true => client.reset(),
                    false => drop(client),
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn what_nobody_waits_for_ends_with_its_client_over_http2() {
    for route in ROUTES {
        for cancels in [true, false] {
            let held = HeldRequests::default();
            let origin = held.origin("no-store").await;
            let gateway = gateway(&origin, route).await;
            let path = path(route);
            if route == ROUTES[2] {
                held.release.notify_one();
                let warm = gateway.client().request(path).host("attacker.test").send();
                assert_eq!(warm.await.text(), "here it is");
            }
            noticed_soon(&held, &origin, async |nth| {
                let mut client = h2raw::H2::open(gateway.address).await;
                client.write(h2raw::get(1, path)).await;
                origin.saw(nth).await;
                match cancels {
                    // CANCEL, with the connection left open.
                    true => {
                        client.write(h2raw::reset(1, 8)).await;
                        std::mem::forget(client);
                    }
                    false => drop(client),
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn what_nobody_waits_for_ends_with_its_client_over_http3() {
    for route in ROUTES {
        for stops in [true, false] {
            let held = HeldRequests::default();
            let origin = held.origin("no-store").await;
            let secured = SecuredGateway::start(setup(&origin, route)).await;
            let path = path(route);
            if route == ROUTES[2] {
                held.release.notify_one();
                let client = secured.client().await;
                let warm = client.request(path).host(NAME).send();
                assert_eq!(warm.await.text(), "here it is");
            }
            noticed_soon(&held, &origin, async |nth| {
                let client = secured.client().await;
                let mut exchange = client.request(path).host(NAME).open().await.unwrap();
                exchange.upload.finish().await;
                origin.saw(nth).await;
                match stops {
                    // STOP_SENDING, with the connection left open.
                    true => {
                        exchange.download.stop();
                        std::mem::forget(client);
                    }
                    false => client.connection.close(0x100_u32.into(), b""),
                }
            })
            .await;
        }
    }
}

/// An origin whose answers have this field and a body that the test gives in pieces.
async fn streams_with(
    name: &'static str,
    value: &'static str,
) -> (Origin, UnboundedReceiver<Pieces>) {
    let (give, given) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_| {
        let give = give.clone();
        async move {
            let (reply, pieces) = Reply::stream();
            give.send(pieces).unwrap();
            reply.header(name, value)
        }
    });
    (origin.await, given)
}

/// A load that two read and that has become too large to be stored, of an origin that has
/// nothing more to say for now. Who has only closed its side may want the rest, and in the middle
/// of an answer it can't be asked.
#[tokio::test]
async fn a_shared_load_ends_when_the_last_of_those_who_read_it_leaves() {
    const SOME: usize = 1_000;
    let mut times = Vec::new();
    for _ in 0..TRIES {
        let (origin, mut given) = streams_with("cache-control", "max-age=60").await;
        let gateway = Setup::new(&origin)
            .top("cache", "{l1: {max_object_bytes: 256KiB}}")
            .route("{name: site, upstream: origin}")
            .start()
            .await;
        let ask = "GET /large HTTP/1.1\r\nHost: a.example\r\n\r\n";
        let mut readers = [gateway.raw().await, gateway.raw().await];
        readers[0].write(ask).await;
        let pieces = given.recv().await.unwrap();
        assert!(pieces.send(vec![b'.'; SOME]).await);
        readers[0].until(&[b'.'; SOME]).await;
        readers[1].write(ask).await;
        readers[1].until(&[b'.'; SOME]).await;
        assert_eq!(origin.count(), 1, "they share it");
        // In pieces, so that neither falls behind what is kept for it.
        for piece in 0..10 {
            let end = format!("END{piece}");
            assert!(pieces.send(format!("{:!<30000}{end}", "")).await);
            for reader in &mut readers {
                reader.until(end.as_bytes()).await;
            }
        }
        let [first, mut last] = readers;
        first.reset();
        assert!(pieces.send("LAST").await, "one reads it still");
        last.until(b"LAST").await;
        assert!(!pieces.is_abandoned());
        last.reset();
        let left = Instant::now();
        within("the load is given up", SOON, pieces.abandoned()).await;
        times.push(left.elapsed());
    }
    let best = times.iter().min().unwrap();
    assert!(*best <= STATED, "{times:?}");
}

/// An answer of which a part has come, and whose origin has nothing more to say for now, as an event
/// stream: no write would show that its client has stopped it.
#[tokio::test]
async fn a_silent_answer_ends_with_the_client_that_stops_it_over_http2_and_http3() {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..TRIES {
        let (origin, mut given) = streams_with("content-type", "text/event-stream").await;
        let gateway = gateway(&origin, ROUTES[0]).await;
        let mut client = h2raw::H2::open(gateway.address).await;
        client.write(h2raw::get(1, "/events")).await;
        let pieces = given.recv().await.unwrap();
        assert!(pieces.send("data: 1\n\n").await);
        while client.arrived().await.unwrap().kind != h2raw::kind::DATA {}
        client.write(h2raw::reset(1, h2raw::code::CANCEL)).await;
        let left = Instant::now();
        within("HTTP/2: it is given up", SOON, pieces.abandoned()).await;
        times[0].push(left.elapsed());

        let secured = SecuredGateway::start(setup(&origin, ROUTES[0])).await;
        let client = secured.client().await;
        let mut exchange = client.request("/events").host(NAME).open().await.unwrap();
        exchange.upload.finish().await;
        let pieces = given.recv().await.unwrap();
        assert!(pieces.send("data: 1\n\n").await);
        exchange.download.head().await.unwrap();
        exchange.download.piece().await.unwrap();
        exchange.download.stop();
        let left = Instant::now();
        within("HTTP/3: it is given up", SOON, pieces.abandoned()).await;
        times[1].push(left.elapsed());
        drop(client);
    }
    for times in &times {
        assert!(*times.iter().min().unwrap() <= STATED, "{times:?}");
    }
}

/// The hook of the request ends by its time, and not by its client; but what it would have led to
/// is not begun, or ends.
#[tokio::test]
async fn what_comes_after_a_hook_ends_with_the_client_that_left_during_it() {
    let held = HeldRequests::default();
    let origin = held.origin("no-store").await;
    let limits = "limits: {hook_timeout: 700ms}, on_error: {request: continue}";
    let gateway = Setup::new(&origin)
        .file("asker.wasm", guest::built("asker"))
        .top(
            "plugins",
            &format!("{{p: {{file: asker.wasm, config: {{rules: {{/held: {{loop: true}}}}}}, quarantine: {{failures: 0}}, {limits}}}}}"),
        )
        .route("{name: site, upstream: origin, cache: off, request: {plugin: p}}")
        .start()
        .await;
    let calls = [("plugin", "p"), ("outcome", "timeout")];
    for nth in 1..=TRIES {
        let worked = process::cpu(gateway.process_id());
        let mut client = gateway.raw().await;
        client
            .write("GET /held HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .await;
        wait_until("the hook loops", SOON, || {
            process::cpu(gateway.process_id()) - worked >= LOOPS
        })
        .await;
        client.reset();
        gateway
            .metric_until("lamina_plugin_calls_total", &calls, |n| n >= nth as f64)
            .await;
    }
    wait_until("nothing is under way", SOON, || {
        held.count() == origin.count()
    })
    .await;
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
