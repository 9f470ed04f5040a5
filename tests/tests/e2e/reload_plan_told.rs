//! What `lamina plan` says besides keys: which names get and lose a certificate (PL1d), and how many
//! stored entries would live shorter or longer (PL1c).

use e2e::cli::run;
use e2e::gateway::Gateway;
use e2e::h3::certificates::Certificates;
use e2e::h3::{NAME, OTHER_NAME};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use serde_json::{Value, json};

/// What the gateway, and the command, say of this configuration.
async fn planned(gateway: &Gateway, setup: &Setup) -> (Value, String) {
    let file = gateway.dir().join("next.yaml");
    std::fs::write(&file, setup.yaml()).unwrap();
    let plan = gateway.plan(&file).await;
    assert_eq!(plan.status, 200, "{}", plan.said);
    let arguments = [
        "plan",
        "-c",
        file.to_str().unwrap(),
        "--against",
        &gateway.admin.to_string(),
    ];
    let ran = run(&arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    (plan.said, ran.stdout)
}

/// What is stored of each, one entry after the other, and a request for it.
const STORED: [&str; 6] = ["/a", "/a/", "/b/c", "/b/c?p=1", "/x//y", "/a%2Fb"];

/// Whatever answers before the cache makes entries unreachable as another key does (PL3).
#[tokio::test]
async fn entries_that_rules_of_the_route_keep_clients_from_are_unreachable() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let plain = || Setup::new(&origin);
    let site = |rule: &str| plain().route(&format!("{{name: site, upstream: origin, {rule}}}"));
    let before = |route: &str| {
        let site = "{name: site, upstream: origin}";
        plain().route(route).route(site)
    };
    let gateway = plain().start().await;
    let respond = "{name: site, respond: {body: x}}";
    let redirect = "{name: away, match: {path: /b/*}, redirect: {to: \"https://x.example/\"}}";
    let cases = [
        ("nothing else", site("cache: on"), 0),
        ("an answer of its own", plain().route(respond), 6),
        ("a redirect of some", before(redirect), 2),
        ("a slash that is added", site("trailing_slash: add"), 5),
        ("a slash that is removed", site("trailing_slash: remove"), 1),
        ("maintenance", site("maintenance: {enabled: true}"), 6),
        (
            "maintenance with what is stored",
            site("maintenance: {enabled: true, serve: cached}"),
            0,
        ),
        ("a bypass by path", site("bypass: {path: [/b/*]}"), 2),
        ("a bypass by query", site("bypass: {query: {p: \"1\"}}"), 1),
        (
            "a bypass by what no key has",
            site("bypass: {header: {x-a: b}}"),
            0,
        ),
        (
            "paths that purge",
            plain().top(
                "purge_method",
                "{enabled: true, allow: [\"127.0.0.1/32\"], dialects: [url, nginx], nginx_prefix: /b/}",
            ),
            2,
        ),
        ("slashes of the route", site("path: {slashes: merge}"), 1),
        ("escaped slashes", site("path: {escaped_slash: refuse}"), 1),
        (
            "slashes of the listener",
            plain().listener("path", "{slashes: refuse}"),
            1,
        ),
    ];
    for (what, after, count) in cases {
        gateway.take_up(&plain()).await;
        gateway.purge(json!({"all": true})).await;
        let client = gateway.client();
        for target in STORED {
            assert!(client.get(target).await.cache().stored, "{target}");
        }
        let (said, shown) = planned(&gateway, &after).await;
        assert_eq!(said["entries"]["unreachable"], count, "{what}: {shown}");
        assert_eq!(said["entries"]["unknown"], 0, "{what}: {shown}");
        gateway.take_up(&after).await;
        let client = gateway.client().unchecked();
        let mut missed = 0;
        for target in STORED {
            missed += u64::from(!client.get(target).await.is_hit());
        }
        assert_eq!(missed, count, "{what}");
        let (said, shown) = planned(&gateway, &after).await;
        assert_eq!(
            said["entries"]["unreachable"], 0,
            "{what}, as it is: {shown}"
        );
    }
}

/// A value with a secret, in the places where one may stand.
const SECRETS: [(&str, &str); 8] = [
    (
        "routes",
        "[{name: site, upstream: origin, match: {header: {x-origin-key: s3cret}, query: {token: s3cret}}}]",
    ),
    (
        "routes",
        "[{name: site, respond: {body: x, headers: {set-cookie: \"a=s3cret\"}}}]",
    ),
    (
        "routes",
        "[{name: site, redirect: {to: \"https://other.example/?api_key=s3cret\"}}]",
    ),
    (
        "acme",
        "{storage: acme, issuers: {own: {directory: \"https://127.0.0.1:1/?token=s3cret\", agree_to_terms: true, challenge: {dns-01: {exec: [/bin/true, --api-token, s3cret, KEY=s3cret]}}}}}",
    ),
    (
        "routes",
        "[{name: site, upstream: origin, headers: {request: {set: {authorization: \"Bearer s3cret\", x-edge-auth: s3cret}}}}]",
    ),
    (
        "purge_method",
        "{enabled: true, token: s3cret-s3cret-s3cret}",
    ),
    (
        "acme",
        "{storage: acme, on_demand: {ask: \"http://me:s3cret@127.0.0.1:1/ask\"}, issuers: {own: {directory: \"https://me:s3cret@127.0.0.1:1/\", agree_to_terms: true, eab: {kid: a, hmac: s3crets3cret}}}}",
    ),
    (
        "cache",
        "{l2: {redis: {url: \"redis://127.0.0.1:1\", password: s3cret}, seal_key: s3cret-s3cret-s3cret}}",
    ),
];

