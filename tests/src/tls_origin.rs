//! TLS before an origin, and authorities of the test's own.
//!
//! [`TlsFront`] speaks TLS with the gateway and passes the bytes on to an origin in clear text,
//! whichever that is: a proper one ([`TlsOrigin`] holds both) or one that misbehaves. It notes what
//! each client asked for, what was agreed on, and every byte of application data that came, so that
//! a test can see that none did. Its settings can be changed while it runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::origin::{Origin, Seen};
use crate::reply::Reply;
use crate::wait::{SOON, wait_until};

/// An authority, at the root or between a root and others.
pub struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    own: Vec<u8>,
    pem: String,
    /// What a server has to show beside its own certificate.
    between: Vec<CertificateDer<'static>>,
    key_pem: String,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct TestCertificate {
    /// Its own first.
    pub chain: Vec<CertificateDer<'static>>,
    pub pem: String,
    pub key_pem: String,
    key: Vec<u8>,
}

/// When a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    Now,
    Past,
    Future,
}

impl TestAuthority {
    /// A root.
    pub fn new(name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let own = params.self_signed(&key).unwrap();
        let (own, pem) = (own.der().to_vec(), own.pem());
        Self::of(params, key, own, pem, Vec::new())
    }

    /// One that this one vouches for.
    pub fn below(&self, name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let own = params.signed_by(&key, &self.issuer).unwrap();
        let between = [vec![own.der().clone()], self.between.clone()].concat();
        let (own, pem) = (own.der().to_vec(), own.pem());
        Self::of(params, key, own, pem, between)
    }

    fn of(
        params: CertificateParams,
        key: KeyPair,
        own: Vec<u8>,
        pem: String,
        between: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self {
            key_pem: key.serialize_pem(),
            issuer: Issuer::new(params, key),
            own,
            pem,
            between,
        }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A name for a file with its certificate, which no other authority has.
    pub fn file(&self) -> String {
        let end = &self.own[self.own.len() - 8..];
        let end: String = end.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("ca-{end}.pem")
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.own.clone())
    }

    /// The pin of its key.
    pub fn pin(&self) -> String {
        pin(&self.key_pem)
    }

    /// Vouches for a server with these names and addresses, or a client.
    pub fn certify(&self, names: &[&str]) -> TestCertificate {
        self.certify_for(names, Validity::Now)
    }

    pub fn certify_for(&self, names: &[&str], validity: Validity) -> TestCertificate {
        let key = KeyPair::generate().unwrap();
        let params = server(names, validity);
        let own = params.signed_by(&key, &self.issuer).unwrap();
        let chain = [vec![own.der().clone()], self.between.clone()].concat();
        TestCertificate::new(chain, own.pem(), &key)
    }
}

impl TestCertificate {
    /// One that vouches for itself.
    pub fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let own = server(names, Validity::Now).self_signed(&key).unwrap();
        Self::new(vec![own.der().clone()], own.pem(), &key)
    }

    fn new(chain: Vec<CertificateDer<'static>>, pem: String, key: &KeyPair) -> Self {
        Self {
            chain,
            pem,
            key_pem: key.serialize_pem(),
            key: key.serialize_der(),
        }
    }

    /// The same without those of the authorities between.
    pub fn alone(mut self) -> Self {
        self.chain.truncate(1);
        self
    }

    /// The same with one more certificate behind.
    pub fn beside(mut self, other: CertificateDer<'static>) -> Self {
        self.chain.push(other);
        self
    }

    /// The pin of its key, by the commands that docs/upstreams.md names.
    pub fn pin(&self) -> String {
        pin(&self.key_pem)
    }
}

pub(crate) fn pin(key_pem: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key.pem"), key_pem).unwrap();
    let command = "openssl pkey -in key.pem -pubout -outform der | openssl dgst -sha256 -binary | openssl base64 -A";
    let ran = Command::new("sh")
        .args(["-c", command])
        .current_dir(dir.path())
        .output()
        .expect("a shell");
    let pin = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(pin.len(), 44, "openssl is installed: {pin:?}");
    pin
}

fn named(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn server(names: &[&str], validity: Validity) -> CertificateParams {
    let mut params = named(names.first().copied().unwrap_or("nobody"), names);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let (from, to) = match validity {
        Validity::Now => (2020, 2100),
        Validity::Past => (2020, 2021),
        Validity::Future => (2090, 2100),
    };
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}

/// How a front speaks TLS.
#[derive(Clone)]
pub struct FrontSettings {
    pub certificate: TestCertificate,
    /// What it speaks by ALPN, the best first; empty: it knows no ALPN.
    pub alpn: Vec<&'static str>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// The authority whose certificates clients must have.
    pub clients_of: Option<CertificateDer<'static>>,
    pub manner: Manner,
    /// Whether it says by TLS that it closes, and not by TCP alone.
    pub says_goodbye: bool,
}

/// What it does with a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    Serve,
    /// Reads what it is asked for and says nothing.
    Stall,
    /// Closes in the place of an answer.
    HangUp,
    /// Sends this fatal alert in the place of an answer.
    Alert(u8),
    /// Sends these bytes in the place of an answer.
    Say(&'static [u8]),
    /// Closes once the handshake is done.
    CloseAfterHandshake,
    /// Sends bytes of no meaning before the handshake, as long as somebody takes them.
    Flood,
}

/// What a client asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Greeting {
    pub sni: Option<String>,
    pub alpn: Vec<String>,
}

