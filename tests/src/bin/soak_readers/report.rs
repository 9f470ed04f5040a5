//! What was seen, and whether it is good.

use std::fmt::Write as _;
use std::time::Duration;

use super::bodies::BodyKind;
use super::readers::ReadOutcome;
use super::stoppers::{StoppedReaders, StopsWhen};
use super::ways::ClientWay;

/// When one that stands still must be cut: `limits.body_timeout`, and a part of it that the
/// gateway takes to see it.
const STANDS_STILL: Duration = Duration::from_secs(60 + 15);

pub struct ReadersReport {
    span: Duration,
    readers: Vec<(ClientWay, BodyKind, ReadOutcome)>,
    stopped: Vec<StoppedReaders>,
    /// Resident memory at the start and at most, in bytes.
    memory: [u64; 2],
    /// What answers held at the end.
    held: f64,
}

impl ReadersReport {
    pub fn new(span: Duration, resident: u64) -> Self {
        Self {
            span,
            readers: Vec::new(),
            stopped: Vec::new(),
            memory: [resident; 2],
            held: 0.0,
        }
    }

    pub fn read(&mut self, way: ClientWay, kind: BodyKind, outcome: ReadOutcome) {
        self.readers.push((way, kind, outcome));
    }

    pub fn stopped(&mut self, stopped: StoppedReaders) {
        self.stopped.push(stopped);
    }

    pub fn memory(&mut self, resident: u64) {
        self.memory[1] = self.memory[1].max(resident);
    }

    pub fn ends(&mut self, held: f64) {
        self.held = held;
    }

    /// Everybody who read has all of it, everybody who stopped was cut in time, and nothing is
    /// held any more.
    pub fn is_good(&self) -> bool {
        let whole = |outcome: &ReadOutcome| matches!(outcome, ReadOutcome::Whole { .. });
        let in_time = |time: &Option<Duration>| time.is_some_and(|time| time <= STANDS_STILL);
        let mut times = self.stopped.iter().flat_map(|stopped| &stopped.times);
        self.readers.iter().all(|(_, _, outcome)| whole(outcome))
            && times.all(|(_, time)| in_time(time))
            && self.held == 0.0
    }

    /// The tables, in Markdown.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} s at 1 KB/s; resident memory {} MiB at first and {} MiB at most; held at the end: {} bytes\n\n",
            self.span.as_secs(),
            self.memory[0] >> 20,
            self.memory[1] >> 20,
            self.held,
        );
        text.push_str("| who reads | got all, every byte right | longest wait beyond its pace |\n|---|---|---|\n");
        for way in ClientWay::ALL {
            let of_way = self.readers.iter().filter(|(of, ..)| *of == way);
            let outcomes: Vec<_> = of_way.collect();
            let waits = outcomes.iter().filter_map(|(_, _, outcome)| match outcome {
                ReadOutcome::Whole { waited } => Some(*waited),
                _ => None,
            });
            let waits: Vec<_> = waits.collect();
            let _ = writeln!(
                text,
                "| {} | {} of {} | {} ms |",
                way.name(),
                waits.len(),
                outcomes.len(),
                waits.iter().max().map_or(0, Duration::as_millis),
            );
        }
        text.push_str("\n| who stops reading | when | times | cut after, s: median | longest | not cut |\n|---|---|---|---|---|---|\n");
        for stopped in &self.stopped {
            for when in [StopsWhen::AtOnce, StopsWhen::AfterAWhile] {
                row(&mut text, stopped, when);
            }
        }
        for (way, kind, outcome) in &self.readers {
            if !matches!(outcome, ReadOutcome::Whole { .. }) {
                let _ = writeln!(text, "\n- {}, {}: {outcome:?}", way.name(), kind.name());
            }
        }
        text
    }
}

fn row(text: &mut String, stopped: &StoppedReaders, when: StopsWhen) {
    let of_kind = stopped.times.iter().filter(|(of, _)| *of == when);
    let (mut cut, mut not) = (Vec::new(), 0);
    for (_, time) in of_kind {
        match time {
            Some(time) => cut.push(time.as_secs_f64()),
            None => not += 1,
        }
    }
    cut.sort_by(f64::total_cmp);
    let _ = writeln!(
        text,
        "| {} | {} | {} | {:.0} | {:.0} | {not} |",
        stopped.way.name(),
        when.name(),
        cut.len() + not,
        cut.get(cut.len() / 2).copied().unwrap_or_default(),
        cut.last().copied().unwrap_or_default(),
    );
}
