//! Another process takes the place of a running gateway: what an operator asks for, and how a process
//! begins that takes over.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use lamina_base::service_manager::descriptors::InheritedDescriptor;
use lamina_base::telemetry::config::LogFormat;
use lamina_edge::app::upgrade::{self, NewProgram, TakeOver, TakeOverError, UpgradeOutcome};
use lamina_edge::config::{self, GatewayConfig};

use crate::arguments::UpgradeArguments;
use crate::exit::ExitOutcome;
use crate::output;

/// The socket of the Debian package's unit.
const USUAL_SOCKET: &str = "/run/lamina/upgrade.sock";

/// How long a process may take that was not started by the gateway whose place it takes.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a process has before it opens anything.
pub struct ProcessBeginning {
    /// What the service manager has handed over.
    pub inherited: Vec<InheritedDescriptor>,
    /// The process whose place it takes, if it does.
    pub take_over: Option<TakeOver>,
}

/// Has a running gateway replaced, and prints what came of it.
pub fn upgrade(asked: &UpgradeArguments) -> anyhow::Result<ExitOutcome> {
    let socket = match socket_of(asked) {
        Ok(socket) => socket,
        Err(problems) => {
            output::error(problems);
            output::error("lamina: or name the gateway's socket with --socket");
            return Ok(ExitOutcome::Wrong);
        }
    };
    let real = |path: &Path| {
        path.canonicalize()
            .with_context(|| path.display().to_string())
    };
    let binary = match &asked.binary {
        Some(binary) => real(binary)?,
        None => std::env::current_exe().context("this program's own file")?,
    };
    let config = asked.config.as_deref().map(absolute).transpose()?;
    let within = asked.timeout.into();
    match upgrade::ask_for_upgrade(&socket, binary, config, within) {
        Ok(UpgradeOutcome {
            process,
            version,
            old_process,
            old_version,
        }) => {
            output::line(format_args!(
                "upgraded: process {process} (lamina {version}) serves; process {old_process} \
                 (lamina {old_version}) ends after its last request"
            ));
            Ok(ExitOutcome::Well)
        }
        Err(error) => {
            output::error(format_args!(
                "lamina: {}: not upgraded: {error}",
                socket.display()
            ));
            Ok(ExitOutcome::Failed)
        }
    }
}

/// The path of a file that is there, links as they are: the new process is to follow them at each
/// reload, and paths in a configuration are relative to the folder in which it is named.
pub fn absolute(file: &Path) -> anyhow::Result<PathBuf> {
    let named = || file.display().to_string();
    std::fs::metadata(file).with_context(named)?;
    std::path::absolute(file).with_context(named)
}

fn socket_of(asked: &UpgradeArguments) -> Result<PathBuf, config::ConfigProblems> {
    let of_file = match (&asked.socket, &asked.config) {
        (Some(socket), _) => return Ok(socket.clone()),
        (None, Some(file)) => config::load(file)?.server.upgrade_socket,
        (None, None) => None,
    };
    Ok(of_file.unwrap_or_else(|| PathBuf::from(USUAL_SOCKET)))
}

/// How a process begins: with the listeners of another one if it takes that one's place, otherwise
/// with those of the service manager.
///
/// # Errors
/// If nobody hands over.
pub fn beginning(
    config: &GatewayConfig,
    take_over: Option<Option<PathBuf>>,
    inherited: Vec<InheritedDescriptor>,
) -> anyhow::Result<ProcessBeginning> {
    let Some(named) = take_over else {
        return Ok(ProcessBeginning {
            inherited,
            take_over: None,
        });
    };
    let socket = named
        .or_else(|| config.server.upgrade_socket.clone())
        .or_else(upgrade::usual_socket)
        .unwrap_or_else(|| PathBuf::from(USUAL_SOCKET));
    let begun = TakeOver::begin(&socket, PATIENCE);
    Ok(ProcessBeginning {
        // The process before has its own; what the manager has kept is the same.
        inherited: Vec::new(),
        take_over: Some(begun.map_err(|error: TakeOverError| anyhow::Error::new(error))?),
    })
}

/// How the next process is started.
pub fn next_program(file: Option<&Path>, log_format: Option<LogFormat>) -> NewProgram {
    let form = log_format.and_then(|form| form.to_possible_value());
    let arguments = form.map(|form| {
        [
            OsString::from("--log-format"),
            OsString::from(form.get_name()),
        ]
    });
    NewProgram {
        config: file.map(Path::to_owned),
        arguments: arguments.into_iter().flatten().collect(),
    }
}
