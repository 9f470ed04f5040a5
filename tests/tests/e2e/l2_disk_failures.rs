//! A second tier on a disk that becomes read-only while it runs, whose file is one of a backup, or
//! that is full again and again: what is told, what goes on, and for how long.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::fleet::{Pages, state};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::small_disk::SmallDisk;
use e2e::wait::{SOON, wait_for};
use http::Method;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

/// What docs/faults.md states: from room on the disk until the node says that it serves.
const STATED: Duration = Duration::from_secs(1);

async fn origin(pages: &Pages) -> Origin {
    let pages = pages.clone();
    Origin::pages(move |seen| {
        let version = pages.version(seen.path_only());
        Reply::ok(format!("{version:<60000}"))
            .header("cache-control", "max-age=3600")
            .header("surrogate-key", seen.path_only())
    })
    .await
}

fn setup(origin: &Origin, file: &Path) -> Setup {
    let l2 = format!(
        "{{l2: {{disk: {{path: \"{}\", max_bytes: 8MiB}}, read_timeout: 10s, write_timeout: 10s}}}}",
        file.display()
    );
    Setup::new(origin).top("cache", &l2)
}

async fn page(node: &Gateway, path: &str) -> (String, bool) {
    let asked = node.client().request(path).host("site.example");
    let answer = asked.send().await;
    (answer.text().trim_end().to_owned(), answer.is_hit())
}

async fn says(node: &Gateway, wanted: &str) {
    wait_for(&format!("the node says {wanted}"), SOON, || async {
        (state(node).await == wanted).then_some(())
    })
    .await;
}

async fn purge(node: &Gateway, tag: &str) -> Value {
    let body = json!({ "tag": tag }).to_string();
    let answer = node.admin(Method::POST, "/v1/purge", &body).await;
    serde_json::from_str(&answer.text).unwrap()
}

/// Waits until so many pages are in the file, and makes them durable.
async fn stored(node: &Gateway, count: f64) {
    let labels = [("outcome", "stored")];
    node.metric_until("lamina_l2_writes_total", &labels, |n| n >= count)
        .await;
    let receipt = purge(node, "nothing").await;
    assert_eq!(receipt["l2"]["logged"], true, "{receipt}");
}

/// The file and what lies beside it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_file()).collect()
}

