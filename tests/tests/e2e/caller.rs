//! Who the client is behind trusted proxies, and what nobody may pose as (RFC 7239).

use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;

const TRUST: (&str, &str) = ("trusted_proxies", "[127.0.0.0/8, 10.0.0.0/8]");

/// A gateway behind a balancer, where `allow` may purge.
async fn behind_a_balancer(allow: &str) -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .listener(TRUST.0, TRUST.1)
        .top(
            "purge_method",
            &format!("{{enabled: true, allow: [{allow}]}}"),
        )
        .start()
        .await;
    (origin, gateway)
}

async fn purge(gateway: &Gateway, fields: &[(&str, &str)]) -> u16 {
    let method: Method = "PURGE".parse().unwrap();
    let ask = gateway.client().uncached().ask(method, "/p");
    let fields = fields.iter();
    let ask = fields.fold(ask, |ask, (name, value)| ask.header(name, value));
    ask.send().await.status.as_u16()
}

#[tokio::test]
async fn behind_a_balancer_its_address_lets_nobody_purge() {
    let (_origin, gateway) = behind_a_balancer("127.0.0.0/8, 10.0.0.0/8").await;
    gateway.client().get("/p").await;
    for fields in [
        &[("x-forwarded-for", "203.0.113.9")][..],
        &[("x-forwarded-for", "127.0.0.1, 203.0.113.9")],
        &[
            ("x-forwarded-for", "10.0.0.5"),
            ("x-forwarded-for", "203.0.113.9"),
        ],
        &[("x-forwarded-for", "203.0.113.9, 10.0.0.5")],
        &[("x-forwarded-for", "unknown")],
        &[("x-forwarded-for", "127.0.0.1x")],
        &[("x-forwarded-for", "2001:db8::9")],
        &[("x-forwarded-for", "::ffff:203.0.113.9")],
        &[("forwarded", "for=203.0.113.9")],
        &[("forwarded", "for=127.0.0.1, for=203.0.113.9")],
        &[("forwarded", "for=\"[2001:db8::9]:1\"")],
        &[("forwarded", "for=unknown")],
        &[("forwarded", "for=_hidden")],
        &[
            ("x-forwarded-for", "203.0.113.9"),
            ("forwarded", "for=127.0.0.1"),
        ],
        &[
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=203.0.113.9"),
        ],
        &[
            ("x-forwarded-for", "203.0.113.9"),
            ("x-real-ip", "127.0.0.1"),
        ],
        &[
            ("x-forwarded-for", "203.0.113.9"),
            ("connection", "x-forwarded-for"),
        ],
    ] {
        assert_eq!(purge(&gateway, fields).await, 403, "{fields:?}");
    }
    assert!(gateway.client().get("/p").await.is_hit());
    assert_eq!(
        purge(&gateway, &[]).await,
        200,
        "the balancer's own request"
    );
    assert_eq!(
        purge(&gateway, &[("x-forwarded-for", "10.0.0.5")]).await,
        200
    );
}

#[tokio::test]
async fn a_client_that_may_purge_may_do_so_through_the_balancer() {
    let (_origin, gateway) =
        behind_a_balancer("192.0.2.0/24, \"2001:db8::/32\", \"::ffff:198.51.100.7\"").await;
    for fields in [
        &[("x-forwarded-for", "192.0.2.7")][..],
        &[("X-Forwarded-For", "203.0.113.9, 192.0.2.7, 10.0.0.2")],
        &[("x-forwarded-for", "::ffff:192.0.2.7")],
        &[("x-forwarded-for", "198.51.100.7")],
        &[("x-forwarded-for", "[2001:db8::1]:4711")],
        &[("forwarded", "for=\"[2001:db8::1]\"")],
        &[
            ("x-forwarded-for", "192.0.2.7"),
            ("forwarded", "for=192.0.2.7"),
        ],
    ] {
        assert_eq!(purge(&gateway, fields).await, 200, "{fields:?}");
    }
    for fields in [&[][..], &[("x-forwarded-for", "192.0.2.7, 203.0.113.9")]] {
        assert_eq!(purge(&gateway, fields).await, 403, "{fields:?}");
    }
    let refused = gateway
        .logged("a refusal", |line| line.contains("a PURGE was refused"))
        .await;
    assert!(refused.contains("127.0.0.1"), "{refused}");
}

#[tokio::test]
async fn a_stranger_names_no_client() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .top("purge_method", "{enabled: true, allow: [192.0.2.0/24]}")
        .start()
        .await;
    let fields = [
        ("x-forwarded-for", "192.0.2.7"),
        ("forwarded", "for=192.0.2.7"),
    ];
    assert_eq!(purge(&gateway, &fields).await, 403);
}

