//! The servers that are compared, each with one worker and a cache in front of the same origin.
//!
//! Peers come from Debian (`make bench-install`); their files lie in a temporary folder.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use e2e::free_port::free_address;
use e2e::process::Server;
use e2e::tls::authority::{Authority, KeyKind, Order};
use e2e::{debian13, peers};

use crate::options::BenchOptions;

/// Core of the server under measurement; wrk and the origin have the other.
pub const SERVER_CORE: usize = 0;
pub const OTHER_CORE: usize = 1;

/// Keys of a route that has all rules which may stand on a hit.
const ALL_RULES: &str = ", access: {allow: [127.0.0.0/8]}, cookies: {drop: [\"_ga*\", _fbp]}, \
     bypass: {cookie: [\"wordpress_logged_in*\"]}, accept_language: [de, en, fr], limit: [clients], \
     request_id: on, cors: {origins: [\"https://app.example\"]}, security_headers: basic, \
     headers: {response: {set: {x-frame: \"no\"}}}, compress: {encodings: [br, zstd, gzip]}";

/// Varnish for one core; its default is for machines with many.
const THREADS: [&str; 2] = ["thread_pools=1", "thread_pool_min=100"];

/// A server under measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeasuredServer {
    Floor,
    Lamina,
    /// The same once more: what differs between the two is noise.
    LaminaAgain,
    LaminaKeyPlugin,
    /// With the second tier on disk.
    LaminaL2,
    /// One of many: with the event bus over NATS.
    LaminaBus,
    /// Its route has all rules that may stand on a hit.
    LaminaRules,
    /// The same, asked for gzip.
    LaminaRulesGzip,
    Haproxy,
    Nginx,
    Varnish,
    /// The same with TLS; the certificate has a key of the curve P-256.
    LaminaTls,
    HaproxyTls,
    NginxTls,
    /// With HTTP/3 beside HTTP/2.
    LaminaHttp3,
    /// Of Debian 13.
    HaproxyHttp3,
    NginxHttp3,
    /// With a key of RSA, 2048 bits.
    LaminaRsa,
    HaproxyRsa,
    NginxRsa,
}

impl MeasuredServer {
    pub const HITS: &[Self] = &[
        Self::Floor,
        Self::Lamina,
        Self::LaminaAgain,
        Self::LaminaKeyPlugin,
        Self::LaminaL2,
        Self::LaminaBus,
        Self::Haproxy,
        Self::Nginx,
        Self::Varnish,
    ];
    pub const RULED: &[Self] = &[Self::Lamina, Self::LaminaRules, Self::LaminaRulesGzip];
    pub const SECURED: &[Self] = &[
        Self::Lamina,
        Self::LaminaTls,
        Self::HaproxyTls,
        Self::NginxTls,
    ];
    pub const MULTIPLEXED: &[Self] = &[Self::LaminaTls, Self::HaproxyTls, Self::NginxTls];
    pub const QUIC: &[Self] = &[
        Self::LaminaTls,
        Self::LaminaHttp3,
        Self::HaproxyHttp3,
        Self::NginxHttp3,
    ];
    /// A body of 64 MiB, over HTTP/2 and over HTTP/3.
    pub const LARGE_BODIES: &[Self] = &[Self::LaminaTls, Self::LaminaHttp3];
    pub const QUIC_CONNECTIONS: &[Self] =
        &[Self::LaminaHttp3, Self::HaproxyHttp3, Self::NginxHttp3];
    /// With the hybrid key agreement, by whose client nothing else is asked for.
    pub const HYBRID_HANDSHAKES: &[Self] = &[Self::LaminaTls, Self::LaminaRsa];
    pub const HANDSHAKES: &[Self] = &[
        Self::LaminaTls,
        Self::HaproxyTls,
        Self::NginxTls,
        Self::LaminaRsa,
        Self::HaproxyRsa,
        Self::NginxRsa,
    ];
    pub const MISSES: &[Self] = &[
        Self::Lamina,
        Self::LaminaL2,
        Self::LaminaBus,
        Self::Haproxy,
        Self::Nginx,
    ];
    pub const PURGES: &[Self] = &[Self::Lamina, Self::LaminaBus];

    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Lamina => "lamina",
            Self::LaminaAgain => "lamina-again",
            Self::LaminaKeyPlugin => "lamina-key-plugin",
            Self::LaminaL2 => "lamina-l2",
            Self::LaminaBus => "lamina-bus",
            Self::LaminaRules => "lamina-rules",
            Self::LaminaRulesGzip => "lamina-rules-gzip",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Varnish => "varnish",
            Self::LaminaTls => "lamina-tls",
            Self::HaproxyTls => "haproxy-tls",
            Self::NginxTls => "nginx-tls",
            Self::LaminaHttp3 => "lamina-h3",
            Self::HaproxyHttp3 => "haproxy-h3",
            Self::NginxHttp3 => "nginx-h3",
            Self::LaminaRsa => "lamina-rsa",
            Self::HaproxyRsa => "haproxy-rsa",
            Self::NginxRsa => "nginx-rsa",
        }
    }
}

