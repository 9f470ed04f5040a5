//! The joined tree of all files of a configuration, and what is made of it: [`ConfigDocument`].

use std::path::{Path, PathBuf};

use super::problem::{ConfigFinding, ConfigProblem, ConfigProblems, path};
use super::sources::{self, ConfigSources};
use super::text_file::{TOO_LARGE, is_pipe, read_text, without_mark};
use super::{
    GatewayConfig, MAX_BYTES, answer_files, check, de, expand, include, parser, secret,
    tls_contents, tree, warnings,
};

use crate::admin::config::AdminConfig;

/// The joined tree of all files of a configuration.
pub(super) struct ConfigDocument {
    pub(super) sources: ConfigSources,
    pub(super) root: tree::YamlNode,
    /// What is risky about the files.
    warnings: Vec<ConfigFinding>,
}

impl ConfigDocument {
    /// Reads the main file's text, and the files that it includes.
    pub(super) fn read(
        text: &str,
        file: &str,
        env: expand::VariableLookup<'_>,
    ) -> Result<Self, ConfigProblems> {
        let text = without_mark(text);
        let mut sources = ConfigSources::new(file, text);
        let one = |finding: ConfigFinding, root: Option<&tree::YamlNode>| {
            ConfigProblems::one(finding.locate(&ConfigSources::new(file, text), root))
        };
        if text.len() > MAX_BYTES {
            return Err(one(ConfigFinding::file(TOO_LARGE), None));
        }
        let mut budget = parser::AliasBudget::default();
        let mut root = parser::parse_source(text, sources::MAIN, &mut budget)
            .map_err(|finding| one(finding, None))?;
        shape(&root).map_err(|finding| one(finding, Some(&root)))?;
        let found = include::join(&mut root, &mut sources, &mut budget, env);
        let document = Self {
            sources,
            root,
            warnings: found.warnings,
        };
        document.refuse(found.errors)?;
        Ok(document)
    }

    /// Replaces variables.
    pub(super) fn expand(&mut self, env: expand::VariableLookup<'_>) -> Result<(), ConfigProblems> {
        let findings = expand::expand(&mut self.root, env);
        self.refuse(findings)
    }

    /// The typed configuration, which is not checked yet.
    pub(super) fn typed(&self) -> Result<GatewayConfig, ConfigProblems> {
        let typed = de::read(&self.root);
        typed
            .map_err(|finding| ConfigProblems::one(finding.locate(&self.sources, Some(&self.root))))
    }

    /// The typed configuration with its secrets, checked; the files that it names are relative to the
    /// folder of the main file.
    pub(super) fn checked(
        &self,
        mut config: GatewayConfig,
    ) -> Result<GatewayConfig, ConfigProblems> {
        let main = Path::new(self.sources.name(sources::MAIN));
        let base = main.parent().unwrap_or(Path::new(""));
        let mut findings = secret::read_files(&mut config, base);
        findings.extend(answer_files::read(&mut config, base));
        // It is written, and looks itself at what stands there.
        let hot_keys = config.cache.warm.as_ref().map(|warm| warm.file.clone());
        for file in config.files() {
            let is_read = hot_keys.as_ref() != Some(&*file);
            *file = base.join(&*file);
            if is_read && is_pipe(file) {
                let message = format!("{} is a pipe; expected a regular file", file.display());
                findings.push(ConfigFinding::file(message));
            }
        }
        findings.extend(check::check(&config));
        self.refuse(findings)?;
        tls_contents::note(&mut config);
        let risks = self.warnings.iter().cloned();
        let risks = risks.chain(warnings::warnings(&config)).collect();
        config.warnings = self.located(risks);
        config.files_read = self.sources.names().map(PathBuf::from).collect();
        Ok(config)
    }

    /// An error of all of these, if there are any.
    fn refuse(&self, findings: Vec<ConfigFinding>) -> Result<(), ConfigProblems> {
        ConfigProblems::new(self.located(findings)).map_or(Ok(()), Err)
    }

    pub(super) fn located(&self, findings: Vec<ConfigFinding>) -> Vec<ConfigProblem> {
        located(findings, &self.sources, &self.root)
    }
}

/// Shows findings where they stand in the file.
pub(super) fn located(
    findings: Vec<ConfigFinding>,
    sources: &ConfigSources,
    root: &tree::YamlNode,
) -> Vec<ConfigProblem> {
    let more = findings.len().saturating_sub(MOST_SHOWN);
    let more = (more > 0).then(|| ConfigFinding::file(format!("{more} more are not shown")));
    let shown = findings.into_iter().take(MOST_SHOWN).chain(more);
    shown.map(|f| f.locate(sources, Some(root))).collect()
}

/// The most problems, or warnings, of one file that are listed one by one.
const MOST_SHOWN: usize = 100;

/// Checks what everything else depends on: the file is a mapping, and its version is known.
fn shape(root: &tree::YamlNode) -> Result<(), ConfigFinding> {
    match &root.body {
        tree::YamlValue::Map(_) => {}
        tree::YamlValue::Scalar(scalar) if scalar.text.is_empty() => {
            return Err(ConfigFinding::file(parser::EMPTY));
        }
        _ => {
            return Err(ConfigFinding::at(
                root.at,
                "not a mapping; expected `version: 1` and further keys",
            ));
        }
    }
    match root.get("version").map(|node| &node.body) {
        Some(tree::YamlValue::Scalar(scalar)) if scalar.text.parse().is_ok_and(|n: u64| n != 1) => {
            let message = format!(
                "version {} of the format is not known; expected 1",
                scalar.text
            );
            Err(ConfigFinding::value(path(&["version"]), message))
        }
        _ => Ok(()),
    }
}

/// The admin listener, as to its address, that a file names of which other parts are wrong: a gateway
/// goes on by what it has taken up before, and whoever asks for its health must still find it. None:
/// it can't be told, also where an included file might name it.
pub fn admin_of_broken(file: &Path) -> Option<AdminConfig> {
    let (_, text) = read_text(file).ok()?;
    let mut budget = parser::AliasBudget::default();
    let mut root = parser::parse_source(&text, sources::MAIN, &mut budget).ok()?;
    shape(&root).ok()?;
    // What is wrong is elsewhere, or the address is none.
    let _ = expand::expand(&mut root, &|variable| std::env::var(variable).ok());
    let address = root.get("admin").and_then(|admin| admin.get("address"));
    let mut admin = AdminConfig::default();
    match address.map(|node| &node.body) {
        Some(tree::YamlValue::Scalar(scalar)) => admin.address = scalar.text.parse().ok()?,
        Some(_) => return None,
        None if root.get(include::INCLUDE).is_some() => return None,
        None => {}
    }
    Some(admin)
}
