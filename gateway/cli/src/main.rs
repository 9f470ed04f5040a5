//! Arguments, exit codes, signals; no logic.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod demo;
mod doctor;
mod plugin_kit;
mod records;
mod remote;
mod say;
mod stopping;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use lamina_base::telemetry::config::{LogFormat, TelemetryConfig as Telemetry};
use lamina_base::telemetry::logs;
use lamina_base::units::ConfigDuration;
use lamina_cache::key::KeyId;
use lamina_cache::record::{self, CorruptRecord, RecordLimits, Seal};
use lamina_edge::admin::config::AdminRight;
use lamina_edge::app::{self, GatewayStartError, RunningGateway};
use lamina_edge::config::{self, GatewayConfig};
use lamina_edge::proxy;
use lamina_http::endpoint::Endpoint;
use lamina_plugin_host::compile::{self, child::CompileAllowance};
use remote::{RemoteError, RemoteGateway, RemotePurgeCoverage, RequestsFilter};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An edge cache gateway with sandboxed WASM plugins.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: GatewayCommand,
}

const EXAMPLES: &str = "Examples:
  lamina run -c config/quickstart.yaml
  lamina validate -c lamina.yaml
  lamina explain -c lamina.yaml 'http://shop.example/search?q=tea&utm_source=x' -H 'Accept-Language: de'
  lamina doctor -c lamina.yaml
  lamina purge --tag user-7 --wait 2s
  lamina nodes --admin 127.0.0.1:9180
  lamina nodes --admin unix:/run/lamina/admin.sock
  lamina requests --result miss -n 5 --token-file /run/secrets/admin
  lamina l2 keys --pattern 'shop.example/user/*'
  lamina schema > lamina.schema.json
  lamina record inspect stored.bin --seal-key-file /run/secrets/seal
  lamina record inspect http://shop.example/search?q=tea -c lamina.yaml
  lamina plugin new --lang rust my-key && lamina plugin build my-key
  lamina plugin check plugins/dist/normalize-query.wasm
  lamina demo-origin --listen 127.0.0.1:8081

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.
Of purge: 0 it holds everywhere, 1 some nodes or the second tier did not confirm it, 3 unknown where it holds.";

