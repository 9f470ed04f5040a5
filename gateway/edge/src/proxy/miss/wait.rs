//! A request's wait for the result of its load, within its wait budget.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use super::flight_outcome::{self, fallback_now};
use super::join::FlightPlace;
use super::patience::WaitBudget;
use super::stale::StaleSituation;
use super::{Miss, RequestStep};
use crate::cache::coalesce::FlightOutcome;
use crate::cache::entry::Entry;

/// How a wait ended.
pub(super) enum FlightWaitOutcome {
    Landed(FlightOutcome),
    /// The soft timeout has passed; this stale copy may be served.
    Soft(Arc<Entry>),
    /// The load takes longer than the request waits.
    Long,
}

pub(super) async fn wait(miss: &mut Miss, mut place: FlightPlace) -> RequestStep {
    let waited = for_landing(miss, &mut place, &miss.patience).await;
    flight_outcome::next(miss, place, waited).await
}

/// Waits for the end of the flight, at most as long as this request may wait.
pub(super) async fn for_landing(
    miss: &Miss,
    place: &mut FlightPlace,
    patience: &WaitBudget,
) -> FlightWaitOutcome {
    let will_do = |copy: &super::StaleCopy| {
        let verdict = copy.verdict(StaleSituation::SoftTimeout, &miss.ask, Instant::now());
        verdict.reason().is_some()
    };
    let usable = miss.stale.as_ref().filter(|copy| will_do(copy));
    let may_come = usable.is_some() || miss.proxy.cache.second_tier().is_some();
    let soft = miss.ask.route.policy.soft_timeout.filter(|_| may_come);
    let soft = soft.and_then(|soft| patience.after(soft));
    // A leader's client waits for its own load, which has a deadline of its own.
    let long = patience.ends().filter(|_| !place.leads());
    let (mut soft, mut long) = (pin!(at(soft)), pin!(at(long)));
    let mut patient = true;
    loop {
        tokio::select! {
            biased;
            outcome = place.follower.outcome() => return FlightWaitOutcome::Landed(outcome),
            () = &mut soft, if patient => match (miss.shown().filter(|copy| will_do(copy)), usable) {
                (Some(copy), _) => return FlightWaitOutcome::Soft(Arc::clone(&copy.entry)),
                (None, Some(_)) => return FlightWaitOutcome::Long,
                // Meanwhile the load may have found a copy in the second tier.
                (None, None) => match fallback_now(miss).filter(will_do) {
                    Some(copy) => return FlightWaitOutcome::Soft(copy.entry),
                    None => patient = false,
                },
            },
            () = &mut long => return FlightWaitOutcome::Long,
        }
    }
}

/// Waits until this moment, or for ever if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
