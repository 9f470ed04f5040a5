//! The table of names, in Markdown, and what is demanded of Lamina in it.

use std::fmt::Write as _;
use std::time::Duration;

use super::peers::heading;
use super::tally::{NameTally, milliseconds};
use super::{MOST_DELAY, WORD};
use crate::report::MeasuredProxy;
use crate::rounds::MeasuredRounds;

/// All rounds of one subject.
pub struct NameRow {
    pub subject: MeasuredProxy,
    pub rounds: MeasuredRounds<NameTally>,
}

const HEADING: &str = "\n| a name that changes | new address used after | old last used after | failed while NXDOMAIN, later, before | normal after |\n|---|---|---|---|---|\n";

/// The table with an empty line before and after it.
pub fn table(rows: &[NameRow]) -> String {
    let mut text = HEADING.to_owned();
    for row in rows {
        let _ = writeln!(text, "| {} | {} |", heading(row.subject), row.figures());
    }
    let delay = milliseconds(MOST_DELAY);
    let _ = writeln!(
        text,
        "| *demanded of lamina* | ≤ {delay} | – | 0, 0, 0 | ≤ {delay} |\n"
    );
    let tallies = rows.iter().flat_map(|row| &row.rounds.tallies);
    let late = tallies.map(|tally| tally.late).max();
    let late = late.unwrap_or(Duration::ZERO).as_millis();
    let _ = writeln!(text, "Noise: the client was {late} ms late at most.");
    text
}

/// What Lamina did not keep to.
pub fn broken_demands(rows: &[NameRow]) -> Vec<String> {
    let lamina = rows
        .iter()
        .filter(|row| row.subject == MeasuredProxy::Lamina);
    lamina.flat_map(NameRow::broken_demands).collect()
}

impl NameRow {
    /// Four cells; one that says why there are none.
    fn figures(&self) -> String {
        let rounds = &self.rounds;
        if rounds.tallies.is_empty() {
            return format!("{} | | |", rounds.why_none());
        }
        let count = |count: u64| count.to_string();
        format!(
            "{} | {} | {} of {}, {}, {} | {}",
            rounds.spread(|tally| tally.new_used, milliseconds),
            rounds.spread(|tally| tally.old_last_used, milliseconds),
            rounds.spread(|tally| tally.failed[1], count),
            rounds.spread(|tally| tally.gone, count),
            rounds.spread(|tally| tally.failed[2], count),
            rounds.spread(|tally| tally.failed[0], count),
            rounds.spread(|tally| tally.normal, milliseconds),
        )
    }

    fn broken_demands(&self) -> Vec<String> {
        let problem = self.rounds.problem.iter();
        let mut broken: Vec<_> = problem.map(|why| format!("{WORD}: {why}")).collect();
        for tally in &self.rounds.tallies {
            let changes = [
                ("the new address is used", tally.new_used),
                ("the old one is used again", tally.normal),
            ];
            for (what, seen) in changes.into_iter().filter(|(_, seen)| *seen > MOST_DELAY) {
                let (seen, most) = (milliseconds(seen), milliseconds(MOST_DELAY));
                broken.push(format!("{WORD}: {what} after {seen}, {most} are allowed"));
            }
            let failed: u64 = tally.failed.iter().sum();
            if failed > 0 {
                broken.push(format!("{WORD}: {failed} failed, 0 are allowed"));
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::NEVER;
    use super::*;
    use crate::peers::{Peer, PeerTuning};

    fn row(subject: MeasuredProxy, new_used: &[Duration], failed: [u64; 3]) -> NameRow {
        let tally = |new_used: &Duration| NameTally {
            new_used: *new_used,
            failed,
            gone: 400,
            normal: *new_used,
            ..NameTally::default()
        };
        let rounds = MeasuredRounds {
            tallies: new_used.iter().map(tally).collect(),
            problem: None,
        };
        NameRow { subject, rounds }
    }

    #[test]
    fn a_row_has_times_and_what_failed() {
        let times = [Duration::from_millis(870), NEVER];
        let text = table(&[row(MeasuredProxy::Lamina, &times, [1, 2, 3])]);
        let line =
            "| **lamina**, `floor: 1s` | 870 ms–never | 0 ms | 2 of 400, 3, 1 | 870 ms–never |";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn lamina_must_follow_in_time_and_fail_nothing() {
        let late = MOST_DELAY + Duration::from_millis(10);
        let peer = MeasuredProxy::Peer(Peer::Envoy, PeerTuning::Default);
        let kept = [
            row(MeasuredProxy::Lamina, &[MOST_DELAY], [0; 3]),
            row(peer, &[NEVER], [1; 3]),
        ];
        assert_eq!(broken_demands(&kept), [""; 0]);
        let broken = broken_demands(&[row(MeasuredProxy::Lamina, &[late], [0, 0, 1])]);
        let named = [
            "names: the new address is used after 2010 ms, 2000 ms are allowed",
            "names: the old one is used again after 2010 ms, 2000 ms are allowed",
            "names: 1 failed, 0 are allowed",
        ];
        assert_eq!(broken, named);
        let mut none = row(MeasuredProxy::Lamina, &[], [0; 3]);
        none.rounds.problem = Some("it does not start".to_owned());
        assert_eq!(broken_demands(&[none]), ["names: it does not start"]);
    }
}
