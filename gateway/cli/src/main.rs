//! Runs the commands, handles signals and sets exit codes. It contains no logic of its own.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod allocator;
mod arguments;
mod command;
mod completions;
mod demo;
mod doctor;
mod examine;
mod exit;
mod first_file;
mod formatting;
mod manual;
mod migrate;
mod operate;
mod output;
mod plugin_kit;
mod records;
mod remote;
mod run;
mod stopping;
mod upgrade;

use std::process::ExitCode;

use arguments::{CommandLine, GatewayCommand};
use clap::Parser;
use exit::ExitOutcome;
use lamina_base::telemetry::config::TelemetryConfig;
use lamina_base::telemetry::logs;
use lamina_edge::config;
use lamina_plugin_host::compile::{self, child::CompileAllowance};

use command::runtime;

#[global_allocator]
static ALLOCATOR: allocator::ProgramAllocator = allocator::ProgramAllocator;

fn main() -> ExitCode {
    lamina_base::tls::install_provider();
    exit::code(execute(CommandLine::parse().command))
}

fn execute(command: GatewayCommand) -> anyhow::Result<ExitOutcome> {
    match command {
        GatewayCommand::Run {
            file,
            first,
            log_format,
            take_over,
        } => run::start(&file.config, &first, log_format, take_over),
        GatewayCommand::Upgrade(arguments) => upgrade::upgrade(&arguments),
        GatewayCommand::Validate { file } => examine::validate(&file.config),
        GatewayCommand::Explain {
            file,
            url,
            headers,
            method,
            json,
        } => examine::explain(&file.config, (method, &url, &headers), json),
        GatewayCommand::Doctor { file } => examine::doctor(&file.config),
        GatewayCommand::Config { command } => examine::config(&command),
        GatewayCommand::Record { command } => examine::record(command),
        GatewayCommand::Reload { json, admin } => operate::reload(&admin, json),
        GatewayCommand::Plan(arguments) => operate::plan(&arguments),
        GatewayCommand::Health(arguments) => operate::health(&arguments),
        GatewayCommand::Purge(arguments) => operate::purge(&arguments),
        GatewayCommand::Nodes { admin } => operate::nodes(&admin),
        GatewayCommand::Requests {
            filter,
            json,
            admin,
        } => operate::requests(&admin, &filter, json),
        GatewayCommand::L2 { command } => operate::second_tier(&command),
        GatewayCommand::Upstreams {
            command,
            json,
            admin,
        } => operate::targets(command.as_ref(), &admin, json),
        GatewayCommand::Maintenance(asked) => operate::switch_maintenance(&asked),
        GatewayCommand::Acme { command } => operate::certificates(&command),
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
        GatewayCommand::Man { command, all_to } => manual::print(&command, all_to.as_deref()),
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