#[tokio::test]
async fn the_proxy_protocol_and_what_a_proxy_behind_it_says_name_one_client() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .listener(TRUST.0, TRUST.1)
        .listener("proxy_protocol", "true")
        .top("purge_method", "{enabled: true, allow: [192.0.2.0/24]}")
        .start()
        .await;
    for (source, fields, status) in [
        ("192.0.2.7", "", 200),
        ("192.0.2.7", "X-Forwarded-For: 203.0.113.9\r\n", 200),
        ("203.0.113.9", "X-Forwarded-For: 192.0.2.7\r\n", 403),
        ("10.0.0.9", "X-Forwarded-For: 192.0.2.7\r\n", 200),
        ("10.0.0.9", "Forwarded: for=203.0.113.9\r\n", 403),
    ] {
        let mut raw = gateway.raw().await;
        raw.write(format!(
            "PROXY TCP4 {source} 10.0.0.1 4321 80\r\nPURGE / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"
        ))
        .await;
        assert_eq!(raw.head().await.status, status, "{source} {fields}");
    }
}

#[tokio::test]
async fn plugin_log_and_origin_are_told_the_same_client() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    let gateway = Setup::new(&origin)
        .listener(TRUST.0, TRUST.1)
        .file("asker.wasm", guest::built("asker"))
        .top(
            "plugins",
            "{p: {file: asker.wasm, config: {rules: {/echo: {echo: true}}}, on_error: {request: refuse}, limits: {hook_timeout: 10s}}}",
        )
        .route("{name: site, upstream: origin, request: {plugin: p}}")
        .start()
        .await;
    let ask = |path| {
        let ask = gateway.client().uncached().request(path);
        ask.header("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.0.0.2")
            .host("shop.example")
    };
    assert_eq!(ask("/echo").send().await.json()["client"], "203.0.113.9");
    ask("/").send().await;
    let seen = origin.last();
    assert_eq!(
        seen.header("x-forwarded-for"),
        "203.0.113.9, 10.0.0.2, 127.0.0.1"
    );
    assert_eq!(
        seen.header("forwarded"),
        "for=203.0.113.9;host=\"shop.example\";proto=http, for=10.0.0.2, for=127.0.0.1"
    );
    let line = gateway
        .logged("the request", |line| {
            line.contains(r#""message":"request""#) && line.contains(r#""path":"/""#)
        })
        .await;
    assert!(line.contains(r#""client":"203.0.113.9""#), "{line}");
    assert!(line.contains(r#""peer":"127.0.0.1:"#), "{line}");
    let mut hidden = gateway.client().uncached().request("/echo");
    hidden = hidden.header("x-forwarded-for", "unknown");
    assert_eq!(hidden.send().await.json()["client"], "");
}

/// What a request may pose by, in the spellings that servers take for it.
const POSING: [&str; 20] = [
    "x-original-url",
    "x_original_url",
    "x-original_url",
    "x.original.url",
    "x-rewrite-url",
    "x_rewrite_url",
    "x-http-method-override",
    "x_http_method_override",
    "x-method-override",
    "x-forwarded-prefix",
    "x_forwarded_prefix",
    "x-forwarded-port",
    "x_forwarded_port",
    "x-forwarded-server",
    "x_forwarded_server",
    "x-forwarded-scheme",
    "x_forwarded_scheme",
    "x_forwarded_proto",
    "x-real-ip",
    "x-host",
];

#[tokio::test]
async fn nobody_poses_as_another_trusted_or_not() {
    let origin = Origin::pages(|seen| {
        let said: Vec<_> = seen
            .headers
            .values()
            .filter(|value| *value == "evil")
            .collect();
        Reply::fresh(format!("{said:?}")).header("vary", &seen.path[1..])
    })
    .await;
    for trusted in ["[]", "[127.0.0.0/8]"] {
        let gateway = Setup::new(&origin)
            .listener("trusted_proxies", trusted)
            .start()
            .await;
        for name in POSING {
            let path = format!("/{name}");
            let mut raw = gateway.raw().await;
            let spelled = name.to_ascii_uppercase();
            raw.write(format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\n{spelled}: evil\r\nConnection: {name}\r\n\r\n"
            ))
            .await;
            assert_eq!(raw.head().await.status, 200);
            assert_eq!(origin.last().header(name), "", "{name} {trusted}");
            let victim = gateway.client().request(&path).host("a").send().await;
            assert!(victim.is_hit(), "nothing varies by {name} {trusted}");
        }
    }
}

#[tokio::test]
async fn a_listed_field_is_believed_from_trusted_proxies_and_keyed() {
    let origin = Origin::pages(|seen| {
        let told = ["x-forwarded-prefix", "x_forwarded_prefix", "x-original-url"];
        Reply::fresh(told.map(|name| seen.header(name)).join("|"))
    })
    .await;
    for (trusted, believed) in [("[127.0.0.0/8]", true), ("[10.0.0.0/8]", false)] {
        let gateway = Setup::new(&origin)
            .listener("trusted_proxies", trusted)
            .listener("trusted_headers", "[X-Forwarded-Prefix]")
            .start()
            .await;
        for prefix in ["/a", "/b"] {
            let ask = || {
                let ask = gateway.client().request("/");
                ask.header("x-forwarded-prefix", prefix)
                    .header("x_forwarded_prefix", "/evil")
                    .header("x-original-url", "/evil")
                    .header("connection", "x-forwarded-prefix")
            };
            let expected = if believed {
                format!("{prefix}||")
            } else {
                "||".to_owned()
            };
            for hit in [believed || prefix == "/a", false] {
                let answer = ask().send().await;
                assert_eq!(answer.text(), expected, "{trusted}");
                assert_eq!(answer.is_hit(), !hit, "{trusted} {prefix}");
            }
        }
        let plain = gateway.client().get("/").await;
        assert_eq!(
            (plain.text(), plain.is_hit()),
            ("||", !believed),
            "{trusted}"
        );
    }
}

#[tokio::test]
async fn what_a_proxy_passes_on_from_its_client_poisons_nothing() {
    let origin = Origin::pages(|seen| {
        let told = ["x-forwarded-host", "x-forwarded-proto", "forwarded"];
        let told = told.map(|name| seen.header(name)).join("|");
        Reply::fresh(told)
    })
    .await;
    let gateway = Setup::new(&origin).listener(TRUST.0, TRUST.1).start().await;
    for (n, (name, value)) in [
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "for=127.0.0.1;host=evil.example"),
        ("forwarded", "host=evil.example"),
        ("x_forwarded_host", "evil.example"),
        ("x-forwarded-proto", "evil"),
    ]
    .into_iter()
    .enumerate()
    {
        let ask = || {
            gateway
                .client()
                .request(&format!("/{n}"))
                .host("shop.example")
        };
        let attack = ask().header(name, value).send().await;
        assert!(!attack.text().contains("evil"), "{name}: {}", attack.text());
        assert!(
            attack.text().starts_with("shop.example|http|"),
            "{}",
            attack.text()
        );
        assert!(ask().send().await.is_hit(), "{name}");
    }
}

#[tokio::test]
async fn one_rule_says_which_scheme_the_client_spoke() {
    let origin =
        Origin::pages(|seen| Reply::fresh(seen.header("x-forwarded-proto").to_owned())).await;
    let gateway = Setup::new(&origin).listener(TRUST.0, TRUST.1).start().await;
    for (fields, scheme) in [
        (&[("x-forwarded-proto", "https")][..], "https"),
        (&[("forwarded", "proto=https")], "https"),
        (
            &[(
                "forwarded",
                "for=203.0.113.9;proto=https, for=10.0.0.2;proto=http",
            )],
            "https",
        ),
        (
            &[
                ("x-forwarded-proto", "http"),
                ("x-forwarded-proto", "https"),
            ],
            "https",
        ),
        (&[("x-forwarded-proto", "https, http")], "http"),
        (
            &[("x-forwarded-proto", "http"), ("forwarded", "proto=https")],
            "http",
        ),
        (&[], "http"),
    ] {
        let ask = gateway.client().request("/");
        let ask = fields
            .iter()
            .fold(ask, |ask, (name, value)| ask.header(name, value));
        assert_eq!(ask.send().await.text(), scheme, "{fields:?}");
    }
    assert_eq!(origin.count(), 2, "the key holds the scheme");
}

#[tokio::test]
async fn a_page_that_varies_by_the_clients_address_is_not_shared() {
    let origin = Origin::pages(|seen| {
        let page = Reply::fresh(seen.header("x-forwarded-for").to_owned());
        page.header(
            "vary",
            if seen.path == "/a" {
                "X-Forwarded-For"
            } else {
                "forwarded"
            },
        )
    })
    .await;
    let gateway = Setup::new(&origin).listener(TRUST.0, TRUST.1).start().await;
    for path in ["/a", "/b"] {
        for client in ["203.0.113.9", "198.51.100.7"] {
            let ask = gateway.client().request(path);
            let answer = ask.header("x-forwarded-for", client).send().await;
            assert_eq!(answer.text(), format!("{client}, 127.0.0.1"), "{path}");
        }
    }
}
