//! The names of targets, resolved in the background.
//!
//! A name is asked for once for the whole process, whatever upstreams and generations use it, and
//! again when its time to live is over. Requests see the last answer. Name servers that fail, and
//! those that say that there is no address any more, change nothing: the last known addresses stay
//! (who does not answer requests is judged by `discovery`).
//!
//! Neighbours: `lookup` asks name servers, `discovery` makes targets of the answers, `connect` takes
//! the addresses of a target whose URL has a name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::lookup::NameServers;
use super::config::NameResolutionConfig;
use crate::telemetry::metrics::Registry;

mod lookup;

/// All names of the process that some upstream uses.
pub struct OriginNames {
    known: Mutex<HashMap<NameQuestion, Weak<ResolvedName>>>,
    servers: Arc<NameServers>,
    stale_seconds: IntGaugeVec,
}

/// What name servers are asked, and how.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct NameQuestion {
    pub(super) name: String,
    pub(super) records: NameRecords,
    pub(super) rules: NameResolutionConfig,
}

/// The records that a name is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum NameRecords {
    /// A and AAAA.
    Addresses,
    /// SRV, and the addresses of their hosts.
    Services,
}

/// A name and the last that is known of it.
pub(super) struct ResolvedName {
    question: NameQuestion,
    servers: Arc<NameServers>,
    state: watch::Sender<NameState>,
    task: OnceLock<AbortOnDropHandle<()>>,
}

/// What is known of a name.
#[derive(Clone, Default, Debug)]
pub(super) struct NameState {
    /// The last good answer; it is never empty.
    pub(super) answer: Option<Arc<NameAnswer>>,
    /// Why there is no newer one.
    pub(super) failure: Option<LookupFailure>,
}

/// What a name leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NameAnswer {
    /// In a fixed order, each once.
    pub(super) endpoints: Vec<NamedEndpoint>,
}

/// A server that a name leads to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct NamedEndpoint {
    pub(super) address: IpAddr,
    /// Where it was found by an SRV record.
    pub(super) service: Option<ServiceRecord>,
}

/// An SRV record (RFC 2782).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct ServiceRecord {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) priority: u16,
    pub(super) weight: u16,
}

/// Why a name has no new answer.
#[derive(Clone, Debug)]
pub(super) struct LookupFailure {
    pub(super) reason: String,
    /// The first failure since the last good answer.
    pub(super) since: Instant,
}

/// A name as operators see it.
#[derive(Clone, Debug)]
pub struct NameStatus {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    /// Why there is no newer answer, and for how long.
    pub failing: Option<(String, Duration)>,
}

/// The time limit of a look-up with all its questions.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// The longest pause between two look-ups of a name that has never had an answer.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

impl Default for OriginNames {
    /// Without a place in a registry.
    fn default() -> Self {
        let gauge = Opts::new(
            "lamina_dns_stale_seconds",
            "For how long look-ups of a name have failed; 0 if the last one did not.",
        );
        Self {
            known: Mutex::default(),
            servers: Arc::default(),
            stale_seconds: IntGaugeVec::new(gauge, &["name"])
                .expect("names of metrics and labels are valid"),
        }
    }
}

impl OriginNames {
    /// Creates the metrics and registers them.
    ///
    /// # Errors
    /// If the registry has families of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let names = Self::default();
        registry.register(Box::new(names.stale_seconds.clone()))?;
        Ok(Arc::new(names))
    }

    /// The name that this question is about; it is not asked yet.
    pub(super) fn get(&self, question: NameQuestion) -> Arc<ResolvedName> {
        let mut known = self.known.lock();
        if let Some(name) = known.get(&question).and_then(Weak::upgrade) {
            return name;
        }
        known.retain(|_, name| name.strong_count() > 0);
        let name = Arc::new(ResolvedName {
            question: question.clone(),
            servers: Arc::clone(&self.servers),
            state: watch::Sender::default(),
            task: OnceLock::new(),
        });
        known.insert(question, Arc::downgrade(&name));
        name
    }

    /// Brings the gauges up to date, before a scrape.
    pub fn update(&self) {
        self.stale_seconds.reset();
        let now = Instant::now();
        for name in self.known.lock().values().filter_map(Weak::upgrade) {
            let gauge = self.stale_seconds.with_label_values(&[&name.question.name]);
            let stale = name.status(now).failing.map(|(_, stale)| stale);
            let stale = stale.unwrap_or_default().as_secs() as i64;
            gauge.set(gauge.get().max(stale));
        }
    }
}

