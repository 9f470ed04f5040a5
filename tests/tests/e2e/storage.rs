//! What a shared cache stores and for how long by HTTP's own rules (RFC 9111 §3, §4.2).

use std::time::{Duration, Instant, SystemTime};

use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::{Setup, site};
use e2e::wait::passed;

/// An answer and whether the next request for it is served from the store.
struct StorageCase {
    name: &'static str,
    status: u16,
    headers: Vec<(&'static str, String)>,
    reused: bool,
}

fn case(name: &'static str, reused: bool, headers: &[(&'static str, &str)]) -> StorageCase {
    with_status(name, 200, reused, headers)
}

fn with_status(
    name: &'static str,
    status: u16,
    reused: bool,
    headers: &[(&'static str, &str)],
) -> StorageCase {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    StorageCase {
        name,
        status,
        headers,
        reused,
    }
}

/// IMF-fixdate, `offset` seconds from now (`date` of GNU coreutils knows the calendar).
fn date(offset: i64) -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let at = i64::try_from(now).unwrap() + offset;
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{at}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn cases() -> Vec<StorageCase> {
    let cc = "cache-control";
    vec![
        case("max-age", true, &[(cc, "max-age=60")]),
        case("max-age, upper case", true, &[(cc, "MAX-AGE=60")]),
        case("s-maxage alone", true, &[(cc, "s-maxage=60")]),
        case(
            "s-maxage over max-age",
            true,
            &[(cc, "max-age=0, s-maxage=60")],
        ),
        case(
            "s-maxage of 0 over max-age",
            false,
            &[(cc, "max-age=60, s-maxage=0")],
        ),
        case("max-age of 0", false, &[(cc, "max-age=0")]),
        case(
            "max-age on a second line",
            true,
            &[(cc, "public"), (cc, "max-age=60")],
        ),
        case(
            "an unknown directive beside it",
            true,
            &[(cc, "max-age=60, sparkle=1")],
        ),
        case("Expires to come", true, &[("expires", &date(60))]),
        case("Expires that has passed", false, &[("expires", &date(-60))]),
        case("Expires: 0", false, &[("expires", "0")]),
        case(
            "max-age over Expires",
            true,
            &[(cc, "max-age=60"), ("expires", "0")],
        ),
        case(
            "max-age of 0 over Expires",
            false,
            &[(cc, "max-age=0"), ("expires", &date(60))],
        ),
        case("no-store", false, &[(cc, "no-store, max-age=60")]),
        case("private", false, &[(cc, "private, max-age=60")]),
        case("no-cache", false, &[(cc, "no-cache, max-age=60")]),
        case("no freshness and no validator", false, &[]),
        case("public alone", false, &[(cc, "public")]),
        case(
            "heuristics by Last-Modified",
            true,
            &[("last-modified", &date(-864_000))],
        ),
        case(
            "a cookie",
            false,
            &[(cc, "max-age=60"), ("set-cookie", "a=b")],
        ),
        case("Vary: *", false, &[(cc, "max-age=60"), ("vary", "*")]),
        case(
            "already too old by Age",
            false,
            &[(cc, "max-age=60"), ("age", "100")],
        ),
        case(
            "young enough by Age",
            true,
            &[(cc, "max-age=60"), ("age", "10")],
        ),
        with_status("404 with a lifetime", 404, true, &[(cc, "max-age=60")]),
        with_status("410 with a lifetime", 410, true, &[(cc, "max-age=60")]),
        with_status(
            "301 with a lifetime",
            301,
            true,
            &[(cc, "max-age=60"), ("location", "/x")],
        ),
        with_status(
            "302 with a lifetime",
            302,
            true,
            &[(cc, "max-age=60"), ("location", "/x")],
        ),
        with_status("302 without one", 302, false, &[("location", "/x")]),
        with_status("204 with a lifetime", 204, true, &[(cc, "max-age=60")]),
        with_status("503 without one", 503, false, &[]),
    ]
}

#[tokio::test]
async fn a_response_is_reused_exactly_where_rfc_9111_allows_it() {
    let cases = cases();
    let table: Vec<(u16, Vec<_>)> = cases
        .iter()
        .map(|case| (case.status, case.headers.clone()))
        .collect();
    let (origin, gateway) = site("{}", move |seen| {
        let (status, headers) = &table[seen.path.trim_start_matches('/').parse::<usize>().unwrap()];
        headers
            .iter()
            .fold(Reply::ok("").status(*status), |reply, (name, value)| {
                reply.header(name, value)
            })
    })
    .await;
    let mut faults = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let path = format!("/{number}");
        let first = gateway.client().get(&path).await;
        let second = gateway.client().get(&path).await;
        let reused = origin.count_of(&path) == 1;
        if reused != case.reused || second.is_hit() != case.reused || first.is_hit() {
            faults.push(format!(
                "{}: reused {reused}, then {:?}",
                case.name,
                second.cache()
            ));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[tokio::test]
async fn a_miss_then_a_hit_say_so() {
    let (_origin, gateway) = site("{}", |_| Reply::fresh("page")).await;
    let miss = gateway.client().get("/").await.cache();
    assert!(miss.forwarded_as("uri-miss") && miss.stored, "{miss:?}");
    assert_eq!(miss.fwd_status.unwrap_or(200), 200);
    let hit = gateway.client().get("/").await;
    assert!(hit.is_hit() && hit.has("age"));
    assert!(
        (1..=60).contains(&hit.cache().ttl.unwrap()),
        "{:?}",
        hit.cache()
    );
    assert_eq!(hit.text(), "page");
}

#[tokio::test]
async fn cache_status_is_appended_after_those_of_caches_behind() {
    let (_origin, gateway) = site("{}", |_| {
        Reply::fresh("x").header("cache-status", "behind; hit")
    })
    .await;
    let answer = gateway.client().get("/").await;
    let all: Vec<_> = answer
        .headers
        .get_all("cache-status")
        .iter()
        .map(|v| v.to_str().unwrap())
        .collect();
    assert!(
        all.join(", ").starts_with("behind; hit, lamina;"),
        "{all:?}"
    );
}

#[tokio::test]
async fn age_goes_on_from_the_origins_and_date_stays() {
    let (_origin, gateway) = site("{}", |_| Reply::fresh("x").header("age", "10")).await;
    let began = Instant::now();
    let miss = gateway.client().get("/").await;
    passed(miss.at, Duration::from_millis(1_100)).await;
    let hit = gateway.client().get("/").await;
    let most = 11 + began.elapsed().as_secs();
    assert!(
        (11..=most).contains(&hit.age().unwrap()),
        "{:?}",
        hit.headers
    );
    assert_eq!(hit.header("date"), miss.header("date"));
    assert!(hit.cache().ttl.unwrap() < 50);
}

#[tokio::test]
async fn a_lifetime_ends() {
    let (origin, gateway) = site("{}", |_| {
        Reply::ok("x").header("cache-control", "max-age=1")
    })
    .await;
    let miss = gateway.client().get("/").await;
    assert!(miss.cache().stored, "{:?}", miss.cache());
    passed(miss.at, Duration::from_millis(1_100)).await;
    let again = gateway.client().get("/").await;
    assert!(!again.is_hit());
    assert!(origin.count() >= 2);
}

#[tokio::test]
async fn answers_to_authorized_requests_are_shared_only_when_marked_so() {
    let (origin, gateway) = site("{}", |seen| {
        let directive = seen.path.trim_start_matches('/').replace('_', "=");
        Reply::ok("x").header("cache-control", &format!("max-age=60, {directive}"))
    })
    .await;
    for (path, shared) in [
        ("/x", false),
        ("/public", true),
        ("/s-maxage_60", true),
        ("/must-revalidate", true),
    ] {
        for _ in 0..2 {
            gateway
                .client()
                .request(path)
                .header("authorization", "Basic eA==")
                .send()
                .await;
        }
        assert_eq!(origin.count_of(path) == 1, shared, "{path}");
    }
}

#[tokio::test]
async fn each_vary_combination_has_its_variant() {
    let (origin, gateway) = site("{}", |seen: &Seen| {
        Reply::fresh(format!("in {}", seen.header("accept-language")))
            .header("vary", "Accept-Language, x-none")
    })
    .await;
    let ask = |language: &'static str| {
        gateway
            .client()
            .request("/")
            .header("accept-language", language)
            .send()
    };
    assert_eq!(ask("en").await.text(), "in en");
    let german = ask("de").await;
    assert_eq!(german.text(), "in de");
    assert!(
        german.cache().forwarded_as("vary-miss"),
        "{:?}",
        german.cache()
    );
    for language in ["en", "de"] {
        let again = ask(language).await;
        assert_eq!(
            (again.text(), again.is_hit()),
            (format!("in {language}").as_str(), true)
        );
    }
    assert!(
        !gateway.client().get("/").await.is_hit(),
        "an absent field is not an `en`"
    );
    assert_eq!(origin.count(), 3);
}

#[tokio::test]
async fn white_space_in_a_varying_field_makes_no_variant() {
    let (origin, gateway) = site("{}", |_| {
        Reply::fresh("x").header("vary", "accept-language")
    })
    .await;
    for language in ["en, de", "en,de", "en ,  de"] {
        gateway
            .client()
            .request("/")
            .header("accept-language", language)
            .send()
            .await;
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_successful_unsafe_request_invalidates_its_url_and_those_it_names() {
    let (origin, gateway) = site("{}", |seen| {
        match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", _) => Reply::fresh("x"),
            (_, "/fails") => Reply::status_only(500),
            _ => Reply::status_only(201)
                .header("location", "/new")
                .header("content-location", "/list"),
        }
    })
    .await;
    let client = gateway.client();
    for path in ["/thing", "/new", "/list", "/fails", "/other"] {
        client.get(path).await;
    }
    assert_eq!(client.post("/thing", "x").await.status, 201);
    assert_eq!(client.post("/fails", "x").await.status, 500);
    for (path, kept) in [
        ("/thing", false),
        ("/new", false),
        ("/list", false),
        ("/fails", true),
        ("/other", true),
    ] {
        assert_eq!(client.get(path).await.is_hit(), kept, "{path}");
    }
    for (method, kept) in [("BREW", true), ("M-SEARCH", false)] {
        client.ask(method.parse().unwrap(), "/other").send().await;
        assert_eq!(
            client.get("/other").await.is_hit(),
            kept,
            "{method}: only methods that somebody knows invalidate"
        );
    }
    assert!(origin.count() > 5);
}

#[tokio::test]
async fn an_object_over_the_limit_streams_through_and_is_not_stored() {
    let origin = Origin::pages(|seen| {
        let body = vec![b'a'; 100 << 10];
        match seen.path.as_str() {
            "/length" => Reply::fresh(body),
            _ => {
                let (reply, pieces) = Reply::stream();
                tokio::spawn(async move {
                    for piece in body.chunks(10 << 10) {
                        pieces.send(piece.to_vec()).await;
                    }
                    pieces.finish().await;
                });
                reply.header("cache-control", "max-age=60")
            }
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("cache", "{l1: {max_object_bytes: 64KiB}}")
        .start()
        .await;
    for path in ["/length", "/chunked"] {
        for _ in 0..2 {
            let answer = gateway.client().get(path).await;
            assert_eq!(
                (answer.body.len(), answer.is_hit()),
                (100 << 10, false),
                "{path}"
            );
        }
        assert_eq!(origin.count_of(path), 2);
    }
}

/// A page that is what the last POST to it made.
fn made(seen: &Seen) -> Reply {
    match (seen.method.as_str(), &*seen.path) {
        ("GET", _) => Reply::fresh("got"),
        (_, "/names-itself") => Reply::fresh("made").header("content-location", "/names-itself"),
        (_, "/names-another") => Reply::fresh("made").header("content-location", "/x"),
        (_, "/says-nothing") => Reply::fresh("made"),
        (_, "/no-lifetime") => Reply::ok("made")
            .header("content-location", "/no-lifetime")
            .header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        (_, "/created") => Reply::fresh("made")
            .status(201)
            .header("content-location", "/created"),
        (_, path) => panic!("nobody asks for {path}"),
    }
}

/// A client's body is nobody else's page unless the route says so.
#[tokio::test]
async fn an_answer_to_a_post_serves_no_later_gets_by_default() {
    let (_origin, gateway) = site("{ttl: 1h}", made).await;
    for path in ["/names-itself", "/says-nothing"] {
        assert_eq!(gateway.client().post(path, "body").await.text(), "made");
        assert_eq!(gateway.client().get(path).await.text(), "got", "{path}");
    }
}

/// RFC 9110 §9.3.3: the answer to a POST that says it is the URL's own.
#[tokio::test]
async fn an_answer_to_a_post_that_names_its_url_serves_later_gets_where_a_route_asks_for_it() {
    let (origin, gateway) = site("{store_post: true}", made).await;
    let client = gateway.client();
    for (path, then) in [
        ("/names-itself", "made"),
        ("/names-another", "got"),
        ("/says-nothing", "got"),
        ("/no-lifetime", "got"),
        ("/created", "got"),
    ] {
        client.get(path).await;
        let made = client.post(path, "body").await;
        assert_eq!(made.text(), "made", "{path}");
        assert!(made.cache().forwarded_as("method"), "{path}");
        let answer = client.get(path).await;
        assert_eq!(answer.text(), then, "{path}");
        assert_eq!(answer.is_hit(), then == "made", "{path}");
    }
    assert_eq!(origin.count(), 5 + 5 + 4);
}
