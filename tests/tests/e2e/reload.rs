//! Another configuration is taken up while the gateway runs (RL1, RL4, RL8): how it is asked for,
//! what it says of it, and what becomes of requests that are under way.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use e2e::cli::run;
use e2e::client::Streaming;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::{Asked, Origin};
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An origin whose pages are its name, fresh for a minute.
pub async fn named(name: &'static str) -> Origin {
    Origin::pages(move |_| Reply::fresh(name)).await
}

pub fn target(origin: &Origin) -> String {
    format!("{{targets: [\"{}\"]}}", origin.url())
}

/// One line of the log that says that a configuration was taken up.
fn audit(gateway: &Gateway, who: &str) -> Vec<String> {
    let words = "the configuration was taken up";
    let who = format!("\"who\":\"{who}\"");
    let lines = gateway.log().into_iter();
    let lines = lines.filter(|line| line.contains(words) && line.contains(&who));
    lines.collect()
}

async fn hash(gateway: &Gateway) -> String {
    let scrape = gateway.scrape().await;
    let shown = scrape.0.iter();
    let shown: Vec<_> = shown.filter(|s| s.name == "lamina_config_info").collect();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0].value, 1.0);
    shown[0].labels[0].1.clone()
}

#[tokio::test]
async fn each_trigger_takes_up_routes_upstreams_and_policies_and_the_cache_is_kept() {
    let (first, second) = (named("first").await, named("second").await);
    let kept = "{name: kept, match: {path: /kept/*}, upstream: origin}";
    let begun = Setup::new(&first).route(kept);
    let rest = "{name: rest, upstream: origin}";
    let gateway = begun.clone().route(rest).start().await;
    let client = gateway.client();
    client.get("/kept/page").await;
    let metric = |name: &'static str| gateway.metric(name, &[]);
    let began = metric("lamina_config_last_reload_seconds").await;
    assert!(gateway.is_well_configured().await && began > 1e9);
    let admin = gateway.admin.to_string();
    let mut setup = begun;
    for (n, who) in ["SIGHUP", "admin", "command line"].into_iter().enumerate() {
        let before = hash(&gateway).await;
        let upstream = format!("up{n}");
        let route = format!(
            "{{name: new{n}, match: {{path: /new{n}}}, upstream: {upstream}, policy: {{mode: override, ttl: 1{n}h}}}}"
        );
        setup = setup.upstream(&upstream, &target(&second)).route(&route);
        assert_eq!(client.get(&format!("/new{n}")).await.text(), "first");
        gateway.write(&setup.clone().route(rest));
        match who {
            "SIGHUP" => gateway.hang_up_until("applied").await,
            "admin" => {
                let said = gateway.reload().await.said;
                assert_eq!(said["changes"]["routes"]["added"][0], "new1");
                assert_eq!(said["changes"]["upstreams"]["added"][0], "up1");
                assert_eq!(said["hash_before"], *before);
                let note = said["note"].as_str().unwrap();
                assert!(note.contains("variables have the values"), "{note}");
            }
            _ => {
                let ran = run(&["reload", "--admin", &admin]);
                assert_eq!(ran.code, Some(0), "{ran:?}");
                assert!(ran.stdout.contains("Taken up: "), "{}", ran.stdout);
                for line in ["+ route new2\n", "+ upstream up2\n"] {
                    assert!(ran.stdout.contains(line), "{}", ran.stdout);
                }
            }
        }
        let page = client.get(&format!("/new{n}")).await;
        assert_eq!(page.text(), "second");
        let ttl = page.cache().ttl.unwrap();
        assert!((36_000 + 3_600 * n as i64 - ttl).abs() < 60, "{ttl}");
        assert!(client.get("/kept/page").await.is_hit());
        let after = hash(&gateway).await;
        assert_ne!(before, after);
        assert_eq!(gateway.reloads("applied").await, n as f64 + 1.0);
        let who = if who == "SIGHUP" { who } else { "admin" };
        let last = audit(&gateway, who).pop().unwrap();
        let hashes = format!("\"hash_before\":\"{before}\",\"hash_after\":\"{after}\"");
        assert!(last.contains(&hashes), "{last}");
        let names_caller = last.contains("\"caller\":\"") && last.contains("\"from\":\"127.0.0.1:");
        assert_eq!(names_caller, who == "admin", "{last}");
    }
    let ran = run(&["reload", "--admin", &admin]);
    assert!(ran.stdout.contains("nothing is different"), "{ran:?}");
    assert!(gateway.is_well_configured().await);
    assert!(metric("lamina_config_last_reload_seconds").await >= began);
    gateway.only_one_engine().await;
    assert_eq!(first.count_of("/kept/page"), 1);
}

