//! Coalescing: one load for each key. The first request leads, the others follow its flight.
//!
//! Flights are found by the look-up key, in a sharded map whose locks are held for a map operation
//! only. A flight ends with a [`FlightOutcome`]. Followers wait for it and may then read the body
//! while it still arrives.
//!
//! Invariant: a [`Leader`] either ends its flight or its `Drop` marks the flight as abandoned, so a
//! lost or panicked leader frees its followers. Only the leader whose flight is in the map removes
//! it, so a late leader never removes another's flight.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::hash::BuildHasher;
use std::sync::{Arc, Weak};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::UnsharedScope;
use crate::entry::{Entry, PurgeAttributes};
use crate::fill::Fill;
use crate::key::{EntryKey, PurgeHash};
use crate::purge::{InvalidationWatch, PurgeLog, PurgeOrder};

/// All flights of the process.
pub struct FlightTable {
    shards: Box<[Mutex<FlightShard>]>,
    hasher: foldhash::fast::RandomState,
}

type FlightShard = HashMap<EntryKey, Arc<Flight>, foldhash::fast::RandomState>;

/// A power of two, larger than the number of cores of any machine.
const SHARDS: usize = 64;

/// One load that is under way.
struct Flight {
    born: PurgeOrder,
    /// The attributes by which purges select it before its head has arrived. The tags come with the
    /// head.
    marks: PurgeAttributes,
    /// Invalidations that leave no record are noted here while the load is under way.
    _watch: InvalidationWatch,
    /// The number of the request that leads; 0 if it has none.
    led_by: u64,
    outcome: watch::Sender<FlightOutcome>,
}

/// The state and outcome of a flight.
#[derive(Clone)]
pub enum FlightOutcome {
    /// The flight has no outcome yet.
    InFlight,
    /// The response may be shared and its body is arriving.
    Streaming(Arc<Fill>),
    /// A whole stored entry: after a 304, or loaded in one piece.
    Stored(Arc<Entry>),
    /// The entry was found in the second tier.
    Promoted(Arc<Entry>),
    /// The response is for the leader's client alone. The same is expected for the requests that
    /// [`UnsharedScope`] includes, so each of these loads on its own.
    Private(UnsharedScope),
    /// The response concerns only the leader's own request and says nothing about others. One of
    /// the followers loads next.
    LeadersOwn,
    /// The load failed. [`LoadFailure::blame`] tells whether it failed for everybody.
    Failed(Arc<LoadFailure>),
    /// The leader was lost. The follower must ask again.
    Abandoned,
}

/// Why a load failed, in terms of the client's status and `Proxy-Status` (RFC 9209).
#[derive(Clone, Debug)]
pub struct LoadFailure {
    pub status: StatusCode,
    pub error: &'static str,
    /// The TLS alert that the origin sent (`alert-id` of RFC 9209 §2.3.17).
    pub alert: Option<u8>,
    /// Seconds for the `Retry-After` field.
    pub retry_after: Option<u32>,
    /// For logs; it is never shown to clients.
    pub detail: String,
    pub stale: StaleUse,
    pub blame: LoadFailureScope,
    /// Further fields for the client.
    pub fields: Option<Box<HeaderMap>>,
    /// There was no response at all: no address, no connection, or the connection was closed.
    pub disconnected: bool,
}

/// Whether a stale copy may be served in place of the response that could not be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StaleUse {
    /// Within its `stale_if_error` window.
    InWindow,
    /// Always, unless the response forbade it: a loader asked for the stale copy.
    Asked,
    Never,
}

/// Which requests a failed load counts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadFailureScope {
    /// Any request would have failed, so those who waited share the failure.
    AnyRequest,
    /// Perhaps this request itself caused it. Another one may succeed.
    PerhapsThisRequest,
}

/// Whether a request leads the load of its key or follows another one.
pub enum LeadOrFollow {
    Lead(Leader),
    Follow(Follower),
}

/// The leading side of a flight, which has to end it.
pub struct Leader {
    flights: Arc<FlightTable>,
    key: EntryKey,
    flight: Arc<Flight>,
}

/// Tells whether anybody waits for the outcome of a flight.
#[derive(Clone)]
pub struct FlightAudience(Weak<Flight>);

/// The waiting side of a flight.
pub struct Follower {
    outcome: watch::Receiver<FlightOutcome>,
    born: PurgeOrder,
    led_by: u64,
}

impl LoadFailure {
    /// A failure for which a stale copy may be served within its window.
    pub fn new(status: StatusCode, error: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            error,
            alert: None,
            fields: None,
            retry_after: None,
            detail: detail.into(),
            stale: StaleUse::InWindow,
            blame: LoadFailureScope::AnyRequest,
            disconnected: false,
        }
    }

    /// The same failure with this scope.
    pub fn blamed_on(self, blame: LoadFailureScope) -> Self {
        Self { blame, ..self }
    }
}

impl Default for FlightTable {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shards,
            hasher: Default::default(),
        }
    }
}

