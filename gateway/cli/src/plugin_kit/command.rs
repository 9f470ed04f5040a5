//! The command line of `lamina plugin`: its subcommands, and which code carries each out.
//!
//! `main` knows only this enum; what a subcommand does and prints is in its own file.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{FirstHook, TemplateLanguage, bench, build, check, config, new, replay, test};
use crate::say;

/// A subcommand of `lamina plugin`.
#[derive(Subcommand)]
pub enum PluginCommand {
    /// Write a project that builds, in a new folder.
    New {
        /// Its name: lower-case letters, digits and `-`.
        name: String,
        #[arg(long, value_enum)]
        lang: TemplateLanguage,
        /// The hook that it begins with.
        #[arg(long, value_enum, default_value = "key")]
        hook: FirstHook,
        /// Where plugin-sdk is. Otherwise it is looked for upwards from here, and written
        /// beside the project where it is not found.
        #[arg(long)]
        sdk: Option<PathBuf>,
    },
    /// Build a project with its language's own tool, and check the NAME.wasm that it leaves there.
    Build {
        /// The project's folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The plugin's configuration for the check: JSON, or `@FILE` with JSON or YAML.
        #[arg(long, value_parser = config)]
        config: Option<Value>,
    },
    /// Say what a plugin exports, imports and needs, and whether a gateway would take it.
    Check {
        #[command(flatten)]
        plugin: PluginFile,
    },
    /// Run hooks on given requests and compare what they decide with what is expected.
    Test {
        #[command(flatten)]
        plugin: PluginFile,
        /// The file of cases; see plugin-sdk/README.md.
        #[arg(long, default_value = "cases.yaml")]
        cases: PathBuf,
    },
    /// Measure what calls cost, fresh, reused and remembered, and what an instance holds.
    Bench {
        #[command(flatten)]
        plugin: PluginFile,
        /// A file of cases, whose requests are made in place of one that is made up.
        #[arg(long)]
        cases: Option<PathBuf>,
        /// How long it may take in all.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a call again, offline, that failed at a gateway.
    Replay {
        #[command(flatten)]
        plugin: PluginFile,
        /// A file with what `GET /v1/plugins/NAME/calls` gave.
        #[arg(long)]
        call: PathBuf,
    },
}

/// A plugin to be called here.
#[derive(Args)]
pub struct PluginFile {
    /// The `.wasm` file.
    file: PathBuf,
    /// Its configuration: JSON, or `@FILE` with JSON or YAML.
    #[arg(long, value_parser = config)]
    config: Option<Value>,
}

impl PluginCommand {
    /// Carries out the subcommand and prints the result. Returns whether all is well. If a gateway
    /// would refuse the plugin or a case fails, this has already been printed.
    ///
    /// # Errors
    /// Returns a message if the subcommand could not be carried out.
    pub async fn run(self) -> Result<bool, String> {
        match self {
            Self::New {
                name,
                lang,
                hook,
                sdk,
            } => {
                say::text(new::new(&name, lang, hook, sdk.as_deref())?);
                Ok(true)
            }
            Self::Build { folder, config } => {
                let file = build::build(&folder)?;
                Ok(checked(&file, config).await)
            }
            Self::Check { plugin } => Ok(checked(&plugin.file, plugin.config).await),
            Self::Test { plugin, cases } => {
                let score = test::test(&plugin.file, &cases, plugin.config).await?;
                Ok(score.failed == 0)
            }
            Self::Bench {
                plugin: PluginFile { file, config },
                cases,
                seconds,
                json,
            } => {
                let table = bench::bench(&file, cases.as_deref(), config, seconds).await?;
                match json {
                    true => say::line(format_args!("{:#}", table.json())),
                    false => say::text(table),
                }
                Ok(true)
            }
            Self::Replay { plugin, call } => {
                replay::replay(&plugin.file, &call, plugin.config).await
            }
        }
    }
}

async fn checked(file: &Path, config: Option<Value>) -> bool {
    let report = check::check(file, config).await;
    let is_accepted = report.is_accepted();
    say::text(report);
    is_accepted
}
