//! config/compose/compose.yaml, without an engine: each of its services is started as a process, by
//! the programs that its images hold, with exactly its command, environment, files and health check.
//!
//! Instead of a network of its own, a service has a loopback address of its own, on which its ports
//! are those that it would have in a container. So only addresses are replaced: the names of
//! services, and `0.0.0.0`.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::cli::{binary, repository};
use e2e::client::Client;
use e2e::wait::{SOON, wait_for};
use serde_yaml::Value;
use tempfile::TempDir;

/// A key that a service may have here: another one is a mistake, or new to this test.
const KNOWN: [&str; 8] = [
    "build",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "image",
    "ports",
    "volumes",
];

/// The environment of our image, by the Dockerfile, and where commands find a gateway unless they are
/// told, which is an address of the container.
const OF_IMAGE: [(&str, &str); 3] = [
    ("LAMINA_CONFIG", "/etc/lamina/lamina.yaml"),
    ("LISTEN", "0.0.0.0:8080"),
    ("LAMINA_ADMIN", "127.0.0.1:9180"),
];

/// What a service runs in its container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ServiceImage {
    Lamina,
    Redis,
    Nats,
}

/// A service of the file.
struct ComposeService {
    name: String,
    image: ServiceImage,
    at: Ipv4Addr,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    /// Files of this machine, by their path in the container.
    files: BTreeMap<String, PathBuf>,
    healthcheck: Option<Vec<String>>,
    /// Ports in the container that are published.
    published: Vec<u16>,
    depends_on: Vec<String>,
}

/// All services, which end with it.
struct ComposedServices {
    services: Vec<ComposeService>,
    processes: Vec<Child>,
    dir: TempDir,
}

fn folder() -> PathBuf {
    repository().join("config/compose")
}

fn words(value: &Value) -> Vec<String> {
    let texts = value.as_sequence().unwrap().iter();
    texts.map(|one| one.as_str().unwrap().to_owned()).collect()
}

impl ComposeService {
    fn read(name: &str, section: &Value, at: Ipv4Addr) -> Self {
        let keys = section.as_mapping().unwrap().keys();
        let unknown: Vec<_> = keys
            .filter(|key| !KNOWN.contains(&key.as_str().unwrap()))
            .collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let list = |key: &str| section.get(key).map(words).unwrap_or_default();
        let image = section.get("image").and_then(Value::as_str);
        let image = match image.map(|image| image.split(':').next().unwrap()) {
            None => {
                let context = section["build"].as_str().unwrap();
                let dockerfile = folder().join(context).join("Dockerfile");
                assert!(dockerfile.exists(), "{name}: {}", dockerfile.display());
                ServiceImage::Lamina
            }
            Some("redis") => ServiceImage::Redis,
            Some("nats") => ServiceImage::Nats,
            Some(other) => panic!("{name}: what is in the image {other} is not known here"),
        };
        let environment = section.get("environment").and_then(Value::as_mapping);
        let environment = environment.into_iter().flatten().map(|(name, value)| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(name), text(value))
        });
        let files = list("volumes").into_iter().map(|volume| {
            let parts: Vec<_> = volume.split(':').collect();
            let [here, there, "ro"] = parts[..] else {
                panic!("{name}: {volume} is no file that is only read");
            };
            (there.to_owned(), folder().join(here))
        });
        let published = list("ports").into_iter().map(|port| {
            let (_, inside) = port.split_once(':').unwrap();
            inside.parse().unwrap()
        });
        let healthcheck = section.get("healthcheck").map(|check| {
            let test = words(&check["test"]);
            assert_eq!(test[0], "CMD", "{name}: there may be no shell");
            test[1..].to_vec()
        });
        Self {
            name: name.to_owned(),
            image,
            at,
            command: list("command"),
            environment: environment.collect(),
            files: files.collect(),
            healthcheck,
            published: published.collect(),
            depends_on: list("depends_on"),
        }
    }
}

