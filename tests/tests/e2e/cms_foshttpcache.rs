//! FOSHttpCache's own functional tests of its clients, as they are, against two nodes over a bus.
//!
//! Debian, npm and PyPI don't have it, so these tests run where `LAMINA_FOSHTTPCACHE` names its folder, by
//! `make test-cms`. Beside its files there are `boot.php`, which loads it and what it needs, and
//! `symroot/symfony.php`, which serves the application of its Symfony tests. The suites talk with one
//! proxy: here that is a door which sends what commands caches to node `a`, and answers other requests with
//! what node `b` says.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use e2e::client::{Answer, Client};
use e2e::origin::{Asked, Origin, Seen};
use e2e::php::PhpProgram;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::two_nodes::TwoNodes;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::{Value, json};

/// Where a suite expects its proxy. Its requests say so, thus the nodes listen at that port as well.
struct ClientSuite {
    class: &'static str,
    tests: &'static [&'static str],
    port: u16,
    /// The folder with its pages.
    pages: &'static str,
}

const VARNISH: ClientSuite = ClientSuite {
    class: "VarnishProxyClientTest",
    tests: &[
        "testBanAll",
        "testBanHost",
        "testBanPathAll",
        "testBanPathContentType",
        "testPurge",
        "testPurgeContentType",
        "testPurgeHost",
        "testRefresh",
        "testRefreshContentType",
    ],
    port: 6181,
    pages: "tests/Functional/Fixtures/web",
};

/// Without the two that it skips by itself.
const NGINX: ClientSuite = ClientSuite {
    class: "NginxProxyClientTest",
    tests: &[
        "testPurgeSeparateLocation",
        "testPurgeSameLocation",
        "testPurgeSeparateLocationHost",
        "testPurgeSameLocationHost",
        "testRefresh",
    ],
    port: 8088,
    pages: "tests/Functional/Fixtures/web",
};

const SYMFONY: ClientSuite = ClientSuite {
    class: "SymfonyProxyClientTest",
    tests: &[
        "testPurge",
        "testPurgeContentType",
        "testPurgeHost",
        "testRefresh",
        "testRefreshContentType",
        "testInvalidateTags",
        "testInvalidateTagsMultiHeader",
    ],
    port: 8080,
    pages: "symroot",
};

/// What the suites take for their proxy.
struct ProxyDoor {
    nodes: [Client; 2],
    admin: Client,
    /// The last command was a refresh, which is a hit on the node that it came to alone.
    refreshed: AtomicBool,
}

impl ProxyDoor {
    async fn ask(&self, node: usize, seen: &Seen) -> Answer {
        let mut ask = self.nodes[node].ask(seen.method.clone(), &seen.path);
        for (name, value) in &seen.headers {
            if !["connection", "content-length"].contains(&name.as_str()) {
                ask = ask.header(name.as_str(), value.to_str().unwrap());
            }
        }
        ask.send().await
    }

    /// Purges and waits for node `b`, on which all that was purged before holds then as well.
    async fn purge_everywhere(&self, mut order: Value) {
        order["wait"] = json!("20s");
        let ask = self.admin.ask(Method::POST, "/v1/purge");
        let ask = ask.header("content-type", "application/json");
        let answer = ask.body(order.to_string()).send().await;
        assert_eq!(
            answer.json()["peers"]["outcome"],
            "all",
            "{}",
            answer.text()
        );
    }

    async fn pass(&self, asked: Asked) -> Reply {
        let seen = asked.read().await;
        let refreshes =
            seen.header("cache-control") == "no-cache" || seen.header("x-refresh") == "1";
        if seen.method != Method::GET || refreshes {
            let answer = self.ask(0, &seen).await;
            self.purge_everywhere(json!({"tag": "no-such-tag"})).await;
            self.refreshed.store(refreshes, Ordering::SeqCst);
            return reply(&answer);
        }
        // The node whose answer counts comes first: what it loads may come to the other by the bus.
        let refreshed = self.refreshed.load(Ordering::SeqCst);
        let counts = usize::from(!refreshed);
        let answer = self.ask(counts, &seen).await;
        let other = self.ask(1 - counts, &seen).await;
        let number = |answer: &Answer| answer.text().parse::<f64>();
        if let (true, Ok(on_a), Ok(on_b)) = (refreshed, number(&answer), number(&other))
            && on_b < on_a
        {
            // Node `b` shows its stale page while it loads the new one.
            wait_for("the page is new on node b", SOON, || async {
                let on_b = number(&self.ask(1, &seen).await);
                on_b.is_ok_and(|on_b| on_b >= on_a).then_some(())
            })
            .await;
        }
        reply(&answer)
    }
}

