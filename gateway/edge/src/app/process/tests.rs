//! Two generations on one process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::ProcessState;
use crate::config::{self, GatewayConfig};
use crate::http::body::Body;
use crate::http::server::{BoundListeners, HandlerAnswer, RunningListeners, SharedByListeners};
use crate::proxy::{Generation, Proxy};

/// Requests wait at an origin until the gate lets them go on.
struct Gate {
    came: AtomicUsize,
    permits: Semaphore,
}

/// An origin that answers at once, except for `/slow`, which waits at the gate.
fn origin(gate: &Arc<Gate>) -> (RunningListeners, SocketAddr) {
    let bound = bound("{address: 127.0.0.1:0}");
    let address = bound.addresses()[0];
    let gate = Arc::clone(gate);
    let running = bound.start(move |head, _body, _entered, _early| {
        let gate = Arc::clone(&gate);
        HandlerAnswer::later(async move {
            if head.uri.path() == "/slow" {
                gate.came.fetch_add(1, Ordering::Relaxed);
                gate.permits.acquire().await.unwrap().forget();
            }
            Response::new(Body::full(head.uri.path().to_owned()))
        })
    });
    (running, address)
}

fn bound(listener: &str) -> BoundListeners {
    let listener = serde_yaml::from_str(listener).unwrap();
    BoundListeners::bind(&[listener], 1, SharedByListeners::default()).unwrap()
}

fn configuration(origin: SocketAddr, routes: &str) -> GatewayConfig {
    let text = format!(
        "version: 1\nlisteners: [{{address: 127.0.0.1:0}}]\nupstreams: {{origin: \"http://{origin}\"}}\nroutes: [{routes}]\n"
    );
    config::parse(&text, "lamina.yaml", &|_| None).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let holds = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), holds).await.expect(what);
}

/// The second generation shares the cache, the metric families and the listeners with the first.
/// The first answers the requests that began on it, and is then freed.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_takes_the_place_of_another_which_ends_with_its_last_request() {
    let gate = Arc::new(Gate {
        came: AtomicUsize::new(0),
        permits: Semaphore::new(0),
    });
    let (_origin, origin) = origin(&gate);
    let first = configuration(
        origin,
        "{name: site, upstream: origin, policy: {mode: override, ttl: 1h}}",
    );
    let process = ProcessState::new(&first, None).unwrap();
    let proxy = process.proxy(&first).await.unwrap();
    let bound = bound("{address: 127.0.0.1:0}");
    let address = bound.addresses()[0];
    let serving = Arc::clone(&proxy);
    let _listeners = bound.start(move |head, body, entered, early| {
        Proxy::handle(&serving, head, body, entered, early)
    });
    assert!(get(address, "/page").await.contains("fwd=uri-miss"));
    let slow = tokio::spawn(get(address, "/slow"));
    let came = || gate.came.load(Ordering::Relaxed) == 1;
    until("the load began", came).await;
    let old: Weak<Generation> = Arc::downgrade(&proxy.generation());

    let second = "{name: gone, match: {path: /gone}, upstream: origin, cache: off}, \
                  {name: site, upstream: origin, policy: {mode: override, ttl: 1h}}";
    let second = process
        .generation(&configuration(origin, second), None)
        .await;
    drop(proxy.swap(second.unwrap()));
    assert!(
        get(address, "/page").await.contains("lamina; hit"),
        "one cache"
    );
    assert!(get(address, "/gone").await.contains("fwd=bypass"));
    assert!(old.upgrade().is_some(), "a request is under way on it");

    gate.permits.add_permits(1);
    let answer = slow.await.unwrap();
    assert!(answer.ends_with("/slow"), "{answer}");
    until("the first generation is freed", || old.upgrade().is_none()).await;
    assert!(get(address, "/slow").await.contains("lamina; hit"));
    assert!(get(address, "/more").await.contains("fwd=uri-miss"));
    let text = crate::telemetry::metrics::text(&process.registry).unwrap();
    let text = String::from_utf8(text).unwrap();
    for (route, result) in [("site", "miss"), ("site", "hit"), ("gone", "pass")] {
        let series = format!("lamina_requests_total{{result=\"{result}\",route=\"{route}\"}}");
        assert!(text.contains(&series), "{series}");
    }
    // Both generations count the misses of `site` in one series.
    assert!(text.contains("lamina_metric_series 54\n"), "{text}");
}

/// A configuration that can't be used leaves nothing behind, and the next one can be made.
#[tokio::test]
async fn a_generation_that_cannot_be_made_leaves_nothing() {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let sound = configuration(nowhere, "{name: a, upstream: origin}");
    let process = ProcessState::new(&sound, None).unwrap();
    let mut broken = sound.clone();
    broken.routes[0].upstream = Some("nobody".to_owned());
    let Err(error) = process.generation(&broken, None).await else {
        panic!("it was made");
    };
    assert!(error.is_configuration(), "{error}");
    process.generation(&sound, None).await.unwrap();
}
