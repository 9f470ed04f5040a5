//! What was seen, in Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use e2e::metrics::Scrape;

/// What a run found.
#[derive(Default)]
pub struct SoakReport {
    pub swaps: u64,
    /// Time since the start, and resident bytes of the gateway then.
    pub memory: Vec<(Duration, u64)>,
    /// Name, right, wrong and failed of each route.
    pub routes: Vec<(&'static str, u64, u64, u64)>,
    pub scrape: Scrape,
}

const MIB: f64 = 1_048_576.0;
/// Columns of the longest bar.
const WIDTH: f64 = 50.0;
/// What memory may grow by in the second half, as a share and in bytes: compiled code of
/// versions that are gone is given back late.
const GROWTH: f64 = 1.1;
const SLACK: f64 = 16.0 * MIB;
/// A shorter run shows no trend.
const WARM: Duration = Duration::from_secs(300);

impl SoakReport {
    /// What must not have been.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, _, wrong, failed) in &self.routes {
            if wrong + failed > 0 {
                faults.push(format!("{name}: {wrong} wrong answers, {failed} failed"));
            }
        }
        let (before, after) = self.halves();
        let long = self.memory.last().is_some_and(|(at, _)| *at >= WARM);
        if long && after > before * GROWTH + SLACK {
            let (before, after) = (before / MIB, after / MIB);
            faults.push(format!("memory grew from {before:.0} to {after:.0} MiB"));
        }
        faults
    }

    /// The most of the second quarter, and of the last one.
    fn halves(&self) -> (f64, f64) {
        let quarter = self.memory.len() / 4;
        let most = |part: &[(Duration, u64)]| {
            part.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0) as f64
        };
        let second = self.memory.get(quarter..2 * quarter).unwrap_or_default();
        let last = self.memory.get(3 * quarter..).unwrap_or_default();
        (most(second), most(last))
    }

    /// The tables.
    pub fn text(&self) -> String {
        let mut text = String::from("### Plugins of all languages under load\n\n");
        let _ = writeln!(
            text,
            "New files: {}, calls that trapped: {}.\n",
            self.swaps,
            self.traps()
        );
        text.push_str("| plugin | right | wrong | failed | calls | instances at the end |\n|---|---|---|---|---|---|\n");
        for (name, right, wrong, failed) in &self.routes {
            let of = |metric| self.scrape.sum(metric, &[("plugin", name)]);
            let (calls, instances) = (
                of("lamina_plugin_calls_total"),
                of("lamina_plugin_instances"),
            );
            let _ = writeln!(
                text,
                "| {name} | {right} | {wrong} | {failed} | {calls} | {instances} |"
            );
        }
        text.push_str(&self.plot());
        text
    }

    /// Memory over time, a line a look.
    fn plot(&self) -> String {
        let most = self.memory.iter().map(|(_, bytes)| *bytes).max();
        let most = most.unwrap_or(1) as f64;
        let mut text = String::from("\nResident memory of the gateway:\n\n```text\n");
        for (at, bytes) in &self.memory {
            let (seconds, bytes) = (at.as_secs_f64(), *bytes as f64);
            let bar = "█".repeat((bytes / most * WIDTH).round() as usize);
            let _ = writeln!(text, "{seconds:>5.0} s {:>5.0} MiB {bar}", bytes / MIB);
        }
        text.push_str("```\n");
        text
    }

    fn traps(&self) -> f64 {
        let labels = [("plugin", "trap"), ("outcome", "trap")];
        self.scrape.sum("lamina_plugin_calls_total", &labels)
    }
}
