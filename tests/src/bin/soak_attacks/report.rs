//! What was seen, and whether it is good.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use e2e::gateway::Gateway;

/// Counts of the load and of the attacks, and what the gateway held.
#[derive(Default)]
pub struct AttackReport {
    right: AtomicU64,
    again: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    wrong: AtomicU64,
    crashes: AtomicU64,
    attacks: Mutex<BTreeMap<&'static str, u64>>,
    /// What went wrong, in words, and how often.
    faults: Mutex<BTreeMap<String, u64>>,
    surprises: AtomicU64,
    samples: Mutex<Vec<HeldSample>>,
}

/// What the gateway holds at a moment.
#[derive(Clone, Copy)]
pub struct HeldSample {
    pub memory: u64,
    pub files: usize,
}

/// Bytes by which memory may have grown from the first look to the last. The allocator
/// keeps pages of the peak for a while, and a debug build more of them.
const GROWTH: u64 = 96 << 20;

impl AttackReport {
    pub fn right(&self) {
        self.right.fetch_add(1, Relaxed);
    }

    /// A request was sent once more, since its connection was closed before it was answered.
    pub fn asked_again(&self) {
        self.again.fetch_add(1, Relaxed);
    }

    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub fn cut(&self, what: String) {
        self.cut.fetch_add(1, Relaxed);
        self.fault(what);
    }

    pub fn wrong(&self, what: String) {
        self.wrong.fetch_add(1, Relaxed);
        self.fault(what);
    }

    /// An attack ended, with what it must not have got.
    pub fn attacked(&self, name: &'static str, fault: Option<String>) {
        *self.attacks.lock().unwrap().entry(name).or_default() += 1;
        if let Some(fault) = fault {
            self.surprises.fetch_add(1, Relaxed);
            self.fault(format!("{name}: {fault}"));
        }
    }

    pub fn sample(&self, sample: HeldSample) {
        self.samples.lock().unwrap().push(sample);
    }

    /// False when the gateway has ended.
    pub fn note_alive(&self, gateway: &mut Gateway) -> bool {
        let alive = gateway.is_running();
        self.crashes.fetch_add(u64::from(!alive), Relaxed);
        alive
    }

    /// No body wrong or cut, no crash, no attack that got what it must not, nothing kept.
    pub fn is_good(&self) -> bool {
        let none = [&self.wrong, &self.cut, &self.crashes, &self.surprises];
        let samples = self.samples.lock().unwrap();
        let kept = samples
            .first()
            .zip(samples.last())
            .is_some_and(|(first, last)| {
                last.memory > first.memory + GROWTH || last.files > first.files + 64
            });
        none.iter().all(|count| count.load(Relaxed) == 0) && self.right.load(Relaxed) > 0 && !kept
    }

    /// The tables, in Markdown.
    pub fn text(&self) -> String {
        let of = |count: &AtomicU64| count.load(Relaxed);
        let attacks = self.attacks.lock().unwrap();
        let mut text = format!(
            "### Attacks beside normal load\n\n\
             | right bodies | asked again | wrong | cut | refused (5xx) | crashes | attacks | kinds of them | that got what they must not |\n\
             |---|---|---|---|---|---|---|---|---|\n\
             | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n\n",
            of(&self.right),
            of(&self.again),
            of(&self.wrong),
            of(&self.cut),
            of(&self.refused),
            of(&self.crashes),
            attacks.values().sum::<u64>(),
            attacks.len(),
            of(&self.surprises),
        );
        let samples = self.samples.lock().unwrap();
        held(&mut text, "resident memory, MiB", &samples, |s| {
            s.memory >> 20
        });
        held(&mut text, "open descriptors", &samples, |s| s.files as u64);
        for (fault, times) in self.faults.lock().unwrap().iter().take(40) {
            let _ = writeln!(text, "- {times} times: {fault}");
        }
        text
    }

    fn fault(&self, what: String) {
        *self.faults.lock().unwrap().entry(what).or_default() += 1;
    }
}

fn held(text: &mut String, name: &str, samples: &[HeldSample], of: impl Fn(&HeldSample) -> u64) {
    let (first, last) = (samples.first().map(&of), samples.last().map(&of));
    let peak = samples.iter().map(&of).max();
    let number = |value: Option<u64>| value.unwrap_or_default();
    let _ = writeln!(
        text,
        "{name}: first {}, last {}, peak {}\n",
        number(first),
        number(last),
        number(peak)
    );
}

/// An attack that panics says why in the report, not on the terminal.
pub fn catch_panics(report: &Arc<AttackReport>) {
    let report = Arc::clone(report);
    std::panic::set_hook(Box::new(move |panic| {
        report.fault(panic.to_string().replace('\n', " "));
    }));
}
