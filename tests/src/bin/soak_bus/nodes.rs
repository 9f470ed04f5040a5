//! The gateways: small ones, as many share the machine. The last, the *victim*, keeps a
//! second tier on disk: without one a node that is killed has nothing old to bring back.

use std::time::{Duration, Instant};

use e2e::fleet::{known, names, state};
use e2e::gateway::Gateway;
use e2e::metrics::Scrape;
use e2e::origin::Origin;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::SoakBroker;
use crate::readers::HOST;
use crate::truth::PromisedVersions;

/// Whom the events of these nodes are for.
pub const NAMESPACE: &str = "soak";
/// The limit for everything to settle after a fault or a flood.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Within this a purge comes to the last node once the broker is back; what takes longer is shown.
pub const STATED: Duration = Duration::from_secs(1);
/// How many of a node's last lines are shown.
const LAST_LINES: usize = 6;

/// Gateways over one bus.
pub struct SoakNodes {
    pub all: Vec<Gateway>,
    pub names: Vec<String>,
    pub origin: Origin,
    /// The key of each page, as a purge by key names it.
    pub keys: Vec<String>,
    yaml: Vec<Setup>,
    /// Purges that former lives have published, by node.
    published_before: Vec<f64>,
    /// Nodes that have lived through all of it.
    unharmed: Vec<bool>,
    _disk: Option<TempDir>,
}

impl SoakNodes {
    /// All of which hear each other; the last has a disk.
    pub async fn start(size: usize, broker: &SoakBroker, truth: &PromisedVersions) -> Self {
        let disk = tempfile::tempdir().unwrap();
        let l2 = format!(
            "{{l2: {{disk: {{path: \"{}/l2\"}}}}}}",
            disk.path().display()
        );
        let victim = names(size).last();
        let complete = |name: &str, setup: Setup| match victim.as_deref() == Some(name) {
            true => setup.top("cache", &l2),
            false => setup.top("cache", "{}"),
        };
        let nodes = Self::with_setups(size, broker, truth, complete).await;
        Self {
            _disk: Some(disk),
            ..nodes
        }
    }

    /// All of which hear each other, with setups that this completes, by name.
    pub async fn with_setups(
        size: usize,
        broker: &SoakBroker,
        truth: &PromisedVersions,
        complete: impl Fn(&str, Setup) -> Setup,
    ) -> Self {
        let origin = truth.pages.origin().await;
        let names: Vec<String> = names(size).collect();
        let yaml: Vec<Setup> = names
            .iter()
            .map(|name| complete(name, setup(&origin, name, broker)))
            .collect();
        let all = join_all(yaml.iter().map(Setup::start)).await;
        let mut nodes = Self {
            published_before: vec![0.0; all.len()],
            unharmed: vec![true; all.len()],
            keys: Vec::new(),
            all,
            names,
            origin,
            yaml,
            _disk: None,
        };
        nodes.whole().await;
        for page in 0..truth.size() {
            let key = key(&nodes.all[0], truth.path(page)).await;
            nodes.keys.push(key);
        }
        nodes
    }

    /// Waits until every node hears, tells, and knows all others; answers when it was so.
    pub async fn whole(&self) -> Instant {
        for node in &self.all {
            wait_for(
                "every node hears and has told everything",
                PATIENCE,
                || async {
                    let standing = standing(node).await;
                    let tells = standing["purges_waiting"] == 0 && standing["publishes"] == true;
                    let hears = standing["hears"] == true && state(node).await == "serving";
                    (tells && hears && known(node).await == self.all.len() - 1).then_some(())
                },
            )
            .await;
        }
        Instant::now()
    }

    /// Waits until every node has told all purges that it has taken.
    pub async fn have_told(&self) {
        let began = Instant::now();
        for node in &self.all {
            let last = std::cell::RefCell::default();
            wait_for("every node has told everything", PATIENCE, || async {
                let standing = standing(node).await;
                let tells = standing["purges_waiting"] == 0 && standing["publishes"] == true;
                if !tells {
                    last.replace(standing);
                }
                tells.then_some(())
            })
            .await;
            if began.elapsed() > STATED / 2 {
                self.explain("told", &last.take(), began.elapsed());
            }
        }
    }

