//! The arguments of the commands that ask a running gateway.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use lamina_base::units::ConfigDuration;
use lamina_http::endpoint::Endpoint;
use serde_json::{Value, json};

use crate::remote::RemoteGateway;

/// Where the gateway is.
#[derive(clap::Args)]
pub struct AdminArguments {
    /// Its admin listener: an address, or a Unix socket as in `unix:/run/lamina/admin.sock`.
    /// By default that of the `--config` file, or else 127.0.0.1:9180.
    #[arg(long, env = "LAMINA_ADMIN")]
    pub admin: Option<Endpoint>,
    /// A file with the admin token. By default, a token of the `--config` file that has the right
    /// for this command.
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// The gateway's configuration file.
    #[arg(short, long)]
    pub config: Option<PathBuf>,
}

impl AdminArguments {
    /// The gateway to ask. The arguments take precedence over the address and token of the
    /// configuration.
    pub fn remote(
        &self,
        address: Endpoint,
        token: Option<String>,
    ) -> anyhow::Result<RemoteGateway> {
        let given = self.token_file.as_deref().map(read_token).transpose()?;
        Ok(RemoteGateway {
            admin: self.admin.clone().unwrap_or(address),
            token: given.or(token),
        })
    }
}

/// Reads a file with an admin token.
pub fn read_token(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(text.trim().to_owned())
}

/// What to purge; each selector can be given several times.
#[derive(clap::Args)]
pub struct PurgeArguments {
    /// A tag.
    #[arg(long)]
    pub tag: Vec<String>,
    /// An absolute URL, with all its variants.
    #[arg(long)]
    pub url: Vec<String>,
    /// URLs that begin with this text: `host/path` or `/path`.
    #[arg(long)]
    pub prefix: Vec<String>,
    /// URLs that match: `*` is any run of characters, `?` one.
    #[arg(long)]
    pub pattern: Vec<String>,
    /// A route by its name.
    #[arg(long)]
    pub route: Vec<String>,
    /// A key, as the 16 digits that `lamina explain` prints.
    #[arg(long)]
    pub key: Vec<String>,
    /// Everything.
    #[arg(long)]
    pub all: bool,
    /// Mark it as stale instead of removing it: it is served while it is refreshed.
    #[arg(long)]
    pub soft: bool,
    /// How long to wait for the other nodes; exit code 1 if one of them does not confirm the purge,
    /// 3 if that is unknown.
    #[arg(long)]
    pub wait: Option<ConfigDuration>,
    #[command(flatten)]
    pub admin: AdminArguments,
}

impl PurgeArguments {
    /// The body for `POST /v1/purge`.
    pub fn asked(&self) -> Value {
        let mut asked = serde_json::Map::new();
        for (name, texts) in [
            ("tag", &self.tag),
            ("url", &self.url),
            ("prefix", &self.prefix),
            ("pattern", &self.pattern),
            ("route", &self.route),
            ("key", &self.key),
        ] {
            if !texts.is_empty() {
                asked.insert(name.to_owned(), json!(texts));
            }
        }
        for (name, given) in [("all", self.all), ("soft", self.soft)] {
            if given {
                asked.insert(name.to_owned(), json!(true));
            }
        }
        if let Some(wait) = self.wait {
            asked.insert("wait".to_owned(), json!(wait.to_string()));
        }
        Value::Object(asked)
    }
}

/// Which configuration is planned, and for which gateway.
#[derive(clap::Args)]
pub struct PlanArguments {
    /// The new configuration file. The gateway reads it itself: it must stand in the folder of the
    /// gateway's own file, or below.
    #[arg(short, long, env = "LAMINA_CONFIG", default_value = "lamina.yaml")]
    pub config: PathBuf,
    /// The gateway's admin listener. By default that of the new file.
    #[arg(long, env = "LAMINA_ADMIN")]
    pub against: Option<Endpoint>,
    /// A file with the admin token. By default, a token of the new file that has the right `config`.
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// Fail if more stored entries than this would be unreachable. Entries and recorded requests
    /// about which only a plugin can decide do not count.
    #[arg(long, value_name = "ENTRIES")]
    pub max_unreachable: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which gateway is asked for its health.
#[derive(clap::Args)]
pub struct HealthArguments {
    /// Its admin listener: an address, or a Unix socket as in `unix:/run/lamina/admin.sock`.
    /// By default that of the `--config` file, or else 127.0.0.1:9180.
    #[arg(long, env = "LAMINA_ADMIN")]
    pub admin: Option<Endpoint>,
    /// The gateway's configuration file; it is not read where `--admin` is given.
    #[arg(short, long, env = "LAMINA_CONFIG")]
    pub config: Option<PathBuf>,
    /// The time limit for the answer.
    #[arg(long, default_value = "3s")]
    pub timeout: ConfigDuration,
}

#[derive(Subcommand)]
pub enum UpstreamsCommand {
    /// Send no new requests to a target; those under way end.
    Drain(ChangedTarget),
    /// As `drain`; also close its idle connections and do not check it.
    Out(ChangedTarget),
    /// Send requests to it again.
    Ready {
        #[command(flatten)]
        target: NamedTarget,
        #[command(flatten)]
        admin: AdminArguments,
    },
}

/// A target that gets no requests.
#[derive(clap::Args)]
pub struct ChangedTarget {
    #[command(flatten)]
    pub target: NamedTarget,
    /// After this time it is ready again by itself.
    #[arg(long = "for")]
    pub lasts: Option<ConfigDuration>,
    /// Keep the state over a restart of the gateway.
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub admin: AdminArguments,
}

/// The names that `lamina upstreams` prints.
#[derive(clap::Args)]
pub struct NamedTarget {
    /// The upstream.
    pub upstream: String,
    /// The target.
    pub target: String,
}

/// The maintenance of a route.
#[derive(clap::Args)]
pub struct MaintenanceArguments {
    /// The route.
    pub route: String,
    /// Whether the route is closed; `configured` is what its `maintenance.enabled` says.
    #[arg(long, default_value = "on", value_parser = ["on", "off", "configured"])]
    pub state: String,
    /// After this time what the configuration says holds again.
    #[arg(long = "for")]
    pub lasts: Option<ConfigDuration>,
    /// A network (CIDR) whose clients are served all the same; may be given several times.
    #[arg(long)]
    pub allow: Vec<String>,
    #[command(flatten)]
    pub admin: AdminArguments,
}

#[derive(Subcommand)]
pub enum AcmeCommand {
    /// List them: names, issuer, until when each is valid, when it is renewed, what failed.
    Status {
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Renew those for a name now.
    Renew {
        /// The name, as the configuration has it.
        name: String,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Have those for a name revoked by their issuers, and others obtained.
    Revoke {
        /// The name, as the configuration has it.
        name: String,
        #[command(flatten)]
        admin: AdminArguments,
    },
}

#[derive(Subcommand)]
pub enum L2Command {
    /// List the keys in it; this needs `cache.l2.redis` with `index.enabled: true`.
    Keys {
        /// URLs that match: `*` is any run of characters, `?` one; `/…` is a path on every host.
        #[arg(long)]
        pattern: Option<String>,
        /// The largest number of keys to print.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        admin: AdminArguments,
    },
}
