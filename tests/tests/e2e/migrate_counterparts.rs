//! The files of `config/migrate`, which say in Lamina's words what widely used configurations of
//! other caches say: what the real program does with them.

use std::fs;

use http::Method;
use serde_json::json;

use e2e::cli::repository;
use e2e::client::Ask;
use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;

/// A gateway with one of the files. Its origin and its addresses are those of the test, and all else
/// is as it ships.
async fn counterpart(name: &str, origin: &Origin) -> Gateway {
    let file = repository().join("config/migrate").join(name);
    let text = fs::read_to_string(&file).unwrap();
    let mut text = text
        .replace("0.0.0.0:8080", "127.0.0.1:0")
        .replace("http://127.0.0.1:8081", &origin.url());
    text.push_str(
        "server: {threads: 2}\nadmin: {address: \"127.0.0.1:0\"}\ntelemetry: {log_format: json}\n",
    );
    let dir = tempfile::tempdir().unwrap();
    let config = e2e::setup::write_config(dir.path(), &text);
    Gateway::start(dir, &config, &[]).await
}

fn with(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> Ask {
    let ask = gateway.client().request(target);
    fields
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value))
}

/// What the origin was asked for at this path.
fn seen_at(origin: &Origin, path: &str) -> Vec<Seen> {
    let seen = origin.seen();
    seen.into_iter()
        .filter(|one| one.path_only() == path)
        .collect()
}

/// What browsers and programs write in `Accept-Encoding`.
const SPELLINGS: [&str; 11] = [
    "gzip, deflate, br, zstd",
    "gzip, deflate, br",
    "gzip,deflate,br",
    "gzip, deflate",
    "gzip",
    "GZIP",
    "br",
    "deflate, gzip;q=1.0, *;q=0.5",
    "br;q=1.0, gzip;q=0.8, *;q=0.1",
    "identity",
    "",
];

/// A page of WordPress: no lifetime, and a `Vary` that most servers add.
fn page(seen: &Seen) -> Reply {
    Reply::ok(format!("page {}", "words ".repeat(400)))
        .header("content-type", "text/html; charset=UTF-8")
        .header("vary", "Accept-Encoding, Cookie")
        .header("x-powered-by", "PHP/8.3")
        .header("x-asked-with", seen.header("accept-encoding"))
}

/// Names of cookies that track, or keep what a visitor has agreed to: no two visitors have the same.
const TRACKING: &str = "_ga _gid _gat_UA-1 _gcl_au _dc_gtm_UA-1 __utma _fbp _uetsid _uetvid hubspotutk __hstc \
                        __hssc __hssrc sbjs_current sbjs_first tk_ai OptanonConsent OptanonAlertBoxClosed \
                        CookieConsent cmplz_banner-status __cf_bm _ym_uid _ym_d _scid ajs_anonymous_id \
                        _pk_id.1.1 _hjSessionUser_1 _clck _clsk __atuvc intercom-id-x1 \
                        optimizelyEndUserId amp_a1b2c3 _hp2_id.1 ph_phc_1_posthog __kla_id \
                        AMCV_1%40AdobeOrg li_gc lidc cto_bundle drift_aid crisp-client/session/1";

#[tokio::test]
async fn visitors_of_wordpress_with_tracking_cookies_and_any_encoding_make_one_load() {
    let origin = Origin::pages(page).await;
    let gateway = counterpart("wordpress-varnish.yaml", &origin).await;
    for visitor in 0..20 {
        let tracking = TRACKING.split_whitespace();
        let tracking: Vec<String> = tracking.map(|name| format!("{name}={visitor}")).collect();
        let cookie = format!("{}; has_js=1", tracking.join("; "));
        for (n, spelling) in SPELLINGS.iter().enumerate() {
            let target = format!("/hello/?utm_source=mail{visitor}&gclid={n}");
            let fields = [("cookie", &*cookie), ("accept-encoding", spelling)];
            let answer = with(&gateway, &target, &fields).send().await;
            assert_eq!(answer.status, 200);
            let first = visitor == 0 && n == 0;
            assert_eq!(answer.is_hit(), !first, "{visitor} {spelling}");
            assert!(!answer.has("x-powered-by"), "{spelling}");
        }
    }
    let seen = seen_at(&origin, "/hello/");
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].path, "/hello/");
    assert_eq!(seen[0].header("cookie"), "");
}

