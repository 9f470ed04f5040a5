//! The life of a miss: from the look-up that found nothing to serve, to the answer.
//!
//! A miss goes step by step through two tasks. The request's own task looks for an answer that
//! needs no load, joins a load of the same key or leads one, and waits ([`answer`]). The task of
//! the load looks into the second tier, asks the source, judges the answer and publishes it to all
//! who wait ([`MissLoad::run`](load::MissLoad::run)); it continues when its client leaves.
//! [`EXITS`] lists every step that may follow another; debug builds check each miss against it.
//!
//! If the leader's answer or failure concerned only its own request, one of the waiting requests
//! loads next and the others follow it, until one gets an answer that may be shared. So no request
//! gets a result that another one caused, and the origin never gets all of them at once.

mod combine;
mod flight_outcome;
mod join;
pub mod judge;
mod keep_private;
pub mod load;
mod look;
mod pass_on;
mod patience;
mod plain;
pub mod publish;
pub mod ranges;
mod refresh;
pub mod renew;
mod second_tier;
mod side_by_side;
pub mod source;
pub mod source_response;
pub mod stale;
mod wait;

use std::sync::Arc;

use lamina_base::turn_clock;

use join::FlightPlace;
use patience::WaitBudget;
use stale::StaleCopy;

pub use flight_outcome::lost;
pub use refresh::refresh;

use crate::cache::Lookup;
use crate::cache::entry::Entry;
use crate::cache::event::UncoalescedReason;
use crate::cache::key::EntryKey;
use crate::http::cache_status::ForwardReason;
use crate::proxy::context::{DerivedKey, RequestContext};
use crate::proxy::counted::CountedResponse;
use crate::proxy::lookup::missing;
use crate::proxy::{Proxy, plan};

/// One step of a miss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MissStep {
    /// The request looks for what may answer it without a load.
    Look,
    /// It follows the load of its key, or leads one.
    JoinOrLead,
    /// It waits for the result of the load.
    Wait,
    /// It loads beside others, without waiting for them.
    SideBySide,
    /// It is sent to the source as it is, for its client alone.
    PassOn,
    /// It has its answer.
    Answered,
    /// The load looks into the second tier, and waits for its lease among the nodes.
    SecondTier,
    /// It asks the origin or the loader.
    Source,
    /// It decides which of the waiting requests may use the answer, and whether it is stored.
    Judge,
    /// A 304 renews the stored response.
    Renew,
    /// The body streams to all who wait, and is stored.
    Publish,
    /// The answer is for the leader's client alone.
    KeepPrivate,
    /// The load failed.
    Fail,
    /// The flight has ended: all who waited know the result.
    Landed,
}

use MissStep::{
    Answered, Fail, JoinOrLead, Judge, KeepPrivate, Landed, Look, PassOn, Publish, Renew,
    SecondTier, SideBySide, Source, Wait,
};

/// The steps that may follow each step: first those of the request's task, then those of the
/// load's task.
pub const EXITS: [(MissStep, &[MissStep]); 14] = [
    (Look, &[Answered, JoinOrLead, SideBySide, PassOn]),
    (JoinOrLead, &[Answered, Wait]),
    (Wait, &[Answered, JoinOrLead, SideBySide, PassOn]),
    (SideBySide, &[Answered, PassOn]),
    (PassOn, &[Answered]),
    (Answered, &[]),
    (SecondTier, &[Source, Fail, Landed]),
    (Source, &[Judge, Fail, Landed]),
    (Judge, &[Publish, Renew, KeepPrivate, Fail, Landed]),
    (Renew, &[KeepPrivate, Landed]),
    (Publish, &[Landed]),
    (KeepPrivate, &[Landed]),
    (Fail, &[Landed]),
    (Landed, &[]),
];

/// A request whose answer must be loaded.
pub struct Miss {
    pub proxy: Arc<Proxy>,
    pub ask: Arc<RequestContext>,
    pub keyed: DerivedKey,
    /// The key of its load.
    pub key: EntryKey,
    /// A stored copy to validate or to fall back on.
    pub stale: Option<StaleCopy>,
    /// Why it is not answered from the cache.
    pub reason: ForwardReason,
    pub kind: LoadKind,
    patience: WaitBudget,
}

/// How much of a representation is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadKind {
    Whole,
    /// Only the range that the request asks for (see [`ranges`]).
    Range,
}

