//! One line for each figure, in Markdown.

use std::time::Duration;

/// One figure.
pub struct Row {
    pub what: String,
    pub figure: String,
    /// The goal from the table of goals; empty if there is none.
    pub goal: &'static str,
}

impl Row {
    pub fn new(what: impl Into<String>, figure: impl Into<String>, goal: &'static str) -> Self {
        Self {
            what: what.into(),
            figure: figure.into(),
            goal,
        }
    }
}

/// The table.
pub fn table(rows: &[Row]) -> String {
    let lines = rows
        .iter()
        .map(|row| format!("| {} | {} | {} |\n", row.what, row.figure, row.goal));
    format!(
        "### Parts, in process\n\n| what | figure | goal |\n|---|---|---|\n{}",
        lines.collect::<String>()
    )
}

/// A time in the form `0.123 µs` or `12.3 ms`.
pub fn time(nanos: f64) -> String {
    match nanos {
        n if n < 1e5 => format!("{:.3} µs", n / 1e3),
        n => format!("{:.2} ms", n / 1e6),
    }
}

/// The smallest, the median and the largest of several rounds.
pub fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |i: usize| time(times.get(i).map_or(f64::NAN, |t| t.as_nanos() as f64));
    format!(
        "{} (least {}, most {})",
        at(times.len() / 2),
        at(0),
        at(times.len().saturating_sub(1))
    )
}
