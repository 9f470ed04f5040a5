//! Another process takes the place of a gateway (UP1 to UP4): nothing is refused or reset, requests
//! under way end, and what fails leaves the gateway as it was.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use e2e::cli;
use e2e::free_port::free_address;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::h3::SecuredGateway;
use e2e::h3::certificates::Certificates;
use e2e::h3::raw::{RawEnd, code, headers};
use e2e::h3::{NAME, OTHER_NAME, Reach};
use e2e::load::{self, LoadReport};
use e2e::origin::Origin;
use e2e::raw::RawConnection;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::site::HttpsSite;
use e2e::upgrade::{ended, is_running, script, server, terminate};
use e2e::wait::{SOON, wait_for, wait_until, within};
use http::Method;

/// Pages below `/held` wait at the gate; all say their path, and `/upload` how long the body is.
async fn site(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |asked| {
        let gate = gate.clone();
        async move {
            if asked.seen.path.starts_with("/held") {
                gate.pass().await;
            }
            if asked.seen.path == "/upload" {
                let body = asked.read().await.body.unwrap_or_default();
                return Reply::ok(format!("{} bytes", body.len()));
            }
            Reply::ok(asked.seen.path).header("cache-control", "max-age=60")
        }
    })
    .await
}

fn setup(origin: &Origin) -> Setup {
    Setup::new(origin).top("server", &server(""))
}

async fn is_ready(gateway: &Gateway) -> bool {
    gateway.admin(Method::GET, "/readyz", "").await.status == 200
}

