//! A request goes to the origin and its answer comes back, whole and unchanged.

use e2e::gate::Gate;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, site};
use e2e::wait::{SOON, within};
use http::{Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn echo(seen: &e2e::origin::Seen) -> Reply {
    Reply::ok(seen.body.clone().unwrap_or_default()).header("cache-control", "no-store")
}

#[tokio::test]
async fn every_method_reaches_the_origin_with_its_body() {
    let (origin, gateway) = site("{}", echo).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
        let method: Method = method.parse().unwrap();
        let answer = gateway
            .client()
            .ask(method.clone(), "/thing?a=1")
            .body(format!("{method} it"))
            .send()
            .await;
        assert_eq!(answer.text(), format!("{method} it"));
        assert_eq!(
            (origin.last().method, origin.last().path),
            (method, "/thing?a=1".to_owned())
        );
    }
}

#[tokio::test]
async fn a_body_on_get_is_forwarded_and_its_answer_not_shared() {
    let (origin, gateway) = site("{}", |seen| {
        Reply::fresh(seen.body.clone().unwrap_or_default())
    })
    .await;
    for body in ["one", "two"] {
        assert_eq!(
            gateway
                .client()
                .request("/search")
                .body(body)
                .send()
                .await
                .text(),
            body
        );
    }
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn path_and_query_arrive_as_they_were_sent() {
    let (origin, gateway) = site("{}", |_| Reply::fresh("x")).await;
    for target in [
        "/a%2Fb",
        "/a//b",
        "/a;x=1/b.css",
        "/p?x=1&&y=%20&x=1",
        "/p?",
        "/%E2%82%AC",
    ] {
        gateway.client().get(target).await;
        assert_eq!(origin.last().path, target);
    }
}

#[tokio::test]
async fn odd_statuses_and_headers_pass() {
    let (_origin, gateway) = site("{}", |seen| {
        let status = seen.path_only().trim_start_matches('/').parse().unwrap();
        Reply::ok("")
            .status(status)
            .header("x-odd", "a; b=\"c\"")
            .header("link", "<a>")
            .header("link", "<b>")
    })
    .await;
    for status in [299, 307, 418, 451, 499, 599, 999] {
        let answer = gateway.client().get(&format!("/{status}")).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.header("x-odd"), "a; b=\"c\"");
        assert_eq!(answer.headers.get_all("link").iter().count(), 2);
    }
}

#[tokio::test]
async fn an_unreachable_origin_is_a_502_with_its_reason() {
    let (mut origin, gateway) = site("{}", |_| Reply::fresh("x")).await;
    origin.stop().await;
    let answer = gateway.client().get("/").await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.header("proxy-status").contains("connection_refused"),
        "{:?}",
        answer.headers
    );
}

#[tokio::test]
async fn an_origin_that_hangs_up_is_a_502() {
    let (_origin, gateway) = site("{}", |_| Reply::hang_up()).await;
    let answer = gateway.client().get("/").await;
    assert_eq!(answer.status, 502);
    assert!(
        answer.header("proxy-status").contains("lamina"),
        "{:?}",
        answer.headers
    );
}

#[tokio::test]
async fn an_origin_that_never_answers_is_a_504() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::ok("late")
        }
    })
    .await;
    let upstream = format!(
        "{{targets: [\"{}\"], timeouts: {{first_byte: 300ms}}}}",
        origin.url()
    );
    let gateway = Setup::new(&origin)
        .upstream("origin", &upstream)
        .start()
        .await;
    // By the default it would take 30 s.
    let answer = within("a 504", SOON / 2, gateway.client().get("/")).await;
    assert_eq!(answer.status, 504);
}

#[tokio::test]
async fn above_its_load_limit_an_upstream_is_a_503_with_retry_after() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::ok("done")
        }
    })
    .await;
    let load = "{max_concurrent: 1, max_queued: 0, queue_timeout: 100ms}";
    let upstream = format!("{{targets: [\"{}\"], load: {load}}}", origin.url());
    let gateway = Setup::new(&origin)
        .upstream("origin", &upstream)
        .start()
        .await;
    let client = gateway.client();
    let first = tokio::spawn(async move { client.get("/one").await });
    gate.reached_by(1).await;
    let refused = gateway.client().get("/two").await;
    assert_eq!(refused.status, 503);
    assert!(refused.has("retry-after"));
    gate.open();
    assert_eq!(first.await.unwrap().text(), "done");
}

