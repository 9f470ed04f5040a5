//! What an attacker would have others get from the cache (http.md, Bad input: cache
//! safety): keys that cover too little, paths that look harmless, answers to strange
//! requests, loops. Over every front.

use e2e::attack::HOSTS;
use e2e::client::Client;
use e2e::front::{Front, FrontDoor, Fronted};
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// A test over each front.
macro_rules! over_every_front {
    ($($name:ident)+) => {
        $(mod $name {
            use super::Front;

            #[tokio::test]
            async fn in_clear_text() {
                super::$name(Front::Clear).await;
            }

            #[tokio::test]
            async fn over_tls_by_http1() {
                super::$name(Front::TlsHttp1).await;
            }

            #[tokio::test]
            async fn over_tls_by_http2() {
                super::$name(Front::TlsHttp2).await;
            }

            #[tokio::test]
            async fn over_http3() {
                super::$name(Front::Http3).await;
            }
        })+
    };
}

over_every_front! {
    the_same_path_on_another_host_port_or_scheme_is_another_entry
    a_strangers_fields_poison_no_entry
    a_path_that_looks_like_a_file_is_cached_no_sooner_for_it
    paths_that_an_origin_may_tell_apart_are_two_entries
    what_an_origin_says_of_a_strange_request_is_nobody_elses
    a_request_that_comes_round_again_is_a_508
    where_cdn_loop_is_lost_via_still_ends_the_loop
    ranges_without_end_cost_no_more_than_the_page
}

/// A gateway, and the way to it.
struct AttackedSite {
    /// Ends with the site.
    _fronted: Fronted,
    door: FrontDoor,
}

impl AttackedSite {
    async fn start(front: Front, setup: Setup) -> Self {
        let fronted = front.start(setup, &HOSTS).await;
        let door = fronted.messages().await;
        Self {
            door,
            _fronted: fronted,
        }
    }

    fn client(&self) -> Client {
        Client::http1(self.door.address)
    }
}

const TRUST: (&str, &str) = ("trusted_proxies", "[127.0.0.0/8]");

/// An origin that says back how it was addressed, fresh for an hour.
async fn echo() -> Origin {
    Origin::pages(|seen| {
        let addressed = ["x-forwarded-host", "x-original-url", "x-forwarded-proto"]
            .map(|name| seen.header(name).to_owned());
        let body = format!("{} {} {addressed:?}", seen.authority, seen.path);
        Reply::ok(body).header("cache-control", "max-age=3600")
    })
    .await
}

async fn the_same_path_on_another_host_port_or_scheme_is_another_entry(front: Front) {
    let origin = echo().await;
    let site = AttackedSite::start(front, Setup::new(&origin).listener(TRUST.0, TRUST.1)).await;
    let client = site.client();
    for (n, (host, proto)) in [
        ("a.test", "http"),
        ("b.test", "http"),
        ("a.test:8080", "http"),
        ("a.test", "https"),
        ("a.test:443", "http"),
    ]
    .into_iter()
    .enumerate()
    {
        let ask = || {
            client
                .request("/x")
                .host(host)
                .header("x-forwarded-proto", proto)
        };
        let first = ask().send().await;
        assert!(!first.is_hit(), "{host} {proto}");
        assert_eq!(ask().send().await.body, first.body);
        assert_eq!(origin.count(), n + 1, "{host} {proto}");
    }
}

async fn a_strangers_fields_poison_no_entry(front: Front) {
    let origin = echo().await;
    let site = AttackedSite::start(front, Setup::new(&origin)).await;
    let client = site.client();
    let other_scheme = match front {
        Front::Clear => "https",
        _ => "http",
    };
    let poison = [
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-proto", other_scheme),
        ("x-forwarded-scheme", other_scheme),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/evil"),
        ("x-host", "evil.test"),
        ("x-original-url", "/evil"),
        ("x-rewrite-url", "/evil"),
        ("x-original-host", "evil.test"),
        ("x-http-method-override", "POST"),
        ("forwarded", "host=evil.test;proto=https"),
        ("x_forwarded_host", "evil.test"),
    ];
    for (name, value) in poison {
        let path = format!("/{name}");
        let attack = client.request(&path).header(name, value).send().await;
        let seen = origin.last();
        assert_eq!(seen.path, path, "the origin was asked");
        assert!(!attack.text().contains("evil"), "{name}");
        for line in seen.headers.values() {
            let line = line.to_str().unwrap();
            assert!(!line.contains("evil"), "{name}: {:?}", seen.headers);
        }
        // Not each of the values is a word that could be found elsewhere.
        assert_ne!(seen.header(name), value, "{name}: {:?}", seen.headers);
        let victim = client.get(&path).await;
        assert!(victim.is_hit() && !victim.text().contains("evil"), "{name}");
    }
}

