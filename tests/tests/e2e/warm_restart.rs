//! What a restart begins with (WR1): the hottest keys come back before the gateway is ready, from a
//! snapshot, from the second tier or from the origins, and whatever is wrong with the file harms
//! nobody.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::client::Answer;
use e2e::fleet::Pages;
use e2e::free_port::free_port;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, wait_until};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::l2::{PATIENCE, redis_at, written};
use crate::service_manager::managed;

/// A folder that outlives gateways, with the file of hot keys.
pub struct Kept(tempfile::TempDir);

impl Kept {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn file(&self) -> PathBuf {
        self.0.path().join("lamina.hot")
    }

    /// The section `cache`, with further keys of `warm` and of `cache`.
    pub fn cache(&self, warm: &str, more: &str) -> String {
        let file = self.file();
        format!(
            "{{inflight: {{wait_timeout: 10m}}, warm: {{file: \"{}\", for: 1m{warm}}}{more}}}",
            file.display()
        )
    }

    /// A second tier in the same folder.
    pub fn disk(&self) -> String {
        let path = self.0.path().join("l2");
        format!(
            ", l2: {{disk: {{path: \"{}\"}}, {PATIENCE}}}",
            path.display()
        )
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }
}

pub const SNAPSHOT: &str = ", snapshot: 64MiB";

pub async fn ask(gateway: &Gateway, path: &str) -> Answer {
    let request = gateway.client().request(path).host("site.example");
    request.send().await
}

pub async fn stop(mut gateway: Gateway) {
    gateway.terminate();
    let limit = SOON * 2;
    assert!(gateway.ended(limit).await.success());
}

/// How many hot keys came to this.
pub async fn counted(gateway: &Gateway, source: &str, outcome: &str) -> f64 {
    let labels = [("source", source), ("outcome", outcome)];
    gateway.metric("lamina_warm_entries_total", &labels).await
}

/// Asks for pages `/p/0` to `/p/n`, all of which must be answered.
async fn ask_all(gateway: &Gateway, n: usize) -> Vec<Answer> {
    let asked = (0..n).map(|n| async move { ask(gateway, &format!("/p/{n}")).await });
    let answers = join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    answers
}

fn warnings(gateway: &Gateway, of: &str) -> Vec<String> {
    let log = gateway.log().into_iter();
    let warned = log.filter(|line| line.contains("\"WARN\"") && line.contains(of));
    warned.collect()
}

#[tokio::test]
async fn a_snapshot_brings_everything_back_without_a_second_tier() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let setup = Setup::new(&origin).top("cache", &kept.cache(SNAPSHOT, ""));
    let first = setup.start().await;
    ask_all(&first, 30).await;
    stop(first).await;
    let mode = std::fs::metadata(kept.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    origin.forget();
    let again = setup.start().await;
    assert_eq!(counted(&again, "snapshot", "restored").await, 30.0);
    for answer in ask_all(&again, 30).await {
        assert!(answer.is_hit(), "{:?}", answer.headers);
        assert!(answer.age().is_some());
    }
    assert_eq!(origin.count(), 0);
    again
        .logged("the warm-up is over", |line| {
            line.contains("the warm-up is over") && line.contains("\"restored\":30")
        })
        .await;
    assert!(again.metric("lamina_warm_seconds", &[]).await > 0.0);
    let ready = again.admin(Method::GET, "/readyz", "").await;
    assert!(ready.text.contains("\"serving\""), "{}", ready.text);
    stop(again).await;
}

#[tokio::test]
async fn each_variant_comes_back_for_those_who_get_it() {
    let kept = Kept::new();
    let origin = Origin::pages(|seen| {
        Reply::fresh(seen.header("accept-language").to_owned()).header("vary", "accept-language")
    })
    .await;
    let setup = Setup::new(&origin).top("cache", &kept.cache(SNAPSHOT, ""));
    let in_language = |gateway: &Gateway, language: &'static str| {
        let request = gateway.client().request("/").host("site.example");
        request.header("accept-language", language).send()
    };
    let first = setup.start().await;
    for language in ["de", "fr", "el"] {
        in_language(&first, language).await;
    }
    stop(first).await;
    let again = setup.start().await;
    for language in ["fr", "el", "de"] {
        let answer = in_language(&again, language).await;
        assert!(answer.is_hit(), "{language}: {:?}", answer.headers);
        assert_eq!(answer.text(), language);
    }
    assert!(!in_language(&again, "sv").await.is_hit());
    stop(again).await;
}

