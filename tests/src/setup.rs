//! The YAML of a gateway under test: short to write, everything else a default
//! that suits tests (free ports, two threads, JSON log).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::gateway::Gateway;
use crate::origin::{Origin, Seen};
use crate::reply::Reply;
use crate::tls::authority::Certificate;

/// A configuration that is being put together.
///
/// Texts are YAML in flow style, as in `{mode: override, ttl: 10s}`.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    upstreams: Vec<(String, String)>,
    routes: Vec<String>,
    listener: Vec<String>,
    top: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// One upstream, named `origin`.
    pub fn new(origin: &Origin) -> Self {
        Self::default().upstream("origin", &format!("{{targets: [\"{}\"]}}", origin.url()))
    }

    /// One more upstream.
    pub fn upstream(mut self, name: &str, yaml: &str) -> Self {
        self.upstreams.retain(|(known, _)| known != name);
        self.upstreams.push((name.to_owned(), yaml.to_owned()));
        self
    }

    /// A route, as in `{name: x, match: {path: /x/*}, upstream: origin}`. Without any
    /// there is one, `site`, that sends everything to `origin`.
    pub fn route(mut self, yaml: &str) -> Self {
        self.routes.push(yaml.to_owned());
        self
    }

    /// The default route with this policy.
    pub fn policy(self, yaml: &str) -> Self {
        self.route(&format!("{{name: site, upstream: origin, policy: {yaml}}}"))
    }

    /// A key of the listener, as in `("limits", "{max_headers: 10}")`.
    pub fn listener(mut self, key: &str, yaml: &str) -> Self {
        self.listener.push(format!("{key}: {yaml}"));
        self
    }

    /// A top-level key; a later one of the same name replaces the default or the earlier one.
    pub fn top(mut self, key: &str, yaml: &str) -> Self {
        self.top.retain(|(known, _)| known != key);
        self.top.push((key.to_owned(), yaml.to_owned()));
        self
    }

    /// The value of a top-level key with another text in place of `what`.
    pub fn replaced(mut self, key: &str, what: &str, with: &str) -> Self {
        for (_, yaml) in self.top.iter_mut().filter(|(known, _)| known == key) {
            assert!(yaml.contains(what), "{key} has {what}");
            *yaml = yaml.replace(what, with);
        }
        self
    }

    /// A file beside the YAML.
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), content.into()));
        self
    }

    /// The files `NAME.crt` and `NAME.key` of a certificate.
    pub fn pair(self, name: &str, certificate: &Certificate) -> Self {
        self.file(&format!("{name}.crt"), certificate.pem.clone())
            .file(&format!("{name}.key"), certificate.key.clone())
    }

    /// An environment variable of the gateway.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The environment variables of the gateway, for one that is started by [`Gateway::try_start`].
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Writes the files and starts the gateway; panics with its log if it does not get ready.
    pub async fn start(&self) -> Gateway {
        let (dir, config) = self.write();
        Gateway::start(dir, &config, &self.environment).await
    }

    /// Writes the files without starting anything.
    pub fn write(&self) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let config = self.write_into(dir.path());
        (dir, config)
    }

    /// Writes the files into this folder, over those that are there.
    pub fn write_into(&self, dir: &Path) -> PathBuf {
        for (name, content) in &self.files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        write_config(dir, &self.yaml())
    }

    /// The configuration as text.
    pub fn yaml(&self) -> String {
        let mut text = String::from("version: 1\n");
        let listener = self
            .listener
            .iter()
            .fold(String::new(), |all, one| format!("{all}, {one}"));
        self.fallback(&mut text, "server", "{threads: 2, drain_timeout: 1m}");
        self.fallback(
            &mut text,
            "listeners",
            &format!("[{{address: \"127.0.0.1:0\"{listener}}}]"),
        );
        self.fallback(&mut text, "admin", "{address: \"127.0.0.1:0\"}");
        // Who follows a load waits for it, however slow the machine is.
        self.fallback(&mut text, "cache", "{inflight: {wait_timeout: 10m}}");
        self.fallback(&mut text, "telemetry", "{log_format: json}");
        for (key, yaml) in &self.top {
            block(&mut text, key, yaml);
        }
        text.push_str("upstreams:\n");
        for (name, yaml) in &self.upstreams {
            let _ = writeln!(text, "  {name}: {yaml}");
        }
        text.push_str("routes:\n");
        if self.routes.is_empty() {
            text.push_str("  - {name: site, upstream: origin}\n");
        }
        for route in &self.routes {
            let _ = writeln!(text, "  - {route}");
        }
        text
    }

    fn fallback(&self, text: &mut String, key: &str, yaml: &str) {
        if !self.top.iter().any(|(known, _)| known == key) {
            block(text, key, yaml);
        }
    }
}

/// An origin whose every answer is what `page` makes, and a gateway before it with one
/// route, `site`, under this policy.
pub async fn site(
    policy: &str,
    page: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> (Origin, Gateway) {
    let origin = Origin::pages(page).await;
    let gateway = Setup::new(&origin).policy(policy).start().await;
    (origin, gateway)
}

/// Writes `lamina.yaml` into `dir`.
pub fn write_config(dir: &Path, yaml: &str) -> PathBuf {
    let path = dir.join("lamina.yaml");
    std::fs::write(&path, yaml).unwrap();
    path
}

fn block(text: &mut String, key: &str, yaml: &str) {
    let _ = writeln!(text, "{key}: {yaml}");
}