impl FlightTable {
    /// Joins the flight for `key`, or becomes its leader. A flight that began before a purge which
    /// reaches it takes no more followers; the new request leads instead. `number` is the number of
    /// the request; the followers of its load can read it.
    pub fn lead_or_follow(
        self: &Arc<Self>,
        key: &EntryKey,
        number: u64,
        marks: impl FnOnce() -> PurgeAttributes,
        log: &PurgeLog,
    ) -> LeadOrFollow {
        let mut shard = self.shard(key).lock();
        match shard.entry(key.clone()) {
            Place::Occupied(mut place) => match place.get() {
                flight if !flight.is_overtaken(log) => LeadOrFollow::Follow(flight.follow()),
                _ => {
                    let flight = Flight::new(log, marks(), number);
                    place.insert(Arc::clone(&flight));
                    LeadOrFollow::Lead(self.leader(key, flight))
                }
            },
            Place::Vacant(place) => {
                let flight = Flight::new(log, marks(), number);
                place.insert(Arc::clone(&flight));
                LeadOrFollow::Lead(self.leader(key, flight))
            }
        }
    }

    /// Leads a load that nobody follows, whether there is a flight for `key` or not. Like every
    /// load, it begins at the current place in the order of purges.
    pub fn lead_apart(
        self: &Arc<Self>,
        key: &EntryKey,
        marks: PurgeAttributes,
        log: &PurgeLog,
    ) -> Leader {
        self.leader(key, Flight::new(log, marks, 0))
    }

    /// The number of flights.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn leader(self: &Arc<Self>, key: &EntryKey, flight: Arc<Flight>) -> Leader {
        Leader {
            flights: Arc::clone(self),
            key: key.clone(),
            flight,
        }
    }

    fn shard(&self, key: &EntryKey) -> &Mutex<FlightShard> {
        let hash: PurgeHash = self.hasher.hash_one(key);
        &self.shards[hash as usize & (SHARDS - 1)]
    }

    fn remove(&self, key: &EntryKey, flight: &Arc<Flight>) {
        let mut shard = self.shard(key).lock();
        if shard.get(key).is_some_and(|held| Arc::ptr_eq(held, flight)) {
            shard.remove(key);
        }
    }
}

impl Flight {
    fn new(log: &PurgeLog, marks: PurgeAttributes, led_by: u64) -> Arc<Self> {
        // This must come first: whatever is invalidated after the flight's place in the order must
        // be noted.
        let watch = log.watch(&marks);
        Arc::new(Self {
            born: log.order(),
            marks,
            _watch: watch,
            led_by,
            outcome: watch::Sender::new(FlightOutcome::InFlight),
        })
    }

    /// Whether a purge reaches the flight. Once the head has arrived, the attributes of the
    /// response (its tags) are used.
    fn is_overtaken(&self, log: &PurgeLog) -> bool {
        match &*self.outcome.borrow() {
            FlightOutcome::Streaming(fill) => log.hides(&fill.head.marks, self.born),
            _ => log.hides(&self.marks, self.born),
        }
    }

    fn follow(&self) -> Follower {
        Follower {
            outcome: self.outcome.subscribe(),
            born: self.born,
            led_by: self.led_by,
        }
    }
}

impl Leader {
    /// The place in the order of purges at which the load began.
    pub fn born(&self) -> PurgeOrder {
        self.flight.born
    }

    /// The attributes by which purges select the load.
    pub fn marks(&self) -> &PurgeAttributes {
        &self.flight.marks
    }

    pub fn key(&self) -> &EntryKey {
        &self.key
    }

    /// Lets the leader's own client wait like a follower.
    pub fn follow(&self) -> Follower {
        self.flight.follow()
    }

    /// Lets followers read the body while it arrives. The flight accepts more followers until the
    /// leader is dropped, which happens when the entry has been admitted.
    pub fn stream(&self, fill: Arc<Fill>) {
        self.flight
            .outcome
            .send_replace(FlightOutcome::Streaming(fill));
    }

    /// Makes a load that was begun apart the flight of its key. False: there is another flight
    /// whose response is already arriving; requests follow that one.
    pub fn takes_followers(&self) -> bool {
        let mut shard = self.flights.shard(&self.key).lock();
        match shard.entry(self.key.clone()) {
            Place::Vacant(place) => {
                place.insert(Arc::clone(&self.flight));
                true
            }
            Place::Occupied(mut place) => {
                let waits = matches!(*place.get().outcome.borrow(), FlightOutcome::InFlight);
                if waits {
                    place.insert(Arc::clone(&self.flight));
                }
                waits
            }
        }
    }

    /// Waits until nobody waits for the outcome any more: each follower has continued with it, or
    /// left.
    pub async fn all_followed(&self) {
        self.flight.outcome.closed().await;
    }

    /// Those who wait for the outcome, now and later.
    pub fn audience(&self) -> FlightAudience {
        FlightAudience(Arc::downgrade(&self.flight))
    }

