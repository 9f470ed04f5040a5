//! What was seen, in Markdown.

use std::fmt::Write as _;

use e2e::metrics::Scrape;

use crate::plain::Latencies;

/// All that a run found.
#[derive(Default)]
pub struct Report {
    phases: Vec<Phase>,
    /// Calls so far, and the gateway's resident bytes then.
    pub memory: Vec<(u64, u64)>,
    /// Traps whose request had another status than it should.
    pub odd: u64,
    /// The metrics at the end.
    pub scrape: Scrape,
}

struct Phase {
    name: String,
    plain: Latencies,
    neighbours: u64,
}

impl Report {
    pub fn phase(&mut self, name: &str, plain: Latencies, neighbours: u64) {
        eprintln!("{name}: done");
        self.phases.push(Phase {
            name: name.to_owned(),
            plain,
            neighbours,
        });
    }

    /// Failures of the plain route.
    pub fn failures(&self) -> u64 {
        self.phases.iter().map(|phase| phase.plain.failures).sum()
    }

    /// The tables.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "### Bad plugins beside a plain route\n\n\
             | plain route | neighbours' calls | its requests | failed | p50 µs | p99 µs |\n|---|---|---|---|---|---|\n",
        );
        for phase in &self.phases {
            let Phase {
                name,
                plain,
                neighbours,
            } = phase;
            let micros = |share| plain.quantile(share).as_micros();
            let _ = writeln!(
                text,
                "| {name} | {neighbours} | {} | {} | {} | {} |",
                plain.times.len(),
                plain.failures,
                micros(0.5),
                micros(0.99)
            );
        }
        text.push_str("\n| trapping calls | resident memory of the gateway, MiB |\n|---|---|\n");
        for (calls, bytes) in &self.memory {
            let _ = writeln!(text, "| {calls} | {:.1} |", *bytes as f64 / 1_048_576.0);
        }
        let _ = writeln!(
            text,
            "\nTraps answered otherwise than configured: {}.\n",
            self.odd
        );
        self.plugins(&mut text);
        text
    }

    fn plugins(&self, text: &mut String) {
        text.push_str("| plugin | traps | timeouts | overloaded | instances at the end |\n|---|---|---|---|---|\n");
        for plugin in ["trap", "loop"] {
            let calls = |outcome| {
                let labels = [("plugin", plugin), ("outcome", outcome)];
                self.scrape.sum("lamina_plugin_calls_total", &labels)
            };
            let instances = self
                .scrape
                .sum("lamina_plugin_instances", &[("plugin", plugin)]);
            let _ = writeln!(
                text,
                "| {plugin} | {} | {} | {} | {instances} |",
                calls("trap"),
                calls("timeout"),
                calls("overloaded")
            );
        }
    }
}
