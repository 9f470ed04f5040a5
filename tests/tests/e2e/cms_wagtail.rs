//! Wagtail from PyPI with its own backends for caches, as they are, behind two nodes over a bus: what is
//! published is new on both.

use std::net::SocketAddr;

use e2e::cms::{self, ApiDoor, TOKEN};
use e2e::free_port::free_address;
use e2e::process::Server;
use e2e::setup::Setup;
use e2e::two_nodes::TwoNodes;
use e2e::wait::{SOON, wait_for};
use serde_json::json;
use tempfile::TempDir;

const HOST: &str = "site.test";

/// A site of Wagtail.
struct WagtailSite {
    dir: TempDir,
    server: Server,
}

impl WagtailSite {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        cms::run(cms::program(&["wagtail_site.py", folder, "{}", "install"])).await;
        let address = free_address();
        Self {
            server: serve(folder, address),
            dir,
        }
    }
}

fn serve(folder: &str, address: SocketAddr) -> Server {
    let port = address.port().to_string();
    let program = cms::program(&[]);
    let program = program.get_program().to_str().unwrap();
    let arguments = ["wagtail_site.py", folder, "{}", "serve", port.as_str()];
    Server::start(None, address, program, &arguments).expect("Wagtail serves the site")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_wagtail_publishes_is_new_on_both_nodes_by_each_of_its_backends() {
    if !cms::is_here("Wagtail behind two nodes") {
        return;
    }
    let wagtail = WagtailSite::start().await;
    let folder = wagtail.dir.path().to_str().unwrap();
    let door = ApiDoor::new();
    let target = format!("{{targets: [\"http://{}\"]}}", wagtail.server.address);
    let site = TwoNodes::start(HOST, |bus| {
        let setup = Setup::default()
            .upstream("origin", &target)
            .top("bus", bus)
            .top(
                "purge_method",
                "{enabled: true, allow: [127.0.0.1], dialects: [url]}",
            );
        door.added_to(setup)
            .route(
                "{name: site, upstream: origin, bypass: {cookie: [sessionid]}, policy: {ttl: 10m, \
                 stale_while_revalidate: 1m, stale_if_error: 1h}}",
            )
            .write()
    })
    .await;
    let node = format!("http://{}", site.nodes[0].address);
    let package = "wagtail.contrib.frontend_cache.backends";
    let http = json!({"edge": {"BACKEND": format!("{package}.HTTPBackend"), "LOCATION": node}});
    let cloudflare = json!({"edge": {
        "BACKEND": format!("{package}.CloudflareBackend"), "BEARER_TOKEN": TOKEN, "ZONEID": "zone",
    }});
    let act = async |backends: &serde_json::Value, arguments: &[&str]| {
        let backends = backends.to_string();
        let mut all = vec!["wagtail_site.py", folder, backends.as_str()];
        all.extend(arguments);
        let command = cms::program(&all);
        cms::run(door.shown_to(command, "api.cloudflare.com", &site)).await;
    };
    act(&http, &["publish", "tea", "Tea is green"]).await;
    site.stored("/tea/", "Tea is green").await;
    act(&http, &["publish", "tea", "Tea is white"]).await;
    site.shows("/tea/", "Tea is white").await;
    act(&cloudflare, &["publish", "tea", "Tea is red"]).await;
    site.shows("/tea/", "Tea is red").await;
    act(&http, &["unpublish", "tea"]).await;
    for node in [0, 1] {
        wait_for("the page is gone on both nodes", SOON, || async {
            let answer = site.ask(node, "/tea/").send().await;
            (answer.status == 404).then_some(())
        })
        .await;
    }
}