impl MeasuredServer {
    /// Whether it is asked over HTTP/3.
    pub fn speaks_http3(self) -> bool {
        matches!(
            self,
            Self::LaminaHttp3 | Self::HaproxyHttp3 | Self::NginxHttp3
        )
    }

    /// The key of its certificate, if it speaks TLS.
    pub fn key(self) -> Option<KeyKind> {
        match self {
            Self::LaminaTls
            | Self::LaminaHttp3
            | Self::HaproxyTls
            | Self::HaproxyHttp3
            | Self::NginxTls
            | Self::NginxHttp3 => Some(KeyKind::P256),
            Self::LaminaRsa | Self::HaproxyRsa | Self::NginxRsa => Some(KeyKind::Rsa2048),
            _ => None,
        }
    }
}

/// What the servers stand beside.
pub struct BenchSurroundings {
    /// The floor program.
    pub origin: Server,
    /// NATS; none where it is not installed.
    bus: Option<Server>,
}

impl BenchSurroundings {
    pub fn start() -> anyhow::Result<Self> {
        Ok(Self {
            origin: floor(OTHER_CORE)?,
            bus: nats().ok(),
        })
    }
}

fn nats() -> anyhow::Result<Server> {
    let address = free_address();
    let port = address.port().to_string();
    let arguments = ["--addr", "127.0.0.1", "--port", &port];
    Server::start(Some(OTHER_CORE), address, "nats-server", &arguments)
}

/// Starts a server of this kind with an empty cache.
pub fn start(
    kind: MeasuredServer,
    beside: &BenchSurroundings,
    work: &Path,
    options: &BenchOptions,
) -> anyhow::Result<Server> {
    let origin = &beside.origin;
    let dir = work.join(kind.name());
    if dir.exists() {
        fs::remove_dir_all(&dir).context("the last round's files")?;
    }
    fs::create_dir_all(&dir)?;
    let address = free_address();
    if let Some(key) = kind.key() {
        certify(key, &dir)?;
    }
    match kind {
        MeasuredServer::NginxTls | MeasuredServer::NginxRsa => {
            peers::nginx_secured(Some(SERVER_CORE), origin.address, &dir)
        }
        MeasuredServer::NginxHttp3 => {
            peers::nginx_over_quic(Some(SERVER_CORE), origin.address, &dir)
        }
        MeasuredServer::HaproxyHttp3 => haproxy_over_quic(address, origin, &dir),
        MeasuredServer::HaproxyTls | MeasuredServer::HaproxyRsa => {
            haproxy(address, origin, &dir, Some("tls.pem"))
        }
        MeasuredServer::Floor => floor(SERVER_CORE),
        MeasuredServer::Haproxy => haproxy(address, origin, &dir, None),
        MeasuredServer::Nginx => peers::nginx(Some(SERVER_CORE), origin.address, &dir, ""),
        MeasuredServer::Varnish => {
            peers::varnish(Some(SERVER_CORE), origin.address, &dir, &THREADS)
        }
        _ => lamina(kind, address, beside, &dir, options),
    }
}

fn floor(core: usize) -> anyhow::Result<Server> {
    let program = e2e::cli::beside_this_program().with_file_name("floor");
    let address = free_address();
    Server::start(
        Some(core),
        address,
        text(&program)?,
        &[&address.to_string()],
    )
}

