//! Markdown tables of what was measured.

use std::fmt::Write as _;
use std::time::Duration;

use crate::prober::ProbeLatencies;

/// All rounds beside one kind of neighbour.
pub struct NeighbourRow {
    beside: &'static str,
    seen: Vec<ProbeLatencies>,
    /// What the neighbours did a second, in each round.
    rates: Vec<f64>,
}

impl NeighbourRow {
    pub fn new(beside: &'static str) -> Self {
        Self {
            beside,
            seen: Vec::new(),
            rates: Vec::new(),
        }
    }

    pub fn add(&mut self, seen: ProbeLatencies, rate: Option<f64>) {
        self.seen.push(seen);
        self.rates.extend(rate);
    }

    /// The middle one of the rounds, in milliseconds.
    fn middle(&self, of: impl Fn(&ProbeLatencies) -> Duration) -> f64 {
        let times = self
            .seen
            .iter()
            .map(|seen| of(seen).as_secs_f64() * 1_000.0);
        median(times.collect())
    }

    fn p99(&self) -> f64 {
        self.middle(|seen| seen.within(0.99))
    }
}

pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// Hits beside handshakes.
pub fn handshakes(rows: &[NeighbourRow], span: Duration, rounds: u64) -> String {
    let title = "Hits over TLS beside full handshakes of TLS 1.3";
    table(title, "handshakes/s made", rows, span, rounds)
}

/// Hits beside misses.
pub fn misses(rows: &[NeighbourRow], span: Duration, rounds: u64) -> String {
    table("Hits beside misses", "misses/s", rows, span, rounds)
}

/// Requests beside slow readers of the same upstream, which has seen so many connections.
pub fn readers(rows: &[NeighbourRow], connections: usize, span: Duration, rounds: u64) -> String {
    let title = "Requests that are not stored, beside slow readers of the same HTTP/2 upstream";
    let mut text = table(title, "octets/s read", rows, span, rounds);
    let _ = writeln!(text, "\nThe origin saw {connections} connections.");
    text
}

fn table(title: &str, rate: &str, rows: &[NeighbourRow], span: Duration, rounds: u64) -> String {
    let mut text = format!(
        "### {title}\n\nOne worker on one core; 200 requests/s on one connection; the middle one of {rounds} rounds of {} s.\n\n\
         | beside | {rate} | p50 ms | p99 ms | slowest ms | p99 × alone |\n|---|---|---|---|---|---|\n",
        span.as_secs()
    );
    let alone = rows.first().map_or(0.0, NeighbourRow::p99);
    for row in rows {
        let rate = match row.rates.is_empty() {
            true => "–".to_owned(),
            false => format!("{:.0}", median(row.rates.clone())),
        };
        let (p50, slowest) = (
            row.middle(|seen| seen.within(0.5)),
            row.middle(ProbeLatencies::slowest),
        );
        let _ = writeln!(
            text,
            "| {} | {rate} | {p50:.2} | {:.2} | {slowest:.2} | {:.1} |",
            row.beside,
            row.p99(),
            row.p99() / alone
        );
    }
    text
}
