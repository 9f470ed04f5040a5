//! Collects what is wrong with a configuration, up to a bound: [`FindingCollector`].

use std::collections::BTreeMap;

use crate::config::problem::{ConfigFinding, ConfigPath, MAX_FINDINGS, nearest, one_of};

/// Collects findings.
#[derive(Default)]
pub(super) struct FindingCollector {
    pub(super) findings: Vec<ConfigFinding>,
}

impl FindingCollector {
    pub(super) fn add(&mut self, at: ConfigPath, message: impl Into<String>) {
        self.push(ConfigFinding::value(at, message));
    }

    /// Adds a finding about the key `below` of a section. Dots in it lead into further sections.
    pub(super) fn add_below(&mut self, section: ConfigPath, below: &str, message: String) {
        let at = below.split('.').fold(section, |at, key| at.key(key));
        self.add(at, message);
    }

    pub(super) fn add_near(&mut self, at: ConfigPath, message: String, near: Option<&str>) {
        self.push(ConfigFinding::value(at, message).near(near));
    }

    pub(super) fn push(&mut self, finding: ConfigFinding) {
        if !self.is_full() {
            self.findings.push(finding);
        }
    }

    /// Whether there are so many findings that no more need to be looked for.
    pub(super) fn is_full(&self) -> bool {
        self.findings.len() >= MAX_FINDINGS
    }

    pub(super) fn form(&mut self, at: &ConfigPath, checked: Result<(), String>) {
        if let Err(message) = checked {
            self.add(at.clone(), message);
        }
    }

    pub(super) fn form_of_key(&mut self, at: &ConfigPath, checked: Result<(), String>) {
        if let Err(message) = checked {
            self.push(ConfigFinding::key(at.clone(), message));
        }
    }

    pub(super) fn each(
        &mut self,
        at: &ConfigPath,
        texts: &[String],
        check: impl Fn(&str) -> Result<(), String>,
    ) {
        for (n, text) in texts.iter().enumerate() {
            self.form(&at.index(n), check(text));
        }
    }

    /// Checks that `name` is a key of `all`.
    pub(super) fn known<T>(
        &mut self,
        at: ConfigPath,
        kind: &str,
        name: &str,
        all: &BTreeMap<String, T>,
    ) {
        if all.contains_key(name) || self.is_full() {
            return;
        }
        let names: Vec<&String> = all.keys().collect();
        let expected = if names.is_empty() {
            format!("but `{kind}s` defines none")
        } else {
            format!("expected {}", one_of(&names))
        };
        self.add_near(
            at,
            format!("no {kind} is named `{name}`; {expected}"),
            nearest(name, &names),
        );
    }

    pub(super) fn positive(&mut self, at: ConfigPath, n: u64) {
        if n == 0 {
            self.add(at, "0 would allow nothing; expected 1 or more");
        }
    }
}