    /// Waits until a purge of each node has been confirmed by all others: each purge that the
    /// node told before has come to them by then, or they know that one is missing and have
    /// everything validated. False when that takes too long.
    pub async fn have_confirmed(&self) -> bool {
        let purge = json!({"tag": "of-no-page", "wait": "5s"});
        let confirmed = self.all.iter().map(async |node| {
            let began = Instant::now();
            while began.elapsed() < PATIENCE / 3 {
                let receipt = node.purge(purge.clone()).await;
                if began.elapsed() > STATED / 2 {
                    self.explain("confirmed", &receipt, began.elapsed());
                }
                if receipt["peers"]["complete"] == true {
                    return true;
                }
            }
            false
        });
        join_all(confirmed).await.into_iter().all(|all| all)
    }

    /// Shows why a purge may have taken longer than is stated: what a node said of it, and what the
    /// nodes have logged last.
    fn explain(&self, done: &str, said: &Value, after: Duration) {
        eprintln!("{done} after {} ms: {said}", after.as_millis());
        for node in &self.all {
            let log = node.log();
            for line in &log[log.len().saturating_sub(LAST_LINES)..] {
                eprintln!("  {} {line:.400}", node.address);
            }
        }
    }

    /// Purges that were published in all, and how many of them should have come to each node
    /// that lived through all of it; beside them those that did.
    pub async fn arrivals(&self) -> Vec<(f64, f64)> {
        let scrapes: Vec<Scrape> = join_all(self.all.iter().map(Gateway::scrape)).await;
        let kind = [("kind", "purge")];
        let published: Vec<f64> = scrapes
            .iter()
            .zip(&self.published_before)
            .map(|(scrape, before)| before + scrape.sum("lamina_bus_published_total", &kind))
            .collect();
        let sum: f64 = published.iter().sum();
        let lived = (0..self.all.len()).filter(|node| self.unharmed[*node]);
        lived
            .map(|node| {
                let applied = scrapes[node].sum("lamina_cluster_purges_total", &[]);
                (sum - published[node], applied)
            })
            .collect()
    }

    /// Waits until each purge has come to every node; false if that takes too long.
    pub async fn all_arrived(&self) -> bool {
        let began = Instant::now();
        loop {
            let arrivals = self.arrivals().await;
            if arrivals.iter().all(|(due, came)| came >= due) {
                return true;
            }
            if began.elapsed() > PATIENCE / 3 {
                eprintln!("due and come, by node: {arrivals:?}");
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGKILL to the last one.
    pub async fn kill_the_last(&mut self) {
        let last = self.all.len() - 1;
        let kind = [("kind", "purge")];
        let victim = self.all.pop().expect("there are nodes");
        let published = victim.metric("lamina_bus_published_total", &kind).await;
        self.published_before[last] += published;
        self.unharmed[last] = false;
        // Dropping it kills it, and waits for its end.
        drop(victim);
    }

    /// The last one again, with what is on its disk.
    pub async fn start_the_last(&self) -> Gateway {
        let setup = self.yaml.last().expect("there are nodes");
        setup.start().await
    }

    /// Resident memory, by node.
    pub fn memory(&self) -> Vec<u64> {
        self.all.iter().map(Gateway::resident_bytes).collect()
    }

    /// The sum of a metric over all nodes.
    pub async fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let all = join_all(self.all.iter().map(|node| node.metric(name, labels))).await;
        all.iter().sum()
    }
}

fn setup(origin: &Origin, name: &str, broker: &SoakBroker) -> Setup {
    let bus = format!(
        "{{source: {name}, namespace: {NAMESPACE}, {}}}",
        broker.yaml(name)
    );
    Setup::new(origin)
        .top("server", "{threads: 1, drain_timeout: 1m}")
        .top("telemetry", "{log_format: json, access_log: off}")
        .top("bus", &bus)
}

async fn standing(node: &Gateway) -> Value {
    let answer = node.admin(Method::GET, "/v1/nodes", "").await;
    let body: Value = serde_json::from_str(&answer.text).unwrap();
    body["bus"].clone()
}

async fn key(node: &Gateway, path: &str) -> String {
    let asked = json!({"url": format!("http://{HOST}{path}")}).to_string();
    let told = e2e::wait::within(
        "explain",
        SOON,
        node.admin(Method::POST, "/v1/explain", &asked),
    );
    let told: Value = serde_json::from_str(&told.await.text).unwrap();
    told["key"]["id"].as_str().expect("a key").to_owned()
}
