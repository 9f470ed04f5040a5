//! Real RabbitMQ servers, each with a folder, ports and an epmd of its own.
//!
//! Several may run beside one another and beside a system's own: node name, cookie (by
//! `HOME`), every port and the epmd are its own. It takes some seconds to start one.
//! A server can be killed, frozen and started again with its data. Dropping kills it; so
//! does the end of our process, however that comes: `shared` is never dropped.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::certificates;
use crate::free_port::free_port;
use crate::process;
use crate::wait::{SOON, wait_for};

/// A running (or killed) server.
pub struct Rabbit {
    server: Child,
    names: Child,
    guard: Child,
    place: Place,
    pub port: u16,
    /// Where it speaks TLS.
    pub tls_port: u16,
}

/// Where a server lives.
struct Place {
    dir: TempDir,
    node: String,
    names_port: u16,
    links_port: u16,
}

/// To start takes 6 s on an idle machine.
const START: Duration = Duration::from_secs(90);
/// Between two looks, each of which the server answers with work.
const POLL: Duration = Duration::from_millis(50);

static SHARED: OnceCell<Rabbit> = OnceCell::const_new();

/// The server that all tests of a process may use which don't harm it, under names of
/// their own.
pub async fn shared() -> &'static Rabbit {
    SHARED.get_or_init(Rabbit::start).await
}

static HARMED: OnceCell<Mutex<Rabbit>> = OnceCell::const_new();

/// A server that one test at a time may kill and freeze, under names of its own.
pub async fn harmed() -> MutexGuard<'static, Rabbit> {
    let harmed = HARMED.get_or_init(|| async { Mutex::new(Rabbit::spawn()) });
    let mut rabbit = harmed.await.lock().await;
    // As a test that failed may have left it.
    rabbit.thaw();
    if !rabbit.lives() {
        rabbit.respawn();
    }
    rabbit.ready().await;
    rabbit
}

