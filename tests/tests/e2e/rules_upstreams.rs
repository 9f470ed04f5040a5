//! Requests that are divided among several upstreams, and copies for a second one.

use std::collections::HashMap;

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use serde_json::json;

async fn named(name: &'static str) -> Origin {
    Origin::pages(move |_| Reply::fresh(name)).await
}

async fn split(blue: &Origin, green: &Origin, split: &str) -> Gateway {
    Setup::new(blue)
        .upstream("blue", &blue.url())
        .upstream("green", &green.url())
        .route(&format!("{{name: site, split: {split}}}"))
        .start()
        .await
}

#[tokio::test]
async fn answers_of_two_upstreams_are_two_entries_and_one_purge_reaches_both() {
    let (blue, green) = (named("blue").await, named("green").await);
    let to =
        "{by: header x-user, to: [{upstream: blue, weight: 75}, {upstream: green, weight: 25}]}";
    let gateway = split(&blue, &green, to).await;
    let ask = |user: usize| {
        let ask = gateway
            .client()
            .request("/")
            .header("x-user", &user.to_string());
        ask.header("lamina-upstream", "green").send()
    };
    let mut first = HashMap::new();
    for user in 0..200 {
        first.insert(user, ask(user).await.text().to_owned());
    }
    let greens = first.values().filter(|name| *name == "green").count();
    assert!((20..=90).contains(&greens), "{greens} of 200 go to green");
    assert_eq!((blue.count(), green.count()), (1, 1));
    for user in 0..200 {
        let answer = ask(user).await;
        assert_eq!(answer.text(), first[&user], "a user stays where it was");
        assert!(answer.is_hit());
    }
    assert_eq!(blue.last().header("lamina-upstream"), "");
    gateway
        .purge(json!({ "url": format!("http://{}/", gateway.address) }))
        .await;
    for user in 0..200 {
        ask(user).await;
    }
    assert_eq!(
        (blue.count(), green.count()),
        (2, 2),
        "the purge reached both"
    );
}

#[tokio::test]
async fn an_upstream_without_weight_gets_nothing_and_clients_stay() {
    let (blue, green) = (named("blue").await, named("green").await);
    let to = "{to: [{upstream: blue, weight: 0}, {upstream: green, weight: 1}]}";
    let gateway = split(&blue, &green, to).await;
    for n in 0..20 {
        let answer = gateway.client().get(&format!("/{n}")).await;
        assert_eq!(answer.text(), "green");
    }
    assert_eq!((blue.count(), green.count()), (0, 20));
}

#[tokio::test]
async fn copies_go_to_a_second_upstream_and_nobody_waits_for_them() {
    let origin = named("page").await;
    let next = Origin::start(|_| std::future::pending()).await;
    let gateway = Setup::new(&origin)
        .upstream("next", &next.url())
        .route("{name: site, upstream: origin, mirror: {upstream: next, max_in_flight: 3}}")
        .start()
        .await;
    for n in 0..10 {
        let path = format!("/{n}");
        assert_eq!(gateway.client().get(&path).await.text(), "page");
        assert!(gateway.client().get(&path).await.is_hit());
    }
    wait_for("three copies", SOON, || async {
        (next.count() == 3).then_some(())
    })
    .await;
    let copy = next.last();
    assert_eq!(copy.header("x-lamina-mirror"), "1");
    assert_eq!(
        origin.count(),
        10,
        "hits are not copied, and the origin gets each once"
    );
    assert_eq!(origin.last().header("x-lamina-mirror"), "");
    let labels = [("route", "site"), ("outcome", "dropped")];
    let dropped = gateway.metric("lamina_mirror_total", &labels).await;
    assert_eq!(dropped, 7.0);
}

