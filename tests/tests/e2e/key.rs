//! What makes two requests the same for the cache.

use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

/// A gateway with this key rule; asks the targets in turn and answers how many loads they made.
async fn loads(key: &str, targets: &[&str]) -> usize {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .route(&format!("{{name: site, upstream: origin, key: {key}}}"))
        .start()
        .await;
    for target in targets {
        gateway.client().get(target).await;
    }
    origin.count()
}

#[tokio::test]
async fn by_default_path_and_query_count_as_the_origin_gets_them() {
    let targets = [
        "/a",
        "/a?",
        "/a?x=1",
        "/a?x=1&y=2",
        "/a?y=2&x=1",
        "/A",
        "/a/",
        "/a;b",
        "//a",
        "/%21",
        "/!",
    ];
    assert_eq!(loads("{}", &targets).await, targets.len());
    assert_eq!(loads("{}", &["/a?x=1", "/%61?%78=1"]).await, 1);
}

#[tokio::test]
async fn parameters_can_be_dropped_kept_and_sorted() {
    assert_eq!(
        loads(
            "{query: {drop: [\"utm_*\", gclid]}}",
            &["/?a=1&utm_source=x&gclid=2", "/?a=1"]
        )
        .await,
        1
    );
    assert_eq!(
        loads(
            "{query: {drop: [\"utm_*\"]}}",
            &["/?a=1&utm_x=1", "/?a=2&utm_x=1"]
        )
        .await,
        2
    );
    assert_eq!(
        loads(
            "{query: {include: [page]}}",
            &["/?page=1&x=1", "/?page=1&x=2", "/?page=2"]
        )
        .await,
        2
    );
    assert_eq!(
        loads("{query: {sort: true}}", &["/?b=2&a=1", "/?a=1&b=2"]).await,
        1
    );
}

#[tokio::test]
async fn the_origin_gets_the_whole_query_where_the_route_says_so() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .route("{name: s, upstream: origin, key: {query: {include: []}, origin_query: as_sent}}")
        .start()
        .await;
    gateway.client().get("/p?b=2&a=1").await;
    assert_eq!(origin.last().path, "/p?b=2&a=1");
}

#[tokio::test]
async fn headers_and_cookies_can_be_part_of_it() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let rule = "{headers: [x-tenant], cookies: [plan]}";
    let gateway = Setup::new(&origin)
        .route(&format!("{{name: s, upstream: origin, key: {rule}}}"))
        .start()
        .await;
    let ask = |tenant: &'static str, cookie: &'static str| {
        gateway
            .client()
            .request("/")
            .header("x-tenant", tenant)
            .header("cookie", cookie)
            .send()
    };
    assert!(!ask("a", "plan=1; session=7").await.is_hit());
    assert!(ask("a", "session=8; plan=1").await.is_hit());
    assert!(!ask("b", "plan=1").await.is_hit());
    assert!(!ask("a", "plan=2").await.is_hit());
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn parts_never_run_into_each_other() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .route("{name: s, upstream: origin, key: {headers: [x-a, x-b]}}")
        .start()
        .await;
    for (a, b) in [("a|b", "c"), ("a", "b|c"), ("a|b|c", ""), ("", "a|b|c")] {
        let answer = gateway
            .client()
            .request("/")
            .header("x-a", a)
            .header("x-b", b)
            .send()
            .await;
        assert!(!answer.is_hit(), "{a:?} {b:?}");
    }
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn hosts_have_keys_of_their_own_whatever_their_case() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.authority.clone())).await;
    let gateway = Setup::new(&origin).start().await;
    let ask = |host: &'static str| gateway.client().request("/").host(host).send();
    assert_eq!(ask("a.example").await.text(), "a.example");
    assert_eq!(ask("b.example").await.text(), "b.example");
    assert!(!ask("a.example:81").await.is_hit());
    assert!(ask("A.Example").await.is_hit());
}

#[tokio::test]
async fn nothing_is_cached_by_extension() {
    let origin = Origin::pages(|_| Reply::ok("secret").header("cache-control", "private")).await;
    let gateway = Setup::new(&origin).start().await;
    for target in [
        "/account/x.css",
        "/account;x.css",
        "/account%2Fx.css",
        "/account/..%2Fx.css",
    ] {
        for _ in 0..2 {
            assert!(!gateway.client().get(target).await.is_hit());
        }
    }
    assert_eq!(origin.count(), 8);
}

/// An address of IPv6 has many spellings, in the file as in what clients send.
#[tokio::test]
async fn an_address_is_one_host_in_each_spelling() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .route("{name: old, match: {host: \"[0:0:0:0:0:0:0:1]\", path: /old}, redirect: {to: \"https://{host}/new\", allow_hosts: [\"[0::1]\"]}}")
        .route("{name: one, match: {host: \"[2001:db8:0::A]\"}, upstream: origin}")
        .route("{name: site, respond: {body: other}}")
        .start()
        .await;
    let spellings = [
        "[2001:db8::a]",
        "[2001:DB8:0:0::000a]",
        "[2001:0db8::A]:80",
        "[2001:db8:0:0:0:0:0:a]:",
    ];
    for host in spellings {
        let answer = gateway.client().request("/page").host(host).send().await;
        assert_eq!(answer.text(), "x", "{host}");
    }
    assert_eq!(origin.count(), 1, "one host has one entry");
    for host in ["[::1]", "[0:0::1]", "[0:0:0:0:0:0:0:1]:80"] {
        let client = gateway.client().uncached();
        let answer = client.request("/old").host(host).send().await;
        assert_eq!(answer.header("location"), "https://[::1]/new", "{host}");
    }
    let url = "http://[2001:db8:0:0:0:0:0:a]/page";
    gateway.purge(serde_json::json!({ "url": url })).await;
    let asked = gateway.client().request("/page").host("[2001:db8::a]");
    assert!(!asked.send().await.is_hit(), "a purge reaches it, too");
}
