//! The tables, in Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use crate::fault::TargetFault;
use crate::names;
use crate::names::report::NameRow;
use crate::peers::{Peer, PeerTuning};
use crate::rounds::MeasuredRounds;
use crate::tally::ExchangeTally;

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeasuredProxy {
    Lamina,
    Peer(Peer, PeerTuning),
}

impl MeasuredProxy {
    /// On the command line.
    pub fn name(self) -> String {
        match self {
            Self::Lamina => "lamina".to_owned(),
            Self::Peer(peer, PeerTuning::Default) => peer.name().to_owned(),
            Self::Peer(peer, PeerTuning::Tuned) => format!("{}-tuned", peer.name()),
        }
    }

    fn heading(self) -> String {
        match self {
            Self::Lamina => "**lamina, default**".to_owned(),
            Self::Peer(peer, PeerTuning::Default) => format!("{}, default", peer.name()),
            Self::Peer(peer, PeerTuning::Tuned) => format!("{}, tuned", peer.name()),
        }
    }
}

/// All rounds of one subject with one fault.
pub struct FaultCell {
    pub fault: TargetFault,
    pub rounds: MeasuredRounds<ExchangeTally>,
}

impl FaultCell {
    fn text(&self) -> String {
        if self.rounds.tallies.is_empty() {
            return self.rounds.why_none();
        }
        let [failed, slow, twice] = [
            self.spread(|tally| tally.failed),
            self.spread(|tally| tally.slow),
            self.spread(|tally| tally.twice),
        ];
        match self.fault {
            TargetFault::PostReset => format!("{failed} / {twice}"),
            _ => format!("{failed} ({slow})"),
        }
    }

    fn spread(&self, count: fn(&ExchangeTally) -> u64) -> String {
        self.rounds.spread(count, |count| count.to_string())
    }

    /// What a round had more of than Lamina may have.
    fn broken_demands(&self) -> Vec<String> {
        let [failed, slow, twice] = self.fault.demands();
        let limits = [
            (
                "failed",
                failed,
                (|tally| tally.failed) as fn(&ExchangeTally) -> u64,
            ),
            ("slow", slow, |tally| tally.slow),
            ("twice", twice, |tally| tally.twice),
        ];
        let mut broken = Vec::new();
        for (what, limit, count) in limits {
            let most = self
                .rounds
                .tallies
                .iter()
                .map(count)
                .max()
                .unwrap_or_default();
            if let Some(limit) = limit.filter(|limit| most > *limit) {
                let word = self.fault.word();
                broken.push(format!("{word}: {most} {what}, {limit} are allowed"));
            }
        }
        broken
    }
}

/// What is demanded of Lamina by itself, and what was seen.
pub struct LaminaTrial {
    pub what: String,
    pub seen: String,
    pub demand: String,
    pub kept: bool,
}

/// Everything that was measured.
#[derive(Default)]
pub struct FaultBenchReport {
    pub versions: Vec<String>,
    pub rows: Vec<(MeasuredProxy, Vec<FaultCell>)>,
    pub names: Vec<NameRow>,
    pub trials: Vec<LaminaTrial>,
}

impl FaultBenchReport {
    pub fn text(&self) -> String {
        let mut text = format!("Versions: {}.\n", self.versions.join(", "));
        if !self.rows.is_empty() {
            self.write_faults(&mut text);
        }
        if !self.names.is_empty() {
            text.push_str(&names::report::table(&self.names));
        }
        if !self.trials.is_empty() {
            text.push_str("\n| Lamina alone | seen | demanded |\n|---|---|---|\n");
        }
        for LaminaTrial {
            what, seen, demand, ..
        } in &self.trials
        {
            let _ = writeln!(text, "| {what} | {seen} | {demand} |");
        }
        text
    }

