//! Counts what an instance takes: its linear memory, its tables, and the instance itself; and what
//! the instances of all plugins take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use prometheus::IntGauge;
use wasmtime::ResourceLimiter;

use super::engine::MAX_TABLE_ELEMENTS;
use super::error::{CallError, ExceededResource};
use crate::units::ByteSize;

/// Stops a guest that asks for too much.
#[derive(Debug, thiserror::Error)]
#[error("out of memory")]
struct OutOfMemory;

/// The linear memory of the instances of all plugins.
pub(super) struct TotalMemory {
    used: AtomicUsize,
    /// In bytes.
    limit: AtomicU64,
}

impl TotalMemory {
    pub(super) fn new(limit: ByteSize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit: AtomicU64::new(limit.0),
        }
    }

    /// Sets another limit. What is in use above it is not taken away.
    pub(super) fn set_limit(&self, limit: ByteSize) {
        self.limit.store(limit.0, Relaxed);
    }

    fn limit(&self) -> ByteSize {
        ByteSize(self.limit.load(Relaxed))
    }

    /// Whether so little memory is left that instances are not kept between calls.
    pub(super) fn is_scarce(&self) -> bool {
        let limit = self.limit().as_usize();
        self.used.load(Relaxed) > limit - limit / SCARCE
    }

    /// Reserves this many bytes more. False: they are not available.
    fn take(&self, bytes: usize) -> bool {
        let taken = |used: usize| {
            let used = used.checked_add(bytes)?;
            (used <= self.limit().as_usize()).then_some(used)
        };
        self.used.fetch_update(Relaxed, Relaxed, taken).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// When less than this fraction (1/4) of the memory for all is free, it is reserved for running
/// calls.
const SCARCE: usize = 4;

/// Counts the linear memory of one instance, until it is dropped.
pub(super) struct InstanceMemory {
    pub(super) used: usize,
    limit: usize,
    pub(super) total: Arc<TotalMemory>,
    /// The limit that was exceeded, as an error.
    pub(super) exceeded: Option<CallError>,
}

impl InstanceMemory {
    pub(super) fn new(limit: usize, total: Arc<TotalMemory>) -> Self {
        Self {
            used: 0,
            limit,
            total,
            exceeded: None,
        }
    }

    fn exceed(&mut self, why: CallError) -> wasmtime::Result<bool> {
        self.exceeded = Some(why);
        Err(wasmtime::Error::new(OutOfMemory))
    }
}

impl Drop for InstanceMemory {
    fn drop(&mut self) {
        self.total.give_back(self.used);
    }
}

impl ResourceLimiter for InstanceMemory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let asked = (self.used - current.min(self.used)).saturating_add(desired);
        if asked > self.limit {
            return self.exceed(CallError::OutOfMemory {
                asked,
                limit: self.limit,
                room: ExceededResource::Memory,
            });
        }
        if !self.total.take(asked.saturating_sub(self.used)) {
            return self.exceed(CallError::TotalMemory(self.total.limit()));
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
            true => self.exceed(CallError::OutOfMemory {
                asked: desired,
                limit: MAX_TABLE_ELEMENTS,
                room: ExceededResource::Table,
            }),
            false => Ok(true),
        }
    }
}

/// Counts one in the gauge of live instances, until it is dropped.
pub(super) struct InstanceGauge(IntGauge);

impl InstanceGauge {
    pub(super) fn new(instances: &IntGauge) -> Self {
        instances.inc();
        Self(instances.clone())
    }
}

impl Drop for InstanceGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
