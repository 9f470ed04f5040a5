//! The arguments of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use lamina_base::telemetry::config::LogFormat;
use lamina_base::units::ConfigDuration;
use lamina_cache::key::KeyId;
use lamina_plugin_host::compile;

use crate::completions::CompletionShell;
use crate::first_file::FirstFileArguments;
use crate::migrate::MigrateCommand;
use crate::plugin_kit;
use crate::remote::RequestsFilter;

mod operate;

pub use operate::{
    AcmeCommand, AdminArguments, ChangedTarget, HealthArguments, L2Command, MaintenanceArguments,
    PlanArguments, PurgeArguments, UpstreamsCommand, read_token,
};

/// An edge cache gateway with sandboxed WASM plugins.
#[derive(Parser)]
#[command(version, after_help = format!("Examples:\n{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: GatewayCommand,
}

/// Command lines, as `--help` and the manual show them.
pub const EXAMPLES: &str = "  lamina run -c config/quickstart.yaml
  lamina run --domain localhost --to http://127.0.0.1:3000
  lamina validate -c lamina.yaml
  lamina config show -c lamina.yaml --no-defaults
  lamina fmt lamina.yaml routes/*.yaml --check
  lamina explain -c lamina.yaml 'http://shop.example/search?q=tea&utm_source=x' -H 'Accept-Language: de'
  lamina doctor -c lamina.yaml
  lamina plan -c lamina.yaml --max-unreachable 1000
  lamina reload -c lamina.yaml
  lamina upgrade --binary /usr/bin/lamina --timeout 2m
  lamina purge --tag user-7 --wait 2s
  lamina health -c lamina.yaml
  lamina nodes --admin 127.0.0.1:9180
  lamina nodes --admin unix:/run/lamina/admin.sock
  lamina upstreams
  lamina upstreams drain shop 10.0.1.20:8080 --for 10m
  lamina maintenance shop --for 30m --allow 10.0.0.0/8
  lamina requests --result miss -n 5 --token-file /run/secrets/admin
  lamina acme status
  lamina acme renew shop.example.com
  lamina l2 keys --pattern 'shop.example/user/*'
  lamina migrate nginx /etc/nginx/nginx.conf > draft.yaml
  lamina schema > lamina.schema.json
  lamina record inspect stored.bin --seal-key-file /run/secrets/seal
  lamina record inspect http://shop.example/search?q=tea -c lamina.yaml
  lamina plugin new --lang rust my-key && lamina plugin build my-key
  lamina plugin check plugins/dist/normalize-query.wasm
  lamina demo-origin --listen 127.0.0.1:8081
  lamina completions bash > /etc/bash_completion.d/lamina
  lamina man | man -l -";

/// The meaning of exit codes, as `--help` and the manual show it.
pub const EXIT_CODES: &str =
    "Exit codes: 0 success, 1 failure, 2 the command line or the configuration is wrong.
Of `health`: 0 it takes requests, also when degraded; 1 it takes none, or that can't be known.
Of `upgrade`: 0 the new process serves; 1 the gateway goes on as before; 2 the file is wrong.
Of `reload` and `plan`: 0 it is in use, or could be; 1 it can't be taken up; 2 the file is wrong.
Of `purge`: 0 it applies everywhere, 1 some nodes or the second tier did not confirm it, 3 it is unknown where it applies.";

#[derive(Subcommand)]
pub enum GatewayCommand {
    /// Serve until SIGTERM or SIGINT, then finish the requests under way; a second signal ends at
    /// once.
    Run {
        #[command(flatten)]
        file: ConfigFileArgument,
        #[command(flatten)]
        first: FirstFileArguments,
        /// The form of log lines, in place of `telemetry.log_format`.
        #[arg(long, value_enum)]
        log_format: Option<LogFormat>,
        /// Take the place of the gateway that runs with this configuration, without a lost request:
        /// it hands its listeners over when this process is ready, and ends after the requests under
        /// way. The socket is `server.upgrade_socket`, unless another one is named.
        #[arg(long, value_name = "SOCKET", num_args = 0..=1)]
        take_over: Option<Option<PathBuf>>,
    },
    /// Have a running gateway replaced by this program, or another one, without a lost request. If
    /// the new one can't start, the gateway goes on as before.
    Upgrade(UpgradeArguments),
    /// Check a configuration with all its plugins, and print what is wrong.
    Validate {
        #[command(flatten)]
        file: ConfigFileArgument,
    },
    /// Commands about a configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Rewrite configuration files in the canonical form: levels of two spaces, top-level keys in
    /// the order of the reference. Their meaning and their comments stay.
    Fmt {
        /// The files, also included ones.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Change nothing; print the lines that would change, and fail if there are any.
        #[arg(long)]
        check: bool,
    },
    /// Print a draft configuration out of one of nginx or Varnish. What it does not say stands in it
    /// as a comment, with file and line of the original.
    Migrate {
        #[command(subcommand)]
        command: MigrateCommand,
    },
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Print what would be done with a request: its route, key and parts of the key, lifetime and
    /// the rule for it.
    Explain {
        #[command(flatten)]
        file: ConfigFileArgument,
        /// The absolute URL.
        url: String,
        /// A request header, as `Name: value`.
        #[arg(short = 'H', long = "header")]
        headers: Vec<String>,
        /// The method.
        #[arg(short = 'X', long, default_value = "GET")]
        method: http::Method,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make real round trips to the second tier and over the event bus, ask each target of each
    /// upstream, and print what the
    /// configuration guarantees.
    Doctor {
        #[command(flatten)]
        file: ConfigFileArgument,
    },
    /// Have a running gateway take up its configuration file again, all of it or nothing, and print
    /// what is different.
    Reload {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Print what a running gateway would do with another configuration: what is different, and how
    /// many stored entries no request would find any more.
    Plan(PlanArguments),
    /// Ask a running gateway whether it takes requests, for probes that run a program.
    Health(HealthArguments),
    /// Purge content from a running gateway and from all other nodes.
    Purge(PurgeArguments),
    /// List the other nodes from which a running gateway receives events.
    Nodes {
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// List the targets of a running gateway's upstreams, or take one out.
    #[command(args_conflicts_with_subcommands = true)]
    Upstreams {
        #[command(subcommand)]
        command: Option<UpstreamsCommand>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Close a route of a running gateway for maintenance, or open it again.
    Maintenance(MaintenanceArguments),
    /// Print what a running gateway did with the last requests, and why.
    Requests {
        #[command(flatten)]
        filter: RequestsFilter,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Commands about the second tier of a running gateway.
    L2 {
        #[command(subcommand)]
        command: L2Command,
    },
    /// The automatic certificates of a running gateway.
    Acme {
        #[command(subcommand)]
        command: AcmeCommand,
    },
    /// Commands about records of a second tier.
    Record {
        #[command(subcommand)]
        command: RecordCommand,
    },
    /// Write, build, check, test and measure WASM plugins.
    Plugin {
        #[command(subcommand)]
        command: plugin_kit::PluginCommand,
    },
    /// Serve a small web site to try the gateway on.
    DemoOrigin {
        /// The address and port to listen on.
        #[arg(long, default_value = "127.0.0.1:8081")]
        listen: SocketAddr,
    },
    /// Print the script by which a shell completes commands and options.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: CompletionShell,
    },
    /// Print a page of the manual, in the form that `man -l -` reads.
    Man {
        /// The command whose page it is; without one, the page of the program.
        command: Vec<String>,
        /// Write every page into this folder instead.
        #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
        all_to: Option<PathBuf>,
    },
    /// Print the version.
    Version,
    /// Compile a plugin from stdin to stdout within limits; gateways run it.
    #[command(name = compile::SUBCOMMAND, hide = true)]
    CompilePlugin {
        /// Bytes of memory.
        memory: u64,
        /// Seconds of processor time.
        seconds: u64,
    },
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Print all values of a valid configuration as YAML, each with where it comes from: a line of
    /// a file, a variable, or a default. Secrets are hidden.
    Show {
        #[command(flatten)]
        file: ConfigFileArgument,
        /// Print JSON, which has no places.
        #[arg(long)]
        json: bool,
        /// Leave out what no file gives.
        #[arg(long)]
        no_defaults: bool,
    },
}

#[derive(Subcommand)]
pub enum RecordCommand {
    /// Print what a record contains: form, sizes, key, seal, status, headers, times, hashes for
    /// purges.
    Inspect {
        /// A file with the bytes of a record from the store; or an absolute URL, whose record
        /// is then read from the store that the configuration names.
        what: String,
        /// For a file: the key that the record must have, as the 16 digits that `lamina explain`
        /// prints.
        #[arg(long, value_parser = key_id)]
        key: Option<KeyId>,
        /// For a file: another file, which contains the secret that records are sealed with.
        #[arg(long)]
        seal_key_file: Option<PathBuf>,
        #[command(flatten)]
        file: ConfigFileArgument,
        /// For a URL: a request header, as `Name: value`.
        #[arg(short = 'H', long = "header")]
        headers: Vec<String>,
    },
}

/// Which gateway is replaced, and by what.
#[derive(clap::Args)]
pub struct UpgradeArguments {
    /// The configuration of the new process, whose `server.upgrade_socket` is the gateway's. By
    /// default the file that the gateway was started with.
    #[arg(short, long, env = "LAMINA_CONFIG")]
    pub config: Option<PathBuf>,
    /// The gateway's upgrade socket. By default that of the `--config` file, or else
    /// /run/lamina/upgrade.sock.
    #[arg(long)]
    pub socket: Option<PathBuf>,
    /// The new program. By default this one.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// The time within which the new process must be ready; otherwise it is ended.
    #[arg(long, default_value = "2m")]
    pub timeout: ConfigDuration,
}

#[derive(clap::Args)]
pub struct ConfigFileArgument {
    /// The configuration file.
    #[arg(short, long, env = "LAMINA_CONFIG", default_value = "lamina.yaml")]
    pub config: PathBuf,
}

fn key_id(text: &str) -> Result<KeyId, &'static str> {
    KeyId::parse(text).ok_or("expected 16 hexadecimal digits")
}
