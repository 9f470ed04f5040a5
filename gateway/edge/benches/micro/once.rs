//! Measurements that need a state of their own, so that criterion cannot make them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use lamina_cache::coalesce::{FlightOutcome, LeadOrFollow, Leader};
use lamina_cache::entry::Entry;
use lamina_cache::fill::{Fill, FillHead};
use lamina_cache::key::KeyBuf;
use lamina_cache::purge::{PurgeKind, Selector};
use lamina_cache::{Cache, Lookup};
use lamina_http::memory::stored::StoredBody;
use lamina_http::vary::Vary;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::report::{self, Row};
use crate::{entries, plugins};

const OBJECTS: usize = 100_000;
const ENTRIES: usize = 1_000_000;
/// Each tag is on one entry in this many.
const GROUPS: usize = 10;
const CALLERS: usize = 10_000;
const HERDS: usize = 11;
const PAGES: usize = 1_000;
const PURGES: usize = 100_000;
const ROUNDS: usize = 200;
const LOADS: usize = 20_000;
const LOADS_AT_ONCE: usize = 64;

/// The resident memory of 100,000 entries of 1 KiB, divided by their number.
pub fn memory() -> anyhow::Result<Row> {
    let cache = entries::cache(1_024)?;
    let before = resident_kib()?;
    for i in 0..OBJECTS {
        entries::store(&cache, i, entries::body(), "bench");
    }
    cache.tend();
    let each = (resident_kib()? - before) as f64 / OBJECTS as f64;
    let headers = HeaderMap::new();
    let mut counted = 0;
    for i in 0..OBJECTS {
        match cache.lookup(&entries::page_key(i), &headers, Instant::now()) {
            Lookup::Fresh(entry) => counted += entry.size(),
            Lookup::Stale(..) | Lookup::Miss(..) => anyhow::bail!("an entry was pushed out"),
        }
    }
    let counted = counted as f64 / OBJECTS as f64 / 1_024.0;
    let what = "resident memory a cached 1 KiB object, 100,000 of them (what L1's bound counts)";
    let figure = format!("{each:.2} KiB ({counted:.2} KiB)");
    Ok(Row::new(what, figure, "≤ 1.5 KiB"))
}

/// The CPU time of the whole process for one loader call. Many calls run at once, so that the
/// threads stay awake.
pub fn loader_cpu() -> anyhow::Result<Row> {
    let runtime = plugins::runtime()?;
    let shipped = plugins::load(&runtime)?;
    let request = plugins::load_request();
    let batch = || {
        let calls = (0..LOADS_AT_ONCE).map(|_| shipped.loader.load(request.clone()));
        runtime.block_on(join_all(calls))
    };
    ensure!(batch().iter().all(Result::is_ok), "the loader answers");
    let before = cpu()?;
    for _ in 0..LOADS / LOADS_AT_ONCE {
        batch();
    }
    let each = (cpu()? - before).as_nanos() as f64 / LOADS as f64;
    let what = "the same, 64 at once: CPU time a call";
    Ok(Row::new(what, report::time(each), "≤ 25 µs"))
}

