//! The clients in `plugin-sdk/clients`: they purge on all nodes, and say who did not confirm it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::cli::repository;
use e2e::fleet::{Fleet, shown};
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::tools;
use e2e::wait::{SOON, wait_for};

use crate::purge_wait::listed;

fn over(port: u16) -> String {
    format!(
        "nats: {{servers: [\"nats://127.0.0.1:{port}\"], ping_interval: 300ms, reconnect_max: 500ms}}"
    )
}

fn clients() -> PathBuf {
    repository().join("plugin-sdk/clients")
}

/// Runs a script of `tests/data/clients` to its good end.
async fn script(mut command: Command, name: &str, arguments: &[&str]) {
    let path = repository().join("tests/data/clients").join(name);
    command.arg(path).args(arguments).stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output().expect("the program starts"));
    let ran = ran.await.unwrap();
    assert!(
        ran.status.success(),
        "{name} {arguments:?}: {}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}

fn is_here(program: &str, what: &str) -> bool {
    let ran = Command::new(program).arg("--version").output();
    let here = ran.is_ok_and(|ran| ran.status.success());
    if !here {
        tools::is_missing(program, what);
    }
    here
}

fn node_in(folder: &Path) -> Command {
    let mut command = Command::new("node");
    command.current_dir(folder);
    command
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", clients().join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// All that a client must do, with the command that runs its script.
async fn every_act(program: impl Fn() -> Command, name: &str) {
    let mut nats = Nats::start().await;
    let fleet = Fleet::start(2, |_| over(nats.port)).await;
    let (here, there) = (&fleet.nodes[0], &fleet.nodes[1]);
    let admin = format!("http://{}", here.admin);
    for node in &fleet.nodes {
        assert_eq!((shown(node, "/a").await, shown(node, "/b").await), (1, 1));
    }
    fleet.pages.change("/a");
    fleet.pages.change("/b");
    script(program(), name, &[&admin, "tags", "/a"]).await;
    for node in &fleet.nodes {
        assert_eq!((shown(node, "/a").await, shown(node, "/b").await), (2, 1));
    }
    let url = format!("http://{}/a", here.address);
    script(program(), name, &[&admin, "selectors", &url]).await;
    assert_eq!(shown(here, "/b").await, 2, "everything was purged");
    for act in [
        "token", "receipts", "statuses", "combined", "refused", "slow",
    ] {
        script(program(), name, &[&admin, act]).await;
    }
    there.kill();
    wait_for("the killed node is silent", SOON, || async {
        (listed(here, "b").await["state"] == "silent").then_some(())
    })
    .await;
    script(program(), name, &[&admin, "incomplete", "b"]).await;
    nats.kill();
    script(program(), name, &[&admin, "unknown"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_for_node_purges_everywhere_and_says_who_did_not_confirm() {
    if is_here("node", "the npm client") {
        every_act(|| node_in(&clients().join("js")), "purge.mjs").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_for_python_purges_everywhere_and_says_who_did_not_confirm() {
    if is_here("python3", "the PyPI client") {
        every_act(python, "purge.py").await;
    }
}

/// A folder in which Node.js finds both packages, as npm installs them.
fn installed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (folder, package) in [("js", "lamina-purge"), ("next", "lamina-next-cache")] {
        let to = dir.path().join("node_modules").join(package);
        fs::create_dir_all(&to).unwrap();
        for file in ["index.js", "index.d.ts", "package.json", "README.md"] {
            fs::copy(clients().join(folder).join(file), to.join(file)).unwrap();
        }
    }
    let script = repository().join("tests/data/clients/next.mjs");
    fs::copy(script, dir.path().join("next.mjs")).unwrap();
    dir
}

/// The version of a page that a client of the site gets from a node.
async fn version(node: &Gateway, path: &str) -> u64 {
    let ask = node.client().request(path).host("shop.test");
    ask.send().await.text().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revalidation_of_next_reaches_the_edge_on_all_nodes() {
    if !is_here("node", "the cache handler for Next.js") {
        return;
    }
    let nats = Nats::start().await;
    let fleet = Fleet::start(2, |_| over(nats.port)).await;
    let admin = format!("http://{}", fleet.nodes[0].admin);
    let dir = installed();
    let act = async |what: &str| {
        let mut command = node_in(dir.path());
        command.arg("next.mjs").args([&admin, what]);
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
        let ran = ran.await.unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{what}: {said}");
    };
    for what in [
        "store",
        "failed",
        "softTags",
        "forgottenTags",
        "forgottenPages",
        "keys",
        "letters",
        "full",
        "root",
        "untagged",
    ] {
        act(what).await;
    }
    let versions = async |wanted: (u64, u64), why: &str| {
        for node in &fleet.nodes {
            let found = (version(node, "/tea").await, version(node, "/other").await);
            assert_eq!(found, wanted, "{why}");
        }
    };
    versions((1, 1), "loaded").await;
    fleet.pages.change("/tea");
    fleet.pages.change("/other");
    versions((1, 1), "stored").await;
    act("tag").await;
    versions((2, 2), "both have the tag `page`").await;
    fleet.pages.change("/tea");
    fleet.pages.change("/other");
    act("path").await;
    versions((3, 2), "purged by its path").await;
    // The tag of `products` alone, of which the handler knows the page.
    fleet.pages.change("/tea");
    act("known").await;
    versions((4, 2), "purged by the page that has the tag").await;
}