#[derive(Subcommand)]
enum GatewayCommand {
    /// Serve until SIGTERM or SIGINT, then drain; a second signal ends at once.
    Run {
        #[command(flatten)]
        file: ConfigFileArgument,
        /// Overrides telemetry.log_format.
        #[arg(long, value_enum)]
        log_format: Option<LogFormat>,
    },
    /// Check a configuration, with all its plugins, and say what is wrong.
    Validate {
        #[command(flatten)]
        file: ConfigFileArgument,
    },
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Say what would be done with a request: route, key and its parts, lifetime and the rule that gives it.
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
    /// Make real round trips to the second tier and over the event bus, and say what the configuration guarantees.
    Doctor {
        #[command(flatten)]
        file: ConfigFileArgument,
    },
    /// Ask a running gateway to forget, here and on every node.
    Purge(PurgeArguments),
    /// Ask a running gateway which other nodes it hears.
    Nodes {
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Ask a running gateway what became of the last requests, and why.
    Requests {
        #[command(flatten)]
        filter: RequestsFilter,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// The second tier of a running gateway.
    L2 {
        #[command(subcommand)]
        command: L2Command,
    },
    /// Records of a second tier.
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
        /// Address and port.
        #[arg(long, default_value = "127.0.0.1:8081")]
        listen: SocketAddr,
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
enum L2Command {
    /// List what it holds; Redis with `index.enabled` can tell.
    Keys {
        /// URLs that match: `*` is any run of characters, `?` one; `/…` is a path on every host.
        #[arg(long)]
        pattern: Option<String>,
        /// Keys at most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        admin: AdminArguments,
    },
}

#[derive(Subcommand)]
enum RecordCommand {
    /// Say what a record holds: form, sizes, key, seal, status, headers, times, marks.
    Inspect {
        /// A file with the bytes that stand in the store; or an absolute URL, whose record
        /// is read from the store that the configuration names.
        what: String,
        /// Of a file: the key that it should be for, by its 16 digits as `lamina explain` prints them.
        #[arg(long, value_parser = key_id)]
        key: Option<KeyId>,
        /// Of a file: another one, with the secret that records are sealed by.
        #[arg(long)]
        seal_key_file: Option<PathBuf>,
        #[command(flatten)]
        file: ConfigFileArgument,
        /// Of a URL: a request header, as `Name: value`.
        #[arg(short = 'H', long = "header")]
        headers: Vec<String>,
    },
}

/// What to forget; each of these may be given several times.
#[derive(clap::Args)]
struct PurgeArguments {
    /// A tag.
    #[arg(long)]
    tag: Vec<String>,
    /// An absolute URL, with all its variants.
    #[arg(long)]
    url: Vec<String>,
    /// URLs that begin so: `host/path` or `/path`.
    #[arg(long)]
    prefix: Vec<String>,
    /// URLs that match: `*` is any run of characters, `?` one.
    #[arg(long)]
    pattern: Vec<String>,
    /// A route by its name.
    #[arg(long)]
    route: Vec<String>,
    /// A key by its 16 digits, as `lamina explain` prints them.
    #[arg(long)]
    key: Vec<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
    /// Leave it stale: served while it refreshes.
    #[arg(long)]
    soft: bool,
    /// Wait so long for the other nodes, and fail if one does not answer (1) or it can't be known (3).
    #[arg(long)]
    wait: Option<ConfigDuration>,
    #[command(flatten)]
    admin: AdminArguments,
}

/// Where the gateway is.
#[derive(clap::Args)]
struct AdminArguments {
    /// Its admin listener: an address, or a Unix socket as in `unix:/run/lamina/admin.sock`.
    /// Without it the one of `--config`, else 127.0.0.1:9180.
    #[arg(long, env = "LAMINA_ADMIN")]
    admin: Option<Endpoint>,
    /// A file with the admin token. Without it a token of `--config` that is good for this.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The gateway's configuration file.
    #[arg(short, long)]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
struct ConfigFileArgument {
    /// The configuration file.
    #[arg(short, long, env = "LAMINA_CONFIG", default_value = "lamina.yaml")]
    config: PathBuf,
}

/// What a command came to.
enum ExitOutcome {
    Well,
    /// What was looked at is not well; it has been said.
    Failed,
    /// It can't be known; why has been said.
    Unknown,
    /// The command line or the configuration is wrong; it has been said.
    Wrong,
}

impl From<()> for ExitOutcome {
    fn from((): ()) -> Self {
        Self::Well
    }
}

impl ExitOutcome {
    /// What a purge came to, with a word where it does not hold everywhere.
    fn of(holds: RemotePurgeCoverage) -> Self {
        match holds {
            RemotePurgeCoverage::Everywhere => Self::Well,
            RemotePurgeCoverage::NotEverywhere => {
                say::wrong("lamina: it was not confirmed everywhere");
                Self::Failed
            }
            RemotePurgeCoverage::Unknown => Self::Unknown,
        }
    }
}

fn main() -> ExitCode {
    match execute(CommandLine::parse().command) {
        Ok(ExitOutcome::Well) => ExitCode::SUCCESS,
        Ok(ExitOutcome::Failed) => ExitCode::FAILURE,
        Ok(ExitOutcome::Wrong) => ExitCode::from(2),
        Ok(ExitOutcome::Unknown) => ExitCode::from(3),
        Err(error) => {
            say::wrong(format_args!("lamina: {error:#}"));
            let start = error.downcast_ref::<GatewayStartError>();
            match start.is_some_and(GatewayStartError::is_configuration) {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn execute(command: GatewayCommand) -> anyhow::Result<ExitOutcome> {
    match command {
        GatewayCommand::Run { file, log_format } => with_config(&file.config, |mut config| {
            config.telemetry.log_format = log_format.unwrap_or(config.telemetry.log_format);
            let runtime = runtime()?;
            let ended = runtime.block_on(run(&config));
            // What blocks, as a name look-up that hangs, keeps nobody.
            runtime.shutdown_background();
            ended
        }),
        GatewayCommand::Validate { file } => with_config(&file.config, |config| {
            for warning in &config.warnings {
                say::wrong(format_args!("warning: {warning}"));
            }
            runtime()?
                .block_on(app::build(&config))
                .context("the file is well formed, but")?;
            say::line(format_args!(
                "{}: ok, {} routes, {} upstreams, {} plugins",
                file.config.display(),
                config.routes.len(),
                config.upstreams.len(),
                config.plugins.by_name.len()
            ));
            Ok(())
        }),
        GatewayCommand::Explain {
            file,
            url,
            headers,
            method,
            json,
        } => with_config(&file.config, |config| {
            let request = request(&url, &headers, method)?;
            let generation = runtime()?.block_on(app::build(&config))?;
            print_explanation(&generation.explain(request), json)
        }),
        GatewayCommand::Doctor { file } => with_config(&file.config, |config| {
            let report = runtime()?.block_on(doctor::examine(&config, &file.config))?;
            say::text(&report);
            anyhow::ensure!(report.is_well(), "not well: {}", report.unwell());
            Ok(())
        }),
        GatewayCommand::Purge(purge) => {
            let (asked, wait) = (
                purge.asked(),
                purge.wait.map_or_else(Default::default, Into::into),
            );
            with_remote(&purge.admin, AdminRight::Purge, |remote| {
                match runtime()?.block_on(remote.purge(&asked, wait)) {
                    Ok(receipt) => {
                        say::text(&receipt);
                        Ok(ExitOutcome::of(receipt.holds()))
                    }
                    // The request may have arrived.
                    Err(error @ (RemoteError::Timeout(_) | RemoteError::Broken(_))) => {
                        say::wrong(format_args!("lamina: unknown where it holds: {error}"));
                        Ok(ExitOutcome::Unknown)
                    }
                    Err(error) => Err(error.into()),
                }
            })
        }
        GatewayCommand::Nodes { admin } => with_remote(&admin, AdminRight::Read, |remote| {
            say::text(runtime()?.block_on(remote.nodes())?);
            Ok(ExitOutcome::Well)
        }),
        GatewayCommand::Requests {
            filter,
            json,
            admin,
        } => with_remote(&admin, AdminRight::Read, |remote| {
            let requests = runtime()?.block_on(remote.requests(&filter))?;
            match json {
                true => say::line(serde_json::to_string_pretty(requests.json())?),
                false => say::text(&requests),
            }
            Ok(ExitOutcome::Well)
        }),
        GatewayCommand::L2 {
            command:
                L2Command::Keys {
                    pattern,
                    limit,
                    admin,
                },
        } => with_remote(&admin, AdminRight::Read, |remote| {
            let keys = remote.keys(pattern.as_deref(), limit);
            say::text(runtime()?.block_on(keys)?);
            Ok(ExitOutcome::Well)
        }),
        GatewayCommand::Schema => {
            say::line(format_args!("{:#}", config::schema()));
            Ok(ExitOutcome::Well)
        }
        GatewayCommand::Record {
            command:
                RecordCommand::Inspect {
                    what,
                    key,
                    seal_key_file,
                    file,
                    headers,
                },
        } => match what.contains("://") {
            true => with_config(&file.config, |config| {
                let request = request(&what, &headers, http::Method::GET)?;
                inspect_stored(&config, request)
            }),
            false => {
                inspect(Path::new(&what), key, seal_key_file.as_deref()).map(|()| ExitOutcome::Well)
            }
        },
        GatewayCommand::Plugin { command } => {
            // What the plugin logs.
            let _logs = logs::start(&Telemetry::default());
            let well = runtime()?.block_on(command.run());
            Ok(match well.map_err(anyhow::Error::msg)? {
                true => ExitOutcome::Well,
                false => ExitOutcome::Failed,
            })
        }
        GatewayCommand::DemoOrigin { listen } => {
            let _logs = logs::start(&Telemetry::default());
            runtime()?.block_on(demo::run(&[listen]))?;
            Ok(ExitOutcome::Well)
        }
        GatewayCommand::Version => {
            say::line(concat!("lamina ", env!("CARGO_PKG_VERSION")));
            Ok(ExitOutcome::Well)
        }
        GatewayCommand::CompilePlugin { memory, seconds } => {
            compile::child::run(CompileAllowance { memory, seconds })?;
            Ok(ExitOutcome::Well)
        }
    }
}

fn with_config<D: Into<ExitOutcome>>(
    file: &Path,
    act: impl FnOnce(GatewayConfig) -> anyhow::Result<D>,
) -> anyhow::Result<ExitOutcome> {
    match config::load(file) {
        Ok(config) => act(config).map(Into::into),
        Err(problems) => {
            say::wrong(problems);
            Ok(ExitOutcome::Wrong)
        }
    }
}

/// Asks a running gateway, with a token that has this right.
fn with_remote(
    admin: &AdminArguments,
    right: AdminRight,
    ask: impl FnOnce(RemoteGateway) -> anyhow::Result<ExitOutcome>,
) -> anyhow::Result<ExitOutcome> {
    match &admin.config {
        Some(file) => with_config(file, |config| {
            let token = config.admin.token_for(right).map(str::to_owned);
            ask(admin.remote(config.admin.address, token)?)
        }),
        None => {
            let usual = lamina_edge::admin::config::AdminConfig::default().address;
            ask(admin.remote(usual, None)?)
        }
    }
}

async fn run(config: &GatewayConfig) -> anyhow::Result<()> {
    let logs = logs::start(&config.telemetry);
    for warning in &config.warnings {
        tracing::warn!("{}", warning.headline());
    }
    let mut stopping = stopping::listen(config.server.drain_timeout.into())?;
    let app = tokio::select! {
        app = RunningGateway::start(config, &logs) => app?,
        () = stopping.asked() => {
            tracing::info!("ended before it served");
            return Ok(());
        }
    };
    for address in &app.addresses {
        tracing::info!("lamina listening on http://{address}");
    }
    match &app.admin {
        Endpoint::Tcp(address) => tracing::info!("lamina admin on http://{address}"),
        unix @ Endpoint::Unix(_) => tracing::info!("lamina admin on {unix}"),
    }
    tracing::info!("{}", app.admin_openness);
    stopping.asked().await;
    tracing::info!("draining; a second signal ends at once");
    tokio::select! {
        () = app.drain() => tracing::info!("drained"),
        () = stopping.asked_again() => tracing::warn!("ended before everything was answered"),
    }
    Ok(())
}

impl PurgeArguments {
    /// As `POST /v1/purge` takes it.
    fn asked(&self) -> Value {
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

impl AdminArguments {
    /// What is given here goes before the address and the token of the configuration.
    fn remote(&self, address: Endpoint, token: Option<String>) -> anyhow::Result<RemoteGateway> {
        let given = self.token_file.as_ref().map(|file| {
            let text = std::fs::read_to_string(file);
            text.with_context(|| file.display().to_string())
        });
        let given = given.transpose()?.map(|text| text.trim().to_owned());
        Ok(RemoteGateway {
            admin: self.admin.clone().unwrap_or(address),
            token: given.or(token),
        })
    }
}

/// Prints what a record holds; an error when a gateway would not take it.
fn inspect(file: &Path, key: Option<KeyId>, seal_key_file: Option<&Path>) -> anyhow::Result<()> {
    let read = |file: &Path| std::fs::read(file).with_context(|| file.display().to_string());
    let seal = match seal_key_file {
        Some(secret) => Seal::new(read(secret)?.trim_ascii()),
        None => Seal::public(),
    };
    let told = record::inspect(&read(file)?.into(), &RecordLimits::of_inspection(), &seal)
        .with_context(|| format!("{}: not a record", file.display()))?;
    say::text(&told);
    let bound = key.is_none_or(|key| key == KeyId::of(&told.key));
    anyhow::ensure!(bound, "{}: {}", file.display(), CorruptRecord::AnotherKey);
    match told.refusal() {
        Some(why) => anyhow::bail!("{}: {why}", file.display()),
        None => Ok(()),
    }
}

/// Prints what the second tier holds for a request.
fn inspect_stored(config: &GatewayConfig, request: http::Request<()>) -> anyhow::Result<()> {
    let records = runtime()?.block_on(records::of(config, request))?;
    anyhow::ensure!(!records.is_empty(), "nothing is stored for this request");
    let secret = config.cache.l2.seal_key.as_ref();
    let seal = secret.map_or_else(Seal::public, |secret| Seal::new(secret.as_bytes()));
    for bytes in &records {
        let told = record::inspect(bytes, &RecordLimits::of_inspection(), &seal)?;
        say::line(&told);
        if let Some(why) = told.refusal() {
            anyhow::bail!(why);
        }
    }
    Ok(())
}

fn key_id(text: &str) -> Result<KeyId, &'static str> {
    KeyId::parse(text).ok_or("expected 16 hexadecimal digits")
}

fn request(
    url: &str,
    headers: &[String],
    method: http::Method,
) -> anyhow::Result<http::Request<()>> {
    anyhow::ensure!(
        url.contains("://"),
        "{url:?} is not absolute; expected http://host/path"
    );
    let mut request = http::Request::builder().method(method).uri(url);
    for header in headers {
        let (name, value) = header
            .split_once(':')
            .with_context(|| format!("{header:?} is not of the form `Name: value`"))?;
        request = request.header(name.trim(), value.trim());
    }
    request
        .body(())
        .with_context(|| format!("{url:?} and its headers are no request"))
}

fn print_explanation(explanation: &proxy::Explanation, json: bool) -> anyhow::Result<()> {
    match json {
        true => say::line(serde_json::to_string_pretty(explanation)?),
        false => say::text(explanation),
    }
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}
