//! A gateway with its second tier on a disk, killed in the middle of writes and started
//! again on the same file, as often as wanted.
//!
//! What must hold each time: it starts; every body is the right one of a version that no
//! purge has reached; what was written before the last sync is there without asking the
//! origin. A purge that the log took is a sync: the store makes it durable with all
//! that was written before (`cache.l2.disk`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::client::{Answer, Client, Failure};
use crate::gateway::Gateway;
use crate::origin::Origin;
use crate::random::Random;
use crate::reply::Reply;
use crate::setup::Setup;
use crate::wait::{SOON, wait_for};

/// Pages that are written and synced before each kill.
const SYNCED: u64 = 24;
/// Of all that were ever synced, looked at after each start, besides the newest.
const SAMPLE: u64 = 40;
/// Clients that write while the process is killed.
const WRITERS: u64 = 4;

/// What the kills came to.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub kills: u64,
    /// Pages that had to be there after a start, and were.
    pub kept: u64,
    /// Others that were asked for, and how many of them were there.
    pub unsynced: u64,
    pub unsynced_kept: u64,
    /// Purged pages that were asked for, and came anew.
    pub purged: u64,
}

/// The origin's version of each page; 0 where there is none.
type Versions = Arc<Mutex<HashMap<u64, u64>>>;

struct Crashes {
    origin: Origin,
    versions: Versions,
    disk: TempDir,
    random: Random,
    next_page: u64,
    /// Pages that a sync has made durable, with their version.
    synced: BTreeMap<u64, u64>,
    newest: Vec<u64>,
    /// Pages that were purged since, with the first version that may be shown.
    purged: Vec<(u64, u64)>,
    /// Pages that were written when the process was killed.
    unsynced: Vec<u64>,
    tally: Tally,
}

/// Kills a gateway `kills` times; panics at the first thing that must not be.
pub async fn run(kills: u64, seed: u64) -> Tally {
    let mut crashes = Crashes::new(seed).await;
    for _ in 0..kills {
        let gateway = crashes.start().await;
        crashes.look(&gateway.client()).await;
        crashes.write(&gateway).await;
        crashes.kill(gateway).await;
        crashes.tally.kills += 1;
    }
    let gateway = crashes.start().await;
    crashes.look(&gateway.client()).await;
    crashes.tally
}

impl Crashes {
    async fn new(seed: u64) -> Self {
        let versions = Versions::default();
        let known = Arc::clone(&versions);
        let origin = Origin::pages(move |seen| {
            let page = seen.path[1..].parse().unwrap();
            let version = known.lock().unwrap().get(&page).copied().unwrap_or(0);
            Reply::ok(content(page, version))
                .header("cache-control", "max-age=86400")
                .header("x-version", &version.to_string())
        })
        .await;
        Self {
            origin,
            versions,
            disk: tempfile::tempdir().unwrap(),
            random: Random::new(seed),
            next_page: 0,
            synced: BTreeMap::new(),
            newest: Vec::new(),
            purged: Vec::new(),
            unsynced: Vec::new(),
            tally: Tally::default(),
        }
    }

    async fn start(&self) -> Gateway {
        let path = self.disk.path().join("l2");
        let l2 = format!(
            "{{disk: {{path: \"{}\"}}, read_timeout: 10s, write_timeout: 10s}}",
            path.display()
        );
        Setup::new(&self.origin)
            .top("cache", &format!("{{l2: {l2}}}"))
            .top("telemetry", "{access_log: off}")
            .start()
            .await
    }

    /// What the last life left, on a cold L1.
    async fn look(&mut self, client: &Client) {
        let all: Vec<u64> = self.synced.keys().copied().collect();
        let mut wanted = std::mem::take(&mut self.newest);
        for _ in 0..SAMPLE.min(all.len() as u64) {
            wanted.push(all[self.random.below(all.len() as u64) as usize]);
        }
        for page in wanted {
            let answer = right(ask(client, page).await, page).unwrap();
            assert!(
                answer.is_hit(),
                "page {page} was synced: {:?}",
                answer.cache()
            );
            assert_eq!(version(&answer), self.synced[&page], "page {page}");
            self.tally.kept += 1;
        }
        for (page, least) in std::mem::take(&mut self.purged) {
            let answer = right(ask(client, page).await, page).unwrap();
            assert!(version(&answer) >= least, "page {page} is back");
            self.tally.purged += 1;
        }
        for page in std::mem::take(&mut self.unsynced) {
            let answer = right(ask(client, page).await, page).unwrap();
            self.tally.unsynced += 1;
            self.tally.unsynced_kept += u64::from(answer.is_hit());
        }
    }

