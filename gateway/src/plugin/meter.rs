//! What an instance takes: its linear memory, its tables, and that it exists.

use prometheus::IntGauge;
use wasmtime::ResourceLimiter;

use super::engine::MAX_TABLE_ELEMENTS;

/// Ends a guest that wants too much.
#[derive(Debug, thiserror::Error)]
#[error("out of memory")]
struct Exceeded;

/// Counts the linear memory of one instance.
pub(super) struct Memory {
    pub(super) used: usize,
    limit: usize,
    /// What was asked for and what is allowed, once that was too much.
    pub(super) exceeded: Option<(usize, usize)>,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            used: 0,
            limit,
            exceeded: None,
        }
    }

    fn exceed(&mut self, asked: usize, limit: usize) -> wasmtime::Result<bool> {
        self.exceeded = Some((asked, limit));
        Err(wasmtime::Error::new(Exceeded))
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let asked = (self.used - current.min(self.used)).saturating_add(desired);
        if asked > self.limit {
            return self.exceed(asked, self.limit);
        }
        self.used = asked;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        match desired > MAX_TABLE_ELEMENTS {
            true => self.exceed(desired, MAX_TABLE_ELEMENTS),
            false => Ok(true),
        }
    }
}

/// One in the gauge of live instances, until it is dropped.
pub(super) struct Live(IntGauge);

impl Live {
    pub(super) fn new(instances: &IntGauge) -> Self {
        instances.inc();
        Self(instances.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.dec();
    }
}
