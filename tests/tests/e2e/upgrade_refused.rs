//! Take-overs that must not be, and what happens meanwhile: in a container whose first process the
//! gateway is, by a process that was silent for too long, and a reload that is asked for under way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use e2e::cli;
use e2e::client::Client;
use e2e::free_port::free_address;
use e2e::gate::Gate;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::process::children;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tools;
use e2e::upgrade::{script, server};
use e2e::wait::{SOON, wait_for, wait_until};
use lamina_base::descriptor_channel::DescriptorChannel;
use serde_json::{Value, json};

fn setup(origin: &Origin) -> Setup {
    Setup::new(origin).top("server", &server(""))
}

fn answers(address: std::net::SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

/// The end of the first process of a container is the end of all others in it.
#[tokio::test]
async fn the_first_process_of_a_container_is_not_replaced() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let address = free_address();
    let listeners = format!("[{{address: \"{address}\"}}]");
    let (dir, config) = setup(&origin).top("listeners", &listeners).write();
    let mut container = Command::new("unshare");
    container.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    container
        .arg(cli::binary())
        .arg("run")
        .arg("-c")
        .arg(&config);
    let quiet = container
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(mut container) = quiet.spawn() else {
        return tools::is_missing("unshare", "a gateway as the first process of a container");
    };
    wait_until("it serves, or can't be isolated", SOON, || {
        answers(address) || container.try_wait().is_ok_and(|ended| ended.is_some())
    })
    .await;
    if !answers(address) {
        return tools::is_missing(
            "a name space of processes",
            "a gateway that is the first one",
        );
    }
    let first = children(container.id())[0].to_string();
    let mut command = Command::new("nsenter");
    command.args(["-t", &first, "-p", "-m"]).arg(cli::binary());
    let socket = dir.path().join("upgrade.sock");
    let ran = command
        .arg("upgrade")
        .arg("--socket")
        .arg(socket)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(1), "{told}");
    assert!(told.contains("first process of its container"), "{told}");
    assert!(answers(address));
    container.kill().unwrap();
    container.wait().unwrap();
}

/// The side of an old process, as far as a new one sees it.
struct FakeOldProcess(DescriptorChannel);

impl FakeOldProcess {
    fn hears(&self) -> Value {
        let message = self.0.receive(SOON).unwrap().expect("it says something");
        serde_json::from_slice(&message.bytes).unwrap()
    }

    fn says(&self, message: &Value, sockets: &[&TcpListener]) {
        let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
        let bytes = message.to_string().into_bytes();
        self.0.send(&bytes, &sockets, SOON).unwrap();
    }
}

/// Who goes on has both the connections and the purges: two that serve would be two caches, of which
/// each purge reaches one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_predecessor_goes_on_serves_nobody() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let listeners = format!("[{{address: \"{address}\"}}]");
    let (dir, config) = setup(&origin).top("listeners", &listeners).write();
    let socket = UnixListener::bind(dir.path().join("upgrade.sock")).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut new = Command::new(cli::binary());
    new.args(["run", "--take-over", "-c"]).arg(&config);
    let quiet = new
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut new = quiet.spawn().unwrap();
    let old = FakeOldProcess(DescriptorChannel::over(socket.accept().unwrap().0).unwrap());
    assert!(old.hears()["asks"]["take_over"].is_object());
    let port = json!({
        "purpose": "clients",
        "configured": address.to_string(),
        "bound": address.to_string(),
        "streams": 1,
        "datagrams": 0,
        "locks": 0,
        "earlier": [],
    });
    let state = json!({"version": "0.0.9", "generation": 0, "secret": [], "ports": [port]});
    old.says(&json!({"state": state}), &[&listener]);
    assert!(old.hears()["ready"].is_object());
    old.says(&json!({"yours": {"purged": false, "told": 0}}), &[]);
    old.says(
        &json!({"refused": {"why": "it was silent for too long"}}),
        &[],
    );
    old.0.close();
    let mut ended = None;
    wait_until("the new process ends", SOON, || {
        ended = new.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert_eq!(ended.and_then(|status| status.code()), Some(1));
    // What waits is still there for whoever goes on.
    listener.set_nonblocking(true).unwrap();
    let (mut waiting, _) = listener.accept().expect("nobody has accepted it");
    waiting.set_nonblocking(false).unwrap();
    waiting.set_read_timeout(Some(SOON)).unwrap();
    let mut asked = [0; 5];
    waiting.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"GET /");
}

/// A site of which the `server` section allows upgrades and the warm-up waits at the gate.
async fn slow_start(gate: &Gate) -> (Origin, Setup) {
    let (gate, loads) = (gate.clone(), Arc::new(AtomicU64::new(0)));
    let origin = Origin::start(move |_| {
        let (gate, loads) = (gate.clone(), Arc::clone(&loads));
        async move {
            // The first load is a client's, the second one that of the new process.
            if loads.fetch_add(1, Relaxed) == 1 {
                gate.pass().await;
            }
            Reply::fresh("page")
        }
    })
    .await;
    let cache = "{warm: {file: hot, for: 30s, origins: true}}";
    let setup = setup(&origin).top("cache", cache);
    (origin, setup)
}

