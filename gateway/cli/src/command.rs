//! What commands have in common: the configuration they read, the gateway they ask, their runtime.

use std::path::Path;

use lamina_edge::admin::config::{AdminConfig, AdminRight};
use lamina_edge::app::GatewayStartError;
use lamina_edge::config::{self, GatewayConfig};

use crate::arguments::AdminArguments;
use crate::exit::ExitOutcome;
use crate::output;
use crate::remote::RemoteGateway;

/// Acts on a configuration. Reports what is wrong with it.
pub fn with_config<D: Into<ExitOutcome>>(
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
    match start.and_then(GatewayStartError::key_and_cause) {
        Some((key, message)) => {
            output::error(config::problem_at(file, &key, message));
            Ok(ExitOutcome::Wrong)
        }
        None => acted.map(Into::into),
    }
}

/// Asks a running gateway, with a token that has this right.
pub fn with_remote(
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

/// A runtime for one command.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}