    fn write_faults(&self, text: &mut String) {
        let faults = self.rows.first().map(|(_, cells)| cells.iter());
        let faults: Vec<TargetFault> = faults
            .into_iter()
            .flatten()
            .map(|cell| cell.fault)
            .collect();
        let headings: Vec<_> = faults.iter().map(|fault| fault.heading()).collect();
        let _ = writeln!(text, "\n| failed (slow) | {} |", headings.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(faults.len()));
        for (subject, cells) in &self.rows {
            let cells: Vec<_> = cells.iter().map(FaultCell::text).collect();
            let _ = writeln!(text, "| {} | {} |", subject.heading(), cells.join(" | "));
        }
        let demands: Vec<_> = faults.iter().map(|fault| demand(*fault)).collect();
        let _ = writeln!(text, "| *demanded of lamina* | {} |\n", demands.join(" | "));
        let _ = writeln!(text, "{}", self.noise());
    }

    fn noise(&self) -> String {
        let cells = self.rows.iter().flat_map(|(_, cells)| cells);
        let tallies: Vec<_> = cells.flat_map(|cell| &cell.rounds.tallies).collect();
        let noise: u64 = tallies.iter().map(|tally| tally.noise).sum();
        let late = tallies.iter().map(|tally| tally.late).max();
        let late = late.unwrap_or(Duration::ZERO);
        format!(
            "Noise: in {} runs {noise} requests were slow or failed before the fault; the client was {} ms late at most.",
            tallies.len(),
            late.as_millis()
        )
    }

    /// What Lamina did not keep to.
    pub fn broken_demands(&self) -> Vec<String> {
        let lamina = self
            .rows
            .iter()
            .filter(|(subject, _)| *subject == MeasuredProxy::Lamina);
        let cells = lamina.flat_map(|(_, cells)| cells);
        let mut broken: Vec<_> = cells.flat_map(FaultCell::broken_demands).collect();
        broken.extend(names::report::broken_demands(&self.names));
        for LaminaTrial {
            what, seen, demand, ..
        } in self.trials.iter().filter(|trial| !trial.kept)
        {
            broken.push(format!("{what}: {seen} where {demand} is demanded"));
        }
        broken
    }
}

fn demand(fault: TargetFault) -> String {
    let limit = |limit: Option<u64>| match limit {
        None => "–".to_owned(),
        Some(0) => "0".to_owned(),
        Some(most) => format!("≤ {most}"),
    };
    let [failed, slow, twice] = fault.demands().map(limit);
    match fault {
        TargetFault::PostReset => format!("{failed} / {twice}"),
        _ => format!("{failed} ({slow})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(fault: TargetFault, counts: &[[u64; 3]]) -> FaultBenchReport {
        let tally = |[failed, slow, twice]: &[u64; 3]| ExchangeTally {
            failed: *failed,
            slow: *slow,
            twice: *twice,
            ..ExchangeTally::default()
        };
        let rounds = MeasuredRounds {
            tallies: counts.iter().map(tally).collect(),
            problem: None,
        };
        let cell = FaultCell { fault, rounds };
        FaultBenchReport {
            rows: vec![(MeasuredProxy::Lamina, vec![cell])],
            ..FaultBenchReport::default()
        }
    }

    #[test]
    fn a_cell_has_one_number_or_the_least_and_the_most_of_its_rounds() {
        let text = report(TargetFault::Hangs, &[[0, 5, 9], [0, 2, 9]]).text();
        assert!(text.contains("| **lamina, default** | 0 (2–5) |"), "{text}");
        assert!(
            text.contains("| *demanded of lamina* | 0 (≤ 5) |"),
            "{text}"
        );
        let text = report(TargetFault::PostReset, &[[1, 5, 0]]).text();
        assert!(text.contains("| **lamina, default** | 1 / 0 |"), "{text}");
    }

    #[test]
    fn what_is_not_kept_to_in_one_round_is_named() {
        let kept = [
            (TargetFault::Hangs, [0, 5, 9]),
            (TargetFault::PostReset, [9, 9, 0]),
        ];
        for (fault, counts) in kept {
            assert_eq!(report(fault, &[counts]).broken_demands(), [""; 0]);
        }
        let broken = report(TargetFault::Hangs, &[[0, 5, 0], [1, 6, 0]]).broken_demands();
        let named = [
            "hangs: 1 failed, 0 are allowed",
            "hangs: 6 slow, 5 are allowed",
        ];
        assert_eq!(broken, named);
    }
}
