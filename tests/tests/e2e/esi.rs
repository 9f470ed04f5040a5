//! Pages that are put together from fragments (Edge Side Includes).

use e2e::client::Client;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::h3::SecuredGateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;
use lamina_http::coding::ContentCoding;
use lamina_http::coding::decode::decode;
use lamina_http::coding::encode::{CodingLevels, encode};
use serde_json::json;

const LEVELS: CodingLevels = CodingLevels {
    gzip: 6,
    brotli: 5,
    zstd: 3,
};

/// A page with includes that says so.
fn page(body: &str) -> Reply {
    declared(Reply::fresh(body.to_owned()))
}

fn declared(reply: Reply) -> Reply {
    let reply = reply.header("content-type", "text/html");
    let reply = reply.header("surrogate-control", "max-age=60, content=\"ESI/1.0\"");
    reply
        .header("etag", "\"page\"")
        .header("accept-ranges", "bytes")
}

async fn site(routes: &[&str], page: fn(&Seen) -> Reply) -> (Origin, Gateway) {
    let origin = Origin::pages(page).await;
    let setup = routes
        .iter()
        .fold(Setup::new(&origin), |setup, route| setup.route(route));
    let gateway = setup.start().await;
    (origin, gateway)
}

const PAGES: &str = "{name: pages, upstream: origin, esi: {}}";

fn shop(seen: &Seen) -> Reply {
    match seen.path_only() {
        "/" => page("<p><esi:include src=\"/menu\"/>-<esi:include src=\"stock?id=7\"/></p>"),
        "/menu" => Reply::fresh("menu"),
        "/stock" => Reply::ok("stock").header("cache-control", "no-store"),
        "/broken" => page("a<esi:include src=\"/gone\"/>b"),
        "/gone" => Reply::status_only(500),
        "/spare" => page("a<esi:include src=\"/gone\" alt=\"/menu\"/>b"),
        "/continue" => page("a<esi:include src=\"/gone\" onerror=\"continue\"/>b"),
        "/deep" => page("(<esi:include src=\"/deep\" onerror=\"continue\"/>)"),
        "/foreign" => page("a<esi:include src=\"http://other.test/menu\" onerror=\"continue\"/>b"),
        "/undeclared" => Reply::fresh("<esi:include src=\"/menu\"/>"),
        _ => Reply::status_only(404),
    }
}

#[tokio::test]
async fn each_fragment_is_an_entry_of_its_own_and_the_page_is_nobodys() {
    let (origin, gateway) = site(&[PAGES], shop).await;
    for client in [
        gateway.client(),
        gateway.client(),
        Client::http2(gateway.address),
    ] {
        let answer = client.get("/").await;
        assert_eq!(answer.text(), "<p>menu-stock</p>");
        for gone in [
            "etag",
            "content-length",
            "accept-ranges",
            "surrogate-control",
        ] {
            assert!(!answer.has(gone), "{gone}: {}", answer.header(gone));
        }
        assert_eq!(answer.header("cache-control"), "private, no-cache");
    }
    assert_eq!((origin.count_of("/"), origin.count_of("/menu")), (1, 1));
    assert_eq!(
        origin.count_of("/stock?id=7"),
        3,
        "what may not be stored is asked for each time"
    );
    let told = origin.seen();
    assert!(
        told.iter()
            .all(|seen| seen.header("surrogate-capability").contains("ESI/1.0"))
    );
    assert!(
        told.iter()
            .all(|seen| seen.header("accept-encoding") == "identity")
    );
    let url = format!("http://{}/menu", gateway.address);
    gateway.purge(json!({ "url": url })).await;
    gateway.client().get("/").await;
    assert_eq!((origin.count_of("/"), origin.count_of("/menu")), (1, 2));
}

#[tokio::test]
async fn a_page_has_no_preconditions_ranges_or_length() {
    let (_origin, gateway) = site(&[PAGES], shop).await;
    for _ in 0..2 {
        for (name, value) in [("if-none-match", "\"page\""), ("range", "bytes=0-1")] {
            let answer = gateway
                .client()
                .request("/")
                .header(name, value)
                .send()
                .await;
            assert_eq!(
                (answer.status.as_u16(), answer.text()),
                (200, "<p>menu-stock</p>")
            );
        }
    }
    let head = gateway.client().head("/").await;
    assert!(head.text().is_empty() && !head.has("content-length") && !head.has("etag"));
}