/// With many more hits than a sample needs: which hit is in the sample is chance.
#[tokio::test]
async fn where_not_all_have_room_the_hottest_come_back() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let setup = Setup::new(&origin)
        .top("cache", &kept.cache(&format!("{SNAPSHOT}, keys: 5"), ""))
        .top(
            "telemetry",
            "{log_format: json, recent_requests: {one_hit_in: 1}}",
        );
    let first = setup.start().await;
    // The hot ones are the oldest.
    for _ in 0..4 {
        ask_all(&first, 5).await;
    }
    for n in 5..40 {
        ask(&first, &format!("/p/{n}")).await;
    }
    stop(first).await;
    let again = setup.start().await;
    assert_eq!(counted(&again, "snapshot", "restored").await, 5.0);
    let answers = ask_all(&again, 10).await;
    let hits: Vec<bool> = answers.iter().map(Answer::is_hit).collect();
    assert_eq!(hits, [[true; 5], [false; 5]].concat());
    stop(again).await;
}

#[tokio::test]
async fn from_redis_they_come_before_anybody_asks() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let (origin, mut redis) = (pages.origin().await, Redis::start().await);
    let l2 = format!(", l2: {}", redis_at(&redis.url()));
    let setup = Setup::new(&origin).top("cache", &kept.cache("", &l2));
    let first = setup.start().await;
    crate::l2::reads_below(&first).await;
    ask_all(&first, 20).await;
    written(&first, 20.0).await;
    stop(first).await;
    let again = setup.start().await;
    assert_eq!(counted(&again, "l2", "restored").await, 20.0);
    redis.kill();
    origin.forget();
    let answers = ask_all(&again, 20).await;
    assert!(answers.iter().all(Answer::is_hit));
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn from_a_disk_they_come_back_after_a_crash_too() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let setup = Setup::new(&origin).top("cache", &kept.cache(", every: 1s", &kept.disk()));
    let mut first = setup.start().await;
    crate::l2::reads_below(&first).await;
    ask_all(&first, 20).await;
    written(&first, 20.0).await;
    let labels = [("outcome", "written")];
    let name = "lamina_warm_files_total";
    // One write may have begun before the last page.
    let before = first.metric(name, &labels).await;
    first
        .metric_until(name, &labels, |count| count >= before + 2.0)
        .await;
    // Records are durable a second later.
    wait_for("a further write", SOON, || async {
        (first.metric(name, &labels).await >= before + 4.0).then_some(())
    })
    .await;
    first.kill();
    first.ended(SOON).await;
    let again = setup.start().await;
    assert_eq!(counted(&again, "l2", "restored").await, 20.0);
    origin.forget();
    assert!(ask_all(&again, 20).await.iter().all(Answer::is_hit));
    assert_eq!(origin.count(), 0);
    stop(again).await;
}

/// From the origins only where that is wanted.
#[tokio::test]
async fn what_is_stored_nowhere_is_loaded_from_origins_where_that_is_wanted() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let setup = |more: &str| Setup::new(&origin).top("cache", &kept.cache(more, ""));
    let first = setup("").start().await;
    ask_all(&first, 12).await;
    stop(first).await;
    origin.forget();
    let without = setup("").start().await;
    assert_eq!(origin.count(), 0, "nobody asked for it");
    stop(without).await;
    // Nothing was asked for, so the file has no keys any more.
    let third = setup("").start().await;
    ask_all(&third, 12).await;
    stop(third).await;
    origin.forget();
    let with = setup(", origins: true, origin_rate: 20").start().await;
    assert_eq!(counted(&with, "origin", "restored").await, 12.0);
    assert_eq!(origin.count(), 12);
    assert!(ask_all(&with, 12).await.iter().all(Answer::is_hit));
    assert_eq!(origin.count(), 12);
    stop(with).await;
}

/// A rate of one in a second, and two seconds: two or three of twelve.
#[tokio::test]
async fn the_start_waits_for_the_origins_no_longer_than_it_says() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let cache = kept.cache("", "");
    let first = Setup::new(&origin).top("cache", &cache).start().await;
    ask_all(&first, 12).await;
    stop(first).await;
    let cache = cache.replace("for: 1m", "for: 2s, origins: true, origin_rate: 1");
    let again = Setup::new(&origin).top("cache", &cache).start().await;
    let loaded = counted(&again, "origin", "restored").await;
    let left = counted(&again, "origin", "not-reached").await;
    assert!(
        (1.0..=3.0).contains(&loaded) && loaded + left == 12.0,
        "{loaded} loaded, {left} left"
    );
    stop(again).await;
}

