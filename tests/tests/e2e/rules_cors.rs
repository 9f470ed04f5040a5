//! `cors` of a route: which sites may read its answers (traffic.md, CO1 to CO5).

use e2e::cli::run;
use e2e::client::{Answer, Client};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, write_config};
use http::Method;

const CORS: &str = "origins: [\"https://*.example.com\", \"https://shop.test\"], methods: [GET, PUT], \
                    headers: [authorization, x-app], expose: [x-total], credentials: true, max_age: 10m";

async fn gateway(cors: &str, more: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/own" => Reply::fresh("x")
            .header("access-control-allow-origin", "*")
            .header("access-control-allow-credentials", "false")
            .header("access-control-max-age", "1")
            .header("vary", "Accept-Language"),
        "/absent" => Reply::ok("x").status(404),
        "/typed" => Reply::fresh("x").header("content-type", "text/html"),
        "/varying" => Reply::fresh(format!("for {}", seen.header("origin")))
            .header("vary", "Origin")
            .header("access-control-allow-origin", seen.header("origin")),
        "/tagged" => Reply::fresh("x").header("etag", "\"a\""),
        _ => Reply::fresh("x"),
    })
    .await;
    let route = format!("{{name: site, upstream: origin, cors: {{{cors}}}{more}}}");
    let gateway = Setup::new(&origin).route(&route).start().await;
    (origin, gateway)
}

async fn get(client: &Client, path: &str, origin: Option<&str>) -> Answer {
    let ask = client.request(path);
    match origin {
        Some(origin) => ask.header("origin", origin).send().await,
        None => ask.send().await,
    }
}

fn varies_by_origin(answer: &Answer) -> bool {
    let lines = answer.headers.get_all("vary").iter();
    let names = lines.flat_map(|line| line.to_str().unwrap().split(','));
    names
        .filter(|name| name.trim().eq_ignore_ascii_case("origin"))
        .count()
        == 1
}

#[tokio::test]
async fn one_stored_answer_is_for_all_sites() {
    let (origin, gateway) = gateway(CORS, "").await;
    let client = gateway.client();
    let first = get(&client, "/", Some("https://a.example.com")).await;
    assert_eq!(
        first.header("access-control-allow-origin"),
        "https://a.example.com"
    );
    assert_eq!(first.header("access-control-allow-credentials"), "true");
    assert_eq!(first.header("access-control-expose-headers"), "x-total");
    let second = get(&client, "/", Some("https://shop.test")).await;
    assert!(second.is_hit());
    assert_eq!(
        second.header("access-control-allow-origin"),
        "https://shop.test"
    );
    for stranger in [
        "https://evil.test",
        "https://evil.test/.example.com",
        "null",
    ] {
        let answer = get(&client, "/", Some(stranger)).await;
        assert!(answer.is_hit() && varies_by_origin(&answer), "{stranger}");
        assert!(!answer.has("access-control-allow-origin"), "{stranger}");
        assert!(
            !answer.has("access-control-allow-credentials"),
            "{stranger}"
        );
    }
    assert_eq!(origin.count(), 1);
}

/// Most origins that know of CORS say `Vary: Origin`; what a client invents makes no variants.
#[tokio::test]
async fn an_origin_that_varies_by_the_site_makes_no_variants() {
    let one_site = "origins: [\"https://shop.test\"]";
    for (cors, more, times) in [
        (one_site, "", 1),
        ("origins: [\"*\"]", "", 1),
        (CORS, "", 1),
        // Who lists it in the key wants it told apart.
        (CORS, ", key: {headers: [Origin]}", 4),
    ] {
        let (origin, gateway) = gateway(cors, more).await;
        let client = gateway.client();
        for site in [
            None,
            Some("https://shop.test"),
            Some("https://e1.test"),
            Some("https://e2.test"),
        ] {
            let answer = get(&client, "/varying", site).await;
            let is_let_in = answer.has("access-control-allow-origin");
            let expected =
                cors.contains('*') && !cors.contains("shop") || site == Some("https://shop.test");
            assert_eq!(is_let_in, expected, "{cors} {site:?}");
            if times == 1 {
                assert_eq!(answer.text(), "for ", "{cors} {site:?}");
            }
        }
        assert_eq!(origin.count_of("/varying"), times, "{cors} {more}");
    }
    // What is not for the cache tells the origin who asks.
    let (origin, gateway) = gateway(CORS, "").await;
    let ask = gateway.client().ask(Method::POST, "/varying");
    ask.header("origin", "https://shop.test").send().await;
    assert_eq!(origin.seen()[0].header("origin"), "https://shop.test");
}

/// rs/cors#10, expressjs/cors#106: a cache behind us must not give one site's answer to another.
#[tokio::test]
async fn every_answer_says_that_it_varies() {
    let (_origin, gateway) = gateway(CORS, "").await;
    let client = gateway.client();
    for path in ["/", "/", "/absent", "/own", "/own"] {
        for site in [None, Some("https://a.example.com")] {
            assert!(
                varies_by_origin(&get(&client, path, site).await),
                "{path} {site:?}"
            );
        }
    }
    get(&client, "/tagged", None).await;
    let conditional = client.request("/tagged").header("if-none-match", "\"a\"");
    let answer = conditional.send().await;
    assert_eq!(answer.status, 304);
    assert!(varies_by_origin(&answer));
    assert!(varies_by_origin(&client.head("/").await));
    assert!(
        varies_by_origin(&client.ask(Method::TRACE, "/").send().await),
        "an error of ours"
    );
}