/// Nine purges of 100,000 entries each, in a cache of a million.
pub fn purge_by_tag() -> anyhow::Result<Vec<Row>> {
    let cache = entries::cache(8_192)?;
    let headers = HeaderMap::new();
    // The bytes do not matter here, so all entries share one body.
    let body = entries::body();
    for i in 0..ENTRIES {
        entries::store(&cache, i, body.clone(), &tag(i));
    }
    cache.tend();
    let hits = || (0..ENTRIES).filter(|i| is_hit(&cache, &entries::page_key(*i), &headers));
    ensure!(hits().count() == ENTRIES, "an entry was pushed out");
    let (mut purges, mut firsts) = (Vec::new(), Vec::new());
    for group in 0..GROUPS - 1 {
        let (selector, key) = (Selector::Tag(tag(group)), entries::page_key(group));
        purges.push(timed(|| cache.purge(&selector, PurgeKind::Hard)).0);
        let (first, hit) = timed(|| is_hit(&cache, &key, &headers));
        firsts.push(first);
        ensure!(!hit, "a purge holds at once");
    }
    let kept: Vec<_> = (0..ENTRIES)
        .filter(|i| i % GROUPS == GROUPS - 1)
        .map(entries::page_key)
        .collect();
    let all = || kept.iter().all(|key| is_hit(&cache, key, &headers));
    let ((first, judged), (second, again)) = (timed(all), timed(all));
    ensure!(
        judged && again && hits().count() == kept.len(),
        "only the tagged go"
    );
    let each = |time: Duration| report::time(time.as_nanos() as f64 / kept.len() as f64);
    Ok(vec![
        Row::new(
            "purge by tag, 100,000 of 1,000,000 entries: the call",
            report::spread(purges),
            "< 1 ms",
        ),
        Row::new(
            "its first look-up of a purged entry",
            report::spread(firsts),
            "at once",
        ),
        Row::new(
            "first look-up of another entry after purges, 100,000 cold ones (each again)",
            format!("{} ({})", each(first), each(second)),
            "",
        ),
    ])
}

/// A hundred thousand purges by prefix that match nothing, as requests cause them through a rule:
/// the cost of a hit before, during and after them.
pub fn purge_by_prefix() -> anyhow::Result<Vec<Row>> {
    let cache = entries::cache(64)?;
    let (headers, body) = (HeaderMap::new(), entries::body());
    let keys: Vec<_> = (0..PAGES)
        .map(|i| entries::store(&cache, i, body.clone(), "page"))
        .collect();
    let all = || keys.iter().all(|key| is_hit(&cache, key, &headers));
    let rounds = || (0..ROUNDS).all(|_| all());
    let purge = |n: usize| {
        let prefix = Selector::Prefix(format!("shop.example/user-{n}/"));
        cache.purge_by_request(&prefix, PurgeKind::Hard);
    };
    ensure!(rounds(), "an entry was pushed out");
    let (before, hits_before) = timed(rounds);
    let (purges, ()) = timed(|| (0..PURGES).for_each(purge));
    let (first, hits_first) = timed(all);
    let (after, hits_after) = timed(rounds);
    let mut amid = Duration::ZERO;
    for n in 0..ROUNDS {
        purge(PURGES + n);
        let (took, hits) = timed(all);
        ensure!(hits, "a purge of other pages reaches none of these");
        amid += took;
    }
    ensure!(
        hits_before && hits_first && hits_after,
        "only what is named goes"
    );
    let each = |time: Duration, calls: usize| report::time(time.as_nanos() as f64 / calls as f64);
    Ok(vec![
        Row::new(
            "look-up of an L1 hit, 1,000 keys: before any purge",
            each(before, PAGES * ROUNDS),
            "",
        ),
        Row::new(
            "the same after 100,000 purges by prefix",
            each(after, PAGES * ROUNDS),
            "≤ 1.2 × before",
        ),
        Row::new("its first look-up after them", each(first, PAGES), ""),
        Row::new(
            "the same with a purge before each 1,000 hits",
            each(amid, PAGES * ROUNDS),
            "",
        ),
        Row::new("one of the purges", each(purges, PURGES), ""),
    ])
}

/// Ten thousand callers of one key that is not cached: the origin answers when all have asked.
/// Measured on one thread, as on each listener of the program, and on all cores.
pub fn herds() -> anyhow::Result<Vec<Row>> {
    let all = Builder::new_multi_thread().enable_all().build()?;
    Ok(vec![
        herd("one thread", &plugins::runtime()?)?,
        herd("all cores", &all)?,
    ])
}

fn herd(place: &str, runtime: &Runtime) -> anyhow::Result<Row> {
    let cache = entries::cache(64)?;
    let mut times = Vec::new();
    for round in 0..HERDS {
        let herd = Arc::new(Herd::new(Arc::clone(&cache), round));
        let (time, served) = timed(|| runtime.block_on(Arc::clone(&herd).run()));
        ensure!(
            served? == CALLERS * entries::BODY_BYTES,
            "everybody has the whole body"
        );
        ensure!(herd.loads.load(Ordering::SeqCst) == 1, "one load for all");
        times.push(time);
    }
    let what = format!("herd: 10,000 callers on one cold key, 1 load, {place}");
    Ok(Row::new(what, report::spread(times), "< 15 ms"))
}

