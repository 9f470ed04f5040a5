//! Every command of README.md, docs/ and plugin-sdk/ is run, in the order of its page, by a person
//! who has what the page talks of: a folder with a configuration, the shipped plugins, the demo
//! origin and a running gateway. A command fails by its exit code, `curl` also by the status that
//! it gets. Where a page shows the field `Cache-Status` of an answer, that is compared.
//!
//! The addresses and folders of the documents become those of the test ([`Rehearsal::at_home`]).
//! What can't be run stands in [`NOT_RUN`], with the reason.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::cli::repository;
use e2e::documents::{DocumentBlock, ProjectDocument, TypedCommand, documents};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::terminal::{ReaderTerminal, TypedOutcome};
use e2e::wait::wait_until;

/// The least that is run; far fewer means that the test went blind.
const MIN_RUN: usize = 75;
/// Where the demo origin and a gateway listen: for clients and for operators.
const PORTS: [u16; 3] = [8081, 8080, 9180];
/// The origin of the shipped configurations.
const DEMO: &str = "http://127.0.0.1:8081";
/// For a gateway, which compiles plugins.
const START: Duration = Duration::from_secs(120);

/// Commands that are not run here: how they begin, and why.
const NOT_RUN: [(&str, &str); 15] = [
    (
        "make ",
        "builds the program for minutes; CI runs the targets, quickstart.rs the demo",
    ),
    (
        "cargo ",
        "builds the program or a crate for minutes; CI does, and plugin_guide.rs a plugin",
    ),
    ("docker ", "needs a Docker that may pull images"),
    (
        "sudo ",
        "changes the machine; packaging.rs and packaging_operator.rs do it in a folder",
    ),
    ("sudoedit ", "opens an editor"),
    (
        "systemctl ",
        "needs a systemd that runs the package; service_manager.rs has its part",
    ),
    ("bin/magento ", "belongs to Magento"),
    ("bin/console ", "belongs to Symfony"),
    (
        "lamina run --domain",
        "takes ports below 1024; quickstart.rs does it with others",
    ),
    (
        "lamina doctor",
        "asks brokers and stores; bus_doctor.rs and doctor_rights.rs run them",
    ),
    (
        "lamina purge --tag user-7 --wait",
        "waits for other nodes, over a broker; purge_wait.rs runs them",
    ),
    ("lamina record inspect", "reads Redis; record.rs runs one"),
    (
        "lamina plugin replay",
        "needs a call that has failed; plugin_kit.rs makes one",
    ),
    (
        "clang ",
        "needs clang for WebAssembly; plugins/build.sh builds such a plugin",
    ),
    ("zig ", "needs Zig; plugins/build.sh builds such a plugin"),
];

/// Documents whose commands another suite runs, one by one.
const RUN_ELSEWHERE: [(&str, &str); 2] = [
    (
        "plugin-sdk/GUIDE.md",
        "plugin_guide.rs follows it word for word",
    ),
    (
        "plugin-sdk/README.md",
        "builds the plugin of the guide by hand; plugin_guide.rs does the same",
    ),
];

/// Commands of `lamina` that ask a running gateway.
const ASKING: [&str; 8] = [
    "lamina purge",
    "lamina nodes",
    "lamina plan",
    "lamina reload",
    "lamina health",
    "lamina requests",
    "lamina upstreams",
    "curl ",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_a_document_runs() {
    let origin = Origin::pages(|_| Reply::fresh("a page").header("xkey", "tea")).await;
    let mut outcome = RehearsalOutcome {
        can_build: can_build_plugins(),
        ran: 0,
        left_out: [0; NOT_RUN.len()],
        faults: Vec::new(),
    };
    let is_run_here = |document: &ProjectDocument| {
        let is_it = |(name, _): &(&str, &str)| document.name == *name;
        !RUN_ELSEWHERE.iter().any(is_it)
    };
    for document in documents().iter().filter(|document| is_run_here(document)) {
        outcome.follow(document, &origin.url()).await;
    }
    let excuses = NOT_RUN.iter().zip(outcome.left_out);
    let stale = excuses.filter(|(_, count)| *count == 0);
    let stale = stale.map(|((how, _), _)| format!("no document has {how:?}, which is not run"));
    outcome.faults.extend(stale);
    let (faults, ran) = (outcome.faults.join("\n"), outcome.ran);
    assert!(outcome.faults.is_empty(), "{ran} ran\n{faults}");
    assert!(ran >= MIN_RUN, "only {ran} commands were run");
}

/// What came of the commands of all documents.
struct RehearsalOutcome {
    /// Whether plugins in Rust can be built here.
    can_build: bool,
    ran: usize,
    /// How many commands each entry of [`NOT_RUN`] has left out.
    left_out: [usize; NOT_RUN.len()],
    faults: Vec<String>,
}

impl RehearsalOutcome {
    /// Runs the commands of a document.
    async fn follow(&mut self, document: &ProjectDocument, origin: &str) {
        let blocks = document.blocks();
        if blocks.iter().all(|block| block.typed().is_empty()) {
            return;
        }
        let mut rehearsal = Rehearsal::new(document, origin);
        for block in &blocks {
            rehearsal.adopts(block);
            for command in block.typed() {
                let mut listed = NOT_RUN.iter();
                let listed = listed.position(|(how, _)| begins(&command.line, how));
                if let Some(excuse) = listed {
                    self.left_out[excuse] += 1;
                } else if self.can_build || !begins(&command.line, "lamina plugin") {
                    self.ran += 1;
                    self.faults.extend(rehearsal.runs(&command).await);
                }
            }
        }
    }
}

/// Whether there is a toolchain for plugins in Rust.
fn can_build_plugins() -> bool {
    let command = "test -d \"$(rustc --print target-libdir --target wasm32-unknown-unknown)\" \
                   || test -d /usr/src/rustc-web";
    let mut terminal = ReaderTerminal::open();
    let can_build = terminal.types(command).code == Some(0);
    if !can_build {
        e2e::tools::is_missing(
            "Rust for WebAssembly",
            "the commands about a plugin in Rust",
        );
    }
    can_build
}

/// Whether a command begins so, wherever its program lies.
fn begins(command: &str, how: &str) -> bool {
    let command = command.strip_prefix("target/release/").unwrap_or(command);
    command.starts_with(how)
}

/// One document, and the person who follows it.
struct Rehearsal<'a> {
    document: &'a ProjectDocument,
    origin: &'a str,
    terminal: ReaderTerminal,
    /// The configuration that a gateway runs with.
    running: Option<String>,
}

