//! Maintenance: for a while a route answers 503 with a page, and asks no origin.
//!
//! It is switched by the configuration, or by an operator at run time. What an operator says lasts
//! until it is taken back, its time is over, or the process ends; a reload does not change it.

pub mod config;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::pages::{self, PageFile, PageReader};
use super::request_id::RequestId;
use crate::http::cidr::Cidr;
use crate::proxy::counted::{AnsweringRule, CountedResponse};
use crate::proxy::metrics::RequestOutcome;
use config::{MaintenanceConfig, MaintenanceServing};

/// The maintenance of one route.
pub struct RouteMaintenance {
    is_configured: bool,
    allow: Box<[Cidr]>,
    serve: MaintenanceServing,
    page: Option<PageFile>,
    retry_after: Option<Duration>,
    pub switch: Arc<MaintenanceSwitch>,
}

/// What an operator has said of a route, which outlives configurations.
#[derive(Default)]
pub struct MaintenanceSwitch {
    is_set: AtomicBool,
    order: Mutex<Option<MaintenanceOrder>>,
}

/// What an operator says.
#[derive(Clone, Debug)]
pub struct MaintenanceOrder {
    pub state: MaintenanceState,
    /// None: until something else is said.
    pub until: Option<Instant>,
    /// Networks whose clients are served all the same, beside those of the configuration.
    pub allow: Vec<Cidr>,
}

/// Whether a route is under maintenance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaintenanceState {
    On,
    Off,
}

/// Marks a request that only what is stored may answer, in its extensions.
#[derive(Clone, Copy, Debug)]
struct OnlyStored;

impl MaintenanceSwitch {
    /// Follows an order. None: what the configuration says holds again.
    pub fn set(&self, order: Option<MaintenanceOrder>) {
        let mut held = self.order.lock();
        self.is_set.store(order.is_some(), Ordering::Relaxed);
        *held = order;
    }

    /// The order that holds now.
    pub fn order(&self, now: Instant) -> Option<MaintenanceOrder> {
        if !self.is_set.load(Ordering::Relaxed) {
            return None;
        }
        let held = self.order.lock();
        let holds = |order: &&MaintenanceOrder| order.until.is_none_or(|until| now < until);
        held.as_ref().filter(holds).cloned()
    }
}

impl RouteMaintenance {
    /// The maintenance of a route whose switch may be older.
    pub fn new(config: &MaintenanceConfig, switch: Arc<MaintenanceSwitch>) -> Self {
        let allow = config.allow.iter();
        Self {
            is_configured: config.enabled,
            allow: allow.filter_map(|network| network.parse().ok()).collect(),
            serve: config.serve,
            page: config.file.as_ref().map(PageFile::new),
            retry_after: config.retry_after.map(Duration::from),
            switch,
        }
    }

    /// Whether it may be on: without a look at anything but two flags.
    pub fn may_be_on(&self) -> bool {
        self.is_configured || self.switch.is_set.load(Ordering::Relaxed)
    }

    /// Whether it is on, and until when if that is known.
    pub fn state(&self, now: Instant) -> (MaintenanceState, Option<Instant>) {
        match self.switch.order(now) {
            Some(order) => (order.state, order.until),
            None if self.is_configured => (MaintenanceState::On, None),
            None => (MaintenanceState::Off, None),
        }
    }

    /// The answer to a request, if it gets none but the page. One that what is stored may answer is
    /// marked.
    pub fn answer(
        &self,
        parts: &mut Parts,
        client: Option<IpAddr>,
        now: Instant,
    ) -> Option<CountedResponse> {
        if !self.may_be_on() || self.state(now).0 == MaintenanceState::Off {
            return None;
        }
        let also = self.switch.order(now).map(|order| order.allow);
        let allow = self.allow.iter().chain(also.iter().flatten());
        let mut allow =
            allow.filter(|network| client.is_some_and(|client| network.contains(client)));
        if allow.next().is_some() {
            return None;
        }
        if self.serve == MaintenanceServing::Cached {
            parts.extensions.insert(OnlyStored);
            return None;
        }
        Some(self.page(parts, now))
    }

    /// Whether it is on, and meanwhile no client is served, nor anything that is stored.
    pub fn is_for_everybody(&self, now: Instant) -> bool {
        let is_on = self.may_be_on() && self.state(now).0 == MaintenanceState::On;
        let order = self.switch.order(now);
        let lets_in = !self.allow.is_empty() || order.is_some_and(|order| !order.allow.is_empty());
        is_on && !lets_in && self.serve == MaintenanceServing::Nothing
    }

    /// The page for a request that only what is stored may answer. None: it may go on.
    pub fn page_instead_of_a_load(&self, parts: &Parts, now: Instant) -> Option<CountedResponse> {
        wants_only_stored(parts).then(|| self.page(parts, now))
    }

    fn page(&self, parts: &Parts, now: Instant) -> CountedResponse {
        let id = parts.extensions.get::<RequestId>();
        let reader = PageReader::of(&parts.headers, id.map(|RequestId(id)| id.clone()));
        let left = self.state(now).1.map(|until| until.duration_since(now));
        let mut headers = HeaderMap::new();
        if let Some(wait) = self.retry_after.or(left) {
            headers.insert(RETRY_AFTER, whole_seconds(wait).max(1).into());
        }
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let response = pages::told(status, headers, self.page.as_ref(), &reader);
        CountedResponse::new(response, RequestOutcome::Error).by(AnsweringRule::Maintenance)
    }

    /// The maintenance in words. None: it is off.
    pub fn describe(&self, now: Instant) -> Option<String> {
        if !self.may_be_on() {
            return None;
        }
        let (state, until) = self.state(now);
        let left = until.map(|until| whole_seconds(until.duration_since(now)));
        let left = left.map_or(String::new(), |seconds| format!(" for {seconds} s"));
        let shown = match self.serve {
            MaintenanceServing::Nothing => "",
            MaintenanceServing::Cached => ", what is stored is served",
        };
        match state {
            MaintenanceState::On => Some(format!("maintenance: on{left}{shown}")),
            MaintenanceState::Off => Some(format!("maintenance: off{left}, by an operator")),
        }
    }
}

/// A time in seconds, rounded up, so that nobody comes back too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Whether only what is stored may answer a request, however stale it is.
pub fn wants_only_stored(parts: &Parts) -> bool {
    parts.extensions.get::<OnlyStored>().is_some()
}
