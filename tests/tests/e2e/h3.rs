//! HTTP/3 as a client of another make sees it: requests with and without content, answers from
//! the cache and from origins, alone and many at once, beside the other protocols.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use e2e::gate::Gate;
use e2e::h3::client::{Exchange, H3Failure};
use e2e::h3::tcp::TcpAsk;
use e2e::h3::{NAME, SecuredGateway, pattern};
use e2e::origin::{Asked, Origin};
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, wait_until, within};
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body_util::BodyExt;
use serde_json::Value;

const MIB: usize = 1 << 20;

async fn site(
    policy: &str,
    page: impl Fn(&e2e::origin::Seen) -> Reply + Send + Sync + 'static,
) -> (Origin, SecuredGateway) {
    let origin = Origin::pages(page).await;
    let secured = SecuredGateway::start(Setup::new(&origin).policy(policy)).await;
    (origin, secured)
}

fn over_tcp(version: Version, target: &str) -> TcpAsk<'_> {
    TcpAsk {
        version,
        name: NAME,
        host: NAME,
        target,
    }
}

#[tokio::test]
async fn a_miss_of_one_protocol_is_a_hit_of_all() {
    let (origin, secured) = site("{}", |_| Reply::fresh("page")).await;
    let client = secured.client().await;
    let miss = client.get("/page").await;
    assert_eq!((miss.status.as_u16(), miss.text()), (200, "page"));
    assert!(miss.cache().forwarded_as("uri-miss"), "{:?}", miss.cache());
    let hit = client.get("/page").await;
    assert!(hit.is_hit() && hit.age().is_some() && hit.has("date"));
    assert_eq!(hit.header("content-length"), "4");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let answer = secured.ask_over_tcp(over_tcp(version, "/page")).await;
        assert_eq!((answer.version, answer.text()), (version, "page"));
        assert!(answer.is_hit(), "{version:?}: {:?}", answer.cache());
    }
    secured
        .ask_over_tcp(over_tcp(Version::HTTP_2, "/by-h2"))
        .await;
    assert!(client.get("/by-h2").await.is_hit());
    assert_eq!(origin.count(), 2);
}