/// Pages below `/held` wait at the gate; all say who answered them.
async fn held(name: &'static str, gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |asked| {
        let gate = gate.clone();
        async move {
            if asked.seen.path.starts_with("/held") {
                gate.pass().await;
            }
            Reply::ok(name).header("cache-control", "no-store")
        }
    })
    .await
}

#[tokio::test]
async fn a_request_ends_on_the_configuration_that_it_began_on() {
    let gate = Gate::new();
    let (first, second) = (held("first", &gate).await, held("second", &gate).await);
    let setup = Setup::new(&first).route("{name: old, upstream: origin}");
    let gateway = setup.start().await;
    let clients = [gateway.client(), gateway.client_http2()];
    let mut under_way = Vec::new();
    for (n, client) in clients.clone().into_iter().enumerate() {
        under_way.push(tokio::spawn(async move {
            client.get(&format!("/held/{n}")).await
        }));
        gate.reached_by(n + 1).await;
    }
    let changed = Setup::default()
        .upstream("other", &target(&second))
        .route("{name: new, upstream: other}");
    gateway.take_up(&changed).await;
    assert_eq!(gateway.old_engines().await, 1.0);
    for client in &clients {
        assert_eq!(client.get("/now").await.text(), "second");
    }
    gate.open();
    for answer in under_way {
        let answer = answer.await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "first"));
    }
    gateway.only_one_engine().await;
}

/// Beyond so many, a reload is refused until one has ended.
const MOST_OLD: usize = 8;

