//! Origins that misbehave over TLS: what the suites `attack_origin` and `attack_origin_http2` see
//! over clear text, and what only TLS has.

use e2e::attack::{Before, origin};
use e2e::client::Failure;
use e2e::reply::Reply;
use e2e::tls_origin::{FrontSettings, Manner, TestAuthority, TlsFront};
use e2e::wait::{SOON, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::origin_tls::{TRUSTING, paths, setup};
use crate::{attack_origin, attack_origin_http2};

#[tokio::test]
async fn heads_that_cannot_be_are_a_502() {
    attack_origin::each_over_tls(origin::HEADS).await;
}

#[tokio::test]
async fn bodies_that_break_off_never_look_whole() {
    attack_origin::each_over_tls(origin::BODIES).await;
}

#[tokio::test]
async fn what_follows_an_answer_reaches_nobody() {
    attack_origin::each_over_tls(origin::MORE).await;
}

#[tokio::test]
async fn odd_answers_that_are_right_are_served() {
    attack_origin::each_over_tls(origin::ODD).await;
}

#[tokio::test]
async fn floods_and_drips_of_an_origin_have_an_end() {
    attack_origin::each_over_tls(origin::FLOODS).await;
}

#[tokio::test]
async fn what_an_http2_origin_sends_wrong_is_an_error_or_cut() {
    attack_origin_http2::each_over_tls().await;
}

/// A server that answers each request with a page that ends where the connection does.
async fn until_closed() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn answer_each(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = vec![0; 4096];
        let _ = stream.read(&mut head).await;
        let page = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n\r\nhalf a page";
        let _ = stream.write_all(page).await;
        let _ = stream.shutdown().await;
    }
}

#[tokio::test]
async fn a_page_that_ends_without_the_word_of_tls_is_cut_and_not_stored() {
    let listener = until_closed().await;
    let behind = listener.local_addr().unwrap();
    tokio::spawn(answer_each(listener));
    let tls = paths().await;
    let mut settings = FrontSettings::new(tls.authority.certify(&["localhost"]));
    settings.alpn = vec!["http/1.1"];
    settings.says_goodbye = false;
    let front = TlsFront::before(behind, settings).await;
    let upstream = format!("{{targets: [\"{}\"], tls: {TRUSTING}}}", front.url());
    let setup = setup(&tls, TRUSTING, "").upstream("origin", &upstream);
    let gateway = setup.start().await;
    for n in 0..3 {
        for client in [gateway.client(), gateway.client_http2()] {
            match client.request("/a").try_send().await {
                Err(Failure::Cut { .. } | Failure::NoAnswer(_)) => {}
                Ok(answer) if answer.status == 502 => {}
                Ok(answer) => panic!("{n}: {:?} looks whole: {answer:?}", client_name(&answer)),
            }
        }
    }
    assert_eq!(front.connections(), 6, "none was stored");
    // Anybody on the way can close a connection; only the origin can say that it closes it.
    front.change(|settings| settings.says_goodbye = true);
    let whole = gateway.client().get("/a").await;
    assert_eq!((whole.status.as_u16(), whole.text()), (200, "half a page"));
    assert!(gateway.client().get("/a").await.is_hit());
}

fn client_name(answer: &e2e::client::Answer) -> http::Version {
    answer.version
}

#[tokio::test]
async fn handshakes_without_end_take_neither_memory_nor_descriptors() {
    let tls = paths().await;
    // Over HTTP/1.1, since requests over HTTP/2 wait for one connection.
    let more = ", protocol: http1, timeouts: {connect: 2s}";
    let flooding = TestAuthority::new("flood");
    let mut settings = FrontSettings::new(flooding.certify(&["localhost"]));
    settings.manner = Manner::Flood;
    let flood = TlsFront::before(tls.origin.address(), settings.clone()).await;
    settings.manner = Manner::Stall;
    let stalled = TlsFront::before(tls.origin.address(), settings).await;
    let upstream =
        |front: &TlsFront| format!("{{targets: [\"{}\"], tls: {TRUSTING}{more}}}", front.url());
    let gateway = setup(&tls, TRUSTING, "")
        .upstream("flood", &upstream(&flood))
        .upstream("stalled", &upstream(&stalled))
        .route("{name: flood, match: {path: /flood/*}, upstream: flood, cache: off}")
        .route("{name: stalled, match: {path: /stalled/*}, upstream: stalled, cache: off}")
        .route("{name: site, upstream: origin}")
        .start()
        .await;
    assert_eq!(gateway.client().get("/good").await.text(), "/good");
    let before = Before::of(&gateway);
    let client = gateway.client();
    let asking: Vec<_> = (0..60)
        .map(|n| {
            let client = client.apart().uncached();
            let kind = if n % 2 == 0 { "flood" } else { "stalled" };
            tokio::spawn(async move { client.get(&format!("/{kind}/{n}")).await })
        })
        .collect();
    flood.saw(30).await;
    stalled.saw(30).await;
    assert_eq!(client.get("/good").await.text(), "/good");
    for (n, one) in asking.into_iter().enumerate() {
        let answer = one.await.unwrap();
        let said = answer.header("proxy-status");
        let wanted = match n % 2 {
            0 => (502, "lamina; error=tls_protocol_error"),
            _ => (504, "lamina; error=connection_timeout"),
        };
        assert_eq!((answer.status.as_u16(), said), wanted);
    }
    drop(client);
    before.is_back(&gateway, "handshakes without end").await;
    wait_for("their connections are closed", SOON, || async {
        (flood.open() + stalled.open() == 0).then_some(())
    })
    .await;
    assert!(flood.data().is_empty() && stalled.data().is_empty());
}

#[tokio::test]
async fn big_bodies_pass_whole_in_both_directions() {
    let tls = e2e::tls_origin::TlsOrigin::pages(|seen| {
        Reply::ok(seen.body.clone().unwrap()).header("cache-control", "no-store")
    })
    .await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    for protocol in ["http1", "http2"] {
        let more = format!(", protocol: {protocol}");
        let gateway = setup(&tls, TRUSTING, &more).start().await;
        for client in [gateway.client(), gateway.client_http2()] {
            let answer = client.post("/", body.clone()).await;
            assert_eq!(answer.status, 200, "{protocol}");
            assert!(answer.body == body, "{protocol}: {}", answer.body.len());
        }
    }
}