impl ResolvedName {
    /// Begins to ask for it, unless it is asked for already. It is asked for until nobody uses it.
    pub(super) fn follow(self: &Arc<Self>) {
        self.task.get_or_init(|| {
            let name = Arc::downgrade(self);
            AbortOnDropHandle::new(tokio::spawn(follow(name)))
        });
    }

    pub(super) fn question(&self) -> &NameQuestion {
        &self.question
    }

    pub(super) fn state(&self) -> NameState {
        self.state.borrow().clone()
    }

    /// Tells of every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<NameState> {
        self.state.subscribe()
    }

    /// The last known addresses. Before the first answer it waits for it, for `limit` at most.
    ///
    /// # Errors
    /// Why none is known.
    pub(super) async fn addresses(&self, limit: Duration) -> Result<Vec<IpAddr>, String> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(NameState::is_settled);
        // When the time is over, what is known counts.
        let _ = tokio::time::timeout(limit, settled).await;
        let state = self.state();
        match (state.answer, state.failure) {
            (Some(answer), _) => Ok(answer.addresses()),
            (None, Some(failure)) => Err(failure.reason),
            (None, None) => Err(format!(
                "the name servers have not answered within {limit:?}"
            )),
        }
    }

    pub(super) fn status(&self, now: Instant) -> NameStatus {
        let state = self.state();
        let failing = |failure: LookupFailure| {
            let since = now.saturating_duration_since(failure.since);
            (failure.reason, since)
        };
        NameStatus {
            name: self.question.name.clone(),
            addresses: state
                .answer
                .map(|known| known.addresses())
                .unwrap_or_default(),
            failing: state.failure.map(failing),
        }
    }

    /// Asks once. Returns the time to live of a good answer.
    async fn ask(&self) -> Option<Duration> {
        let known = self.state.borrow().answer.clone();
        let asked = self.servers.ask(&self.question, known.as_deref());
        let outcome = tokio::time::timeout(LOOKUP_LIMIT, asked).await;
        let too_late = || format!("the name servers have not answered within {LOOKUP_LIMIT:?}");
        match outcome.unwrap_or_else(|_| Err(too_late())) {
            Ok((answer, time_to_live)) => {
                self.answered(answer);
                Some(time_to_live)
            }
            Err(reason) => {
                self.failed(reason);
                None
            }
        }
    }

    fn answered(&self, mut answer: NameAnswer) {
        let name = &*self.question.name;
        let (found, most) = (answer.endpoints.len(), self.question.rules.max_targets);
        answer.endpoints.truncate(most);
        self.state.send_if_modified(|state| {
            let failed_before = state.failure.take().is_some();
            let is_new = state.answer.as_deref() != Some(&answer);
            if is_new {
                tracing::info!(name, addresses = %answer, "a name of an upstream leads to other addresses");
                if found > most {
                    tracing::warn!(name, found, used = most, "a name of an upstream leads to more targets than resolver.max_targets allows");
                }
                state.answer = Some(Arc::new(answer));
            } else if failed_before {
                tracing::info!(name, "the name servers answer again about a name of an upstream");
            }
            failed_before || is_new
        });
    }

    fn failed(&self, reason: String) {
        let name = &*self.question.name;
        self.state.send_if_modified(|state| match &mut state.failure {
            Some(failure) => {
                failure.reason = reason;
                false
            }
            None => {
                tracing::warn!(name, reason, "a name of an upstream has no new answer; the last known addresses stay in use");
                let since = Instant::now();
                state.failure = Some(LookupFailure { reason, since });
                true
            }
        });
    }
}

