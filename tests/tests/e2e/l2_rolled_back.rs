//! Redis comes back with an older state (a snapshot after a crash, a replica that lagged, an
//! earlier log): no purge that a running node knows is undone, and no node misses one.
//! Nodes hear no bus here: the log in Redis alone tells them.

use e2e::fleet::Pages;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::wait::{SOON, wait_for};
use serde_json::json;

use crate::l2::{LASTING, over};
use crate::l2_forged_record::gaps;

/// How nodes use Redis.
const WITH_AND_WITHOUT_SEALS: [fn(&Redis) -> String; 2] = [open_at, sealed_at];

/// A command that was on its way when Redis died may never be answered, so none is waited for
/// longer than this.
const PATIENCE: &str = "read_timeout: 2s, write_timeout: 2s";

fn open_at(redis: &Redis) -> String {
    format!("{{redis: {{url: \"{}\"}}, {PATIENCE}}}", redis.url())
}

fn sealed_at(redis: &Redis) -> String {
    format!(
        "{{redis: {{url: \"{}\"}}, seal_key: a-secret-of-many-bytes, {PATIENCE}}}",
        redis.url()
    )
}

/// A Redis with a page that was stored, and a node that stored it.
struct StoredPage {
    redis: Redis,
    pages: Pages,
    origin: Origin,
    l2: String,
    a: Gateway,
}

impl StoredPage {
    /// The page's first version is in Redis; `l2` says how nodes use it.
    async fn start(l2: fn(&Redis) -> String) -> Self {
        let redis = Redis::start().await;
        let l2 = l2(&redis);
        let pages = Pages::default();
        let origin = pages.origin().await;
        let a = over(&origin, &l2, LASTING).await;
        assert_eq!(page(&a).await, "1");
        let stored = [("outcome", "stored")];
        a.metric_until("lamina_l2_writes_total", &stored, |n| n >= 1.0)
            .await;
        Self {
            redis,
            pages,
            origin,
            l2,
            a,
        }
    }

    async fn node(&self) -> Gateway {
        over(&self.origin, &self.l2, LASTING).await
    }

    async fn save(&self) {
        assert_eq!(self.redis.cli(&["SAVE"]).await, "OK");
    }

    /// SIGKILL, and a start with what was saved.
    async fn crash(&mut self) {
        self.redis.restart().await;
    }

    /// The page changes, and a node purges it, so that it is acknowledged as logged.
    async fn change(&self, node: &Gateway) {
        self.pages.change("/p");
        logged(node, "/p").await;
    }

    /// Every node shows the new page, be it one of these or one that has just started. That one
    /// is answered: were it killed at once, the lease of its load would have to run out.
    async fn all_show(&self, nodes: &[&Gateway], wanted: &str) -> Gateway {
        for node in nodes {
            shows(node, wanted).await;
        }
        let fresh = self.node().await;
        assert_eq!(page(&fresh).await, wanted, "a node that has just started");
        fresh
    }
}

async fn page(node: &Gateway) -> String {
    let asked = node.client().request("/p").host("site.example");
    asked.send().await.text().to_owned()
}

async fn shows(node: &Gateway, wanted: &str) {
    wait_for("a node shows the new page", SOON, || async {
        (page(node).await == wanted).then_some(())
    })
    .await;
}

/// Purges a tag. While the node has no connection it is tried again.
async fn logged(node: &Gateway, tag: &str) {
    wait_for("a purge is logged", SOON, || async {
        let receipt = node.purge(json!({"tag": tag})).await;
        (receipt["l2"]["logged"] == true).then_some(())
    })
    .await;
}

async fn knows(node: &Gateway, number: f64) {
    node.metric_until("lamina_l2_purge_log_number", &[], |n| n >= number)
        .await;
}

/// The node noticed it, counted it, and said it in one line.
async fn noticed(node: &Gateway) {
    gaps(node, 1.0).await;
    let reason = [("reason", "rolled-back")];
    let name = "lamina_l2_purge_log_faults_total";
    assert_eq!(node.metric(name, &reason).await, 1.0);
    let told = |line: &str| line.contains("came back with an older state");
    node.logged("that Redis has an older state", told).await;
    assert_eq!(node.log().iter().filter(|line| told(line)).count(), 1);
}

