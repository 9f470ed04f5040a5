//! What was seen, in Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use e2e::metrics::Scrape;

use crate::neighbours::LOOPERS;
use crate::plain::RequestTimes;

/// All that a run found: the plain route's times by what was beside it, a round each.
#[derive(Default)]
pub struct SoakReport {
    pub alone: Vec<RequestTimes>,
    pub harmless: Vec<RequestTimes>,
    pub traps: Vec<RequestTimes>,
    pub loops: Vec<RequestTimes>,
    /// Traps so far, and the gateway's resident bytes then.
    pub memory: Vec<(u64, u64)>,
    /// Traps whose request had another status than it should.
    pub odd: u64,
    /// The metrics at the end.
    pub scrape: Scrape,
}

impl SoakReport {
    /// Failures of the plain route.
    pub fn failures(&self) -> u64 {
        let all = [&self.alone, &self.harmless, &self.traps, &self.loops];
        all.into_iter().flatten().map(|round| round.failures).sum()
    }

    /// The tables.
    pub fn text(&self) -> String {
        let mut text = format!(
            "### Bad plugins beside a plain route\n\n{} rounds, each with all four in turn; median of the rounds (least, most).\n\n\
             | the plain route | its requests | failed | p50 µs | p99 µs |\n|---|---|---|---|---|\n",
            self.traps.len()
        );
        line(&mut text, "alone", &self.alone);
        line(&mut text, "beside harmless requests", &self.harmless);
        line(&mut text, "beside as many trapping requests", &self.traps);
        let loops = format!("beside {LOOPERS} loaders that never return");
        line(&mut text, &loops, &self.loops);
        self.memory(&mut text);
        self.plugins(&mut text);
        text
    }

    fn memory(&self, text: &mut String) {
        text.push_str("\n| trapping calls | resident memory of the gateway, MiB |\n|---|---|\n");
        for (calls, bytes) in &self.memory {
            let _ = writeln!(text, "| {calls} | {:.1} |", *bytes as f64 / 1_048_576.0);
        }
        let _ = writeln!(
            text,
            "\nTraps answered otherwise than configured: {}.\n",
            self.odd
        );
    }

    fn plugins(&self, text: &mut String) {
        text.push_str("| plugin | traps | timeouts | other failures | instances at the end |\n|---|---|---|---|---|\n");
        for plugin in ["trap", "loop"] {
            let of = |name, labels: &[(&str, &str)]| {
                let labels = [&[("plugin", plugin)], labels].concat();
                self.scrape.sum(name, &labels)
            };
            let calls = |outcome| of("lamina_plugin_calls_total", &[("outcome", outcome)]);
            let (traps, timeouts) = (calls("trap"), calls("timeout"));
            let others = of("lamina_plugin_calls_total", &[]) - calls("ok") - traps - timeouts;
            let instances = of("lamina_plugin_instances", &[]);
            let _ = writeln!(
                text,
                "| {plugin} | {traps} | {timeouts} | {others} | {instances} |"
            );
        }
    }
}

fn line(text: &mut String, name: &str, rounds: &[RequestTimes]) {
    let requests: usize = rounds.iter().map(|round| round.times.len()).sum();
    let failed: u64 = rounds.iter().map(|round| round.failures).sum();
    let (p50, p99) = (spread(rounds, 0.5), spread(rounds, 0.99));
    let _ = writeln!(text, "| {name} | {requests} | {failed} | {p50} | {p99} |");
}

/// A quantile's median, least and most over the rounds, in microseconds.
fn spread(rounds: &[RequestTimes], share: f64) -> String {
    let mut each: Vec<_> = rounds.iter().map(|round| round.quantile(share)).collect();
    each.sort_unstable();
    let at = |i: usize| each.get(i).map_or(0, Duration::as_micros);
    let last = each.len().saturating_sub(1);
    format!("{} ({}, {})", at(each.len() / 2), at(0), at(last))
}
