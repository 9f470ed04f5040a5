//! `lamina run --domain … --to …`: a configuration without a file.
//!
//! The options become the text of a configuration, which is read like any other file;
//! `--print-config` shows it, so that it can be the beginning of one.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use lamina_edge::config::{self, ConfigProblems, GatewayConfig};

/// What a configuration is made of.
#[derive(Args)]
pub struct FirstFileArguments {
    /// Serve this host over HTTPS, without a configuration file; may be given several times. Public
    /// names get certificates of Let's Encrypt, whose terms of service you agree to by this;
    /// `localhost`, addresses and names that end in .localhost, .test, .local or .internal get them
    /// of a local authority.
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
    /// Where the certificate authority can reach you.
    #[arg(long, requires = "domains")]
    email: Option<String>,
    /// Where HTTPS is served: 0.0.0.0:443, or 127.0.0.1:8443 for local names alone.
    #[arg(long, value_name = "ADDRESS", requires = "domains")]
    https: Option<SocketAddr>,
    /// Where clients are sent on to HTTPS: 0.0.0.0:80, or 127.0.0.1:8080 for local names alone.
    #[arg(long, value_name = "ADDRESS", requires = "domains")]
    http: Option<SocketAddr>,
    /// The directory of another certificate authority (RFC 8555).
    #[arg(long, value_name = "URL", requires = "domains")]
    acme_directory: Option<String>,
    /// PEM file with the authorities that the server of that directory is verified against.
    #[arg(long, value_name = "FILE", requires = "acme_directory")]
    acme_ca_file: Option<PathBuf>,
    /// Print the configuration that the options stand for, and end.
    #[arg(long, requires = "domains")]
    pub print_config: bool,
}

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// What the text of the configuration is called in messages about it.
const NAME: &str = "the configuration of --domain (see --print-config)";

impl FirstFileArguments {
    /// The text of the configuration. None if no domain is given.
    pub fn text(&self) -> Option<String> {
        let to = self.to.as_deref()?;
        let (local, public): (Vec<_>, Vec<_>) = self
            .domains
            .iter()
            .map(String::as_str)
            .partition(|name| is_local(name));
        let state = state_folder();
        let all_local = public.is_empty();
        let usual = |ip: [u8; 4], port| SocketAddr::from((ip, port));
        let (https, http) = match all_local {
            true => (usual([127, 0, 0, 1], 8443), usual([127, 0, 0, 1], 8080)),
            false => (usual([0; 4], 443), usual([0; 4], 80)),
        };
        let (https, http) = (self.https.unwrap_or(https), self.http.unwrap_or(http));
        let mut text = String::from("version: 1\nlisteners:\n");
        // Writing into memory cannot fail.
        let _ = write!(
            text,
            "  - address: {https}\n    protocols: [http1, http2, http3]\n    tls:\n      certificates:\n"
        );
        if !public.is_empty() {
            let _ = writeln!(
                text,
                "        - {{ acme: main, names: {} }}",
                listed(&public)
            );
        }
        if !local.is_empty() {
            let dir = quoted(&state.join("ca"));
            let names = listed(&local);
            let _ = writeln!(text, "        - local: {{ names: {names}, dir: {dir} }}");
            let _ = writeln!(
                text,
                "      default: {}",
                quoted(&state.join("ca/local.pem"))
            );
        }
        let port = https.port();
        let _ = write!(
            text,
            "  - address: {http}\n    redirect_to_https: {{ port: {port} }}\n"
        );
        if !public.is_empty() {
            self.write_issuer(&mut text, &state);
        }
        let _ = write!(
            text,
            "upstreams:\n  origin: {to}\nroutes:\n  - name: site\n    match: {{ host: {} }}\n    upstream: origin\n",
            listed(&self.domains.iter().map(String::as_str).collect::<Vec<_>>())
        );
        Some(text)
    }

    fn write_issuer(&self, text: &mut String, state: &Path) {
        let directory = self.acme_directory.as_deref().unwrap_or(LETS_ENCRYPT);
        let _ = write!(
            text,
            "acme:\n  storage: {}\n  issuers:\n    main:\n      directory: {directory}\n",
            quoted(&state.join("acme"))
        );
        if let Some(file) = &self.acme_ca_file {
            let _ = writeln!(text, "      ca_file: {}", quoted(file));
        }
        if let Some(email) = &self.email {
            let _ = writeln!(text, "      contact: [\"mailto:{email}\"]");
        }
        text.push_str("      agree_to_terms: true\n");
    }
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

fn listed(names: &[&str]) -> String {
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
        Line::try_parse_from(line).ok()?.first.text()
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
        assert!(!text.contains("acme"), "{text}");
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
