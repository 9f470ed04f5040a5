//! Upstreams as operators see them, and what they can change: `GET /v1/upstreams` and its kind.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::{AdministrativeState, ControlOrder, OrderLifetime, TargetOrders};
use super::health::{HealthStatus, ObservedState};
use super::names::NameStatus;
use super::target::OriginTarget;
use super::targets::{ChoiceSituation, OriginTargets};
use super::{Origin, Origins};

/// An upstream with its targets.
#[derive(Clone, Debug)]
pub struct UpstreamStatus {
    pub name: String,
    pub targets: Vec<TargetStatus>,
    /// The names that lead to targets or to their addresses.
    pub names: Vec<NameStatus>,
    /// Why the file of targets can't be used as it is now.
    pub file_problem: Option<String>,
}

/// One target.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    pub name: String,
    pub url: String,
    pub weight: f64,
    pub priority: u16,
    /// What operators want.
    pub administrative: AdministrativeState,
    /// When it is ready again by itself.
    pub ready_in: Option<Duration>,
    /// What answers and checks have shown.
    pub health: HealthStatus,
    /// Requests that it is working on.
    pub in_flight: u32,
    /// The estimate of the time to its answers.
    pub latency: Duration,
}

/// What an operator changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TargetOrder {
    pub state: AdministrativeState,
    /// After this time the target is ready again by itself. None: it stays so.
    pub lasts: Option<Duration>,
    pub lifetime: OrderLifetime,
}

/// Why nothing can be changed.
#[derive(Debug, thiserror::Error)]
pub enum TargetOrderError {
    #[error("there is no upstream {name:?}; there are {known}")]
    NoUpstream { name: String, known: String },
    #[error("upstream {upstream:?} has no target {name:?}; it has {known}")]
    NoTarget {
        upstream: String,
        name: String,
        known: String,
    },
    /// It holds, but only for this process.
    #[error("the state holds now, but can't be kept for the next start: {0}")]
    NotKept(#[source] io::Error),
}

impl Origins {
    /// All upstreams, by their names.
    pub fn statuses(&self) -> Vec<UpstreamStatus> {
        let mut statuses: Vec<_> = self
            .by_name
            .values()
            .map(|standing| standing.origin.status())
            .collect();
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
        statuses
    }

    /// The names that name servers give no new answer about now, each once.
    pub fn failing_names(&self) -> Vec<NameStatus> {
        let now = Instant::now();
        let origins = self.by_name.values().map(|standing| &standing.origin);
        let names = origins.flat_map(|origin| origin.targets.discovery().name_statuses(now));
        let mut failing: Vec<_> = names.filter(|name| name.failing.is_some()).collect();
        failing.sort_by(|a, b| a.name.cmp(&b.name));
        failing.dedup_by(|a, b| a.name == b.name);
        failing
    }

    /// Follows an operator's order about the target of this name. If several targets of the upstream
    /// have it, it is about all of them.
    ///
    /// # Errors
    /// If there is no such upstream or target.
    pub fn order(
        &self,
        upstream: &str,
        target: &str,
        order: TargetOrder,
    ) -> Result<UpstreamStatus, TargetOrderError> {
        let Some(origin) = self.get(upstream) else {
            let mut known: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
            known.sort_unstable();
            return Err(TargetOrderError::NoUpstream {
                name: upstream.to_owned(),
                known: known.join(", "),
            });
        };
        origin.order(target, order, &self.shared.orders)
    }
}

impl Origin {
    /// Which targets a request may go to now, and why not to the others: a line for each. Empty if
    /// there is only one, and nothing is wrong with it.
    pub fn explain_targets(&self) -> Vec<String> {
        let now = Instant::now();
        let targets = self.targets.all();
        let (candidates, situation) = self.targets.candidates(&targets, now);
        let is_candidate =
            |target: &Arc<OriginTarget>| candidates.iter().any(|one| Arc::ptr_eq(one, target));
        let line = |target: &Arc<OriginTarget>| {
            let status = target.status(now);
            let states = format!(
                "{}, {}",
                status.administrative.as_str(),
                status.health.observed.as_str()
            );
            let why = match (is_candidate(target), situation) {
                (true, ChoiceSituation::Usual) => "candidate",
                (true, ChoiceSituation::Panic) => {
                    "candidate, since too few targets can be used (balance.panic)"
                }
                (false, _) if !target.is_usable(now) => "gets no requests",
                (false, _) => "gets no requests while others can be used",
            };
            format!("{}: {states}; {why}", status.name)
        };
        match &targets[..] {
            [only] if only.is_ready() && only.health.observed(now) == ObservedState::Usable => {
                Vec::new()
            }
            all => all.iter().map(line).collect(),
        }
    }