#[tokio::test]
async fn so_many_old_configurations_may_be_in_use_and_no_more() {
    let gate = Gate::new();
    let origin = held("page", &gate).await;
    let setup = Setup::new(&origin);
    let gateway = setup.start().await;
    let mut under_way = Vec::new();
    for n in 0..MOST_OLD {
        let client = gateway.client();
        under_way.push(tokio::spawn(async move {
            client.get(&format!("/held/{n}")).await
        }));
        gate.reached_by(n + 1).await;
        gateway.take_up(&setup).await;
        assert_eq!(gateway.old_engines().await, n as f64 + 1.0);
    }
    let answer = gateway.reload().await;
    assert_eq!(answer.status, 503, "{}", answer.said);
    let error = answer.said["error"].as_str().unwrap();
    assert!(error.contains("server.old_engine_max"), "{error}");
    let ran = run(&["reload", "--admin", &gateway.admin.to_string()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("server.old_engine_max"), "{ran:?}");
    gateway.hang_up_until("failed").await;
    assert!(!gateway.is_well_configured().await);
    // A plan adds none, so it is answered.
    let file = gateway.dir().join("lamina.yaml");
    assert_eq!(gateway.plan(&file).await.status, 200);
    gate.open();
    for answer in under_way {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    gateway.only_one_engine().await;
    assert_eq!(gateway.reload().await.status, 200);
    assert!(gateway.is_well_configured().await);
}

/// Repeats each piece, on a tunnel or in a stream of events.
async fn echo(asked: Asked) -> Reply {
    if asked.seen.path == "/events" {
        let (reply, pieces) = Reply::stream();
        tokio::spawn(async move {
            while pieces.send("data: x\n\n").await {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        return reply.header("content-type", "text/event-stream");
    }
    if asked.seen.header("upgrade") != "echo" {
        return Reply::ok("page");
    }
    Reply::upgrade("echo", |mut tunnel| async move {
        let mut word = [0; 4];
        while tunnel.read_exact(&mut word).await.is_ok() {
            if tunnel.write_all(&word).await.is_err() || tunnel.flush().await.is_err() {
                break;
            }
        }
    })
}

async fn tunnel(gateway: &Gateway) -> RawConnection {
    let mut raw = gateway.raw().await;
    raw.write("GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    assert_eq!(raw.head().await.status, 101);
    says(&mut raw, "open").await;
    raw
}

async fn says(tunnel: &mut RawConnection, word: &str) {
    tunnel.write(word).await;
    assert_eq!(tunnel.exactly(4).await, word.as_bytes());
}

async fn goes_on(stream: &mut Streaming) {
    for _ in 0..3 {
        let piece = within("an event", SOON, stream.piece()).await;
        assert!(piece.expect("the stream goes on").is_ok());
    }
}

/// Whether a stream of events is cut.
async fn is_cut(mut stream: Streaming) {
    within("the stream ends", SOON, async {
        while let Some(Ok(_)) = stream.piece().await {}
    })
    .await;
}

#[tokio::test]
async fn tunnels_and_streams_go_on_until_their_configuration_is_too_old() {
    let origin = Origin::start(echo).await;
    let setup = Setup::new(&origin);
    let gateway = setup.start().await;
    let mut first = tunnel(&gateway).await;
    let mut events = gateway.client().request("/events").open().await;
    goes_on(&mut events).await;
    gateway.take_up(&setup).await;
    says(&mut first, "more").await;
    goes_on(&mut events).await;
    // Those that were begun since then are of a configuration that may be old for a second.
    let mut second = tunnel(&gateway).await;
    let short = "{threads: 2, drain_timeout: 1m, old_engine_max: 1s}";
    let late = gateway.client_http2().request("/events").open().await;
    gateway.take_up(&setup.clone().top("server", short)).await;
    assert_eq!(within("the tunnel ends", SOON, second.to_end()).await, b"");
    is_cut(late).await;
    says(&mut first, "last").await;
    goes_on(&mut events).await;
}

/// Whether a process has a file open.
fn has_open(process: u32, file: &Path) -> bool {
    let open = std::fs::read_dir(format!("/proc/{process}/fd"));
    let mut open = open.into_iter().flatten().flatten();
    open.any(|entry| std::fs::read_link(entry.path()).is_ok_and(|link| link == file))
}

/// A pipe in place of the file that somebody holds open keeps a reload waiting until something is
/// written to it.
#[tokio::test]
async fn while_one_reload_runs_another_one_is_refused_and_a_signal_waits() {
    let origin = named("page").await;
    let setup = Setup::new(&origin);
    let gateway = setup.start().await;
    let pipe = gateway.dir().join("lamina.yaml");
    std::fs::remove_file(&pipe).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let admin = gateway.admin.to_string();
    let at = admin.clone();
    let mut writing = File::options().read(true).write(true).open(&pipe).unwrap();
    let first = tokio::task::spawn_blocking(move || run(&["reload", "--admin", &at]));
    let id = gateway.process_id();
    wait_until("the reload reads the pipe", SOON, || has_open(id, &pipe)).await;
    let answer = gateway.reload().await;
    assert_eq!(answer.status, 409, "{}", answer.said);
    let ran = run(&["reload", "--admin", &admin]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(gateway.reloads("busy").await, 2.0);
    assert!(gateway.is_well_configured().await, "that is no failure");
    assert_eq!(gateway.client().get("/").await.status, 200);
    std::fs::remove_file(&pipe).unwrap();
    gateway.write(&setup);
    gateway.hang_up();
    gateway
        .logged("the signal came", |line| line.contains("SIGHUP: reloading"))
        .await;
    writing.write_all(setup.yaml().as_bytes()).unwrap();
    drop(writing);
    assert_eq!(first.await.unwrap().code, Some(0));
    gateway.reloads_until("applied", 2.0).await;
    assert_eq!(gateway.reloads("busy").await, 2.0);
}

#[tokio::test]
async fn settings_of_the_process_follow() {
    let origin = Origin::start(|asked| async move {
        let seen = asked.read().await;
        match seen.path.as_str() {
            "/held" => std::future::pending().await,
            _ => Reply::ok(vec![b'x'; 2_000]).header("cache-control", "max-age=60"),
        }
    })
    .await;
    let admin = |token: &str| format!("{{address: \"127.0.0.1:0\", token: {token}}}");
    let level = |level: &str| format!("{{log_format: json, log_level: {level}}}");
    let (old, new) = ("the-old-token-of-many", "the-new-token-of-many");
    let setup = Setup::new(&origin)
        .listener("limits", "{max_body_bytes: 1KiB}")
        .top("admin", &admin(old))
        .top("telemetry", &level("error"));
    let with = |setup: &Setup, limits: &str| {
        setup
            .clone()
            .route(&format!("{{name: site, upstream: origin{limits}}}"))
    };
    // The addresses are told at the level `info`.
    let began = setup.clone().top("telemetry", &level("info"));
    let gateway = with(&began, "").start().await.with_token(old);
    gateway.take_up(&with(&setup, "")).await;
    let signals = |gateway: &Gateway| {
        let lines = gateway.log().into_iter();
        lines
            .filter(|line| line.contains("SIGHUP: reloading"))
            .count()
    };
    gateway.hang_up_until("applied").await;
    assert_eq!(signals(&gateway), 0, "the level is `error`");
    let client = gateway.client_http2();
    let post = async || client.post("/", vec![b'x'; 8_000]).await.status.as_u16();
    assert_eq!(client.get("/small").await.status, 200);
    assert_eq!(post().await, 413);
    assert_eq!(client.get("/a").await.status, 200);
    // Another level, token and limit, and objects of a thousand bytes at most.
    let setup = began
        .top("admin", &admin(new))
        .top(
            "server",
            "{threads: 2, drain_timeout: 1s, max_held_bytes: 32MiB}",
        )
        .top("cache", "{l1: {max_object_bytes: 1KiB}}");
    let larger = with(&setup, ", limits: {max_body_bytes: 1MiB}");
    let said = gateway.take_up(&larger).await;
    assert!(!said.to_string().contains(new), "{said}");
    let refused = gateway.reload().await;
    assert_eq!(refused.status, 401, "the old token");
    let mut gateway = gateway.with_token(new);
    gateway.hang_up_until("applied").await;
    assert_eq!(signals(&gateway), 1, "the level is `info`");
    assert_eq!(post().await, 200, "on a connection that was there");
    assert!(client.get("/a").await.is_hit(), "it is kept");
    let large = client.get("/b").await;
    assert!(!large.cache().stored, "{:?}", large.cache());
    let waiting = gateway.client();
    let held = tokio::spawn(async move { waiting.request("/held").try_send().await });
    wait_until("the request is held", SOON, || {
        origin.count_of("/held") == 1
    })
    .await;
    gateway.terminate();
    // At the start it was a minute.
    assert!(gateway.ended(SOON).await.success());
    let _ = held.await;
}

#[tokio::test]
async fn another_size_of_the_cache_keeps_what_has_room() {
    let origin = Origin::pages(|_| Reply::fresh(vec![b'x'; 64 << 10])).await;
    let sized = |bytes: &str| {
        Setup::new(&origin).top(
            "cache",
            &format!("{{l1: {{max_bytes: {bytes}, max_object_bytes: 1MiB}}}}"),
        )
    };
    let gateway = sized("16MiB").start().await;
    let client = gateway.client();
    let hits = async || {
        let mut hits = 0;
        for n in 0..64 {
            hits += usize::from(client.get(&format!("/{n}")).await.is_hit());
        }
        hits
    };
    let gauge = |name: &'static str| gateway.metric(name, &[("tier", "l1")]);
    for n in 0..64 {
        client.get(&format!("/{n}")).await;
    }
    assert_eq!(hits().await, 64);
    assert!(gauge("lamina_cache_bytes").await > 4e6);
    gateway.take_up(&sized("32MiB")).await;
    assert_eq!(hits().await, 64, "a larger one keeps all");
    gateway.take_up(&sized("2MiB")).await;
    gateway
        .metric_until("lamina_cache_bytes", &[("tier", "l1")], |bytes| {
            bytes <= 2.0 * 1024.0 * 1024.0
        })
        .await;
    let few = gauge("lamina_cache_entries").await as usize;
    assert!((8..=31).contains(&few), "{few}");
    gateway.take_up(&sized("16MiB")).await;
    assert_eq!(hits().await, few, "what was left is kept");
    assert_eq!(hits().await, 64, "there is room again");
}