#[tokio::test]
async fn of_all_requests_each_is_copied_once_as_the_origin_would_get_it() {
    let (origin, next) = (named("page").await, named("unseen").await);
    let gateway = Setup::new(&origin)
        .upstream("next", &next.url())
        .route("{name: closed, match: {path: /closed}, upstream: origin, access: {deny: [127.0.0.0/8]}, mirror: {upstream: next, of: all}}")
        .route("{name: site, upstream: origin, mirror: {upstream: next, of: all, body: 1KiB}, rewrite: {add_prefix: /v2}, headers: {request: {set: {x-env: prod}}}}")
        .start()
        .await;
    for n in 0..5 {
        let answer = gateway.client().get("/page?x=1").await;
        assert_eq!((answer.text(), answer.is_hit()), ("page", n > 0));
    }
    assert_eq!(gateway.client().get("/closed").await.status, 403);
    assert_eq!(gateway.client().post("/form", "a=1").await.text(), "page");
    wait_for("six copies", SOON, || async {
        (next.count() == 6).then_some(())
    })
    .await;
    assert_eq!(origin.count(), 2);
    let copies = next.seen();
    for copy in &copies {
        let what = (copy.method.as_str(), &*copy.path);
        assert!(
            [("GET", "/v2/page?x=1"), ("POST", "/v2/form")].contains(&what),
            "{what:?}"
        );
        assert_eq!(
            (copy.header("x-env"), copy.header("x-lamina-mirror")),
            ("prod", "1")
        );
    }
    let posts = copies.iter().filter(|copy| copy.method == "POST");
    let bodies: Vec<_> = posts
        .map(|post| post.body.clone().unwrap_or_default())
        .collect();
    assert_eq!(bodies, ["a=1"]);
}

#[tokio::test]
async fn bodies_are_copied_up_to_a_limit() {
    let (origin, next) = (named("done").await, named("unseen").await);
    let gateway = Setup::new(&origin)
        .upstream("next", &next.url())
        .route("{name: site, upstream: origin, mirror: {upstream: next, body: 1000B}}")
        .start()
        .await;
    for size in [1, 1000, 1001] {
        let answer = gateway.client().post("/form", vec![b'x'; size]).await;
        assert_eq!(answer.text(), "done", "{size} bytes");
    }
    wait_for("two copies", SOON, || async {
        (next.count() == 2).then_some(())
    })
    .await;
    let seen = next.seen();
    let bodies = seen
        .iter()
        .map(|seen| seen.body.as_ref().map_or(0, |body| body.len()));
    let mut sizes: Vec<usize> = bodies.collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1000]);
    assert_eq!(origin.count(), 3);
}

/// SP2: users move by the new weights, and what is stored of either upstream stays.
#[tokio::test]
async fn weights_change_by_a_reload_and_entries_of_both_stay() {
    let (blue, green) = (named("blue").await, named("green").await);
    let weighing = |weights: [u32; 2]| {
        let [first, second] = weights;
        let to =
            format!("[{{upstream: blue, weight: {first}}}, {{upstream: green, weight: {second}}}]");
        Setup::new(&blue)
            .upstream("blue", &blue.url())
            .upstream("green", &green.url())
            .route(&format!(
                "{{name: site, split: {{by: header x-user, to: {to}}}}}"
            ))
    };
    let gateway = weighing([95, 5]).start().await;
    let greens = async || {
        let mut greens = 0;
        for user in 0..200 {
            let ask = gateway
                .client()
                .request("/")
                .header("x-user", &user.to_string());
            greens += usize::from(ask.send().await.text() == "green");
        }
        greens
    };
    let few = greens().await;
    assert!((1..=35).contains(&few), "{few} of 200 with a weight of 5 %");
    assert_eq!((blue.count(), green.count()), (1, 1));
    for (weights, expected) in [([0, 100], 200), ([100, 0], 0), ([95, 5], few)] {
        gateway.take_up(&weighing(weights)).await;
        assert_eq!(greens().await, expected, "{weights:?}");
        assert_eq!((blue.count(), green.count()), (1, 1), "entries stay");
    }
}

