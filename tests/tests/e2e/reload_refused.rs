//! A configuration that can't be taken up changes nothing (RL2, RL3, RL6): all of the old one goes
//! on, and what is wrong is told with its place.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use e2e::cli::run;
use e2e::free_port::free_address;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls::TlsClient;
use e2e::tls::authority::Authority;
use e2e::tls::site::NAME;
use e2e::wait::passed;

/// A configuration with something of each kind.
struct ReloadSite {
    _origin: Origin,
    authority: Authority,
    setup: Setup,
    secured: std::net::SocketAddr,
}

impl ReloadSite {
    async fn new() -> Self {
        let origin = Origin::pages(|seen| Reply::ok(seen.header("x-mark").to_owned())).await;
        let authority = Authority::new("authority");
        let secured = free_address();
        let setup = Setup::new(&origin)
            .pair("a", &authority.server(&[NAME]))
            .file("p.wasm", guest::built("asker"))
            .file(
                "more.yaml",
                "routes: [{name: more, match: {path: /more}, upstream: origin}]\n",
            )
            .file("purge.token", "a-token-for-purges-only\n")
            .top("include", "[more.yaml]")
            .top("plugins", PLUGINS)
            .top(
                "purge_method",
                "{enabled: true, allow: [127.0.0.1/32], token_file: purge.token}",
            )
            .top("listeners", &listeners(&secured.to_string(), ""))
            .route("{name: site, match: {path: /marked}, upstream: origin, request: {plugin: p}}");
        Self {
            _origin: origin,
            authority,
            setup,
            secured,
        }
    }

    /// Whether all of the first configuration is in use, and nothing else.
    async fn is_as_before(&self, gateway: &Gateway, what: &str) {
        let page = gateway.client().get("/marked").await;
        assert_eq!(page.text(), "version-one", "{what}");
        assert_eq!(gateway.client().get("/more").await.status, 200, "{what}");
        let client = TlsClient::new(self.secured, NAME);
        assert_eq!(client.status(NAME).await, Ok(404), "{what}");
        assert_eq!(gateway.client().get("/new").await.status, 404, "{what}");
    }
}

const PLUGINS: &str = "{p: {file: p.wasm, watch: false, config: {rules: {/marked: {mark: x-mark}}}, on_error: {request: refuse}, limits: {hook_timeout: 10s}}}";

fn listeners(secured: &str, further: &str) -> String {
    let pair = "certificates: [{cert: a.crt, key: a.key}]";
    format!("[{{address: \"127.0.0.1:0\"}}, {{address: \"{secured}\", tls: {{{pair}}}}}{further}]")
}