/// Many callers of one key.
struct Herd {
    cache: Arc<Cache>,
    page: usize,
    key: KeyBuf,
    headers: HeaderMap,
    waiting: AtomicUsize,
    all_wait: Notify,
    loads: AtomicUsize,
}

impl Herd {
    fn new(cache: Arc<Cache>, page: usize) -> Self {
        Self {
            cache,
            page,
            key: entries::page_key(page),
            headers: entries::request_headers(),
            waiting: AtomicUsize::new(0),
            all_wait: Notify::new(),
            loads: AtomicUsize::new(0),
        }
    }

    /// Runs all callers, each in a task. Returns the bytes that they got.
    async fn run(self: Arc<Self>) -> anyhow::Result<usize> {
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(Arc::clone(&self).call());
        }
        let mut served = 0;
        while let Some(one) = callers.join_next().await {
            served += one??;
        }
        Ok(served)
    }

    async fn call(self: Arc<Self>) -> anyhow::Result<usize> {
        let found = self.cache.lookup(&self.key, &self.headers, Instant::now());
        let Lookup::Miss(key, _) = found else {
            anyhow::bail!("the key is cold");
        };
        let marks = || entries::marks(&self.key, self.page, "bench");
        let mut follower = match self.cache.lead_or_follow(&key, 0, marks) {
            LeadOrFollow::Follow(follower) => follower,
            LeadOrFollow::Lead(leader) => {
                let follower = leader.follow();
                tokio::spawn(Arc::clone(&self).load(leader));
                follower
            }
        };
        if self.waiting.fetch_add(1, Ordering::SeqCst) + 1 == CALLERS {
            self.all_wait.notify_one();
        }
        let FlightOutcome::Streaming(fill) = follower.outcome().await else {
            anyhow::bail!("the load streams");
        };
        let reader = fill.reader().context("the body from its start")?;
        Ok(reader.collect().await?.to_bytes().len())
    }

    /// Does the leader's work, as `proxy` does it.
    async fn load(self: Arc<Self>, leader: Leader) {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.all_wait.notified().await;
        let head = FillHead {
            key: leader.key().clone(),
            status: StatusCode::OK,
            headers: entries::response_headers(),
            own: http::HeaderMap::new(),
            length: Some(entries::BODY_BYTES as u64),
            freshness: entries::freshness(),
            knows: leader.born(),
            marks: leader.marks().clone(),
            vary: Vary::None,
        };
        let fill = Fill::new(head, self.cache.rules().max_object_bytes, None);
        leader.stream(Arc::clone(&fill));
        fill.push(entries::body());
        if let Some(body) = fill.complete(None) {
            self.store(&leader, &fill, body);
        }
    }

    fn store(&self, leader: &Leader, fill: &Fill, body: StoredBody) {
        let entry = Entry::new(
            fill.head.key.clone(),
            fill.head.status,
            fill.head.headers.clone(),
            body,
            fill.head.freshness,
            fill.head.marks.clone(),
            leader.born(),
        );
        self.cache
            .admit(self.key.to_key(), &fill.head.vary, Arc::new(entry));
    }
}

fn tag(i: usize) -> String {
    format!("group-{}", i % GROUPS)
}

fn is_hit(cache: &Cache, key: &KeyBuf, headers: &HeaderMap) -> bool {
    matches!(cache.lookup(key, headers, Instant::now()), Lookup::Fresh(_))
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

fn resident_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.context("VmRSS in /proc/self/status")?
        .parse()
        .context("VmRSS is a number")
}

/// User and system time of this process. A tick in /proc is 10 ms.
fn cpu() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').context("/proc/self/stat")?;
    // utime and stime, fields 14 and 15 of proc(5); `rest` begins with field 3.
    let ticks = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>().context("ticks")?;
    Ok(Duration::from_millis(10 * ticks))
}