/// A handshake that came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handshake {
    pub sni: Option<String>,
    pub alpn: Option<String>,
    pub version: Option<ProtocolVersion>,
    pub resumed: bool,
    /// The client's own certificate.
    pub client: Option<CertificateDer<'static>>,
    /// Every byte of application data that came after it.
    pub data: Vec<u8>,
}

/// TLS before another server.
pub struct TlsFront {
    address: SocketAddr,
    shared: Arc<FrontState>,
    accepting: JoinHandle<()>,
}

struct FrontState {
    behind: SocketAddr,
    current: Mutex<(FrontSettings, Arc<ServerConfig>)>,
    /// Raised to cut all connections.
    cut: tokio::sync::watch::Sender<u64>,
    seen: Mutex<FrontLog>,
}

#[derive(Default)]
struct FrontLog {
    connections: usize,
    greetings: Vec<Greeting>,
    handshakes: Vec<Handshake>,
    /// Connections that are open.
    open: usize,
}

impl FrontState {
    fn note(&self, number: usize, piece: &[u8]) {
        let mut seen = self.seen.lock().unwrap();
        seen.handshakes[number].data.extend_from_slice(piece);
    }
}

impl FrontSettings {
    /// HTTP/2 and HTTP/1.1, TLS 1.3 and 1.2, for every client.
    pub fn new(certificate: TestCertificate) -> Self {
        Self {
            certificate,
            alpn: vec!["h2", "http/1.1"],
            versions: vec![&rustls::version::TLS13, &rustls::version::TLS12],
            clients_of: None,
            manner: Manner::Serve,
            says_goodbye: true,
        }
    }

    fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .unwrap();
        let builder = match &self.clients_of {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.certificate.key.clone()));
        let chain = self.certificate.chain.clone();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        let alpn = self.alpn.iter();
        config.alpn_protocols = alpn.map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

