//! What operators say about a target, which is kept apart from what is observed of it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lamina_base::tls::read_regular;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What an operator wants of a target.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdministrativeState {
    /// It gets requests.
    #[default]
    Ready,
    /// It gets no new requests; those under way end.
    Drain,
    /// As `Drain`; its idle connections are closed, and it is not checked.
    Out,
}

/// What operators have said about one target.
pub(super) struct TargetControl(Mutex<ControlOrder>);

/// The last order about a target.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct ControlOrder {
    pub(super) state: AdministrativeState,
    /// When the target is ready again by itself.
    pub(super) until: Option<Instant>,
}

/// The orders about all targets of the process, which outlive configurations, and the process if that
/// was asked.
#[derive(Default)]
pub struct TargetOrders {
    orders: Mutex<HashMap<TargetKey, StandingOrder>>,
    /// Where orders are kept that outlive the process. None: there is no folder for it.
    file: Option<PathBuf>,
}

/// Upstream and target.
type TargetKey = (String, String);

#[derive(Clone, Copy, Debug)]
struct StandingOrder {
    order: ControlOrder,
    lifetime: OrderLifetime,
}

/// What an order outlives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderLifetime {
    /// Configurations.
    Process,
    /// The process, too.
    Kept,
}

/// An order as it is kept in the file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct KeptOrder {
    state: AdministrativeState,
    /// In seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

/// The content of the file: orders by upstream and target.
type KeptOrders = BTreeMap<String, BTreeMap<String, KeptOrder>>;

impl TargetOrders {
    /// Reads the orders that an earlier process has kept in this file. A file that can't be read is
    /// told in the log, and counts as empty.
    pub fn open(file: Option<PathBuf>) -> Self {
        let mut orders = HashMap::new();
        if let Some(file) = &file {
            match read(file) {
                Ok(kept) => orders.extend(standing(kept)),
                Err(error) => {
                    let file = file.display();
                    tracing::warn!(%file, %error, "the kept states of targets can't be read; all targets are ready");
                }
            }
        }
        Self {
            orders: Mutex::new(orders),
            file,
        }
    }

    /// The order about a target, if there is one that still holds.
    pub(super) fn get(&self, upstream: &str, target: &str) -> Option<ControlOrder> {
        let orders = self.orders.lock();
        let standing = orders.get(&(upstream.to_owned(), target.to_owned()))?;
        let is_over = standing
            .order
            .until
            .is_some_and(|until| until <= Instant::now());
        (!is_over).then_some(standing.order)
    }

    /// Notes an order.
    ///
    /// # Errors
    /// If it can't be kept for the next process; for this one it holds.
    pub(super) fn note(
        &self,
        (upstream, target): (&str, &str),
        order: ControlOrder,
        lifetime: OrderLifetime,
    ) -> io::Result<()> {
        let mut orders = self.orders.lock();
        let now = Instant::now();
        orders.retain(|_, standing| standing.order.until.is_none_or(|until| until > now));
        let key = (upstream.to_owned(), target.to_owned());
        let standing = StandingOrder { order, lifetime };
        let before = match order.state {
            AdministrativeState::Ready => orders.remove(&key),
            AdministrativeState::Drain | AdministrativeState::Out => orders.insert(key, standing),
        };
        let was_kept = before.is_some_and(|before| before.lifetime == OrderLifetime::Kept);
        match (lifetime, was_kept) {
            (OrderLifetime::Process, false) => Ok(()),
            (OrderLifetime::Kept, _) | (_, true) => self.write(&orders),
        }
    }

    fn write(&self, orders: &HashMap<TargetKey, StandingOrder>) -> io::Result<()> {
        let file = self.file.as_ref().ok_or_else(|| {
            io::Error::other("there is no folder for it; set LAMINA_CACHE_DIR or HOME")
        })?;
        let mut kept = KeptOrders::new();
        for ((upstream, target), standing) in orders {
            if standing.lifetime == OrderLifetime::Kept {
                let of_upstream = kept.entry(upstream.clone()).or_default();
                of_upstream.insert(target.clone(), KeptOrder::from(standing.order));
            }
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let unfinished = file.with_extension("json.new");
        fs::write(&unfinished, serde_json::to_vec_pretty(&kept)?)?;
        fs::rename(unfinished, file)
    }
}

fn read(file: &Path) -> io::Result<KeptOrders> {
    match read_regular(file) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(KeptOrders::new()),
        Err(error) => Err(error),
    }
}

fn standing(kept: KeptOrders) -> impl Iterator<Item = (TargetKey, StandingOrder)> {
    kept.into_iter().flat_map(|(upstream, targets)| {
        targets.into_iter().map(move |(target, kept)| {
            let standing = StandingOrder {
                order: ControlOrder::from(kept),
                lifetime: OrderLifetime::Kept,
            };
            ((upstream.clone(), target), standing)
        })
    })
}

impl From<ControlOrder> for KeptOrder {
    fn from(order: ControlOrder) -> Self {
        let until = order
            .left(Instant::now())
            .map(|left| SystemTime::now() + left);
        let until = until.and_then(|until| until.duration_since(UNIX_EPOCH).ok());
        Self {
            state: order.state,
            until: until.map(|until| until.as_secs()),
        }
    }
}

impl From<KeptOrder> for ControlOrder {
    fn from(kept: KeptOrder) -> Self {
        let instant = |until| {
            let until = UNIX_EPOCH.checked_add(Duration::from_secs(until))?;
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            Instant::now().checked_add(left)
        };
        Self {
            state: kept.state,
            // One that no clock can show holds until the next order.
            until: kept.until.and_then(instant),
        }
    }
}

impl AdministrativeState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Out => "out",
        }
    }
}

impl TargetControl {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) fn state(&self) -> AdministrativeState {
        self.0.lock().state
    }

    pub(super) fn order(&self) -> ControlOrder {
        *self.0.lock()
    }

    /// Follows an order. Returns the state before.
    pub(super) fn follow(&self, order: ControlOrder) -> AdministrativeState {
        std::mem::replace(&mut *self.0.lock(), order).state
    }

    /// Makes the target ready if the time of its order is over. Returns the state before if so.
    pub(super) fn expire(&self, now: Instant) -> Option<AdministrativeState> {
        let mut order = self.0.lock();
        order.until.filter(|until| *until <= now)?;
        Some(std::mem::take(&mut *order).state)
    }
}

impl ControlOrder {
    /// How long it still holds. None: until the next order.
    pub(super) fn left(self, now: Instant) -> Option<Duration> {
        let until = self.until?;
        Some(until.saturating_duration_since(now))
    }
}
