//! The life of an installation, as its operator has it: installed, started by the command of its
//! unit, configured, reloaded, broken and repaired, upgraded and downgraded without a lost request,
//! removed.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::cli::Ran;
use e2e::client::Client;
use e2e::free_port::free_address;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::tools;
use e2e::upgrade::{ended, is_running, terminate};
use e2e::wait::{SOON, wait_for};
use tempfile::TempDir;

use crate::packaging::{InstalledMachine, package, path, well};

/// The same package with a later version, whose own configuration differs.
fn later(package: &Path, dir: &Path) -> PathBuf {
    let (tree, made) = (dir.join("tree"), dir.join("later.deb"));
    well("dpkg-deb", &["--raw-extract", path(package), path(&tree)]);
    let change = |file: &str, change: &dyn Fn(String) -> String| {
        let file = tree.join(file);
        let text = change(fs::read_to_string(&file).unwrap());
        fs::write(file, text).unwrap();
    };
    let version = |control: String| control.replacen("\nVersion: 0", "\nVersion: 99.0", 1);
    change("DEBIAN/control", &version);
    change("etc/lamina/lamina.yaml", &|text| {
        text + "# Of a later version.\n"
    });
    well("dpkg-deb", &["--build", path(&tree), path(&made)]);
    made
}

/// A machine with the package, on which the service runs.
struct Installation {
    machine: InstalledMachine,
    /// Where clients, and operators, connect.
    clients: SocketAddr,
    admin: SocketAddr,
    service: Option<Child>,
}

impl Installation {
    /// A path of the machine, or a text with paths of it, as this machine has them.
    fn here(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for folder in ["usr", "etc", "var", "run"] {
            let (there, here) = (
                format!("/{folder}/"),
                format!("{}/", path(&self.machine.at(folder))),
            );
            text = text.replace(&format!("={there}"), &format!("={here}"));
            text = text.replace(&format!(" {there}"), &format!(" {here}"));
        }
        text
    }

    fn config(&self) -> PathBuf {
        self.machine.at("etc/lamina/lamina.yaml")
    }

    fn edit(&self, what: &str, with: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(what), "{what} in {text}");
        fs::write(self.config(), text.replacen(what, with, 1)).unwrap();
    }

    /// The lines of the unit with this key.
    fn of_unit(&self, key: &str) -> Vec<String> {
        let unit = fs::read_to_string(self.machine.at("usr/lib/systemd/system/lamina.service"));
        let unit = unit.unwrap();
        let lines = unit
            .lines()
            .filter_map(|line| line.strip_prefix(&format!("{key}=")));
        lines.map(str::to_owned).collect()
    }

    /// The environment that the unit gives the service.
    fn environment(&self) -> BTreeMap<String, String> {
        let lines = self.of_unit("Environment");
        let assigned = lines.iter().flat_map(|line| line.split_whitespace());
        let mut all: BTreeMap<_, _> = assigned
            .map(|one| {
                let (name, value) = self.here(one).split_once('=').map(owned).unwrap();
                (name, value)
            })
            .collect();
        for (key, variable, place) in [
            ("RuntimeDirectory", "RUNTIME_DIRECTORY", "run"),
            ("CacheDirectory", "CACHE_DIRECTORY", "var/cache"),
        ] {
            for name in self.of_unit(key) {
                let folder = self.machine.at(place).join(name);
                fs::create_dir_all(&folder).unwrap();
                all.insert(variable.to_owned(), path(&folder).to_owned());
            }
        }
        all
    }

    /// Starts the command of the unit, with its first socket handed over.
    fn start(&mut self) -> bool {
        let command = self.of_unit("ExecStart");
        let command = self.here(&format!(" {}", command[0]));
        let mut starting = Command::new("systemd-socket-activate");
        starting.arg("-l").arg(self.clients.to_string());
        for (name, value) in self.environment() {
            starting.arg("-E").arg(format!("{name}={value}"));
        }
        starting.args(command.split_whitespace());
        let quiet = starting.stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(started) = quiet.spawn() else {
            tools::is_missing("systemd-socket-activate", "the life of an installation");
            return false;
        };
        self.service = Some(started);
        true
    }

    /// The installed program, as its operator calls it.
    fn lamina(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(self.machine.at("usr/bin/lamina"));
        command.args(arguments).env("NO_COLOR", "1");
        command.envs(self.environment());
        let output = command.stdin(Stdio::null()).output().unwrap();
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn reload(&self) -> Ran {
        self.lamina(&["reload", "-c", path(&self.config())])
    }

    async fn ask(&self, page: &str) -> (u16, String) {
        let client = Client::http1(self.clients).uncached();
        let answer = client.get(page).await;
        (answer.status.as_u16(), answer.text().to_owned())
    }

    async fn serves(&self, page: &str, expected: &str) {
        assert_eq!(self.ask(page).await, (200, expected.to_owned()));
    }

    /// The installed program takes the place of the process that serves. Answers its number.
    async fn upgrade(&self, old: u32) -> u32 {
        let socket = self.machine.at("run/lamina/upgrade.sock");
        let ran = self.lamina(&["upgrade", "--socket", path(&socket)]);
        assert_eq!(ran.code, Some(0), "{}", ran.output());
        let (_, rest) = ran.stdout.split_once("upgraded: process ").unwrap();
        let new = rest.split(' ').next().unwrap().parse().unwrap();
        let program = fs::read_link(format!("/proc/{new}/exe")).unwrap();
        assert_eq!(program, self.machine.at("usr/bin/lamina"));
        self.serves("/page", "page").await;
        ended(old, SOON).await;
        new
    }
}

