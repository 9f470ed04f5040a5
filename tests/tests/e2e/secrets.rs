//! What must not be shown or left open to others: reflected credentials, the file of the disk
//! tier, the value behind a misspelt key, and a log that anybody can fill.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::cli;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;

/// An origin that repeats the fields of a request, as one that answers TRACE does.
async fn reflecting_origin() -> Origin {
    Origin::pages(|seen| {
        let fields = seen.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            format!("{name}: {value}\r\n")
        });
        Reply::ok(fields.collect::<String>())
    })
    .await
}

const SECRETS: [(&str, &str); 6] = [
    ("cookie", "session=s3cret"),
    ("authorization", "Bearer s3cret"),
    ("x-api-key", "s3cret"),
    ("x-auth-user", "s3cret"),
    ("x-csrf", "s3cret"),
    ("x-amz-security-token", "s3cret"),
];

#[tokio::test]
async fn methods_that_reflect_a_request_are_off_by_default() {
    let origin = reflecting_origin().await;
    let gateway = Setup::new(&origin)
        .route("{name: past, match: {path: /past/*}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}")
        .start()
        .await;
    for client in [gateway.client(), gateway.client_http2()] {
        for method in ["TRACE", "TRACK", "track"] {
            for (path, hops) in [("/", None), ("/past/x", None), ("/", Some("0"))] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let mut ask = client
                    .ask(method.clone(), path)
                    .header("cookie", "a=s3cret");
                if let Some(hops) = hops {
                    ask = ask.header("max-forwards", hops);
                }
                let answer = ask.send().await;
                assert_eq!(answer.status, 405, "{method} {path}");
                assert!(answer.has("allow") && !answer.text().contains("s3cret"));
            }
        }
    }
    assert_eq!(origin.count(), 0, "nothing was passed on");
}

#[tokio::test]
async fn a_reflected_request_shows_no_secret_whoever_reflects_it() {
    let origin = reflecting_origin().await;
    let gateway = Setup::new(&origin)
        .route("{name: site, upstream: origin, trace: on}")
        .start()
        .await;
    for (method, hops) in [("TRACE", "0"), ("TRACE", "3"), ("TRACK", "3")] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let ask = gateway.client().uncached().ask(method.clone(), "/");
        let ask = ask.header("max-forwards", hops).header("x-mine", "seen");
        let secrets = SECRETS.into_iter();
        let ask = secrets.fold(ask, |ask, (name, value)| ask.header(name, value));
        let answer = ask.send().await;
        assert_eq!(answer.status, 200, "{method} {hops}");
        assert!(answer.text().contains("x-mine: seen"), "{}", answer.text());
        assert!(!answer.text().contains("s3cret"), "{}", answer.text());
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_file_of_the_disk_tier_is_for_its_user_alone() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new/l2.redb");
    let disk = format!("{{l2: {{disk: {{path: \"{}\"}}}}}}", file.display());
    let setup = Setup::new(&origin).top("cache", &disk);
    let gateway = setup.start().await;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    drop(gateway);
    // One that an earlier version left readable is closed at the next start.
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let gateway = setup.start().await;
    assert_eq!(mode(&file), 0o600);
    assert!(gateway.client().get("/").await.status == 200);
}

#[test]
fn a_message_about_a_misspelt_secret_does_not_show_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lamina.yaml");
    let head = "version: 1\nlisteners: [{address: \"127.0.0.1:0\"}]\nupstreams: {o: \"http://127.0.0.1:1\"}\nroutes: [{name: r, upstream: o}]\n";
    let cases = [
        "admin: { tokn: s3cret }\n",
        "admin:\n  toekn: s3cret\n",
        "admin:\n  pwd: s3cret\n",
        "admin:\n  bearer: \"s3cret\"\n",
        "admin: { addres: x, token: s3cret }\n",
        "cache: { l2: { seal_kye: s3cret } }\n",
        "purge_method: { tokken: s3cret, enabled: perhaps }\n",
        "admin:\n  token s3cret\n",
        "admin:\n  token=s3cret\n",
        "admin: { token: [s3cret] }\n",
    ];
    for case in cases {
        std::fs::write(&file, format!("{head}{case}")).unwrap();
        let ran = cli::run(&["validate", "-c", file.to_str().unwrap()]);
        assert_eq!(ran.code, Some(2), "{case}{}", ran.output());
        assert!(ran.stderr.contains("lamina.yaml:"), "{}", ran.stderr);
        assert!(!ran.output().contains("s3cret"), "{case}{}", ran.output());
    }
}

/// An anonymous client must not be able to fill a disk with lines about its refused requests.
#[tokio::test]
async fn a_flood_of_refused_purges_writes_a_few_lines() {
    let origin = Origin::pages(|seen| Reply::fresh(seen.path.clone())).await;
    let gateway = Setup::new(&origin)
        .top("purge_method", "{enabled: true, allow: [192.0.2.1]}")
        .top("telemetry", "{log_format: json, access_log: off}")
        .start()
        .await;
    let client = gateway.client();
    for _ in 0..1_000 {
        let purge = Method::from_bytes(b"PURGE").unwrap();
        assert_eq!(client.ask(purge, "/").send().await.status, 403);
    }
    // A line behind all of theirs.
    gateway.purge(serde_json::json!({"tag": "x"})).await;
    gateway
        .logged("the purge by the admin listener", |line| {
            line.contains("admin action")
        })
        .await;
    let lines = gateway.log();
    let lines = lines
        .iter()
        .filter(|line| line.contains("PURGE was refused"));
    let lines = lines.count();
    assert!(
        (1..200).contains(&lines),
        "{lines} lines about 1,000 refusals"
    );
}

#[test]
fn a_purge_that_a_clients_header_chooses_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lamina.yaml");
    let with = |purge: &str| {
        let yaml = format!(
            "version: 1\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nupstreams: {{o: \"http://127.0.0.1:1\"}}\nroutes:\n  - name: r\n    upstream: o\n    invalidate:\n      - purge: [{{ {purge} }}]\n"
        );
        std::fs::write(&file, yaml).unwrap();
        cli::run(&["validate", "-c", file.to_str().unwrap()])
    };
    for purge in [
        "tag: \"user-{header.x-user}\"",
        "url: \"/p/{query.id}\"",
        "prefix: \"/{header.x-tenant}/\"",
        "pattern: \"*/{query.id}\"",
        "route: \"{header.x-route}\"",
    ] {
        let ran = with(purge);
        assert_eq!(ran.code, Some(0), "{}", ran.output());
        let told = "warning: ";
        assert!(ran.stderr.contains(told), "{purge}: {}", ran.output());
        assert!(ran.stderr.contains("lamina.yaml:8:"), "{}", ran.stderr);
    }
    let ran = with("tag: \"item-{path.2}\"");
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
}
