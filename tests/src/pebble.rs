//! Real certificate authorities: `pebble` with the name server of `pebble-challtestsrv`, each with
//! ports and a folder of its own. Every name is at 127.0.0.1 unless a test says otherwise.
//!
//! That of the machine is one of Debian 12; that of Debian 13 (`tests/install-of-debian13.sh`) also says
//! when it wants a certificate to be renewed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::certificates;
use crate::free_port::free_port;
use crate::wait::{SOON, wait_for, within};

/// A running certificate authority.
pub struct Pebble {
    authority: Child,
    names: Child,
    dir: TempDir,
    port: u16,
    management: u16,
    names_management: u16,
    /// Where name servers answer.
    pub dns: SocketAddr,
    /// The port at which it asks for the answers of HTTP-01.
    pub http_port: u16,
    /// The port at which it does the handshakes of TLS-ALPN-01.
    pub tls_port: u16,
    options: PebbleOptions,
}

/// How it behaves.
#[derive(Clone, Debug)]
pub struct PebbleOptions {
    /// How long certificates are valid, in seconds.
    pub validity: u64,
    /// Environment variables.
    pub environment: Vec<(&'static str, String)>,
    /// The key of the one account with the name `kid-1`, without which nothing is given out.
    pub binding: Option<&'static str>,
    /// None: that of the machine.
    pub program: Option<PathBuf>,
}

/// The authority that says when it wants a certificate to be renewed (ARI), if it is installed.
pub fn with_renewal_information() -> Option<PathBuf> {
    let program = crate::cli::repository().join("target/debian13-pebble/usr/bin/pebble");
    program.exists().then_some(program)
}

impl Default for PebbleOptions {
    fn default() -> Self {
        Self {
            validity: 90 * 24 * 3_600,
            environment: Vec::new(),
            binding: None,
            program: None,
        }
    }
}

impl Pebble {
    pub async fn start() -> Self {
        Self::start_with(PebbleOptions::default()).await
    }

    pub async fn start_with(options: PebbleOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        certificates::make(dir.path());
        let [port, management, names_management, dns, http_port, tls_port] =
            std::array::from_fn(|_| free_port());
        let dns = SocketAddr::from(([127, 0, 0, 1], dns));
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .args(["-dns01", &dns.to_string()])
            .args(["-management", &format!("127.0.0.1:{names_management}")])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble-challtestsrv is installed (make test-install)");
        let mut pebble = Self {
            authority: placeholder(),
            names,
            dir,
            port,
            management,
            names_management,
            dns,
            http_port,
            tls_port,
            options,
        };
        pebble.spawn_authority();
        pebble.ready().await;
        pebble
    }

