//! `lamina health`, as a probe of a container engine runs it.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use e2e::cli::{Ran, run, run_with};
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, write_config};
use e2e::wait::{SOON, wait_until};

async fn gateway(top: &[(&str, &str)]) -> (Origin, Gateway) {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let setup = top.iter().fold(Setup::new(&origin), |setup, (key, yaml)| {
        setup.top(key, yaml)
    });
    let gateway = setup.start().await;
    (origin, gateway)
}

fn is_one_line(text: &str) -> bool {
    text.ends_with('\n') && text.lines().count() == 1
}

fn assert_not_ready(ran: &Ran, why: &str) {
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    assert!(ran.stdout.is_empty(), "{}", ran.output());
    assert!(is_one_line(&ran.stderr), "{}", ran.output());
    assert!(ran.stderr.starts_with("not ready"), "{}", ran.output());
    assert!(ran.stderr.contains(why), "{why}: {}", ran.output());
}

#[tokio::test]
async fn a_gateway_that_serves_is_ready_and_one_that_is_gone_is_not() {
    let (_origin, mut gateway) = gateway(&[]).await;
    let admin = gateway.admin.to_string();
    let ran = run(&["health", "--admin", &admin]);
    assert_eq!(
        (ran.code, &*ran.stdout),
        (Some(0), "ready\n"),
        "{}",
        ran.output()
    );
    let ran = run_with(&["health"], &[("LAMINA_ADMIN", &admin)]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    gateway.kill();
    gateway.ended(SOON).await;
    assert_not_ready(&run(&["health", "--admin", &admin]), "does not answer");
}

#[tokio::test]
async fn the_address_comes_from_the_configuration_also_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let admin = format!("{{address: \"unix:{}/admin.sock\"}}", dir.path().display());
    let (_origin, gateway) = gateway(&[("admin", &admin)]).await;
    let config = gateway.dir().join("lamina.yaml");
    let config = config.to_str().unwrap();
    let ran = run(&["health", "-c", config]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    let ran = run_with(&["health"], &[("LAMINA_CONFIG", config)]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    std::fs::write(config, "version: 1\nlisteners: nowhere\n").unwrap();
    assert_not_ready(&run(&["health", "-c", config]), "lamina.yaml:2:");
}

#[tokio::test]
async fn a_degraded_gateway_is_ready_and_the_line_says_what_is_degraded() {
    let nothing = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nothing.local_addr().unwrap();
    drop(nothing);
    let bus = format!("{{nats: {{servers: [\"nats://{address}\"]}}}}");
    let (_origin, gateway) = gateway(&[("bus", &bus)]).await;
    let admin = gateway.admin.to_string();
    let ran = run(&["health", "--admin", &admin]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert!(is_one_line(&ran.stdout), "{}", ran.output());
    let begin = "ready, degraded: the event bus";
    assert!(ran.stdout.starts_with(begin), "{}", ran.output());
}

#[tokio::test]
async fn a_gateway_that_drains_is_not_ready() {
    let gate = Gate::new();
    let at_origin = gate.clone();
    let origin = Origin::start(move |_| {
        let gate = at_origin.clone();
        async move {
            gate.pass().await;
            Reply::fresh("x")
        }
    })
    .await;
    let gateway = Setup::new(&origin).start().await;
    let client = gateway.client();
    let request = tokio::spawn(async move { client.get("/held").await });
    gate.reached_by(1).await;
    gateway.terminate();
    let admin = gateway.admin.to_string();
    let mut last = None;
    wait_until("it drains", SOON, || {
        let ran = run(&["health", "--admin", &admin]);
        let drains = ran.code == Some(1);
        last = Some(ran);
        drains
    })
    .await;
    assert_not_ready(&last.unwrap(), "draining");
    gate.open();
    assert_eq!(request.await.unwrap().status, 200);
}

#[tokio::test]
async fn who_answers_nothing_has_a_time_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = silent.local_addr().unwrap().to_string();
    let begun = Instant::now();
    let ran = run(&["health", "--admin", &admin, "--timeout", "200ms"]);
    assert_not_ready(&ran, "does not answer in time");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

/// The gateway goes on by what it has taken up, and a probe that ends it for that would do harm.
#[tokio::test]
async fn a_gateway_whose_file_was_broken_since_is_ready() {
    let (_origin, gateway) = gateway(&[]).await;
    let file = gateway.dir().join("lamina.yaml");
    let admin = format!("admin: {{ address: \"{}\" }}\n", gateway.admin);
    for wrong in [
        "version: 1\nlistenrs: []\n",
        "version: 1\nupstreams: { origin: \"${A_VARIABLE_THAT_IS_NOT_SET}\" }\n",
        "version: 1\npurge_method: { token_file: nowhere }\n",
    ] {
        std::fs::write(&file, format!("{wrong}{admin}")).unwrap();
        assert_eq!(gateway.reload().await.status, 422, "{wrong}");
        let ran = run(&["health", "-c", file.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{wrong}: {}", ran.output());
    }
    // Nobody can tell what stands in the other file.
    std::fs::write(&file, "version: 1\ninclude: nowhere.yaml\n").unwrap();
    assert_not_ready(
        &run(&["health", "-c", file.to_str().unwrap()]),
        "nowhere.yaml",
    );
}

#[tokio::test]
async fn a_token_is_not_needed() {
    let admin = "{address: \"127.0.0.1:0\", token: a-long-secret-text}";
    let (_origin, gateway) = gateway(&[("admin", admin)]).await;
    let ran = run(&["health", "--admin", &gateway.admin.to_string()]);
    assert_eq!(ran.code, Some(0), "{}", ran.output());
}

#[test]
fn a_configuration_that_is_missing_is_one_line_and_exit_code_one() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.yaml");
    assert_not_ready(
        &run(&["health", "-c", missing.to_str().unwrap()]),
        "none.yaml",
    );
    let config = write_config(dir.path(), "version: 7\nroutes: 3\n");
    assert_not_ready(
        &run(&["health", "-c", config.to_str().unwrap()]),
        "lamina.yaml",
    );
}
