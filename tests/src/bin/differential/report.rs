//! What came out: classes and their counts, and each unexplained difference at its smallest.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::compare::{ComparedCase, DifferenceLikeness, cases};
use crate::rules;
use crate::run::PlayedSequence;
use crate::servers::PeerCache;
use crate::table::ExplanationTable;

/// Counts of a run.
#[derive(Default)]
pub struct DifferentialReport {
    pub sequences: usize,
    pub slow: usize,
    /// Steps compared, by peer.
    compared: BTreeMap<PeerCache, usize>,
    explained: BTreeMap<&'static str, usize>,
    /// Each with the number of the played sequence.
    pub unexplained: Vec<(DifferenceLikeness, usize)>,
}

impl DifferentialReport {
    pub fn of(all: &[PlayedSequence]) -> Self {
        let mut report = Self {
            sequences: all.len(),
            ..Self::default()
        };
        for (number, played) in all.iter().enumerate() {
            if played.slow {
                report.slow += 1;
                continue;
            }
            for peer in PeerCache::ALL {
                let (found, compared) = cases(played, peer);
                *report.compared.entry(peer).or_default() += compared;
                found.iter().for_each(|case| report.count(case, number));
            }
        }
        report
    }

    fn count(&mut self, case: &ComparedCase<'_>, number: usize) {
        match rules::explaining(case) {
            Some(rule) => *self.explained.entry(rule.id).or_default() += 1,
            None => self.unexplained.push((case.likeness(), number)),
        }
    }

    /// Markdown: what was compared, and each class with its explanation.
    pub fn text(&self, table: &ExplanationTable) -> String {
        let mut text = format!(
            "{} sequences, {} left out because the machine was slow\n\n",
            self.sequences, self.slow
        );
        for (peer, steps) in &self.compared {
            let _ = writeln!(text, "- {}: {steps} requests compared", peer.name());
        }
        text.push_str("\n| class | times | behaviour | ours | theirs | RFC | why |\n|---|---|---|---|---|---|---|\n");
        for rule in PeerCache::ALL.into_iter().flat_map(rules::of) {
            let times = self.explained.get(rule.id).unwrap_or(&0);
            if let Some(known) = table.get(rule.id) {
                let _ = writeln!(text, "| {} | {times} | {known} |", rule.id);
            }
        }
        text
    }
}

/// A sequence step by step, with what each server made of it.
pub fn steps(played: &PlayedSequence) -> String {
    let mut text = String::new();
    for (at, step) in played.sequence.steps.iter().enumerate() {
        let _ = writeln!(text, "  {}. {step}", at + 1);
        for (name, seen) in ["lamina", "nginx", "varnish"].iter().zip(&played.seen) {
            let _ = writeln!(text, "       {name:8} {}", seen[at]);
        }
    }
    text
}
