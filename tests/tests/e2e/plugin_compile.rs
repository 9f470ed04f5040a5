//! Files that cost their compiler more than they may, on purpose or not: that is a process of
//! its own, which has limits and can be ended, and nobody else notices.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::cli;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::guest::wrong::costly;
use e2e::origin::Origin;
use e2e::process::children;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for, wait_until};
use http::Method;
use serde_json::Value;

/// A gateway that asks `p`, which tells the origin its version.
fn asking(origin: &Origin, wasm: Vec<u8>, compile: &str, watch: bool) -> Setup {
    let rules = "{rules: {/: {mark: x-mark}}}";
    Setup::new(origin)
        .file("p.wasm", wasm)
        .top(
            "plugins",
            &format!("{{compile: {compile}, p: {{file: p.wasm, config: {rules}, watch: {watch}, on_error: {{request: refuse}}, limits: {{hook_timeout: 10s}}}}}}"),
        )
        .route("{name: site, upstream: origin, request: {plugin: p}}")
}

async fn marking() -> Origin {
    Origin::pages(|seen| Reply::ok(seen.header("x-mark").to_owned())).await
}

fn file(gateway: &Gateway) -> PathBuf {
    gateway.dir().join("p.wasm")
}

async fn reload(gateway: &Gateway) -> (u16, Value) {
    let path = "/v1/plugins/p/reload";
    let answer = gateway.admin(Method::POST, path, "").await;
    (answer.status, serde_json::from_str(&answer.text).unwrap())
}

/// Waits until the gateway has a process that compiles; its id.
async fn compiling(gateway: u32) -> u32 {
    wait_for("a process compiles", SOON, || async {
        children(gateway).first().copied()
    })
    .await
}

