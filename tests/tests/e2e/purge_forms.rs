//! `PURGE` and its kind as applications send them: done, or refused with words.

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;

/// Names and values of header fields.
type FieldLines = &'static [(&'static str, &'static str)];

const ALLOWED: &str = "{enabled: true, allow: [127.0.0.1]}";

/// Pages with tags, behind a gateway that trusts the proxy that every client here is.
async fn shop() -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| {
        let page = Reply::fresh(seen.path.clone());
        match seen.path.as_str() {
            "/a" => page.header("surrogate-key", "a cat_p_5"),
            "/b" => page.header("surrogate-key", "b"),
            _ => page,
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("purge_method", ALLOWED)
        .listener("trusted_proxies", "[127.0.0.1]")
        .start()
        .await;
    (origin, gateway)
}

async fn control(gateway: &Gateway, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let ask = gateway
        .client()
        .uncached()
        .ask(method, path)
        .host("shop.example");
    let ask = fields
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value));
    ask.send().await
}

/// A page as the TLS terminator in front asks for it.
async fn over_tls(gateway: &Gateway, path: &str) -> Answer {
    let ask = gateway.client().request(path).host("shop.example");
    ask.header("x-forwarded-proto", "https").send().await
}

async fn is_held(gateway: &Gateway, path: &str) -> bool {
    over_tls(gateway, path).await.is_hit()
}

#[tokio::test]
async fn a_page_behind_a_tls_terminator_is_reached_by_a_purge_over_http() {
    let (_origin, gateway) = shop().await;
    over_tls(&gateway, "/a").await;
    assert!(is_held(&gateway, "/a").await);
    let purged = control(&gateway, "PURGE", "/a", &[]).await;
    assert_eq!(purged.status, 200);
    let text = purged.text();
    assert!(text.contains("https://shop.example/a"), "{text}");
    assert!(!is_held(&gateway, "/a").await);
    let logged =
        |line: &str| line.contains("purged by the PURGE method") && line.contains("https://shop");
    gateway.logged("what was purged", logged).await;
}

#[tokio::test]
async fn a_purge_reaches_the_page_at_every_port_that_serves_it() {
    let (_origin, gateway) = shop().await;
    let client = gateway.client();
    let with_port = || client.request("/a").host("shop.example:8443");
    with_port().send().await;
    over_tls(&gateway, "/a").await;
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let control = client.apart().uncached();
    control
        .ask(purge, "/a")
        .host("shop.example:8443")
        .send()
        .await;
    assert!(!is_held(&gateway, "/a").await, "without the port");
    assert!(!with_port().send().await.is_hit(), "with the port");
}

#[tokio::test]
async fn where_a_trusted_proxy_says_the_scheme_that_one_counts() {
    let (_origin, gateway) = shop().await;
    over_tls(&gateway, "/a").await;
    let plain = || gateway.client().request("/a").host("shop.example");
    plain().send().await;
    let told = [("x-forwarded-proto", "http")];
    let purged = control(&gateway, "PURGE", "/a", &told).await;
    assert_eq!(purged.text(), "purged\nurl http://shop.example/a\n");
    assert!(is_held(&gateway, "/a").await);
    assert!(!plain().send().await.is_hit());
}

#[tokio::test]
async fn each_form_that_is_understood_is_done_and_reaches_nothing_else() {
    let (_origin, gateway) = shop().await;
    let magento = "((^|,)cat_p_5(,|$))|((^|,)other(,|$))";
    type Form<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let forms: [Form<'_>; 10] = [
        ("/a", &[], &["/a"]),
        ("/.*", &[("x-purge-method", "regex")], &["/a", "/b", "/n/1"]),
        ("/n/.*", &[("x-purge-method", "regex")], &["/n/1"]),
        ("/n/*", &[], &["/n/1"]),
        ("/", &[("xkey", "a b")], &["/a", "/b"]),
        ("/", &[("xkey-purge", "b")], &["/b"]),
        ("/", &[("x-magento-tags-pattern", magento)], &["/a"]),
        (
            "/",
            &[("x-magento-tags-pattern", ".*")],
            &["/a", "/b", "/n/1"],
        ),
        ("/", &[("surrogate-key", "a, b")], &["/a", "/b"]),
        ("/", &[("clear-cache", "true")], &["/a", "/b", "/n/1"]),
    ];
    for (path, fields, taken) in forms {
        for page in ["/a", "/b", "/n/1"] {
            over_tls(&gateway, page).await;
            assert!(is_held(&gateway, page).await);
        }
        let answer = control(&gateway, "PURGE", path, fields).await;
        assert_eq!(answer.status, 200, "{path} {fields:?}: {}", answer.text());
        for page in ["/a", "/b", "/n/1"] {
            let held = is_held(&gateway, page).await;
            assert_eq!(held, !taken.contains(&page), "{path} {fields:?}: {page}");
        }
    }
}

