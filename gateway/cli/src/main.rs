//! Runs the commands, handles signals and sets exit codes. It contains no logic of its own.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod allocator;
mod arguments;
mod completions;
mod demo;
mod doctor;
mod first_file;
mod formatting;
mod manual;
mod migrate;
mod output;
mod plugin_kit;
mod records;
mod remote;
mod stopping;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use arguments::{
    AcmeCommand, AdminArguments, ChangedTarget, CommandLine, ConfigCommand, GatewayCommand,
    HealthArguments, L2Command, MaintenanceArguments, PlanArguments, PurgeArguments, RecordCommand,
    UpstreamsCommand,
};
use clap::Parser;
use first_file::FirstFileArguments;
use lamina_base::service_manager::descriptors;
use lamina_base::service_manager::{ServiceManager, ServiceState};
use lamina_base::telemetry::config::{LogFormat, TelemetryConfig};
use lamina_base::telemetry::logs;
use lamina_cache::key::KeyId;
use lamina_cache::record::{self, CorruptRecord, RecordLimits, Seal};
use lamina_edge::admin::config::{AdminConfig, AdminRight};
use lamina_edge::app::reload::ConfigOrigin;
use lamina_edge::app::upgrade::{NewProgram, ReplacingProcess};
use lamina_edge::app::{self, GatewayStartError, RunningGateway, StartOptions};
use lamina_edge::certificate_review;
use lamina_edge::config::{self, ConfigProblem, GatewayConfig, ShownValues};
use lamina_edge::proxy;
use lamina_http::endpoint::Endpoint;
use lamina_plugin_host::compile::{self, child::CompileAllowance};
use remote::{
    RemoteError, RemoteGateway, RemotePurgeCoverage, RemoteReadiness, RemoteReload,
    RemoteReloadOutcome, TargetChange,
};

use stopping::StopSignals;
use upgrade::ProcessBeginning;

#[global_allocator]
static ALLOCATOR: allocator::ProgramAllocator = allocator::ProgramAllocator;

/// The result of a command.
enum ExitOutcome {
    Well,
    /// A check has failed, and this has been reported.
    Failed,
    /// The result can't be known, and the reason has been reported.
    Unknown,
    /// The command line or the configuration is wrong, and this has been reported.
    Wrong,
}

impl From<()> for ExitOutcome {
    fn from((): ()) -> Self {
        Self::Well
    }
}

impl ExitOutcome {
    /// The outcome of a purge. Reports if the purge does not hold everywhere.
    fn of(holds: RemotePurgeCoverage) -> Self {
        match holds {
            RemotePurgeCoverage::Everywhere => Self::Well,
            RemotePurgeCoverage::NotEverywhere => {
                output::error(
                    "lamina: not every node (or not the second tier) has confirmed the purge",
                );
                Self::Failed
            }
            RemotePurgeCoverage::Unknown => Self::Unknown,
        }
    }
}