    fn status(&self) -> UpstreamStatus {
        let now = Instant::now();
        let targets = self.targets.all();
        self.status_of(targets.iter().map(|target| target.status(now)).collect())
    }

    fn status_of(&self, targets: Vec<TargetStatus>) -> UpstreamStatus {
        let discovery = self.targets.discovery();
        UpstreamStatus {
            name: self.name.to_string(),
            targets,
            names: discovery.name_statuses(Instant::now()),
            file_problem: discovery.file_problem(),
        }
    }

    fn order(
        &self,
        name: &str,
        order: TargetOrder,
        orders: &TargetOrders,
    ) -> Result<UpstreamStatus, TargetOrderError> {
        let now = Instant::now();
        let followed = ControlOrder {
            state: order.state,
            until: order.lasts.map(|lasts| now + lasts),
        };
        let named = |target: &&Arc<OriginTarget>| &*target.name == name;
        let mut changed = Vec::new();
        let targets = self.targets.all();
        for target in targets.iter().filter(named) {
            let before = target.control.follow(followed);
            target.after_order(before, &self.targets, now);
            changed.push(target.status(now));
        }
        if changed.is_empty() {
            let known = targets.iter().map(|target| target.name.to_string());
            return Err(TargetOrderError::NoTarget {
                upstream: self.name.to_string(),
                name: name.to_owned(),
                known: known.collect::<Vec<_>>().join(", "),
            });
        }
        let kept = orders.note((&self.name, name), followed, order.lifetime);
        kept.map_err(TargetOrderError::NotKept)?;
        Ok(self.status_of(changed))
    }

    /// Ends the orders whose time is over, and closes connections that are not needed.
    pub(super) fn maintain_targets(&self) {
        let now = Instant::now();
        self.targets.look(now);
        for target in self.targets.all().iter() {
            if let Some(before) = target.control.expire(now) {
                target.after_order(before, &self.targets, now);
                tracing::info!(
                    upstream = &*self.name,
                    target = &*target.name,
                    was = before.as_str(),
                    "a target of an upstream is ready again, since the time of its order is over"
                );
            }
            target.close_unused(now);
        }
    }
}

impl OriginTarget {
    fn status(&self, now: Instant) -> TargetStatus {
        let order = self.control.order();
        TargetStatus {
            name: self.name.to_string(),
            url: self.url(),
            weight: self.weight(),
            priority: self.priority(),
            administrative: order.state,
            ready_in: order.left(now),
            health: self.health.status(now),
            in_flight: self.in_flight(),
            latency: Duration::from_secs_f64(self.latency.seconds(now)),
        }
    }

    /// Does what an order leads to, in addition to who gets requests.
    fn after_order(&self, before: AdministrativeState, targets: &OriginTargets, now: Instant) {
        match (before, self.control.state()) {
            (AdministrativeState::Drain | AdministrativeState::Out, AdministrativeState::Ready) => {
                self.health.came_back(now);
                targets.restart_estimate(self, now, now);
            }
            (_, AdministrativeState::Out) => self.connections.close_idle(),
            _ => {}
        }
    }

    fn close_unused(&self, now: Instant) {
        match self.control.state() {
            // What was under way when the order came has given its connection back since.
            AdministrativeState::Out => self.connections.close_idle(),
            AdministrativeState::Ready | AdministrativeState::Drain => {
                self.connections.close_unused(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::origin::SharedOriginState;

    #[test]
    fn orders_outlive_the_generation_that_they_were_given_to() {
        let upstream = "targets: [http://a, http://b]";
        let upstreams =
            BTreeMap::from([("shop".to_owned(), serde_yaml::from_str(upstream).unwrap())]);
        let shared = SharedOriginState::default();
        let generation = || Origins::new(&upstreams, &shared, None).unwrap();
        let first = generation();
        let drain = TargetOrder {
            state: AdministrativeState::Drain,
            lasts: Some(Duration::from_secs(600)),
            lifetime: OrderLifetime::Process,
        };
        first.order("shop", "b", drain).unwrap();
        drop(first);
        let targets = generation().statuses().remove(0).targets;
        let states: Vec<_> = targets.iter().map(|target| target.administrative).collect();
        assert_eq!(
            states,
            [AdministrativeState::Ready, AdministrativeState::Drain]
        );
        assert!(targets[1].ready_in.is_some() && targets[0].ready_in.is_none());
    }
}