fn copied(from: &Path, to: &Path) {
    for file in files(from) {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

fn errors(node: &Gateway) -> usize {
    let is_error = |line: &&String| line.contains("ERROR");
    node.log().iter().filter(is_error).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_becomes_read_only_serves_on_and_its_one_error_says_what_to_do() {
    let Some(disk) = SmallDisk::mount_ext4(32) else {
        return;
    };
    let file = disk.path().join("l2");
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let mut node = setup(&origin, &file).start().await;
    for path in ["/kept", "/purged"] {
        page(&node, path).await;
    }
    stored(&node, 2.0).await;

    disk.fail();
    for version in ["2", "3"] {
        pages.change("/purged");
        let receipt = purge(&node, "/purged").await;
        assert_eq!(receipt["l2"]["logged"], false, "{receipt}");
        assert_eq!(page(&node, "/purged").await.0, version);
    }
    says(&node, "degraded").await;
    let told = node.admin(Method::GET, "/readyz", "").await.text;
    assert!(told.contains("Read-only file system"), "{told}");
    assert!(
        told.contains("check the disk of cache.l2.disk.path"),
        "{told}"
    );
    let told = node
        .logged("what to do", |line| line.contains("remove the file"))
        .await;
    assert!(told.contains("ERROR"), "{told}");
    assert_eq!(errors(&node), 1, "{:?}", node.log());
    assert_eq!(page(&node, "/kept").await, ("1".to_owned(), true));

    node.kill();
    node.ended(SOON).await;
    disk.mount_again();
    std::fs::remove_file(&file).unwrap();
    let node = setup(&origin, &file).start().await;
    assert_eq!(page(&node, "/purged").await.0, "3");
    stored(&node, 1.0).await;
}

/// As a machine that comes back without anybody having read the error: the file may be believed,
/// which is why the error says what it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_can_be_written_again_takes_what_it_lacked_if_the_process_lives() {
    let Some(disk) = SmallDisk::mount_ext4(32) else {
        return;
    };
    let folder = disk.path().join("l2");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("file");
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let mut node = setup(&origin, &file).start().await;
    page(&node, "/purged").await;
    stored(&node, 1.0).await;
    disk.seal(&folder);
    pages.change("/purged");
    let receipt = purge(&node, "/purged").await;
    assert_eq!(receipt["l2"]["logged"], false, "{receipt}");
    says(&node, "degraded").await;
    disk.unseal(&folder);
    says(&node, "serving").await;
    node.metric_until("lamina_l2_purges_waiting", &[], |n| n == 0.0)
        .await;
    node.kill();
    node.ended(SOON).await;
    let node = setup(&origin, &file).start().await;
    assert_eq!(page(&node, "/purged").await.0, "2");
}

/// The file knows the purges up to the backup alone, and nothing tells it that there were more.
/// So it is to be deleted instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_a_backup_is_as_old_as_the_backup_and_holds_the_purges_before_it() {
    let (disk, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = disk.path().join("l2");
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let mut node = setup(&origin, &file).start().await;
    for path in ["/before", "/after", "/kept"] {
        page(&node, path).await;
    }
    stored(&node, 3.0).await;
    pages.change("/before");
    purge(&node, "/before").await;
    node.kill();
    node.ended(SOON).await;
    copied(disk.path(), backup.path());

    let mut node = setup(&origin, &file).start().await;
    assert_eq!(page(&node, "/after").await, ("1".to_owned(), true));
    pages.change("/after");
    purge(&node, "/after").await;
    node.kill();
    node.ended(SOON).await;
    for old in files(disk.path()) {
        std::fs::remove_file(old).unwrap();
    }
    copied(backup.path(), disk.path());

    let mut node = setup(&origin, &file).start().await;
    assert_eq!(page(&node, "/before").await.0, "2", "purged before");
    assert_eq!(page(&node, "/kept").await, ("1".to_owned(), true));
    // What the documents warn of.
    assert_eq!(page(&node, "/after").await, ("1".to_owned(), true));
    node.kill();
    node.ended(SOON).await;
    // What they advise.
    std::fs::remove_file(&file).unwrap();
    let node = setup(&origin, &file).start().await;
    assert_eq!(page(&node, "/after").await.0, "2");
}

/// Outages one after another, as of a disk on which something else comes and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_again_and_again_is_written_to_within_a_second_of_its_room() {
    const TIMES: usize = 5;
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let file = disk.path().join("l2");
    let origin = origin(&Pages::default()).await;
    let node = setup(&origin, &file).start().await;
    let mut times = Vec::new();
    for turn in 0..TIMES {
        // It works for a while in between.
        let works = Instant::now();
        e2e::wait::passed(works, STATED).await;
        disk.fill();
        let mut loaded = 0;
        wait_for("the disk takes no more", SOON, || {
            loaded += 1;
            let path = format!("/filling/{turn}/{loaded}");
            let node = &node;
            async move {
                page(node, &path).await;
                (state(node).await == "degraded").then_some(())
            }
        })
        .await;
        disk.make_room();
        let room = Instant::now();
        says(&node, "serving").await;
        times.push(room.elapsed());
    }
    times.sort();
    eprintln!("serving after {times:?}");
    assert!(times[TIMES / 2] <= STATED, "{times:?}");
}

/// `ulimit -f`, `LimitFSIZE=`: the kernel ends who does not expect it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_the_size_of_files_is_a_full_disk_and_not_the_end() {
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let folder = tempfile::tempdir().unwrap();
    let node = setup(&origin, &folder.path().join("l2")).start().await;
    page(&node, "/p").await;
    stored(&node, 1.0).await;
    let unlimited = limit_files(&node, Some(1 << 20));
    let mut loaded = 0;
    wait_for("the file may not grow", SOON, || {
        loaded += 1;
        let (node, path) = (&node, format!("/filling/{loaded}"));
        async move {
            page(node, &path).await;
            (state(node).await == "degraded").then_some(())
        }
    })
    .await;
    assert_eq!(page(&node, "/p").await.0, "1");
    limit_files(&node, unlimited);
    says(&node, "serving").await;
}

/// Sets how large files of a running gateway may become. Returns how large they might be before.
fn limit_files(node: &Gateway, most: Option<u64>) -> Option<u64> {
    let id = i32::try_from(node.process_id())
        .ok()
        .and_then(Pid::from_raw);
    let limit = Rlimit {
        current: most,
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    prlimit(id, Resource::Fsize, limit).unwrap().current
}
