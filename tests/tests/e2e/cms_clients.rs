//! The clients `fastly` and `cloudflare` of npm and PyPI, as they are, against two nodes over a bus: each
//! of their calls makes the page new on both.

use e2e::cms::{self, ApiDoor};
use e2e::fleet::Pages;
use e2e::setup::Setup;
use e2e::two_nodes::TwoNodes;
use e2e::wait::{SOON, wait_for};

const HOST: &str = "shop.test";

/// What both nodes show of a page.
async fn versions(site: &TwoNodes, path: &str) -> [u64; 2] {
    let version = async |node| {
        let answer = site.ask(node, path).send().await;
        answer.text().parse().unwrap()
    };
    [version(0).await, version(1).await]
}

async fn each_call_purges(api: &str, program: &str, calls: &[&str]) {
    if !cms::is_here(program) {
        return;
    }
    let pages = Pages::default();
    let origin = pages.origin().await;
    let door = ApiDoor::new();
    let site = TwoNodes::start(HOST, |bus| {
        let setup = Setup::new(&origin).top("bus", bus);
        let setup = door.added_to(setup);
        setup.route("{name: site, upstream: origin}").write()
    })
    .await;
    for call in calls {
        versions(&site, "/a").await;
        let [old, other] = [pages.version("/a"), pages.version("/other")];
        assert_eq!(versions(&site, "/a").await, [old; 2]);
        assert_eq!(versions(&site, "/other").await, [other; 2]);
        let new = pages.change("/a");
        assert_eq!(versions(&site, "/a").await, [old; 2], "still stored");
        let command = cms::program(&[program, call]);
        cms::run(door.shown_to(command, api, &site)).await;
        let what = format!("{program} {call} makes the page new on both nodes");
        wait_for(&what, SOON, || async {
            (versions(&site, "/a").await == [new; 2]).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fastly_of_npm_purges_both_nodes_by_each_of_its_calls() {
    let calls = ["url", "whole-url", "tag", "field", "both", "body", "all"];
    each_call_purges("api.fastly.com", "fastly.mjs", &calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fastly_of_pypi_purges_both_nodes_by_each_of_its_calls() {
    let calls = ["url", "whole-url", "tag", "field", "body", "all"];
    each_call_purges("api.fastly.com", "purge_fastly.py", &calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloudflare_of_npm_purges_both_nodes_by_each_of_its_calls() {
    let calls = ["files", "headers", "tags", "prefixes", "hosts", "all"];
    each_call_purges("api.cloudflare.com", "cloudflare.mjs", &calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloudflare_of_pypi_purges_both_nodes_by_each_of_its_calls() {
    let calls = ["files", "headers", "tags", "prefixes", "hosts", "all"];
    each_call_purges("api.cloudflare.com", "purge_cloudflare.py", &calls).await;
}
