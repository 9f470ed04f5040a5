//! How many connections to a target stand.
//!
//! Each is counted from where it was opened to where its stream is dropped, in whatever way it ends
//! and whoever has it then: a pool, a response's body, a tunnel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The connections to one target, of both protocols and all lanes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(in crate::origin) struct ConnectionCounts {
    /// Those that carry a request, or a tunnel.
    pub(in crate::origin) active: usize,
    /// Those that wait for one.
    pub(in crate::origin) idle: usize,
}

/// Counts the connections that stand.
#[derive(Clone, Default, Debug)]
pub(in crate::origin) struct ConnectionCounter(Arc<AtomicUsize>);

/// One connection. Dropping it takes it from the count.
#[derive(Debug)]
pub(in crate::origin) struct CountedConnection(ConnectionCounter);

impl ConnectionCounter {
    pub(super) fn count(&self) -> CountedConnection {
        self.0.fetch_add(1, Relaxed);
        CountedConnection(self.clone())
    }

    pub(super) fn standing(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