impl<'a> Rehearsal<'a> {
    fn new(document: &'a ProjectDocument, origin: &'a str) -> Self {
        let mut rehearsal = Self {
            document,
            origin,
            terminal: ReaderTerminal::open(),
            running: None,
        };
        rehearsal.furnishes();
        rehearsal
    }

    /// Puts there what documents take for granted.
    fn furnishes(&mut self) {
        let home = self.terminal.home().to_owned();
        let data = repository().join("tests/data");
        let text = |path: &str| fs::read_to_string(data.join(path)).unwrap();
        let puts = |name: &str, text: &str| {
            let path = home.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let counterpart = counterpart(self.document).map(|text| text.replace(DEMO, "ORIGIN"));
        let own = counterpart.unwrap_or_else(|| text("documents/lamina.yaml"));
        self.writes_configuration("lamina.yaml", &own);
        self.writes_configuration("etc/lamina/lamina.yaml", &text("documents/lamina.yaml"));
        self.writes_configuration("config/quickstart.yaml", &text("documents/lamina.yaml"));
        puts("routes/shop.yaml", &text("documents/routes/shop.yaml"));
        puts("etc/nginx/nginx.conf", &text("migrate/wordpress.conf"));
        puts("etc/varnish/default.vcl", &text("migrate/shop.vcl"));
        puts("run/secrets/admin", "a token of this test");
        let plugins = repository().join("plugins/dist").canonicalize();
        let plugins = plugins.expect("plugins/build.sh has been run");
        for folder in ["plugins", "etc/lamina/plugins", "config/plugins"] {
            fs::create_dir_all(home.join(folder)).unwrap();
            link(&plugins, &home.join(folder).join("dist"));
        }
        let address = self.terminal.address().to_owned();
        let outcome = self.terminal.types(&format!(
            "exec 2>&1; mkdir -p target/release; ln -s \"$(command -v lamina)\" target/release/lamina
            export PURGE_TOKEN=purge CI_TOKEN='a long random text' LAMINA_TOKEN='another long random text'
            export LAMINA_SEAL_KEY={:064} LAMINA_ADMIN={address}:9180
            curl() {{
                command curl --noproxy '*' --no-progress-meter --max-time 60 --fail-with-body \
                    --connect-to :80:{address}:8080 --connect-to localhost:8443:{address}:8443 \"$@\"
            }}
            lamina demo-origin --listen {address}:8081 > demo.log &",
            7
        ));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }

    /// Takes a block of the document for the configuration: a whole one, or the part of one that an
    /// application needs.
    fn adopts(&self, block: &DocumentBlock) {
        if block.kind != "yaml" {
            return;
        }
        if block.text.starts_with("version: 1\n") {
            self.writes_configuration("lamina.yaml", &block.text);
        } else if self.document.name.starts_with("docs/cms/")
            && counterpart(self.document).is_none()
            && is_of_the_gateway(&block.text)
        {
            let part = repository().join("tests/data/documents/part.yaml");
            let part = fs::read_to_string(part).unwrap();
            let is_missing = |line: &&str| {
                let key = line.split(':').next().unwrap_or_default();
                !block.text.starts_with(&format!("{key}:"))
                    && !block.text.contains(&format!("\n{key}:"))
            };
            let rest: Vec<_> = part.lines().filter(is_missing).collect();
            let text = format!("{}\n{}", rest.join("\n"), block.text);
            self.writes_configuration("lamina.yaml", &text);
        }
    }

    /// A command, at last what is wrong with it.
    async fn runs(&mut self, command: &TypedCommand) -> Option<String> {
        let line = self.at_home(&command.line);
        let outcome = if begins(&command.line, "lamina run") {
            self.serves(&line).await
        } else {
            if ASKING.iter().any(|asking| begins(&command.line, asking)) {
                self.has_a_gateway(&command.line).await;
            }
            self.terminal.types(&line)
        };
        let said = outcome.said.join("\n");
        if outcome.code != Some(0) {
            let code = outcome.code;
            let fault = format!("{}\nended with {code:?}:\n{said}", command.line);
            return Some(self.document.fault(fault));
        }
        let shown = command.shown.iter().map(|line| without_ttl(line));
        let mut shown = shown.filter(|line| line.starts_with("cache-status:"));
        let missing =
            shown.find(|shown| !outcome.said.iter().any(|said| without_ttl(said) == *shown));
        missing.map(|missing| {
            let fault = format!("{}\nshows no {missing}:\n{said}", command.line);
            self.document.fault(fault)
        })
    }

    /// Sees to it that a gateway runs with the present configuration.
    async fn has_a_gateway(&mut self, command: &str) {
        if command.contains("--token-file") {
            let token = "admin:\n  token: a token of this test\n";
            let text = fs::read_to_string(self.configuration()).unwrap();
            let text = match text.contains(token) {
                true => text,
                false => text.replace("\nadmin:\n", &format!("\n{token}")),
            };
            fs::write(self.configuration(), text).unwrap();
        }
        let text = fs::read_to_string(self.configuration()).unwrap();
        if self.running.as_ref() != Some(&text) {
            self.serves("lamina run -c lamina.yaml").await;
        }
    }

    /// Starts a gateway in the place of the one that runs, and waits until it is ready.
    async fn serves(&mut self, line: &str) -> TypedOutcome {
        let stop = "kill $GATEWAY && wait $GATEWAY; true";
        if self.running.is_some() {
            self.terminal.types(stop);
        }
        let line = line.split(" #").next().unwrap_or_default();
        let outcome = self
            .terminal
            .types(&format!("{line} > gateway.log &\nGATEWAY=$!"));
        let address = self.terminal.address().to_owned();
        let listens = |port: u16| TcpStream::connect((address.as_str(), port)).is_ok();
        let what = format!("origin and gateway of {} listen", self.document.name);
        wait_until(&what, START, || PORTS.into_iter().all(listens)).await;
        self.running = fs::read_to_string(self.configuration()).ok();
        outcome
    }

    fn configuration(&self) -> PathBuf {
        self.terminal.home().join("lamina.yaml")
    }

    fn writes_configuration(&self, name: &str, text: &str) {
        let text = self.at_home(text).replace("ORIGIN", self.origin);
        let text = match text.contains("\nadmin:") {
            true => text,
            false => text + &self.at_home("admin:\n  address: 127.0.0.1:9180\n"),
        };
        let path = self.terminal.home().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A text with the addresses and folders of this test in the place of a document's.
    fn at_home(&self, text: &str) -> String {
        let (home, address) = (self.terminal.home().display(), self.terminal.address());
        let mut text = text.to_owned();
        for nodes in ["127.0.0.1:", "0.0.0.0:", "10.0.0.5:"] {
            text = text.replace(nodes, &format!("{address}:"));
        }
        for networks in ["10.0.0.0/24", "10.0.2.0/24"] {
            text = text.replace(networks, "127.0.0.0/8");
        }
        for folder in ["/etc/", "/run/secrets/", "/var/cache/lamina/"] {
            text = text.replace(&format!(" {folder}"), &format!(" {home}{folder}"));
        }
        // Sites of readers, which the gateway serves without TLS here.
        let mut rest = text.as_str();
        let mut clear = String::new();
        while let Some((before, after)) = rest.split_once("https://") {
            let host = after
                .split(['/', ' ', '\'', '"'])
                .next()
                .unwrap_or_default();
            let scheme = match host.ends_with(".example") {
                true => "http://",
                false => "https://",
            };
            clear = clear + before + scheme;
            rest = after;
        }
        clear + rest
    }
}

/// The whole configuration that a page about an application names, if it does.
fn counterpart(document: &ProjectDocument) -> Option<String> {
    let (_, rest) = document.text.split_once("](../../config/migrate/")?;
    let (name, _) = rest.split_once(')')?;
    fs::read_to_string(repository().join("config/migrate").join(name)).ok()
}

/// Whether a part of a configuration is one of the gateway's, and not of the application's.
fn is_of_the_gateway(text: &str) -> bool {
    ["routes:", "purge_method:", "listeners:"]
        .iter()
        .any(|key| text.starts_with(key))
}

fn link(target: &Path, place: &Path) {
    std::os::unix::fs::symlink(target, place).unwrap();
}

/// A lifetime may have begun to run.
fn without_ttl(line: &str) -> String {
    match line.split_once("ttl=") {
        Some((before, ttl)) if ttl.bytes().all(|byte| byte.is_ascii_digit()) => before.to_owned(),
        _ => line.to_owned(),
    }
}
