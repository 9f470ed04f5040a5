//! Requests to purge in spellings that listeners read anew, with bodies, and of pages with too many
//! tags: what is answered as done is gone, and nothing that is about purging reaches the application.

use e2e::client::Answer;
use e2e::fleet::Pages;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::json;

const HOST: &str = "shop.example";

const DIALECTS: &str = "{enabled: true, allow: [127.0.0.1], dialects: [url, varnish, shopware, souin, \
                        nginx, magento]}";

/// Pages whose body is their version.
async fn versions(pages: &Pages) -> Origin {
    let pages = pages.clone();
    Origin::pages(move |seen| Reply::fresh(pages.version(seen.path_only()).to_string())).await
}

async fn get(gateway: &Gateway, path: &str) -> Answer {
    gateway.client().request(path).host(HOST).send().await
}

async fn shown(gateway: &Gateway, path: &str) -> u64 {
    get(gateway, path).await.text().parse().unwrap()
}

/// Sends a head as it is written here, and gives the whole answer.
async fn exchange(gateway: &Gateway, line: &str, rest: &str) -> String {
    let mut raw = RawConnection::open(gateway.address).await;
    raw.write(format!(
        "{line} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{rest}"
    ))
    .await;
    String::from_utf8_lossy(&raw.to_end().await).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn a_text_reaches_the_pages_that_the_listener_reads_it_as() {
    let pages = Pages::default();
    let origin = versions(&pages).await;
    let gateway = Setup::new(&origin)
        .listener("path", "{slashes: merge, escaped_slash: decode}")
        .top("purge_method", DIALECTS)
        .start()
        .await;
    for (line, fields) in [
        ("PURGE /n//1*", ""),
        ("PURGE /n%2F*", ""),
        ("PURGE /n//1", ""),
        ("BAN /", "X-Url: ^/n//1\r\n"),
        ("BAN /", "X-Url: ^/n//1$\r\n"),
        ("BAN /", "X-Host: shop.example\r\nX-Url: ^/n%2f1\r\n"),
        ("BAN /n//1", ""),
        ("PURGE /souin-api/souin/GET-http-shop.example-/n//1.*", ""),
        ("GET /purge/n//1*", ""),
    ] {
        let old = shown(&gateway, "/n/1").await;
        let new = pages.change("/n/1");
        assert_eq!(shown(&gateway, "/n//1").await, old, "it is stored");
        let told = exchange(&gateway, line, &format!("{fields}\r\n")).await;
        assert!(matches!(status(&told), "200" | "204"), "{line}: {told}");
        assert_eq!(shown(&gateway, "/n/1").await, new, "{line} {fields}");
    }
    for selector in [
        json!({"prefix": "/n//1"}),
        json!({"prefix": "shop.example/n%2F"}),
        json!({"prefix": "/n%2"}),
        json!({"pattern": "*/n//1"}),
        json!({"pattern": "shop.example//n%2F*"}),
    ] {
        let old = shown(&gateway, "/n/1").await;
        let new = pages.change("/n/1");
        assert_eq!(shown(&gateway, "/n/1").await, old, "it is stored");
        gateway.purge(selector.clone()).await;
        assert_eq!(shown(&gateway, "/n/1").await, new, "{selector}");
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_about_purging_reaches_the_application() {
    for rules in ["{slashes: merge, escaped_slash: decode}", "{}"] {
        let pages = Pages::default();
        let origin = versions(&pages).await;
        let gateway = Setup::new(&origin)
            .listener("path", rules)
            .top("purge_method", DIALECTS)
            .start()
            .await;
        let old = shown(&gateway, "/a").await;
        let (new, count) = (pages.change("/a"), origin.count());
        for line in [
            "HEAD //purge/a",
            "POST //purge//a",
            "POST /%70urge%2Fa%2Fb%252f",
            "GET //souin-api/souin/",
            "GET /;x/purge/b",
        ] {
            let told = exchange(&gateway, line, "Content-Length: 0\r\n\r\n").await;
            assert!(matches!(status(&told), "400" | "501"), "{line}: {told}");
        }
        assert_eq!(shown(&gateway, "/a").await, old, "{rules}");
        assert_eq!(origin.count(), count, "{rules}");
        for line in ["GET //purge/a", "PURGE //purge/a"] {
            let told = exchange(&gateway, line, "\r\n").await;
            let expected = match rules {
                // Only the application could read it so.
                "{}" => "400",
                _ if line.starts_with("GET") => "200",
                // It is gone already, and 404 says so.
                _ => "404",
            };
            assert_eq!(status(&told), expected, "{rules} {line}: {told}");
        }
        assert_eq!(origin.count(), count, "{rules}");
        let is_new = shown(&gateway, "/a").await == new;
        assert_eq!(is_new, rules != "{}", "{rules}");
    }
}

#[tokio::test]
async fn a_body_that_says_something_is_refused_and_an_empty_one_says_nothing() {
    let pages = Pages::default();
    let origin = versions(&pages).await;
    let gateway = Setup::new(&origin)
        .top("purge_method", DIALECTS)
        .start()
        .await;
    let long = format!("2000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x2000));
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    for (body, expected) in [
        ("Content-Length: 0\r\n\r\n".to_owned(), "200"),
        (format!("{chunked}0\r\n\r\n"), "200"),
        ("Content-Length: 2\r\n\r\n{}".to_owned(), "501"),
        (format!("{chunked}2\r\n{{}}\r\n0\r\n\r\n"), "501"),
        (format!("{chunked}{long}"), "501"),
    ] {
        let old = shown(&gateway, "/a").await;
        let new = pages.change("/a");
        let told = exchange(&gateway, "PURGE /a", &body).await;
        assert_eq!(status(&told), expected, "{told}");
        let shown = shown(&gateway, "/a").await;
        assert_eq!(shown, if expected == "200" { new } else { old }, "{told}");
        if expected == "501" {
            assert!(told.contains("a body"), "{told}");
            gateway.purge(json!({"all": true})).await;
        }
    }
    assert!(origin.seen().iter().all(|seen| seen.method == "GET"));
}

/// A purge by a tag that was not kept would miss the page.
#[tokio::test]
async fn a_page_with_more_tags_than_are_kept_is_not_stored_and_says_why() {
    let origin = Origin::pages(|seen| {
        let count: usize = seen.path_only()[1..].parse().unwrap();
        let tags: Vec<String> = (0..count).map(|n| format!("cat_p_{n}")).collect();
        Reply::fresh("x").header("x-magento-tags", &tags.join(","))
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("purge_method", DIALECTS)
        .policy("{}")
        .start()
        .await;
    for _ in 0..2 {
        let answer = get(&gateway, "/1000").await;
        assert!(!answer.header("cache-status").contains("too-many-tags"));
        assert!(!answer.has("x-magento-tags"));
    }
    let too_many = get(&gateway, "/1025").await;
    assert!(!too_many.has("x-magento-tags"));
    let why = too_many.header("cache-status").to_owned();
    assert!(why.contains("too-many-tags"), "{why}");
    assert!(!get(&gateway, "/1025").await.is_hit());
    let logged = |line: &str| line.contains("more than 1024 tags");
    gateway.logged("why it is not stored", logged).await;
}

#[tokio::test]
async fn what_a_refresh_loads_is_fresh_with_a_second_tier() {
    let pages = Pages::default();
    let origin = versions(&pages).await;
    let dir = tempfile::tempdir().unwrap();
    let tier = format!(
        "{{l2: {{disk: {{path: \"{}\"}}}}}}",
        dir.path().join("l2").display()
    );
    let gateway = Setup::new(&origin)
        .top(
            "purge_method",
            "{enabled: true, allow: [127.0.0.1], dialects: [refresh]}",
        )
        .top("cache", &tier)
        .start()
        .await;
    for _ in 0..3 {
        shown(&gateway, "/a").await;
        let version = pages.change("/a");
        let ask = gateway.client().request("/a").host(HOST);
        let answer = ask.header("x-refresh", "1").send().await;
        assert_eq!(answer.text(), version.to_string());
        let count = origin.count();
        // A purge that holds in the log comes after that of the refresh.
        gateway.purge(json!({"tag": "barrier"})).await;
        let next = wait_for("it is stored", SOON, || async {
            let next = get(&gateway, "/a").await;
            next.is_hit().then_some(next)
        })
        .await;
        let told = next.header("cache-status");
        assert!(!told.contains("ttl=-"), "{told}");
        assert_eq!(next.text(), version.to_string());
        assert_eq!(origin.count(), count, "it was loaded once");
    }
    let method = Method::from_bytes(b"FLUSHALL").unwrap();
    let ask = gateway.client().uncached().ask(method, "/a").host(HOST);
    assert_eq!(ask.send().await.status, 501, "no application gets this");
}
