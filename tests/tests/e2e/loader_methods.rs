//! Methods that a route with a loader and without an upstream has no place for.

use e2e::cli;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

fn setup(origin: &Origin, more: &str) -> Setup {
    Setup::new(origin)
        .file("p.wasm", guest::built("web"))
        .top(
            "plugins",
            "{p: {file: p.wasm, fetch: [origin], limits: {load_timeout: 10m}}}",
        )
        .route(&format!("{{name: site, loader: {{plugin: p}}{more}}}"))
}

#[tokio::test]
async fn a_method_without_a_place_is_405_with_what_has_one_and_explain_says_so() {
    let origin = Origin::pages(|_| Reply::ok("posted")).await;
    for (more, status, source) in [
        (
            "",
            405,
            "nothing: the route has no upstream for this method (405)",
        ),
        (", upstream: origin", 200, "upstream origin"),
    ] {
        let gateway = setup(&origin, more).start().await;
        let answer = gateway.client().post("/hello", "x").await;
        assert_eq!(answer.status, status, "{more}");
        let allow = if status == 405 { "GET, HEAD" } else { "" };
        assert_eq!(answer.header("allow"), allow);
        assert_eq!(gateway.client().get("/hello").await.text(), "hello");
        let (_dir, config) = setup(&origin, more).write();
        let config = config.to_str().unwrap();
        let ran = cli::run(&[
            "explain",
            "-c",
            config,
            "-X",
            "POST",
            "http://a.example/hello",
        ]);
        assert!(ran.stdout.contains(source), "{}", ran.output());
    }
}

#[tokio::test]
async fn validate_warns_of_a_loader_route_without_a_place_for_other_methods() {
    let origin = Origin::pages(|_| Reply::ok("x")).await;
    for (more, warned) in [
        ("", true),
        (", upstream: origin", false),
        (", match: {method: [GET, HEAD]}", false),
    ] {
        let (_dir, config) = setup(&origin, more).write();
        let ran = cli::run(&["validate", "-c", config.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{}", ran.output());
        assert_eq!(
            ran.output().contains("which get 405"),
            warned,
            "{}",
            ran.output()
        );
    }
}
