//! Sockets that were open before the gateway began: of a `.socket` unit, by
//! `systemd-socket-activate`, and kept by a service manager over a restart.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use e2e::cli;
use e2e::free_port::free_address;
use e2e::h3::NAME;
use e2e::h3::certificates::Certificates;
use e2e::h3::client::H3Client;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::{Setup, write_config};
use e2e::tls::TlsClient;
use e2e::tools;
use e2e::wait::{SOON, wait_for, wait_until};
use futures_util::future::join_all;
use serde_json::Value;

const RESTARTS: u64 = 5;
/// Answers before, between and after the restarts, at least.
const LEAST: u64 = 50 * (RESTARTS + 1);

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    free.local_addr().unwrap()
}

async fn origin() -> Origin {
    Origin::pages(|_| Reply::fresh("page")).await
}

fn setup(origin: &Origin, listeners: &[SocketAddr]) -> Setup {
    let listeners: Vec<_> = listeners
        .iter()
        .map(|address| format!("{{address: \"{address}\"}}"))
        .collect();
    Setup::new(origin).top("listeners", &format!("[{}]", listeners.join(", ")))
}

/// A gateway that is started by the first connection to one of these sockets.
struct Activated {
    process: Child,
}

/// The kind of the sockets that a gateway is started with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SocketKind {
    Stream,
    Datagram,
}

impl Activated {
    /// None: the program is not here.
    fn begin(sockets: &[SocketAddr], config: &Path) -> Option<Self> {
        Self::begin_by(SocketKind::Stream, sockets, config)
    }

    fn begin_by(kind: SocketKind, sockets: &[SocketAddr], config: &Path) -> Option<Self> {
        let mut command = Command::new("systemd-socket-activate");
        if kind == SocketKind::Datagram {
            command.arg("--datagram");
        }
        for socket in sockets {
            command.arg("-l").arg(socket.to_string());
        }
        let command = command
            .arg(cli::binary())
            .args(["run", "-c"])
            .arg(config)
            .stderr(Stdio::piped());
        match command.spawn() {
            Ok(process) => Some(Self { process }),
            Err(_) => {
                tools::is_missing("systemd-socket-activate", "socket activation");
                None
            }
        }
    }

    /// Starts the program at once with these sockets, each as `KIND:ADDRESS:NAME`. None: Python is not
    /// here.
    fn with(sockets: impl Iterator<Item = String>, config: &Path) -> Option<Self> {
        let script = cli::repository().join("tests/data/service_manager/activate.py");
        let mut command = Command::new("python3");
        command.arg(script).args(sockets).arg("--");
        command.arg(cli::binary()).args(["run", "-c"]).arg(config);
        match command.stderr(Stdio::piped()).spawn() {
            Ok(process) => Some(Self { process }),
            Err(_) => {
                tools::is_missing("python3", "sockets of both kinds");
                None
            }
        }
    }