/// A GET has no content, which the end of its stream says: the origin must not see framing of any.
#[tokio::test]
async fn a_request_without_content_is_one_at_the_origin() {
    let (origin, secured) = site("{}", |_| Reply::fresh("x")).await;
    let client = secured.client().await;
    for (method, path) in [
        (Method::GET, "/g"),
        (Method::HEAD, "/h"),
        (Method::DELETE, "/d"),
    ] {
        client.ask(method.clone(), path).send().await;
        let seen = origin.last();
        assert_eq!((&seen.method, seen.path.as_str()), (&method, path));
        for framing in ["transfer-encoding", "content-length"] {
            assert_eq!(seen.header(framing), "", "{method}: {framing}");
        }
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_content() {
    let (origin, secured) = site("{}", |seen| {
        let reply = Reply::fresh("0123456789");
        if seen.method == Method::HEAD {
            reply.header("x-head", "1")
        } else {
            reply
        }
    })
    .await;
    let client = secured.client().await;
    for (path, before) in [("/missed", false), ("/stored", true)] {
        if before {
            client.get(path).await;
        }
        let head = client.head(path).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-length"), "10", "{path}");
        assert_eq!(head.is_hit(), before, "{path}");
    }
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn conditions_are_answered_by_304_and_206() {
    let body = pattern(100_000);
    let all = body.clone();
    let (origin, secured) = site("{}", move |_| {
        Reply::fresh(body.clone())
            .header("etag", "\"v1\"")
            .header("accept-ranges", "bytes")
    })
    .await;
    let client = secured.client().await;
    assert_eq!(client.get("/").await.body, all);
    let same = client
        .request("/")
        .header("if-none-match", "\"v1\"")
        .send()
        .await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
    assert_eq!(same.header("etag"), "\"v1\"");
    let other = client
        .request("/")
        .header("if-none-match", "\"v2\"")
        .send()
        .await;
    assert_eq!((other.status.as_u16(), &other.body), (200, &all));
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=70000-80000", 70_000, 80_001),
        ("bytes=-10", 99_990, 100_000),
    ] {
        let part = client.request("/").header("range", range).send().await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.body, all[from..to], "{range}");
        let said = format!("bytes {from}-{}/100000", to - 1);
        assert_eq!(part.header("content-range"), said, "{range}");
    }
    let many = client
        .request("/")
        .header("range", "bytes=0-9,50000-50009")
        .send()
        .await;
    assert!(
        many.header("content-type")
            .starts_with("multipart/byteranges")
    );
    for part in [&all[..10], &all[50_000..50_010]] {
        assert!(many.body.windows(10).any(|window| window == part));
    }
    let beyond = client
        .request("/")
        .header("range", "bytes=100000-")
        .send()
        .await;
    assert_eq!(beyond.status, 416);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn content_arrives_whole_with_and_without_its_length() {
    let (origin, secured) = site("{}", |seen| {
        Reply::ok(seen.body.clone().unwrap()).header("cache-control", "no-store")
    })
    .await;
    let client = secured.client().await;
    let mut asked = 0;
    for length in [0, 1, 1_000, 65_536, 300_000] {
        let body = pattern(length);
        for method in [
            Method::POST,
            Method::PUT,
            Method::PATCH,
            "BREW".parse().unwrap(),
        ] {
            for with_length in [true, false] {
                let mut ask = client.ask(method.clone(), "/echo?a=1");
                if with_length {
                    ask = ask.header("content-length", &length.to_string());
                }
                // In pieces that fit neither frames of ours nor packets.
                for piece in body.chunks(7_777) {
                    ask = ask.body(Bytes::copy_from_slice(piece));
                }
                let answer = ask.send().await;
                let what = format!("{method} of {length}, length {with_length}");
                assert_eq!(answer.body, body, "{what}");
                let seen = origin.last();
                assert_eq!(
                    (seen.method, seen.path.as_str()),
                    (method.clone(), "/echo?a=1")
                );
                if with_length {
                    let told = seen.headers.get("content-length").unwrap();
                    assert_eq!(told, &length.to_string(), "{what}");
                }
                asked += 1;
            }
        }
    }
    assert_eq!((asked, origin.count()), (40, 40));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let trailers = Arc::new(std::sync::Mutex::new(HeaderMap::new()));
    let noted = Arc::clone(&trailers);
    let origin = Origin::start(move |asked| {
        let noted = Arc::clone(&noted);
        async move {
            let body = asked.body.collect().await.unwrap();
            *noted.lock().unwrap() = body.trailers().cloned().unwrap_or_default();
            let (reply, pieces) = Reply::stream();
            let size = body.to_bytes().len();
            tokio::spawn(async move {
                pieces.send(size.to_string()).await;
                pieces.trailer("x-sum", "42").await;
                pieces.finish().await;
            });
            reply.header("trailer", "x-sum")
        }
    })
    .await;
    for protocol in ["http1", "http2"] {
        let upstream = format!("{{targets: [\"{}\"], protocol: {protocol}}}", origin.url());
        let setup = Setup::new(&origin).upstream("origin", &upstream);
        let secured = SecuredGateway::start(setup).await;
        let client = secured.client().await;
        let ask = client
            .ask(Method::POST, "/")
            .header("te", "trailers")
            .header("trailer", "x-mark")
            .body("hello")
            .trailer("x-mark", "seen");
        let answer = ask.send().await;
        assert_eq!(answer.text(), "5", "{protocol}");
        assert_eq!(answer.trailers.unwrap()["x-sum"], "42", "{protocol}");
        let seen = trailers.lock().unwrap().clone();
        assert_eq!(
            seen.get("x-mark"),
            Some(&HeaderValue::from_static("seen")),
            "{protocol}"
        );
    }
}

/// Echoes each piece as it comes, and then a status as gRPC has it.
async fn echo(asked: Asked) -> Reply {
    let (reply, pieces) = Reply::stream();
    let mut body = asked.body;
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(piece) = frame.into_data() {
                pieces.send(piece).await;
            }
        }
        pieces.trailer("grpc-status", "0").await;
        pieces.finish().await;
    });
    reply.header("content-type", "application/grpc")
}