/// A file that can't be taken up.
struct BrokenFile {
    what: &'static str,
    files: Vec<(&'static str, Vec<u8>)>,
    yaml: String,
    /// What the answer says of it.
    says: &'static str,
    place: FaultPlace,
}

/// Whose fault it is.
enum FaultPlace {
    /// The key in the file, and a text in the line that it names.
    Key(&'static str, &'static str),
    /// The file that is named, which may have no such line.
    File(&'static str),
    /// None of the file.
    Machine,
}

impl ReloadSite {
    fn broken(&self, taken: &str, free: &str) -> Vec<BrokenFile> {
        let good = self.setup.yaml();
        let broken = |what, says, place, yaml: String| BrokenFile {
            what,
            files: Vec::new(),
            yaml,
            says,
            place,
        };
        // What else is new in the file must not be taken either.
        let route = |yaml: &str| {
            let more = "routes:\n  - {name: new, match: {path: /new}, upstream: origin}\n";
            yaml.replace("routes:\n", more)
        };
        let secured = self.secured.to_string();
        let opening = route(&good).replace(
            &listeners(&secured, ""),
            &listeners(&secured, &format!(", {{address: \"{free}\"}}")),
        );
        let with_file = |mut broken: BrokenFile, name, content: Vec<u8>| {
            broken.files.push((name, content));
            broken
        };
        let other = self.authority.server(&["other.example"]);
        let hookless = guest::plugin("unreachable", "unreachable", "");
        vec![
            broken(
                "a syntax error",
                "",
                FaultPlace::File("lamina.yaml"),
                format!("{opening}\n  - [x: }}"),
            ),
            broken("an empty file", "", FaultPlace::File("lamina.yaml"), String::new()),
            broken(
                "no routes",
                "route",
                FaultPlace::Key("routes", "routes"),
                {
                    let at = good.find("routes:\n").unwrap();
                    format!("{}routes: []\n", &good[..at].replace("include: [more.yaml]\n", ""))
                },
            ),
            broken(
                "an unknown upstream",
                "nowhere",
                FaultPlace::Key("routes[0].upstream", "nowhere"),
                opening.replace("path: /new}, upstream: origin", "path: /new}, upstream: nowhere"),
            ),
            broken(
                "a plugin file that is missing",
                "gone.wasm",
                FaultPlace::Key("plugins.p.file", "gone.wasm"),
                opening.replace("p.wasm", "gone.wasm"),
            ),
            with_file(
                broken("a plugin that is none", "not valid", FaultPlace::Key("plugins.p", "p.wasm"), opening.clone()),
                "p.wasm",
                b"\0asm and no more".to_vec(),
            ),
            with_file(
                broken("a plugin without the hook", "request", FaultPlace::Key("plugins.p", "p.wasm"), opening.clone()),
                "p.wasm",
                hookless,
            ),
            broken(
                "a port that is in use",
                "in use",
                FaultPlace::Machine,
                opening.replace(free, taken),
            ),
            with_file(
                broken(
                    "a key of another certificate",
                    "key",
                    FaultPlace::Key("listeners[2].tls.certificates[0]", "b.key"),
                    opening.replace(
                        &format!("{{address: \"{free}\"}}"),
                        &format!("{{address: \"{free}\", tls: {{certificates: [{{cert: a.crt, key: b.key}}]}}}}"),
                    ),
                ),
                "b.key",
                other.key.into_bytes(),
            ),
            with_file(
                broken("a broken included file", "", FaultPlace::File("more.yaml"), opening.clone()),
                "more.yaml",
                b"routes: [{name: more\n".to_vec(),
            ),
            broken(
                "a secret file that is not there",
                "gone.token",
                FaultPlace::Key("purge_method.token_file", "gone.token"),
                opening.replace("purge.token", "gone.token"),
            ),
        ]
    }
}

fn failures(gateway: &Gateway) -> usize {
    let lines = gateway.log().into_iter();
    let words = "the configuration was not taken up";
    lines.filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn what_is_wrong_changes_nothing_and_is_told_with_its_place() {
    let site = ReloadSite::new().await;
    let gateway = site.setup.start().await;
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let free = free_address();
    let admin = gateway.admin.to_string();
    let all = site.broken(&taken, &free.to_string());
    for (n, broken) in all.into_iter().enumerate() {
        let what = broken.what;
        gateway.write(&site.setup);
        std::fs::write(gateway.dir().join("lamina.yaml"), &broken.yaml).unwrap();
        for (name, content) in &broken.files {
            std::fs::write(gateway.dir().join(name), content).unwrap();
        }
        let answer = gateway.reload().await;
        let text = answer.said.to_string();
        assert!(text.contains(broken.says), "{what}: {text}");
        let (status, code, outcome) = match broken.place {
            FaultPlace::Machine => (503, 1, "failed"),
            FaultPlace::Key(..) | FaultPlace::File(_) => (422, 2, "invalid"),
        };
        assert_eq!(answer.status, status, "{what}: {text}");
        match broken.place {
            FaultPlace::Machine => {}
            FaultPlace::File(file) => {
                let named = answer.problem()["file"].as_str().unwrap();
                assert!(named.ends_with(file), "{what}: {named}");
            }
            FaultPlace::Key(key, in_line) => {
                let problem = answer.problem();
                let named = problem["key"].as_str().unwrap();
                assert!(named.starts_with(key), "{what}: {named}");
                let line = problem["line"].as_u64();
                let line = line.unwrap_or_else(|| panic!("{what}: no line in {problem}"));
                let line = broken.yaml.lines().nth(line as usize - 1).unwrap();
                assert!(line.contains(in_line), "{what}: {line}");
                let column = problem["column"].as_u64();
                let column = column.unwrap_or_else(|| panic!("{what}: no column in {problem}"));
                let from_there = line.get(column as usize - 1..);
                let from_there = from_there.unwrap_or_else(|| panic!("{what}: {column}: {line}"));
                if in_line == "nowhere" {
                    assert!(from_there.starts_with(in_line), "{what}: {column}: {line}");
                }
            }
        }
        assert!(!gateway.is_well_configured().await, "{what}");
        gateway.hang_up_until(outcome).await;
        let ran = run(&["reload", "--admin", &admin]);
        assert_eq!(ran.code, Some(code), "{what}: {ran:?}");
        assert!(
            ran.stderr.contains("the present one goes on"),
            "{what}: {ran:?}"
        );
        assert!(ran.stderr.contains(broken.says), "{what}: {ran:?}");
        site.is_as_before(&gateway, what).await;
        let opened = std::net::TcpStream::connect(free);
        assert!(opened.is_err(), "{what}: the new listener is open");
        gateway.logged(what, |_| failures(&gateway) == n + 1).await;
        gateway.write(&site.setup);
        gateway.hang_up_until("applied").await;
        assert!(gateway.is_well_configured().await, "{what}");
    }
    site.is_as_before(&gateway, "at the end").await;
    assert_eq!(gateway.old_engines().await, 0.0);
}

/// Nobody asks for a reload, and nothing watches the files.
#[tokio::test]
async fn a_refusal_is_over_when_the_files_say_again_what_runs() {
    let origin = Origin::pages(|_| Reply::ok("page")).await;
    let included = "routes: [{name: more, match: {path: /more}, upstream: origin}]\n";
    let setup = Setup::new(&origin)
        .file("more.yaml", included)
        .top("include", "[more.yaml]")
        .route("{name: site, match: {path: /site}, upstream: origin}");
    let gateway = setup.start().await;
    let well = "lamina_config_last_reload_success";
    for (file, content) in [("lamina.yaml", ""), ("more.yaml", "routes: [{name: more\n")] {
        std::fs::write(gateway.dir().join(file), content).unwrap();
        assert_eq!(gateway.reload().await.status, 422, "{file}");
        assert!(!gateway.is_well_configured().await, "{file}");
        gateway.write(&setup);
        gateway.metric_until(well, &[], |value| value == 1.0).await;
    }
    // A valid file that says something else is no repair.
    gateway.write(&setup.clone().top("telemetry", "{log_format: text}"));
    assert_eq!(gateway.reload().await.status, 422);
    passed(Instant::now(), LOOKS).await;
    assert!(!gateway.is_well_configured().await);
    gateway.write(&setup);
    gateway.metric_until(well, &[], |value| value == 1.0).await;
    assert_eq!(gateway.reloads("applied").await, 0.0);
}

/// Longer than two looks at the files.
const LOOKS: Duration = Duration::from_millis(2_500);

/// What can't be changed: the top-level key with its new value, and the key that is named.
fn fixed() -> [(&'static str, &'static str, &'static str); 11] {
    let disk = "{inflight: {wait_timeout: 10m}, l2: {disk: {path: l2}}}";
    [
        (
            "server",
            "{threads: 1, drain_timeout: 1m}",
            "server.threads",
        ),
        ("cache", disk, "cache.l2"),
        (
            "cache",
            "{inflight: {wait_timeout: 10m}, l2: {max_concurrent: 7}}",
            "cache.l2.max_concurrent",
        ),
        (
            "cache",
            "{inflight: {wait_timeout: 10m}, purge_log: {max_records: 7}}",
            "cache.purge_log.max_records",
        ),
        ("bus", "{redis: {url: \"redis://127.0.0.1:1\"}}", "bus"),
        (
            "acme",
            "{storage: acme, issuers: {local: {directory: \"https://127.0.0.1:1/dir\", contact: [\"mailto:a@b.example\"], agree_to_terms: true}}}",
            "acme",
        ),
        ("admin", "{address: \"127.0.0.1:9\"}", "admin.address"),
        (
            "admin",
            "{address: \"127.0.0.1:0\", socket_mode: \"0660\"}",
            "admin.socket_mode",
        ),
        ("telemetry", "{log_format: text}", "telemetry.log_format"),
        (
            "telemetry",
            "{log_format: json, max_series: 1000}",
            "telemetry.max_series",
        ),
        (
            "telemetry",
            "{log_format: json, recent_requests: {keep: 7}}",
            "telemetry.recent_requests.keep",
        ),
    ]
}

#[tokio::test]
async fn keys_that_keep_their_values_are_refused_by_name_and_nothing_else_is_taken() {
    let origin = Origin::pages(|_| Reply::ok("page")).await;
    let setup = Setup::new(&origin).route("{name: site, upstream: origin}");
    let gateway = setup.start().await;
    for (top, value, key) in fixed() {
        let changed = setup.clone().top(top, value).yaml();
        let yaml = changed.replace(
            "upstreams:\n",
            "upstreams:\n  nowhere: {targets: [\"http://127.0.0.1:1\"]}\n",
        );
        let yaml = yaml.replace("site, upstream: origin", "site, upstream: nowhere");
        std::fs::write(gateway.dir().join("lamina.yaml"), &yaml).unwrap();
        let answer = gateway.reload().await;
        assert_eq!(answer.status, 422, "{key}: {}", answer.said);
        let all = answer.said["problems"].as_array().unwrap();
        assert!(!all.is_empty(), "{key}");
        for problem in all {
            let named = problem["key"].as_str().unwrap();
            assert!(named.starts_with(key), "{key}: {problem}");
            let message = problem["message"].as_str().unwrap();
            assert!(
                message.contains("can't be changed while the gateway runs: "),
                "{message}"
            );
            assert!(
                message
                    .contains("set it back, or let another process take over by `lamina upgrade`"),
                "{message}"
            );
            let line = problem["line"].as_u64();
            let line = line.unwrap_or_else(|| panic!("{key}: no line in {problem}"));
            let line = yaml.lines().nth(line as usize - 1).unwrap();
            assert!(line.starts_with(top), "{key}: {line}");
        }
        let added = &answer.said["changes"]["upstreams"]["added"];
        assert_eq!(*added, serde_json::json!(["nowhere"]), "{key}");
        // And what it would do, if a process that takes over took it up.
        assert_eq!(answer.entries("entries"), 0, "{key}");
        assert!(answer.said["certificates"].is_object(), "{key}");
        assert!(answer.said["keys"].is_object(), "{key}");
        assert_eq!(gateway.client().get("/").await.text(), "page", "{key}");
        assert!(!gateway.is_well_configured().await, "{key}");
    }
    assert_eq!(gateway.reloads("not_live").await, fixed().len() as f64);
    let ran = run(&["reload", "--admin", &gateway.admin.to_string()]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let named = "telemetry.recent_requests.keep: this can't be changed";
    assert!(ran.stderr.contains(named), "{ran:?}");
    gateway.take_up(&setup).await;
    assert!(gateway.is_well_configured().await);
}
