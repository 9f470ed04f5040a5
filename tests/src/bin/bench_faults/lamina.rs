//! Lamina with its defaults.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use e2e::free_port::free_address;
use e2e::metrics::Scrape;
use e2e::process::Server;

use crate::client;
use crate::peers::{text, write};

/// A running Lamina.
pub struct Lamina {
    pub server: Server,
    admin: SocketAddr,
}

impl Lamina {
    /// Starts it before these targets. `more` are lines of its upstream beside the targets;
    /// what is below `/cached/` is stored as the origin says, all else is not.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(targets: &[SocketAddr], more: &str, home: &Path) -> anyhow::Result<Self> {
        let targets: Vec<_> = targets
            .iter()
            .map(|target| format!("\"http://{target}\""))
            .collect();
        Self::start_before(&targets.join(", "), more, home)
    }

    /// The same with targets as they are written in the YAML.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_before(targets: &str, more: &str, home: &Path) -> anyhow::Result<Self> {
        let (listen, admin) = (free_address(), free_address());
        let yaml = format!(
            "version: 1\nlisteners: [{{ address: \"{listen}\" }}]\nadmin: {{ address: \"{admin}\" }}\n\
             upstreams:\n  origin:\n    targets: [{targets}]\n{more}\
             routes:\n  - {{ name: cached, match: {{ path: \"/cached/*\" }}, upstream: origin }}\n\
             \x20 - {{ name: site, upstream: origin, cache: off }}\n"
        );
        let config = home.join("lamina.yaml");
        write(&config, &yaml)?;
        let arguments = ["run", "-c", text(&config)?];
        let server = Server::start(None, listen, text(&e2e::cli::binary())?, &arguments)?;
        Ok(Self { server, admin })
    }

    /// How many attempts it counts in all: also those that have reached nobody.
    ///
    /// # Errors
    /// When its metrics can't be had.
    pub async fn attempts(&self) -> anyhow::Result<u64> {
        let (_, body) = client::try_ask(self.admin, "GET", "/metrics").await?;
        let scrape = Scrape::parse(&String::from_utf8(body).context("metrics are text")?);
        Ok(scrape.sum("lamina_upstream_requests_total", &[]) as u64)
    }
}

/// What `lamina --version` says.
pub fn version() -> String {
    e2e::cli::run(&["--version"]).stdout.trim().to_owned()
}
