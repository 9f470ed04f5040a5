//! `lamina doctor`: makes real round trips to what the configuration names, and says in plain words
//! what this configuration guarantees.
//!
//! The parts: `l2` and `bus` (the round trips), `listeners` (certificates and HTTP/3), `origins` (the
//! targets of upstreams), `ends` and `probe_events` (both ends of the bus, and the
//! events that they send), `advice` (what to do about a failure) and `promises` (the sentences about
//! guarantees). It may run beside a gateway: all that it leaves behind is one purge of a key that
//! nobody has, events that nodes ignore, and one request to each target that changes nothing.

mod advice;
mod bus;
mod ends;
pub(super) mod l2;
mod listeners;
mod origins;
mod probe_events;
mod promises;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::output;
use advice::ConfigKeyPlaces;
use lamina_edge::app::GatewayStartError;
use lamina_edge::config::{ConfigProblem, GatewayConfig};

/// The results of the examination.
pub struct DoctorReport {
    sections: Vec<ReportSection>,
    promises: Vec<String>,
    warnings: Vec<String>,
}

/// The results about one thing.
struct ReportSection {
    name: &'static str,
    /// What the configuration names for it.
    what: String,
    lines: Vec<FindingLine>,
}

struct FindingLine {
    name: Cow<'static, str>,
    outcome: DoctorOutcome,
}

/// The result of one check.
enum DoctorOutcome {
    /// Round trips of one kind, the quickest first, and how long a gateway would wait for one.
    Took(Vec<Duration>, Duration),
    Fine(String),
    /// It works, but is risky.
    Warned(String),
    Failed(String),
}

/// The pause between two checks whether something is there.
const AGAIN: Duration = Duration::from_millis(50);

/// Checks the second tier, the bus and the targets of upstreams. `file` is the file of the configuration.
///
/// # Errors
/// If the second tier or the bus can't be used as it is configured.
pub async fn examine(
    config: &GatewayConfig,
    file: &Path,
) -> Result<DoctorReport, GatewayStartError> {
    let places = ConfigKeyPlaces::of(file);
    let mut sections = vec![
        l2::examine(config, &places).await?,
        bus::examine(config, &places).await?,
    ];
    sections.extend(listeners::examine(config).await?);
    sections.extend(origins::examine(config, &places).await);
    Ok(DoctorReport {
        sections,
        promises: promises::of(config),
        warnings: config
            .warnings
            .iter()
            .map(ConfigProblem::headline)
            .collect(),
    })
}

impl DoctorReport {
    /// Whether everything is as configured and answered within the time that a gateway would allow.
    pub fn is_well(&self) -> bool {
        self.sections.iter().all(ReportSection::is_well)
    }

    /// The names of the sections with failures.
    pub fn unwell(&self) -> String {
        let unwell = self.sections.iter().filter(|section| !section.is_well());
        let mut names: Vec<_> = unwell.map(|section| section.name).collect();
        names.dedup();
        names.join(" and ")
    }
}

impl ReportSection {
    fn is_well(&self) -> bool {
        self.lines.iter().all(|line| line.outcome.is_well())
    }
}

impl FindingLine {
    fn took(name: &'static str, mut times: Vec<Duration>, deadline: Duration) -> Self {
        times.sort_unstable();
        Self::of(name, DoctorOutcome::Took(times, deadline))
    }

    /// Whether there is nothing to do about it.
    fn says_all_is_fine(&self) -> bool {
        matches!(self.outcome, DoctorOutcome::Fine(_))
    }

    fn fine(name: impl Into<Cow<'static, str>>, says: String) -> Self {
        Self::of(name, DoctorOutcome::Fine(says))
    }

    fn warned(name: impl Into<Cow<'static, str>>, why: String) -> Self {
        Self::of(name, DoctorOutcome::Warned(why))
    }

    fn failed(name: impl Into<Cow<'static, str>>, why: String) -> Self {
        Self::of(name, DoctorOutcome::Failed(why))
    }

    fn of(name: impl Into<Cow<'static, str>>, outcome: DoctorOutcome) -> Self {
        let name = name.into();
        Self { name, outcome }
    }
}

impl DoctorOutcome {
    fn is_well(&self) -> bool {
        match self {
            Self::Took(times, deadline) => times.iter().all(|took| took <= deadline),
            Self::Fine(_) | Self::Warned(_) => true,
            Self::Failed(_) => false,
        }
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            writeln!(f, "{:11}  {}", section.name, section.what)?;
            for line in &section.lines {
                writeln!(f, "  {:14} {}", line.name, line.outcome)?;
            }
        }
        writeln!(f, "what this configuration guarantees")?;
        for promise in &self.promises {
            writeln!(f, "  - {promise}")?;
        }
        let mut warnings = self.warnings.iter();
        warnings.try_for_each(|warning| writeln!(f, "WARNING  {warning}"))
    }
}

impl fmt::Display for DoctorOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (times, deadline) = match self {
            Self::Took(times, deadline) => (times, deadline),
            Self::Fine(says) => return f.write_str(says),
            Self::Warned(why) => return write!(f, "WARNING  {why}"),
            Self::Failed(why) => return write!(f, "{}  {why}", output::alarming("FAILED")),
        };
        let ms = |took: Option<&Duration>| took.map_or(0.0, Duration::as_secs_f64) * 1_000.0;
        match times.len() {
            1 => write!(f, "{:8.2} ms", ms(times.first()))?,
            n => write!(
                f,
                "{:8.2} ms, worst of {n} {:.2} ms",
                ms(times.get(n / 2)),
                ms(times.last())
            )?,
        }
        match self.is_well() {
            true => Ok(()),
            false => write!(f, "  SLOW: a gateway waits {deadline:?}"),
        }
    }
}
