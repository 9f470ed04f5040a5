//! The checked-in table of explained differences.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context;
use serde::Deserialize;

/// One explained difference; a rule of the same name tells which cases it is about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainedDifference {
    /// What is asked and answered.
    pub behaviour: String,
    pub ours: String,
    pub theirs: String,
    pub rfc: String,
    pub why: String,
}

/// Explanations by the names of their rules.
pub type ExplanationTable = BTreeMap<String, ExplainedDifference>;

const FILE: &str = "tests/differential/differences.yaml";

pub fn read() -> anyhow::Result<ExplanationTable> {
    let path = e2e::cli::repository().join(FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {FILE}"))?;
    serde_yaml::from_str(&text).with_context(|| FILE.to_owned())
}

impl fmt::Display for ExplainedDifference {
    /// As cells of a Markdown table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            behaviour,
            ours,
            theirs,
            rfc,
            why,
        } = self;
        write!(f, "{behaviour} | {ours} | {theirs} | {rfc} | {why}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rules;
    use crate::servers::PeerCache;

    #[test]
    fn each_rule_is_explained_and_each_explanation_has_a_rule() {
        let table = read().expect("the table is in the repository");
        let explained: BTreeSet<&str> = table.keys().map(String::as_str).collect();
        let rules = PeerCache::ALL.into_iter().flat_map(rules::of);
        let ruled: BTreeSet<&str> = rules.map(|rule| rule.id).collect();
        assert_eq!(explained, ruled);
        for (id, explanation) in &table {
            assert!(explanation.rfc.starts_with("RFC "), "{id}");
        }
    }
}
