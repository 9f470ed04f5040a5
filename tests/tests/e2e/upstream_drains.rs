//! Targets that are drained or taken out while requests come at a steady pace, and while streams of
//! all kinds are open at them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::client::Streaming;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, within};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

const DRAINS: usize = 20;
/// 500 requests a second.
const GAP: Duration = Duration::from_millis(2);

async fn order(gateway: &Gateway, target: &str, state: &str) {
    let path = format!("/v1/upstreams/shop/targets/{target}");
    let body = json!({"state": state}).to_string();
    let answer = gateway.admin(Method::POST, &path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

async fn shown(gateway: &Gateway, name: &str) -> Value {
    let answer = gateway.admin(Method::GET, "/v1/upstreams", "").await;
    let all: Value = serde_json::from_str(&answer.text).unwrap();
    let targets = all["upstreams"][0]["targets"].as_array().unwrap();
    let named = targets.iter().find(|target| target["target"] == name);
    named.unwrap_or_else(|| panic!("{name} in {all}")).clone()
}

async fn until(gateway: &Gateway, target: &str, field: &str, value: Value) {
    wait_for(&format!("{field} of {target} is {value}"), SOON, || async {
        (shown(gateway, target).await[field] == value).then_some(())
    })
    .await;
}

fn setup(targets: &[(&str, &Origin)], more: &str) -> Setup {
    let named = targets.iter();
    let named: Vec<_> = named
        .map(|(name, target)| format!("{{url: \"{}\", name: {name}}}", target.url()))
        .collect();
    let targets = named.join(", ");
    let upstream =
        format!("{{targets: [{targets}], balance: {{by: round_robin, slow_start: 0s}}{more}}}");
    Setup::default()
        .upstream("shop", &upstream)
        .route("{name: shop, upstream: shop, cache: off}")
}

/// A target of which each fourth answer takes a while, so that some are under way at each order.
async fn steady(name: &'static str) -> Origin {
    Origin::start(move |asked| async move {
        if asked.number % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Reply::ok(name)
    })
    .await
}

/// Requests at their times, however long others take, until `ends`. Each must be answered.
async fn paced(gateway: &Gateway, ends: Arc<AtomicBool>) -> usize {
    let client = gateway.client().uncached();
    let mut asked = JoinSet::new();
    let mut turns = interval(GAP);
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !ends.load(Ordering::SeqCst) {
        turns.tick().await;
        let client = client.clone();
        asked.spawn(async move { client.get("/").await.status });
    }
    let statuses = asked.join_all().await;
    let failed = statuses.iter().filter(|status| **status != 200).count();
    assert_eq!(failed, 0, "of {}", statuses.len());
    statuses.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_drains_at_five_hundred_requests_a_second_lose_none() {
    for protocol in ["http1", "http2"] {
        let (a, b, c) = (steady("a").await, steady("b").await, steady("c").await);
        let targets = [("a", &a), ("b", &b), ("c", &c)];
        let more = format!(", protocol: {protocol}, load: {{queue_timeout: 1m}}");
        let gateway = Arc::new(setup(&targets, &more).start().await);
        let ends = Arc::new(AtomicBool::new(false));
        let (asking, stop) = (Arc::clone(&gateway), Arc::clone(&ends));
        let load = tokio::spawn(async move { paced(&asking, stop).await });
        for nth in 0..DRAINS {
            let (name, target) = targets[nth % 3];
            let had = target.count();
            wait_for("it is asked", SOON, || async {
                (target.count() > had + 5).then_some(())
            })
            .await;
            order(&gateway, name, ["drain", "out"][nth % 2]).await;
            until(&gateway, name, "in_flight", json!(0)).await;
            let (drained, all) = (target.count(), a.count() + b.count() + c.count());
            wait_for("the others are asked", SOON, || async {
                (a.count() + b.count() + c.count() > all + 20).then_some(())
            })
            .await;
            assert_eq!(target.count(), drained, "{name} gets nothing");
            order(&gateway, name, "ready").await;
        }
        ends.store(true, Ordering::SeqCst);
        let asked = load.await.unwrap();
        let arrived = a.count() + b.count() + c.count();
        assert_eq!(arrived, asked, "{protocol}: none was sent twice");
    }
}

/// A target with streams that say back what they hear, and a check that can fail.
async fn talkative(is_well: &Arc<AtomicBool>) -> Origin {
    let is_well = Arc::clone(is_well);
    Origin::start(move |mut asked| {
        let is_well = is_well.load(Ordering::SeqCst);
        async move {
            match asked.seen.path.as_str() {
                "/tunnel" => Reply::upgrade("websocket", |mut tunnel| async move {
                    let mut byte = [0];
                    while tunnel.read_exact(&mut byte).await.is_ok() {
                        tunnel.write_all(&byte).await.unwrap();
                    }
                }),
                "/call" => {
                    let (reply, pieces) = Reply::stream();
                    tokio::spawn(async move {
                        while let Some(Ok(frame)) = asked.body.frame().await {
                            if let Ok(piece) = frame.into_data() {
                                pieces.send(piece).await;
                            }
                        }
                        pieces.trailer("grpc-status", "0").await;
                        pieces.finish().await;
                    });
                    reply
                        .header("content-type", "application/grpc")
                        .header("trailer", "grpc-status")
                }
                "/events" => {
                    let (reply, pieces) = Reply::stream();
                    tokio::spawn(async move {
                        let mut ticks = interval(Duration::from_millis(20));
                        while pieces.send("data: tick\n\n").await {
                            ticks.tick().await;
                        }
                    });
                    reply.header("content-type", "text/event-stream")
                }
                _ if is_well => Reply::ok("well"),
                _ => Reply::ok("sick").status(503),
            }
        }
    })
    .await
}

/// Streams of all kinds that are open at one target.
struct OpenStreams {
    events: Streaming,
    call: Streaming,
    messages: tokio::sync::mpsc::Sender<bytes::Bytes>,
    /// Not over HTTP/2 in clear text, which has no way to switch.
    tunnel: Option<RawConnection<TcpStream>>,
}

impl OpenStreams {
    async fn open(gateway: &Gateway, protocol: &str) -> Self {
        let client = gateway.client_http2().uncached();
        let events = client.request("/events").open().await;
        let ask = client.ask(Method::POST, "/call");
        let ask = ask.header("content-type", "application/grpc");
        let (ask, messages) = ask.header("te", "trailers").upload();
        let call = tokio::spawn(async move { ask.open().await });
        messages.send("first".into()).await.unwrap();
        let mut call = call.await.unwrap();
        assert_eq!(call.at_least(5).await, "first");
        let mut tunnel = None;
        if protocol == "http1" {
            let mut raw = gateway.raw().await;
            raw.write("GET /tunnel HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
                .await;
            assert_eq!(raw.head().await.status, 101);
            tunnel = Some(raw);
        }
        Self {
            events,
            call,
            messages,
            tunnel,
        }
    }

    /// Each says something new.
    async fn go_on(&mut self, when: &str) {
        for _ in 0..20 {
            let event = self.events.piece().await;
            event.unwrap_or_else(|| panic!("{when}: events")).unwrap();
        }
        self.messages.send("next".into()).await.unwrap();
        assert_eq!(self.call.at_least(4).await, "next", "{when}");
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.write("x").await;
            assert_eq!(tunnel.exactly(1).await, b"x", "{when}");
        }
    }

    /// Each ends by itself.
    async fn end(self) {
        drop(self.messages);
        let ended = within("the call ends", SOON, self.call.into_answer()).await;
        let trailers = ended.unwrap().trailers.unwrap();
        assert_eq!(trailers["grpc-status"], "0");
    }
}

async fn streams_go_on(protocol: &str) {
    let is_well = Arc::new(AtomicBool::new(true));
    let target = talkative(&is_well).await;
    let other = Origin::pages(|_| Reply::ok("well")).await;
    let health = "health: {passive: {failures: 2, eject: 1h, max_eject: 1h}, active: {path: /healthz, interval: 50ms, fall: 2}}";
    let more = format!(", protocol: {protocol}, retry: {{budget: 100}}, {health}");
    let gateway = setup(&[("a", &target), ("b", &other)], &more).start().await;
    // All of them at one target.
    order(&gateway, "b", "out").await;
    let mut streams = OpenStreams::open(&gateway, protocol).await;
    order(&gateway, "b", "ready").await;
    for state in ["drain", "out", "ready"] {
        order(&gateway, "a", state).await;
        until(&gateway, "a", "administrative", json!(state)).await;
        streams.go_on(state).await;
        assert_ne!(shown(&gateway, "a").await["in_flight"], 0);
    }
    // Requests that fail eject it while nobody has checked it, and its checks fail, too.
    is_well.store(false, Ordering::SeqCst);
    let client = gateway.client().uncached();
    wait_for("it gets no requests any more", SOON, || async {
        assert_eq!(client.get("/").await.status, 200);
        let target = shown(&gateway, "a").await;
        (target["observed"] == "down").then_some(())
    })
    .await;
    streams.go_on("down").await;
    streams.end().await;
}

#[tokio::test]
async fn streams_at_a_target_that_gets_no_requests_go_on_over_http1() {
    streams_go_on("http1").await;
}

#[tokio::test]
async fn streams_at_a_target_that_gets_no_requests_go_on_over_http2() {
    streams_go_on("http2").await;
}

/// Without checks it is ejected by its answers.
#[tokio::test]
async fn streams_at_an_ejected_target_go_on() {
    for protocol in ["http1", "http2"] {
        let is_well = Arc::new(AtomicBool::new(true));
        let target = talkative(&is_well).await;
        let other = Origin::pages(|_| Reply::ok("well")).await;
        let more = format!(
            ", protocol: {protocol}, retry: {{budget: 100}}, health: {{passive: {{failures: 2, eject: 1h, max_eject: 1h}}}}"
        );
        let gateway = setup(&[("a", &target), ("b", &other)], &more).start().await;
        order(&gateway, "b", "out").await;
        let mut streams = OpenStreams::open(&gateway, protocol).await;
        order(&gateway, "b", "ready").await;
        is_well.store(false, Ordering::SeqCst);
        let client = gateway.client().uncached();
        for _ in 0..10 {
            assert_eq!(client.get("/").await.status, 200, "another one answers");
        }
        assert_eq!(shown(&gateway, "a").await["observed"], "ejected");
        streams.go_on("ejected").await;
        streams.end().await;
    }
}

/// Operators wait for nothing in flight before they stop a server, and requests go where less is under
/// way.
#[tokio::test]
async fn tunnels_are_requests_under_way() {
    let is_well = Arc::new(AtomicBool::new(true));
    let (a, b) = (talkative(&is_well).await, talkative(&is_well).await);
    let upstream = format!(
        "{{targets: [{{url: \"{}\", name: a}}, {{url: \"{}\", name: b}}]}}",
        a.url(),
        b.url()
    );
    let gateway = Setup::default()
        .upstream("shop", &upstream)
        .route("{name: shop, upstream: shop, cache: off}")
        .start()
        .await;
    let mut tunnels = Vec::new();
    for _ in 0..20 {
        let mut raw = gateway.raw().await;
        raw.write(
            "GET /tunnel HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .await;
        assert_eq!(raw.head().await.status, 101);
        tunnels.push(raw);
    }
    for target in ["a", "b"] {
        let under_way = shown(&gateway, target).await["in_flight"].as_u64().unwrap();
        // None, as if nothing were open, is what this is about.
        assert!((4..=16).contains(&under_way), "{target}: {under_way} of 20");
    }
    drop(tunnels);
    for target in ["a", "b"] {
        until(&gateway, target, "in_flight", 0.into()).await;
    }
}