    fn spawn_authority(&mut self) {
        let file = |name: &str| self.dir.path().join(name);
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": file("server.pem"),
            "privateKey": file("server.key"),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.options.binding.is_some(),
            "certificateValidityPeriod": self.options.validity,
        });
        if let Some(key) = self.options.binding {
            config["externalAccountMACKeys"] = json!({ "kid-1": key });
        }
        let path = file("pebble.json");
        std::fs::write(&path, json!({ "pebble": config }).to_string()).unwrap();
        let log = std::fs::File::create(file("pebble.log")).unwrap();
        let program = self.options.program.clone();
        self.authority = Command::new(program.unwrap_or_else(|| "pebble".into()))
            .arg("-config")
            .arg(&path)
            .args(["-dnsserver", &self.dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .envs(self.options.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("pebble is installed (make test-install)");
    }

    async fn ready(&self) {
        wait_for("pebble answers", SOON, || async {
            let dir = self.ask(self.port, "/dir").await?;
            let names = TcpStream::connect(("127.0.0.1", self.names_management)).await;
            (dir.contains("newOrder") && names.is_ok()).then_some(())
        })
        .await;
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// The certificate of the authority that its own server is verified against.
    pub fn server_authority(&self) -> Vec<u8> {
        certificates::authority(self.dir.path())
    }

    /// The YAML of an issuer that is this one; `more` are further keys.
    pub fn issuer(&self, more: &str) -> String {
        let ca = self.dir.path().join("ca.pem");
        format!(
            "{{directory: \"{}\", ca_file: \"{}\", agree_to_terms: true{more}}}",
            self.directory(),
            ca.display()
        )
    }

    /// Says where a name is.
    pub async fn name_is_at(&self, name: &str, address: &str) {
        self.tell_names("/clear-a", &json!({"host": format!("{name}.")}))
            .await;
        self.tell_names(
            "/add-a",
            &json!({"host": format!("{name}."), "addresses": [address]}),
        )
        .await;
    }

    /// Asks the management of the name server.
    pub async fn tell_names(&self, path: &str, body: &serde_json::Value) {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.0\r\nhost: names\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let exchange = async {
            let at = ("127.0.0.1", self.names_management);
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = within("the name server's management", SOON, exchange).await;
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// The URL of the name server's management, for programs that change records.
    pub fn names_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.names_management)
    }

    /// The root that its certificates go back to.
    pub async fn root(&self) -> CertificateDer<'static> {
        let pem = self.ask(self.management, "/roots/0").await.unwrap();
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    /// The root of one of its further chains.
    pub async fn root_of_chain(&self, number: usize) -> CertificateDer<'static> {
        let path = format!("/roots/{number}");
        let pem = self.ask(self.management, &path).await.unwrap();
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    /// What it says of the certificate with this serial number, in hexadecimal digits.
    pub async fn status_of(&self, serial: &str) -> String {
        let path = format!("/cert-status-by-serial/{serial}");
        self.ask(self.management, &path).await.unwrap()
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("pebble.log")).unwrap_or_default()
    }

    /// How many orders it has taken.
    pub fn orders(&self) -> usize {
        self.count("Added order")
    }

    /// How many accounts it has made.
    pub fn accounts(&self) -> usize {
        self.count("accounts in memory")
    }

    fn count(&self, words: &str) -> usize {
        let log = self.log();
        log.lines().filter(|line| line.contains(words)).count()
    }

    /// The body of an answer over HTTPS. None if there is none.
    async fn ask(&self, port: u16, path: &str) -> Option<String> {
        let mut roots = RootCertStore::empty();
        let authority = self.server_authority();
        roots
            .add(CertificateDer::from_pem_slice(&authority).unwrap())
            .unwrap();
        let mut stream = connect(here(port), "127.0.0.1", roots, &[]).await.ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nhost: pebble\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        // A server that ends without close_notify has said all it had to say.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).ok()?;
        answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
    }

    /// Starts it again. It knows no account and no order any more, and has another root.
    pub async fn restart(&mut self) {
        self.kill();
        self.spawn_authority();
        self.ready().await;
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.authority.kill();
        let _ = self.authority.wait();
    }

    /// Freezes it: connections stand, answers never come.
    pub fn freeze(&self) {
        crate::process::freeze(self.authority.id());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        crate::process::thaw(self.authority.id());
    }

    /// The certificate that a server shows for a name, if it goes back to this authority.
    pub async fn shown_by(
        &self,
        server: SocketAddr,
        name: &str,
    ) -> Result<CertificateDer<'static>, String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root().await).unwrap();
        let stream = connect(server, name, roots, &[]).await?;
        let shown = stream.get_ref().1.peer_certificates();
        Ok(shown
            .and_then(<[_]>::first)
            .expect("a server has one")
            .clone()
            .into_owned())
    }

    /// The folder of its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A TLS connection to a server.
pub async fn connect(
    server: SocketAddr,
    name: &str,
    roots: RootCertStore,
    protocols: &[&[u8]],
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let mut config = ClientConfig::builder_with_provider(lamina_base::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connected = async {
        let stream = TcpStream::connect(server)
            .await
            .map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(config));
        let secured = connector.connect(name, stream).await;
        secured.map_err(|error| error.to_string())
    };
    within("a TLS handshake", SOON, connected).await
}

/// The common name of a certificate, as `openssl` reads it.
pub fn common_name(certificate: &CertificateDer<'_>) -> String {
    let mut openssl = Command::new("openssl")
        .args([
            "x509",
            "-inform",
            "DER",
            "-noout",
            "-subject",
            "-nameopt",
            "multiline",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is installed (make test-install)");
    let mut pipe = openssl.stdin.take().expect("stdin is piped");
    std::io::Write::write_all(&mut pipe, certificate).unwrap();
    drop(pipe);
    let said = openssl.wait_with_output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let line = said.lines().find(|line| line.contains("commonName"));
    let (_, name) = line.unwrap().split_once("= ").unwrap();
    name.to_owned()
}

/// A port of this machine.
pub fn here(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A process that has ended already, until there is a real one.
fn placeholder() -> Child {
    Command::new("true").spawn().expect("`true` is everywhere")
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let from = lines.len().saturating_sub(40);
            eprintln!(
                "--- pebble's last log lines\n{}\n---",
                lines[from..].join("\n")
            );
        }
        self.kill();
        let _ = self.names.kill();
        let _ = self.names.wait();
    }
}