impl TlsFront {
    /// Listens, and passes on to the server `behind`, which speaks clear text.
    pub async fn before(behind: SocketAddr, settings: FrontSettings) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = settings.config();
        let shared = Arc::new(FrontState {
            behind,
            current: Mutex::new((settings, config)),
            cut: tokio::sync::watch::Sender::new(0),
            seen: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://localhost:PORT`
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// From now on it speaks TLS like this. Connections that are open stay.
    pub fn change(&self, change: impl FnOnce(&mut FrontSettings)) {
        let mut current = self.shared.current.lock().unwrap();
        change(&mut current.0);
        current.1 = current.0.config();
    }

    /// Closes all its connections, as a server does that restarts.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// How many connections were opened to it.
    pub fn connections(&self) -> usize {
        self.shared.seen.lock().unwrap().connections
    }

    /// What clients asked for.
    pub fn greetings(&self) -> Vec<Greeting> {
        self.shared.seen.lock().unwrap().greetings.clone()
    }

    /// The handshakes that came to their end.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.shared.seen.lock().unwrap().handshakes.clone()
    }

    /// Every byte of application data that it got, of all clients.
    pub fn data(&self) -> Vec<u8> {
        let handshakes = self.handshakes();
        handshakes.into_iter().flat_map(|one| one.data).collect()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.seen.lock().unwrap().open
    }

    /// Waits until it has seen that many connections.
    pub async fn saw(&self, connections: usize) {
        let what = format!(
            "{connections} connections (there are {})",
            self.connections()
        );
        wait_until(&what, SOON, || self.connections() >= connections).await;
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<FrontState>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        {
            let mut seen = shared.seen.lock().unwrap();
            seen.connections += 1;
            seen.open += 1;
        }
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let mut cut = shared.cut.subscribe();
            tokio::select! {
                () = serve(stream, &shared) => {}
                _ = cut.changed() => {}
            }
            shared.seen.lock().unwrap().open -= 1;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, shared: &FrontState) {
    let (settings, config) = shared.current.lock().unwrap().clone();
    if settings.manner == Manner::Flood {
        // Records of a handshake, with nothing that a client could use.
        let record = [&[22, 3, 3, 0x3f, 0xff][..], &[0; 0x3fff]].concat();
        while stream.write_all(&record).await.is_ok() {}
        return;
    }
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    tokio::pin!(acceptor);
    let Ok(start) = acceptor.as_mut().await else {
        return;
    };
    let hello = start.client_hello();
    let alpn = hello.alpn().into_iter().flatten();
    let greeting = Greeting {
        sni: hello.server_name().map(str::to_owned),
        alpn: alpn.map(text).collect(),
    };
    shared.seen.lock().unwrap().greetings.push(greeting.clone());
    match settings.manner {
        Manner::Serve | Manner::CloseAfterHandshake => {}
        Manner::Flood | Manner::HangUp => return,
        Manner::Stall => {
            let mut stream = start.io;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
        Manner::Alert(number) => {
            let mut stream = start.io;
            let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, number]).await;
            return;
        }
        Manner::Say(bytes) => {
            let mut stream = start.io;
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            // A reset would overtake what was said.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
    }
    let mut stream = match start.into_stream(config).into_fallible().await {
        Ok(stream) => stream,
        Err((_, mut stream)) => {
            // What the client has sent by now would make a reset of a close, and that would overtake
            // the alert.
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
    };
    let number = {
        let connection = stream.get_ref().1;
        let handshake = Handshake {
            sni: greeting.sni,
            alpn: connection.alpn_protocol().map(text),
            version: connection.protocol_version(),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client: connection
                .peer_certificates()
                .and_then(|chain| chain.first())
                .map(|own| own.clone().into_owned()),
            data: Vec::new(),
        };
        let mut seen = shared.seen.lock().unwrap();
        seen.handshakes.push(handshake);
        seen.handshakes.len() - 1
    };
    if settings.manner == Manner::CloseAfterHandshake {
        let _ = stream.shutdown().await;
        return;
    }
    carry(stream, number, shared, settings.says_goodbye).await;
}

/// Passes bytes in both directions. Once the server behind closes, all is closed.
async fn carry(
    stream: TlsStream<TcpStream>,
    number: usize,
    shared: &FrontState,
    says_goodbye: bool,
) {
    let Ok(behind) = TcpStream::connect(shared.behind).await else {
        return;
    };
    let _ = behind.set_nodelay(true);
    let (mut from_client, mut to_client) = tokio::io::split(stream);
    let (mut from_server, mut to_server) = behind.into_split();
    let up = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            let piece = &buffer[..count];
            shared.note(number, piece);
            if to_server.write_all(piece).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match from_server.read(&mut buffer).await {
                Ok(0) => return true,
                Ok(count) => {
                    if to_client.write_all(&buffer[..count]).await.is_err()
                        || to_client.flush().await.is_err()
                    {
                        return true;
                    }
                }
                Err(_) => return false,
            }
        }
    };
    let ended_well = tokio::select! {
        () = up => true,
        well = down => well,
    };
    if ended_well && says_goodbye {
        let _ = to_client.shutdown().await;
    }
    if !ended_well {
        let stream = from_client.unsplit(to_client);
        let _ = stream.get_ref().0.set_zero_linger();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How a server that speaks clear text is reached: as it is, or through a front.
pub enum Reached {
    Clear(SocketAddr),
    Tls(Box<(TlsFront, TestAuthority)>),
}

impl Reached {
    /// Through a front that speaks this by ALPN.
    pub async fn by_tls(behind: SocketAddr, alpn: &'static str) -> Self {
        let authority = TestAuthority::new("authority");
        let mut settings = FrontSettings::new(authority.certify(&["localhost"]));
        settings.alpn = vec![alpn];
        let front = TlsFront::before(behind, settings).await;
        Self::Tls(Box::new((front, authority)))
    }

    /// Keys of an upstream: where it is, and whom to trust.
    pub fn keys(&self) -> String {
        match self {
            Self::Clear(address) => format!("targets: [\"http://{address}\"]"),
            Self::Tls(sealed) => {
                let (front, authority) = &**sealed;
                format!(
                    "targets: [\"{}\"], tls: {{ca_file: {}}}",
                    front.url(),
                    authority.file()
                )
            }
        }
    }

    /// The file that `keys` names, with what it holds.
    pub fn file(&self) -> Option<(String, String)> {
        match self {
            Self::Clear(_) => None,
            Self::Tls(sealed) => Some((sealed.1.file(), sealed.1.pem().to_owned())),
        }
    }
}

/// A proper origin behind TLS, with a certificate for `localhost` and 127.0.0.1 of an authority of
/// its own.
pub struct TlsOrigin {
    pub origin: Origin,
    pub front: TlsFront,
    pub authority: TestAuthority,
}

impl TlsOrigin {
    /// Every answer is what `page` makes.
    pub async fn pages(page: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::of(Origin::pages(page).await).await
    }

    pub async fn of(origin: Origin) -> Self {
        let authority = TestAuthority::new("authority");
        let settings = FrontSettings::new(authority.certify(&["localhost", "127.0.0.1"]));
        let front = TlsFront::before(origin.address(), settings).await;
        Self {
            origin,
            front,
            authority,
        }
    }

    /// An upstream with this map for `tls`, and further keys as in `, protocol: http1`.
    pub fn upstream(&self, tls: &str, more: &str) -> String {
        let url = self.front.url();
        format!("{{targets: [\"{url}\"], tls: {tls}{more}}}")
    }
}