/// Asks for a name again and again, until it is gone.
async fn follow(name: Weak<ResolvedName>) {
    let mut schedule = LookupSchedule::default();
    while let Some(asked) = name.upgrade() {
        let time_to_live = asked.ask().await;
        let pause = schedule.next(time_to_live, &asked.question.rules);
        drop(asked);
        tokio::time::sleep(pause).await;
    }
}

/// When a name is asked for again.
#[derive(Default)]
struct LookupSchedule {
    /// The pause after the last good answer.
    usual: Option<Duration>,
    /// The failures since then.
    failures: u32,
}

impl LookupSchedule {
    /// The pause after an answer with this time to live, or after a failure: then it grows, but not
    /// beyond the usual one, so that a service that comes back is found as quickly as one that moves.
    fn next(&mut self, time_to_live: Option<Duration>, rules: &NameResolutionConfig) -> Duration {
        let floor = rules.floor.0;
        match time_to_live {
            Some(time_to_live) => {
                let pause = time_to_live.min(rules.ceiling.0).max(floor);
                self.usual = Some(pause);
                self.failures = 0;
                pause
            }
            None => {
                let doubled = floor.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                doubled
                    .min(self.usual.unwrap_or(LONGEST_BACK_OFF))
                    .max(floor)
            }
        }
    }
}

impl NameState {
    /// Whether there has been an answer or a failure.
    pub(super) fn is_settled(&self) -> bool {
        self.answer.is_some() || self.failure.is_some()
    }
}

impl NameAnswer {
    pub(super) fn new(mut endpoints: Vec<NamedEndpoint>) -> Self {
        endpoints.sort_unstable();
        endpoints.dedup();
        Self { endpoints }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.address)
            .collect()
    }
}

impl std::fmt::Display for NameAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (nth, endpoint) in self.endpoints.iter().enumerate() {
            let separator = if nth == 0 { "" } else { ", " };
            write!(f, "{separator}{}", endpoint.address)?;
            if let Some(service) = &endpoint.service {
                write!(f, " port {}", service.port)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ConfigDuration;

    #[test]
    fn a_name_is_asked_for_by_its_time_to_live_and_after_failures_no_later_than_usual() {
        let rules = NameResolutionConfig {
            floor: ConfigDuration::secs(2),
            ceiling: ConfigDuration::secs(60),
            ..NameResolutionConfig::default()
        };
        let mut schedule = LookupSchedule::default();
        let mut next = |live: Option<u64>| {
            let live = live.map(Duration::from_secs);
            schedule.next(live, &rules).as_secs()
        };
        let unknown: Vec<_> = (0..6).map(|_| next(None)).collect();
        assert_eq!(unknown, [2, 4, 8, 16, 30, 30]);
        assert_eq!([0, 1, 7, 600].map(|live| next(Some(live))), [2, 2, 7, 60]);
        assert_eq!(next(Some(7)), 7);
        let failing: Vec<_> = (0..4).map(|_| next(None)).collect();
        assert_eq!(failing, [2, 4, 7, 7]);
    }

    #[test]
    fn upstreams_with_the_same_question_share_the_name() {
        let names = OriginNames::default();
        let question = |name: &str| NameQuestion {
            name: name.to_owned(),
            records: NameRecords::Addresses,
            rules: NameResolutionConfig::default(),
        };
        let first = names.get(question("a.test"));
        assert!(Arc::ptr_eq(&first, &names.get(question("a.test"))));
        assert!(!Arc::ptr_eq(&first, &names.get(question("b.test"))));
        drop(first);
        names.get(question("c.test"));
        assert_eq!(
            names.known.lock().len(),
            1,
            "names that nobody uses are forgotten"
        );
    }
}