/// While Redis stands still: who comes is served, and nobody says that it is ready.
#[tokio::test]
async fn it_is_not_ready_before_the_warm_up_is_over() {
    let (kept, redis) = (Kept::new(), Redis::start().await);
    let (_dir, mut manager, origin, setup) = managed(&[]).await;
    let l2 = format!(", l2: {}", redis_at(&redis.url()));
    let admin = format!("127.0.0.1:{}", free_port());
    let setup = setup
        .top("cache", &kept.cache("", &l2))
        .top("admin", &format!("{{address: \"{admin}\"}}"));
    let first = setup.start().await;
    crate::l2::reads_below(&first).await;
    ask_all(&first, 5).await;
    written(&first, 5.0).await;
    stop(first).await;
    manager.forget();
    redis.freeze();
    let starting = setup.start();
    let looking = async {
        let warming = manager.hears("EXTEND_TIMEOUT_USEC=").await;
        assert!(warming.contains("STATUS=Warming up"), "{warming}");
        let client = e2e::client::Client::http1(admin.parse().unwrap());
        let ready = client.uncached().get("/readyz").await;
        assert_eq!(ready.status, 503);
        assert_eq!(ready.json()["state"], json!("warming"));
        assert_eq!(ready.json()["ready"], json!(false));
        assert!(!manager.order().contains(&"READY=1".to_owned()));
        redis.thaw();
    };
    let (again, ()) = tokio::join!(starting, looking);
    manager.hears("READY=1").await;
    assert_eq!(counted(&again, "l2", "restored").await, 5.0);
    origin.forget();
    assert!(ask_all(&again, 5).await.iter().all(Answer::is_hit));
    stop(again).await;
}

#[tokio::test]
async fn a_second_tier_that_stands_still_delays_the_start_no_longer_than_it_says() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let (origin, redis) = (pages.origin().await, Redis::start().await);
    let l2 = format!(", l2: {{redis: {{url: \"{}\"}}}}", redis.url());
    let cache = kept.cache("", &l2).replace("for: 1m", "for: 1s");
    let setup = Setup::new(&origin).top("cache", &cache);
    let first = setup.start().await;
    ask_all(&first, 5).await;
    stop(first).await;
    redis.freeze();
    let again = setup.start().await;
    assert_eq!(counted(&again, "l2", "failed").await, 5.0);
    assert_eq!(ask_all(&again, 5).await.len(), 5);
    redis.thaw();
    stop(again).await;
}

/// Each in one warning, and the gateway starts as without the file.
#[tokio::test]
async fn a_file_that_can_not_be_used_is_told_of_and_ignored() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let key = |secret: &str| format!(", l2: {{seal_key: \"{secret}\"}}");
    let sealed = |secret| Setup::new(&origin).top("cache", &kept.cache(SNAPSHOT, &key(secret)));
    let setup = sealed("a secret of this node");
    let first = setup.start().await;
    ask_all(&first, 10).await;
    stop(first).await;
    let whole = std::fs::read(kept.file()).unwrap();
    let changed = |at: usize, to: u8| {
        let mut bytes = whole.clone();
        bytes[at] = to;
        bytes
    };
    let forged = {
        let other = sealed("a secret of somebody").start().await;
        ask_all(&other, 10).await;
        stop(other).await;
        std::fs::read(kept.file()).unwrap()
    };
    let (half, end) = (whole[..whole.len() / 2].to_vec(), whole.len() - 8);
    for (what, bytes) in [
        ("its version is 0", changed(7, 0)),
        ("its version is 9", changed(7, 9)),
        ("it is truncated", half),
        ("its seal is not valid", changed(end, whole[end] ^ 1)),
        ("its seal is not valid", forged),
    ] {
        std::fs::write(kept.file(), bytes).unwrap();
        let again = setup.start().await;
        let told = warnings(&again, "cache.warm.file");
        assert_eq!(told.len(), 1, "{what}: {told:?}");
        assert!(told[0].contains(what), "{what}: {told:?}");
        assert_eq!(counted(&again, "snapshot", "restored").await, 0.0, "{what}");
        assert_eq!(ask(&again, "/p/0").await.status, 200);
        stop(again).await;
    }
    // A file of something else is not replaced either.
    std::fs::write(kept.file(), "not to be lost").unwrap();
    let again = setup.start().await;
    assert_eq!(warnings(&again, "it is not a file of hot keys").len(), 1);
    ask(&again, "/p/0").await;
    stop(again).await;
    let there = std::fs::read_to_string(kept.file()).unwrap();
    assert_eq!(there, "not to be lost");
}