#[tokio::test]
async fn a_call_of_grpc_talks_both_ways_at_once() {
    let origin = Origin::start(echo).await;
    let upstream = format!("{{targets: [\"{}\"], protocol: http2}}", origin.url());
    let setup = Setup::new(&origin).upstream("origin", &upstream);
    let secured = SecuredGateway::start(setup).await;
    let client = secured.client().await;
    let ask = client
        .ask(Method::POST, "/pkg.Service/Chat")
        .header("te", "trailers")
        .header("content-type", "application/grpc");
    let Exchange {
        mut upload,
        mut download,
    } = ask.open().await.unwrap();
    for round in 0..20 {
        let said = format!("message {round}");
        assert!(upload.send(said.clone()).await);
        if round == 0 {
            let (status, headers) = within("the head", SOON, download.head()).await.unwrap();
            assert_eq!(
                (status.as_u16(), &headers["content-type"]),
                (200, &HeaderValue::from_static("application/grpc"))
            );
        }
        let mut heard = Vec::new();
        while heard.len() < said.len() {
            let piece = within("an echo", SOON, download.piece()).await;
            heard.extend_from_slice(&piece.unwrap().expect("the call goes on"));
        }
        assert_eq!(heard, said.as_bytes());
    }
    upload.finish().await;
    assert_eq!(within("the end", SOON, download.piece()).await, Ok(None));
    let trailers = within("the trailers", SOON, download.trailers())
        .await
        .unwrap();
    assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
}

#[tokio::test]
async fn fifty_mebibytes_pass_both_ways_byte_by_byte() {
    let body = pattern(50 * MIB);
    let sent = body.clone();
    let (origin, secured) = site("{}", move |seen| match seen.method {
        Method::GET => Reply::ok(sent.clone()).header("cache-control", "no-store"),
        _ => Reply::ok("taken"),
    })
    .await;
    let client = secured.client().await;
    let answer = client.get("/large").await;
    assert_eq!(answer.body.len(), body.len());
    assert!(answer.body == body, "the answer was changed");
    let mut ask = client.ask(Method::POST, "/large");
    for piece in body.chunks(1_000_003) {
        ask = ask.body(Bytes::copy_from_slice(piece));
    }
    assert_eq!(ask.send().await.text(), "taken");
    let seen = origin.last().body.unwrap();
    assert_eq!(seen.len(), body.len());
    assert!(seen == body, "the upload was changed");
}

#[tokio::test]
async fn a_hundred_streams_are_served_at_once() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::ok(asked.seen.path).header("cache-control", "no-store")
        }
    })
    .await;
    let secured = SecuredGateway::start(Setup::new(&origin)).await;
    let client = secured.client().await;
    let asking = (0..100).map(|number| {
        let client = client.clone();
        tokio::spawn(async move { client.get(&format!("/{number}")).await })
    });
    let asking: Vec<_> = asking.collect();
    gate.reached_by(100).await;
    gate.open();
    for (number, answer) in join_all(asking).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap().text(), format!("/{number}"));
    }
    assert_eq!(origin.most_at_once(), 100);
}

#[tokio::test]
async fn more_streams_than_are_allowed_wait_for_their_turn() {
    let (origin, secured) = site("{}", |seen| {
        Reply::ok(seen.path.clone()).header("cache-control", "no-store")
    })
    .await;
    let client = secured.client().await;
    let asking = (0..500).map(|number| {
        let client = client.clone();
        tokio::spawn(async move { client.get(&format!("/{number}")).await })
    });
    let answers = join_all(asking.collect::<Vec<_>>()).await;
    assert_eq!(answers.len(), 500);
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap().text(), format!("/{number}"));
    }
    assert_eq!(origin.count(), 500);
}

