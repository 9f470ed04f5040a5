//! HTTP/1 origins that misbehave: what they send wrong is never stored, never looks whole,
//! and never reaches another request (http.md, Bad input). The plays are in
//! `e2e::attack::origin`.

use e2e::attack::Before;
use e2e::attack::origin::{self, Sees, look};
use e2e::client::Client;
use e2e::gateway::Gateway;
use e2e::rogue::{Play, Rogue};
use e2e::setup::Setup;
use e2e::tls_origin::Reached;
use e2e::wait::{SOON, wait_until};
use futures_util::{StreamExt, stream};
use http::Method;

/// Idle connections end soon, so that those that are left over show.
const POOL: &str = "{max_idle: 4, idle_timeout: 300ms}";

/// Parts of names of plays that only a deadline ends.
const TIMELESS: [&str; 3] = ["silence", "in-drips", "a-chunk-size-without-end"];

/// For those; not so short that a busy machine misses one.
const HASTY: &str = "{first_byte: 8s, idle: 8s, total: 9s}";

/// For all others: parsing a flood up to a limit may take a while.
const PATIENT: &str = "{first_byte: 10m, idle: 10m}";

/// A gateway with a route that caches and one, `/off/*`, that does not; the same again
/// below `/hasty/`, with deadlines that end soon.
async fn before(reached: &Reached) -> Gateway {
    let upstream = |timeouts: &str| {
        let keys = reached.keys();
        format!("{{{keys}, timeouts: {timeouts}, pool: {POOL}}}")
    };
    let setup = Setup::default();
    let files = reached.file().into_iter();
    let setup = files.fold(setup, |setup, (name, text)| setup.file(&name, text));
    setup
        .upstream("hasty", &upstream(HASTY))
        .upstream("origin", &upstream(PATIENT))
        .route("{name: hasty-off, match: {path: /hasty/off/*}, upstream: hasty, cache: off}")
        .route("{name: hasty, match: {path: /hasty/*}, upstream: hasty}")
        .route("{name: off, match: {path: /off/*}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}")
        .start()
        .await
}

/// Plays at once: many of them take as long as a deadline.
const AT_ONCE: usize = 8;

/// Each play, and afterwards nothing may be left of them.
async fn each(plays: &'static [Play]) {
    let rogue = Rogue::start(plays).await;
    let reached = Reached::Clear(rogue.address());
    each_of(plays, &rogue, &reached).await;
}

/// The same over TLS.
pub async fn each_over_tls(plays: &'static [Play]) {
    let rogue = Rogue::start(plays).await;
    let reached = Reached::by_tls(rogue.address(), "http/1.1").await;
    each_of(plays, &rogue, &reached).await;
}

async fn each_of(plays: &'static [Play], rogue: &Rogue, reached: &Reached) {
    let gateway = before(reached).await;
    gateway.client().get("/good/0").await;
    gateway.client_http2().get("/good/0").await;
    let before = Before::of(&gateway);
    let looks = plays.iter().map(|play| one(&gateway, rogue, play));
    let faults: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).concat().await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    before.is_back(&gateway, "rogue origins").await;
}

/// One play over each protocol and route; after each, good requests get their own answers.
async fn one(gateway: &Gateway, rogue: &Rogue, play: &Play) -> Vec<String> {
    let hasty = TIMELESS.iter().any(|word| play.name.contains(word));
    let base = if hasty { "/hasty" } else { "" };
    let (path, off) = (
        format!("{base}/play/{}", play.name),
        format!("{base}/off/{}", play.name),
    );
    let (faults, more) = tokio::join!(over(gateway, play, &path), over(gateway, play, &off));
    let mut faults = [faults, more].concat();
    let whole = matches!(play.sees, Sees::Whole(..));
    if !whole && rogue.count_of(&path) < 2 {
        faults.push(format!("{path} was stored"));
    }
    faults
}

/// One play at one path, over each protocol.
async fn over(gateway: &Gateway, play: &Play, path: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (m, client) in [gateway.client(), gateway.client_http2()]
        .iter()
        .enumerate()
    {
        let seen = look(client, &Method::GET, path, play.sees).await;
        faults.extend(seen.err());
        faults.extend(good(client, &format!("{path}/good/{m}")).await);
    }
    faults
}

/// Whether what a play left behind reaches the requests after it.
async fn good(client: &Client, path: &str) -> Option<String> {
    for n in 0..3 {
        let path = format!("{path}/{n}");
        let seen = client.get(&path).await;
        if seen.text() != path {
            return Some(format!("{path} got {:?}", seen.text()));
        }
    }
    None
}

#[tokio::test]
async fn heads_that_cannot_be_are_a_502() {
    each(origin::HEADS).await;
}

#[tokio::test]
async fn bodies_that_break_off_never_look_whole() {
    each(origin::BODIES).await;
}

#[tokio::test]
async fn what_follows_an_answer_reaches_nobody() {
    each(origin::MORE).await;
}

#[tokio::test]
async fn odd_answers_that_are_right_are_served() {
    each(origin::ODD).await;
}

#[tokio::test]
async fn floods_and_drips_of_an_origin_have_an_end() {
    each(origin::FLOODS).await;
}

#[tokio::test]
async fn a_body_for_head_reaches_nobody() {
    let rogue = Rogue::start(origin::MORE).await;
    let gateway = before(&Reached::Clear(rogue.address())).await;
    for client in [gateway.client(), gateway.client_http2()] {
        for play in origin::MORE {
            let path = format!("/off/{}", play.name);
            look(&client, &Method::HEAD, &path, play.sees)
                .await
                .unwrap();
            assert_eq!(good(&client, &format!("/good{path}")).await, None);
        }
    }
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_is_no_answer_and_its_body_reaches_nobody() {
    let rogue = Rogue::start(origin::UNASKED_304).await;
    let gateway = before(&Reached::Clear(rogue.address())).await;
    let name = origin::UNASKED_304[0].name;
    for client in [gateway.client(), gateway.client_http2()] {
        let passed = Sees::Whole(304, "");
        for (path, sees) in [("/play", Sees::Error(502)), ("/off", passed)] {
            let path = format!("{path}/{name}");
            look(&client, &Method::GET, &path, sees).await.unwrap();
            assert_eq!(good(&client, &format!("/good{path}")).await, None);
        }
    }
}

#[tokio::test]
async fn an_endless_body_ends_when_its_client_leaves() {
    let rogue = Rogue::start(origin::ENDLESS).await;
    let upstream = format!("{{targets: [\"{}\"], pool: {POOL}}}", rogue.url());
    let gateway = Setup::default()
        .upstream("origin", &upstream)
        .route("{name: off, match: {path: /off/*}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}")
        .top("cache", "{l1: {max_object_bytes: 256KiB}}")
        .start()
        .await;
    gateway.client().get("/good/1").await;
    let before = Before::of(&gateway);
    for play in origin::ENDLESS {
        for path in [
            format!("/off/{}", play.name),
            format!("/play/{}", play.name),
        ] {
            for client in [gateway.client(), gateway.client_http2()] {
                let mut answer = client.request(&path).open().await;
                assert!(answer.at_least(1 << 20).await.len() >= 1 << 20);
                drop((answer, client));
            }
            wait_until("its connections are closed", SOON, || rogue.open() <= 1).await;
        }
    }
    before.is_back(&gateway, "endless bodies").await;
}
