//! The hook `key`, called on the request's own thread, and answered from what the thread
//! remembers where it can be.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;

use super::error::CallError;
use super::guest::Blueprint;
use super::local::{self, Slot};
use super::manifest::KeyNeeds;
use super::{Hook, KeyDecision, check};

/// The key hook of one version of a plugin.
pub(super) struct Keys {
    pub(super) blueprint: Arc<Blueprint>,
    pub(super) needs: KeyNeeds,
}

impl Keys {
    /// The decision for a request, from memory or from the guest.
    pub(super) fn derive(
        &self,
        request: &Parts,
        host: &str,
    ) -> Result<Arc<KeyDecision>, CallError> {
        local::with(&self.blueprint, |slot| self.derive_in(slot, request, host))
    }

    fn derive_in(
        &self,
        slot: &mut Slot,
        request: &Parts,
        host: &str,
    ) -> Result<Arc<KeyDecision>, CallError> {
        slot.inputs.clear();
        self.needs.gather(request, host, &mut slot.inputs);
        let metrics = &self.blueprint.metrics;
        if let Some(known) = slot.memo.get(&slot.inputs) {
            metrics.memo_hits.inc();
            return Ok(known);
        }
        metrics.memo_misses.inc();
        let turn = self.blueprint.admit()?;
        let started = Instant::now();
        let answer = self.call(slot);
        self.blueprint.ended(turn, Hook::Key, started, &answer);
        let decision = Arc::new(answer?);
        slot.memo.put(&slot.inputs, decision.clone());
        Ok(decision)
    }

    fn call(&self, slot: &mut Slot) -> Result<KeyDecision, CallError> {
        let timeout = (Hook::Key, self.blueprint.limits.key_timeout);
        let inputs = (self.needs.decode(&slot.inputs),);
        let decision = slot.call(&self.blueprint, timeout, |guest| guest.derive, inputs)?;
        check::key(decision)
    }
}