#[tokio::test]
async fn clients_of_all_protocols_share_one_load() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        let held = held.clone();
        async move {
            held.pass().await;
            Reply::fresh("once")
        }
    })
    .await;
    let secured = Arc::new(SecuredGateway::start(Setup::new(&origin)).await);
    let client = secured.client().await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.get("/page").await }
    });
    gate.reached_by(1).await;
    let by_http3 = tokio::spawn(async move { client.get("/page").await });
    let by_tcp = [Version::HTTP_11, Version::HTTP_2].map(|version| {
        let secured = Arc::clone(&secured);
        tokio::spawn(async move { secured.ask_over_tcp(over_tcp(version, "/page")).await })
    });
    // Who follows a load is counted before it is answered.
    secured
        .gateway
        .metric_until("lamina_cache_coalesced_requests_total", &[], |count| {
            count >= 3.0
        })
        .await;
    gate.open();
    assert_eq!(first.await.unwrap().text(), "once");
    for follower in [by_http3].into_iter().chain(by_tcp) {
        let answer = follower.await.unwrap();
        assert_eq!(answer.text(), "once");
        assert!(answer.cache().collapsed, "{:?}", answer.cache());
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn stale_copies_are_served_while_they_are_refreshed_and_while_the_origin_fails() {
    let gate = Gate::new();
    gate.open();
    let (held, count) = (gate.clone(), AtomicUsize::new(0));
    let mut origin = Origin::start(move |_| {
        let (held, version) = (held.clone(), count.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            held.pass().await;
            Reply::ok(format!("v{version}")).header("cache-control", "max-age=0")
        }
    })
    .await;
    let policy = "{stale_while_revalidate: 1h, stale_if_error: 1h}";
    let secured = SecuredGateway::start(Setup::new(&origin).policy(policy)).await;
    let client = secured.client().await;
    assert_eq!(client.get("/").await.text(), "v1");
    gate.shut();
    let stale = client.get("/").await;
    assert_eq!(stale.text(), "v1");
    gate.reached_by(1).await;
    gate.open();
    wait_for("the refreshed copy", SOON, || async {
        (client.get("/").await.text() != "v1").then_some(())
    })
    .await;
    origin.stop().await;
    assert_eq!(client.get("/").await.status, 200);
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

#[tokio::test]
async fn a_client_that_leaves_cancels_a_load_that_nobody_else_waits_for() {
    let given_up = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&given_up);
    let origin = Origin::start(move |asked| {
        let pending = PendingAnswer(Some(Arc::clone(&counted)));
        async move {
            let _pending = pending;
            if asked.body.collect().await.is_err() {
                return Reply::hang_up();
            }
            std::future::pending().await
        }
    })
    .await;
    let setup = Setup::new(&origin).route("{name: site, upstream: origin, cache: off}");
    let secured = SecuredGateway::start(setup).await;
    let client = secured.client().await;
    // It wants no answer any more, and its connection goes on.
    let mut exchange = client.request("/stopped").open().await.unwrap();
    exchange.upload.finish().await;
    origin.saw(1).await;
    exchange.download.stop();
    let gone = |count| {
        let given_up = Arc::clone(&given_up);
        async move {
            let what = format!("{count} requests are given up at the origin");
            wait_until(&what, SOON, || given_up.load(Ordering::SeqCst) >= count).await;
        }
    };
    gone(1).await;
    // It breaks its content off and takes no answer.
    let mut exchange = client.ask(Method::POST, "/reset").open().await.unwrap();
    assert!(exchange.upload.send("some of it").await);
    origin.saw(2).await;
    exchange.upload.reset();
    exchange.download.stop();
    gone(2).await;
    // Its whole connection ends.
    let mut exchange = client.request("/closed").open().await.unwrap();
    exchange.upload.finish().await;
    origin.saw(3).await;
    client.connection.close(0x100_u32.into(), b"");
    gone(3).await;
}

/// What the origin sends after the client has left is taken for nobody.
#[tokio::test]
async fn a_client_that_stops_an_answer_ends_its_stream_at_the_origin() {
    let (tell, mut abandoned) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_| {
        let tell = tell.clone();
        async move {
            let (reply, pieces) = Reply::stream();
            tokio::spawn(async move {
                while pieces.send(vec![b'.'; 10_000]).await {}
                let _ = tell.send(());
            });
            reply
        }
    })
    .await;
    let setup = Setup::new(&origin).route("{name: site, upstream: origin, cache: off}");
    let secured = SecuredGateway::start(setup).await;
    let client = secured.client().await;
    let mut exchange = client.request("/endless").open().await.unwrap();
    exchange.upload.finish().await;
    let (status, _) = exchange.download.head().await.unwrap();
    assert_eq!(status, 200);
    let mut read = 0;
    while read < MIB {
        read += exchange.download.piece().await.unwrap().unwrap().len();
    }
    exchange.download.stop();
    within("the origin's stream is abandoned", SOON, abandoned.recv())
        .await
        .unwrap();
    let mut other = client.request("/endless-too").open().await.unwrap();
    other.upload.finish().await;
    assert_eq!(other.download.head().await.unwrap().0, 200);
}