async fn a_path_that_looks_like_a_file_is_cached_no_sooner_for_it(front: Front) {
    let origin = Origin::pages(|seen| match seen.path.contains("said-so") {
        true => Reply::ok("me").header("cache-control", "private, max-age=60"),
        false => Reply::ok("me"),
    })
    .await;
    let site = AttackedSite::start(front, Setup::new(&origin)).await;
    for (n, path) in [
        "/account/x.css",
        "/account;x.css",
        "/account%2Fx.css",
        "/account/..%2Fx.css",
        "/account%0A.css",
        "/account%23x.css",
        "/account%3Fx.css",
        "/account/x.css?said-so",
        "//account/x.css",
        "/static/..%2Faccount",
    ]
    .into_iter()
    .enumerate()
    {
        // A cookie alone keeps an invented lifetime away.
        for cookie in ["", "", "Cookie: me=1\r\n", "Cookie: me=1\r\n"] {
            let mut raw = RawConnection::open(site.door.address).await;
            raw.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{cookie}\r\n"))
                .await;
            assert_eq!(raw.head().await.status, 200, "{path}");
            assert_eq!(origin.last().path, path, "the origin gets it as it came");
        }
        assert_eq!(origin.count(), 4 * (n + 1), "{path} was cached");
    }
}

async fn paths_that_an_origin_may_tell_apart_are_two_entries(front: Front) {
    let origin = echo().await;
    let site = AttackedSite::start(front, Setup::new(&origin)).await;
    let paths = [
        "/a/b", "/a%2Fb", "/a//b", "//a/b", "/a/b/", "/a/b?", "/A/b", "/a/b;x", "/a%252Fb",
    ];
    for path in paths {
        for _ in 0..2 {
            let mut raw = RawConnection::open(site.door.address).await;
            raw.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
                .await;
            let head = raw.head().await;
            let length = head.header("content-length").parse().unwrap();
            let body = String::from_utf8(raw.exactly(length).await).unwrap();
            assert!(body.starts_with(&format!("a {path} ")), "{path}: {body}");
        }
    }
    assert_eq!(origin.count(), paths.len());
}

async fn what_an_origin_says_of_a_strange_request_is_nobody_elses(front: Front) {
    let origin = Origin::pages(|seen| {
        match seen.headers.contains_key("x-strange") {
            true => Reply::status_only(seen.header("x-strange").parse().unwrap()),
            false => Reply::ok("fine"),
        }
        .header("cache-control", "max-age=3600")
    })
    .await;
    let site = AttackedSite::start(front, Setup::new(&origin)).await;
    let client = site.client();
    for status in ["400", "413", "414", "431"] {
        let path = format!("/{status}");
        let attack = client
            .request(&path)
            .header("x-strange", status)
            .send()
            .await;
        assert_eq!(attack.status.as_str(), status);
        assert_eq!(client.get(&path).await.text(), "fine", "{status}");
    }
}

/// A gateway whose origin is the gateway itself.
async fn loop_of_one(front: Front) -> AttackedSite {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!(
        "{{targets: [\"http://{}\"]}}",
        listener.local_addr().unwrap()
    );
    let site = AttackedSite::start(front, Setup::default().upstream("origin", &upstream)).await;
    let address = site.door.address;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(address).await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    site
}

async fn a_request_that_comes_round_again_is_a_508(front: Front) {
    let site = loop_of_one(front).await;
    assert_eq!(site.client().get("/x").await.status, 508);
    assert_eq!(site.client().post("/x", "y").await.status, 508);
}

async fn where_cdn_loop_is_lost_via_still_ends_the_loop(front: Front) {
    let origin = echo().await;
    let site = AttackedSite::start(front, Setup::new(&origin)).await;
    let ask = |hops: usize| {
        let via = ["1.1 lamina"; 20][..hops].join(", ");
        site.client()
            .request(&format!("/{hops}"))
            .header("via", &via)
    };
    assert_eq!(ask(9).send().await.status, 200);
    assert_eq!(ask(10).send().await.status, 508);
    assert_eq!(origin.count(), 1);
}

async fn ranges_without_end_cost_no_more_than_the_page(front: Front) {
    let page = "0123456789".repeat(1_000);
    let length = page.len();
    let origin = Origin::pages(move |_| Reply::fresh(page.clone())).await;
    let setup = Setup::new(&origin).listener("limits", "{max_header_bytes: 128KiB}");
    let site = AttackedSite::start(front, setup).await;
    site.client().get("/").await;
    let many = format!("bytes={}", vec!["0-"; 10_000].join(","));
    let tiny = format!("bytes={}", vec!["0-0"; 10_000].join(","));
    let nested = (0..5_000).map(|n| format!("{n}-9999")).collect::<Vec<_>>();
    let nested = format!("bytes={}", nested.join(","));
    let reverse = (0..5_000).rev().map(|n| format!("{}-{}", 2 * n, 2 * n));
    let reverse = format!("bytes={}", reverse.collect::<Vec<_>>().join(","));
    for range in [
        &many,
        &tiny,
        &nested,
        &reverse,
        "bytes=",
        "bytes=,",
        "bytes=9-1",
        "bytes=-0",
    ] {
        let answer = site
            .client()
            .request("/")
            .header("range", range)
            .send()
            .await;
        let short = &range[..range.len().min(20)];
        assert!([200, 206, 416].contains(&answer.status.as_u16()), "{short}");
        assert!(
            answer.body.len() <= 2 * length,
            "{short}: {}",
            answer.body.len()
        );
    }
}