/// Compressed last, as a whole, and only where the route compresses what is not stored: a page may
/// hold what is secret beside what is not.
#[tokio::test]
async fn a_page_is_compressed_as_a_whole_where_the_route_says_so() {
    for (compress, takes, coding) in [
        ("{passes: true, min_bytes: 1B}", "gzip, br", "gzip"),
        ("{passes: true, min_bytes: 1B}", "zstd, gzip;q=0.5", "zstd"),
        ("{passes: true, min_bytes: 1B}", "identity", ""),
        ("{min_bytes: 1B}", "gzip, br", ""),
        ("{min_bytes: 1B, stream_min: 1B}", "gzip, br", ""),
    ] {
        let route = format!("{{name: pages, upstream: origin, esi: {{}}, compress: {compress}}}");
        let (origin, gateway) = site(&[&route], shop).await;
        for _ in 0..2 {
            let ask = gateway.client().request("/");
            let answer = ask.header("accept-encoding", takes).send().await;
            assert_eq!(
                answer.header("content-encoding"),
                coding,
                "{compress} {takes}"
            );
            assert_eq!(answer.header("vary"), "Accept-Encoding");
            let text = match ContentCoding::named(coding.as_bytes()) {
                Some(coding) => decode(coding, &answer.body, 1_000).unwrap(),
                None => answer.body.to_vec(),
            };
            assert_eq!(text, b"<p>menu-stock</p>", "{compress} {takes}");
            assert!(!answer.has("content-length") || coding.is_empty());
        }
        assert_eq!((origin.count_of("/"), origin.count_of("/menu")), (1, 1));
    }
}

#[tokio::test]
async fn a_fragment_that_fails_is_replaced_left_out_or_ends_the_page() {
    let (origin, gateway) = site(&[PAGES], shop).await;
    for (path, expected) in [
        ("/spare", "amenub"),
        ("/continue", "ab"),
        ("/foreign", "ab"),
        ("/deep", "(((())))"),
        ("/undeclared", "<esi:include src=\"/menu\"/>"),
    ] {
        assert_eq!(gateway.client().get(path).await.text(), expected, "{path}");
    }
    assert_eq!(origin.count_of("/deep"), 1);
    let broken = gateway.client().request("/broken").try_send().await;
    assert!(broken.is_err(), "a page without its fragment is not whole");
}

#[tokio::test]
async fn pages_are_bounded_in_fragments_and_bytes() {
    let many = |seen: &Seen| match seen.path_only() {
        "/many" => page(&"<esi:include src=\"/f\" onerror=\"continue\"/>".repeat(10)),
        "/large" => page("<esi:include src=\"/big\" onerror=\"continue\"/>."),
        "/huge" => page(&"x".repeat(3000)),
        "/big" => Reply::fresh("y".repeat(1990)),
        _ => Reply::fresh("f"),
    };
    let route = "{name: pages, upstream: origin, esi: {includes: 4, max_bytes: 2000B}}";
    let (_origin, gateway) = site(&[route], many).await;
    assert_eq!(gateway.client().get("/many").await.text(), "ffff");
    assert_eq!(gateway.client().get("/large").await.text(), ".");
    gateway.client().get("/huge").await;
    assert_eq!(gateway.client().get("/huge").await.status, 502);
}

/// The bounds are those of the page with all pages in it.
#[tokio::test]
async fn bounds_count_what_is_in_pages_within_pages() {
    let nested = |seen: &Seen| match seen.path_only() {
        "/many" => page(&"<esi:include src=\"/inner\" onerror=\"continue\"/>".repeat(2)),
        "/inner" => page(&"<esi:include src=\"/f\" onerror=\"continue\"/>".repeat(3)),
        "/large" => page(&"<esi:include src=\"/outer\" onerror=\"continue\"/>".repeat(2)),
        "/outer" => page("<esi:include src=\"/big\" onerror=\"continue\"/>"),
        "/big" => Reply::fresh("y".repeat(800)),
        _ => Reply::fresh("f"),
    };
    let route = "{name: pages, upstream: origin, esi: {includes: 5, max_bytes: 3000B}}";
    let (_origin, gateway) = site(&[route], nested).await;
    for _ in 0..3 {
        // Two inner pages, and three of the six fragments in them.
        assert_eq!(gateway.client().get("/many").await.text(), "fff");
        // Each of the two counts twice: as a fragment, and within the page that it is in.
        let large = gateway.client().get("/large").await;
        assert_eq!(
            large.text(),
            "y".repeat(800),
            "the second one would be too much"
        );
    }
}