#[tokio::test]
async fn requests_under_way_end_and_new_ones_are_served_by_the_new_process() {
    let gate = Gate::new();
    let origin = site(&gate).await;
    let mut gateway = setup(&origin).start().await;
    let clients = [gateway.client(), gateway.client_http2()];
    let mut under_way = Vec::new();
    for (n, client) in clients.clone().into_iter().enumerate() {
        under_way.push(tokio::spawn(async move {
            client.get(&format!("/held/{n}")).await
        }));
        gate.reached_by(n + 1).await;
    }
    let idle = gateway.client();
    assert_eq!(idle.get("/before").await.status, 200);
    let old = gateway.current_process();
    let new = gateway.upgrade().await;
    assert_ne!(old, new);
    // Its cache is empty, and its own.
    for client in [gateway.client(), gateway.client_http2()] {
        assert_eq!(client.get("/before").await.status, 200);
    }
    assert!(gateway.client().get("/before").await.is_hit());
    // One more request on a connection of the old process is not answered from its cache.
    let answer = idle.get("/before").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.cache().detail.as_deref(), Some("replaced"));
    assert!(is_ready(&gateway).await);
    assert!(is_running(old), "requests are under way");
    gate.open();
    for (n, answer) in under_way.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, &*format!("/held/{n}"))
        );
    }
    // A connection without a request would be waited for.
    drop((clients, idle));
    gateway.only_the_last_process(SOON).await;
    // And once more.
    let third = gateway.upgrade().await;
    assert_eq!(gateway.client().get("/before").await.status, 200);
    ended(new, SOON).await;
    terminate(third);
    ended(third, SOON).await;
    let left: Vec<_> = std::fs::read_dir(gateway.dir()).unwrap().collect();
    let left = left.into_iter().map(|one| one.unwrap().file_name());
    let left: Vec<_> = left
        .filter(|name| name.to_string_lossy().contains("sock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Connections that wait in the kernel, because the gateway has no place for them.
const QUEUED: usize = 200;

#[tokio::test]
async fn connections_that_wait_to_be_accepted_are_answered() {
    let gate = Gate::new();
    let origin = site(&gate).await;
    let setup = setup(&origin).listener("limits", "{max_connections: 4}");
    let gateway = setup.start().await;
    let mut held = Vec::new();
    for n in 0..4 {
        let client = gateway.client();
        held.push(tokio::spawn(async move {
            client.get(&format!("/held/{n}")).await
        }));
        gate.reached_by(n + 1).await;
    }
    let address = gateway.address;
    let mut queued = Vec::new();
    for n in 0..QUEUED {
        let mut raw = RawConnection::open(address).await;
        let head = format!("GET /queued/{n} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        raw.write(head).await;
        queued.push(raw);
    }
    gateway.upgrade().await;
    for (n, mut raw) in queued.into_iter().enumerate() {
        let (answer, in_order) = raw.to_close().await;
        assert!(in_order, "{n} was reset");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{n}");
    }
    gate.open();
    for answer in held {
        assert_eq!(answer.await.unwrap().status, 200);
    }
}

/// The new process has no such listener, so the old one answers what waits in its queue.
#[tokio::test]
async fn connections_that_wait_at_a_listener_that_goes_are_answered() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let goes = free_address();
    let with = |further: &str| {
        let listeners = format!("[{{address: \"127.0.0.1:0\"}}{further}]");
        setup(&origin).top("listeners", &listeners)
    };
    let full = format!(", {{address: \"{goes}\", limits: {{max_connections: 2}}}}");
    let mut gateway = with(&full).start().await;
    // Nobody accepts beyond these two.
    let mut first = Vec::new();
    for _ in 0..2 {
        let mut raw = RawConnection::open(goes).await;
        raw.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(raw.head().await.status, 200);
        first.push(raw);
    }
    let mut queued = Vec::new();
    for _ in 0..QUEUED {
        let mut raw = RawConnection::open(goes).await;
        raw.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
        queued.push(raw);
    }
    gateway.write(&with(""));
    gateway.upgrade().await;
    for (n, raw) in queued.iter_mut().enumerate() {
        let (answer, in_order) = raw.to_close().await;
        assert!(in_order, "{n} was reset");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{n}");
    }
    wait_until("the listener that is gone refuses", SOON, || {
        std::net::TcpStream::connect(goes).is_err()
    })
    .await;
    drop(first);
    gateway.only_the_last_process(SOON).await;
    assert_eq!(gateway.client().get("/").await.status, 200);
}

#[tokio::test]
async fn what_fails_leaves_the_gateway_as_it_was() {
    let gate = Gate::new();
    let origin = site(&gate).await;
    let setup = setup(&origin);
    let gateway = setup.start().await;
    let client = gateway.client();
    assert_eq!(client.get("/kept").await.status, 200);
    let old = gateway.current_process();
    let program = |text: &str| script(&gateway.dir().join("program"), text);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken.local_addr().unwrap();
    for (text, timeout, said) in [
        ("exit 7", "1m", "exit status: 7"),
        ("exec sleep 600", "1s", "not ready in time"),
        // It asks for the sockets, has them, and then can't open a listener of its own.
        (
            "cp other.yaml next.yaml && exec $LAMINA \"$1\" \"$2\" \"$3\" -c next.yaml",
            "1m",
            "is in use",
        ),
        (
            "exec $LAMINA \"$1\" \"$2\" \"$3\" -c none.yaml",
            "1m",
            "before it was ready",
        ),
    ] {
        let other = setup.clone().top(
            "listeners",
            &format!("[{{address: \"127.0.0.1:0\"}}, {{address: \"{taken}\"}}]"),
        );
        std::fs::write(gateway.dir().join("other.yaml"), other.yaml()).unwrap();
        let dir = gateway.dir().display();
        let binary = program(&format!("cd {dir}\n{text}"));
        let ran = gateway
            .try_upgrade(&["--binary", &binary, "--timeout", timeout])
            .await;
        assert_eq!(ran.code, Some(1), "{text}: {ran:?}");
        assert!(ran.stderr.contains(said), "{text}: {}", ran.stderr);
        assert!(is_running(old));
        assert!(
            client.get("/kept").await.is_hit(),
            "{text}: the cache is its own"
        );
        assert!(is_ready(&gateway).await);
        assert_eq!(gateway.reload().await.status, 200, "{text}");
    }
    let nothing = gateway.try_upgrade(&["--binary", "/dev/null"]).await;
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    gateway.upgrade().await;
    assert_eq!(gateway.client().get("/kept").await.status, 200);
}

#[tokio::test]
async fn only_its_own_user_is_heard_and_only_what_is_understood() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let gateway = setup(&origin).start().await;
    let socket = gateway.upgrade_socket();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let said = |bytes: Vec<u8>| {
        let socket = socket.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(&bytes).unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        })
    };
    let message = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    for (bytes, expected) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not understood"),
        (message("{}"), "not understood"),
        (message("garbage"), "not understood"),
        (
            message(r#"{"protocol":9,"asks":{"take_over":{"version":"1","within":9}}}"#),
            "form 1",
        ),
        // It gets the sockets, and does not get ready.
        (
            message(r#"{"protocol":1,"asks":{"take_over":{"version":"1","within":200}}}"#),
            "said nothing in time",
        ),
    ] {
        let answer = said(bytes.clone()).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(answer.contains(expected), "{text}: {answer}");
    }
    // The permissions are not all that keeps others out.
    for folder in socket
        .ancestors()
        .skip(1)
        .take_while(|at| at.starts_with("/tmp/"))
    {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder, mode).unwrap();
    }
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let other = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(cli::binary());
        command
            .arg("upgrade")
            .arg("--socket")
            .arg(socket)
            .uid(65_534);
        command.env_remove("LAMINA_CONFIG").output()
    });
    // Only root may run a program as another user, who may not be able to reach this one.
    match other.await.unwrap() {
        Ok(ran) => {
            let told = String::from_utf8_lossy(&ran.stderr).into_owned();
            assert_eq!(ran.status.code(), Some(1), "{told}");
            assert!(told.contains("belongs to another user"), "{told}");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
    assert_eq!(gateway.client().get("/").await.status, 200);
    gateway.upgrade().await;
}

#[tokio::test]
async fn a_plain_start_is_still_refused() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let gateway = setup(&origin).start().await;
    for socket in ["other.sock", "upgrade.sock"] {
        let text = server("").replace("upgrade.sock", socket);
        let second = Setup::new(&origin)
            .top(
                "listeners",
                &format!("[{{address: \"{}\"}}]", gateway.address),
            )
            .top("server", &text);
        let (dir, config) = second.write();
        if socket == "upgrade.sock" {
            std::os::unix::fs::symlink(gateway.upgrade_socket(), dir.path().join(socket)).unwrap();
        }
        let refused = Gateway::try_start(dir, &config, &[]).await.err().unwrap();
        let told = ["is in use", "exists and is not a socket"];
        assert!(
            told.iter().any(|told| refused.log.contains(told)),
            "{}",
            refused.log
        );
    }
    // And without anybody who hands over.
    let (_dir, config) = setup(&origin).write();
    let config = config.display().to_string();
    let alone =
        tokio::task::spawn_blocking(move || cli::run(&["run", "--take-over", "-c", &config]));
    let alone = alone.await.unwrap();
    assert_eq!(alone.code, Some(1), "{alone:?}");
    assert!(
        alone.stderr.contains("no gateway can be asked"),
        "{alone:?}"
    );
    assert_eq!(gateway.client().get("/").await.status, 200);
}

