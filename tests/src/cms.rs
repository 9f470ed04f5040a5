//! Programs of `tests/cms`: applications and clients that purge, from npm and PyPI. They find the APIs of
//! other caches at a node, by the names and the TLS that they have built in.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::cli::repository;
use crate::free_port::free_address;
use crate::setup::Setup;
use crate::tls::authority::Authority;
use crate::tools;
use crate::two_nodes::TwoNodes;

/// The token that clients have.
pub const TOKEN: &str = "kkkkkkkk";

/// The names of the APIs.
const NAMES: [&str; 2] = ["api.fastly.com", "api.cloudflare.com"];

/// An authority that programs trust, and what it vouches for.
pub struct ApiDoor {
    authority: Authority,
    dir: TempDir,
}

/// Whether what `tests/cms/control.sh --install` installs is here.
pub fn is_here(what_needs_it: &str) -> bool {
    let target =
        std::env::var("CARGO_TARGET_DIR").map_or(repository().join("target"), PathBuf::from);
    let here = target.join("cms/.node").exists() && target.join("cms/.python").exists();
    if !here {
        tools::is_missing(
            "what tests/cms/control.sh --install installs",
            what_needs_it,
        );
    }
    here
}

/// A program with these arguments.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(repository().join("tests/cms/control.sh"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its good end.
///
/// # Panics
/// When it fails.
pub async fn run(mut command: Command) {
    let ran = tokio::task::spawn_blocking(move || {
        let ran = command.output().expect("the program starts");
        (ran, format!("{command:?}"))
    });
    let (ran, what) = ran.await.unwrap();
    assert!(
        ran.status.success(),
        "{what}: {}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}

impl ApiDoor {
    pub fn new() -> Self {
        let door = Self {
            authority: Authority::new("authority of the APIs"),
            dir: tempfile::tempdir().unwrap(),
        };
        fs::write(door.trusted(), &door.authority.pem).unwrap();
        door
    }

    fn trusted(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// Adds the APIs to a gateway: the admin listener answers them, behind a second listener with TLS.
    pub fn added_to(&self, setup: Setup) -> Setup {
        let admin = free_address();
        let names = NAMES.join(", ");
        setup
            .pair("api", &self.authority.server(&NAMES))
            .top(
                "listeners",
                "[{address: \"127.0.0.1:0\"}, {address: \"127.0.0.1:0\", tls: {certificates: [{cert: \
                 api.crt, key: api.key}]}}]",
            )
            .top(
                "admin",
                &format!(
                    "{{address: \"{admin}\", hosts: [{names}], tokens: [{{name: cms, token: {TOKEN}, can: \
                     [purge, read]}}], purge_apis: {{fastly: {{shop: \"*\"}}, cloudflare: {{zone: \
                     \"*\"}}}}}}"
                ),
            )
            .upstream("admin", &format!("{{targets: [\"http://{admin}\"]}}"))
            .route(&format!(
                "{{name: apis, match: {{host: [{names}]}}, upstream: admin, cache: off}}"
            ))
    }

    /// Has a program find an API at node `a`.
    pub fn shown_to(&self, mut command: Command, name: &str, site: &TwoNodes) -> Command {
        let door = site.nodes[0].addresses()[1];
        let trusted = self.trusted();
        command.env("RESOLVE", format!("{name}={door}"));
        for variable in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"] {
            command.env(variable, &trusted);
        }
        command
    }
}

impl Default for ApiDoor {
    fn default() -> Self {
        Self::new()
    }
}