    /// Ends the flight. What is stored must be in L1 already: a later request then finds it there
    /// or leads a new load.
    pub fn land(self, outcome: FlightOutcome) {
        self.flights.remove(&self.key, &self.flight);
        self.flight.outcome.send_replace(outcome);
    }
}

impl FlightAudience {
    /// Whether somebody waits now: the client of the leader, or a follower.
    pub fn waits(&self) -> bool {
        let flight = self.0.upgrade();
        flight.is_some_and(|flight| flight.outcome.receiver_count() > 0)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.flights.remove(&self.key, &self.flight);
        self.flight.outcome.send_if_modified(|outcome| {
            let lost = matches!(outcome, FlightOutcome::InFlight);
            if lost {
                *outcome = FlightOutcome::Abandoned;
            }
            lost
        });
    }
}

impl Follower {
    /// The number of the request that leads; 0 if none was noted.
    pub fn led_by(&self) -> u64 {
        self.led_by
    }

    /// Waits until the flight has an outcome.
    pub async fn outcome(&mut self) -> FlightOutcome {
        let landed = self
            .outcome
            .wait_for(|outcome| !matches!(outcome, FlightOutcome::InFlight))
            .await;
        // A closed channel means that the leader ended without an outcome, which its `Drop`
        // prevents.
        landed.map_or(FlightOutcome::Abandoned, |outcome| outcome.clone())
    }

    /// The place in the order of purges at which the load began.
    pub fn born(&self) -> PurgeOrder {
        self.born
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{CacheKeyField, KeyBuf};
    use crate::purge::{PurgeKind, Selector};

    fn key(text: &str) -> EntryKey {
        let mut key = KeyBuf::default();
        key.push(CacheKeyField::Path, text.as_bytes());
        key.to_key()
    }

    fn failed() -> FlightOutcome {
        FlightOutcome::Failed(Arc::new(LoadFailure::new(StatusCode::BAD_GATEWAY, "x", "")))
    }

    fn lead(flights: &Arc<FlightTable>, log: &PurgeLog) -> Leader {
        match flights.lead_or_follow(&key("a"), 0, PurgeAttributes::default, log) {
            LeadOrFollow::Lead(leader) => leader,
            LeadOrFollow::Follow(_) => panic!("somebody leads already"),
        }
    }

    fn follow(flights: &Arc<FlightTable>, log: &PurgeLog) -> Follower {
        match flights.lead_or_follow(&key("a"), 0, PurgeAttributes::default, log) {
            LeadOrFollow::Follow(follower) => follower,
            LeadOrFollow::Lead(_) => panic!("nobody leads"),
        }
    }

    #[tokio::test]
    async fn one_leads_and_the_others_get_what_it_lands() {
        let (flights, log) = (
            Arc::new(FlightTable::default()),
            PurgeLog::new(10, std::time::Duration::ZERO),
        );
        let leader = lead(&flights, &log);
        let mut followers: Vec<_> = (0..100).map(|_| follow(&flights, &log)).collect();
        leader.land(failed());
        for follower in &mut followers {
            assert!(matches!(follower.outcome().await, FlightOutcome::Failed(_)));
        }
        assert_eq!(flights.count(), 0);
    }

    #[tokio::test]
    async fn a_lost_leader_frees_its_followers() {
        let (flights, log) = (
            Arc::new(FlightTable::default()),
            PurgeLog::new(10, std::time::Duration::ZERO),
        );
        let leader = lead(&flights, &log);
        let mut follower = follow(&flights, &log);
        let task = tokio::spawn(async move {
            let _leader = leader;
            panic!("as a bug would");
        });
        assert!(task.await.is_err());
        assert!(matches!(follower.outcome().await, FlightOutcome::Abandoned));
        drop(lead(&flights, &log));
    }

    #[tokio::test]
    async fn a_load_apart_takes_the_place_of_one_that_has_no_answer_yet() {
        let (flights, log) = (
            Arc::new(FlightTable::default()),
            PurgeLog::new(10, std::time::Duration::ZERO),
        );
        let slow = lead(&flights, &log);
        let mut waiting = follow(&flights, &log);
        let apart = flights.lead_apart(&key("a"), PurgeAttributes::default(), &log);
        assert!(apart.takes_followers());
        let mut follower = follow(&flights, &log);
        apart.land(failed());
        assert!(matches!(follower.outcome().await, FlightOutcome::Failed(_)));
        slow.land(FlightOutcome::LeadersOwn);
        assert!(matches!(waiting.outcome().await, FlightOutcome::LeadersOwn));
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn a_flight_that_a_purge_reaches_takes_no_more_followers() {
        let (flights, log) = (
            Arc::new(FlightTable::default()),
            PurgeLog::new(10, std::time::Duration::ZERO),
        );
        let old = lead(&flights, &log);
        log.record(&Selector::All, PurgeKind::Hard);
        let new = lead(&flights, &log);
        assert!(new.born() > old.born());
        old.land(failed());
        drop(follow(&flights, &log));
        drop(new);
        assert_eq!(
            flights.count(),
            0,
            "the old leader did not take the new flight away"
        );
    }
}
