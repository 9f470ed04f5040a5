//! The two laws of rules (traffic.md, O1 and O2), for random sets of rules and random requests: the
//! same seed gives the same run.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use e2e::client::{Answer, Ask};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::random::Random;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::SOON;
use http::Method;
use serde_json::json;

/// `wonderland`.
const ALICE: &str = "alice:$2b$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu\n";
const JWT_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// By what a route lets clients in, beside their addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Door {
    Open,
    Basic,
    Forward,
    Jwt,
}

/// A route that lets not everybody in.
#[derive(Debug)]
struct GuardedRoute {
    /// What the paths of its pages begin with.
    place: String,
    yaml: String,
    by_address: bool,
    door: Door,
}

/// Who asks, and for what he is refused if he is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Visitor {
    Admitted,
    FromElsewhere,
    Unknown,
    Both,
}

fn chance(random: &mut Random, of: u64) -> bool {
    random.below(of) == 0
}

fn one_of<T: Copy>(random: &mut Random, all: &[T]) -> T {
    all[random.below(all.len() as u64) as usize]
}

/// Each of these, or not.
fn some_of<'a>(random: &mut Random, all: &[&'a str]) -> Vec<&'a str> {
    let chosen = all.iter().filter(|_| chance(random, 2));
    chosen.copied().collect()
}

impl GuardedRoute {
    fn random(number: usize, random: &mut Random) -> Self {
        let doors = [Door::Open, Door::Basic, Door::Forward, Door::Jwt];
        let door = doors[number % doors.len()];
        let by_address = door == Door::Open || chance(random, 2);
        let place = format!("/case-{number}");
        let mut keys = vec![
            format!("name: case-{number}"),
            format!("match: {{path: {place}/*}}"),
            "upstream: origin".to_owned(),
            "policy: {ttl: 1h, stale_while_revalidate: 1h, request_directives: honor, cookies: ignore}"
                .to_owned(),
        ];
        if by_address {
            keys.push("access: {allow: [10.1.0.0/16]}".to_owned());
        }
        let auth = match door {
            Door::Open => None,
            Door::Basic => Some("basic: users.htpasswd".to_owned()),
            Door::Forward => Some("forward: {upstream: sso, path: /verify}".to_owned()),
            Door::Jwt => Some(format!(
                "jwt: {{secret: {JWT_SECRET}, algorithms: [HS256], issuer: \"https://idp.test/\", audience: [edge]}}"
            )),
        };
        keys.extend(auth.map(|auth| format!("auth: {{{auth}}}")));
        let more = some_of(
            random,
            &[
                "headers: {request: {set: {x-to: \"{client}\"}}, response: {set: {x-a: one}, add: {vary: x-b}}}",
                "cors: {origins: [\"https://a.test\"]}",
                "compress: {min_bytes: 10B}",
                "request_id: on",
                "security_headers: basic",
                "errors: [{of: any}]",
                "accept_language: [de, en]",
                "device: x-device",
                "limit: [much]",
                "esi: {pages: all}",
                "rewrite: {add_prefix: /v2}",
                "maintenance: {serve: cached}",
                "tags: [all]",
            ],
        );
        keys.extend(more.into_iter().map(str::to_owned));
        Self {
            place,
            yaml: format!("{{{}}}", keys.join(", ")),
            by_address,
            door,
        }
    }

    /// A visitor that this route can tell from those who are let in.
    fn visitor(&self, random: &mut Random) -> Visitor {
        let refused = match (self.by_address, self.door) {
            (true, Door::Open) => &[Visitor::FromElsewhere][..],
            (true, _) => &[Visitor::FromElsewhere, Visitor::Unknown, Visitor::Both],
            (false, _) => &[Visitor::Unknown],
        };
        match chance(random, 2) {
            true => Visitor::Admitted,
            false => one_of(random, refused),
        }
    }

    /// A request of this visitor.
    fn asked_by(&self, visitor: Visitor, ask: Ask) -> Ask {
        let is_elsewhere = matches!(visitor, Visitor::FromElsewhere | Visitor::Both);
        let is_unknown = matches!(visitor, Visitor::Unknown | Visitor::Both);
        let (client, password, session) = (
            if is_elsewhere {
                "192.0.2.1"
            } else {
                "10.1.2.3"
            },
            if is_unknown { "sesame" } else { "wonderland" },
            if is_unknown { "mallory" } else { "alice" },
        );
        let asker = match visitor {
            Visitor::Admitted => "admitted",
            _ => "refused",
        };
        let ask = ask
            .header("x-forwarded-for", client)
            .header("x-asker", asker);
        match self.door {
            Door::Open => ask,
            Door::Basic => {
                let word = STANDARD.encode(format!("alice:{password}"));
                ask.header("authorization", &format!("Basic {word}"))
            }
            Door::Forward => ask.header("cookie", &format!("session={session}")),
            Door::Jwt => ask.header("authorization", &format!("Bearer {}", token(password))),
        }
    }
}