#[tokio::test]
async fn who_is_logged_in_to_wordpress_is_answered_by_wordpress() {
    for (file, cookie) in [
        ("wordpress-varnish.yaml", "wordpress_logged_in_5f3a=alice"),
        ("wordpress-varnish.yaml", "woocommerce_items_in_cart=1"),
        (
            "wordpress-nginx.yaml",
            "_ga=1; wordpress_logged_in_5f3a=alice",
        ),
        ("wordpress-nginx.yaml", "comment_author_5f3a=alice"),
    ] {
        let origin = Origin::pages(page).await;
        let gateway = counterpart(file, &origin).await;
        for n in 1..=2 {
            let answer = with(&gateway, "/hello/", &[("cookie", cookie)])
                .send()
                .await;
            let status = answer.header("cache-status").to_owned();
            assert!(status.contains("fwd=bypass"), "{file} {cookie}: {status}");
            let seen = seen_at(&origin, "/hello/");
            assert_eq!((seen.len(), seen[n - 1].header("cookie")), (n, cookie));
        }
        for hit in [false, true] {
            let stranger = with(&gateway, "/hello/", &[("cookie", "_ga=1")])
                .send()
                .await;
            assert_eq!(
                stranger.is_hit(),
                hit,
                "{file}: nothing of alice's is stored"
            );
        }
        let admin = with(&gateway, "/wp-admin/index.php", &[]).send().await;
        assert!(
            admin.header("cache-status").contains("fwd=bypass"),
            "{file}"
        );
    }
}

/// Requests that are somebody's own, by their path or by one field.
type PersonalRequests = &'static [(&'static str, &'static str, &'static str)];

const OF_WORDPRESS: PersonalRequests = &[
    ("/a/", "cookie", "_ga=1; wordpress_logged_in_5f3a=alice"),
    ("/a/", "cookie", "wordpress_sec_5f3a=alice"),
    (
        "/a/",
        "cookie",
        "wordpress_0123456789abcdef0123456789abcdef=alice",
    ),
    ("/a/", "cookie", "wordpress_no_cache=alice"),
    ("/a/", "cookie", "wp-postpass_5f3a=alice"),
    ("/a/", "cookie", "comment_author_email_5f3a=alice"),
    ("/a/", "cookie", "woocommerce_cart_hash=alice"),
    ("/a/", "cookie", "woocommerce_recently_viewed=alice"),
    ("/a/", "cookie", "wp_woocommerce_session_5f3a=alice"),
    ("/a/", "cookie", "edd_items_in_cart=alice"),
    ("/a/", "authorization", "Basic alice"),
    ("/a.css", "authorization", "Basic alice"),
    ("/wp-json/wp/v2/users/me", "authorization", "Basic alice"),
    ("/wp-json/wp/v2/users/me", "x-wp-nonce", "alice"),
    ("/wp-json/wc/store/v1/cart", "cart-token", "alice"),
    ("/?rest_route=/wc/store/v1/cart", "cart-token", "alice"),
    ("/wp-admin", "", ""),
    ("/wp-admin/index.php", "", ""),
    ("/blog/wp-admin/", "", ""),
    ("/wp-login.php?action=lostpassword", "", ""),
    ("/blog/wp-login.php", "", ""),
    ("/wp-cron.php", "", ""),
    ("/xmlrpc.php", "", ""),
    ("/cart/", "", ""),
    ("/checkout/order-received/7/?key=wc_order_x", "", ""),
    ("/my-account/orders/", "", ""),
    ("/en/my-account/", "", ""),
    ("/a/?preview=true", "", ""),
    ("/a/?preview", "", ""),
    ("/a/?unapproved=7&moderation-hash=f", "", ""),
    ("/a/?add-to-cart=7", "", ""),
    ("/?wc-ajax=get_refreshed_fragments", "", ""),
];

const OF_DRUPAL: PersonalRequests = &[
    ("/node/7", "cookie", "SSESS1a2b=alice"),
    ("/node/7", "authorization", "Basic alice"),
    ("/logo.png", "authorization", "Basic alice"),
    ("/node/7", "authenticate", "alice"),
    ("/logo.png", "x-blackfire-query", "alice"),
    ("/system/files/plan.pdf", "", ""),
    (
        "/de/system/files/styles/large/private/plan.png?itok=a",
        "",
        "",
    ),
    ("/admin/reports/a.html", "", ""),
    ("/info/a.css", "", ""),
    ("/flag/a.js", "", ""),
    ("/cgi-bin/a.html", "", ""),
];

