//! The hook `key`, called on the request's own thread, or answered from the keys that the thread
//! remembers.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;

use super::error::CallError;
use super::guest::{Guest, GuestBlueprint};
use super::local::{self, ThreadSlot};
use super::log_text::one_line;
use super::manifest::KeyNeeds;
use super::{Hook, KeyDecision, calls, check};

/// The most bytes of an answer that are logged.
const MAX_TOLD: usize = 512;

/// The key hook of one version of a plugin.
pub(super) struct KeyHook {
    pub(super) blueprint: Arc<GuestBlueprint>,
    pub(super) needs: KeyNeeds,
}

impl KeyHook {
    /// The decision for a request, from the thread's memory or from the guest.
    pub(super) fn derive(
        &self,
        request: &Parts,
        host: &str,
    ) -> Result<Arc<KeyDecision>, CallError> {
        local::with(&self.blueprint, |slot| {
            self.derive_in(slot, (request, host))
        })
    }

    fn derive_in(
        &self,
        slot: &mut ThreadSlot,
        (request, host): (&Parts, &str),
    ) -> Result<Arc<KeyDecision>, CallError> {
        slot.inputs.clear();
        self.needs.gather(request, host, &mut slot.inputs);
        let metrics = &self.blueprint.metrics;
        if let Some(known) = slot.memo.get(&slot.inputs) {
            metrics.memo_hits.inc();
            if slot.is_sampled(&self.blueprint.limits) {
                return Ok(self.checked(slot, known, (request, host)));
            }
            return Ok(known);
        }
        metrics.memo_misses.inc();
        let turn = self.blueprint.admit(Hook::Key)?;
        let started = Instant::now();
        let answer = self.call(slot);
        let inputs = || self.inputs(slot, (request, host));
        let call = (Hook::Key, started);
        self.blueprint.ended(turn, call, &answer, inputs);
        let decision = Arc::new(answer?);
        slot.memo.put(&slot.inputs, decision.clone());
        Ok(decision)
    }

    /// Derives a remembered key again, and remembers the new answer. A call that fails is counted
    /// like any other, but the request gets the remembered key.
    #[cold]
    fn checked(
        &self,
        slot: &mut ThreadSlot,
        known: Arc<KeyDecision>,
        request: (&Parts, &str),
    ) -> Arc<KeyDecision> {
        let Ok(turn) = self.blueprint.admit(Hook::Key) else {
            return known;
        };
        let started = Instant::now();
        let answer = self.call(slot);
        let inputs = || self.inputs(slot, request);
        let call = (Hook::Key, started);
        self.blueprint.ended(turn, call, &answer, inputs);
        match answer {
            Ok(now) if now != *known => {
                self.impure(&slot.inputs, &known, &now);
                let now = Arc::new(now);
                slot.memo.put(&slot.inputs, Arc::clone(&now));
                now
            }
            _ => known,
        }
    }

    /// Reports a different answer for the same inputs: then entries may be stored under keys that
    /// are never asked for again, or requests share an entry although they differ.
    fn impure(&self, inputs: &[u8], before: &KeyDecision, now: &KeyDecision) {
        self.blueprint.metrics.impure.inc();
        let Some(dropped) = self.blueprint.log.admit(Instant::now()) else {
            return;
        };
        let told = |decision| one_line(&format!("{decision:?}"), MAX_TOLD);
        let (plugin, inputs) = (
            &*self.blueprint.name,
            self.needs.names_in(inputs).join(", "),
        );
        tracing::warn!(
            plugin,
            inputs,
            before = told(before),
            now = told(now),
            dropped,
            "a key plugin is impure: it gave another key for the same inputs"
        );
    }

    /// The inputs of the last failed call, for people.
    fn inputs(&self, slot: &ThreadSlot, (request, host): (&Parts, &str)) -> serde_json::Value {
        calls::key(request, host, &self.needs.decode(&slot.inputs))
    }

    fn call(&self, slot: &mut ThreadSlot) -> Result<KeyDecision, CallError> {
        let timeout = (Hook::Key, self.blueprint.limits.key_timeout);
        let inputs = (self.needs.decode(&slot.inputs),);
        let derive = |guest: &Guest| guest.derive;
        slot.call(&self.blueprint, timeout, derive, inputs, check::key)
    }
}
