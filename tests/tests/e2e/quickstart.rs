//! The shipped quickstart does what README.md and docs/getting-started.md promise.
//!
//! It runs as it is but for its ports, which are free ones here, in a copy that
//! lies in the same folder depth so that `../plugins/dist` is found.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;

use e2e::cli::{binary, repository};
use e2e::client::Client;
use e2e::debian13;
use e2e::free_port::free_address;
use e2e::gateway::Gateway;
use e2e::h3::client::H3Client;
use e2e::origin::Origin;
use e2e::pebble::connect;
use e2e::reply::Reply;
use e2e::tls::TlsClient;
use e2e::tools;
use e2e::wait::{SOON, wait_for, wait_until, within};
use quinn::crypto::rustls::QuicClientConfig;
use rustix::process::{Pid, Signal, kill_process};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

/// `lamina demo-origin`, ended on drop.
struct DemoOrigin(Child);

impl Drop for DemoOrigin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn quickstart() -> (DemoOrigin, Gateway) {
    let address = free_address();
    let demo = Command::new(binary())
        .args(["demo-origin", "--listen", &address.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the demo origin starts");
    let demo = DemoOrigin(demo);
    wait_for("the demo origin listens", SOON, || async move {
        tokio::net::TcpStream::connect(address).await.ok()
    })
    .await;
    let shipped = repository().join("config/quickstart.yaml");
    let text = std::fs::read_to_string(&shipped)
        .unwrap_or_else(|error| panic!("{}: {error}", shipped.display()));
    let dist = repository()
        .join("plugins/dist")
        .canonicalize()
        .expect("plugins/build.sh has been run");
    let text = text
        .replace("127.0.0.1:8081", &address.to_string())
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:8443", "127.0.0.1:0")
        .replace("[::1]:8443", "[::1]:0")
        .replace("127.0.0.1:9180", "127.0.0.1:0")
        .replace("../plugins/dist", dist.to_str().unwrap())
        .replace("../.lamina/", "");
    let dir = tempfile::tempdir().unwrap();
    let config = e2e::setup::write_config(dir.path(), &text);
    (demo, Gateway::start(dir, &config, &[]).await)
}

/// Browsers take `localhost` for either.
#[tokio::test]
async fn https_is_served_on_the_loopback_of_both_families() {
    let (_demo, gateway) = quickstart().await;
    let addresses = gateway.addresses();
    let secured: Vec<_> = addresses.iter().skip(1).copied().collect();
    let families: Vec<_> = secured.iter().map(SocketAddr::is_ipv6).collect();
    assert_eq!(families, [false, true], "{addresses:?}");
    for address in secured {
        let client = TlsClient::new(address, "localhost");
        assert_eq!(client.status("localhost").await, Ok(200), "{address}");
    }
}

/// Connects over TLS and asks for a page over HTTP/3; both verify the certificate against the local
/// authority that clients are told of.
async fn verified_over_tls_and_http3(address: SocketAddr, authority: &Path, target: &str) {
    let mut roots = RootCertStore::empty();
    let root = wait_for("the local authority is there", SOON, || async {
        CertificateDer::from_pem_file(authority).ok()
    });
    roots.add(root.await).unwrap();
    wait_for("its certificate is shown", SOON, || async {
        connect(address, "localhost", roots.clone(), &[b"h2"])
            .await
            .ok()
    })
    .await;
    let none = connect(address, "localhost", RootCertStore::empty(), &[b"h2"]).await;
    assert!(none.is_err(), "the client does verify");
    let mut tls = rustls::ClientConfig::builder_with_provider(lamina_base::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    endpoint.set_default_client_config(config);
    let connecting = endpoint.connect(address, "localhost").unwrap();
    let connection = within("a QUIC handshake", SOON, connecting).await.unwrap();
    let client = H3Client::over(endpoint, connection, "localhost").await;
    assert_eq!(client.get(target).await.status, 200);
}

/// What README.md says of `--cacert .lamina/ca/ca.pem`.
#[tokio::test]
async fn its_certificate_is_good_for_clients_that_know_the_local_authority() {
    let (_demo, gateway) = quickstart().await;
    let secured = gateway.addresses()[1];
    let authority = gateway.dir().join("ca/ca.pem");
    verified_over_tls_and_http3(secured, &authority, "/pages/hello").await;
}

/// A gateway that was started by options alone, ended on drop.
struct StartedGateway(Child);

impl Drop for StartedGateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Four ports, one for each that the quickstart has.
fn free_ports() -> [String; 4] {
    // All are held until each is known, so that none is given twice.
    let held = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|held| held.local_addr().unwrap().port().to_string())
}

/// `scripts/run.sh`, which is what `make run` runs at last, in a folder that is as the repository but
/// for the ports. It ends on drop, with what it has started.
struct RunScript {
    process: Child,
    folder: TempDir,
    /// The commands that it says one may try.
    tries: Vec<String>,
}

impl RunScript {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = free_ports();
        for file in ["scripts/run.sh", "config/quickstart.yaml"] {
            let mut text = std::fs::read_to_string(repository().join(file)).unwrap();
            for (shipped, free) in ["8080", "8081", "8443", "9180"].iter().zip(&ports) {
                // Behind a colon, or behind the slash of bash's own /dev/tcp.
                for before in [":", "/"] {
                    text = text.replace(&format!("{before}{shipped}"), &format!("{before}{free}"));
                }
            }
            let copy = folder.path().join(file);
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::write(copy, text).unwrap();
        }
        let plugins = repository().join("plugins").canonicalize().unwrap();
        symlink(plugins, folder.path().join("plugins")).unwrap();
        let mut process = Command::new("bash")
            .arg(folder.path().join("scripts/run.sh"))
            .env("LAMINA_BIN", binary())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash is there");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (tells, told) = mpsc::channel();
        // Read to the end: whoever writes to it must not wait.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = tells.send(line);
            }
        });
        let told: Vec<_> = told
            .iter()
            .take_while(|line| !line.contains("`make dist`"))
            .collect();
        let command = |line: &String| line.trim().starts_with("curl ").then(|| line.clone());
        let tries = told.iter().filter_map(command).collect();
        Self {
            process,
            folder,
            tries,
        }
    }

    /// Does a line as its reader would.
    fn try_line(&self, line: &str, curl: &str) -> Output {
        Command::new("bash")
            .args(["-c", &format!("{curl}\n{line}")])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("bash is there")
    }
}