#[tokio::test]
async fn for_everybody_nothing_varies() {
    let (origin, gateway) = gateway("origins: [\"*\"]", "").await;
    let client = gateway.client();
    for site in [None, Some("https://a.test"), Some("https://b.test")] {
        let answer = get(&client, "/", site).await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "*",
            "{site:?}"
        );
        assert!(!answer.has("vary") && !answer.has("access-control-allow-credentials"));
    }
    assert_eq!(origin.count(), 1);
}

/// What other rules write is counted in, and nothing stands there twice.
#[tokio::test]
async fn all_rules_by_which_an_answer_varies_are_told() {
    let both = ["Origin, Accept-Encoding"];
    let set = ", headers: {response: {set: {vary: \"cookie, ORIGIN\"}}}";
    let untyped = ", headers: {response: {remove: [content-type]}}";
    let typed = ", headers: {response: {set: {content-type: text/css}}}";
    for (path, more, expected) in [
        ("/typed", "", &both[..]),
        ("/other", "", &["Origin"]),
        // What the origin said decides whether an answer is encoded, not what a rule says.
        ("/other", typed, &["Origin"]),
        ("/own", typed, &["Accept-Language", "Origin"]),
        ("/typed", untyped, &both),
        ("/typed", set, &["cookie, ORIGIN", "Accept-Encoding"]),
    ] {
        let (_origin, gateway) = gateway(CORS, &format!(", compress: {{}}{more}")).await;
        for n in 0..2 {
            let answer = get(&gateway.client(), path, Some("https://shop.test")).await;
            assert_eq!(answer.is_hit(), n == 1, "{path} {more}");
            let lines: Vec<_> = answer.headers.get_all("vary").iter().collect();
            assert_eq!(lines, expected, "{path} {more}");
        }
    }
}

#[tokio::test]
async fn an_origins_own_fields_are_replaced() {
    let (_origin, gateway) = gateway(CORS, "").await;
    let client = gateway.client();
    for _ in 0..2 {
        let answer = get(&client, "/own", Some("https://a.example.com")).await;
        let lines: Vec<_> = answer
            .headers
            .get_all("access-control-allow-origin")
            .iter()
            .collect();
        assert_eq!(lines, ["https://a.example.com"]);
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert!(!answer.has("access-control-max-age"));
        assert_eq!(answer.headers.get_all("vary").iter().count(), 2);
    }
    let stranger = get(&client, "/own", Some("https://evil.test")).await;
    assert!(!stranger.has("access-control-allow-origin"));
}

fn preflight(client: &Client, site: &str, method: &str) -> e2e::client::Ask {
    let ask = client.ask(Method::OPTIONS, "/").header("origin", site);
    let ask = ask.header("access-control-request-method", method);
    ask.header("access-control-request-headers", "x-app")
}

#[tokio::test]
async fn preflights_are_answered_at_the_edge() {
    let (origin, gateway) = gateway(CORS, "").await;
    for client in [
        gateway.client().uncached(),
        gateway.client_http2().uncached(),
    ] {
        let answer = preflight(&client, "https://a.example.com", "PUT")
            .send()
            .await;
        assert_eq!(answer.status, 204);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "https://a.example.com"
        );
        assert_eq!(answer.header("access-control-allow-methods"), "GET, PUT");
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "authorization, x-app"
        );
        assert_eq!(answer.header("access-control-max-age"), "600");
        assert!(varies_by_origin(&answer));
        let stranger = preflight(&client, "https://evil.test", "PUT").send().await;
        assert!(!stranger.has("access-control-allow-methods") && varies_by_origin(&stranger));
    }
    assert_eq!(origin.count(), 0);
    // A plain OPTIONS is for the origin.
    let client = gateway.client().uncached();
    let plain = client
        .ask(Method::OPTIONS, "/")
        .header("origin", "https://a.example.com");
    assert_eq!(plain.send().await.status, 200);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn who_may_not_ask_gets_no_preflight() {
    let (_origin, gateway) = gateway(CORS, ", access: {deny: [127.0.0.0/8]}").await;
    let client = gateway.client().uncached();
    let answer = preflight(&client, "https://a.example.com", "PUT")
        .send()
        .await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn what_a_script_asks_for_is_told_where_all_is_allowed() {
    let (_origin, gateway) =
        gateway("origins: [\"*\"], methods: [\"*\"], headers: [\"*\"]", "").await;
    let client = gateway.client().uncached();
    let answer = preflight(&client, "https://a.test", "PATCH").send().await;
    assert_eq!(answer.header("access-control-allow-methods"), "PATCH");
    assert_eq!(answer.header("access-control-allow-headers"), "x-app");
    assert!(answer.has("access-control-max-age"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (cors, said) in [
        (
            "origins: [\"*\"], credentials: true",
            "every site could read",
        ),
        ("origins: []", "no origins"),
        ("origins: [example.com]", "is not an origin"),
        ("origins: [\"null\"]", "sandboxed"),
        ("origins: [\"https://*\"]", "bad host"),
        ("origins: [\"*\"], methods: [get]", "capitals"),
        ("origins: [\"*\"], headers: [\"a b\"]", "header"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!(
            "version: 1\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nupstreams: {{o: {{targets: [\"http://127.0.0.1:1\"]}}}}\nroutes:\n  - {{name: r, upstream: o, cors: {{{cors}}}}}\n"
        );
        let config = write_config(dir.path(), &yaml);
        let refused = run(&["validate", "-c", config.to_str().unwrap()]);
        assert_ne!(refused.code, Some(0), "{cors}");
        assert!(
            refused.output().contains(said),
            "{cors}: {}",
            refused.output()
        );
    }
}