#[tokio::test]
async fn without_a_route_it_is_a_404() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .route("{name: only, match: {path: /only/*}, upstream: origin}")
        .start()
        .await;
    assert_eq!(gateway.client().uncached().get("/other").await.status, 404);
    assert_eq!(gateway.client().get("/only/x").await.status, 200);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn the_first_route_that_matches_counts() {
    let one = Origin::pages(|_| Reply::ok("one")).await;
    let two = Origin::pages(|_| Reply::ok("two")).await;
    let gateway = Setup::new(&one)
        .upstream("second", &format!("\"{}\"", two.url()))
        .route("{name: host, match: {host: \"*.example.com\"}, upstream: second}")
        .route("{name: method, match: {method: [PUT, DELETE]}, upstream: second}")
        .route("{name: header, match: {header: {x-beta: \"y*\"}}, upstream: second}")
        .route("{name: path, match: {path: [/a/*, /b?]}, upstream: second}")
        .route("{name: rest, upstream: origin}")
        .start()
        .await;
    let client = gateway.client();
    assert_eq!(client.get("/").await.text(), "one");
    assert_eq!(
        client
            .request("/")
            .host("www.example.com")
            .send()
            .await
            .text(),
        "two"
    );
    assert_eq!(client.ask(Method::PUT, "/").send().await.text(), "two");
    assert_eq!(
        client
            .request("/")
            .header("x-beta", "yes")
            .send()
            .await
            .text(),
        "two"
    );
    assert_eq!(client.get("/a/x").await.text(), "two");
    assert_eq!(client.get("/b1").await.text(), "two");
    assert_eq!(client.get("/b12").await.text(), "one");
}

#[tokio::test]
async fn http2_clients_are_served_and_share_the_cache() {
    let (origin, gateway) = site("{}", |_| Reply::fresh("page")).await;
    let miss = gateway.client_http2().get("/").await;
    assert_eq!((miss.version, miss.text()), (Version::HTTP_2, "page"));
    assert!(gateway.client().get("/").await.is_hit());
    assert!(gateway.client_http2().get("/").await.is_hit());
    assert_eq!(
        (origin.count(), origin.last().version),
        (1, Version::HTTP_11)
    );
}

#[tokio::test]
async fn an_http2_upstream_is_spoken_to_in_http2() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.body.clone().unwrap())).await;
    let upstream = format!("{{targets: [\"{}\"], protocol: http2}}", origin.url());
    let gateway = Setup::new(&origin)
        .upstream("origin", &upstream)
        .start()
        .await;
    assert_eq!(gateway.client().post("/", "body").await.text(), "body");
    assert_eq!(origin.last().version, Version::HTTP_2);
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_after_the_origins_101() {
    let origin = Origin::start(|asked| async move {
        if asked.seen.path != "/chat" || asked.seen.header("upgrade") != "echo" {
            return Reply::status_only(403);
        }
        Reply::upgrade("echo", |mut tunnel| async move {
            let mut word = [0; 4];
            while tunnel.read_exact(&mut word).await.is_ok() {
                word.reverse();
                let sent = tunnel.write_all(&word).await.is_ok() && tunnel.flush().await.is_ok();
                if !sent {
                    break;
                }
            }
        })
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let ask = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
    };
    let mut raw = gateway.raw().await;
    raw.write(ask("/chat")).await;
    let head = raw.head().await;
    assert_eq!((head.status, head.header("upgrade")), (101, "echo"));
    for word in ["abcd", "1234"] {
        raw.write(word).await;
        assert_eq!(raw.exactly(4).await, word.bytes().rev().collect::<Vec<_>>());
    }
    let mut refused = gateway.raw().await;
    refused.write(ask("/closed")).await;
    assert_eq!(refused.head().await.status, 403);
}
