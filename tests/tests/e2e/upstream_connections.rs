//! How many connections to origins are said to stand, in whatever way they end, and that requests on
//! those that ended are not repeated without bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

async fn before(targets: &[&str], more: &str) -> Gateway {
    let targets = targets.join(", ");
    Setup::default()
        .upstream("shop", &format!("{{targets: [{targets}]{more}}}"))
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await
}

async fn connections(gateway: &Gateway) -> (f64, f64) {
    let scrape = gateway.scrape().await;
    let of = |state| {
        let labels = [("upstream", "shop"), ("state", state)];
        scrape.sum("lamina_upstream_connections", &labels)
    };
    (of("active"), of("idle"))
}

async fn connections_until(gateway: &Gateway, what: &str, wanted: impl Fn(f64, f64) -> bool) {
    wait_for(what, SOON, || async {
        let (active, idle) = connections(gateway).await;
        wanted(active, idle).then_some(())
    })
    .await;
}

async fn gets(gateway: &Gateway, count: usize, path: &str) -> JoinSet<u16> {
    let client = gateway.client().uncached();
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let (client, path) = (client.clone(), path.to_owned());
        asked.spawn(async move { client.get(&path).await.status.as_u16() });
    }
    asked
}

#[tokio::test]
async fn connections_are_counted_while_they_work_while_they_rest_and_no_longer() {
    for protocol in ["http1", "http2"] {
        let gate = Gate::new();
        let held = gate.clone();
        let mut origin = Origin::start(move |_| {
            let held = held.clone();
            async move {
                held.pass().await;
                Reply::ok("page")
            }
        })
        .await;
        // A connection for each request over HTTP/2, too.
        let more = format!(", protocol: {protocol}, pool: {{max_streams: 1}}");
        let gateway = before(&[&origin.url()], &more).await;
        assert_eq!(connections(&gateway).await, (0.0, 0.0), "{protocol}");
        let asked = gets(&gateway, 10, "/").await;
        gate.reached_by(10).await;
        assert_eq!(connections(&gateway).await, (10.0, 0.0), "{protocol}");
        gate.open();
        assert_eq!(asked.join_all().await, vec![200; 10]);
        connections_until(&gateway, "all rest", |active, idle| {
            (active, idle) == (0.0, 10.0)
        })
        .await;
        assert_eq!(origin.open_connections(), 10);
        origin.stop().await;
        connections_until(&gateway, "none is left", |active, idle| {
            active + idle == 0.0
        })
        .await;
    }
}

/// An origin whose connections end as the path says.
async fn ending() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(end_as_asked(stream));
        }
    });
    url
}

/// The head of a request. None: the connection has ended.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&read).into_owned())
}

