//! The listener itself: who may say who the client is, and what happens when there is no
//! room for more (http.md, Proxying and Bad input).

use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::passed;
use http::Method;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.7 10.0.0.1 4321 80\r\n";

/// Version 2 with the client 192.0.2.7:4321.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x10\xe1\0\x50";

async fn proxied(trusted: &str, limits: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::ok("x").header("cache-control", "no-store")).await;
    let gateway = Setup::new(&origin)
        .listener("proxy_protocol", "true")
        .listener("trusted_proxies", trusted)
        .listener("limits", limits)
        .start()
        .await;
    (origin, gateway)
}

async fn said(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut raw = gateway.raw().await;
    let _ = raw.try_write(bytes).await;
    String::from_utf8_lossy(&raw.to_end().await).into_owned()
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client_to_the_origin() {
    let (origin, gateway) = proxied("[127.0.0.0/8]", "{}").await;
    for header in [V1.as_bytes(), V2] {
        let answer = said(&gateway, &[header, GET.as_bytes()].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(origin.last().header("x-forwarded-for"), "192.0.2.7");
    }
    let unknown = said(&gateway, &[b"PROXY UNKNOWN\r\n", GET.as_bytes()].concat()).await;
    assert!(unknown.starts_with("HTTP/1.1 200 "), "{unknown}");
    assert_eq!(origin.last().header("x-forwarded-for"), "127.0.0.1");
}

#[tokio::test]
async fn a_client_behind_the_proxy_is_not_trusted_for_the_proxys_sake() {
    let (origin, gateway) = proxied("[127.0.0.0/8]", "{}").await;
    let get = GET.replace(
        "Host",
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nHost",
    );
    said(&gateway, [V1, &get].concat().as_bytes()).await;
    assert_eq!(origin.last().header("x-forwarded-for"), "192.0.2.7");
    assert_eq!(origin.last().header("x-forwarded-proto"), "http");
}

#[tokio::test]
async fn a_header_in_pieces_is_read_and_what_follows_keeps_its_place() {
    let (origin, gateway) = proxied("[127.0.0.0/8]", "{}").await;
    for header in [V1.as_bytes(), V2] {
        let mut raw = gateway.raw().await;
        for byte in [header, GET.as_bytes()].concat() {
            raw.write([byte]).await;
        }
        assert_eq!(raw.head().await.status, 200);
    }
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn garbage_for_a_header_closes_the_connection_without_a_word() {
    let (origin, gateway) = proxied("[127.0.0.0/8]", "{header_timeout: 10m}").await;
    let long = "PROXY UNKNOWN ".to_owned() + &"x".repeat(1_000);
    let too_long = [&V2[..14], b"\xff\xff"].concat();
    let cases: [&[u8]; 9] = [
        GET.as_bytes(),
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 80\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 80\n",
        long.as_bytes(),
        &too_long,
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
        b"\0\0\0\0",
        b"PROXY \xff\xff\r\n",
    ];
    for bytes in cases {
        let answer = said(&gateway, &[bytes, GET.as_bytes()].concat()).await;
        assert_eq!(answer, "", "{}", String::from_utf8_lossy(bytes));
    }
    let twice = said(&gateway, [V1, V1, GET].concat().as_bytes()).await;
    assert!(twice.starts_with("HTTP/1.1 400 "), "{twice}");
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_header_that_does_not_go_on_is_not_waited_for() {
    let (origin, gateway) = proxied("[127.0.0.0/8]", "{header_timeout: 300ms}").await;
    // By the default, which is 10 s, this one would be ended first.
    let (_origin, usual) = proxied("[127.0.0.0/8]", "{}").await;
    let mut other = usual.raw().await;
    other.write("PROXY TCP4 192.0.2.7 ").await;
    let answer = said(&gateway, b"PROXY TCP4 192.0.2.7 ").await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
        "{answer}"
    );
    assert!(other.is_open(), "the default ended it");
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_stranger_can_not_name_a_client_nor_ask_without_a_header() {
    let (origin, gateway) = proxied("[10.0.0.0/8]", "{}").await;
    for bytes in [[V1, GET].concat(), GET.to_owned()] {
        assert_eq!(said(&gateway, bytes.as_bytes()).await, "");
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn without_the_key_a_header_of_the_proxy_protocol_is_a_bad_request() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .listener("trusted_proxies", "[127.0.0.0/8]")
        .start()
        .await;
    for header in [V1.as_bytes(), V2] {
        let answer = said(&gateway, &[header, GET.as_bytes()].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(origin.count(), 0);
}

/// Takes all but so many of the descriptors from a running gateway.
fn leave_descriptors(gateway: &Gateway, free: usize) {
    let id = i32::try_from(gateway.process_id())
        .ok()
        .and_then(Pid::from_raw);
    let most = (gateway.open_files() + free) as u64;
    let limit = Rlimit {
        current: Some(most),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    prlimit(id, Resource::Nofile, limit).unwrap();
}

#[tokio::test]
async fn without_descriptors_accepting_pauses_and_the_admin_port_answers() {
    let origin = Origin::pages(|_| Reply::ok("x").header("cache-control", "no-store")).await;
    let gateway = Setup::new(&origin)
        .listener("limits", "{header_timeout: 10m, idle_timeout: 10m}")
        .start()
        .await;
    let keep = GET.replace("Connection: close\r\n", "");
    let mut served = gateway.raw().await;
    served.write(&keep).await;
    assert_eq!(served.head().await.status, 200);
    assert_eq!(served.exactly(1).await, b"x");
    leave_descriptors(&gateway, 60);
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut raw = RawConnection::open(gateway.address).await;
        raw.write("GET / HTTP/1.1\r\nHost: a\r\n").await;
        held.push(raw);
    }
    gateway
        .logged("accepting pauses", |line| {
            line.contains("accepting connections paused")
        })
        .await;
    let paused = Instant::now();
    for _ in 0..5 {
        let answer = gateway.admin(Method::GET, "/livez", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    // A connection that is served can still reach the origin.
    served.write(&keep).await;
    assert_eq!(served.head().await.status, 200);
    // Each worker has tried again several times by now, every tenth of a second.
    passed(paused, Duration::from_millis(600)).await;
    let pauses = |log: Vec<String>| {
        log.iter()
            .filter(|line| line.contains("accepting connections paused"))
            .count()
    };
    assert!(pauses(gateway.log()) <= 4, "it is said once a worker");
    drop(held);
    gateway
        .logged("accepting goes on", |line| {
            line.contains("accepting connections resumed")
        })
        .await;
    assert_eq!(gateway.client().apart().get("/").await.status, 200);
}