impl Rabbit {
    /// A new server, without waiting for it.
    pub fn spawn() -> Self {
        let port = free_port();
        let place = Place {
            dir: tempfile::tempdir().unwrap(),
            node: format!("lamina-{}-{port}@localhost", std::process::id()),
            names_port: free_port(),
            links_port: free_port(),
        };
        certificates::make(place.dir.path());
        let tls_port = free_port();
        let [ca, server, key] = ["ca.pem", "server.pem", "server.key"].map(|f| place.path(f));
        let (ca, server, key) = (ca.display(), server.display(), key.display());
        // A machine that runs tests may be short of disk and memory.
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nlisteners.ssl.1 = 127.0.0.1:{tls_port}\n\
             ssl_options.cacertfile = {ca}\nssl_options.certfile = {server}\n\
             ssl_options.keyfile = {key}\nssl_options.verify = verify_none\n\
             disk_free_limit.absolute = 1MB\nvm_memory_high_watermark.relative = 0.9\n"
        );
        fs::write(place.path("rabbitmq.conf"), config).unwrap();
        let names = place.start_names();
        let server = place.start_server();
        Self {
            guard: place.start_guard(&server, &names),
            names,
            server,
            place,
            port,
            tls_port,
        }
    }

    /// A new server that answers.
    pub async fn start() -> Self {
        let rabbit = Self::spawn();
        rabbit.ready().await;
        rabbit
    }

    pub fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    /// The certificate of who vouches for it.
    pub fn authority(&self) -> Vec<u8> {
        certificates::authority(self.place.dir.path())
    }

    /// Waits until it greets.
    pub async fn ready(&self) {
        let port = self.port;
        wait_for("RabbitMQ greets", START, || async move {
            tokio::time::sleep(POLL).await;
            let greets = tokio::task::spawn_blocking(move || greets(port));
            greets.await.unwrap().then_some(())
        })
        .await;
    }

    /// Whether it was started and not ended since.
    fn lives(&mut self) -> bool {
        self.server.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        // The guard first: it would signal whoever has the numbers then.
        if self.guard.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.guard.kill();
            let _ = self.guard.wait();
            self.signal(Signal::KILL);
            let _ = self.server.wait();
        }
    }

    /// Freezes it: connections stand, new ones are taken by the kernel, answers never come.
    pub fn freeze(&self) {
        process::freeze(self.server.id());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        process::thaw(self.server.id());
    }

    /// Starts it again on its port, with what its folder holds; not waited for.
    pub fn respawn(&mut self) {
        self.kill();
        self.server = self.place.start_server();
        self.guard = self.place.start_guard(&self.server, &self.names);
    }

    /// Starts it again and waits until it answers.
    pub async fn restart(&mut self) {
        self.respawn();
        self.ready().await;
    }

    /// What `rabbitmqctl` prints; takes a second or two.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = self.place.command("rabbitmqctl");
        command.args(["--node", &self.place.node, "--quiet"]);
        command.args(arguments).stderr(Stdio::piped());
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said} {complaint}");
        said
    }

    fn signal(&self, signal: Signal) {
        // The whole group: a shell, the virtual machine and its helpers.
        let _ = kill_process_group(Pid::from_child(&self.server), signal);
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.kill();
        let _ = self.names.kill();
        let _ = self.names.wait();
    }
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Erlang's register of names: in the foreground, so that it ends with us.
    fn start_names(&self) -> Child {
        let names = Command::new("epmd")
            .args(["-port", &self.names_port.to_string()])
            .args(["-address", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rabbitmq-server is installed (make test-install)");
        // A server that doesn't find it starts another, which nobody would end.
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.names_port)).is_err() {
            assert!(started.elapsed() < SOON, "epmd doesn't listen");
            thread::sleep(POLL);
        }
        names
    }

    fn start_server(&self) -> Child {
        self.command("rabbitmq-server")
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rabbitmq-server is installed (make test-install)")
    }

    /// Waits for the end of our process, then ends the others and clears up.
    fn start_guard(&self, server: &Child, names: &Child) -> Child {
        let script = "read -r _; kill -KILL \"-$1\" \"$2\"; rm -rf \"$3\"";
        Command::new("sh")
            .args(["-c", script, "guard"])
            .args([server.id().to_string(), names.id().to_string()])
            .arg(self.dir.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// A program of the package's own folder: the wrappers on PATH change the user, who may
    /// then not write into our folder.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        let set = |name: &str| (format!("RABBITMQ_{name}"), self.path(&name.to_lowercase()));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path())
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_CONFIG_FILE", self.path("rabbitmq.conf"))
            .env("RABBITMQ_DIST_PORT", self.links_port.to_string())
            .env("ERL_EPMD_PORT", self.names_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // Small and quiet: a scheduler more only waits busily on a shared machine.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none")
            .envs(["MNESIA_BASE", "LOG_BASE", "PID_FILE"].map(set))
            .envs(
                [
                    "FEATURE_FLAGS_FILE",
                    "ENABLED_PLUGINS_FILE",
                    "CONF_ENV_FILE",
                ]
                .map(set),
            )
            .stdin(Stdio::null());
        command
    }
}

/// Where Debian's package has its programs.
fn programs() -> PathBuf {
    let versions = Path::new("/usr/lib/rabbitmq/lib");
    let mut found = fs::read_dir(versions)
        .expect("rabbitmq-server is installed (make test-install)")
        .map(|version| version.unwrap().path().join("sbin"));
    found.next().expect("a version of RabbitMQ")
}

/// Whether AMQP is spoken: the broker begins once we have said which version.
fn greets(port: u16) -> bool {
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let limit = Some(Duration::from_secs(1));
    let mut first = [0];
    socket.set_read_timeout(limit).is_ok()
        && socket.write_all(b"AMQP\0\0\x09\x01").is_ok()
        && socket.read_exact(&mut first).is_ok()
}
