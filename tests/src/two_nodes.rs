//! Two gateways over NATS in front of a real application, and what their visitors see.

use std::path::PathBuf;

use http::HeaderMap;
use tempfile::TempDir;

use crate::client::{Answer, Ask};
use crate::fleet;
use crate::gateway::Gateway;
use crate::nats::Nats;
use crate::places::PLACES;
use crate::wait::{SOON, wait_for};

/// The nodes `a` and `b`.
pub struct TwoNodes {
    _nats: Nats,
    pub nodes: [Gateway; 2],
    host: &'static str,
}

/// The cookies of one visitor.
#[derive(Default, Debug)]
pub struct CookieJar(Vec<(String, String)>);

impl TwoNodes {
    /// Starts both with the configuration that `write` writes with this text under `bus`, for
    /// visitors of `host`.
    pub async fn start(host: &'static str, write: impl Fn(&str) -> (TempDir, PathBuf)) -> Self {
        let nats = Nats::start().await;
        let _places = PLACES.reserve(2).await;
        let started = async |name: &str| {
            let bus = format!(
                "{{source: {name}, heartbeat_interval: 300ms, nats: {{servers: [\"{}\"], \
                 ping_interval: 300ms, reconnect_max: 500ms}}}}",
                nats.url()
            );
            let (dir, config) = write(&bus);
            Gateway::start(dir, &config, &[]).await
        };
        let nodes = [started("a").await, started("b").await];
        fleet::all_heard(&nodes).await;
        Self {
            _nats: nats,
            nodes,
            host,
        }
    }

    /// A question of a visitor of the site.
    pub fn ask(&self, node: usize, target: &str) -> Ask {
        self.nodes[node].client().request(target).host(self.host)
    }

    /// Has each node store the page, which says `text`, and asks until it is a hit on both.
    pub async fn stored(&self, target: &str, text: &str) {
        for node in 0..self.nodes.len() {
            let what = format!("{target} with {text:?} is a hit on node {node}");
            wait_for(&what, SOON, || async {
                let answer = self.ask(node, target).send().await;
                assert_eq!(answer.status, 200, "{target}: {}", answer.text());
                assert!(answer.text().contains(text), "{target} has no {text:?}");
                answer.is_hit().then_some(())
            })
            .await;
        }
    }

    /// Waits until the page says `text` on both nodes, and is a hit with it.
    pub async fn shows(&self, target: &str, text: &str) {
        for node in 0..self.nodes.len() {
            let what = format!("{target} says {text:?} on node {node}");
            wait_for(&what, SOON, || async {
                let answer = self.ask(node, target).send().await;
                answer.text().contains(text).then_some(())
            })
            .await;
        }
        self.stored(target, text).await;
    }
}

impl CookieJar {
    /// Keeps what an answer sets.
    pub fn keep(&mut self, headers: &HeaderMap) {
        for line in headers.get_all("set-cookie") {
            let pair = line.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.0.retain(|(known, _)| known != name);
            self.0.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Sends a question with them and keeps those of the answer.
    pub async fn send(&mut self, ask: Ask) -> Answer {
        let answer = match self.0.is_empty() {
            true => ask.send().await,
            false => ask.header("cookie", &self.line()).send().await,
        };
        self.keep(&answer.headers);
        answer
    }

    /// As a value of `Cookie`.
    pub fn line(&self) -> String {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }
}