async fn all_are_answered(address: SocketAddr) {
    for _ in 0..40 {
        let mut raw = RawConnection::open(address).await;
        raw.write("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
        let (answer, in_order) = raw.to_close().await;
        assert!(in_order && answer.starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn more_and_fewer_workers_and_another_listener() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let listeners = |addresses: &[SocketAddr]| {
        let all = addresses
            .iter()
            .map(|address| format!("{{address: \"{address}\"}}"));
        format!("[{}]", all.collect::<Vec<_>>().join(", "))
    };
    let free = || {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
    };
    let (stays, goes, comes) = (free(), free(), free());
    let setup = |threads: usize, addresses: &[SocketAddr]| {
        let server = server("").replace("threads: 2", &format!("threads: {threads}"));
        Setup::new(&origin)
            .top("server", &server)
            .top("listeners", &listeners(addresses))
    };
    let mut gateway = setup(2, &[stays, goes]).start().await;
    for (threads, addresses) in [
        (4, [stays, comes]),
        (1, [comes, stays]),
        (2, [stays, comes]),
    ] {
        gateway.write(&setup(threads, &addresses));
        gateway.upgrade().await;
        gateway.only_the_last_process(SOON).await;
        for address in addresses {
            all_are_answered(address).await;
        }
        wait_until("the listener that is gone refuses", SOON, || {
            std::net::TcpStream::connect(goes).is_err()
        })
        .await;
    }
}

#[tokio::test]
async fn what_a_reload_refuses_a_take_over_takes_up() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let mut gateway = setup(&origin).start().await;
    let changed = setup(&origin)
        .top(
            "cache",
            "{l2: {disk: {path: l2}}, purge_log: {max_records: 1000}}",
        )
        .top("telemetry", "{recent_requests: {keep: 7}}");
    gateway.write(&changed);
    let refused = gateway.reload().await;
    assert_eq!(refused.status, 422, "{}", refused.said);
    gateway.upgrade().await;
    gateway.only_the_last_process(SOON).await;
    assert_eq!(gateway.client().get("/").await.status, 200);
    let same = gateway.reload().await;
    assert_eq!(same.status, 200, "{}", same.said);
    assert_eq!(same.said["hash_before"], same.said["hash_after"]);
    wait_for("the page is on the disk", SOON, || async {
        let stored = [("outcome", "stored")];
        let written = gateway.metric("lamina_l2_writes_total", &stored).await;
        (written >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_admin_listener_goes_along_also_over_a_unix_socket() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let dir = tempfile::tempdir().unwrap();
    let admin = dir.path().join("admin.sock");
    let setup = setup(&origin).top(
        "admin",
        &format!("{{address: \"unix:{}\"}}", admin.display()),
    );
    let mut gateway = setup.start().await;
    for _ in 0..2 {
        gateway.upgrade().await;
        gateway.only_the_last_process(SOON).await;
        assert!(is_ready(&gateway).await);
        assert_eq!(gateway.client().get("/").await.status, 200);
        gateway.purge(serde_json::json!({"all": true})).await;
    }
    let last = gateway.current_process();
    terminate(last);
    ended(last, SOON).await;
    assert!(!admin.exists(), "the last one removes it");
}

#[tokio::test]
async fn sessions_are_resumed_by_the_new_process() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let secured = SecuredGateway::start(setup(&origin)).await;
    let reach = e2e::h3::Reach::default();
    assert_eq!(secured.client_by(&reach).await.get("/").await.status, 200);
    secured.gateway.upgrade().await;
    assert_eq!(secured.client_by(&reach).await.get("/").await.status, 200);
    let resumed = [("outcome", "resumed")];
    let name = "lamina_quic_handshakes_total";
    assert_eq!(secured.gateway.metric(name, &resumed).await, 1.0);

    let with = |setup: Setup| setup.top("server", &server(""));
    let site = HttpsSite::with("", with, |_| Reply::fresh("page")).await;
    let client = site.client();
    let resumed = async || {
        client
            .connect()
            .await
            .unwrap()
            .answer(e2e::tls::site::NAME)
            .await
    };
    assert_eq!(resumed().await, Ok((200, false)));
    site.gateway.upgrade().await;
    assert_eq!(resumed().await, Ok((200, true)));
}

/// Octets of a piece, larger than what a client may send before it hears of more room.
const PIECE: usize = 400 << 10;

/// A process that has died tells nobody, but the one that took its place can: it knows the secret
/// that the connection's stateless reset was made by.
#[tokio::test]
async fn clients_of_a_process_that_has_died_are_told_by_the_next_one() {
    let gate = Gate::new();
    let origin = site(&gate).await;
    let mut secured = SecuredGateway::start(setup(&origin)).await;
    let reach = Reach::with(|transport| {
        transport.keep_alive_interval(Some(Duration::from_millis(200)));
    });
    let client = secured.client_by(&reach).await;
    let asking = client.clone();
    let under_way = tokio::spawn(async move { asking.request("/held/0").try_send().await });
    gate.reached_by(1).await;
    secured.gateway.upgrade().await;
    assert!(secured.gateway.is_running(), "a request is under way");
    secured.gateway.kill();
    secured.gateway.ended(SOON).await;
    // Its silence would be noticed after 30 seconds alone, with another reason.
    let ended = within("the reset", SOON, client.connection.closed()).await;
    assert_eq!(ended, quinn::ConnectionError::Reset);
    gate.open();
    under_way.abort();
    assert_eq!(secured.client().await.get("/new").await.status, 200);
}

/// At once, and not when the drain's time is over: clients are to go to the new process while
/// requests are still under way.
#[tokio::test]
async fn goaway_comes_over_http3_while_requests_are_under_way() {
    let gate = Gate::new();
    let origin = site(&gate).await;
    let mut secured = SecuredGateway::start(setup(&origin)).await;
    let raw = secured.raw().await;
    let mut under_way = raw.stream(headers(&raw.get("/held/0"))).await;
    let _ = under_way.send.finish();
    gate.reached_by(1).await;
    let idle = secured.raw().await;
    assert!(idle.answers("/page").await);
    secured.gateway.upgrade().await;
    let told = raw.goaways(2).await;
    assert_eq!(told[1], 4, "one request was sent");
    assert_eq!(idle.closed().await, RawEnd::Closed(code::NO_ERROR));
    assert_eq!(idle.seen().goaways.len(), 2);
    let late = raw.ask(headers(&raw.get("/late"))).await;
    assert_eq!(late, RawEnd::Reset(code::REQUEST_REJECTED));
    assert!(secured.gateway.is_running(), "a request is under way");
    gate.open();
    match under_way.end().await {
        RawEnd::Answered(answer) => assert_eq!(&answer.body[..], b"/held/0"),
        end => panic!("{end:?}"),
    }
    assert_eq!(raw.closed().await, RawEnd::Closed(code::NO_ERROR));
    secured.gateway.only_the_last_process(SOON).await;
}

#[tokio::test]
async fn requests_over_http3_end_and_new_ones_go_on() {
    let gate = Gate::new();
    let origin = site(&gate).await;
    let mut secured = SecuredGateway::start(setup(&origin)).await;
    let mut under_way = Vec::new();
    for n in 0..4 {
        let client = secured.client().await;
        under_way.push(tokio::spawn(async move {
            client.get(&format!("/held/{n}")).await
        }));
        gate.reached_by(n + 1).await;
    }
    // What is still to be sent can come to the old process through the new ones alone.
    let client = secured.client().await;
    let uploading = client.ask(Method::POST, "/upload").open().await;
    let mut uploading = uploading.unwrap();
    assert!(uploading.upload.send(vec![b'u'; PIECE]).await);
    wait_until("the upload has begun", SOON, || {
        origin.count_of("/upload") == 1
    })
    .await;
    // More workers, fewer, and as many: the ways of datagrams differ.
    for threads in [3, 1, 2] {
        let server = server("").replace("threads: 2", &format!("threads: {threads}"));
        let setup = Setup::new(&origin).top("server", &server);
        secured
            .gateway
            .write(&secured.certificates.secure(setup, ""));
        secured.gateway.upgrade().await;
        let mut fresh = Vec::new();
        for _ in 0..8 {
            let client = secured.client().await;
            assert_eq!(client.get("/new").await.status, 200);
            fresh.push(client);
        }
    }
    assert!(secured.gateway.is_running(), "requests are under way");
    for _ in 0..3 {
        assert!(uploading.upload.send(vec![b'u'; PIECE]).await);
    }
    assert!(uploading.upload.finish().await);
    let answer = uploading.download.answer().await.unwrap();
    assert_eq!(answer.text(), format!("{} bytes", 4 * PIECE));
    drop(client);
    gate.open();
    for (n, answer) in under_way.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, &*format!("/held/{n}"))
        );
    }
    let passed = "lamina_quic_passed_on_packets_total";
    secured
        .gateway
        .metric_until(passed, &[], |count| count > 0.0)
        .await;
    secured.gateway.only_the_last_process(SOON).await;
}

#[tokio::test]
async fn purges_hold_and_the_disk_goes_along() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let mut gateway = setup(&origin)
        .top("cache", "{l2: {disk: {path: l2}}}")
        .start()
        .await;
    let client = gateway.client();
    for page in ["/kept", "/purged-before", "/purged-after"] {
        assert_eq!(client.get(page).await.status, 200);
    }
    gateway
        .purge(serde_json::json!({"prefix": "/purged-before"}))
        .await;
    drop(client);
    gateway.upgrade().await;
    // Perhaps before it has the disk.
    gateway
        .purge(serde_json::json!({"prefix": "/purged-after"}))
        .await;
    gateway.only_the_last_process(SOON).await;
    wait_for("the disk is its own", SOON, || async {
        let told = gateway.admin(Method::GET, "/readyz", "").await.text;
        told.contains("\"state\":\"serving\",").then_some(())
    })
    .await;
    let client = gateway.client();
    assert!(client.get("/kept").await.is_hit(), "from the disk");
    for page in ["/purged-before", "/purged-after"] {
        assert!(!client.get(page).await.is_hit(), "{page}");
    }
    assert_eq!(origin.count_of("/kept"), 1);
}