fn lamina(
    kind: MeasuredServer,
    address: SocketAddr,
    beside: &BenchSurroundings,
    dir: &Path,
    options: &BenchOptions,
) -> anyhow::Result<Server> {
    if !options.lamina.exists() {
        bail!("{} is not built", options.lamina.display());
    }
    let (key, more) = match kind {
        MeasuredServer::LaminaKeyPlugin => {
            let file = e2e::cli::repository().join("plugins/dist/normalize-query.wasm");
            let file = file
                .canonicalize()
                .with_context(|| format!("{} is not built", file.display()))?;
            let plugins = format!(
                "plugins:\n  key: {{file: \"{}\", config: {{drop: [\"utm_*\"]}}}}\n",
                file.display()
            );
            (", key: {plugin: key}", plugins)
        }
        MeasuredServer::LaminaRules | MeasuredServer::LaminaRulesGzip => {
            let limits = "limits: {clients: {rate: 1000000/s, burst: 1000000, key: client}}\n";
            (ALL_RULES, limits.to_owned())
        }
        MeasuredServer::LaminaL2 => {
            let path = dir.join("l2");
            let disk = format!(
                "cache: {{l2: {{disk: {{path: \"{}\"}}}}}}\n",
                path.display()
            );
            ("", disk)
        }
        MeasuredServer::LaminaBus => {
            let bus = beside.bus.as_ref();
            let bus = bus.context("nats-server is not installed (make test-install)")?;
            let url = bus.address;
            (
                "",
                format!("bus: {{source: a, nats: {{servers: [\"nats://{url}\"]}}}}\n"),
            )
        }
        _ => ("", String::new()),
    };
    let protocols = match kind {
        MeasuredServer::LaminaHttp3 => "http1, http2, http3",
        _ => "http1, http2",
    };
    let tls = kind.key().map(|_| {
        let (cert, key) = (dir.join("tls.crt"), dir.join("tls.key"));
        format!(
            ", protocols: [{protocols}], tls: {{certificates: [{{cert: \"{}\", key: \"{}\"}}], default: \"{}\", \
             tickets: {{enabled: false}}}}",
            cert.display(),
            key.display(),
            cert.display()
        )
    });
    let tls = tls.unwrap_or_default();
    // The page of 64 MiB is stored, too.
    let cache = match kind.key() {
        Some(_) => "cache: {l1: {max_object_bytes: 100MiB, max_bytes: 400MiB}}\n",
        None => "",
    };
    let yaml = format!(
        "version: 1\n{cache}server: {{threads: 1}}\nlisteners: [{{address: \"{address}\"{tls}}}]\n\
         admin: {{address: \"127.0.0.1:0\"}}\ntelemetry: {{access_log: off, log_level: warn}}\n\
         upstreams: {{origin: \"http://{}\"}}\n{more}\
         purge_method: {{enabled: true, allow: [127.0.0.1/32]}}\n\
         routes:\n  - {{name: other, match: {{path: /other/*}}, upstream: origin, cache: off}}\n\
         \x20 - {{name: bench, match: {{path: /*}}, upstream: origin, tags: [bench]{key}}}\n",
        beside.origin.address
    );
    let config = write(dir, "lamina.yaml", &yaml)?;
    Server::start(
        Some(SERVER_CORE),
        address,
        text(&options.lamina)?,
        &["run", "-c", &config],
    )
}

/// Writes a certificate and its key, apart and together, as servers want them.
fn certify(key: KeyKind, dir: &Path) -> anyhow::Result<()> {
    let authority = Authority::new("bench");
    let certificate = authority.make(&Order::server(&["localhost"]).key(key));
    write(dir, "ca.pem", &authority.pem)?;
    write(dir, "tls.crt", &certificate.pem)?;
    write(dir, "tls.key", &certificate.key)?;
    let both = format!("{}{}", certificate.pem, certificate.key);
    write(dir, "tls.pem", &both)?;
    Ok(())
}

fn haproxy(
    address: SocketAddr,
    origin: &Server,
    dir: &Path,
    certificate: Option<&str>,
) -> anyhow::Result<Server> {
    let secured = certificate.map(|file| {
        let file = dir.join(file);
        format!(
            " ssl crt {} alpn h2,http/1.1 no-tls-tickets",
            file.display()
        )
    });
    let secured = secured.unwrap_or_default();
    let bind = format!("  bind {address}{secured}\n");
    let config = write(dir, "haproxy.cfg", &haproxy_config("", &bind, origin))?;
    Server::start(
        Some(SERVER_CORE),
        address,
        "/usr/sbin/haproxy",
        &["-db", "-f", &config],
    )
}

/// HAProxy of Debian 13, with HTTP/3 beside HTTP/2.
fn haproxy_over_quic(address: SocketAddr, origin: &Server, dir: &Path) -> anyhow::Result<Server> {
    let file = dir.join("tls.pem");
    let file = file.display();
    let bind = format!(
        "  bind {address} ssl crt {file} alpn h2,http/1.1 no-tls-tickets\n  \
         bind quic4@{address} ssl crt {file} alpn h3\n"
    );
    // Its OpenSSL has no early data over QUIC.
    let config = haproxy_config("  limited-quic\n", &bind, origin);
    let config = write(dir, "haproxy.cfg", &config)?;
    let program = debian13::program("sbin/haproxy")?;
    let arguments = program.arguments.iter().map(String::as_str);
    let arguments: Vec<_> = arguments.chain(["-db", "-f", &config]).collect();
    Server::start(Some(SERVER_CORE), address, &program.loader, &arguments)
}

fn haproxy_config(global: &str, bind: &str, origin: &Server) -> String {
    // wrk resumes sessions where it can.
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n  tune.ssl.cachesize 0\n{global}\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         cache small\n  total-max-size 256\n  max-object-size 100000\n  max-age 3600\n\
         frontend clients\n{bind}  default_backend pages\n\
         backend pages\n  http-request cache-use small\n  http-response cache-store small\n  server origin {}\n",
        origin.address
    )
}

fn write(dir: &Path, name: &str, content: &str) -> anyhow::Result<String> {
    let path = dir.join(name);
    fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    Ok(text(&path)?.to_owned())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}
