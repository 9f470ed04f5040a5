//! Real name servers: `dnsmasq` with a port and a folder of its own, for names below `test`; and one
//! that refuses everything.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::free_port::free_port;
use crate::wait::{SOON, wait_for};

/// A running name server, whose records live for a second.
pub struct NameServer {
    process: Option<Child>,
    dir: TempDir,
    pub address: SocketAddr,
    services: Vec<String>,
}

/// The response code SERVFAIL (RFC 1035 §4.1.1).
pub const SERVFAIL: u8 = 2;

/// How often a [`RefusingNameServer`] looks whether it has been ended.
const LOOK_UP: Duration = Duration::from_millis(20);

impl NameServer {
    /// Starts one that knows these names with their addresses.
    pub async fn start(names: &[(&str, &[&str])]) -> Self {
        let mut server = Self {
            process: None,
            dir: tempfile::tempdir().unwrap(),
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
            services: Vec::new(),
        };
        server.write(names);
        server.start_again().await;
        server
    }

    /// Replaces all names and their addresses; those of one that does not run or hangs, for later.
    pub fn set(&self, names: &[(&str, &[&str])]) {
        self.write(names);
        if self.process.is_some() {
            self.signal("-HUP");
        }
    }

    /// Replaces all services: name, host, port, priority and weight. The server starts anew.
    pub async fn set_services(&mut self, services: &[(&str, &str, u16, u16, u16)]) {
        let option = |(name, host, port, priority, weight): &(&str, &str, u16, u16, u16)| {
            format!("--srv-host={name},{host},{port},{priority},{weight}")
        };
        self.services = services.iter().map(option).collect();
        self.stop();
        self.start_again().await;
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it at the same address with the same names.
    pub async fn start_again(&mut self) {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let process = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
            ])
            .args([
                "--no-resolv",
                "--no-hosts",
                "--local=/test/",
                "--log-queries",
            ])
            .args(["--local-ttl=1", "--neg-ttl=1", "--listen-address=127.0.0.1"])
            .args(["--cname=alias.test,app.test", "--cname=far.test,alias.test"])
            .args(["--bind-interfaces", &format!("--pid-file={}", file("pid"))])
            .arg(format!("--port={}", self.address.port()))
            .arg(format!("--addn-hosts={}", file("names")))
            .arg(format!("--log-facility={}", file("log")))
            .args(&self.services)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq is installed (make test-install)");
        self.process = Some(process);
        let address = self.address;
        wait_for("the name server answers", SOON, || async move {
            TcpStream::connect(address).await.ok()
        })
        .await;
    }

    /// Lets it hang: it answers nothing and closes nothing.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// How often it was asked for records of this type of a name.
    pub fn asked(&self, records: &str, name: &str) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.matches(&format!("query[{records}] {name} from"))
            .count()
    }

    /// The settings of an upstream that uses this server, and asks as often as it may.
    pub fn resolver(&self) -> String {
        format!("resolver: {{servers: [\"{}\"], floor: 1s}}", self.address)
    }

    fn write(&self, names: &[(&str, &[&str])]) {
        let lines = names.iter().flat_map(|(name, addresses)| {
            addresses
                .iter()
                .map(move |address| format!("{address} {name}\n"))
        });
        let unfinished = self.dir.path().join("unfinished");
        fs::write(&unfinished, lines.collect::<String>()).unwrap();
        fs::rename(unfinished, self.dir.path().join("names")).unwrap();
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("the name server runs").id();
        let sent = Command::new("kill")
            .args([signal, &process.to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What answers every question with a response code.
pub struct RefusingNameServer {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Answers every question at this address with a response code, until it is told to end; at the
/// latest until the test ends.
pub fn refuse_all(address: SocketAddr, code: u8) -> RefusingNameServer {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(LOOK_UP)).unwrap();
    let ended = Arc::<AtomicBool>::default();
    let until = Arc::clone(&ended);
    let thread = thread::spawn(move || {
        let mut packet = [0; 1_500];
        while !until.load(Ordering::SeqCst) {
            let Ok((length, from)) = socket.recv_from(&mut packet) else {
                continue;
            };
            // QR and RD; RA and the code (RFC 1035 §4.1.1).
            packet[2] |= 0x80;
            packet[3] = 0x80 | code;
            let _ = socket.send_to(&packet[..length], from);
        }
    });
    RefusingNameServer { ended, thread }
}

impl RefusingNameServer {
    /// Nothing answers at the address when this is done.
    pub fn end(self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = self.thread.join();
    }
}

/// Addresses of this machine, one for each `n` from 2 on.
pub fn loopback(n: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, n])
}