/// A token that is good if its signer knows the password.
fn token(password: &str) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let claims = json!({"iss": "https://idp.test/", "aud": "edge", "sub": "alice",
        "exp": now.unwrap().as_secs() + 3600});
    let signed = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
    let secret = match password {
        "wonderland" => JWT_SECRET,
        _ => "fedcba9876543210fedcba9876543210",
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What leads to other answers of a cache.
const FIELDS: [(&str, &str); 12] = [
    ("x-nothing", "1"),
    ("if-none-match", "\"e\""),
    ("if-none-match", "*"),
    ("if-match", "\"other\""),
    ("if-modified-since", "Sun, 06 Nov 2044 08:49:37 GMT"),
    ("range", "bytes=0-9"),
    ("range", "bytes=900-"),
    ("cache-control", "only-if-cached"),
    ("cache-control", "no-cache"),
    ("cache-control", "max-stale"),
    ("accept-encoding", "gzip, br"),
    ("origin", "https://a.test"),
];

/// What tells a refused visitor something of the answer that others get.
fn shows(answer: &Answer) -> bool {
    let tells = ["etag", "last-modified", "content-range", "x-origin"];
    text_of(answer).contains("secret")
        || answer.is_hit()
        || tells.iter().any(|name| answer.has(name))
}

fn text_of(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// O1.
#[tokio::test]
async fn no_random_request_that_is_refused_is_shown_what_is_stored() {
    let mut random = Random::new(0x0181);
    let origin = Origin::pages(|seen| {
        let page = Reply::ok(format!("the secret of {}", seen.path))
            .header("cache-control", "public, max-age=600")
            .header("content-type", "text/plain")
            .header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .header("x-origin", "1");
        match seen.path.contains("untagged") {
            true => page,
            false => page.header("etag", "\"e\""),
        }
    })
    .await;
    let service = Origin::pages(|seen| match seen.header("cookie") {
        "session=alice" => Reply::ok("yes"),
        _ => Reply::ok("who are you").status(401),
    })
    .await;
    let routes: Vec<_> = (0..24)
        .map(|number| GuardedRoute::random(number, &mut random))
        .collect();
    let setup = Setup::new(&origin)
        .listener("trusted_proxies", "[127.0.0.0/8]")
        .upstream("sso", &format!("{{targets: [\"{}\"]}}", service.url()))
        .top("limits", "{much: {rate: 10000/s}}")
        .file("users.htpasswd", ALICE);
    let setup = routes
        .iter()
        .fold(setup, |setup, route| setup.route(&route.yaml));
    let gateway = setup.start().await;
    let clients = [
        gateway.client().uncached(),
        gateway.client_http2().uncached(),
    ];
    let paths = ["/a", "/untagged"];
    for route in &routes {
        for path in paths {
            let page = format!("{}{path}", route.place);
            let ask = route.asked_by(Visitor::Admitted, clients[0].request(&page));
            let answer = ask.send().await;
            assert_eq!(answer.status, 200, "{route:?}");
            assert!(text_of(&answer).contains("secret"), "{route:?}");
        }
    }
    let (mut refused, mut hits) = (0, 0);
    for number in 0..700 {
        if chance(&mut random, 60) {
            gateway.purge(json!({"all": true, "soft": true})).await;
        }
        let route = &routes[random.below(routes.len() as u64) as usize];
        let visitor = route.visitor(&mut random);
        let method = one_of(&mut random, &["GET", "GET", "GET", "HEAD", "POST"]);
        let (path, field) = (one_of(&mut random, &paths), one_of(&mut random, &FIELDS));
        let client = &clients[random.below(2) as usize];
        let page = format!("{}{path}", route.place);
        let ask = client.ask(method.parse::<Method>().unwrap(), &page);
        let ask = route.asked_by(visitor, ask).header(field.0, field.1);
        let answer = ask.send().await;
        let what = format!("{number}: {visitor:?} {method} {path} {field:?} {route:?}: {answer:?}");
        match visitor {
            Visitor::Admitted => {
                assert!(![401, 403].contains(&answer.status.as_u16()), "{what}");
                hits += usize::from(answer.is_hit());
            }
            _ => {
                assert!([401, 403].contains(&answer.status.as_u16()), "{what}");
                assert!(!shows(&answer), "{what}");
                refused += 1;
            }
        }
    }
    assert!(
        refused > 200 && hits > 60,
        "{refused} were refused, {hits} were hits"
    );
    let seen = origin.seen();
    let asked = seen.iter().find(|seen| seen.header("x-asker") == "refused");
    assert!(
        asked.is_none(),
        "{asked:?} reached the origin, though it was refused"
    );
}

/// Rules for answers, with values that no other set has.
fn answer_rules(random: &mut Random, round: usize) -> String {
    let values = [
        format!(
            "headers: {{response: {{remove: [server, x-origin], set: {{x-a: \"{round}\"}}, add: {{x-b: [b, \"{round}\"]}}}}}}"
        ),
        "security_headers: basic".to_owned(),
        format!(
            "cors: {{origins: [\"https://{round}.test\", \"https://a.test\"], credentials: true}}"
        ),
        "compress: {min_bytes: 10B}".to_owned(),
        "request_id: on".to_owned(),
        "errors: [{of: any, file: sorry.html}]".to_owned(),
    ];
    let values = values.iter().map(String::as_str).collect::<Vec<_>>();
    some_of(random, &values).join(", ")
}

/// What of two answers must be the same: all but what tells one request from another.
fn told(answer: &Answer) -> Vec<(String, String)> {
    let of_one_request = ["age", "date", "cache-status", "connection"];
    let fields = answer.headers.iter();
    let fields = fields.filter(|(name, _)| !of_one_request.contains(&name.as_str()));
    let mut fields: Vec<_> = fields
        .map(|(name, value)| match name.as_str() {
            "x-request-id" => (name.to_string(), "some".to_owned()),
            _ => (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ),
        })
        .collect();
    fields.push(("status".to_owned(), answer.status.to_string()));
    fields.push(("body".to_owned(), text_of(answer)));
    fields.sort();
    fields
}

async fn from_site_a(gateway: &Gateway, path: &str) -> Answer {
    let ask = gateway.client().request(path).host("site.test");
    ask.header("origin", "https://a.test").send().await
}

/// O2: an answer that was stored under other rules comes out as a new one does.
#[tokio::test]
async fn after_each_random_reload_what_is_stored_comes_out_as_what_is_new() {
    let mut random = Random::new(0x0182);
    let origin = Origin::pages(|seen| {
        let status = if seen.path.starts_with("/gone") {
            404
        } else {
            200
        };
        let validates = seen.headers.contains_key("if-none-match");
        let reply = match validates {
            true => Reply::status_only(304),
            false => Reply::ok("one and the same text").status(status),
        };
        reply
            .header("cache-control", "max-age=600")
            .header("content-type", "text/plain")
            .header("server", "nginx")
            .header("x-origin", "1")
            .header("x-b", "a")
            .header("etag", "\"e\"")
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("l2");
    let disk = format!("{{l2: {{disk: {{path: \"{}\"}}}}}}", disk.display());
    let with = |rules: &str| {
        let keys = ["name: site", "upstream: origin", rules];
        let keys: Vec<_> = keys.into_iter().filter(|key| !key.is_empty()).collect();
        let setup = Setup::new(&origin).file("sorry.html", "<p>{status}</p>");
        setup
            .top("cache", &disk)
            .route(&format!("{{{}}}", keys.join(", ")))
    };
    let rules = answer_rules(&mut random, 0);
    let mut gateway = with(&rules).start().await;
    let stored = ["/page", "/gone"];
    for path in stored {
        from_site_a(&gateway, path).await;
    }
    let mut sets = std::collections::BTreeSet::from([rules]);
    for round in 1..=10 {
        let rules = answer_rules(&mut random, round);
        gateway.take_up(&with(&rules)).await;
        for path in stored {
            let old = from_site_a(&gateway, path).await;
            let new = from_site_a(&gateway, &format!("{path}/{round}")).await;
            assert!(old.is_hit() && !new.is_hit(), "{path} {rules}");
            assert_eq!(told(&old), told(&new), "{path} with {rules}");
            assert_eq!(origin.count_of(path), 1, "{path} {rules}");
        }
        sets.insert(rules);
    }
    assert!(sets.len() >= 8, "{sets:?}");
    let written = [("outcome", "stored")];
    let metric = "lamina_l2_writes_total";
    gateway.metric_until(metric, &written, |n| n >= 22.0).await;
    gateway.terminate();
    gateway.ended(SOON).await;
    let gateway = with("").start().await;
    for path in stored {
        let old = from_site_a(&gateway, path).await;
        let new = from_site_a(&gateway, &format!("{path}/last")).await;
        assert_eq!(
            told(&old),
            told(&new),
            "{path} from the disk, without rules"
        );
        let seen = origin.seen();
        let loads = seen
            .iter()
            .filter(|seen| seen.path == path && !seen.headers.contains_key("if-none-match"));
        assert_eq!(loads.count(), 1, "the disk has {path}");
    }
}
