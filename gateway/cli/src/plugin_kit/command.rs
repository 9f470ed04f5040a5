//! The command line of `lamina plugin`: its subcommands, and which code carries each out.
//!
//! `main` knows only this enum; what a subcommand does and prints is in its own file.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lamina_base::units::{ByteSize, ConfigDuration};
use lamina_plugin_host::config::CompileConfig;
use serde_json::Value;

use super::{FirstHook, TemplateLanguage, bench, build, check, config, new, replay, test};
use crate::output;

/// A subcommand of `lamina plugin`.
#[derive(Subcommand)]
pub enum PluginCommand {
    /// Create a project for a plugin, ready to build, in a new folder.
    New {
        /// Its name: lower-case letters, digits and `-`.
        name: String,
        #[arg(long, value_enum)]
        lang: TemplateLanguage,
        /// The hook that the new project implements.
        #[arg(long, value_enum, default_value = "key")]
        hook: FirstHook,
        /// The folder of plugin-sdk. By default it is searched for from the current folder upwards,
        /// and written beside the project if it is not found.
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
    /// Print what a plugin exports, imports and needs, and whether a gateway would accept it.
    Check {
        #[command(flatten)]
        plugin: PluginFile,
        #[command(flatten)]
        compile: CompileLimits,
    },
    /// Call hooks with given requests and compare their decisions with the expected ones.
    Test {
        #[command(flatten)]
        plugin: PluginFile,
        /// The file of cases; see plugin-sdk/README.md.
        #[arg(long, default_value = "cases.yaml")]
        cases: PathBuf,
    },
    /// Measure the cost of calls (with a fresh instance, with a reused one, and from memory) and
    /// the memory of an instance.
    Bench {
        #[command(flatten)]
        plugin: PluginFile,
        /// A file of cases: their requests are used in place of a default request.
        #[arg(long)]
        cases: Option<PathBuf>,
        /// How many seconds the whole measurement may take.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Repeat, without a gateway, a call that failed in a gateway.
    Replay {
        #[command(flatten)]
        plugin: PluginFile,
        /// A file with the answer of `GET /v1/plugins/NAME/calls`.
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

/// The limits of compiling that a gateway has in its `plugins.compile`.
#[derive(Args)]
pub struct CompileLimits {
    /// The most memory of the compiling process, as `plugins.compile.memory`.
    #[arg(long, default_value_t = CompileConfig::default().memory)]
    compile_memory: ByteSize,
    /// The most processor time of the compiling process, as `plugins.compile.time`.
    #[arg(long, default_value_t = CompileConfig::default().time)]
    compile_time: ConfigDuration,
}

impl From<CompileLimits> for CompileConfig {
    fn from(limits: CompileLimits) -> Self {
        Self {
            memory: limits.compile_memory,
            time: limits.compile_time,
            ..Self::default()
        }
    }
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
                output::text(new::new(&name, lang, hook, sdk.as_deref())?);
                Ok(true)
            }
            Self::Build { folder, config } => {
                let file = build::build(&folder)?;
                Ok(checked(&file, config, CompileConfig::default()).await)
            }
            Self::Check { plugin, compile } => {
                Ok(checked(&plugin.file, plugin.config, compile.into()).await)
            }
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
                    true => output::line(format_args!("{:#}", table.json())),
                    false => output::text(table),
                }
                Ok(true)
            }
            Self::Replay { plugin, call } => {
                replay::replay(&plugin.file, &call, plugin.config).await
            }
        }
    }
}

async fn checked(file: &Path, config: Option<Value>, compile: CompileConfig) -> bool {
    let report = check::check(file, config, compile).await;
    let is_accepted = report.is_accepted();
    output::text(report);
    is_accepted
}
