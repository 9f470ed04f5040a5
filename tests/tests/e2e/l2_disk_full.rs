//! A second tier on a disk that fills up, has room again, can't be written, or holds a file of
//! somebody else: what is told, what goes on, and that nothing purged comes back.

use e2e::cli::run;
use e2e::fleet::{Pages, state};
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::small_disk::SmallDisk;
use e2e::wait::{SOON, wait_for};
use http::Method;
use serde_json::{Value, json};

/// Pages so large that a few fill what the file has to spare.
async fn origin(pages: &Pages) -> Origin {
    let pages = pages.clone();
    Origin::pages(move |seen| {
        let version = pages.version(seen.path_only());
        let body = format!("{version:<60000}");
        Reply::ok(body)
            .header("cache-control", "max-age=3600")
            .header("surrogate-key", seen.path_only())
    })
    .await
}

fn setup(origin: &Origin, disk: &SmallDisk) -> Setup {
    let path = disk.path().join("l2");
    let l2 = format!(
        "{{l2: {{disk: {{path: \"{}\", max_bytes: 8MiB}}, read_timeout: 10s, write_timeout: 10s}}}}",
        path.display()
    );
    Setup::new(origin).top("cache", &l2)
}

async fn page(node: &Gateway, path: &str) -> (String, bool) {
    let answer = node
        .client()
        .request(path)
        .host("site.example")
        .send()
        .await;
    (answer.text().trim_end().to_owned(), answer.is_hit())
}

async fn says(node: &Gateway, wanted: &str) {
    wait_for(&format!("the node says {wanted}"), SOON, || async {
        (state(node).await == wanted).then_some(())
    })
    .await;
}

async fn purge(node: &Gateway, path: &str) -> Value {
    let body = json!({ "tag": path }).to_string();
    let answer = node.admin(Method::POST, "/v1/purge", &body).await;
    serde_json::from_str(&answer.text).unwrap()
}

/// What was written before survives.
async fn sync(node: &Gateway) {
    let receipt = purge(node, "nothing").await;
    assert_eq!(receipt["l2"]["logged"], true, "{receipt}");
}

async fn stored(node: &Gateway, at_least: f64) {
    let labels = [("outcome", "stored")];
    node.metric_until("lamina_l2_writes_total", &labels, |n| n >= at_least)
        .await;
}

/// Loads pages until the disk takes no more, and says how many.
async fn overfill(node: &Gateway, disk: &SmallDisk) -> usize {
    disk.fill();
    let mut loaded = 0;
    wait_for("the disk takes no more", SOON, || {
        loaded += 1;
        let path = format!("/filling/{loaded}");
        async move {
            page(node, &path).await;
            (state(node).await == "degraded").then_some(())
        }
    })
    .await;
    loaded
}

fn lines(node: &Gateway, words: &str) -> usize {
    node.log()
        .iter()
        .filter(|line| line.contains(words))
        .count()
}

