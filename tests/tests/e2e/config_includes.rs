//! A configuration of several files: it serves as one, and every command names the file that a
//! message is about.

use std::path::Path;

use e2e::cli::{Ran, run, run_with};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

const MAIN: &str = "\
version: 1
include: [\"${LAMINA_TEST_ROUTES:-routes}/*.yaml\"]
listeners: [{ address: \"127.0.0.1:0\" }]
admin: { address: \"127.0.0.1:0\" }
upstreams: { origin: http://127.0.0.1:9 }
";

const SHOP: &str = "\
routes:
  - name: shop
    match: { path: /shop/* }
    upstream: origin
    policy: { mode: override, ttl: 90s }
";

/// Files in a folder of their own.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    folder
}

/// What a command says about `lamina.yaml` in a folder, whose name is left out.
fn command(folder: &Path, name: &[&str], further: &[&str]) -> Ran {
    let file = folder.join("lamina.yaml");
    let arguments = [name, &["-c", file.to_str().unwrap()], further].concat();
    let mut ran = run(&arguments);
    let name = format!("{}/", folder.display());
    ran.stdout = ran.stdout.replace(&name, "");
    ran.stderr = ran.stderr.replace(&name, "");
    ran
}

#[tokio::test]
async fn a_gateway_serves_the_routes_of_all_files_in_their_order() {
    let origin = Origin::pages(|seen| Reply::ok(seen.path.clone())).await;
    let route = |name: &str, path: &str, tag: &str| {
        format!(
            "routes:\n  - name: {name}\n    match: {{ path: {path} }}\n    upstream: origin\n    tags: [{tag}]\n"
        )
    };
    let setup = Setup::new(&origin)
        .top("include", "routes/*.yaml")
        .route("{name: own, upstream: origin, match: {path: /own}}")
        .file("routes/20-all.yaml", route("all", "/*", "all"))
        .file("routes/10-shop.yaml", route("shop", "/shop/*", "shop"));
    let gateway = setup.start().await;
    for (path, name) in [("/own", "own"), ("/shop/a", "shop"), ("/blog", "all")] {
        let answer = gateway.client().get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let labels = [("route", name)];
        gateway
            .metric_until("lamina_requests_total", &labels, |n| n == 1.0)
            .await;
    }
}

#[test]
fn validate_counts_the_files_and_names_the_one_that_is_wrong() {
    let good = folder(&[("lamina.yaml", MAIN), ("routes/shop.yaml", SHOP)]);
    let ran = command(good.path(), &["validate"], &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(
        ran.stdout
            .contains("lamina.yaml: ok, 1 included file, 1 routes"),
        "{}",
        ran.stdout
    );

    let bad = SHOP.replace("    upstream: origin", "    upstream: orign");
    let bad = folder(&[
        ("lamina.yaml", MAIN),
        ("routes/a.yaml", SHOP),
        ("routes/b.yaml", &bad),
    ]);
    let ran = command(bad.path(), &["validate"], &[]);
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    for said in [
        "routes/b.yaml:4:15: routes[1].upstream: no upstream is named `orign`",
        "4 |     upstream: orign",
    ] {
        assert!(ran.stderr.contains(said), "{said}\n{}", ran.stderr);
    }
    let ran = command(bad.path(), &["run"], &[]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("routes/b.yaml:4:15"), "{}", ran.stderr);
}

#[test]
fn a_name_that_two_files_give_is_told_with_both_places() {
    let again = "upstreams:\n  origin: http://127.0.0.1:8\n";
    let files = folder(&[
        ("lamina.yaml", MAIN),
        ("routes/a.yaml", SHOP),
        ("routes/b.yaml", again),
    ]);
    let ran = command(files.path(), &["validate"], &[]);
    assert_eq!(ran.code, Some(2));
    let said = "routes/b.yaml:2:3: upstreams.origin: given twice, first at lamina.yaml:5";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
}

#[test]
fn explain_goes_by_included_routes() {
    let files = folder(&[("lamina.yaml", MAIN), ("routes/shop.yaml", SHOP)]);
    let ran = command(files.path(), &["explain"], &["http://shop.example/shop/a"]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(
        ran.stdout.contains("shop") && ran.stdout.contains("90s"),
        "{}",
        ran.stdout
    );
}

/// What is found when plugins, certificates and servers are looked at is shown in the file, too.
#[test]
fn what_is_found_after_reading_names_the_included_file() {
    let tls = "listeners:\n  - address: 127.0.0.1:0\n    tls: { certificates: [{ cert: gone.crt, key: gone.key }] }\n";
    let main = MAIN.replace("routes}/*.yaml", "routes}/*.yaml\", \"tls.yaml");
    let files = folder(&[
        ("lamina.yaml", &main),
        ("routes/a.yaml", SHOP),
        ("tls.yaml", tls),
    ]);
    let ran = command(files.path(), &["validate"], &[]);
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    assert!(ran.stderr.contains("tls.yaml:3:"), "{}", ran.stderr);
    assert!(ran.stderr.contains("listeners[1].tls"), "{}", ran.stderr);

    let bus = "bus:\n  nats:\n    servers: [\"nats://127.0.0.1:1\"]\n";
    let files = folder(&[
        ("lamina.yaml", MAIN),
        ("routes/a.yaml", SHOP),
        ("routes/bus.yaml", bus),
    ]);
    let ran = command(files.path(), &["doctor"], &[]);
    let place = "bus.nats.servers, routes/bus.yaml, line 3";
    assert!(ran.output().contains(place), "{}", ran.output());
}

#[test]
fn a_pattern_without_files_is_a_warning_and_a_file_that_is_not_there_an_error() {
    let main = format!("{MAIN}{SHOP}");
    let files = folder(&[("lamina.yaml", &main)]);
    let ran = command(files.path(), &["validate"], &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    let said = "warning: lamina.yaml:2:11: include: no file matches `routes/*.yaml`";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);

    let main = main.replace("/*.yaml", "/shop.yaml");
    let files = folder(&[("lamina.yaml", &main)]);
    let ran = command(files.path(), &["validate"], &[]);
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    assert!(
        ran.stderr.contains("routes/shop.yaml cannot be read"),
        "{}",
        ran.stderr
    );
}

#[test]
fn variables_in_patterns_are_those_of_the_environment() {
    let files = folder(&[("lamina.yaml", MAIN), ("sites/shop.yaml", SHOP)]);
    let file = files.path().join("lamina.yaml");
    let environment = [("LAMINA_TEST_ROUTES", "sites")];
    let ran = run_with(&["validate", "-c", file.to_str().unwrap()], &environment);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(
        ran.stdout.contains("1 included file, 1 routes"),
        "{}",
        ran.stdout
    );
}
