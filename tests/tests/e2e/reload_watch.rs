//! Files that have changed are taken up by themselves (`server.watch`, RL1): by what they say, when
//! it has been the same twice.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{passed, wait_for};

const WATCHING: &str = "{threads: 2, drain_timeout: 1m, watch: on}";
/// Looks are one second apart, and a loaded machine has its own pace.
const SEEN: Duration = Duration::from_secs(60);

async fn page() -> Origin {
    Origin::pages(|seen| Reply::ok(seen.path.clone())).await
}

/// A gateway that watches; all but what routes say is not there.
fn watching(origin: &Origin) -> Setup {
    Setup::new(origin)
        .top("server", WATCHING)
        .top("include", "routes/*.yaml")
        .file("routes/one.yaml", included("one"))
        .route("{name: begin, match: {path: /begin}, upstream: origin}")
}

fn included(name: &str) -> String {
    format!("routes: [{{name: {name}, match: {{path: /{name}}}, upstream: origin}}]\n")
}

/// Waits until a route serves.
async fn serves(gateway: &Gateway, path: &str) {
    wait_for(&format!("{path} is served"), SEEN, || async {
        let answer = gateway.client().get(path).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

async fn is_missing(gateway: &Gateway, path: &str) {
    assert_eq!(gateway.client().get(path).await.status, 404, "{path}");
}

fn write_beside(file: &Path, content: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(&beside, file).unwrap();
}

#[tokio::test]
async fn each_file_of_a_configuration_is_watched_and_half_a_file_is_never_taken() {
    let origin = page().await;
    let setup = watching(&origin);
    let gateway = setup.start().await;
    let file = |name: &str| gateway.dir().join(name);
    serves(&gateway, "/one").await;
    is_missing(&gateway, "/main").await;
    // The main file, in place.
    let main = setup
        .clone()
        .route("{name: main, match: {path: /main}, upstream: origin}");
    gateway.write(&main);
    serves(&gateway, "/main").await;
    // An included file, by a rename; then a new one that the pattern matches.
    write_beside(&file("routes/one.yaml"), &included("other"));
    serves(&gateway, "/other").await;
    is_missing(&gateway, "/one").await;
    std::fs::write(file("routes/two.yaml"), included("two")).unwrap();
    serves(&gateway, "/two").await;
    gateway.reloads_until("applied", 3.0).await;
    assert_eq!(gateway.reloads("applied").await, 3.0);
    // Many writes at once are one change, or two when a look comes between them.
    let start = Instant::now();
    for n in 0..50 {
        std::fs::write(file("routes/two.yaml"), included(&format!("n{n}"))).unwrap();
    }
    let took = start.elapsed();
    serves(&gateway, "/n49").await;
    gateway.reloads_until("applied", 4.0).await;
    let reloads = gateway.reloads("applied").await;
    let most = 4.0 + took.as_secs_f64().ceil();
    assert!((4.0..=most).contains(&reloads), "{reloads}");
    assert_eq!(gateway.reloads("invalid").await, 0.0);
    // What is wrong is told once, and good again when the file is as before.
    let good = std::fs::read(file("lamina.yaml")).unwrap();
    write_beside(&file("lamina.yaml"), "version: 1\n");
    gateway.reloads_until("invalid", 1.0).await;
    assert!(!gateway.is_well_configured().await);
    let start = Instant::now();
    passed(start, Duration::from_millis(2_500)).await;
    assert_eq!(gateway.reloads("invalid").await, 1.0);
    serves(&gateway, "/n49").await;
    std::fs::write(file("lamina.yaml"), good).unwrap();
    wait_for("it is well again", SEEN, || async {
        gateway.is_well_configured().await.then_some(())
    })
    .await;
    let by = gateway.log().into_iter();
    let by = by.filter(|line| line.contains("\"who\":\"server.watch\""));
    assert!(by.count() >= 5);
}

/// Puts another folder in place of what `..data` leads to.
fn swap(dir: &Path, n: usize, yaml: &str, token: &str) {
    let folder = dir.join(format!("..v{n}"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("lamina.yaml"), yaml).unwrap();
    std::fs::write(folder.join("token"), token).unwrap();
    let link = dir.join("..data_tmp");
    std::os::unix::fs::symlink(format!("..v{n}"), &link).unwrap();
    std::fs::rename(&link, dir.join("..data")).unwrap();
    let _ = std::fs::remove_dir_all(dir.join(format!("..v{}", n - 1)));
}

/// A configuration folder as Kubernetes keeps it: all files are links through `..data`, which is
/// replaced as a whole.
#[tokio::test]
async fn folders_that_are_replaced_by_a_link_and_secrets_are_followed() {
    let origin = page().await;
    let purge = "{enabled: true, allow: [127.0.0.1/32], token_file: token}";
    let with = |route: &str| {
        Setup::new(&origin)
            .top("server", WATCHING)
            .top("purge_method", purge)
            .route(&format!(
                "{{name: {route}, match: {{path: /{route}}}, upstream: origin}}"
            ))
            .yaml()
    };
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = ("the-first-token-of-purges", "the-second-token-of-purges");
    swap(dir.path(), 1, &with("one"), old);
    for name in ["lamina.yaml", "token"] {
        let link = dir.path().join(name);
        std::os::unix::fs::symlink(format!("..data/{name}"), link).unwrap();
    }
    let file = dir.path().join("lamina.yaml");
    let gateway = Gateway::start(dir, &file, &[]).await;
    let dir = gateway.dir().to_owned();
    let purges = async |token: &str| {
        let purge = http::Method::from_bytes(b"PURGE").unwrap();
        let ask = gateway.client().unchecked().ask(purge, "/one");
        let ask = ask.header("authorization", &format!("Bearer {token}"));
        ask.send().await.status.as_u16() == 200
    };
    assert!(purges(old).await);
    // The secret alone.
    swap(&dir, 2, &with("one"), new);
    wait_for("the new token is taken", SEEN, || async {
        purges(new).await.then_some(())
    })
    .await;
    assert!(!purges(old).await);
    swap(&dir, 3, &with("two"), new);
    serves(&gateway, "/two").await;
    is_missing(&gateway, "/one").await;
    assert_eq!(gateway.reloads("applied").await, 2.0);
}

/// What is written in pieces, each of them a valid configuration, is taken when it is whole.
#[tokio::test]
async fn a_file_that_grows_is_not_taken_before_it_rests() {
    let origin = page().await;
    let setup = watching(&origin);
    let gateway = setup.start().await;
    let whole = setup
        .route("{name: second, match: {path: /second}, upstream: origin}")
        .route("{name: third, match: {path: /third}, upstream: origin}")
        .yaml();
    let half = whole.split_once("  - {name: third").unwrap().0;
    let file = gateway.dir().join("lamina.yaml");
    // It is longer each time: at no two looks it is the same, unless this machine pauses.
    let (mut n, mut tries) = (0, 0);
    let before = loop {
        let before = gateway.reloads("applied").await;
        let (start, mut last, mut pause) = (Instant::now(), Instant::now(), Duration::ZERO);
        while start.elapsed() < Duration::from_secs(3) {
            n += 1;
            std::fs::write(&file, format!("{half}# {n}\n")).unwrap();
            pause = pause.max(last.elapsed());
            last = Instant::now();
            passed(last, Duration::from_millis(20)).await;
        }
        tries += 1;
        if pause < Duration::from_millis(700) {
            assert_eq!(gateway.reloads("applied").await, before);
            break before;
        }
        assert!(tries < 10, "this machine pauses each time");
    };
    assert_eq!(gateway.reloads("invalid").await, 0.0);
    std::fs::write(&file, &whole).unwrap();
    serves(&gateway, "/third").await;
    assert_eq!(gateway.reloads("applied").await, before + 1.0);
}