/// Fragments are got side by side, and stand in the order of the page whichever comes first.
#[tokio::test]
async fn eight_fragments_are_got_at_once_and_keep_their_order() {
    let (all, first) = (Gate::new(), Gate::new());
    let (at_all, at_first) = (all.clone(), first.clone());
    let origin = Origin::start(move |asked| {
        let (at_all, at_first) = (at_all.clone(), at_first.clone());
        async move {
            let path = asked.read().await.path;
            let Some(number) = path.strip_prefix("/f") else {
                let include = |n| format!("<esi:include src=\"/f{n}\"/>");
                let includes: Vec<String> = (0..9).map(include).collect();
                return page(&includes.join("-"));
            };
            at_all.pass().await;
            if number == "0" {
                at_first.pass().await;
            }
            Reply::fresh(number.to_owned())
        }
    })
    .await;
    let gateway = Setup::new(&origin).route(PAGES).start().await;
    let client = gateway.client();
    let asking = tokio::spawn(async move { client.get("/").await });
    all.reached_by(8).await;
    assert_eq!(origin.count(), 9, "the page, and no ninth fragment");
    all.open();
    first.reached_by(1).await;
    first.open();
    assert_eq!(asking.await.unwrap().text(), "0-1-2-3-4-5-6-7-8");
}

#[tokio::test]
async fn fragments_that_are_shared_get_no_cookie_that_their_key_does_not_hold() {
    let greet = |seen: &Seen| match seen.path_only() {
        "/" => page(
            "<esi:include src=\"/all\"/>|<esi:include src=\"/me\"/>|<esi:include src=\"/cart\"/>",
        ),
        _ => Reply::fresh(format!(
            "{}{}",
            seen.header("cookie"),
            seen.header("authorization")
        )),
    };
    let routes = [
        "{name: me, match: {path: /me}, upstream: origin, key: {cookies: [user]}}",
        "{name: cart, match: {path: /cart}, upstream: origin, cache: off}",
        "{name: pages, upstream: origin, esi: {}}",
    ];
    let (origin, gateway) = site(&routes, greet).await;
    for (user, expected) in [
        ("alice", "|user=alice|user=alice; session=aliceBasic eA=="),
        ("bob", "|user=bob|user=bob; session=bobBasic eA=="),
    ] {
        let cookie = format!("user={user}; session={user}");
        let ask = gateway.client().request("/").header("cookie", &cookie);
        let answer = ask.header("authorization", "Basic eA==").send().await;
        assert_eq!(answer.text(), expected);
    }
    assert_eq!(origin.count_of("/all"), 1);
}

#[tokio::test]
async fn a_fragment_that_is_not_shared_keeps_what_says_whose_it_is() {
    let greet = |seen: &Seen| match seen.path_only() {
        "/" => page("<esi:include src=\"/me\"/>"),
        _ => Reply::fresh(format!(
            "{}{}",
            seen.header("cookie"),
            seen.header("authorization")
        )),
    };
    let routes = [
        "{name: me, match: {path: /me}, upstream: origin, bypass: {cookie: [session]}}",
        "{name: pages, upstream: origin, esi: {}}",
    ];
    let (_origin, gateway) = site(&routes, greet).await;
    for (cookie, expected) in [
        ("session=alice", "session=aliceBasic eA=="),
        ("theme=dark", ""),
        ("session=bob", "session=bobBasic eA=="),
    ] {
        let ask = gateway.client().request("/").header("cookie", cookie);
        let answer = ask.header("authorization", "Basic eA==").send().await;
        assert_eq!(answer.text(), expected, "{cookie}");
    }
}