#[tokio::test]
async fn an_answer_that_the_origin_cuts_is_cut_for_the_client() {
    let origin = Origin::start(|_| async {
        let (reply, pieces) = Reply::stream();
        tokio::spawn(async move {
            pieces.send("half").await;
            pieces.cut();
        });
        reply
    })
    .await;
    let secured = SecuredGateway::start(Setup::new(&origin)).await;
    let client = secured.client().await;
    // More often than a client may reset: it is not the client that did it.
    for number in 0..400 {
        let cut = client.request(&format!("/{number}")).try_send().await;
        assert_eq!(cut.err(), Some(H3Failure::Reset(0x102)), "request {number}");
    }
    origin.behave(|_| async { Reply::fresh("whole") });
    assert_eq!(client.get("/whole").await.text(), "whole");
}

#[tokio::test]
async fn log_and_recent_requests_name_the_protocol_alike() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let setup = Setup::new(&origin).top(
        "admin",
        "{address: \"127.0.0.1:0\", token: a-token-for-reading}",
    );
    let mut secured = SecuredGateway::start(setup).await;
    secured.gateway = secured.gateway.with_token("a-token-for-reading");
    secured.client().await.get("/over-three").await;
    secured
        .ask_over_tcp(over_tcp(Version::HTTP_2, "/over-two"))
        .await;
    secured
        .ask_over_tcp(over_tcp(Version::HTTP_11, "/over-one"))
        .await;
    let protocols = [
        ("/over-three", "h3"),
        ("/over-two", "h2"),
        ("/over-one", "http/1.1"),
    ];
    for (path, protocol) in protocols {
        let line = secured
            .gateway
            .logged("the access line", |line| line.contains(path))
            .await;
        let line: Value = serde_json::from_str(&line).unwrap();
        let fields = line.get("fields").unwrap_or(&line);
        assert_eq!(fields["protocol"], protocol, "{line}");
        let query = format!("/v1/requests/recent?contains={path}&limit=1");
        let recent = wait_for("the request is among the last ones", SOON, || async {
            let answer = secured.gateway.admin(Method::GET, &query, "").await;
            let answer: Value = serde_json::from_str(&answer.text).unwrap();
            answer["requests"].get(0).cloned()
        })
        .await;
        assert_eq!(recent["protocol"], protocol, "{recent}");
    }
}

#[tokio::test]
async fn a_slow_origin_is_waited_for_longer_than_a_connection_may_be_idle() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |asked| {
        let held = held.clone();
        async move {
            if asked.seen.path == "/slow" {
                held.pass().await;
            }
            Reply::fresh("at last")
        }
    })
    .await;
    let setup = Setup::new(&origin).listener("limits", "{idle_timeout: 1s}");
    let secured = SecuredGateway::start(setup).await;
    let client = secured.client().await;
    let asking = tokio::spawn(async move { client.get("/slow").await });
    gate.reached_by(1).await;
    // A connection beside it is ended for being idle, and a second one after it, too: by then the
    // first client was silent for longer than that.
    for _ in 0..2 {
        let idle = secured.client().await;
        idle.get("/page").await;
        assert_eq!(idle.closed().await, H3Failure::Closed(0x100));
    }
    gate.open();
    assert_eq!(asking.await.unwrap().text(), "at last");
}