/// MI1: a percentage, GET and HEAD unless a body may be copied, and each outcome is counted.
#[tokio::test]
async fn a_part_of_what_is_read_is_copied_and_outcomes_are_counted() {
    let (origin, next) = (named("page").await, named("unseen").await);
    let gateway = Setup::new(&origin)
        .upstream("next", &next.url())
        .upstream("gone", "{targets: [\"http://127.0.0.1:1\"]}")
        .route("{name: lost, match: {path: /lost}, upstream: origin, mirror: {upstream: gone}}")
        .route("{name: half, match: {path: /half/*}, upstream: origin, mirror: {upstream: next, percent: 50, max_in_flight: 1000}}")
        .route("{name: site, upstream: origin, mirror: {upstream: next}}")
        .start()
        .await;
    let client = gateway.client();
    let counted = |route: &'static str, outcome: &'static str| {
        let labels = [("route", route), ("outcome", outcome)];
        let gateway = &gateway;
        async move { gateway.metric("lamina_mirror_total", &labels).await }
    };
    for n in 0..100 {
        client.get(&format!("/half/{n}")).await;
    }
    // What is copied last tells that those before it are on their way.
    assert_eq!(client.post("/form", "a=1").await.text(), "page");
    client.head("/head").await;
    client.get("/last").await;
    wait_for("each copy has come and is counted", SOON, || async {
        let copies = next
            .seen()
            .iter()
            .filter(|copy| copy.path.starts_with("/half"))
            .count();
        let sent = counted("half", "sent").await;
        let others = counted("site", "sent").await;
        (copies as f64 == sent && others == 2.0).then_some(())
    })
    .await;
    let copies = next.seen();
    let halves = copies.iter().filter(|copy| copy.path.starts_with("/half"));
    let halves = halves.count();
    assert!((15..=85).contains(&halves), "{halves} of 100 at 50 %");
    let mut others: Vec<_> = copies
        .iter()
        .filter(|copy| !copy.path.starts_with("/half"))
        .map(|copy| (copy.method.as_str(), &*copy.path))
        .collect();
    others.sort_unstable();
    assert_eq!(others, [("GET", "/last"), ("HEAD", "/head")]);
    client.get("/lost").await;
    wait_for("a copy that failed is counted", SOON, || async {
        (counted("lost", "failed").await == 1.0).then_some(())
    })
    .await;
}

/// MI1: what arrives slowly for a second upstream is held in no more places than it has.
#[tokio::test]
async fn bodies_that_still_arrive_count_among_the_copies_under_way() {
    let (origin, next) = (named("done").await, named("unseen").await);
    let gateway = Setup::new(&origin)
        .upstream("next", &next.url())
        .route("{name: site, upstream: origin, mirror: {upstream: next, body: 1KiB, max_in_flight: 2}}")
        .start()
        .await;
    let counted = async |outcome| {
        let labels = [("route", "site"), ("outcome", outcome)];
        gateway.metric("lamina_mirror_total", &labels).await
    };
    let mut uploads = Vec::new();
    for n in 0..5 {
        let client = gateway.client();
        let (ask, body) = client.ask(http::Method::POST, &format!("/{n}")).upload();
        body.send("first ".into()).await.unwrap();
        uploads.push((body, tokio::spawn(ask.send())));
        let more_than_places = (n + 1_usize).saturating_sub(2) as f64;
        wait_for("it has its place or none", SOON, async || {
            let reached = origin.count() == n + 1;
            (reached && counted("dropped").await == more_than_places).then_some(())
        })
        .await;
    }
    for (body, answer) in uploads {
        body.send("last".into()).await.unwrap();
        drop(body);
        assert_eq!(answer.await.unwrap().text(), "done");
    }
    wait_for("two copies", SOON, async || {
        (counted("sent").await == 2.0).then_some(())
    })
    .await;
    let bodies: Vec<_> = next
        .seen()
        .into_iter()
        .map(|seen| seen.body.unwrap())
        .collect();
    assert_eq!(bodies, ["first last", "first last"]);
    // Uploads that break off give their places back.
    let before = origin.count();
    let mut broken = Vec::new();
    for n in 1..=2 {
        let (ask, body) = gateway.client().ask(http::Method::POST, "/broken").upload();
        body.send("first ".into()).await.unwrap();
        broken.push((body, tokio::spawn(ask.try_send())));
        wait_for("it is on its way", SOON, async || {
            (origin.count() == before + n).then_some(())
        })
        .await;
    }
    for (body, asking) in broken {
        asking.abort();
        drop(body);
    }
    wait_for("there is room again", SOON, async || {
        gateway.client().post("/again", "a").await;
        (next.last().path == "/again").then_some(())
    })
    .await;
}

