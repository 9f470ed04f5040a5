//! The shipped quickstart does what README.md and docs/getting-started.md promise.
//!
//! It runs as it is but for its ports, which are free ones here, in a copy that
//! lies in the same folder depth so that `../plugins/dist` is found.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use e2e::cli::{binary, repository};
use e2e::gateway::Gateway;
use e2e::tls::TlsClient;
use e2e::wait::{SOON, wait_for};

/// `lamina demo-origin`, ended on drop.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn quickstart() -> (Demo, Gateway) {
    let address = free_address();
    let demo = Command::new(binary())
        .args(["demo-origin", "--listen", &address.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the demo origin starts");
    let demo = Demo(demo);
    wait_for("the demo origin listens", SOON, || async move {
        tokio::net::TcpStream::connect(address).await.ok()
    })
    .await;
    let shipped = repository().join("config/quickstart.yaml");
    let text = std::fs::read_to_string(&shipped)
        .unwrap_or_else(|error| panic!("{}: {error}", shipped.display()));
    let dist = repository()
        .join("plugins/dist")
        .canonicalize()
        .expect("plugins/build.sh has been run");
    let text = text
        .replace("127.0.0.1:8081", &address.to_string())
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:8443", "127.0.0.1:0")
        .replace("[::1]:8443", "[::1]:0")
        .replace("127.0.0.1:9180", "127.0.0.1:0")
        .replace("../plugins/dist", dist.to_str().unwrap())
        .replace("../.lamina/", "");
    let dir = tempfile::tempdir().unwrap();
    let config = e2e::setup::write_config(dir.path(), &text);
    (demo, Gateway::start(dir, &config, &[]).await)
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Browsers take `localhost` for either.
#[tokio::test]
async fn https_is_served_on_the_loopback_of_both_families() {
    let (_demo, gateway) = quickstart().await;
    let addresses = gateway.addresses();
    let secured: Vec<_> = addresses.iter().skip(1).copied().collect();
    let families: Vec<_> = secured.iter().map(SocketAddr::is_ipv6).collect();
    assert_eq!(families, [false, true], "{addresses:?}");
    for address in secured {
        let client = TlsClient::new(address, "localhost");
        assert_eq!(client.status("localhost").await, Ok(200), "{address}");
    }
}

#[tokio::test]
async fn a_page_is_a_miss_then_a_hit_with_its_age() {
    let (_demo, gateway) = quickstart().await;
    let miss = gateway.client().get("/pages/hello").await;
    let cache = miss.cache();
    assert!(cache.forwarded_as("uri-miss") && cache.stored, "{cache:?}");
    let hit = gateway.client().get("/pages/hello").await;
    assert!(
        hit.is_hit() && hit.cache().ttl.is_some() && hit.age().is_some(),
        "{:?}",
        hit.headers
    );
    assert_eq!(hit.body, miss.body);
}

#[tokio::test]
async fn tracking_parameters_share_one_entry_through_the_key_plugin() {
    let (_demo, gateway) = quickstart().await;
    gateway
        .client()
        .get("/search?q=tea&utm_source=letter")
        .await;
    assert!(
        gateway
            .client()
            .get("/search?q=tea&utm_source=banner")
            .await
            .is_hit()
    );
}

#[tokio::test]
async fn the_composed_route_shows_both_origins_data() {
    let (_demo, gateway) = quickstart().await;
    let answer = gateway.client().get("/account/42").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.json()["user"].is_object() && !answer.json()["orders"].is_null(),
        "{}",
        answer.text()
    );
    assert!(gateway.client().get("/account/42").await.is_hit());
}

#[tokio::test]
async fn a_post_to_a_page_purges_it() {
    let (_demo, gateway) = quickstart().await;
    let before = gateway.client().get("/pages/hello").await;
    assert!(
        gateway
            .client()
            .post("/pages/hello", "")
            .await
            .status
            .is_success()
    );
    let after = gateway.client().get("/pages/hello").await;
    assert!(!after.is_hit() && after.body != before.body);
}

#[tokio::test]
async fn every_page_of_the_demo_answers() {
    let (_demo, gateway) = quickstart().await;
    for path in [
        "/",
        "/slow?ms=10",
        "/vary",
        "/private",
        "/nostore",
        "/cookie",
        "/echo",
    ] {
        assert_eq!(gateway.client().get(path).await.status, 200, "{path}");
    }
    assert_eq!(gateway.client().get("/missing").await.status, 404);
    assert_eq!(gateway.client().get("/fail").await.status, 503);
}