const OF_MAGENTO: PersonalRequests = &[
    ("/tea.html", "authorization", "Basic alice"),
    ("/rest/V1/carts/mine", "authorization", "Bearer alice"),
    ("/graphql?query=cart", "authorization", "Bearer alice"),
    ("/graphql?query=cart", "authorization", "bearer alice"),
    ("/customer/section/load/?sections=cart", "", ""),
    ("/de/checkout/cart/", "", ""),
];

#[tokio::test]
async fn what_is_somebodys_own_passes_every_counterpart_and_leaves_nothing() {
    for (file, own) in [
        ("wordpress-varnish.yaml", OF_WORDPRESS),
        ("wordpress-nginx.yaml", OF_WORDPRESS),
        ("drupal-varnish.yaml", OF_DRUPAL),
        ("magento-varnish.yaml", OF_MAGENTO),
    ] {
        // As careless as an application can be: each page may be stored, whoever asks.
        let origin = Origin::pages(|seen| {
            let who = ["cookie", "authorization"].map(|name| seen.header(name).to_owned());
            Reply::fresh(format!("for {}", who.concat()))
        })
        .await;
        let gateway = counterpart(file, &origin).await;
        for (target, name, value) in own {
            let fields = [(*name, *value)];
            let fields = match name.is_empty() {
                true => &[][..],
                false => &fields[..],
            };
            for _ in 0..2 {
                let answer = with(&gateway, target, fields).send().await;
                assert!(!answer.is_hit(), "{file} {target} {fields:?}");
            }
            let stranger = gateway.client().get(target).await;
            assert!(!stranger.is_hit(), "{file} {target} {fields:?}");
            assert!(!stranger.text().contains("alice"), "{file} {target}");
            let everybody = json!({"all": true});
            gateway.purge(everybody).await;
        }
        let posted = gateway.client().ask(Method::POST, "/a/").body("x");
        assert!(!posted.send().await.is_hit(), "{file}");
        assert!(!gateway.client().get("/a/").await.is_hit(), "{file}");
    }
}

/// Cookies of which nobody said that they are a user's, as those of a plugin.
#[tokio::test]
async fn what_everybody_gets_is_made_without_anybodys_cookies() {
    for (file, targets) in [
        ("wordpress-varnish.yaml", &["/my-account.css"][..]),
        ("wordpress-nginx.yaml", &["/a/", "/my-account.css"]),
        ("drupal-varnish.yaml", &["/node/7", "/members.html"]),
    ] {
        let origin = Origin::pages(page).await;
        let gateway = counterpart(file, &origin).await;
        for target in targets {
            for hit in [false, true] {
                let fields = [("cookie", "PHPSESSID=alice; member=alice")];
                let answer = with(&gateway, target, &fields).send().await;
                assert_eq!(answer.is_hit(), hit, "{file} {target}");
            }
            assert_eq!(origin.last().header("cookie"), "", "{file} {target}");
        }
    }
}

#[tokio::test]
async fn nginx_for_wordpress_passes_queries_and_stores_whatever_the_page_says() {
    let origin = Origin::pages(|seen| {
        page(seen)
            .header("cache-control", "no-store")
            .header("set-cookie", "visit=1")
    })
    .await;
    let gateway = counterpart("wordpress-nginx.yaml", &origin).await;
    for (target, hit) in [("/a/", true), ("/a/?s=tea", false), ("/a/feed/", false)] {
        gateway.client().get(target).await;
        let again = gateway.client().get(target).await;
        assert_eq!(again.is_hit(), hit, "{target}");
        assert_eq!(again.has("set-cookie"), !hit, "{target}");
    }
}