impl Drop for RunScript {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

/// A shell function by which `curl` is that of Debian 13, which speaks HTTP/3.
fn curl_with_http3() -> Option<String> {
    let Ok(program) = debian13::program("bin/curl") else {
        tools::is_missing("curl of Debian 13", "the quickstart over HTTP/3");
        return None;
    };
    let words = [vec![program.loader], program.arguments].concat();
    Some(format!("curl() {{ '{}' \"$@\"; }}", words.join("' '")))
}

/// From a build to a page that curl trusts, in one command: what `make run` prints is done as it is
/// printed, with the real curl.
#[tokio::test]
async fn what_make_run_says_can_be_tried_with_curl() {
    let begun = tokio::task::spawn_blocking(RunScript::start);
    let script = within("run.sh says what to try", SOON * 2, begun).await;
    let script = script.unwrap();
    let (http3, clear): (Vec<_>, Vec<_>) = script
        .tries
        .iter()
        .partition(|line| line.contains("--http3"));
    assert_eq!((clear.len(), http3.len()), (7, 1), "{:?}", script.tries);
    let mut secured = 0;
    let with_http3 = curl_with_http3();
    let http3 = http3.into_iter().zip(with_http3.as_deref());
    for (line, curl) in clear.into_iter().map(|line| (line, "")).chain(http3) {
        // The local authority may still be at work.
        let answer = wait_for(line, SOON, || async {
            let tried = script.try_line(line, curl);
            tried.status.success().then_some(tried.stdout)
        })
        .await;
        let answer = String::from_utf8(answer).unwrap();
        let first = answer.lines().next().unwrap_or_default().trim_end();
        match (line.contains("--cacert"), line.contains("--http3")) {
            (true, true) => assert_eq!(first, "HTTP/3 200", "{line}: {answer}"),
            (true, false) => assert_eq!(first, "HTTP/2 200", "{line}: {answer}"),
            _ if line.contains("curl -i") => assert_eq!(first, "HTTP/1.1 200 OK", "{line}"),
            _ => assert!(!first.is_empty(), "{line}"),
        }
        secured += usize::from(line.contains("--cacert"));
    }
    assert!(secured >= 1);
    // Nobody else's word is taken for it.
    let line = script.tries.iter().find(|line| line.contains("--cacert"));
    let line = line.unwrap().replace("--cacert .lamina/ca/ca.pem", "");
    assert_eq!(script.try_line(&line, "").status.code(), Some(60), "{line}");
}

#[tokio::test]
async fn options_alone_serve_an_origin_at_localhost() {
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let dir = tempfile::tempdir().unwrap();
    let (https, http) = (free_address(), free_address());
    // No option names another place of the admin listener.
    wait_until("its port is free", SOON * 4, || {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 9_180)).is_ok()
    })
    .await;
    let started = Command::new(binary())
        .args(["run", "--domain", "localhost", "--to", &origin.url()])
        .args(["--https", &https.to_string(), "--http", &http.to_string()])
        .current_dir(dir.path())
        .env("LAMINA_STATE_DIR", ".lamina")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("lamina starts");
    let _started = StartedGateway(started);
    let authority = dir.path().join(".lamina/ca/ca.pem");
    verified_over_tls_and_http3(https, &authority, "/page").await;
    assert_eq!(origin.count_of("/page"), 1);
    let clear = Client::http1(http).uncached();
    let clear = clear.request("/page").host("localhost").send().await;
    assert_eq!(clear.status, 308);
    let there = format!("https://localhost:{}/page", https.port());
    assert_eq!(clear.header("location"), there);
}

