//! What came of a reload or of a plan: the report, or the reason against it, and what operators are
//! told.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::certificate_changes::CertificateChanges;
use super::changes::ConfigChanges;
use super::fixed::FixedKeyChange;
use super::forecast::EntryForecast;
use super::key_forecast::KeyForecasts;
use crate::admin::audit::AdminActionSource;
use crate::app::start_error::GatewayStartError;
use crate::config::{self, ConfigProblem, ConfigProblems};
use crate::proxy::route::RouteError;

/// The most replaced configurations that requests may still run on.
pub(super) const MOST_REPLACED: usize = 8;

/// Who wants the configuration to be taken up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReloadTrigger {
    Signal,
    Watch,
    /// This operator.
    Admin(AdminActionSource),
}

/// What is to be done with a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReloadAct {
    Apply,
    /// Say what applying it would do. None: the file of the gateway.
    Plan(Option<PathBuf>),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct ReloadReport {
    pub hash_before: String,
    pub hash_after: String,
    pub changes: ConfigChanges,
    /// None: nobody waits for it.
    pub effects: Option<ReloadEffects>,
    pub warnings: Vec<String>,
}

/// What a configuration does to what is there.
#[derive(Clone, Debug)]
pub struct ReloadEffects {
    pub certificates: CertificateChanges,
    pub entries: EntryForecast,
    /// What new versions of key plugins make of the last requests.
    pub keys: KeyForecasts,
}

/// A configuration in which something is different that can't be changed while the gateway runs.
#[derive(Clone, Debug)]
pub struct NotLiveConfig {
    pub problems: Vec<ConfigProblem>,
    pub changes: ConfigChanges,
    /// What all of it would do to what is there. None: nobody waits for it, or it can't be known.
    pub effects: Option<ReloadEffects>,
}

impl ReloadReport {
    /// The answer to an operator who wanted this.
    pub fn json(&self, act: &ReloadAct) -> Value {
        json!({
            "applied": *act == ReloadAct::Apply,
            "hash_before": self.hash_before,
            "hash_after": self.hash_after,
            "changes": self.changes,
            "certificates": self.effects.as_ref().map(|effects| &effects.certificates),
            "entries": self.effects.as_ref().map(|effects| &effects.entries),
            "keys": self.effects.as_ref().map(|effects| &effects.keys),
            "warnings": self.warnings,
            "note": "variables have the values that they had when the process began",
        })
    }
}

/// Why a configuration was not taken up.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("another reload is under way")]
    Busy,
    #[error("the gateway ends")]
    Ending,
    #[error("another process has taken the place of this one")]
    Replaced,
    #[error("there is no configuration file: the gateway was started with --domain")]
    NoFile,
    #[error("the file must stand in the folder of the configuration file that is in use, or below")]
    Elsewhere,
    #[error(
        "{MOST_REPLACED} replaced configurations still have requests under way; try again later, or \
         shorten server.old_engine_max"
    )]
    TooManyOld,
    #[error("{0}")]
    Invalid(ConfigProblems),
    #[error("{}", .0.problems.iter().map(ConfigProblem::headline).collect::<Vec<_>>().join("; "))]
    NotLive(Box<NotLiveConfig>),
    #[error("{}", .0.headline())]
    Unusable(Box<ConfigProblem>),
    #[error("{0}")]
    Failed(String),
}

impl ReloadError {
    /// The word of the metric and of the answer.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Invalid(_) | Self::Unusable(_) | Self::Elsewhere => "invalid",
            Self::NotLive(_) => "not_live",
            Self::Ending | Self::Replaced | Self::NoFile | Self::TooManyOld | Self::Failed(_) => {
                "failed"
            }
        }
    }

    /// The answer to an operator.
    pub fn json(&self) -> Value {
        let message = match self {
            Self::Invalid(all) => {
                let first = all.iter().next().map(ConfigProblem::headline);
                first.unwrap_or_default()
            }
            other => other.to_string(),
        };
        let problems = self.problems().into_iter().map(|problem| {
            let (line, column) = problem.position.unzip();
            json!({
                "file": problem.file,
                "line": line,
                "column": column,
                "key": problem.path,
                "message": problem.message,
            })
        });
        let not_live = match self {
            Self::NotLive(config) => Some(config),
            _ => None,
        };
        let effects = not_live.and_then(|config| config.effects.as_ref());
        json!({
            "applied": false,
            "error": message,
            "problems": problems.collect::<Vec<_>>(),
            "changes": not_live.map(|config| &config.changes),
            "certificates": effects.map(|effects| &effects.certificates),
            "entries": effects.map(|effects| &effects.entries),
            "keys": effects.map(|effects| &effects.keys),
        })
    }

    /// What is wrong with the file, as far as it is.
    pub fn problems(&self) -> Vec<&ConfigProblem> {
        match self {
            Self::Invalid(problems) => problems.iter().collect(),
            Self::NotLive(config) => config.problems.iter().collect(),
            Self::Unusable(problem) => vec![problem],
            _ => Vec::new(),
        }
    }
}

/// Shows keys that can't be changed where they stand.
pub(super) fn located(file: &Path, changes: Vec<FixedKeyChange>) -> Vec<ConfigProblem> {
    let shown = changes
        .into_iter()
        .map(|change| config::problem_at(file, &change.key, change.message()));
    shown.collect()
}

pub(super) fn unusable(file: &Path, error: GatewayStartError) -> ReloadError {
    match error.key_and_cause().or_else(|| named_place(&error)) {
        Some((key, message)) => {
            ReloadError::Unusable(Box::new(config::problem_at(file, &key, message)))
        }
        None => ReloadError::Failed(with_causes(&error)),
    }
}

/// The key of what the error names, and what is wrong with it, if the configuration is the cause.
fn named_place(error: &GatewayStartError) -> Option<(String, String)> {
    let file_of = |plugin: &str| format!("plugins.{plugin}.file");
    match error {
        GatewayStartError::Plugin(fault) => Some((file_of(&fault.plugin), with_causes(fault))),
        GatewayStartError::Route(lacks @ RouteError::NoHook { source, .. }) => {
            Some((file_of(&source.plugin), with_causes(lacks)))
        }
        GatewayStartError::Upstream(fault) => {
            let key = format!("upstreams.{}", fault.upstream());
            Some((key, with_causes(fault)))
        }
        other if other.is_configuration() => Some((String::new(), with_causes(other))),
        _ => None,
    }
}

pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
