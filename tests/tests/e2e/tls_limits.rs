//! Handshakes that take long, and many of them (edge.md, TLS10).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::tls::site::{HttpsSite, NAME};
use e2e::wait::{SOON, passed, wait_until, within};
use http::Method;

const HANDSHAKES: &str = "lamina_tls_handshakes_total";

async fn counted(site: &HttpsSite, outcome: &str) -> f64 {
    let labels = [("outcome", outcome)];
    site.gateway.metric(HANDSHAKES, &labels).await
}

#[tokio::test]
async fn a_handshake_has_a_deadline_of_its_own() {
    let patient = |setup: e2e::setup::Setup| {
        setup.listener("limits", "{header_timeout: 10m, idle_timeout: 10m}")
    };
    let page = |_: &e2e::origin::Seen| Reply::ok("x");
    let site = HttpsSite::with("handshake_timeout: 700ms", patient, page).await;
    let usual = HttpsSite::with("handshake_timeout: 10m", patient, page).await;
    let hello = site.client().hello();
    let mut waiting = usual.gateway.raw().await;
    waiting.write(&hello[..9]).await;
    let begun = Instant::now();
    let mut all = Vec::new();
    for length in [0, 1, 5, 6, hello.len() - 1] {
        let mut raw = site.gateway.raw().await;
        raw.write(&hello[..length]).await;
        all.push(raw);
    }
    all.push(site.client().stuck().await);
    let count = all.len() as f64;
    for mut raw in all {
        within("it is cut", SOON, raw.to_end()).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(700));
    site.gateway
        .metric_until(HANDSHAKES, &[("outcome", "timeout")], |n| n == count)
        .await;
    assert!(waiting.is_open(), "the other deadline cut it");
    // What the client has sent in time can be used for long afterwards.
    let mut served = site.client().connect().await.unwrap().raw();
    passed(Instant::now(), Duration::from_millis(1_500)).await;
    served
        .write("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n")
        .await;
    assert_eq!(served.head().await.status, 200);
}

#[tokio::test]
async fn a_client_hello_that_drips_does_not_get_more_time() {
    let site = HttpsSite::start("handshake_timeout: 1s").await;
    let mut raw = site.gateway.raw().await;
    let begun = Instant::now();
    let mut sent = 0;
    for byte in site.client().hello() {
        if !raw.try_write(&[byte]).await {
            break;
        }
        sent += 1;
        passed(begun, Duration::from_millis(50) * sent).await;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{sent} bytes were taken"
    );
    assert_eq!(counted(&site, "timeout").await, 1.0);
}

#[tokio::test]
async fn the_oldest_handshake_makes_room() {
    let site = HttpsSite::start("handshake_timeout: 10m, max_handshakes: 5").await;
    let mut stuck = Vec::new();
    for _ in 0..5 {
        stuck.push(site.client().stuck().await);
    }
    // Each takes the place of the oldest one, and leaves it for the next one that is stuck.
    for served in 1..=3 {
        assert_eq!(site.client().anew().status(NAME).await, Ok(200));
        let crowded = [("outcome", "crowded")];
        site.gateway
            .metric_until(HANDSHAKES, &crowded, |count| count == f64::from(served))
            .await;
        let mut oldest = stuck.remove(0);
        within("the oldest is cut", SOON, oldest.to_end()).await;
        for raw in &mut stuck {
            assert!(raw.is_open(), "it is not the oldest");
        }
        stuck.push(site.client().stuck().await);
    }
}

/// Connections of the flood: each place in a client's handshake at which it can stop, twice.
const FLOOD: usize = 5_000;
/// Connections of it that the client keeps: far more than there may be handshakes, so that those
/// before them were cut.
const HELD: usize = 1_000;

#[tokio::test]
async fn handshake_flood() {
    let limits = "{header_timeout: 10m, idle_timeout: 10m, max_connections: 8000}";
    let site = HttpsSite::with(
        "handshake_timeout: 10m, max_handshakes: 50",
        |setup| setup.listener("limits", limits),
        |_| Reply::fresh("page"),
    )
    .await;
    let mut kept = site.client().http().await;
    kept.get(NAME, "/").await;
    let files = site.gateway.open_files();
    let memory = site.gateway.resident_bytes();
    let hello = site.client().hello();
    let last_messages = site.client().last_messages().await;
    let stops = hello.len() + last_messages;
    assert!(FLOOD > 2 * stops, "{stops} places to stop at");
    let (mut flood, mut slowest) = (VecDeque::new(), Duration::ZERO);
    for number in 0..FLOOD {
        let raw = match (number % stops).checked_sub(hello.len()) {
            None => {
                let mut raw = RawConnection::open(site.gateway.address).await;
                raw.try_write(&hello[..number % stops]).await;
                raw
            }
            Some(length) => site.client().stopped_after(length).await,
        };
        flood.push_back(raw);
        if flood.len() > HELD {
            flood.pop_front();
        }
        if number % 50 != 0 {
            continue;
        }
        let begun = Instant::now();
        assert!(kept.get(NAME, "/").await.is_hit());
        slowest = slowest.max(begun.elapsed());
        assert_eq!(
            site.client().anew().status(NAME).await,
            Ok(200),
            "after {number}"
        );
        let admin = site.gateway.admin(Method::GET, "/livez", "").await;
        assert_eq!(admin.status, 200);
        // Those that are cut are closed by the worker that has accepted them.
        let bound = files + 50 + 30;
        wait_until("descriptors are bounded", SOON, || {
            site.gateway.open_files() <= bound
        })
        .await;
    }
    assert!(slowest < SOON / 3, "a hit took {slowest:?}");
    let crowded = [("outcome", "crowded")];
    site.gateway
        .metric_until(HANDSHAKES, &crowded, |cut| cut >= FLOOD as f64 - 100.0)
        .await;
    let grown = site.gateway.resident_bytes().saturating_sub(memory);
    assert!(grown < 32 << 20, "{grown} bytes");
    drop(flood);
    wait_until("descriptors are back", SOON, || {
        site.gateway.open_files() <= files + 6
    })
    .await;
    assert!(kept.get(NAME, "/").await.is_hit());
}

#[tokio::test]
async fn places_of_connections_come_back_after_failed_handshakes() {
    let site = HttpsSite::with(
        "handshake_timeout: 500ms",
        |setup| setup.listener("limits", "{max_connections: 3}"),
        |_| Reply::fresh("page"),
    )
    .await;
    for round in 0..5 {
        let mut held = Vec::new();
        for bytes in [&b"\x16\x03\x01"[..], b"\0\0", b"GET / HTTP/1.1\r\n\r\n"] {
            let mut raw = site.gateway.raw().await;
            raw.try_write(bytes).await;
            held.push(raw);
        }
        assert_eq!(site.client().anew().status(NAME).await, Ok(200), "{round}");
    }
}
