//! What is made the same in requests before their key is derived: cookies, language, device; and
//! requests that a rule keeps away from the cache.

use e2e::client::Ask;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use serde_json::json;

/// A page whose lifetime the route gives, so that a cookie that counts would keep it out.
async fn site(route: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::ok("page")).await;
    let route = format!("{{name: site, upstream: origin, policy: {{ttl: 1h}}, {route}}}");
    let gateway = Setup::new(&origin).route(&route).start().await;
    (origin, gateway)
}

fn with(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> Ask {
    let ask = gateway.client().request(target);
    fields
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value))
}

#[tokio::test]
async fn cookies_that_only_track_make_no_difference() {
    let (origin, gateway) = site("cookies: {drop: [_g*, _fbp]}").await;
    for visitor in 0..20 {
        let cookie = format!("_ga=GA1.{visitor}; _fbp=fb.{visitor}; _gid={visitor}");
        let answer = with(&gateway, "/", &[("cookie", &cookie)]).send().await;
        assert_eq!(answer.is_hit(), visitor > 0, "visitor {visitor}");
    }
    assert_eq!(origin.count(), 1);
    assert_eq!(origin.last().header("cookie"), "");
    let known = [("cookie", "_ga=1; session=alice")];
    assert!(!with(&gateway, "/own", &known).send().await.is_hit());
    assert!(!with(&gateway, "/own", &known).send().await.is_hit());
    assert_eq!(origin.last().header("cookie"), "session=alice");
    let sent = gateway.client().ask(http::Method::POST, "/own");
    sent.header("cookie", "_ga=1; session=alice").send().await;
    let cookie = origin.last().header("cookie").to_owned();
    assert_eq!(cookie, "_ga=1; session=alice", "a POST goes as it came");
}

#[tokio::test]
async fn only_cookies_that_are_kept_reach_key_and_origin() {
    let route = "cookies: {keep: [\"theme\"]}, key: {cookies: [theme]}";
    let (origin, gateway) = site(route).await;
    for (cookie, hit) in [
        ("theme=dark; a=1", false),
        ("b=2; theme=dark", true),
        ("theme=light", false),
        ("c=3", false),
    ] {
        let answer = with(&gateway, "/", &[("cookie", cookie)]).send().await;
        assert_eq!(answer.is_hit(), hit, "{cookie}");
    }
    assert!(
        gateway.client().get("/").await.is_hit(),
        "none is as none that counts"
    );
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn one_language_is_picked_keyed_and_sent() {
    let origin = Origin::pages(|seen| {
        let language = seen.header("accept-language").to_owned();
        Reply::fresh(language).header("vary", "accept-language")
    })
    .await;
    let gateway = Setup::new(&origin)
        .route("{name: site, upstream: origin, accept_language: [de, en, fr]}")
        .start()
        .await;
    for (asked, picked) in [
        ("de", "de"),
        ("de-CH, de;q=0.9, en;q=0.5", "de"),
        ("en-US,en;q=0.9", "en"),
        ("en;q=0.1, fr;q=0.2", "fr"),
        ("it", "de"),
    ] {
        let answer = with(&gateway, "/", &[("accept-language", asked)])
            .send()
            .await;
        assert_eq!(answer.text(), picked, "{asked}");
    }
    assert_eq!(gateway.client().get("/").await.text(), "de");
    assert_eq!(origin.count(), 3);
    let url = format!("http://{}/", gateway.address);
    gateway.purge(json!({ "url": url })).await;
    for asked in ["de", "en", "fr"] {
        let answer = with(&gateway, "/", &[("accept-language", asked)])
            .send()
            .await;
        assert!(!answer.is_hit(), "a purge of the URL reaches {asked}");
    }
}

#[tokio::test]
async fn the_kind_of_device_is_told_and_keyed_whatever_a_client_claims() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.header("x-device").to_owned())).await;
    let gateway = Setup::new(&origin)
        .route("{name: site, upstream: origin, device: x-device}")
        .start()
        .await;
    let phone = ("user-agent", "Mozilla/5.0 (iPhone) Mobile/15E148");
    let pad = ("user-agent", "Mozilla/5.0 (iPad) Mobile/15E148");
    for (fields, class, hit) in [
        (vec![phone], "mobile", false),
        (vec![pad], "tablet", false),
        (vec![phone, ("x-device", "desktop")], "mobile", true),
        (vec![("x-device", "mobile")], "desktop", false),
        (vec![], "desktop", true),
    ] {
        let answer = with(&gateway, "/", &fields).send().await;
        assert_eq!((answer.text(), answer.is_hit()), (class, hit), "{fields:?}");
    }
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn what_a_rule_keeps_away_from_the_cache_goes_to_the_origin_as_it_came() {
    let route = "cookies: {keep: []}, bypass: {cookie: [\"wordpress_logged_in*\"], \
                 header: {x-preview: \"*\"}, path: [/wp-admin/*], query: {preview: \"true\"}}";
    let (origin, gateway) = site(route).await;
    let member = ("cookie", "_ga=1; wordpress_logged_in_77=alice");
    for (target, fields) in [
        ("/", vec![member]),
        ("/", vec![("x-preview", "")]),
        ("/wp-admin/edit", vec![]),
        ("/?preview=true", vec![]),
    ] {
        for _ in 0..2 {
            let answer = with(&gateway, target, &fields).send().await;
            let status = answer.header("cache-status");
            assert!(
                status.contains("fwd=bypass") && status.contains("rule"),
                "{status}"
            );
        }
    }
    assert_eq!(origin.count(), 8);
    with(&gateway, "/", &[member]).send().await;
    assert_eq!(origin.last().header("cookie"), member.1);
    for visitor in [&[][..], &[("cookie", "_ga=1")], &[("x-other", "")]] {
        with(&gateway, "/", visitor).send().await;
    }
    assert_eq!(origin.count(), 10, "all others share one answer");
    let answer = with(&gateway, "/", &[member]).send().await;
    assert!(!answer.is_hit(), "nor does a stored answer go to them");
}