#[tokio::test]
async fn a_precondition_of_a_change_reaches_the_origin() {
    let (origin, gateway) = site(&[PAGES], shop).await;
    let put = gateway.client().ask(http::Method::PUT, "/menu");
    put.header("if-match", "\"old\"").body("new").send().await;
    assert_eq!(origin.last().header("if-match"), "\"old\"");
}

/// Varnish puts each of them together, and shops have includes in their pages for errors.
#[tokio::test]
async fn a_page_may_have_any_status_that_has_a_whole_content() {
    let pages = |seen: &Seen| match seen.path_only().trim_start_matches('/').parse() {
        Ok(status) => page("a<esi:include src=\"/f\"/>b")
            .status(status)
            .header("location", "/elsewhere"),
        Err(_) => Reply::fresh("F"),
    };
    let (_origin, gateway) = site(&[PAGES], pages).await;
    for status in [200, 203, 301, 302, 403, 404, 410, 500, 503] {
        for _ in 0..2 {
            let answer = gateway.client().get(&format!("/{status}")).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (status, "aFb"));
            assert_eq!(
                answer.header("cache-control"),
                "private, no-cache",
                "{status}"
            );
        }
    }
}

/// An origin may encode although it is asked not to.
#[tokio::test]
async fn a_page_or_fragment_that_is_coded_nevertheless_is_decoded_first() {
    fn coded(coding: ContentCoding, text: &str) -> Reply {
        let body = encode(coding, &LEVELS, text.as_bytes(), 1 << 20).unwrap();
        Reply::fresh(body).header("content-encoding", coding.as_str())
    }
    // Not of one letter, which would be taken for a bomb.
    fn whole() -> String {
        (0..120_000).map(|number| number.to_string()).collect()
    }
    fn pages(seen: &Seen) -> Reply {
        let marks = "a<esi:include src=\"/f\"/>b";
        match seen.path_only() {
            "/gzip" => declared(coded(ContentCoding::Gzip, marks)),
            "/br" => declared(coded(ContentCoding::Brotli, marks)),
            "/zstd" => declared(coded(ContentCoding::Zstd, marks)),
            "/large" => declared(coded(ContentCoding::Gzip, &format!("{}{marks}", whole()))),
            "/f" => coded(ContentCoding::Gzip, "F"),
            "/damaged" => page(marks).header("content-encoding", "gzip"),
            "/unknown" => page(marks).header("content-encoding", "deflate"),
            "/twice" => page(marks).header("content-encoding", "gzip, gzip"),
            _ => Reply::status_only(404),
        }
    }
    for compress in ["", ", compress: {}"] {
        let route = format!("{{name: pages, upstream: origin, esi: {{}}{compress}}}");
        let (_origin, gateway) = site(&[&route], pages).await;
        for target in ["/gzip", "/br", "/zstd"] {
            for takes in ["identity", "gzip, br, zstd"] {
                let ask = gateway.client().request(target);
                let answer = ask.header("accept-encoding", takes).send().await;
                assert_eq!(answer.text(), "aFb", "{target} {takes}");
                assert!(!answer.has("content-encoding"), "{target} {takes}");
                assert_eq!(answer.header("cache-control"), "private, no-cache");
            }
        }
        let large = gateway.client().get("/large").await;
        assert!(
            large.text() == format!("{}aFb", whole()),
            "what is large is decoded while it arrives"
        );
        for target in ["/damaged", "/unknown", "/twice"] {
            // A miss may have begun already when its damage is seen.
            let _ = gateway.client().request(target).try_send().await;
            let answer = gateway.client().get(target).await;
            assert_eq!(answer.status, 502, "{target}");
            assert!(!answer.text().contains("esi:"), "{target}");
        }
        gateway
            .logged("why", |line| line.contains("a page has"))
            .await;
    }
}