#[tokio::test]
async fn no_secret_is_shown_whatever_of_it_is_different() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let gateway = Setup::new(&origin).start().await;
    let file = gateway.dir().join("next.yaml");
    let file = file.to_str().unwrap();
    let admin = gateway.admin.to_string();
    for (key, value) in SECRETS {
        let setup = match key {
            "routes" => Setup::new(&origin).route(&value[1..value.len() - 1]),
            key => Setup::new(&origin).top(key, value),
        };
        std::fs::write(file, setup.yaml()).unwrap();
        for more in [&["--json"][..], &[]] {
            let plan = [&["plan", "-c", file, "--against", &admin], more].concat();
            let show = [&["config", "show", "-c", file], more].concat();
            for ran in [run(&plan), run(&show)] {
                let told = ran.output();
                assert!(told.contains("***"), "{key}: {told}");
                assert!(!told.contains("s3cret"), "{key}: {told}");
            }
        }
    }
}

/// Values that are refused, each with a secret in it.
const REFUSED: [(&str, &str); 6] = [
    (
        "routes",
        "[{name: a, redirect: {to: \"https://me:s3cret@a.example/\"}}]",
    ),
    (
        "routes",
        "[{name: a, upstream: origin, cors: {origins: [\"https://me:s3cret@a.example\"]}}]",
    ),
    (
        "routes",
        "[{name: a, upstream: origin, headers: {request: {set: {x-origin-auth: \"s3cret {nosuch}\"}}}}]",
    ),
    ("upstream", "\"http://127.0.0.1:1/?token=s3cret\""),
    (
        "acme",
        "{storage: acme, issuers: {own: {directory: \"ftp://me:s3cret@a.example\", agree_to_terms: true}}}",
    ),
    (
        "bus",
        "{rabbitmq: {url: \"amqp://a.example/?password=s3cret\"}}",
    ),
];

#[tokio::test]
async fn no_secret_is_shown_by_what_is_said_against_it() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    for (key, value) in REFUSED {
        let setup = match key {
            "routes" => Setup::new(&origin).route(&value[1..value.len() - 1]),
            "upstream" => Setup::new(&origin).upstream("origin", value),
            key => Setup::new(&origin).top(key, value),
        };
        let (_dir, file) = setup.write();
        let ran = run(&["validate", "-c", file.to_str().unwrap()]);
        assert_eq!(ran.code, Some(2), "{value}: {}", ran.output());
        assert!(!ran.output().contains("s3cret"), "{}", ran.output());
    }
}

/// The names of the files are the same.
#[tokio::test]
async fn other_authorities_and_client_certificates_of_upstreams_are_told() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let (first, second) = (Certificates::new(&[NAME]), Certificates::new(&[NAME]));
    let [(_, cert), (_, key), _] = first.files();
    let tls = "{ca_file: ca.pem, client: {cert: client.crt, key: client.key}}";
    let upstream = format!("{{targets: [\"https://127.0.0.1:1\"], tls: {tls}}}");
    let setup = || Setup::new(&origin).upstream("origin", &upstream);
    let gateway = setup()
        .file("ca.pem", cert)
        .file("client.crt", cert)
        .file("client.key", key)
        .start()
        .await;
    let changed = async || {
        let (said, shown) = planned(&gateway, &setup()).await;
        let changed = &said["changes"]["upstreams"]["changed"]["origin"];
        let keys = changed.as_array().into_iter().flatten();
        let keys: Vec<_> = keys.map(|value| value["key"].clone()).collect();
        (keys, shown)
    };
    assert_eq!(changed().await.0, [json!(null); 0]);
    let [(_, cert), (_, key), _] = second.files();
    let contents = [("ca.pem", cert), ("client.crt", cert), ("client.key", key)];
    for (file, content) in contents {
        std::fs::write(gateway.dir().join(file), content).unwrap();
    }
    let (keys, shown) = changed().await;
    assert_eq!(keys, ["tls.ca_file", "tls.client.cert", "tls.client.key"]);
    assert!(shown.contains("ca.pem (SHA-256 "), "{shown}");
    gateway.take_up(&setup()).await;
    assert_eq!(changed().await.0, [json!(null); 0]);
}

