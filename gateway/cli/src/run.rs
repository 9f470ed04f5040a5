//! `lamina run`: a gateway from its start to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lamina_base::service_manager::descriptors;
use lamina_base::service_manager::{ServiceManager, ServiceState};
use lamina_base::telemetry::config::LogFormat;
use lamina_base::telemetry::logs;
use lamina_edge::app::reload::ConfigOrigin;
use lamina_edge::app::upgrade::{NewProgram, ReplacingProcess};
use lamina_edge::app::{RunningGateway, StartOptions, outlive_file_size_limits};
use lamina_edge::config::{self, GatewayConfig};
use lamina_http::endpoint::Endpoint;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::command::{runtime, with_config};
use crate::exit::ExitOutcome;
use crate::first_file::{self, FirstFileArguments};
use crate::output;
use crate::stopping::{self, StopSignals};
use crate::upgrade::{self, ProcessBeginning};

/// Serves by a configuration file, or by the options that take its place.
pub fn start(
    file: &Path,
    first: &FirstFileArguments,
    log_format: Option<LogFormat>,
    take_over: Option<Option<PathBuf>>,
) -> anyhow::Result<ExitOutcome> {
    // Before anything else is opened, the runtime included.
    let inherited = descriptors::take()?;
    let runtime = runtime()?;
    // Whoever asks for a reload while plugins are compiled must not end the process by it.
    let hangups = {
        let _inside = runtime.enter();
        outlive_file_size_limits()?;
        signal(SignalKind::hangup())?
    };
    let serve = move |mut config: GatewayConfig, file: Option<&Path>| {
        let adapt = move |config: &mut GatewayConfig| {
            config.telemetry.log_format = log_format.unwrap_or(config.telemetry.log_format);
        };
        adapt(&mut config);
        let origin = ConfigOrigin {
            file: file.map(Path::to_owned),
            load: config::load,
            adapt: Box::new(adapt),
        };
        let beginning = upgrade::beginning(&config, take_over, inherited)?;
        let next = upgrade::next_program(file, log_format);
        let ended = runtime.block_on(run(&config, origin, beginning, next, hangups));
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

async fn run(
    config: &GatewayConfig,
    origin: ConfigOrigin,
    beginning: ProcessBeginning,
    next: NewProgram,
    hangups: Signal,
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
    let reloading = app.reload_on_signals(&manager, hangups);
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
    if let Some(now) = replaced {
        // Until its end it passes on what it is asked to take up.
        return make_room(app, &now, stopping).await;
    }
    drop(reloading);
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
