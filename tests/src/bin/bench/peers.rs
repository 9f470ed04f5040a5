//! The servers that are compared, each with one worker and a cache in front of the same origin.
//!
//! Peers come from Debian (`tests/bench-install.sh`); their files lie in a temporary folder.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};

use crate::options::Options;
use crate::process::{Server, free_address};

/// Core of the server under measurement; wrk and the origin have the other.
pub const SERVER_CORE: usize = 0;
pub const OTHER_CORE: usize = 1;

/// A server under measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Floor,
    Lamina,
    LaminaKeyPlugin,
    Haproxy,
    Nginx,
    Varnish,
}

impl Kind {
    pub const HITS: &[Self] = &[
        Self::Floor,
        Self::Lamina,
        Self::LaminaKeyPlugin,
        Self::Haproxy,
        Self::Nginx,
        Self::Varnish,
    ];
    pub const MISSES: &[Self] = &[Self::Lamina, Self::Nginx];

    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Lamina => "lamina",
            Self::LaminaKeyPlugin => "lamina-key-plugin",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Varnish => "varnish",
        }
    }
}

/// The floor program as the origin of all.
pub fn start_origin() -> anyhow::Result<Server> {
    floor(OTHER_CORE)
}

/// Starts a server of this kind with an empty cache.
pub fn start(
    kind: Kind,
    origin: &Server,
    work: &Path,
    options: &Options,
) -> anyhow::Result<Server> {
    let dir = work.join(kind.name());
    if dir.exists() {
        fs::remove_dir_all(&dir).context("the last round's files")?;
    }
    fs::create_dir_all(&dir)?;
    let address = free_address()?;
    match kind {
        Kind::Floor => floor(SERVER_CORE),
        Kind::Lamina => lamina(address, origin, &dir, options, None),
        Kind::LaminaKeyPlugin => lamina(address, origin, &dir, options, Some("normalize-query")),
        Kind::Haproxy => haproxy(address, origin, &dir),
        Kind::Nginx => nginx(address, origin, &dir),
        Kind::Varnish => varnish(address, origin, &dir),
    }
}

fn floor(core: usize) -> anyhow::Result<Server> {
    let program = e2e::cli::beside_this_program().with_file_name("floor");
    let address = free_address()?;
    Server::start(core, address, text(&program)?, &[&address.to_string()])
}

fn lamina(
    address: SocketAddr,
    origin: &Server,
    dir: &Path,
    options: &Options,
    key_plugin: Option<&str>,
) -> anyhow::Result<Server> {
    if !options.lamina.exists() {
        bail!("{} is not built", options.lamina.display());
    }
    let (key, plugins) = match key_plugin {
        None => (String::new(), String::new()),
        Some(name) => {
            let file = e2e::cli::repository()
                .join("plugins/dist")
                .join(format!("{name}.wasm"));
            let file = file
                .canonicalize()
                .with_context(|| format!("{} is not built", file.display()))?;
            let plugins = format!(
                "plugins:\n  key: {{file: \"{}\", config: {{drop: [\"utm_*\"]}}}}\n",
                file.display()
            );
            (", key: {plugin: key}".to_owned(), plugins)
        }
    };
    let yaml = format!(
        "version: 1\nserver: {{threads: 1}}\nlisteners: [{{address: \"{address}\"}}]\n\
         admin: {{address: \"127.0.0.1:0\"}}\ntelemetry: {{access_log: off, log_level: warn}}\n\
         upstreams: {{origin: \"http://{}\"}}\n{plugins}\
         routes:\n  - {{name: other, match: {{path: /other/*}}, upstream: origin, cache: off}}\n\
         \x20 - {{name: bench, match: {{path: /*}}, upstream: origin, tags: [bench]{key}}}\n",
        origin.address
    );
    let config = write(dir, "lamina.yaml", &yaml)?;
    Server::start(
        SERVER_CORE,
        address,
        text(&options.lamina)?,
        &["run", "-c", &config],
    )
}

fn haproxy(address: SocketAddr, origin: &Server, dir: &Path) -> anyhow::Result<Server> {
    let config = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         cache small\n  total-max-size 256\n  max-object-size 100000\n  max-age 3600\n\
         frontend clients\n  bind {address}\n  default_backend pages\n\
         backend pages\n  http-request cache-use small\n  http-response cache-store small\n  server origin {}\n",
        origin.address
    );
    let config = write(dir, "haproxy.cfg", &config)?;
    Server::start(
        SERVER_CORE,
        address,
        "/usr/sbin/haproxy",
        &["-db", "-f", &config],
    )
}

fn nginx(address: SocketAddr, origin: &Server, dir: &Path) -> anyhow::Result<Server> {
    let home = text(dir)?;
    let config = format!(
        "user root;\nworker_processes 1;\ndaemon off;\npid {home}/nginx.pid;\nerror_log {home}/error.log;\n\
         worker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  keepalive_requests 1000000000;\n\
         \x20 client_body_temp_path {home}/body;\n  proxy_temp_path {home}/proxy;\n  fastcgi_temp_path {home}/f;\n\
         \x20 uwsgi_temp_path {home}/u;\n  scgi_temp_path {home}/s;\n\
         \x20 proxy_cache_path {home}/cache levels=1:2 keys_zone=small:64m max_size=4g inactive=1h use_temp_path=off;\n\
         \x20 upstream origin {{ server {origin}; keepalive 64; keepalive_requests 1000000000; }}\n\
         \x20 server {{\n    listen {address};\n    location / {{\n      proxy_pass http://origin;\n\
         \x20     proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_cache small;\n    }}\n  }}\n}}\n",
        origin = origin.address
    );
    let config = write(dir, "nginx.conf", &config)?;
    Server::start(
        SERVER_CORE,
        address,
        "/usr/sbin/nginx",
        &["-p", home, "-c", &config],
    )
}

fn varnish(address: SocketAddr, origin: &Server, dir: &Path) -> anyhow::Result<Server> {
    let (listen, behind, home) = (address.to_string(), origin.address.to_string(), text(dir)?);
    let arguments = [
        ["-j", "none"],
        ["-n", home],
        ["-a", &listen],
        ["-b", &behind],
        ["-s", "malloc,256m"],
        ["-p", "thread_pools=1"],
        ["-p", "thread_pool_min=100"],
    ];
    let arguments: Vec<&str> = std::iter::once("-F")
        .chain(arguments.into_iter().flatten())
        .collect();
    Server::start(SERVER_CORE, address, "/usr/sbin/varnishd", &arguments)
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