/// What a request does next.
#[allow(
    clippy::large_enum_variant,
    reason = "each is moved once, from the function that makes it to the one that takes it"
)]
enum RequestStep {
    Look(Lookup),
    JoinOrLead,
    Wait(FlightPlace),
    SideBySide(UncoalescedReason),
    /// With the detail for `Cache-Status`.
    PassOn(Option<&'static str>),
    Answered(CountedResponse),
}

impl RequestStep {
    fn step(&self) -> MissStep {
        match self {
            Self::Look(_) => Look,
            Self::JoinOrLead => JoinOrLead,
            Self::Wait(_) => Wait,
            Self::SideBySide(_) => SideBySide,
            Self::PassOn(_) => PassOn,
            Self::Answered(_) => Answered,
        }
    }
}

/// Gets the answer to a request that L1 could not answer.
pub async fn answer(
    proxy: &Arc<Proxy>,
    ask: Arc<RequestContext>,
    keyed: DerivedKey,
    found: Lookup,
) -> CountedResponse {
    let mut miss = Miss::new(proxy, ask, keyed, &found);
    let mut next = RequestStep::Look(found);
    loop {
        let now = next.step();
        next = match next {
            RequestStep::Look(found) => look::look(&mut miss, &found).await,
            RequestStep::JoinOrLead => join::join_or_lead(&miss),
            RequestStep::Wait(place) => wait::wait(&mut miss, place).await,
            // In boxes, since most misses take neither.
            RequestStep::SideBySide(why) => Box::pin(side_by_side::load(&mut miss, why)).await,
            RequestStep::PassOn(detail) => Box::pin(pass_on::pass_on(&miss, detail)).await,
            RequestStep::Answered(served) => return served,
        };
        debug_assert!(now.leads_to(next.step()), "{now:?} to {:?}", next.step());
    }
}

impl MissStep {
    /// Whether `next` may follow this step.
    fn leads_to(self, next: Self) -> bool {
        let mut exits = EXITS.iter();
        exits.any(|(step, exits)| *step == self && exits.contains(&next))
    }
}

impl Miss {
    fn new(
        proxy: &Arc<Proxy>,
        ask: Arc<RequestContext>,
        keyed: DerivedKey,
        found: &Lookup,
    ) -> Self {
        let key = match found {
            Lookup::Miss(key, _) => key.clone(),
            Lookup::Fresh(entry) | Lookup::Stale(entry, _) => entry.key.clone(),
        };
        Self {
            stale: StaleCopy::of(found),
            reason: missing(found),
            patience: WaitBudget::new(proxy.cache.rules().wait_timeout),
            proxy: Arc::clone(proxy),
            ask,
            keyed,
            key,
            kind: LoadKind::Whole,
        }
    }

    /// The stale copy, unless a purge has hidden it since the look-up.
    fn shown(&self) -> Option<&StaleCopy> {
        let stale = self.stale.as_ref();
        stale.filter(|copy| self.proxy.cache.shows(&copy.entry))
    }

    /// A fresh answer that was stored after the look-up.
    fn stored_since(&self) -> Option<Arc<Entry>> {
        let (route, parts, now) = (&self.ask.route, &self.ask.parts, turn_clock::now());
        let cache = &self.proxy.cache;
        let found = cache.fresh_again(&self.keyed.key, &parts.headers, now)?;
        plan::satisfies(route, parts, &found, now).then_some(found)
    }

    /// Whether the requested range may be loaded by itself.
    fn may_load_range(&self) -> bool {
        self.kind == LoadKind::Whole && self.stale.is_none() && ranges::loadable(&self.ask)
    }

    /// Makes the load fetch only the requested range, and not the whole.
    fn load_range(&mut self) {
        self.kind = LoadKind::Range;
        self.key = ranges::load_key(&self.key, &self.ask.parts);
    }

    /// Makes the request load another variant, the one that it needs.
    fn load_variant(&mut self, variant: EntryKey) {
        self.key = match self.kind {
            LoadKind::Range => ranges::load_key(&variant, &self.ask.parts),
            LoadKind::Whole => variant,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_in_the_table_once_can_be_reached_and_has_an_end() {
        let begins = [Look, SecondTier];
        let ends = [Answered, Landed];
        for (at, (step, exits)) in EXITS.iter().enumerate() {
            assert_eq!(*step as usize, at, "the table has the order of the steps");
            let is_reached = EXITS.iter().any(|(_, exits)| exits.contains(step));
            assert_eq!(is_reached, !begins.contains(step), "{step:?}");
            assert_eq!(exits.is_empty(), ends.contains(step), "{step:?}");
        }
        assert!(Wait.leads_to(JoinOrLead) && !Answered.leads_to(Look));
    }
}