async fn gone(process: u32) {
    let stat = format!("/proc/{process}/stat");
    wait_until("the compiling process is gone", SOON, || {
        // One that nobody has waited for yet holds nothing any more.
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_built_to_cost_is_refused_and_the_gateways_memory_stays_flat() {
    let origin = marking().await;
    let compile = "{time: 1s, memory: 256MiB}";
    let gateway = asking(&origin, guest::built("asker"), compile, false)
        .start()
        .await;
    gateway.client().get("/").await;
    gateway.forget_peak();
    let before = gateway.resident_bytes();
    for (wasm, why) in [
        (costly::nested(), "nested 17 deep"),
        (costly::nested_types(), "nested"),
        (costly::branches(), "`plugins.compile.time`"),
    ] {
        std::fs::write(file(&gateway), wasm).unwrap();
        let (status, body) = reload(&gateway).await;
        assert_eq!(status, 422, "{why}: {body}");
        let error = body["error"].as_str().unwrap();
        assert!(error.contains(why), "{why}: {error}");
        assert_eq!(gateway.client().get("/").await.text(), "version-one");
    }
    let grown = gateway.peak_bytes().saturating_sub(before);
    assert!(
        grown < 48 << 20,
        "{grown} bytes for files of a few megabytes"
    );
    assert_eq!(children(gateway.process_id()), [0_u32; 0]);
}

#[tokio::test]
async fn memory_of_the_compiling_process_has_a_limit_that_the_message_names() {
    let origin = marking().await;
    let gateway = asking(&origin, guest::built("asker"), "{memory: 64MiB}", false)
        .start()
        .await;
    std::fs::write(file(&gateway), costly::branches()).unwrap();
    let (status, body) = reload(&gateway).await;
    assert_eq!(status, 422, "{body}");
    let error = body["error"].as_str().unwrap();
    assert!(error.contains("`plugins.compile.memory`"), "{error}");
    assert_eq!(gateway.client().get("/").await.text(), "version-one");
}

#[tokio::test]
async fn check_refuses_what_a_gateway_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.wasm");
    for wasm in [costly::nested(), costly::nested_types()] {
        std::fs::write(&file, wasm).unwrap();
        let ran = cli::run(&["plugin", "check", file.to_str().unwrap()]);
        assert_eq!(ran.code, Some(1), "{}", ran.output());
        assert!(ran.output().contains("nested"), "{}", ran.output());
    }
    std::fs::write(&file, costly::branches()).unwrap();
    for (limit, key) in [
        (["--compile-time", "1s"], "`plugins.compile.time`"),
        (["--compile-memory", "64MiB"], "`plugins.compile.memory`"),
    ] {
        let file = file.to_str().unwrap();
        let ran = cli::run(&[&["plugin", "check", file][..], &limit].concat());
        assert_eq!(ran.code, Some(1), "{}", ran.output());
        assert!(ran.output().contains(key), "{key}: {}", ran.output());
    }
}

#[tokio::test]
async fn a_newer_file_takes_the_place_of_one_that_is_being_compiled() {
    let origin = marking().await;
    for by_watch in [true, false] {
        let gateway = asking(&origin, guest::built("asker"), "{time: 1h}", by_watch)
            .start()
            .await;
        let beside = gateway.dir().join("new");
        let put = |wasm| {
            std::fs::write(&beside, wasm).unwrap();
            std::fs::rename(&beside, file(&gateway)).unwrap();
        };
        put(costly::branches());
        let refused = async {
            match by_watch {
                true => None,
                false => Some(reload(&gateway).await),
            }
        };
        let good = async {
            let compiles = compiling(gateway.process_id()).await;
            put(guest::version("asker", "two"));
            if !by_watch {
                assert_eq!(reload(&gateway).await.1["swapped"], true);
            }
            wait_for("the good file serves", SOON, || async {
                (gateway.client().get("/").await.text() == "version-two").then_some(())
            })
            .await;
            gone(compiles).await;
        };
        let (refused, ()) = tokio::join!(refused, good);
        if let Some((status, body)) = refused {
            assert_eq!(status, 422, "{body}");
            let error = body["error"].as_str().unwrap();
            assert!(error.contains("replaced it"), "{error}");
        }
    }
}

#[tokio::test]
async fn the_process_ends_while_a_plugin_compiles() {
    let origin = marking().await;
    let mut gateway = asking(&origin, guest::built("asker"), "{time: 1h}", true)
        .start()
        .await;
    std::fs::write(file(&gateway), costly::branches()).unwrap();
    let compiles = compiling(gateway.process_id()).await;
    gateway.terminate();
    assert!(gateway.ended(SOON).await.success());
    gone(compiles).await;
}

#[tokio::test]
async fn the_process_ends_while_its_first_plugin_compiles() {
    let origin = marking().await;
    let setup = asking(&origin, costly::branches(), "{time: 1h}", true);
    let (_dir, config) = setup.write();
    let mut process = Command::new(cli::binary())
        .arg0("lamina")
        .args(["run", "-c", config.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let compiles = compiling(process.id()).await;
    let id = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    wait_until("it ends", SOON, || process.try_wait().unwrap().is_some()).await;
    gone(compiles).await;
}

/// The signal that comes first lets it drain; nobody has to wait for that.
#[tokio::test]
async fn a_second_signal_ends_at_once_whatever_compiles() {
    let gate = Gate::new();
    let opens = gate.clone();
    let origin = Origin::start(move |_| {
        let opens = opens.clone();
        async move {
            opens.pass().await;
            Reply::ok("late")
        }
    })
    .await;
    let mut gateway = asking(&origin, guest::built("asker"), "{time: 1h}", true)
        .top("server", "{threads: 2, drain_timeout: 10m}")
        .start()
        .await;
    let client = gateway.client();
    let asked = tokio::spawn(async move { client.request("/held").try_send().await.is_ok() });
    origin.saw(1).await;
    std::fs::write(file(&gateway), costly::branches()).unwrap();
    let compiles = compiling(gateway.process_id()).await;
    gateway.terminate();
    gateway
        .logged("it drains", |line| line.contains("draining: no new"))
        .await;
    assert!(gateway.is_running(), "a request is under way");
    gateway.terminate();
    gateway.ended(SOON).await;
    gone(compiles).await;
    assert!(!asked.await.unwrap(), "nothing was left to answer it");
}

/// The same component with another name in it: other code for whoever keeps it.
fn renamed(wasm: &[u8], number: u8) -> Vec<u8> {
    // A custom section: its kind, its size, the length of its name, the name, and a byte.
    let section = [0, 6, 4, b'n', b'o', b't', b'e', number];
    [wasm, &section].concat()
}

/// Names and sizes of the compiled code in a folder.
fn kept_in(folder: &Path) -> Vec<(PathBuf, u64)> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let code = files.filter(|file| file.path().extension().is_some_and(|e| e == "cwasm"));
    code.map(|file| (file.path(), file.metadata().unwrap().len()))
        .collect()
}

#[tokio::test]
async fn the_folder_of_compiled_code_is_bounded_and_the_oldest_goes_first() {
    const VERSIONS: u8 = 6;
    let origin = marking().await;
    let asker = guest::built("asker");
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("code");
    let start = async |kept: &str| {
        asking(
            &origin,
            asker.clone(),
            &format!("{{kept_code: {kept}}}"),
            false,
        )
        .variable("LAMINA_CACHE_DIR", home.path().to_str().unwrap())
        .start()
        .await
    };
    let gateway = start("1GiB").await;
    let [(first, one)] = &kept_in(&folder)[..] else {
        panic!("one file is kept")
    };
    let strange = folder.join("notes.txt");
    std::fs::write(&strange, "not ours").unwrap();
    drop(gateway);
    // Room for three of them.
    let most = one * 7 / 2;
    let gateway = start(&most.to_string()).await;
    for number in 0..VERSIONS {
        std::fs::write(file(&gateway), renamed(&asker, number)).unwrap();
        let (status, body) = reload(&gateway).await;
        assert_eq!(status, 200, "{body}");
        let kept = kept_in(&folder);
        let bytes: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
        assert!(bytes <= most, "{bytes} bytes, {most} at most: {kept:?}");
        assert_eq!(kept.len(), usize::from(number + 2).min(3), "{kept:?}");
    }
    assert!(!first.exists(), "the oldest is gone");
    assert!(strange.exists(), "what is not ours stays");
}