impl ComposedServices {
    fn read() -> Self {
        let text = fs::read_to_string(folder().join("compose.yaml")).unwrap();
        let mut whole: Value = serde_yaml::from_str(&text).unwrap();
        whole.apply_merge().unwrap();
        let sections = whole["services"].as_mapping().unwrap();
        // Addresses that no other run of this test has at the same time.
        let run = std::process::id();
        let at = |n: usize| {
            let [.., high, low] = (run % 60_000).to_be_bytes();
            Ipv4Addr::new(127, high.max(1), low, u8::try_from(n + 1).unwrap())
        };
        let services = sections.iter().enumerate().map(|(n, (name, section))| {
            ComposeService::read(name.as_str().unwrap(), section, at(n))
        });
        Self {
            services: services.collect(),
            processes: Vec::new(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn named(&self, name: &str) -> &ComposeService {
        let found = self.services.iter().find(|one| one.name == name);
        found.unwrap_or_else(|| panic!("no service {name}"))
    }

    /// A text of a service with the addresses that it has here.
    fn addressed(&self, service: &ComposeService, text: &str) -> String {
        let own = service.at.to_string();
        let text = text.replace("0.0.0.0", &own).replace("127.0.0.1", &own);
        let addressed = |text: String, other: &ComposeService| {
            let (named, at) = (format!("//{}:", other.name), format!("//{}:", other.at));
            text.replace(&named, &at)
        };
        self.services.iter().fold(text, addressed)
    }

    /// Where a file of a service's container is on this machine.
    fn placed(&self, service: &ComposeService, path: &str) -> String {
        match service.files.get(path) {
            Some(_) => self
                .dir
                .path()
                .join(format!("{}{}", service.name, path.replace('/', "-")))
                .display()
                .to_string(),
            None => self.addressed(service, path),
        }
    }

    fn write_files(&self, service: &ComposeService) {
        for (there, here) in &service.files {
            let text = fs::read_to_string(here).unwrap();
            let path = self.placed(service, there);
            fs::write(path, self.addressed(service, &text)).unwrap();
        }
    }

    /// A program of a service's image with these arguments, in the environment of the service.
    fn program(&self, service: &ComposeService, command: &[String]) -> Command {
        let (program, arguments) = match service.image {
            ServiceImage::Lamina => (binary(), command),
            ServiceImage::Redis | ServiceImage::Nats => match command.split_first() {
                Some((program, arguments)) => (PathBuf::from(program), arguments),
                None => (PathBuf::from(service.image.default_program()), command),
            },
        };
        let mut started = Command::new(program);
        started.args(arguments.iter().map(|one| self.placed(service, one)));
        let image = OF_IMAGE.iter().map(|(name, value)| (*name, *value));
        let own = service.environment.iter();
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        if service.image == ServiceImage::Lamina {
            started.envs(
                image
                    .chain(own)
                    .map(|(name, value)| (name.to_owned(), self.placed(service, value))),
            );
        }
        started
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        started
    }

    fn start(&mut self) {
        for service in &self.services {
            for other in &service.depends_on {
                self.named(other);
            }
            self.write_files(service);
            let mut program = self.program(service, &service.command);
            program.args(service.image.listening_at(service.at));
            let started = program.spawn();
            let started = started.unwrap_or_else(|error| panic!("{}: {error}", service.name));
            self.processes.push(started);
        }
    }

    /// Runs a program in a service's container to its end.
    fn exec(&self, service: &ComposeService, command: &[String]) -> bool {
        self.program(service, command)
            .status()
            .is_ok_and(|ended| ended.success())
    }

    /// The check of a service's health: its own, or that of its image.
    fn is_well(&self, service: &ComposeService) -> bool {
        let check = match (&service.healthcheck, service.image) {
            (Some(check), _) => check.clone(),
            (None, ServiceImage::Lamina) if !service.published.is_empty() => {
                vec!["health".to_owned()]
            }
            (None, _) => return true,
        };
        // As in the image: by the configuration.
        let mut check = self.program(service, &check);
        let ended = check.env_remove("LAMINA_ADMIN").status();
        ended.is_ok_and(|ended| ended.success())
    }
}

impl Drop for ComposedServices {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl ServiceImage {
    fn default_program(self) -> &'static str {
        match self {
            Self::Lamina => "lamina",
            Self::Redis => "redis-server",
            Self::Nats => "nats-server",
        }
    }

    /// What stands for the image's own settings, which listen everywhere.
    fn listening_at(self, address: Ipv4Addr) -> Vec<String> {
        match self {
            Self::Lamina => Vec::new(),
            Self::Redis => vec!["--bind".to_owned(), address.to_string()],
            Self::Nats => vec!["--addr".to_owned(), address.to_string()],
        }
    }
}

async fn page(edge: &ComposeService) -> e2e::client::Answer {
    let client = Client::http1((edge.at, edge.published[0]).into());
    client.request("/pages/1").host("site.example").send().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_services_work_together() {
    let mut composed = ComposedServices::read();
    composed.start();
    let services = composed.services.iter();
    let edges: Vec<_> = services
        .filter(|service| !service.published.is_empty())
        .collect();
    assert_eq!(edges.len(), 3);
    for service in &composed.services {
        wait_for(&format!("{} is well", service.name), SOON * 2, || async {
            composed.is_well(service).then_some(())
        })
        .await;
    }
    wait_for("a page comes from the origin", SOON, || async {
        (page(edges[0]).await.status == 200).then_some(())
    })
    .await;
    // One load for all: the other two find it in Redis.
    for edge in &edges {
        wait_for("a page comes from the cache", SOON, || async {
            page(edge).await.is_hit().then_some(())
        })
        .await;
    }
    // As the file says it: by one of them, on all of them.
    let purge = said_in_the_file("lamina purge");
    wait_for("all have purged", SOON * 2, || async {
        composed.exec(edges[0], &purge).then_some(())
    })
    .await;
    assert!(!page(edges[2]).await.is_hit());
}

/// The arguments of a command that the head of the file names.
fn said_in_the_file(command: &str) -> Vec<String> {
    let text = fs::read_to_string(folder().join("compose.yaml")).unwrap();
    let line = text.lines().find_map(|line| line.split_once(command));
    let (_, rest) = line.unwrap_or_else(|| panic!("{command}"));
    let (_, word) = command.split_once(' ').unwrap();
    let words = std::iter::once(word).chain(rest.split_whitespace());
    words.map(str::to_owned).collect()
}

/// Whatever else lies beside it is used by it.
#[test]
fn each_file_beside_it_is_one_of_its_files() {
    let composed = ComposedServices::read();
    let used: Vec<_> = composed
        .services
        .iter()
        .flat_map(|service| service.files.values())
        .map(|path| fs::canonicalize(path).unwrap())
        .collect();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let is_the_file = path.file_name() == Some(Path::new("compose.yaml").as_os_str());
        assert!(is_the_file || used.contains(&fs::canonicalize(&path).unwrap()));
    }
}
