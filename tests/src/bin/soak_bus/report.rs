//! What was seen of one transport, as Markdown, and which claims failed.

use crate::broker::TransportKind;
use crate::faults::FaultOutcome;
use crate::flood::FloodOutcome;
use crate::purges::{PipelinedTimes, ReceiptTimes};
use crate::readers::ReadTally;
use crate::truth::BOUND;

/// One transport's run.
pub struct TransportReport {
    pub kind: TransportKind,
    pub receipts: ReceiptTimes,
    pub receipts_read: ReadTally,
    pub pipelined: PipelinedTimes,
    pub faults: Vec<FaultOutcome>,
    pub flood: Option<FloodOutcome>,
    /// Pages of all nodes, and those that were not the newest at the end.
    pub shown: (usize, usize),
    pub read: ReadTally,
    /// Resident bytes of each node once all knew each other, and at the end.
    pub memory: [Vec<u64>; 2],
    pub reads_a_second: f64,
}

/// A flood may cost so much of the hit ratio, in percent: it is noise.
const HITS: f64 = 3.0;
/// What the node that takes most may take more at the end than in the first half, in MiB: what
/// is on its way has room in every node, which is found early; nothing stays.
const GROWTH: u64 = 16;

impl TransportReport {
    /// What was claimed and does not hold.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut claim = |holds: bool, what: String| {
            if !holds {
                failures.push(format!("{}: {what}", self.kind.name()));
            }
        };
        let read = &self.read;
        claim(read.stale == 0, format!("{} stale answers", read.stale));
        claim(read.failed == 0, format!("{} failed reads", read.failed));
        let incomplete = self.receipts.incomplete;
        claim(incomplete == 0, format!("{incomplete} incomplete receipts"));
        claim(
            self.pipelined.applied.is_some(),
            "not all purges came to all nodes".to_owned(),
        );
        claim(
            self.shown.1 == 0,
            format!("{} old pages at the end", self.shown.1),
        );
        for fault in &self.faults {
            claim(
                fault.arrived,
                format!("{}: not all purges arrived", fault.name),
            );
        }
        if let Some(flood) = &self.flood {
            claim(flood.is_counted(), "the flood was not counted".to_owned());
            claim(
                flood.gaps == 0.0,
                format!("{} gaps by the flood", flood.gaps),
            );
            let lost = flood.before.hit_ratio() - flood.during.hit_ratio();
            claim(
                lost < HITS,
                format!("the flood took {lost:.1} % of the hits"),
            );
            let most = flood.most();
            let (first, second) = most.split_at(most.len() / 2 + 1);
            let grown = second.last().zip(first.iter().max());
            let grown = grown.map_or(0, |(last, peak)| last.saturating_sub(*peak));
            claim(grown < GROWTH, format!("it took {most:?} MiB"));
        }
        failures
    }
}

/// All tables.
pub fn text(reports: &[TransportReport]) -> String {
    let mut text = format!(
        "Stale: older than a receipt, or than a purge without one {BOUND:?} after it was taken.\n\n\
         | transport | purges awaited on all | p50 ms | p99 | max | incomplete | purges not awaited | taken in s | on all nodes in s | a second | reads a second | hits | stale | old at the end | MiB a node |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    );
    for report in reports {
        text.push_str(&converged(report));
    }
    if reports.iter().any(|report| !report.faults.is_empty()) {
        text.push_str(
            "\n| transport | fault | purges meanwhile | whole again after s | all came | reads | stale |\n\
             |---|---|---|---|---|---|---|\n",
        );
    }
    for (report, fault) in reports
        .iter()
        .flat_map(|r| r.faults.iter().map(move |f| (r, f)))
    {
        text.push_str(&format!(
            "| {} | {} | {} | {:.1} | {} | {} | {} |\n",
            report.kind.name(),
            fault.name,
            fault.purges,
            fault.whole_after.as_secs_f64(),
            if fault.arrived { "yes" } else { "NO" },
            fault.read.reads,
            fault.read.stale,
        ));
    }
    if reports.iter().any(|report| report.flood.is_some()) {
        text.push_str(
            "\n| transport | no events | of others | counted by all nodes as such | s | hits before | hits during | gaps | MiB of the largest node before, after each tenth |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
    }
    for (report, flood) in reports.iter().filter_map(|r| Some((r, r.flood.as_ref()?))) {
        text.push_str(&format!(
            "| {} | {} | {} | {}, {} | {:.1} | {:.1} % | {:.1} % | {} | {} |\n",
            report.kind.name(),
            flood.malformed,
            flood.foreign,
            flood.counted_malformed,
            flood.counted_foreign,
            flood.took.as_secs_f64(),
            flood.before.hit_ratio(),
            flood.during.hit_ratio(),
            flood.gaps,
            flood
                .most()
                .iter()
                .map(u64::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        ));
    }
    text
}

fn converged(report: &TransportReport) -> String {
    let (receipts, pipelined) = (&report.receipts, &report.pipelined);
    let applied = pipelined
        .applied
        .map_or(f64::NAN, |span| span.as_secs_f64());
    let mib = |memory: &[u64]| {
        let most = memory.iter().max().copied().unwrap_or_default();
        most >> 20
    };
    format!(
        "| {} | {} | {:.1} | {:.1} | {:.1} | {} | {} | {:.1} | {applied:.1} | {:.0} | {:.0} | {:.1} % | {} | {} of {} | {} → {} |\n",
        report.kind.name(),
        receipts.last_node.len(),
        receipts.quantile(0.5),
        receipts.quantile(0.99),
        receipts.quantile(1.0),
        receipts.incomplete,
        pipelined.purges,
        pipelined.taken.as_secs_f64(),
        pipelined.rate(),
        report.reads_a_second,
        report.receipts_read.hit_ratio(),
        report.read.stale,
        report.shown.1,
        report.shown.0,
        mib(&report.memory[0]),
        mib(&report.memory[1]),
    )
}