fn main() -> ExitCode {
    lamina_base::tls::install_provider();
    match execute(CommandLine::parse().command) {
        Ok(ExitOutcome::Well) => ExitCode::SUCCESS,
        Ok(ExitOutcome::Failed) => ExitCode::FAILURE,
        Ok(ExitOutcome::Wrong) => ExitCode::from(2),
        Ok(ExitOutcome::Unknown) => ExitCode::from(3),
        Err(error) => {
            output::error(format_args!("lamina: {error:#}"));
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
        GatewayCommand::Run {
            file,
            first,
            log_format,
            take_over,
        } => start(&file.config, &first, log_format, take_over),
        GatewayCommand::Upgrade(arguments) => upgrade::upgrade(&arguments),
        GatewayCommand::Validate { file } => validate(&file.config),
        GatewayCommand::Explain {
            file,
            url,
            headers,
            method,
            json,
        } => with_config(&file.config, |config| {
            let request = request(&url, &headers, method)?;
            let plan = runtime()?.block_on(app::build(&config))?;
            print_explanation(&plan.generation.explain(request), json)
        }),
        GatewayCommand::Doctor { file } => with_config(&file.config, |config| {
            let report = runtime()?.block_on(doctor::examine(&config, &file.config))?;
            output::text(&report);
            anyhow::ensure!(report.is_well(), "checks failed: {}", report.unwell());
            Ok(())
        }),
        GatewayCommand::Reload { json, admin } => {
            with_remote(&admin, AdminRight::Config, |remote| {
                let reload = runtime()?.block_on(remote.reload())?;
                Ok(print_reload(&reload, json))
            })
        }
        GatewayCommand::Plan(arguments) => plan(&arguments),
        GatewayCommand::Health(arguments) => health(&arguments),
        GatewayCommand::Purge(arguments) => purge(&arguments),
        GatewayCommand::Nodes { admin } => with_remote(&admin, AdminRight::Read, |remote| {
            output::text(runtime()?.block_on(remote.nodes())?);
            Ok(ExitOutcome::Well)
        }),
        GatewayCommand::Requests {
            filter,
            json,
            admin,
        } => with_remote(&admin, AdminRight::Read, |remote| {
            let requests = runtime()?.block_on(remote.requests(&filter))?;
            match json {
                true => output::line(serde_json::to_string_pretty(requests.json())?),
                false => output::text(&requests),
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
            output::text(runtime()?.block_on(keys)?);
            Ok(ExitOutcome::Well)
        }),
        GatewayCommand::Upstreams {
            command,
            json,
            admin,
        } => match command {
            Some(command) => change_target(&command),
            None => upstreams(&admin, json),
        },
        GatewayCommand::Maintenance(asked) => switch_maintenance(&asked),
        GatewayCommand::Acme { command } => certificates(&command),
        GatewayCommand::Config {
            command:
                ConfigCommand::Show {
                    file,
                    json,
                    no_defaults,
                },
        } => {
            let values = match no_defaults {
                true => ShownValues::Given,
                false => ShownValues::All,
            };
            show(&file.config, json, values)
        }
        GatewayCommand::Fmt { files, check } => match check {
            true => formatting::check(&files),
            false => formatting::rewrite(&files),
        },
        GatewayCommand::Migrate { command } => {
            output::text(command.draft()?);
            Ok(ExitOutcome::Well)
        }
        GatewayCommand::Schema => {
            output::line(format_args!("{:#}", config::schema()));
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
            // This prints the log lines of the plugin.
            let _logs = logs::start(&TelemetryConfig::default());
            let well = runtime()?.block_on(command.run());
            Ok(match well.map_err(anyhow::Error::msg)? {
                true => ExitOutcome::Well,
                false => ExitOutcome::Failed,
            })
        }
        GatewayCommand::DemoOrigin { listen } => {
            let _logs = logs::start(&TelemetryConfig::default());
            runtime()?.block_on(demo::run(&[listen]))?;
            Ok(ExitOutcome::Well)
        }
        GatewayCommand::Completions { shell } => {
            output::text(completions::script(shell));
            Ok(ExitOutcome::Well)
        }
        GatewayCommand::Man { command, all_to } => {
            match all_to {
                Some(folder) => {
                    let written = manual::write_all(&folder)?;
                    output::line(format_args!("{}: {written} pages", folder.display()));
                }
                None => output::text(manual::page(&command)?),
            }
            Ok(ExitOutcome::Well)
        }
        GatewayCommand::Version => {
            output::line(concat!("lamina ", env!("CARGO_PKG_VERSION")));
            Ok(ExitOutcome::Well)
        }
        GatewayCommand::CompilePlugin { memory, seconds } => {
            compile::child::run(CompileAllowance { memory, seconds })?;
            Ok(ExitOutcome::Well)
        }
    }
}

fn validate(file: &Path) -> anyhow::Result<ExitOutcome> {
    with_config(file, |config| {
        for warning in &config.warnings {
            output::error(format_args!("warning: {warning}"));
        }
        let plan = runtime()?.block_on(app::build(&config));
        let plan = plan.context("the file has the right form, but")?;
        for finding in certificate_review::of_listeners(&config, &plan.certificates) {
            let problem = config::problem_at(file, &finding.key, finding.message);
            output::error(format_args!("warning: {problem}"));
        }
        let included = match config.files_read.len().saturating_sub(1) {
            0 => String::new(),
            1 => ", 1 included file".to_owned(),
            n => format!(", {n} included files"),
        };
        output::line(format_args!(
            "{}: ok{included}, {} routes, {} upstreams, {} plugins",
            file.display(),
            config.routes.len(),
            config.upstreams.len(),
            config.plugins.by_name.len()
        ));
        Ok(())
    })
}

/// Asks whether a gateway takes requests. What can't be known counts as no.
fn health(asked: &HealthArguments) -> anyhow::Result<ExitOutcome> {
    let unknown = |why: &dyn std::fmt::Display| {
        output::error(format_args!("not ready, as far as can be known: {why}"));
        Ok(ExitOutcome::Failed)
    };
    let admin = match (&asked.admin, &asked.config) {
        (Some(admin), _) => admin.clone(),
        (None, Some(file)) => match config::load(file) {
            Ok(config) => config.admin.address,
            Err(problems) => {
                let first = problems.iter().next().map(ConfigProblem::headline);
                return unknown(&first.unwrap_or_default());
            }
        },
        (None, None) => AdminConfig::default().address,
    };
    let remote = RemoteGateway { admin, token: None };
    match runtime()?.block_on(remote.readiness(asked.timeout.into())) {
        Ok(ready @ RemoteReadiness::Ready(_)) => {
            output::line(ready);
            Ok(ExitOutcome::Well)
        }
        Ok(not_ready) => {
            output::error(not_ready);
            Ok(ExitOutcome::Failed)
        }
        Err(error) => unknown(&error),
    }
}

/// Prints a valid configuration with where its values come from.
fn show(file: &Path, json: bool, values: ShownValues) -> anyhow::Result<ExitOutcome> {
    match config::effective(file) {
        Ok(shown) if json => {
            output::line(serde_json::to_string_pretty(&shown.json(values))?);
            Ok(ExitOutcome::Well)
        }
        Ok(shown) => {
            output::text(shown.yaml(values));
            Ok(ExitOutcome::Well)
        }
        Err(problems) => {
            output::error(problems);
            Ok(ExitOutcome::Wrong)
        }
    }
}

/// Purges, and reports where the purge holds.
fn purge(purge: &PurgeArguments) -> anyhow::Result<ExitOutcome> {
    let (asked, wait) = (
        purge.asked(),
        purge.wait.map_or_else(Default::default, Into::into),
    );
    with_remote(&purge.admin, AdminRight::Purge, |remote| {
        match runtime()?.block_on(remote.purge(&asked, wait)) {
            Ok(receipt) => {
                output::text(&receipt);
                Ok(ExitOutcome::of(receipt.holds()))
            }
            // The gateway may have received the request.
            Err(error @ (RemoteError::Timeout(_) | RemoteError::Broken(_))) => {
                output::error(format_args!(
                    "lamina: it is unknown where the purge applies: {error}"
                ));
                Ok(ExitOutcome::Unknown)
            }
            Err(error) => Err(error.into()),
        }
    })
}

/// Prints what a running gateway would do with another configuration.
fn plan(asked: &PlanArguments) -> anyhow::Result<ExitOutcome> {
    with_config(&asked.config, |config| {
        let token = match &asked.token_file {
            Some(file) => Some(arguments::read_token(file)?),
            None => config
                .admin
                .token_for(AdminRight::Config)
                .map(str::to_owned),
        };
        let remote = RemoteGateway {
            admin: asked.against.clone().unwrap_or(config.admin.address),
            token,
        };
        let file = asked.config.canonicalize()?;
        let planned = runtime()?.block_on(remote.plan(&file))?;
        let outcome = print_reload(&planned, asked.json);
        let most = asked.max_unreachable.unwrap_or(u64::MAX);
        Ok(match outcome {
            ExitOutcome::Well if planned.unreachable() > most => {
                output::error(format_args!(
                    "lamina: more than {most} stored entries would be unreachable"
                ));
                ExitOutcome::Failed
            }
            outcome => outcome,
        })
    })
}

fn print_reload(reload: &RemoteReload, json: bool) -> ExitOutcome {
    match (json, reload.outcome) {
        (true, _) => output::line(format_args!("{:#}", reload.json())),
        (false, RemoteReloadOutcome::Good) => output::text(reload),
        (false, _) => output::error(reload.to_string().trim_end()),
    }
    match reload.outcome {
        RemoteReloadOutcome::Good => ExitOutcome::Well,
        RemoteReloadOutcome::Wrong => ExitOutcome::Wrong,
        RemoteReloadOutcome::Refused => ExitOutcome::Failed,
    }
}

/// Lists the targets of upstreams.
fn upstreams(admin: &AdminArguments, json: bool) -> anyhow::Result<ExitOutcome> {
    with_remote(admin, AdminRight::Read, |remote| {
        let list = runtime()?.block_on(remote.upstreams())?;
        match json {
            true => output::line(serde_json::to_string_pretty(list.json())?),
            false => output::text(list),
        }
        Ok(ExitOutcome::Well)
    })
}

/// Takes a target out, or makes it ready again.
fn change_target(command: &UpstreamsCommand) -> anyhow::Result<ExitOutcome> {
    let taken_out = |state, asked: &ChangedTarget| TargetChange {
        state,
        lasts: asked.lasts,
        outlives_process: asked.keep,
    };
    let (change, target, admin) = match command {
        UpstreamsCommand::Drain(asked) => (taken_out("drain", asked), &asked.target, &asked.admin),
        UpstreamsCommand::Out(asked) => (taken_out("out", asked), &asked.target, &asked.admin),
        UpstreamsCommand::Ready { target, admin } => {
            let ready = TargetChange {
                state: "ready",
                lasts: None,
                outlives_process: false,
            };
            (ready, target, admin)
        }
    };
    with_remote(admin, AdminRight::Targets, |remote| {
        let names = (&*target.upstream, &*target.target);
        let changed = runtime()?.block_on(remote.change_target(names, change))?;
        output::text(changed);
        Ok(ExitOutcome::Well)
    })
}

/// Closes a route for maintenance, or opens it.
fn switch_maintenance(asked: &MaintenanceArguments) -> anyhow::Result<ExitOutcome> {
    with_remote(&asked.admin, AdminRight::Config, |remote| {
        let (state, allow) = (asked.state.as_str(), asked.allow.as_slice());
        let switched = remote.switch_maintenance(&asked.route, (state, asked.lasts), allow);
        output::line(runtime()?.block_on(switched)?);
        Ok(ExitOutcome::Well)
    })
}

/// Asks about automatic certificates, or for other ones.
fn certificates(command: &AcmeCommand) -> anyhow::Result<ExitOutcome> {
    let (admin, right) = match command {
        AcmeCommand::Status { admin } => (admin, AdminRight::Read),
        AcmeCommand::Renew { admin, .. } | AcmeCommand::Revoke { admin, .. } => {
            (admin, AdminRight::Certificates)
        }
    };
    with_remote(admin, right, |remote| {
        let runtime = runtime()?;
        match command {
            AcmeCommand::Status { .. } => output::text(runtime.block_on(remote.certificates())?),
            AcmeCommand::Renew { name, .. } => {
                output::text(runtime.block_on(remote.renew_certificate(name))?);
            }
            AcmeCommand::Revoke { name, .. } => {
                output::text(runtime.block_on(remote.revoke_certificate(name))?);
            }
        }
        Ok(ExitOutcome::Well)
    })
}

/// Serves by a configuration file, or by the options that take its place.
fn start(
    file: &Path,
    first: &FirstFileArguments,
    log_format: Option<LogFormat>,
    take_over: Option<Option<PathBuf>>,
) -> anyhow::Result<ExitOutcome> {
    let serve = |mut config: GatewayConfig, file: Option<&Path>| {
        let adapt = move |config: &mut GatewayConfig| {
            config.telemetry.log_format = log_format.unwrap_or(config.telemetry.log_format);
        };
        adapt(&mut config);
        let origin = ConfigOrigin {
            file: file.map(Path::to_owned),
            load: config::load,
            adapt: Box::new(adapt),
        };
        // Before anything else is opened.
        let inherited = descriptors::take();
        let beginning = upgrade::beginning(&config, take_over, inherited)?;
        let next = upgrade::next_program(file, log_format);
        let runtime = runtime()?;
        let ended = runtime.block_on(run(&config, origin, beginning, next));
        // Blocking work, such as a name look-up that hangs, must not delay the end.
        runtime.shutdown_background();
        ended
    };
    let Some(text) = first.text() else {
        return with_config(file, |config| serve(config, Some(file)));
    };
    if first.print_config {
        output::text(&text);
        return Ok(ExitOutcome::Well);
    }
    match first_file::read(&text) {
        Ok(config) => serve(config, None).map(Into::into),
        Err(problems) => {
            output::error(problems);
            Ok(ExitOutcome::Wrong)
        }
    }
}

fn with_config<D: Into<ExitOutcome>>(
    file: &Path,
    act: impl FnOnce(GatewayConfig) -> anyhow::Result<D>,
) -> anyhow::Result<ExitOutcome> {
    let acted = match config::load(file) {
        Ok(config) => act(config),
        Err(problems) => {
            output::error(problems);
            return Ok(ExitOutcome::Wrong);
        }
    };
    let start = acted.as_ref().err();
    let start = start.and_then(|error| error.downcast_ref::<GatewayStartError>());
    match start.and_then(GatewayStartError::place) {
        Some((key, message)) => {
            output::error(config::problem_at(file, &key, message));
            Ok(ExitOutcome::Wrong)
        }
        None => acted.map(Into::into),
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
            let usual = AdminConfig::default().address;
            ask(admin.remote(usual, None)?)
        }
    }
}

async fn run(
    config: &GatewayConfig,
    origin: ConfigOrigin,
    beginning: ProcessBeginning,
    next: NewProgram,
) -> anyhow::Result<()> {
    let logs = logs::start(&config.telemetry);
    let manager = ServiceManager::of_this_process();
    manager.tell(ServiceState::Starting);
    for warning in &config.warnings {
        tracing::warn!("{}", warning.headline());
    }
    let drain_limit = Arc::new(AtomicU64::new(drain_millis(config)));
    let mut stopping = stopping::listen(Arc::clone(&drain_limit))?;
    let options = StartOptions {
        logs: &logs,
        manager: manager.clone(),
        inherited: beginning.inherited,
        take_over: beginning.take_over,
        next,
        origin,
        drain_limit: Arc::clone(&drain_limit),
    };
    let app = tokio::select! {
        app = RunningGateway::start(config, options) => app?,
        () = stopping.asked() => {
            tracing::info!("stopped before it began to serve");
            return Ok(());
        }
    };
    for (address, scheme) in &app.addresses {
        tracing::info!("lamina listening on {scheme}://{address}");
    }
    match &app.admin {
        Endpoint::Tcp(address) => tracing::info!("lamina admin on http://{address}"),
        unix @ Endpoint::Unix(_) => tracing::info!("lamina admin on {unix}"),
    }
    tracing::info!("{}", app.admin_openness);
    let reloading = app.reload_on_signals(&manager);
    let ready_then_for_ever = async {
        app.warm_up(&manager).await;
        manager.tell(ServiceState::Ready {
            status: &serving(&app),
        });
        app.give_signs_of_life(&manager);
        std::future::pending::<()>().await;
    };
    let replaced = tokio::select! {
        () = ready_then_for_ever => None,
        () = stopping.asked() => None,
        now = app.replaced() => Some(now),
    };
    drop(reloading);
    if let Some(now) = replaced {
        return make_room(app, &now, stopping).await;
    }
    let within = Duration::from_millis(drain_limit.load(Ordering::Relaxed));
    manager.tell(ServiceState::Stopping {
        within: within + stopping::LAST_WORDS,
    });
    tracing::info!(
        "draining: no new connections are accepted; a second signal ends the process at once"
    );
    tokio::select! {
        () = app.drain() => tracing::info!("drained"),
        () = stopping.asked_again() => tracing::warn!("stopped before the drain was finished"),
    }
    Ok(())
}

/// Ends after another process has taken the place of this one.
async fn make_room(
    app: RunningGateway,
    now: &ReplacingProcess,
    mut stopping: StopSignals,
) -> anyhow::Result<()> {
    tracing::info!(
        process = now.process,
        "draining: another process has the listeners"
    );
    let mut drained = std::pin::pin!(app.make_room(now));
    let stopped = tokio::select! {
        () = &mut drained => {
            tracing::info!("drained");
            return Ok(());
        }
        () = stopping.asked() => stopping.asked_again(),
    };
    // As at any other end: what is under way has the time of a drain.
    tokio::select! {
        () = drained => tracing::info!("drained"),
        () = stopped => tracing::warn!("stopped before the drain was finished"),
    }
    Ok(())
}

fn drain_millis(config: &GatewayConfig) -> u64 {
    let limit = Duration::from(config.server.drain_timeout).as_millis();
    u64::try_from(limit).unwrap_or(u64::MAX)
}

/// The status of a gateway at work, for the service manager.
fn serving(app: &RunningGateway) -> String {
    let addresses = app.addresses.iter();
    let addresses: Vec<_> = addresses
        .map(|(address, scheme)| format!("{scheme}://{address}"))
        .collect();
    format!("Serving {}; admin on {}", addresses.join(", "), app.admin)
}

/// Prints what a record holds. Fails if a gateway would not accept the record.
fn inspect(file: &Path, key: Option<KeyId>, seal_key_file: Option<&Path>) -> anyhow::Result<()> {
    let read = |file: &Path| std::fs::read(file).with_context(|| file.display().to_string());
    let seal = match seal_key_file {
        Some(secret) => Seal::new(read(secret)?.trim_ascii()),
        None => Seal::public(),
    };
    let told = record::inspect(&read(file)?.into(), &RecordLimits::of_inspection(), &seal)
        .with_context(|| format!("{}: not a record", file.display()))?;
    output::text(&told);
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
        output::line(&told);
        if let Some(why) = told.refusal() {
            anyhow::bail!(why);
        }
    }
    Ok(())
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
        true => output::line(serde_json::to_string_pretty(explanation)?),
        false => output::text(explanation),
    }
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}
