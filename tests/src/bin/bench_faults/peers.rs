//! The proxies of others and their configurations, as they are in `peers/`.
//!
//! Decision: "default" is the shortest configuration that sends requests to three targets;
//! "tuned" has what the proxy's documentation offers against faults: active checks each
//! second, passive ejection, one or two retries, 1 s for each, the fewest requests under way.

use std::path::{Path, PathBuf};

use anyhow::Context;
use e2e::free_port::free_address;
use e2e::process::Server;

use crate::origins::ThreeTargets;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Haproxy,
    Envoy,
    Traefik,
    Caddy,
    Nginx,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerTuning {
    Default,
    Tuned,
}

impl Peer {
    pub const ALL: [Self; 5] = [
        Self::Haproxy,
        Self::Envoy,
        Self::Traefik,
        Self::Caddy,
        Self::Nginx,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Nginx => "nginx",
        }
    }

    fn template(self, tuning: PeerTuning) -> &'static str {
        match (self, tuning) {
            (Self::Haproxy, PeerTuning::Default) => include_str!("peers/haproxy.cfg"),
            (Self::Haproxy, PeerTuning::Tuned) => include_str!("peers/haproxy-tuned.cfg"),
            (Self::Envoy, PeerTuning::Default) => include_str!("peers/envoy.yaml"),
            (Self::Envoy, PeerTuning::Tuned) => include_str!("peers/envoy-tuned.yaml"),
            (Self::Traefik, PeerTuning::Default) => include_str!("peers/traefik.yaml"),
            (Self::Traefik, PeerTuning::Tuned) => include_str!("peers/traefik-tuned.yaml"),
            (Self::Caddy, PeerTuning::Default) => include_str!("peers/Caddyfile"),
            (Self::Caddy, PeerTuning::Tuned) => include_str!("peers/Caddyfile-tuned"),
            (Self::Nginx, PeerTuning::Default) => include_str!("peers/nginx.conf"),
            (Self::Nginx, PeerTuning::Tuned) => include_str!("peers/nginx-tuned.conf"),
        }
    }

    /// Its arguments; those who have the port in their arguments have it not in the file.
    fn arguments<'a>(self, file: &'a str, home: &'a str, entry: &'a str) -> Vec<&'a str> {
        match self {
            Self::Haproxy => vec!["-db", "-f", file],
            Self::Envoy => {
                let quiet = ["--disable-hot-restart", "-l", "critical"];
                [&["-c", file, "--concurrency", "2"], &quiet[..]].concat()
            }
            Self::Traefik => {
                let private = "--global.sendanonymoususage=false";
                vec![private, "--global.checknewversion=false", entry, file]
            }
            Self::Caddy => vec!["run", "--adapter", "caddyfile", "--config", file],
            Self::Nginx => vec!["-p", home, "-c", file],
        }
    }
}

/// Starts a peer before these origins, with its files in `home`.
///
/// # Errors
/// When it does not start.
pub fn start(
    (peer, tuning): (Peer, PeerTuning),
    program: &Path,
    origins: &ThreeTargets,
    home: &Path,
) -> anyhow::Result<Server> {
    let [a, b, c] = origins.ports();
    let ports = [("@A@", a), ("@B@", b), ("@C@", c)];
    start_with(peer, program, peer.template(tuning), &ports, home)
}

/// Starts a peer with this configuration, in which words stand for ports; `@HOME@` is its
/// folder and `@PORT@` its own port.
///
/// # Errors
/// When it does not start.
pub fn start_with(
    peer: Peer,
    program: &Path,
    template: &str,
    ports: &[(&str, u16)],
    home: &Path,
) -> anyhow::Result<Server> {
    let listen = free_address();
    let config = home.join("config.yaml");
    let (home, program) = (text(home)?, text(program)?);
    let mut filled = template.replace("@HOME@", home);
    for (word, port) in [("@PORT@", listen.port())].iter().chain(ports) {
        filled = filled.replace(word, &port.to_string());
    }
    write(&config, &filled)?;
    let entry = format!("--entrypoints.web.address={listen}");
    let file = match peer {
        Peer::Traefik => format!("--providers.file.filename={}", text(&config)?),
        _ => text(&config)?.to_owned(),
    };
    let arguments = peer.arguments(&file, home, &entry);
    Server::start(None, listen, program, &arguments)
}

pub fn write(path: &PathBuf, content: &str) -> anyhow::Result<()> {
    std::fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

pub fn text(path: &Path) -> anyhow::Result<&str> {
    let text = path.to_str();
    text.with_context(|| format!("{} is not UTF-8", path.display()))
}