    /// Writes pages, and syncs them by purges of older ones.
    async fn write(&mut self, gateway: &Gateway) {
        let client = gateway.client();
        let before = stored(gateway).await;
        let pages: Vec<u64> = (0..SYNCED).map(|n| self.next_page + n).collect();
        self.next_page += SYNCED;
        let asks = pages.iter().map(|page| ask(&client, *page));
        for (answer, page) in join_all(asks).await.into_iter().zip(&pages) {
            right(answer, *page).unwrap();
        }
        wait_for("the pages are written", SOON * 2, || async {
            (stored(gateway).await >= before + SYNCED as f64).then_some(())
        })
        .await;
        sync(gateway).await;
        self.synced.extend(pages.iter().map(|page| (*page, 0)));
        self.newest = pages;
    }

    /// Purges some pages and kills the process while others are written.
    async fn kill(&mut self, mut gateway: Gateway) {
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let first = self.next_page + number;
            writers.spawn(write_on(gateway.client(), first));
        }
        for _ in 0..self.random.below(6) {
            let all: Vec<u64> = self.synced.keys().copied().collect();
            let page = all[self.random.below(all.len() as u64) as usize];
            let version = self.bump(page);
            let url = format!("http://site.example/{page}");
            logged(&gateway, &json!({ "url": url })).await;
            self.synced.remove(&page);
            self.newest.retain(|newest| *newest != page);
            self.purged.push((page, version));
        }
        for _ in 0..self.random.below(400) {
            tokio::task::yield_now().await;
        }
        gateway.kill();
        gateway.ended(SOON).await;
        let mut last = self.next_page;
        while let Some(asked) = writers.join_next().await {
            let asked = asked.expect("every body was right");
            last = last.max(asked.last().copied().unwrap_or(0));
            self.unsynced.extend(asked);
        }
        self.next_page = last + WRITERS + 1;
    }

    fn bump(&self, page: u64) -> u64 {
        let mut versions = self.versions.lock().unwrap();
        let version = versions.entry(page).or_default();
        *version += 1;
        *version
    }
}

/// Asks for new pages until nobody answers; the pages that it asked for.
async fn write_on(client: Client, first: u64) -> Vec<u64> {
    let mut asked = Vec::new();
    for page in (first..).step_by(WRITERS as usize) {
        asked.push(page);
        if right(ask(&client, page).await, page).is_none() {
            break;
        }
    }
    asked
}

/// What was written before this survives.
async fn sync(gateway: &Gateway) {
    logged(gateway, &json!({"tag": "nothing"})).await;
}

/// Purges, until the log has it.
async fn logged(gateway: &Gateway, purge: &serde_json::Value) {
    wait_for("the purge is in the log", SOON, || async {
        let receipt = gateway.purge(purge.clone()).await;
        (receipt["l2"]["logged"] == true).then_some(())
    })
    .await;
}

async fn ask(client: &Client, page: u64) -> Result<Answer, Failure> {
    let path = format!("/{page}");
    client.request(&path).host("site.example").try_send().await
}

/// The answer, whose bytes must be the page's; none when it broke off or there is none.
fn right(answer: Result<Answer, Failure>, page: u64) -> Option<Answer> {
    match answer {
        Ok(answer) => {
            let wanted = content(page, version(&answer));
            assert!(answer.status == 200 && answer.body == wanted, "page {page}");
            Some(answer)
        }
        Err(Failure::Cut { so_far, .. }) => {
            assert!(content(page, 0).starts_with(&so_far), "page {page}");
            None
        }
        Err(Failure::NoAnswer(_)) => None,
    }
}

fn version(answer: &Answer) -> u64 {
    answer.header("x-version").parse().unwrap()
}

/// The bytes of a version of a page: of a few lengths, and no two alike.
fn content(page: u64, version: u64) -> Vec<u8> {
    let mut random = Random::new(page << 16 | version);
    let length = match random.below(10) {
        0 => 200_000,
        1..=3 => 20_000,
        _ => 500,
    };
    let line = format!("page {page}, version {version}, {}\n", random.number());
    line.bytes().cycle().take(length).collect()
}

async fn stored(gateway: &Gateway) -> f64 {
    let labels = [("outcome", "stored")];
    gateway.metric("lamina_l2_writes_total", &labels).await
}
