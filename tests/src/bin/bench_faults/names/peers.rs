//! How the peers are told to follow a name, as it is in `peers/names/`.
//!
//! Decision: what each offers to follow a time to live of a second, and otherwise its defaults.
//! Traefik is not among them: its targets are URLs, and their names are the system's business.

use std::path::Path;

use e2e::name_server::NameServer;
use e2e::process::Server;

use anyhow::Context;

use crate::peers::{self, Peer};
use crate::report::MeasuredProxy;

/// Whether a subject has a row.
pub fn follows_names(subject: MeasuredProxy) -> bool {
    match subject {
        MeasuredProxy::Lamina => true,
        MeasuredProxy::Peer(peer, _) => configuration(peer).is_some(),
    }
}

/// What a row is called.
pub fn heading(subject: MeasuredProxy) -> String {
    match subject {
        MeasuredProxy::Lamina => "**lamina**, `floor: 1s`".to_owned(),
        MeasuredProxy::Peer(peer, _) => {
            let how = configuration(peer).map(|(how, _)| how);
            format!(
                "{}, {}",
                peer.name(),
                how.unwrap_or("which follows no names")
            )
        }
    }
}

/// Starts a peer before the name with origins at this port.
///
/// # Errors
/// When it does not start.
pub fn start(
    peer: Peer,
    program: &Path,
    origins: u16,
    names: &NameServer,
    home: &Path,
) -> anyhow::Result<Server> {
    let (_, template) = configuration(peer).context("it follows no names")?;
    let ports = [("@ORIGIN@", origins), ("@NAMES@", names.address.port())];
    peers::start_with(peer, program, template, &ports, home)
}

/// By what it follows names, in a few words, and its configuration.
fn configuration(peer: Peer) -> Option<(&'static str, &'static str)> {
    match peer {
        Peer::Haproxy => Some((
            "`hold valid 1s`",
            include_str!("../peers/names/haproxy.cfg"),
        )),
        Peer::Envoy => Some((
            "STRICT_DNS, `respect_dns_ttl`",
            include_str!("../peers/names/envoy.yaml"),
        )),
        Peer::Caddy => Some((
            "`dynamic a`, `refresh 1s`",
            include_str!("../peers/names/Caddyfile"),
        )),
        Peer::Nginx => Some((
            "`resolve`, `valid=1s`",
            include_str!("../peers/names/nginx.conf"),
        )),
        Peer::Traefik => None,
    }
}
