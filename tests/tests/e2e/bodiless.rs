//! Answers that have no content, whoever makes them: those to HEAD, 204 and 304 (RFC 9110 §6.4.1,
//! §8.6, §9.3.2). Over every front.

use e2e::client::Client;
use e2e::front::Front;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;

/// Statuses by path, from the gateway itself and from the origin.
const HEADS: [(&str, u16); 5] = [
    ("/dead", 502),
    ("/nowhere", 404),
    ("/a%00b", 400),
    ("/large", 413),
    ("/page", 200),
];

async fn no_content_over(front: Front) {
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        "/204" => Reply::status_only(204).header("cache-control", "max-age=60"),
        "/large" => Reply::status_only(413),
        _ => Reply::fresh("page").header("etag", "\"a\""),
    })
    .await;
    let setup = Setup::new(&origin)
        .upstream("dead", "http://127.0.0.1:1")
        .route("{name: dead, match: {path: /dead}, upstream: dead}")
        .route("{name: site, match: {path: [/204, /page, /large, /304]}, upstream: origin}");
    let fronted = front.start(setup, &[]).await;
    let messages = fronted.messages().await;
    let mut clients = vec![Client::http1(messages.address)];
    if front == Front::Clear {
        clients.push(Client::http2(messages.address));
    }
    for client in clients {
        let client = client.uncached();
        for (path, status) in HEADS {
            let ask = || client.request(path).send();
            let head = client.ask(Method::HEAD, path).send().await;
            assert_eq!((head.status.as_u16(), head.text()), (status, ""), "{path}");
            // The connection is in order, and GET has the content.
            let page = ask().await;
            assert_eq!(page.status.as_u16(), status, "{path}");
            assert_eq!(page.body.is_empty(), path == "/large", "{path}");
        }
        // From the origin, and then from the store.
        for _ in 0..2 {
            let answer = client.request("/204").send().await;
            assert_eq!(answer.status, 204);
            assert!(!answer.has("content-length"), "{:?}", answer.headers);
        }
        for path in ["/304", "/page"] {
            client.request(path).send().await;
            let ask = client.request(path);
            let answer = ask.header("if-none-match", "\"a\"").send().await;
            assert_eq!((answer.status.as_u16(), answer.text()), (304, ""));
            let length = answer.header("content-length");
            assert!(length.is_empty() || length == "4", "{length} on 304");
        }
    }
}

#[tokio::test]
async fn no_content_comes_where_there_is_none() {
    no_content_over(Front::Clear).await;
}

#[tokio::test]
async fn no_content_comes_over_tls_by_http1() {
    no_content_over(Front::TlsHttp1).await;
}

#[tokio::test]
async fn no_content_comes_over_tls_by_http2() {
    no_content_over(Front::TlsHttp2).await;
}

#[tokio::test]
async fn no_content_comes_over_http3() {
    no_content_over(Front::Http3).await;
}