/// The new process has read its file before that was changed, and the old one hears the signal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_during_a_take_over_is_followed_by_the_process_that_serves_then() {
    let gate = Gate::new();
    let (_origin, setup) = slow_start(&gate).await;
    let gateway = Arc::new(setup.start().await);
    assert_eq!(gateway.client().get("/").await.status, 200);
    let upgrading = {
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move { gateway.upgrade().await })
    };
    gate.reached_by(1).await;
    gateway.write(&setup.route("{name: other, upstream: origin}"));
    gateway.hang_up();
    gateway
        .logged("the signal", |line| line.contains("SIGHUP: reloading"))
        .await;
    gate.open();
    upgrading.await.unwrap();
    gateway.reloads_until("applied", 1.0).await;
    let same = gateway.plan(&gateway.dir().join("lamina.yaml")).await;
    assert_eq!(
        same.said["hash_before"], same.said["hash_after"],
        "{}",
        same.said
    );
}

/// A script that stays is the parent of the process that serves.
#[tokio::test]
async fn a_program_that_starts_the_gateway_is_an_upgrade_too() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let gateway = setup(&origin).start().await;
    let program = script(&gateway.dir().join("program"), "$LAMINA \"$@\"; exit $?");
    let ran = gateway.try_upgrade(&["--binary", &program]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    assert_eq!(gateway.client().get("/").await.status, 200);
}

/// Wider addresses than those that are open, as an operator has them who lets other machines in.
#[tokio::test]
async fn listeners_get_all_addresses_of_the_machine_by_a_reload_and_by_a_take_over() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let (clients, admin) = (free_address(), free_address());
    let token = "a-token-of-the-operator";
    let with = |ip: &str, admin_ip: &str| {
        let listeners = format!("[{{address: \"{ip}:{}\"}}]", clients.port());
        let admin = format!(
            "{{address: \"{admin_ip}:{}\", token: {token}}}",
            admin.port()
        );
        setup(&origin)
            .top("listeners", &listeners)
            .top("admin", &admin)
    };
    let (one, all) = ("127.0.0.1", "0.0.0.0");
    let gateway = with(one, one).start().await.with_token(token);
    let serves = || {
        let ask = e2e::client::Client::http1(clients).uncached();
        async move { ask.get("/").await.status }
    };
    for ip in [all, one, all] {
        gateway.take_up(&with(ip, one)).await;
        assert_eq!(serves().await, 200, "{ip}");
    }
    for (ip, admin_ip) in [(all, all), (one, one), (all, one), ("[::]", all)] {
        gateway.write(&with(ip, admin_ip));
        gateway.upgrade().await;
        assert_eq!(serves().await, 200, "{ip}");
        let ready = gateway.admin(http::Method::GET, "/readyz", "").await;
        assert_eq!(ready.status, 200, "{admin_ip}");
    }
    gateway.write(&with(all, one));
    assert_eq!(
        gateway.reload().await.status,
        422,
        "admin.address is not live"
    );
    drop(gateway);
    // Both kinds of addresses beside each other.
    let port = clients.port();
    let secured = ", protocols: [http1, http2, http3], tls: {certificates: [{local: {names: [localhost], dir: ca}}]}";
    for more in ["", secured] {
        for (first, second) in [("0.0.0.0", "[::]"), ("[::]", "0.0.0.0")] {
            let listener = |ip: &str| format!("{{address: \"{ip}:{port}\"{more}}}");
            let both = format!("[{}, {}]", listener(first), listener(second));
            let gateway = Setup::new(&origin).top("listeners", &both).start().await;
            assert!(answers(clients), "{both}");
            drop(gateway);
        }
    }
}

/// Where the next process could not be asked to hand over is said before the present one ends.
#[tokio::test]
async fn an_upgrade_socket_that_cannot_be_made_refuses_the_take_over() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let gateway = setup(&origin).start().await;
    let elsewhere = gateway.dir().join("none/upgrade.sock");
    let elsewhere = format!("{{upgrade_socket: \"{}\"}}", elsewhere.display());
    gateway.write(&Setup::new(&origin).top("server", &elsewhere));
    let socket = gateway.dir().join("upgrade.sock");
    let ran = gateway
        .try_upgrade(&["--socket", socket.to_str().unwrap()])
        .await;
    assert_ne!(ran.code, Some(0), "{}", ran.output());
    assert!(
        ran.output().contains("does its folder exist"),
        "{}",
        ran.output()
    );
    assert_eq!(gateway.client().get("/").await.status, 200);
    gateway.write(&setup(&origin));
    gateway.upgrade().await;
    assert_eq!(gateway.client().get("/").await.status, 200);
}

#[tokio::test]
async fn the_mode_of_the_admin_socket_follows_a_take_over() {
    use std::os::unix::fs::PermissionsExt;
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let with = |mode: &str| {
        let admin = format!(
            "{{address: \"unix:{}\", socket_mode: \"{mode}\"}}",
            socket.display()
        );
        setup(&origin).top("admin", &admin)
    };
    let gateway: Gateway = with("0600").start().await;
    let mode = || std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    gateway.write(&with("0660"));
    gateway.upgrade().await;
    assert_eq!(mode(), 0o660);
}

#[tokio::test]
async fn a_listener_and_the_admin_listener_can_change_places_by_a_take_over() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let (one, other) = (free_address(), free_address());
    let with = |clients: SocketAddr, admin: SocketAddr| {
        setup(&origin)
            .top("listeners", &format!("[{{address: \"{clients}\"}}]"))
            .top("admin", &format!("{{address: \"{admin}\"}}"))
    };
    let gateway = with(one, other).start().await;
    for (clients, admin) in [(other, one), (one, other)] {
        gateway.write(&with(clients, admin));
        gateway.upgrade().await;
        let ask = |address, path| async move { Client::http1(address).uncached().get(path).await };
        wait_for("both are what the file says", SOON, || async {
            let (page, ready) = (ask(clients, "/").await, ask(admin, "/readyz").await);
            (page.text() == "page" && ready.text().contains("serving")).then_some(())
        })
        .await;
    }
}