fn reply(answer: &Answer) -> Reply {
    let mut reply = Reply::ok(answer.text().to_owned()).status(answer.status.as_u16());
    for (name, value) in &answer.headers {
        if !["connection", "content-length", "transfer-encoding"].contains(&name.as_str()) {
            reply = reply.header(name.as_str(), value.to_str().unwrap());
        }
    }
    reply
}

fn folder() -> Option<PathBuf> {
    let folder = std::env::var("LAMINA_FOSHTTPCACHE").ok();
    if folder.is_none() {
        eprintln!("skipped: FOSHttpCache, since LAMINA_FOSHTTPCACHE names no folder with it");
    }
    folder.map(PathBuf::from)
}

/// Its settings. Who starts a proxy there finds one that runs.
fn write_settings(to: &Path, folder: &Path, port: u16) {
    let constant = |name: &str, value: &str| format!("<const name=\"{name}\" value=\"{value}\"/>");
    let file = |path: &str| folder.join(path).to_str().unwrap().to_owned();
    let constants = [
        constant("VARNISH_BINARY", "/bin/true"),
        constant(
            "VARNISH_FILE",
            &file("tests/Functional/Fixtures/varnish/fos.vcl"),
        ),
        constant("NGINX_BINARY", "/bin/true"),
        constant(
            "NGINX_FILE",
            &file("tests/Functional/Fixtures/nginx/fos.conf"),
        ),
        constant("WEB_SERVER_HOSTNAME", "localhost"),
        constant("WEB_SERVER_PORT", &port.to_string()),
        constant("WEB_SERVER_DOCROOT", &file("tests/Functional/Fixtures/web")),
    ];
    let text = format!(
        "<?xml version=\"1.0\"?>\n<phpunit bootstrap=\"{}\"><php>{}</php></phpunit>\n",
        file("boot.php"),
        constants.concat()
    );
    fs::write(to, text).unwrap();
}

async fn passes(suite: ClientSuite) {
    let Some(folder) = folder() else {
        return;
    };
    let php = PhpProgram {
        root: folder.join(suite.pages).to_str().unwrap().to_owned(),
        environment: Vec::new(),
    }
    .serve();
    let target = format!("{{targets: [\"http://{}\"]}}", php.address);
    let place = AtomicUsize::new(2);
    let site = TwoNodes::start("localhost", |bus| {
        let place = place.fetch_add(1, Ordering::SeqCst);
        Setup::default()
            .upstream("origin", &target)
            .policy("{debug_headers: [x-cache]}")
            .top("bus", bus)
            .top(
                "listeners",
                &format!("[{{address: \"127.0.0.{place}:{}\"}}]", suite.port),
            )
            .top(
                "purge_method",
                "{enabled: true, allow: [127.0.0.0/8], dialects: [url, varnish, xkey, symfony, nginx, \
                 refresh]}",
            )
            .write()
    })
    .await;
    let client = |address| Client::http1(address).uncached().unchecked();
    let door = Arc::new(ProxyDoor {
        nodes: [client(site.nodes[0].address), client(site.nodes[1].address)],
        admin: client(site.nodes[0].admin),
        refreshed: AtomicBool::new(false),
    });
    let known = Arc::clone(&door);
    let address = SocketAddr::from(([127, 0, 0, 1], suite.port));
    let _proxy = Origin::start_at(address, move |asked| {
        let door = Arc::clone(&known);
        async move { door.pass(asked).await }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("phpunit.xml");
    write_settings(&settings, &folder, suite.port);
    for test in suite.tests {
        door.purge_everywhere(json!({"all": true})).await;
        door.refreshed.store(false, Ordering::SeqCst);
        let mut command = Command::new("phpunit");
        command
            .current_dir(&folder)
            .args(["--do-not-cache-result", "--fail-on-skipped", "--filter"])
            .arg(format!("/::{test}$/"))
            .arg("--configuration")
            .arg(&settings)
            .arg(format!("tests/Functional/ProxyClient/{}.php", suite.class));
        let ran = tokio::task::spawn_blocking(move || command.output().expect("phpunit starts"));
        let ran = ran.await.unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(
            ran.status.success() && said.contains("OK (1 test"),
            "{test}: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-cms"]
async fn the_varnish_client_passes_its_own_tests_on_two_nodes() {
    passes(VARNISH).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-cms"]
async fn the_nginx_client_passes_its_own_tests_on_two_nodes() {
    passes(NGINX).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-cms"]
async fn the_symfony_client_passes_its_own_tests_on_two_nodes() {
    passes(SYMFONY).await;
}
