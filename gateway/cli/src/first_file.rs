//! `lamina run --domain … --to …`: a configuration without a file.
//!
//! The options become the text of a configuration, which is read like any other file;
//! `--print-config` shows it, so that it can be the beginning of one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use lamina_edge::config::{self, ConfigProblems, GatewayConfig};

/// What a configuration is made of.
#[derive(Args)]
pub struct FirstFileArguments {
    /// Serve this host over HTTPS, without a configuration file; may be given several times.
    /// `localhost`, addresses and names that end in .localhost, .test, .local or .internal get a
    /// certificate of a local authority; public names get one of Let's Encrypt, whose terms of
    /// service you agree to by this.
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
    /// Where the certificate authority can reach you.
    #[arg(long, requires = "domains")]
    email: Option<String>,
    /// The directory of another certificate authority (RFC 8555).
    #[arg(long, value_name = "URL", requires = "domains")]
    acme_directory: Option<String>,
    /// PEM file with the authorities that the server of that directory is verified against.
    #[arg(long, value_name = "FILE", requires = "acme_directory")]
    acme_ca_file: Option<PathBuf>,
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

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// What the text of the configuration is called in messages about it.
const NAME: &str = "the configuration of --domain (see --print-config)";

impl FirstFileArguments {
    /// The text of the configuration. None if no domain is given.
    pub fn text(&self) -> Option<String> {
        let to = self.to.as_ref()?;
        let domains: Vec<_> = self.domains.iter().map(|name| plain(name)).collect();
        let (local, public): (Vec<_>, Vec<_>) =
            domains.iter().cloned().partition(|name| is_local(name));
        let given = self.cert.as_ref().zip(self.key.as_ref());
        let certificates = match given {
            Some((cert, key)) => of_files(cert, key),
            None => of_authorities(&local, &public),
        };
        let acme = match given.is_none() && !public.is_empty() {
            true => self.issuer(),
            false => String::new(),
        };
        let (https, http) = match given.is_none() && public.is_empty() {
            true => (([127, 0, 0, 1], 8443), ([127, 0, 0, 1], 8080)),
            false => (([0; 4], 443), ([0; 4], 80)),
        };
        let (https, http) = (
            self.https.unwrap_or(https.into()),
            self.http.unwrap_or(http.into()),
        );
        let (port, hosts) = (
            https.port(),
            listed(&domains.iter().map(|host| in_url(host)).collect::<Vec<_>>()),
        );
        Some(format!(
            "version: 1
listeners:
  - address: \"{https}\"
    protocols: [http1, http2, http3]
    tls:
{certificates}  - address: \"{http}\"
    redirect_to_https: {{ port: {port} }}
{acme}upstreams:
  origin: {to:?}
routes:
  - name: site
    match: {{ host: {hosts} }}
    upstream: origin
"
        ))
    }

    /// The part `acme`, with the issuer that [`of_authorities`] names.
    fn issuer(&self) -> String {
        let storage = quoted(&state_folder().join("acme"));
        let directory = self.acme_directory.as_deref().unwrap_or(LETS_ENCRYPT);
        let ca_file = self.acme_ca_file.as_ref();
        let ca_file = ca_file.map_or_else(String::new, |file| {
            format!("      ca_file: {}\n", quoted(file))
        });
        let email = self.email.as_ref();
        let contact = email.map_or_else(String::new, |email| {
            format!("      contact: [{:?}]\n", format!("mailto:{email}"))
        });
        format!(
            "acme:
  storage: {storage}
  issuers:
    main:
      directory: {directory:?}
{ca_file}{contact}      agree_to_terms: true
"
        )
    }
}

/// Certificates of the local authority and of the issuer `main`.
fn of_authorities(local: &[String], public: &[String]) -> String {
    let mut text = String::from("      certificates:\n");
    if !public.is_empty() {
        let names = listed(public);
        text += &format!("        - {{ acme: main, names: {names} }}\n");
    }
    if !local.is_empty() {
        let state = state_folder();
        let (dir, default) = (
            quoted(&state.join("ca")),
            quoted(&state.join("ca/local.pem")),
        );
        let names = listed(local);
        text += &format!(
            "        - local: {{ names: {names}, dir: {dir} }}
      default: {default}
"
        );
    }
    text
}

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

/// A host as configurations have it: in lower case, without the dot at its end, and an address without
/// the brackets that it has in URLs.
fn plain(host: &str) -> String {
    let bare = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let inner = bare
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = inner.filter(|inner| inner.parse::<IpAddr>().is_ok());
    address.map(str::to_owned).unwrap_or(bare)
}

/// A host as URLs have it.
fn in_url(host: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_owned(),
    }
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
        Line::try_parse_from(line).ok()?.first.text()
    }

    #[test]
    fn local_names_get_a_local_certificate() {
        let text =
            text("--domain localhost --domain 127.0.0.1 --to http://127.0.0.1:3000").unwrap();
        assert!(text.contains("address: \"127.0.0.1:8443\""), "{text}");
        assert!(
            text.contains("names: [\"localhost\", \"127.0.0.1\"]"),
            "{text}"
        );
        read(&text).unwrap_or_else(|problems| panic!("{problems}"));
    }

    #[test]
    fn a_public_name_gets_a_certificate_of_an_issuer_or_the_given_one() {
        let options = "--domain shop.example.com --to http://127.0.0.1:3000";
        let obtained = text(&format!("{options} --email ops@example.com")).unwrap();
        for part in [
            "acme: main, names: [\"shop.example.com\"]",
            LETS_ENCRYPT,
            "mailto:ops@example.com",
            "address: \"0.0.0.0:443\"",
        ] {
            assert!(obtained.contains(part), "{part}: {obtained}");
        }
        read(&obtained).unwrap_or_else(|problems| panic!("{problems}"));
        let given = text(&format!("{options} --cert a.pem --key a.key")).unwrap();
        assert!(given.contains("cert: \"a.pem\", key: \"a.key\""), "{given}");
        assert!(!given.contains("acme"), "{given}");
        read(&given).unwrap_or_else(|problems| panic!("{problems}"));
    }

    #[test]
    fn options_that_belong_together_are_demanded_together() {
        assert!(text("--domain localhost").is_none());
        assert!(text("--to http://127.0.0.1:3000").is_none());
        let both = "--config a.yaml --domain localhost --to http://127.0.0.1:3000";
        assert!(text(both).is_none());
    }

    #[test]
    fn what_is_given_is_a_value_whatever_is_in_it() {
        let options =
            "--domain [::1] --domain LOCALHOST. --to http://[::1]:3000 --https [::1]:8443";
        let text = text(&format!("{options} --http [::1]:8080")).unwrap();
        assert!(text.contains("names: [\"::1\", \"localhost\"]"), "{text}");
        assert!(text.contains("host: [\"[::1]\", \"localhost\"]"), "{text}");
        assert!(!text.contains("acme"), "{text}");
        read(&text).unwrap_or_else(|problems| panic!("{problems}"));
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