#[tokio::test]
async fn drupals_session_cookies_pass_and_all_others_make_no_difference() {
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/gone" => Reply::status_only(404),
        "/logo.png" => page(seen)
            .header("cache-control", "no-cache")
            .header("set-cookie", "a=1"),
        _ => page(seen).header("cache-tags", "node:7 node_list"),
    })
    .await;
    let gateway = counterpart("drupal-varnish.yaml", &origin).await;
    for visitor in 0..5 {
        let cookie = format!("_ga={visitor}; anything_else={visitor}");
        let target = format!("/node/7?utm_source={visitor}");
        let answer = with(&gateway, &target, &[("cookie", &cookie)]).send().await;
        assert_eq!(answer.is_hit(), visitor > 0, "visitor {visitor}");
        assert!(!answer.has("cache-tags"));
    }
    for (target, fields) in [
        ("/node/7", [("cookie", "SSESS1a2b=alice")]),
        ("/node/7", [("cookie", "_ga=1; NO_CACHE=1")]),
        ("/node/7", [("authorization", "Basic YTpi")]),
        ("/admin/content", [("accept", "*/*")]),
    ] {
        let answer = with(&gateway, target, &fields).send().await;
        assert!(
            answer.header("cache-status").contains("fwd=bypass"),
            "{target} {fields:?}"
        );
    }
    for target in ["/gone", "/logo.png"] {
        gateway.client().get(target).await;
        assert!(gateway.client().get(target).await.is_hit(), "{target}");
    }
    assert_eq!(gateway.client().get("/xmlrpc.php").await.status, 401);
    let ask = gateway
        .client()
        .uncached()
        .ask("PURGE".parse().unwrap(), "/node/7");
    assert_eq!(ask.send().await.status, 200);
    assert!(!gateway.client().get("/node/7").await.is_hit());
}

/// A page of Magento, which states the group of the customer whose session it is each time.
fn shop(seen: &Seen) -> Reply {
    let cookies = seen.header("cookie");
    let group = ["de", "b2b"]
        .into_iter()
        .find(|group| cookies.contains(&format!("PHPSESSID={group}")));
    let reply = Reply::ok(format!("for {}", group.unwrap_or("guests")))
        .header("content-type", "text/html")
        .header("cache-control", "public, max-age=86400, s-maxage=86400")
        .header("set-cookie", "PHPSESSID=new; path=/")
        .header("x-magento-tags", "cat_p_5,cat_c_2");
    let vary = |value: &str| format!("X-Magento-Vary={value}; path=/; HttpOnly");
    match group {
        Some(group) => reply.header("set-cookie", &vary(group)),
        None if cookies.contains("X-Magento-Vary") => reply.header("set-cookie", &vary("deleted")),
        None => reply,
    }
}

#[tokio::test]
async fn a_page_of_magento_is_stored_only_under_the_context_it_was_made_for() {
    let origin = Origin::pages(shop).await;
    let gateway = counterpart("magento-varnish.yaml", &origin).await;
    let lost = "PHPSESSID=b2b";
    let known = "PHPSESSID=b2b; X-Magento-Vary=b2b";
    let expired = "PHPSESSID=gone; X-Magento-Vary=b2b";
    for (cookie, body, is_hit) in [
        (lost, "for b2b", false),
        ("_ga=1", "for guests", false),
        ("_ga=2", "for guests", true),
        (expired, "for guests", false),
        (known, "for b2b", false),
        (known, "for b2b", true),
    ] {
        let answer = with(&gateway, "/tea.html", &[("cookie", cookie)])
            .send()
            .await;
        assert_eq!((answer.text(), answer.is_hit()), (body, is_hit), "{cookie}");
        let gets_a_context = [lost, expired].contains(&cookie);
        assert_eq!(answer.has("set-cookie"), gets_a_context, "{cookie}");
    }
}

#[tokio::test]
async fn magentos_pages_are_kept_by_its_context_and_purged_by_its_tags() {
    let origin = Origin::pages(shop).await;
    let gateway = counterpart("magento-varnish.yaml", &origin).await;
    for (cookie, hit) in [
        ("PHPSESSID=a", false),
        ("PHPSESSID=b; _ga=1", true),
        ("PHPSESSID=de; X-Magento-Vary=de", false),
        ("PHPSESSID=de; X-Magento-Vary=de", true),
    ] {
        let target = "/tea.html?gclid=x&b=1&a=2";
        let answer = with(&gateway, target, &[("cookie", cookie)]).send().await;
        assert_eq!(answer.is_hit(), hit, "{cookie}");
        assert!(!answer.has("x-magento-tags"));
        assert!(!answer.has("set-cookie"), "nobody's session");
        assert!(answer.header("cache-control").contains("no-store"));
    }
    assert_eq!(seen_at(&origin, "/tea.html")[0].path, "/tea.html?a=2&b=1");
    for target in ["/checkout/cart/", "/customer/account/", "/media/tea.jpg"] {
        gateway.client().get(target).await;
        assert!(!gateway.client().get(target).await.is_hit(), "{target}");
    }
    let purge = |tags: &str| {
        let ask = gateway
            .client()
            .uncached()
            .ask("PURGE".parse().unwrap(), "/");
        ask.header("x-magento-tags-pattern", tags)
    };
    let known = [("cookie", "PHPSESSID=de; X-Magento-Vary=de")];
    let target = "/tea.html?a=2&b=1";
    assert_eq!(purge("((^|,)cat_p_6(,|$))").send().await.status, 200);
    assert!(with(&gateway, target, &known).send().await.is_hit());
    assert_eq!(purge("((^|,)cat_p_5(,|$))").send().await.status, 200);
    assert!(!with(&gateway, target, &known).send().await.is_hit());
}

