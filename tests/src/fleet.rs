//! Several gateways over one bus, in front of one origin whose pages have versions.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use std::sync::Mutex;

use crate::gateway::Gateway;
use crate::origin::Origin;
use crate::places::PLACES;
use crate::reply::Reply;
use crate::setup::Setup;
use crate::wait::{SOON, wait_for};

/// Pages that change when a test says so: each body is the page's version.
#[derive(Clone, Default)]
pub struct Pages(Arc<Mutex<HashMap<String, u64>>>);

/// The gateways, and what they stand in front of.
pub struct Fleet {
    pub origin: Origin,
    pub pages: Pages,
    pub nodes: Vec<Gateway>,
}

impl Pages {
    /// The page's version; 1 from the start.
    pub fn version(&self, path: &str) -> u64 {
        self.0.lock().unwrap().get(path).copied().unwrap_or(1)
    }

    /// Changes a page.
    pub fn change(&self, path: &str) -> u64 {
        let mut pages = self.0.lock().unwrap();
        let version = pages.entry(path.to_owned()).or_insert(1);
        *version += 1;
        *version
    }

    /// An origin of them: fresh for an hour, with a validator and the tags `page` and the path.
    pub async fn origin(&self) -> Origin {
        let pages = self.clone();
        Origin::pages(move |seen| {
            let path = seen.path_only().to_owned();
            let version = pages.version(&path);
            let etag = format!("\"{path}-{version}\"");
            let known = seen.header("if-none-match") == etag;
            let reply = match known {
                true => Reply::status_only(304),
                false => Reply::ok(version.to_string()),
            };
            reply
                .header("cache-control", "max-age=3600")
                .header("etag", &etag)
                .header("surrogate-key", &format!("page {path}"))
        })
        .await
    }
}

/// A gateway of this name over `bus` (YAML of the transport, as in `nats: {…}`).
pub fn node(origin: &Origin, name: &str, bus: &str) -> Setup {
    Setup::new(origin).top(
        "bus",
        &format!("{{source: {name}, heartbeat_interval: 300ms, {bus}}}"),
    )
}

impl Fleet {
    /// Gateways named `a`, `b`, … each over the bus that `bus` says for its name, all of
    /// which have heard of each other.
    pub async fn start(size: usize, bus: impl Fn(&str) -> String) -> Self {
        let pages = Pages::default();
        let origin = pages.origin().await;
        Self::over(origin, pages, size, bus).await
    }

    /// The same in front of another origin.
    pub async fn over(
        origin: Origin,
        pages: Pages,
        size: usize,
        bus: impl Fn(&str) -> String,
    ) -> Self {
        let _places = PLACES.reserve(size).await;
        let mut nodes = Vec::new();
        for name in names(size) {
            nodes.push(node(&origin, &name, &bus(&name)).start().await);
        }
        let fleet = Self {
            origin,
            pages,
            nodes,
        };
        fleet.whole().await;
        fleet
    }

    /// Waits until every node hears all others.
    pub async fn whole(&self) {
        all_heard(&self.nodes).await;
    }
}

/// Waits until each of these nodes hears all others.
pub async fn all_heard(nodes: &[Gateway]) {
    let others = nodes.len() - 1;
    for node in nodes {
        wait_for("every node hears the others", SOON * 2, || async {
            let (state, heard) = (state(node).await, known(node).await);
            (state == "serving" && heard == others).then_some(())
        })
        .await;
    }
}

/// `a`, `b`, …
pub fn names(size: usize) -> impl Iterator<Item = String> {
    ('a'..='z').take(size).map(String::from)
}

/// What a node says of itself: `serving`, `degraded`, `draining`.
pub async fn state(node: &Gateway) -> String {
    let answer = node.admin(http::Method::GET, "/readyz", "").await;
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    body["state"].as_str().unwrap().to_owned()
}

/// How many others a node hears.
pub async fn known(node: &Gateway) -> usize {
    let answer = node.admin(http::Method::GET, "/v1/nodes", "").await;
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    body["nodes"].as_array().unwrap().len()
}

/// Purges and waits for the others; the receipt.
pub async fn purge_everywhere(node: &Gateway, selector: Value) -> Value {
    let mut asked = selector;
    asked["wait"] = json!("20s");
    node.purge(asked).await
}

/// The version of a page that a node shows.
pub async fn shown(node: &Gateway, path: &str) -> u64 {
    let answer = node.client().get(path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().parse().unwrap()
}