/// Streams without an end keep no copies from being made.
#[tokio::test]
async fn a_body_that_arrives_for_long_gives_its_place_back() {
    let (origin, next) = (named("done").await, named("unseen").await);
    let gateway = Setup::new(&origin)
        .upstream("next", &next.url())
        .route("{name: site, upstream: origin, mirror: {upstream: next, body: 1KiB, max_in_flight: 1}}")
        .listener("limits", "{min_rate: 0}")
        .start()
        .await;
    let counted = async |outcome| {
        let labels = [("route", "site"), ("outcome", outcome)];
        gateway.metric("lamina_mirror_total", &labels).await
    };
    let (ask, body) = gateway.client().ask(http::Method::POST, "/stream").upload();
    body.send("first ".into()).await.unwrap();
    let asking = tokio::spawn(ask.send());
    wait_for("it is on its way", SOON, async || {
        (origin.count() == 1).then_some(())
    })
    .await;
    gateway.client().post("/small", "a").await;
    assert_eq!(counted("dropped").await, 1.0, "the place is taken");
    wait_for("the place is free", SOON, async || {
        (counted("dropped").await == 2.0).then_some(())
    })
    .await;
    // What is too large needs none.
    let large = "x".repeat(1 << 11);
    gateway.client().post("/large", large).await;
    assert_eq!(counted("dropped").await, 3.0);
    gateway.client().post("/again", "a").await;
    wait_for("there is room again", SOON, async || {
        (counted("sent").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(next.last().path, "/again");
    drop(body);
    assert_eq!(asking.await.unwrap().text(), "done", "the stream goes on");
}

/// One visitor's page is of one version, though nothing of the requests says which.
#[tokio::test]
async fn fragments_come_from_the_upstream_of_their_page() {
    let version = |name: &'static str| {
        let page = move |more: &str| {
            let reply = Reply::fresh(format!("{name}{more}"));
            reply.header("content-type", "text/html")
        };
        Origin::pages(move |seen| match seen.path_only() {
            "/page" => page(" <esi:include src=\"/top\"/>"),
            "/top" => page(" <esi:include src=\"/below\"/>"),
            _ => page(""),
        })
    };
    let (blue, green) = (version("blue").await, version("green").await);
    for by in ["random", "cookie user"] {
        let to = "[{upstream: blue, weight: 50}, {upstream: green, weight: 50}]";
        let gateway = Setup::new(&blue)
            .upstream("blue", &blue.url())
            .upstream("green", &green.url())
            .route(&format!(
                "{{name: parts, match: {{path: /below}}, split: {{by: {by}, to: {to}}}}}"
            ))
            .route(&format!(
                "{{name: site, split: {{by: {by}, to: {to}}}, esi: {{pages: all}}}}"
            ))
            .start()
            .await;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..30 {
            let page = gateway.client().get("/page").await;
            let text = page.text().to_owned();
            assert!(
                ["blue blue blue", "green green green"].contains(&&*text),
                "{by}: {text}"
            );
            seen.insert(text);
        }
        assert_eq!(seen.len(), 2, "{by}: both versions are seen");
    }
}