fn owned((one, other): (&str, &str)) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(service) = &mut self.service {
            let _ = service.kill();
            let _ = service.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_lives_from_the_first_start_over_upgrades_to_its_removal() {
    let Some(package) = package() else { return };
    let Some(machine) = InstalledMachine::take() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let later = later(&package, dir.path());
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let mut here = Installation {
        machine,
        clients: free_address(),
        admin: free_address(),
        service: None,
    };
    here.machine.dpkg(&["--install", path(&package)]);

    // The operator says where clients and the origin are, and starts the service.
    here.edit("127.0.0.1:8080", &here.clients.to_string());
    here.edit("127.0.0.1:9180", &here.admin.to_string());
    here.edit("http://127.0.0.1:9000", &origin.url());
    here.edit(" /var/cache/", &here.here(" /var/cache/"));
    let valid = here.lamina(&["validate"]);
    assert_eq!(valid.code, Some(0), "{}", valid.output());
    if !here.start() {
        return;
    }
    wait_for("the service answers", SOON * 2, || async {
        let client = Client::http1(here.clients).uncached();
        let answer = client.request("/page").try_send().await;
        answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(())
    })
    .await;
    here.serves("/page", "page").await;
    let first = here.service.as_ref().unwrap().id();

    // A change, a mistake, and its repair.
    let site = "  - name: site\n";
    let hello =
        "  - { name: hello, match: { path: /hello }, respond: { status: 200, body: hello } }\n";
    here.edit(site, &format!("{hello}{site}"));
    let reloaded = here.reload();
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.output());
    here.serves("/hello", "hello").await;
    here.edit("upstream: origin", "upstream: orgin");
    let refused = here.reload();
    assert_eq!(refused.code, Some(2), "{}", refused.output());
    let told = refused.output();
    let line = fs::read_to_string(here.config()).unwrap();
    let line = line
        .lines()
        .position(|line| line.contains("orgin"))
        .unwrap()
        + 1;
    assert!(told.contains(&format!("lamina.yaml:{line}")), "{told}");
    assert!(told.contains("orgin"), "{told}");
    here.serves("/hello", "hello").await;
    here.edit("upstream: orgin", "upstream: origin");
    assert_eq!(here.reload().code, Some(0));

    // A later version, and back again.
    let mine = fs::read_to_string(here.config()).unwrap();
    let mut serving = first;
    for version in [&later, &package] {
        here.machine.dpkg(&["--install", path(version)]);
        assert!(is_running(serving), "it stops nothing");
        here.serves("/page", "page").await;
        assert_eq!(fs::read_to_string(here.config()).unwrap(), mine);
        serving = here.upgrade(serving).await;
        here.serves("/hello", "hello").await;
    }

    // It is stopped and removed; what the operator has written is not.
    terminate(serving);
    ended(serving, SOON).await;
    here.machine.dpkg(&["--remove", "lamina"]);
    assert!(!here.machine.at("usr/bin/lamina").exists());
    assert_eq!(fs::read_to_string(here.config()).unwrap(), mine);
    here.machine.dpkg(&["--purge", "lamina"]);
    assert!(!here.config().exists());
}