#[tokio::test]
async fn a_page_is_a_miss_then_a_hit_with_its_age() {
    let (_demo, gateway) = quickstart().await;
    let miss = gateway.client().get("/pages/hello").await;
    let cache = miss.cache();
    assert!(cache.forwarded_as("uri-miss") && cache.stored, "{cache:?}");
    let hit = gateway.client().get("/pages/hello").await;
    assert!(
        hit.is_hit() && hit.cache().ttl.is_some() && hit.age().is_some(),
        "{:?}",
        hit.headers
    );
    assert_eq!(hit.body, miss.body);
}

#[tokio::test]
async fn tracking_parameters_share_one_entry_through_the_key_plugin() {
    let (_demo, gateway) = quickstart().await;
    gateway
        .client()
        .get("/search?q=tea&utm_source=letter")
        .await;
    assert!(
        gateway
            .client()
            .get("/search?q=tea&utm_source=banner")
            .await
            .is_hit()
    );
}

#[tokio::test]
async fn the_composed_route_shows_both_origins_data() {
    let (_demo, gateway) = quickstart().await;
    let answer = gateway.client().get("/account/42").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.json()["user"].is_object() && !answer.json()["orders"].is_null(),
        "{}",
        answer.text()
    );
    assert!(gateway.client().get("/account/42").await.is_hit());
}

#[tokio::test]
async fn a_post_to_a_page_purges_it() {
    let (_demo, gateway) = quickstart().await;
    let before = gateway.client().get("/pages/hello").await;
    assert!(
        gateway
            .client()
            .post("/pages/hello", "")
            .await
            .status
            .is_success()
    );
    let after = gateway.client().get("/pages/hello").await;
    assert!(!after.is_hit() && after.body != before.body);
}

#[tokio::test]
async fn every_page_of_the_demo_answers() {
    let (_demo, gateway) = quickstart().await;
    for path in [
        "/",
        "/slow?ms=10",
        "/vary",
        "/private",
        "/nostore",
        "/cookie",
        "/echo",
    ] {
        assert_eq!(gateway.client().get(path).await.status, 200, "{path}");
    }
    assert_eq!(gateway.client().get("/missing").await.status, 404);
    assert_eq!(gateway.client().get("/fail").await.status, 503);
}