#[tokio::test]
async fn lifetimes_are_given_by_type_path_status_and_size() {
    let origin = Origin::pages(|seen| {
        let path = seen.path_only();
        let kind = match path.rsplit('.').next() {
            Some("png") => "image/png",
            _ => "Text/HTML; charset=utf-8",
        };
        let reply = Reply::ok(vec![b'x'; if path.contains("big") { 2000 } else { 10 }]);
        let reply = reply.status(if path.contains("gone") { 451 } else { 200 });
        reply.header("content-type", kind)
    })
    .await;
    let gateway = Setup::new(&origin)
        .policy(
            "{ttl: 10s, lifetimes: [{paths: [/private/*], ttl: 0s}, {statuses: [451], ttl: 20s}, \
             {types: [image/*], max_bytes: 1000B, ttl: 1h}, {types: [text/html], ttl: 30s}]}",
        )
        .start()
        .await;
    for (path, ttl) in [
        ("/a.png", Some(3600)),
        ("/big.png", Some(10)),
        ("/page", Some(30)),
        ("/private/a.png", None),
        ("/gone", Some(20)),
    ] {
        let answer = gateway.client().get(path).await;
        let status = answer.header("cache-status").to_owned();
        assert_eq!(answer.cache().ttl, ttl, "{path}: {status}");
        let stored = gateway.client().get(path).await.is_hit();
        assert_eq!(stored, ttl.is_some(), "{path}");
    }
}

/// Issue 18: CGI, PHP and WSGI take `X_Device` for `X-Device`.
#[tokio::test]
async fn no_other_spelling_of_what_the_key_holds_reaches_the_origin() {
    let route = "device: x-device, accept_language: [de, en], compress: {}, request_id: on, \
                 key: {headers: [x-tenant]}";
    let (origin, gateway) = site(route).await;
    let evil = [
        "x_device",
        "x.device",
        "accept_language",
        "accept_encoding",
        "x_request_id",
        "x_tenant",
        "x~tenant",
        "if_none_match",
        "x_plain",
    ];
    for (n, name) in evil.into_iter().enumerate() {
        let fields = [(name, "evil"), ("x-plain", "good"), ("x_free", "free")];
        with(&gateway, &format!("/{n}"), &fields).send().await;
        let seen = origin.last();
        assert!(!seen.headers.contains_key(name), "{name}");
        assert_eq!(seen.header("x-plain"), "good");
        assert_eq!(seen.header("x_free"), "free");
    }
}

/// With spaces around it a value is malformed over HTTP/2 and HTTP/3, where whole messages are lost by
/// it; and a text with a place that stays empty has one soon.
#[tokio::test]
async fn values_that_are_made_have_no_spaces_around_them() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let upstream = format!("{{targets: [\"{}\"], protocol: http2}}", origin.url());
    let made = "{x-fixed: \" a \", x-empty: \" {header.x-none}\\t\", x-open: \"Bearer {header.x-none}\", x-made: \" {path.1} \"}";
    let gateway = Setup::new(&origin)
        .upstream("app", &upstream)
        .route("{name: own, match: {path: /own}, respond: {body: own, headers: {x-fixed: \" a \"}}}")
        .route(&format!(
            "{{name: site, upstream: app, headers: {{request: {{set: {made}}}, response: {{set: {made}}}}}}}"
        ))
        .start()
        .await;
    for (path, fields) in [
        ("/own", &["\r\nx-fixed: a\r\n"][..]),
        (
            "/page",
            &[
                "\r\nx-fixed: a\r\n",
                "\r\nx-open: Bearer\r\n",
                "\r\nx-made: page\r\n",
            ],
        ),
    ] {
        let mut raw = gateway.raw().await;
        raw.write(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ))
        .await;
        let said = String::from_utf8(raw.to_end().await).unwrap();
        for field in fields {
            assert!(said.contains(field), "{field:?}: {said:?}");
        }
        assert!(!said.contains("x-empty"), "{said:?}");
    }
    let seen = origin.last();
    let values = ["x-fixed", "x-empty", "x-open", "x-made"].map(|name| seen.header(name));
    assert_eq!(values, ["a", "", "Bearer", "page"]);
}