#[tokio::test]
async fn what_is_not_understood_is_never_done_nor_sent_to_the_application() {
    let (origin, gateway) = shop().await;
    over_tls(&gateway, "/a").await;
    let count = origin.count();
    let refused: [(&str, &str, FieldLines); 12] = [
        ("BAN", "/", &[("x-host", ".*"), ("x-url", "^/a")]),
        (
            "BAN",
            "/",
            &[("apiplatform-ban-regex", "(/foo|/bar)($|\\,)")],
        ),
        ("ban", "/", &[("cache-tags", "a|b")]),
        ("PURGEKEYS", "/", &[]),
        ("PURGETAGS", "/", &[]),
        ("REFRESH", "/a", &[]),
        ("URIBAN", "/a", &[]),
        ("purge", "/a", &[]),
        ("PURGE", "/(a|b).*", &[("x-purge-method", "regex")]),
        ("PURGE", "/", &[("x-magento-tags-pattern", "cat_.*")]),
        ("PURGE", "/a", &[("x-purge", "gently")]),
        ("PURGE", "/", &[("cache-tags", "a|b")]),
    ];
    let n = refused.len();
    for (method, path, fields) in refused {
        let answer = control(&gateway, method, path, fields).await;
        let status = answer.status.as_u16();
        assert!(matches!(status, 400 | 501), "{method} {path}: {status}");
        let text = answer.text();
        assert!(
            text.contains("nothing was purged") && text.contains("accepted are"),
            "{text}"
        );
    }
    assert!(is_held(&gateway, "/a").await);
    assert_eq!(origin.count(), count);
    let labels = [("result", "not_understood")];
    let counted = gateway.metric("lamina_purge_requests_total", &labels).await;
    assert_eq!(counted, n as f64);
}

#[tokio::test]
async fn strangers_reach_neither_the_cache_nor_the_application() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .top("purge_method", "{enabled: true, allow: [10.0.0.1]}")
        .start()
        .await;
    for method in ["PURGE", "BAN", "PURGEKEYS"] {
        let answer = control(&gateway, method, "/", &[]).await;
        assert_eq!(answer.status, 403, "{method}");
    }
    assert_eq!(origin.count(), 0);
}

/// The application may know such methods itself where nobody purges here.
#[tokio::test]
async fn without_purge_methods_other_methods_go_on() {
    let origin = Origin::pages(|_| Reply::ok("mine")).await;
    let gateway = Setup::new(&origin).start().await;
    assert_eq!(control(&gateway, "BAN", "/", &[]).await.text(), "mine");
    assert_eq!(control(&gateway, "PURGE", "/", &[]).await.status, 405);
}

#[tokio::test]
async fn fastlys_soft_purge_is_soft_and_answered_in_its_form() {
    let origin = Origin::pages(|_| {
        Reply::ok("x").header(
            "cache-control",
            "max-age=86400, stale-while-revalidate=86400",
        )
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("purge_method", ALLOWED)
        .start()
        .await;
    let get = || gateway.client().request("/a").host("shop.example");
    get().send().await;
    let answer = control(&gateway, "PURGE", "/a", &[("fastly-soft-purge", "1")]).await;
    assert_eq!(answer.json()["status"], "ok");
    assert!(answer.json()["id"].is_string());
    let stale = get().send().await;
    assert!(stale.is_hit(), "it is there, stale: {:?}", stale.cache());
    origin.saw(2).await;
}