async fn readiness(node: &Gateway) -> Value {
    let answer = node.admin(Method::GET, "/readyz", "").await;
    serde_json::from_str(&answer.text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_written_to_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let mut node = setup(&origin, &disk).start().await;
    page(&node, "/kept").await;
    page(&node, "/purged").await;
    stored(&node, 2.0).await;
    sync(&node).await;

    assert!(overfill(&node, &disk).await > 0);
    let said = readiness(&node).await;
    let why = said["l2"]["reason"].as_str().unwrap();
    assert!(why.contains("No space left on device"), "{said}");
    assert!(why.contains("make room on the disk"), "{said}");
    node.metric_until("lamina_l2_degraded", &[], |n| n == 1.0)
        .await;
    let read = [("operation", "get"), ("outcome", "ok")];
    let reads = node.metric("lamina_l2_calls_total", &read).await;
    page(&node, "/new").await;
    node.metric_until("lamina_l2_calls_total", &read, |n| n > reads)
        .await;
    pages.change("/purged");
    let receipt = purge(&node, "/purged").await;
    assert_eq!(receipt["l2"]["logged"], false, "{receipt}");
    assert_eq!(page(&node, "/purged").await.0, "2");

    disk.make_room();
    says(&node, "serving").await;
    node.metric_until("lamina_l2_purges_waiting", &[], |n| n == 0.0)
        .await;
    node.logged("that it is over", |line| {
        line.contains("the second tier accepts writes again") && line.contains("seconds")
    })
    .await;
    assert_eq!(lines(&node, "the second tier accepts no writes"), 1);
    assert_eq!(lines(&node, "accepts no purges"), 0, "it is one state");
    assert_eq!(lines(&node, "has ended"), 0, "the thread lives");
    let labels = [("outcome", "stored")];
    let before = node.metric("lamina_l2_writes_total", &labels).await;
    page(&node, "/later").await;
    stored(&node, before + 1.0).await;
    sync(&node).await;

    node.kill();
    node.ended(SOON).await;
    let node = setup(&origin, &disk).start().await;
    assert_eq!(page(&node, "/purged").await.0, "2");
    for path in ["/kept", "/later"] {
        assert_eq!(page(&node, path).await, ("1".to_owned(), true), "{path}");
    }
}

/// A command of the program, with its arguments; what it exits with, and all that it says.
async fn says_by_command(arguments: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<_> = arguments.iter().map(|&one| one.to_owned()).collect();
    let ran = tokio::task::spawn_blocking(move || {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        run(&arguments)
    });
    let ran = ran.await.unwrap();
    (ran.code, ran.output())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_tells_what_to_do_about_a_full_disk() {
    const ADVICE: &str = "make room on the disk";
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let origin = origin(&Pages::default()).await;
    let setup = setup(&origin, &disk);
    let node = setup.start().await;
    let admin = node.admin.to_string();
    let (code, said) = says_by_command(&["nodes", "--admin", &admin]).await;
    assert!(said.contains("disk: serving"), "{said}");
    assert_eq!(code, Some(0), "{said}");
    overfill(&node, &disk).await;
    let (_, said) = says_by_command(&["nodes", "--admin", &admin]).await;
    let told = said.contains("no event bus") && said.contains("disk: degraded");
    assert!(told && said.contains(ADVICE), "{said}");
    let (code, said) = says_by_command(&["purge", "--tag", "x", "--admin", &admin]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(ADVICE), "{said}");
    let (_dir, file) = setup.write();
    let (code, said) = says_by_command(&["doctor", "-c", file.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("`lamina nodes` says how"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_while_the_disk_was_full_does_not_come_back_after_a_crash() {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let pages = Pages::default();
    let origin = origin(&pages).await;
    let mut node = setup(&origin, &disk).start().await;
    page(&node, "/purged").await;
    stored(&node, 1.0).await;
    sync(&node).await;
    overfill(&node, &disk).await;
    pages.change("/purged");
    let receipt = purge(&node, "/purged").await;
    assert_eq!(receipt["l2"]["logged"], false, "{receipt}");
    node.kill();
    node.ended(SOON).await;

    let node = setup(&origin, &disk).start().await;
    node.logged("that the file is not believed", |line| {
        line.contains("purges could not be written") && line.contains("WARN")
    })
    .await;
    assert_eq!(page(&node, "/purged").await.0, "2");
    // What was removed is the room for a new file.
    says(&node, "serving").await;
    stored(&node, 1.0).await;
}

/// Nothing was purged: what is in the file is believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_the_disk_is_full_costs_nothing_where_nothing_was_purged() {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let origin = origin(&Pages::default()).await;
    let mut node = setup(&origin, &disk).start().await;
    page(&node, "/kept").await;
    stored(&node, 1.0).await;
    sync(&node).await;
    overfill(&node, &disk).await;
    node.kill();
    node.ended(SOON).await;
    let node = setup(&origin, &disk).start().await;
    assert_eq!(page(&node, "/kept").await, ("1".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_is_told_and_the_tier_begins_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let origin = origin(&Pages::default()).await;
    disk.fill();
    let setup = setup(&origin, &disk);
    let node = setup.start().await;
    says(&node, "degraded").await;
    let said = readiness(&node).await;
    let why = said["l2"]["reason"].as_str().unwrap();
    assert!(why.contains("No space left on device"), "{said}");
    assert_eq!(page(&node, "/p").await.0, "1", "it serves without");
    let (_dir, file) = setup.write();
    let file = file.to_str().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&["doctor", "-c", &file]));
    let ran = ran.await.unwrap();
    assert_eq!(ran.code, Some(1), "{}", ran.output());
    assert!(
        ran.stdout.contains("No space left on device"),
        "{}",
        ran.stdout
    );
    disk.make_room();
    says(&node, "serving").await;
    page(&node, "/q").await;
    stored(&node, 1.0).await;
    assert_eq!(lines(&node, "the second tier accepts no writes"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_read_only_disk_says_so() {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let origin = origin(&Pages::default()).await;
    disk.make_read_only();
    let (dir, config) = setup(&origin, &disk).write();
    let Err(refused) = Gateway::try_start(dir, &config, &[]).await else {
        panic!("it started on a disk that can't be written");
    };
    assert_eq!(refused.code, Some(1), "{}", refused.log);
    assert!(
        refused.log.contains("read-only file system"),
        "{}",
        refused.log
    );
    assert!(
        refused.log.contains("cache.l2.disk.path"),
        "{}",
        refused.log
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_somebody_else_is_set_aside_and_one_such_is_kept() {
    let origin = origin(&Pages::default()).await;
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let path = disk.path().join("l2");
    for text in ["key: value\n", "another: thing\n"] {
        std::fs::write(&path, text).unwrap();
        let mut node = setup(&origin, &disk).start().await;
        let told = node
            .logged("whose file it is", |line| {
                line.contains("is not a database of this program")
            })
            .await;
        assert!(
            told.contains(&format!("\"bytes\":{}", text.len())),
            "{told}"
        );
        node.kill();
        node.ended(SOON).await;
        let kept: Vec<String> = std::fs::read_dir(disk.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().contains(".damaged-"))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        assert_eq!(kept, [text]);
        std::fs::remove_file(&path).unwrap();
    }
}