/// One of ten: the others come back.
#[tokio::test]
async fn a_damaged_record_is_left_out() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let setup = Setup::new(&origin).top("cache", &kept.cache(SNAPSHOT, ""));
    let first = setup.start().await;
    ask_all(&first, 10).await;
    stop(first).await;
    let mut bytes = std::fs::read(kept.file()).unwrap();
    bytes[200] ^= 1;
    std::fs::write(kept.file(), bytes).unwrap();
    let again = setup.start().await;
    assert_eq!(counted(&again, "snapshot", "damaged").await, 1.0);
    assert_eq!(counted(&again, "snapshot", "restored").await, 9.0);
    assert_eq!(warnings(&again, "records in cache.warm.file").len(), 1);
    assert!(
        ask_all(&again, 10)
            .await
            .iter()
            .all(|page| page.text() == "1")
    );
    stop(again).await;
}

/// The disk that gives no room is a folder that is gone.
#[tokio::test]
async fn where_nothing_can_be_written_the_drain_ends_as_ever() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let cache = kept.cache(SNAPSHOT, "");
    let cache = cache.replace("lamina.hot", "gone/lamina.hot");
    let gateway = Setup::new(&origin).top("cache", &cache).start().await;
    assert_eq!(
        warnings(&gateway, "cache.warm.file can't be written").len(),
        1
    );
    ask_all(&gateway, 3).await;
    gateway.terminate();
    gateway
        .logged("it is told", |line| {
            line.contains("cache.warm.file was not written")
        })
        .await;
    stop(gateway).await;
    assert_eq!(std::fs::read_dir(kept.folder()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_largest_ones_are_left_out_where_the_snapshot_has_no_room() {
    let kept = Kept::new();
    let origin = Origin::pages(|seen| match seen.path.as_str() {
        "/large" => Reply::fresh("x".repeat(200 << 10)),
        _ => Reply::fresh("small"),
    })
    .await;
    let setup = Setup::new(&origin).top("cache", &kept.cache(", snapshot: 100KiB", ""));
    let first = setup.start().await;
    ask(&first, "/large").await;
    ask(&first, "/small").await;
    stop(first).await;
    assert!(std::fs::metadata(kept.file()).unwrap().len() < 110 << 10);
    let again = setup.start().await;
    assert!(ask(&again, "/small").await.is_hit());
    assert!(!ask(&again, "/large").await.is_hit());
    stop(again).await;
}

/// Switched on, moved and switched off while the gateway runs.
#[tokio::test]
async fn it_follows_another_configuration() {
    let (kept, other, pages) = (Kept::new(), Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let plain = Setup::new(&origin);
    let gateway = plain.start().await;
    ask_all(&gateway, 4).await;
    let take_up = async |setup: &Setup| {
        setup.write_into(gateway.dir());
        let answer = gateway.admin(Method::POST, "/v1/config/reload", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        serde_json::from_str::<Value>(&answer.text).unwrap()
    };
    let warm = |kept: &Kept| plain.clone().top("cache", &kept.cache(SNAPSHOT, ""));
    take_up(&warm(&kept)).await;
    assert!(kept.file().exists());
    take_up(&warm(&other)).await;
    stop(gateway).await;
    let files = [&kept, &other].map(|kept| std::fs::metadata(kept.file()).unwrap().len());
    assert!(files[0] < 100 && files[1] > 1_000, "{files:?}");
    let again = warm(&other).start().await;
    assert!(ask_all(&again, 4).await.iter().all(Answer::is_hit));
    stop(again).await;
}

/// As a process does that takes over the listeners of another one: the file is that of the new one.
#[tokio::test]
async fn a_process_that_ends_does_not_write_into_the_file_of_its_successor() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let setup = Setup::new(&origin).top("cache", &kept.cache(SNAPSHOT, ""));
    let old = setup.start().await;
    ask_all(&old, 3).await;
    let new = setup.start().await;
    old.terminate();
    old.logged("it is told", |line| {
        line.contains("belongs to a later process")
    })
    .await;
    stop(old).await;
    ask(&new, "/p/7").await;
    stop(new).await;
    let again = setup.start().await;
    assert!(ask(&again, "/p/7").await.is_hit());
    assert!(!ask(&again, "/p/1").await.is_hit());
    stop(again).await;
}

/// What share of so many requests is answered from the cache, where few pages get most of them.
pub async fn hit_ratio(gateway: &Gateway, requests: usize, seed: u64) -> f64 {
    let mut random = e2e::random::Random::new(seed);
    let mut hits = 0;
    let client = gateway.client();
    for _ in 0..requests {
        // The square of an even distribution: half of the requests are for a quarter of the pages.
        let even = random.below(1_000) as f64 / 1_000.0;
        let page = (even * even * 600.0) as usize;
        let request = client.request(&format!("/p/{page}")).host("site.example");
        hits += usize::from(request.send().await.is_hit());
    }
    hits as f64 / requests as f64
}

/// The ratio right after a restart is at least 95 % of that before, with and without a second tier.
#[tokio::test]
async fn the_hit_ratio_after_a_restart_is_that_of_before() {
    let redis = Redis::start().await;
    let l2 = format!(", l2: {}", redis_at(&redis.url()));
    for way in [
        "nothing",
        "a snapshot",
        "redis",
        "redis and a snapshot",
        "a disk",
        "a disk and a snapshot",
    ] {
        let (kept, pages) = (Kept::new(), Pages::default());
        let origin = pages.origin().await;
        let (warm, more) = match way {
            // For comparison: keys alone.
            "nothing" => ("", String::new()),
            "a snapshot" => (SNAPSHOT, String::new()),
            "redis" => ("", l2.clone()),
            "redis and a snapshot" => (SNAPSHOT, l2.clone()),
            "a disk" => ("", kept.disk()),
            _ => (SNAPSHOT, kept.disk()),
        };
        let setup = Setup::new(&origin).top("cache", &kept.cache(warm, &more));
        let first = setup.start().await;
        hit_ratio(&first, 2_000, 1).await;
        let before = hit_ratio(&first, 1_000, 2).await;
        stop(first).await;
        let again = setup.start().await;
        let (began, after) = (Instant::now(), hit_ratio(&again, 1_000, 3).await);
        let took = began.elapsed();
        println!("hit ratio by {way}: {before:.3} before, {after:.3} right after, in {took:?}");
        let as_before = after >= 0.95 * before;
        assert_eq!(
            as_before,
            way != "nothing",
            "{way}: {before} before, {after} after"
        );
        stop(again).await;
    }
}

#[tokio::test]
async fn values_that_can_not_work_are_refused() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    for (warm, told) in [
        (
            "{keys: 0}",
            "cache.warm.keys: 0 keys; expected 1 to 1000000",
        ),
        ("{for: 1h}", "cache.warm.for: 1h is too long"),
        ("{every: 10ms}", "cache.warm.every: 10ms is too often"),
        (
            "{snapshot: 0B}",
            "cache.warm.snapshot: 0 would hold nothing",
        ),
        (
            "{origin_rate: 0}",
            "cache.warm.origin_rate: 0 would allow nothing",
        ),
        ("{file: \"\"}", "cache.warm.file: no name of a file"),
    ] {
        let setup = Setup::new(&origin).top("cache", &format!("{{warm: {warm}}}"));
        let (dir, config) = setup.write();
        let refused = Gateway::try_start(dir, &config, &[]).await.err().unwrap();
        assert!(refused.log.contains(told), "{warm}: {}", refused.log);
    }
}

/// How long a drain may wait is known: a disk that hangs does not delay it.
#[tokio::test]
async fn a_pipe_in_place_of_the_file_hangs_nobody() {
    let (kept, pages) = (Kept::new(), Pages::default());
    let origin = pages.origin().await;
    let made = std::process::Command::new("mkfifo")
        .arg(kept.file())
        .status();
    assert!(made.unwrap().success());
    let setup = Setup::new(&origin).top("cache", &kept.cache(SNAPSHOT, ""));
    let gateway = setup.start().await;
    assert_eq!(warnings(&gateway, "it is not a file of hot keys").len(), 1);
    stop(gateway).await;
    wait_until("nothing else is left", Duration::from_secs(1), || {
        std::fs::read_dir(kept.folder()).unwrap().count() == 1
    })
    .await;
}