/// Take-overs of the short run.
const TURNS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_fails_nothing() {
    let origin = Origin::start(load::answer).await;
    let certificates = Certificates::new(&[NAME, OTHER_NAME]);
    let secured = "{address: \"127.0.0.1:0\", protocols: [http1, http2, http3], \
                   tls: {certificates: [{cert: server.crt, key: server.key}]}}";
    let files = certificates.files().into_iter();
    let setup = files.fold(setup(&origin), |setup, (name, text)| setup.file(name, text));
    let setup = setup
        .top("listeners", &format!("[{secured}, {{address: \"127.0.0.1:0\"}}]"))
        .top("telemetry", "{log_format: json, access_log: off}")
        .route("{name: pages, match: {path: /page/*}, upstream: origin, policy: {mode: override, ttl: 1m}}")
        .route("{name: rest, upstream: origin, cache: off}");
    let gateway = Arc::new(SecuredGateway {
        gateway: setup.start().await,
        certificates,
    });
    let report = Arc::new(LoadReport::default());
    let clients = load::start(&gateway, &report);
    report.begin();
    for turn in 0..TURNS {
        let before = report.all_good();
        wait_until("the load goes on", SOON * 2, || {
            report.all_good() > before + 500
        })
        .await;
        if turn == 1 {
            let failing = script(&gateway.gateway.dir().join("failing"), "exit 1");
            let ran = gateway.gateway.try_upgrade(&["--binary", &failing]).await;
            assert_eq!(ran.code, Some(1), "{ran:?}");
        }
        gateway.gateway.upgrade().await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    report.end();
    clients.stop().await;
    assert_eq!(report.all_failed(), 0, "{}", report.text());
    for kind in [
        "http1", "https", "http2", "http3", "anew", "tunnel", "events",
    ] {
        assert!(
            report.good_by_kind().contains_key(kind),
            "{}",
            report.text()
        );
    }
    let mut gateway = Arc::into_inner(gateway).unwrap();
    gateway.gateway.only_the_last_process(SOON * 3).await;
}