#[tokio::test]
async fn what_tells_of_octets_is_of_the_page_that_was_asked_for() {
    const OF_THE_ORIGIN: [&str; 4] = ["content-md5", "content-digest", "repr-digest", "digest"];
    const OF_THE_CLIENT: [&str; 6] = [
        "content-encoding",
        "content-language",
        "content-type",
        "content-location",
        "content-digest",
        "digest",
    ];
    fn pages(seen: &Seen) -> Reply {
        let reply = match seen.path_only() {
            "/" => page("<esi:include src=\"/menu\"/>"),
            _ => Reply::fresh("menu"),
        };
        let digests = OF_THE_ORIGIN.into_iter();
        digests.fold(reply, |reply, name| reply.header(name, "x"))
    }
    let (origin, gateway) = site(&[PAGES], pages).await;
    let asks = [Method::GET, Method::GET, Method::POST].map(|method| (method, gateway.client()));
    for (method, client) in asks {
        let posts = method == Method::POST;
        let mut ask = client.ask(method, "/");
        if posts {
            gateway.purge(json!({"all": true})).await;
            ask = OF_THE_CLIENT
                .into_iter()
                .fold(ask, |ask, name| ask.header(name, "x"))
                .body("form");
        }
        let answer = ask.send().await;
        assert_eq!(answer.text(), "menu");
        for gone in OF_THE_ORIGIN {
            assert!(!answer.has(gone), "{gone}");
        }
    }
    let seen = origin.seen();
    let post = seen
        .iter()
        .find(|seen| seen.method == Method::POST)
        .unwrap();
    let fragment = seen.last().unwrap();
    assert_eq!(fragment.path, "/menu");
    for name in OF_THE_CLIENT {
        assert_eq!(
            (post.header(name), fragment.header(name)),
            ("x", ""),
            "{name}"
        );
    }
}

/// For one client means for no other cache, and its browser may keep it if the operator says so.
#[tokio::test]
async fn a_rule_says_how_long_a_browser_keeps_a_page() {
    for (ruled, said) in [
        ("private, max-age=60", "private, max-age=60"),
        ("no-store", "no-store"),
        ("public, max-age=60", "private, no-cache"),
        ("max-age=60", "private, no-cache"),
    ] {
        let route = format!(
            "{{name: pages, upstream: origin, esi: {{}}, headers: {{response: {{set: {{cache-control: \"{ruled}\"}}}}}}}}"
        );
        let pages = |seen: &Seen| match seen.path_only() {
            "/missing" => page("a<esi:include src=\"/f\"/>b").status(503),
            "/p" => page("a<esi:include src=\"/f\"/>b"),
            _ => Reply::fresh("F"),
        };
        let (_origin, gateway) = site(&[&route], pages).await;
        for _ in 0..2 {
            let answer = gateway.client().get("/p").await;
            assert_eq!(answer.text(), "aFb");
            assert_eq!(answer.header("cache-control"), said, "{ruled}");
        }
        // An error lasts no longer in a browser because pages do.
        let error = gateway
            .client()
            .get("/missing")
            .await
            .header("cache-control")
            .to_owned();
        let unless = if ruled == "no-store" {
            ruled
        } else {
            "private, no-cache"
        };
        assert_eq!(error, unless, "{ruled}");
    }
}

/// What came before the bound of a page is seen over HTTP/3 as well, where a stream that is reset forgets
/// what was not sent.
#[tokio::test]
async fn over_http3_too_a_page_that_breaks_off_shows_what_it_had() {
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/page" => {
            let page = "before ".to_owned() + &"<esi:include src=\"/a\"/>".repeat(65);
            Reply::fresh(page).header("content-type", "text/html")
        }
        _ => Reply::fresh("fragment ".repeat(60)),
    })
    .await;
    let setup = Setup::new(&origin).route("{name: site, upstream: origin, esi: {pages: all}}");
    let secured = SecuredGateway::start(setup).await;
    let client = secured.client().await;
    let mut whole = 0;
    // A packet may be lost, and it is not sent again.
    for _ in 0..20 {
        let mut exchange = client.request("/page").open().await.unwrap();
        assert!(exchange.upload.finish().await);
        let mut page = exchange.download;
        let mut length = 0;
        if page.head().await.is_ok() {
            while let Ok(Some(piece)) = page.piece().await {
                length += piece.len();
            }
        }
        whole += usize::from(length == "before ".len() + 64 * "fragment ".len() * 60);
    }
    assert!(
        whole > 10,
        "{whole} of 20 had all that came before the bound"
    );
}