/// What each purges the other one forgets.
async fn works(site: &StoredPage, one: &Gateway, other: &Gateway) {
    for (purging, hearing) in [(one, other), (other, one)] {
        page(hearing).await;
        site.change(purging).await;
        let version = site.pages.version("/p").to_string();
        shows(hearing, &version).await;
        assert_eq!(page(purging).await, version);
    }
}

/// The numbers that one node has read are given out again before it looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_that_got_numbers_which_a_node_had_read_already_are_missed_by_nobody() {
    for l2 in WITH_AND_WITHOUT_SEALS {
        let mut site = StoredPage::start(l2).await;
        let b = site.node().await;
        logged(&site.a, "x").await;
        knows(&b, 1.0).await;
        site.save().await;
        b.freeze();
        for tag in ["y", "z"] {
            logged(&site.a, tag).await;
        }
        site.a.freeze();
        site.crash().await;
        b.thaw();
        site.change(&b).await;
        for tag in ["v", "w"] {
            logged(&b, tag).await;
        }
        knows(&b, 4.0).await;
        site.a.thaw();
        noticed(&site.a).await;
        let _fresh = site.all_show(&[&site.a, &b], "2").await;
        works(&site, &site.a, &b).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_a_snapshot_does_not_have_is_not_undone_while_a_node_lives_that_knows_it() {
    for l2 in WITH_AND_WITHOUT_SEALS {
        let mut site = StoredPage::start(l2).await;
        site.save().await;
        site.change(&site.a).await;
        site.a.freeze();
        site.crash().await;
        let c = site.node().await;
        assert_eq!(page(&c).await, "1", "nobody is there who knows the purge");
        for tag in ["v", "w"] {
            logged(&c, tag).await;
        }
        site.a.thaw();
        noticed(&site.a).await;
        let _fresh = site.all_show(&[&site.a, &c], "2").await;
        works(&site, &site.a, &c).await;
    }
}

/// A replica lags and takes the master's place, with connections that stand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_a_promoted_replica_does_not_have_is_not_undone() {
    let site = StoredPage::start(open_at).await;
    let port = site.redis.port.to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    wait_for("the replica follows", SOON, || async {
        (site.redis.cli(&["WAIT", "1", "1000"]).await == "1").then_some(())
    })
    .await;
    replica.cli(&["REPLICAOF", "NO", "ONE"]).await;
    site.change(&site.a).await;
    site.a.freeze();
    // The server at the nodes' address gets the state of the one that lagged.
    let port = replica.port.to_string();
    site.redis.cli(&["REPLICAOF", "127.0.0.1", &port]).await;
    wait_for("the older state is there", SOON, || async {
        let said = site.redis.cli(&["INFO", "replication"]).await;
        said.contains("master_link_status:up").then_some(())
    })
    .await;
    site.redis.cli(&["REPLICAOF", "NO", "ONE"]).await;
    let c = site.node().await;
    assert_eq!(page(&c).await, "1", "nobody is there who knows the purge");
    for tag in ["v", "w"] {
        logged(&c, tag).await;
    }
    site.a.thaw();
    noticed(&site.a).await;
    site.all_show(&[&site.a, &c], "2").await;
}

/// The log began anew since the snapshot: the former one comes back, with the records that
/// are shown to those who follow it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_log_that_a_snapshot_brings_back_shows_nothing_that_was_purged() {
    let mut site = StoredPage::start(open_at).await;
    site.save().await;
    site.redis.cli(&["FLUSHALL"]).await;
    gaps(&site.a, 1.0).await;
    site.change(&site.a).await;
    site.crash().await;
    gaps(&site.a, 2.0).await;
    site.all_show(&[&site.a], "2").await;
}

/// Nothing was lost: what is stored is shown on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_loses_nothing_hides_nothing() {
    let mut site = StoredPage::start(open_at).await;
    logged(&site.a, "x").await;
    site.save().await;
    site.crash().await;
    logged(&site.a, "y").await;
    let looks = [("operation", "get"), ("outcome", "ok")];
    let c = site.node().await;
    site.pages.change("/p");
    assert_eq!(page(&c).await, "1", "what is stored is shown");
    assert!(c.metric("lamina_l2_calls_total", &looks).await >= 1.0);
    for node in [&site.a, &c] {
        assert_eq!(
            node.metric("lamina_l2_purge_log_gaps_total", &[]).await,
            0.0
        );
    }
}
