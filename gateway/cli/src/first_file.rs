//! `lamina run --domain … --to …`: a configuration without a file.
//!
//! The options become the text of a configuration, which is read like any other file;
//! `--print-config` shows it, so that it can be the beginning of one.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use lamina_edge::config::{self, ConfigProblems, GatewayConfig};

/// What a configuration is made of.
#[derive(Args)]
pub struct FirstFileArguments {
    /// Serve this host over HTTPS, without a configuration file; may be given several times.
    /// `localhost`, addresses and names that end in .localhost, .test, .local or .internal get a
    /// certificate of a local authority; others need --cert and --key.
    #[arg(
        long = "domain",
        value_name = "HOST",
        requires = "to",
        conflicts_with = "config"
    )]
    domains: Vec<String>,
    /// The origin for --domain, as in http://127.0.0.1:3000.
    #[arg(long, value_name = "URL", requires = "domains")]
    to: Option<String>,
    /// PEM file with the certificate for the hosts, and those of the authorities above it.
    #[arg(long, value_name = "FILE", requires_all = ["domains", "key"])]
    cert: Option<PathBuf>,
    /// PEM file with its private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Where HTTPS is served: 0.0.0.0:443, or 127.0.0.1:8443 for local names alone.
    #[arg(long, value_name = "ADDRESS", requires = "domains")]
    https: Option<SocketAddr>,
    /// Where clients are sent on to HTTPS: 0.0.0.0:80, or 127.0.0.1:8080 for local names alone.
    #[arg(long, value_name = "ADDRESS", requires = "domains")]
    http: Option<SocketAddr>,
    /// Print the configuration that the options stand for, and end.
    #[arg(long, requires = "domains")]
    pub print_config: bool,
}

/// What the text of the configuration is called in messages about it.
const NAME: &str = "the configuration of --domain (see --print-config)";

impl FirstFileArguments {
    /// The text of the configuration. None if no domain is given.
    ///
    /// # Errors
    /// The first name that only a public authority could vouch for, if there is no certificate.
    pub fn text(&self) -> Result<Option<String>, PublicName> {
        let Some(to) = &self.to else {
            return Ok(None);
        };
        let public = self.domains.iter().find(|name| !is_local(name));
        let (certificates, https, http) = match (self.cert.as_ref().zip(self.key.as_ref()), public)
        {
            (Some((cert, key)), _) => (
                of_files(cert, key),
                SocketAddr::from(([0; 4], 443)),
                SocketAddr::from(([0; 4], 80)),
            ),
            (None, None) => (
                self.of_local_authority(),
                SocketAddr::from(([127, 0, 0, 1], 8443)),
                SocketAddr::from(([127, 0, 0, 1], 8080)),
            ),
            (None, Some(name)) => return Err(PublicName(name.clone())),
        };
        let (https, http) = (self.https.unwrap_or(https), self.http.unwrap_or(http));
        let (port, hosts) = (https.port(), listed(&self.domains));
        Ok(Some(format!(
            "version: 1
listeners:
  - address: {https}
    protocols: [http1, http2, http3]
    tls:
{certificates}  - address: {http}
    redirect_to_https: {{ port: {port} }}
upstreams:
  origin: {to}
routes:
  - name: site
    match: {{ host: {hosts} }}
    upstream: origin
"
        )))
    }

    fn of_local_authority(&self) -> String {
        let state = state_folder();
        let (dir, default) = (
            quoted(&state.join("ca")),
            quoted(&state.join("ca/local.pem")),
        );
        let names = listed(&self.domains);
        format!(
            "      certificates:
        - local: {{ names: {names}, dir: {dir} }}
      default: {default}
"
        )
    }
}

/// A name that only a public authority can vouch for.
#[derive(Debug, thiserror::Error)]
#[error(
    "--domain {0}: no local authority can vouch for a public name; expected --cert and --key with \
     its certificate (this version obtains none by itself)"
)]
pub struct PublicName(String);

fn of_files(cert: &Path, key: &Path) -> String {
    let (cert, key) = (quoted(cert), quoted(key));
    format!("      certificates: [{{ cert: {cert}, key: {key} }}]\n")
}

/// Reads the text of a configuration that the options stand for.
///
/// # Errors
/// If an option has a wrong value.
pub fn read(text: &str) -> Result<GatewayConfig, ConfigProblems> {
    config::parse(text, NAME, &|_| None)
}

/// Whether no public authority can vouch for a name.
fn is_local(name: &str) -> bool {
    let top = name.rsplit('.').next().unwrap_or_default();
    name.parse::<IpAddr>().is_ok() || ["localhost", "test", "local", "internal"].contains(&top)
}

/// The folder for what must survive a restart.
fn state_folder() -> PathBuf {
    let home =
        |name: &str, below: &str| std::env::var_os(name).map(|dir| PathBuf::from(dir).join(below));
    home("LAMINA_STATE_DIR", "")
        .or_else(|| home("STATE_DIRECTORY", ""))
        .or_else(|| home("XDG_STATE_HOME", "lamina"))
        .or_else(|| home("HOME", ".local/state/lamina"))
        .unwrap_or_else(|| PathBuf::from(".lamina"))
}

fn listed(names: &[String]) -> String {
    let names = names.iter().map(|name| format!("{name:?}"));
    format!("[{}]", names.collect::<Vec<_>>().join(", "))
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[arg(long)]
        config: Option<PathBuf>,
        #[command(flatten)]
        first: FirstFileArguments,
    }

    fn text(options: &str) -> Option<String> {
        let line = ["lamina"].into_iter().chain(options.split_whitespace());
        Line::try_parse_from(line).ok()?.first.text().ok()?
    }

    #[test]
    fn local_names_get_a_local_certificate() {
        let text =
            text("--domain localhost --domain 127.0.0.1 --to http://127.0.0.1:3000").unwrap();
        assert!(text.contains("address: 127.0.0.1:8443"), "{text}");
        assert!(
            text.contains("names: [\"localhost\", \"127.0.0.1\"]"),
            "{text}"
        );
        read(&text).unwrap_or_else(|problems| panic!("{problems}"));
    }

    #[test]
    fn a_public_name_needs_a_certificate() {
        let options = "--domain shop.example.com --to http://127.0.0.1:3000";
        assert!(text(options).is_none());
        let text = text(&format!("{options} --cert a.pem --key a.key")).unwrap();
        assert!(text.contains("address: 0.0.0.0:443"), "{text}");
        assert!(text.contains("cert: \"a.pem\", key: \"a.key\""), "{text}");
        read(&text).unwrap_or_else(|problems| panic!("{problems}"));
    }

    #[test]
    fn options_that_belong_together_are_demanded_together() {
        assert!(text("--domain localhost").is_none());
        assert!(text("--to http://127.0.0.1:3000").is_none());
        let both = "--config a.yaml --domain localhost --to http://127.0.0.1:3000";
        assert!(text(both).is_none());
    }

    #[test]
    fn names_are_local_by_their_top() {
        for (name, local) in [
            ("localhost", true),
            ("a.localhost", true),
            ("shop.test", true),
            ("10.0.0.1", true),
            ("shop.example.com", false),
            ("local.example", false),
        ] {
            assert_eq!(is_local(name), local, "{name}");
        }
    }
}
