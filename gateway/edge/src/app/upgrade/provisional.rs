//! What the old process does before it is certain that the other one takes over: each is taken back
//! when its value is dropped, and stays when that is said.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lamina_base::descriptor_channel::{DescriptorChannel, MOST_DESCRIPTORS};
use tokio::runtime::Handle;

use super::giving::UpgradeGiverParts;
use crate::app::warming::WarmKeeper;
use crate::cache::Cache;
use crate::cache::successor::SuccessorPurges;
use crate::http::endpoint::Endpoint;

/// The longest time for which what the cache holds is written down.
const MOST_WRITING: Duration = Duration::from_secs(10);

/// What the cache holds, written down for the other process; dropping it takes the file back.
pub(super) struct WrittenCache<'a> {
    warm: Option<&'a WarmKeeper>,
}

impl<'a> WrittenCache<'a> {
    /// At most a quarter of the time is taken for it.
    pub(super) fn write(warm: &'a WarmKeeper, within: Duration) -> Self {
        warm.hand_over(Instant::now() + (within / 4).min(MOST_WRITING));
        Self { warm: Some(warm) }
    }

    /// The file is the other process's.
    pub(super) fn stays(mut self) {
        self.warm = None;
    }
}

impl Drop for WrittenCache<'_> {
    fn drop(&mut self) {
        if let Some(warm) = self.warm {
            warm.take_back();
        }
    }
}

/// Keeps what is purged from now on for the other process; dropping it ends that.
pub(super) struct PurgeRecording<'a> {
    cache: Option<&'a Cache>,
    pub(super) purges: Arc<SuccessorPurges>,
}

impl<'a> PurgeRecording<'a> {
    pub(super) fn begin(cache: &'a Cache) -> Self {
        let purges = Arc::<SuccessorPurges>::default();
        cache.tell_successor(Some(Arc::clone(&purges)));
        Self {
            cache: Some(cache),
            purges,
        }
    }

    /// The other process is told of them from now on.
    pub(super) fn stays(mut self) -> Arc<SuccessorPurges> {
        self.cache = None;
        Arc::clone(&self.purges)
    }
}

impl Drop for PurgeRecording<'_> {
    fn drop(&mut self) {
        if let Some(cache) = self.cache {
            cache.tell_successor(None);
            self.purges.close();
        }
    }
}

/// What answers nothing by itself while another process may serve already; dropping it goes back.
pub(super) struct PassingOn<'a> {
    parts: Option<&'a UpgradeGiverParts>,
    runtime: &'a Handle,
    /// The ways by which earlier processes say what they purge.
    earlier: Vec<Arc<DescriptorChannel>>,
}

impl<'a> PassingOn<'a> {
    pub(super) fn begin(
        parts: &'a UpgradeGiverParts,
        runtime: &'a Handle,
        taken: &[Endpoint],
    ) -> Self {
        // First, since nothing of these is to wait for the other process, which waits for this.
        let earlier = parts.predecessors.pause();
        parts.proxy.pass_on_everything();
        runtime.block_on(parts.ports.leave_datagrams(taken));
        Self {
            parts: Some(parts),
            runtime,
            earlier,
        }
    }

    pub(super) fn earlier(&self) -> Vec<BorrowedFd<'_>> {
        let most = self.earlier.iter().take(MOST_DESCRIPTORS);
        most.map(|way| way.as_fd()).collect()
    }

    /// It will not go back.
    pub(super) fn stays(mut self) {
        self.parts = None;
    }
}

impl Drop for PassingOn<'_> {
    fn drop(&mut self) {
        if let Some(parts) = self.parts {
            self.runtime.block_on(parts.ports.take_datagrams_back());
            parts.proxy.serve_again();
            parts.predecessors.resume(&parts.proxy.cache, self.runtime);
        }
    }
}