async fn end_as_asked(mut stream: TcpStream) {
    while let Some(head) = head(&mut stream).await {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answer: &[u8] = match path {
            "/reset" => {
                let _ = stream.set_zero_linger();
                return;
            }
            "/closed" => return,
            // Until the gateway gives up.
            "/timeout" => {
                let _ = stream.read_u8().await;
                return;
            }
            "/cut" => {
                let part = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart";
                let _ = stream.write_all(part).await;
                return;
            }
            "/nonsense" => b"nonsense\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn of_a_thousand_connections_that_ended_in_all_ways_none_is_left() {
    const WAYS: [&str; 6] = [
        "/reset",
        "/closed",
        "/timeout",
        "/cut",
        "/nonsense",
        "/gone",
    ];
    const AT_ONCE: usize = 20;
    let url = ending().await;
    let more = ", timeouts: {first_byte: 100ms}, health: {passive: {failures: 0}}";
    let gateway = before(&[&url], more).await;
    let mut ended = 0;
    while ended < 1_020 {
        for way in WAYS {
            let mut asked = JoinSet::new();
            for _ in 0..AT_ONCE {
                let client = gateway.client().uncached();
                let address = gateway.address;
                asked.spawn(async move {
                    if way == "/gone" {
                        // The client leaves when its request is on its way.
                        let mut stream = TcpStream::connect(address).await.unwrap();
                        let request = b"GET /timeout HTTP/1.1\r\nhost: x\r\n\r\n";
                        stream.write_all(request).await.unwrap();
                        return;
                    }
                    // Most have no whole answer.
                    let _ = client.request(way).try_send().await;
                });
            }
            asked.join_all().await;
            ended += AT_ONCE;
        }
        assert_eq!(gets(&gateway, 4, "/").await.join_all().await, vec![200; 4]);
    }
    connections_until(&gateway, "none works", |active, _| active == 0.0).await;
    let (active, idle) = connections(&gateway).await;
    assert!(idle <= 64.0, "{active} {idle}");
}

#[tokio::test]
async fn connections_over_http2_that_were_cut_are_counted_no_longer() {
    let mut origin = Origin::start(|_| async { std::future::pending().await }).await;
    let more = ", protocol: http2, pool: {max_streams: 1}";
    let gateway = before(&[&origin.url()], more).await;
    for _ in 0..10 {
        let had = origin.count();
        let asked = gets(&gateway, 10, "/").await;
        origin.saw(had + 10).await;
        origin.stop().await;
        for status in asked.join_all().await {
            assert_eq!(status, 502);
        }
        origin.start_again().await;
    }
    connections_until(&gateway, "none is left", |active, idle| {
        active + idle == 0.0
    })
    .await;
}

/// Targets with kept connections that reset every request from a moment on.
struct ResettingTargets {
    urls: Vec<String>,
    fails: Arc<AtomicBool>,
    arrived: Arc<AtomicUsize>,
    gate: Gate,
}

impl ResettingTargets {
    async fn start(targets: usize) -> Self {
        let mut failing = Self {
            urls: Vec::new(),
            fails: Arc::default(),
            arrived: Arc::default(),
            gate: Gate::new(),
        };
        for _ in 0..targets {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            failing.urls.push(format!("http://{address}"));
            let (fails, arrived) = (failing.fails.clone(), failing.arrived.clone());
            let gate = failing.gate.clone();
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(fail_later(
                        stream,
                        fails.clone(),
                        arrived.clone(),
                        gate.clone(),
                    ));
                }
            });
        }
        failing
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }
}

async fn fail_later(
    mut stream: TcpStream,
    fails: Arc<AtomicBool>,
    arrived: Arc<AtomicUsize>,
    gate: Gate,
) {
    while head(&mut stream).await.is_some() {
        arrived.fetch_add(1, Ordering::SeqCst);
        if fails.load(Ordering::SeqCst) {
            let _ = stream.set_zero_linger();
            return;
        }
        gate.pass().await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// A request on each of them looks like one that met an origin which had just closed an idle
/// connection.
#[tokio::test]
async fn connections_that_stood_do_not_widen_the_budget_where_all_targets_fail() {
    const STANDING: usize = 60;
    const REQUESTS: usize = 150;
    let failing = ResettingTargets::start(3).await;
    let urls: Vec<_> = failing.urls.iter().map(String::as_str).collect();
    let began = Instant::now();
    let gateway = before(&urls, ", balance: {by: round_robin}").await;
    let asked = gets(&gateway, STANDING, "/").await;
    failing.gate.reached_by(STANDING).await;
    failing.gate.open();
    assert_eq!(asked.join_all().await, vec![200; STANDING]);
    connections_until(&gateway, "all rest", |active, idle| {
        active == 0.0 && idle == STANDING as f64
    })
    .await;
    failing.fails.store(true, Ordering::SeqCst);
    let client = gateway.client().uncached();
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/").await.status, 502);
    }
    let attempts = failing.arrived() as f64;
    let seconds = began.elapsed().as_secs_f64() + 1.0;
    let requests = (STANDING + REQUESTS) as f64;
    let allowed = requests * 1.2 + 3.0 * seconds;
    assert!(attempts <= allowed, "{attempts} of {allowed}");
}