    async fn ended(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        wait_until("it ends", SOON, || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        })
        .await;
        let mut told = String::new();
        let mut stderr = self.process.stderr.take().unwrap();
        stderr.read_to_string(&mut told).unwrap();
        (status.unwrap(), told)
    }

    /// Reads its log in the background, so that it is never in its way.
    fn follow(&mut self) {
        let stderr = BufReader::new(self.process.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().for_each(drop));
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The answer to a request, which may have to wait for the gateway to start.
async fn get(address: SocketAddr) -> String {
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(b"GET /page HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    });
    let answer = asked.await.unwrap();
    answer.unwrap_or_else(|error| error.to_string())
}

async fn answers(address: SocketAddr) {
    wait_for(&format!("{address} answers"), SOON, || async {
        get(address).await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_starts_the_gateway_and_is_answered_by_it() {
    let origin = origin().await;
    let (inherited, bound) = (free(), free());
    let admin = free();
    let setup = setup(&origin, &[inherited, bound]);
    let setup = setup.top("admin", &format!("{{address: \"{admin}\"}}"));
    let (dir, config) = setup.write();
    let Some(mut gateway) = Activated::begin(&[inherited], &config) else {
        return;
    };
    gateway.follow();
    answers(inherited).await;
    // A listener without a socket is opened as usual.
    answers(bound).await;

    // Another configuration keeps the inherited socket.
    let limits = format!("[{{address: \"{inherited}\", limits: {{max_headers: 50}}}}]");
    write_config(dir.path(), &setup.top("listeners", &limits).yaml());
    let reload = cli::run(&["reload", "--admin", &admin.to_string()]);
    assert_eq!(reload.code, Some(0), "{}", reload.output());
    assert!(
        reload.stdout.contains("limits.max_headers"),
        "{}",
        reload.stdout
    );
    answers(inherited).await;
    wait_until("the listener that is gone refuses", SOON, || {
        TcpStream::connect(bound).is_err()
    })
    .await;
}

/// A listener that speaks HTTP/3, with everything that it needs.
fn setup_http3(origin: &Origin, address: SocketAddr, certificates: &Certificates) -> Setup {
    let tls = "{certificates: [{cert: server.crt, key: server.key}]}";
    let listener =
        format!("[{{address: \"{address}\", protocols: [http1, http2, http3], tls: {tls}}}]");
    let files = certificates.files().into_iter();
    let setup = files.fold(Setup::new(origin), |setup, (name, content)| {
        setup.file(name, content)
    });
    setup.top("listeners", &listener)
}

/// Many connections over HTTP/3 are answered, and one over TCP.
async fn answers_http3(address: SocketAddr, certificates: &Certificates) {
    let ask = || async {
        let client = H3Client::at(address, certificates).await?;
        let answer = client.request("/page").try_send().await.ok()?;
        (answer.text() == "page").then_some(client)
    };
    let client = wait_for("the gateway answers over HTTP/3", SOON, ask).await;
    // Also those that the kernel gives to another socket, or the socket to another worker.
    let more = join_all((0..8).map(|_| ask())).await;
    assert!(more.iter().all(Option::is_some), "{address}");
    assert_eq!(client.get("/page").await.status, 200);
    let over_tcp = TlsClient::new(address, NAME).status(NAME).await;
    assert_eq!(over_tcp, Ok(200));
}

/// As by `ListenDatagram=`: the first datagram starts the gateway, which opens the socket of TCP
/// itself. A second socket of UDP could not be opened beside the first.
#[tokio::test]
async fn a_datagram_starts_the_gateway_and_is_answered_over_http3() {
    let origin = origin().await;
    let address = free_address();
    let certificates = Certificates::new(&[NAME]);
    let (_dir, config) = setup_http3(&origin, address, &certificates).write();
    let begun = Activated::begin_by(SocketKind::Datagram, &[address], &config);
    let Some(mut gateway) = begun else {
        return;
    };
    gateway.follow();
    answers_http3(address, &certificates).await;
}

/// As by a unit with both, with several of each, with names and without, and with IPv6: whichever
/// kind is missing is opened.
#[tokio::test]
async fn sockets_of_both_kinds_belong_to_the_listener_of_their_address() {
    let (origin, certificates) = (origin().await, Certificates::new(&[NAME]));
    for (host, sockets) in [
        ("127.0.0.1", "stream datagram"),
        (
            "127.0.0.1",
            "datagram:web stream:web datagram:web datagram:web",
        ),
        ("[::1]", "datagram"),
        ("[::1]", "datagram datagram stream"),
    ] {
        let port = free_address().port();
        let address = format!("{host}:{port}").parse().unwrap();
        let (_dir, config) = setup_http3(&origin, address, &certificates).write();
        let sockets = sockets.split(' ').map(|socket| {
            let (kind, name) = socket.split_once(':').unwrap_or((socket, "unknown"));
            format!("{kind}:{address}:{name}")
        });
        let Some(mut gateway) = Activated::with(sockets, &config) else {
            return;
        };
        gateway.follow();
        answers_http3(address, &certificates).await;
    }
}

#[tokio::test]
async fn a_datagram_socket_of_a_listener_without_http3_is_an_error_that_names_it() {
    let address = free_address();
    let (_dir, config) = setup(&origin().await, &[address]).write();
    let sockets = ["stream", "datagram"].map(|kind| format!("{kind}:{address}:web"));
    let Some(mut gateway) = Activated::with(sockets.into_iter(), &config) else {
        return;
    };
    let (status, told) = gateway.ended().await;
    assert_eq!(status.code(), Some(2), "{told}");
    assert!(told.contains(&address.to_string()), "{told}");
    assert!(told.contains("that speaks HTTP/3"), "{told}");
}

#[tokio::test]
async fn a_socket_that_no_listener_has_is_an_error_that_names_it() {
    let origin = origin().await;
    let (listed, stranger) = (free(), free());
    let (_dir, config) = setup(&origin, &[listed]).write();
    let Some(mut gateway) = Activated::begin(&[listed, stranger], &config) else {
        return;
    };
    // The socket is open when the program says so, at the latest when somebody gets through.
    wait_until("somebody listens", SOON, || {
        TcpStream::connect(listed).is_ok()
    })
    .await;
    let (status, told) = gateway.ended().await;
    assert_eq!(status.code(), Some(2), "{told}");
    assert!(told.contains(&stranger.to_string()), "{told}");
    assert!(told.contains("belongs to no listener"), "{told}");
}

/// As with `FileDescriptorStoreMax=` in the unit.
#[tokio::test]
async fn a_restart_loses_no_connection_where_the_manager_keeps_sockets() {
    let origin = origin().await;
    let address = free();
    let route = "{name: site, upstream: origin}";
    let (_dir, config) = setup(&origin, &[address]).route(route).write();
    let script = cli::repository().join("tests/data/service_manager/restarts.py");
    let binary = cli::binary();
    let (port, restarts) = (address.port().to_string(), RESTARTS.to_string());
    let ran = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("python3");
        command.arg(script).arg(binary).arg(config);
        command.args([port, restarts]).output()
    });
    let Ok(output) = ran.await.unwrap() else {
        tools::is_missing("python3", "a restart with kept sockets");
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(&told)
        .unwrap_or_else(|_| panic!("{told} {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(told["failed"], Value::Array(Vec::new()), "{told}");
    assert!(told["answered"].as_u64().unwrap() >= LEAST, "{told}");
    let name = format!("lamina_{}", address.to_string().replace(':', "_"));
    assert_eq!(told["kept"][&name], 2, "one for each worker: {told}");
}

/// Such as those of a wrapper that closes what it was handed.
#[tokio::test]
async fn descriptors_that_were_said_and_not_handed_over_are_an_error() {
    let origin = origin().await;
    let (_dir, config) = setup(&origin, &[free()]).write();
    for (said, expected) in [
        ("900", "is not open"),
        ("-1", "expected the number of descriptors"),
        ("many", "expected the number of descriptors"),
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=$0 exec \"$@\"", said]);
        command.arg(cli::binary()).args(["run", "-c"]).arg(&config);
        let process = command.stderr(Stdio::piped()).spawn().unwrap();
        let (status, told) = Activated { process }.ended().await;
        assert_eq!(status.code(), Some(1), "{said}: {status} {told}");
        assert!(told.contains(expected), "{said}: {told}");
    }
}