#[tokio::test]
async fn souins_routes_have_their_lifetimes_and_exclusions() {
    let origin = Origin::pages(page).await;
    let gateway = counterpart("caddy-souin.yaml", &origin).await;
    for target in ["/other", "/test1/b"] {
        for _ in 0..2 {
            let fields = [("cookie", "session=alice")];
            let answer = with(&gateway, target, &fields).send().await;
            assert!(!answer.is_hit(), "{target}: it states no lifetime");
        }
    }
    for (target, ttl) in [
        ("/test1/a", Some(5)),
        ("/default", Some(5)),
        ("/test2/a", None),
        ("/other", Some(1000)),
    ] {
        let answer = gateway.client().get(target).await;
        assert_eq!(answer.cache().ttl, ttl, "{target}");
    }
}

/// Whether a page is answered from the cache.
async fn is_held(gateway: &Gateway, target: &str) -> bool {
    let ask = gateway.client().request(target).host("shop.example");
    ask.send().await.is_hit()
}

/// What the plugin of that application sends to the cache.
async fn sent(gateway: &Gateway, method: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
    let client = gateway.client().uncached();
    let ask = client.ask(method.parse().unwrap(), target);
    let ask = fields
        .iter()
        .fold(ask.host("shop.example"), |ask, (name, value)| {
            ask.header(name, value)
        });
    ask.send().await.status.as_u16()
}

/// Pages that say that they may be stored, and what of.
fn tagged(seen: &Seen) -> Reply {
    let tag = seen.path_only().trim_matches('/').replace('/', "_");
    Reply::ok("page")
        .header("cache-control", "public, max-age=600")
        .header("content-type", "text/html; charset=UTF-8")
        .header("surrogate-key", &tag)
}

/// What purges in each counterpart: a file, its pages, and requests with the page that each reaches.
#[tokio::test]
async fn each_counterpart_takes_the_purges_that_its_application_sends() {
    type SentPurge = (
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
    );
    let purges: [(&str, [&str; 2], &[SentPurge]); 3] = [
        (
            "drupal-varnish.yaml",
            ["/a", "/b/c"],
            &[
                ("BAN", "/", &[("cache-tags", "a|other")], "/a"),
                ("URIBAN", "/b/c", &[], "/b/c"),
                ("PURGE", "/a", &[], "/a"),
            ],
        ),
        (
            "caddy-souin.yaml",
            ["/another", "/other"],
            &[
                (
                    "PURGE",
                    "/souin-api/souin/",
                    &[("surrogate-key", "another, none")],
                    "/another",
                ),
                (
                    "PURGE",
                    "/souin-api/souin/GET-http-shop.example-/other",
                    &[],
                    "/other",
                ),
                ("PURGE", "/other", &[], "/other"),
            ],
        ),
        (
            "wordpress-nginx.yaml",
            ["/hello/", "/other/"],
            &[
                ("GET", "/purge/hello/", &[], "/hello/"),
                ("PURGE", "/other/", &[], "/other/"),
                ("GET", "/purge/other/", &[], "/other/"),
            ],
        ),
    ];
    for (file, pages, sends) in purges {
        let origin = Origin::pages(tagged).await;
        let gateway = counterpart(file, &origin).await;
        for (method, target, fields, reached) in sends {
            for page in pages {
                is_held(&gateway, page).await;
                assert!(is_held(&gateway, page).await, "{file}: {page} is stored");
            }
            let status = sent(&gateway, method, target, fields).await;
            assert!(
                (200..=204).contains(&status),
                "{file}: {method} {target}: {status}"
            );
            for page in pages {
                let was_reached = page == *reached;
                assert_eq!(
                    is_held(&gateway, page).await,
                    !was_reached,
                    "{file}: {method} {target}: {page}"
                );
            }
        }
        let asked = origin.seen();
        assert!(
            asked
                .iter()
                .all(|seen| seen.method == "GET" && !seen.path.starts_with("/purge"))
        );
    }
}