#[tokio::test]
async fn names_that_get_and_lose_a_certificate_and_files_with_another_one_are_told() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let (first, second) = (Certificates::new(&[NAME]), Certificates::new(&[OTHER_NAME]));
    let with = |name: &str| {
        let tls = format!("{{certificates: [{{cert: {name}.crt, key: {name}.key}}]}}");
        Setup::new(&origin).listener("tls", &tls)
    };
    let named = |setup: Setup, name: &str, certificates: &Certificates| {
        let [(_, cert), (_, key), _] = certificates.files();
        let setup = setup.file(&format!("{name}.crt"), cert);
        setup.file(&format!("{name}.key"), key)
    };
    let setup = named(named(with("first"), "first", &first), "second", &second);
    let gateway = setup.start().await;
    let (said, shown) = planned(&gateway, &with("first")).await;
    let nothing = json!({"added_names": [], "removed_names": [], "exchanged": []});
    assert_eq!(said["certificates"], nothing, "{shown}");

    let (said, shown) = planned(&gateway, &with("second")).await;
    assert_eq!(said["certificates"]["added_names"], json!([OTHER_NAME]));
    assert_eq!(said["certificates"]["removed_names"], json!([NAME]));
    for line in [
        format!("+ certificate for {OTHER_NAME}\n"),
        format!("- certificate for {NAME}\n"),
    ] {
        assert!(shown.contains(&line), "{shown}");
    }

    // The gateway itself takes another content up a second later, too.
    wait_for("another content of the file is told", SOON, || async {
        for ((name, content), ending) in first.renewed().into_iter().zip(["crt", "key"]) {
            assert!(name.ends_with(ending));
            std::fs::write(gateway.dir().join(format!("first.{ending}")), content).unwrap();
        }
        let (said, _) = planned(&gateway, &with("first")).await;
        let exchanged = said["certificates"]["exchanged"]
            .as_array()
            .unwrap()
            .clone();
        let file = exchanged.first()?["file"].as_str()?.to_owned();
        assert!(file.ends_with("first.crt"), "{file}");
        assert_eq!(said["certificates"]["added_names"], json!([]));
        Some(())
    })
    .await;
}

/// The lifetimes that the plan says are different, and those of the pages loaded again.
#[tokio::test]
async fn lifetimes_that_become_shorter_or_longer_are_told_with_the_entries_that_they_concern() {
    let origin = Origin::pages(|seen| {
        let reply = Reply::ok("page");
        match seen.path_only().split('/').nth(1) {
            Some("stated") => reply.header("cache-control", "max-age=600"),
            _ => reply,
        }
    })
    .await;
    let with = |policy: &str| {
        Setup::new(&origin)
            .route(&format!(
                "{{name: shop, match: {{path: [/shop/*, /stated/*]}}, upstream: origin, policy: {policy}}}"
            ))
            .route("{name: rest, upstream: origin, policy: {mode: override, ttl: 1m}}")
    };
    let before = with("{mode: respect, ttl: 2m}");
    let gateway = before.start().await;
    let pages: Vec<_> = (0..3)
        .flat_map(|n| [format!("/shop/{n}"), format!("/rest/{n}")])
        .chain((0..2).map(|n| format!("/stated/{n}")))
        .collect();
    for page in &pages {
        gateway.client().get(page).await;
        assert!(gateway.client().get(page).await.is_hit(), "{page}");
    }
    for (policy, expected) in [
        ("{mode: respect, ttl: 2m}", json!({})),
        // What the origin states stays.
        (
            "{mode: respect, ttl: 1m}",
            json!({"shop": {"shorter": 3, "longer": 0, "not_stored": 0}}),
        ),
        (
            "{mode: override, ttl: 5m}",
            json!({"shop": {"shorter": 2, "longer": 3, "not_stored": 0}}),
        ),
        (
            "{mode: respect}",
            json!({"shop": {"shorter": 0, "longer": 0, "not_stored": 3}}),
        ),
    ] {
        let (said, shown) = planned(&gateway, &with(policy)).await;
        assert_eq!(said["entries"]["lifetimes"], expected, "{policy}");
        assert_eq!(said["entries"]["unreachable"], 0);
        let told = shown.contains("of route shop would");
        assert_eq!(told, expected != json!({}), "{policy}: {shown}");
    }
    // And so it comes.
    gateway.take_up(&with("{mode: override, ttl: 5m}")).await;
    gateway.purge(json!({"all": true})).await;
    for (page, lifetime) in [("/shop/0", 300), ("/stated/0", 300), ("/rest/0", 60)] {
        gateway.client().get(page).await;
        let ttl = gateway.client().get(page).await.cache().ttl.unwrap();
        assert!((lifetime - 60..=lifetime).contains(&ttl), "{page}: {ttl}");
    }
}
