//! Write-behind: what L1 has admitted is written to the store in the background.
//!
//! The queue is bounded in bytes. A newer value of a key replaces the older one in it, and what
//! doesn't fit pushes out the oldest: a response that isn't shared costs another node a load, but
//! never gives a wrong answer. What waits can be read ([`WriteBehindBuffer::waiting`]). What is
//! under way counts as well, and is known by its key ([`WriteBehindBuffer::ended`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::sync::Notify;

use super::put::RecordWrite;
use super::store::StoreKey;

/// The records that wait to be written.
pub(super) struct WriteBehindBuffer {
    queue: Mutex<WriteQueue>,
    wake: Notify,
    /// Notified when a write has ended.
    ended: Notify,
    max_bytes: usize,
    dropped: IntCounter,
    bytes: IntGauge,
}

#[derive(Default)]
struct WriteQueue {
    /// The keys in the order of arrival, each once.
    order: VecDeque<StoreKey>,
    writes: HashMap<StoreKey, Arc<RecordWrite>>,
    /// The keys of writes under way, and how many of each there are.
    busy: HashMap<StoreKey, usize>,
    /// Bytes that wait or are being written.
    bytes: usize,
}

/// A write that counts as under way until this is dropped.
#[must_use = "the write counts as under way while this lives"]
pub(super) struct OngoingWrite<'a> {
    writer: &'a WriteBehindBuffer,
    key: StoreKey,
    bytes: usize,
}

impl WriteBehindBuffer {
    pub(super) fn new(max_bytes: usize, registry: &Registry) -> prometheus::Result<Self> {
        let dropped = IntCounter::new(
            "lamina_l2_writes_dropped_total",
            "Responses that were not written to the second tier because its queue was full.",
        )?;
        let bytes = IntGauge::new(
            "lamina_l2_write_queue_bytes",
            "Bytes of responses on their way to the second tier.",
        )?;
        registry.register(Box::new(dropped.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        Ok(Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            ended: Notify::new(),
            max_bytes,
            dropped,
            bytes,
        })
    }

    /// Queues a write, in place of an older one of the same key.
    pub(super) fn push(&self, write: RecordWrite) {
        let mut queue = self.queue.lock();
        let (key, size) = (write.key, write.size());
        match queue.writes.insert(key, Arc::new(write)) {
            Some(older) => queue.bytes -= older.size(),
            None => queue.order.push_back(key),
        }
        queue.bytes += size;
        while queue.bytes > self.max_bytes && queue.pop().is_some() {
            self.dropped.inc();
        }
        self.bytes.set(queue.bytes as i64);
        drop(queue);
        self.wake.notify_one();
    }

    /// The next write, as soon as there is one.
    pub(super) async fn next(&self) -> (Arc<RecordWrite>, OngoingWrite<'_>) {
        loop {
            let taken = {
                let mut queue = self.queue.lock();
                queue.pop().map(|write| {
                    let busy = self.counted(&mut queue, &write);
                    (write, busy)
                })
            };
            match taken {
                Some(taken) => {
                    // Another worker may take the next one meanwhile.
                    self.wake.notify_one();
                    return taken;
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// Begins a write without queueing it. None: too many bytes are waiting or under way.
    pub(super) fn begin(&self, write: &RecordWrite) -> Option<OngoingWrite<'_>> {
        let mut queue = self.queue.lock();
        if queue.bytes.saturating_add(write.size()) > self.max_bytes {
            self.dropped.inc();
            return None;
        }
        Some(self.counted(&mut queue, write))
    }

    /// Drops the write that waits under `key`.
    pub(super) fn cancel(&self, key: &StoreKey) {
        let mut queue = self.queue.lock();
        if let Some(write) = queue.writes.remove(key) {
            queue.bytes -= write.size();
            queue.order.retain(|other| other != key);
        }
    }

    /// The write that waits under `key`.
    pub(super) fn waiting(&self, key: &StoreKey) -> Option<Arc<RecordWrite>> {
        self.queue.lock().writes.get(key).cloned()
    }

    /// Waits until no write of `key` is under way.
    pub(super) async fn ended(&self, key: &StoreKey) {
        self.until(|queue| !queue.busy.contains_key(key)).await;
    }

    /// Waits until nothing waits and nothing is under way.
    pub(super) async fn settled(&self) {
        self.until(|queue| queue.order.is_empty() && queue.busy.is_empty())
            .await;
    }

    async fn until(&self, reached: impl Fn(&WriteQueue) -> bool) {
        loop {
            // From here on no notification is missed.
            let ended = self.ended.notified();
            if reached(&self.queue.lock()) {
                return;
            }
            ended.await;
        }
    }

    fn counted(&self, queue: &mut WriteQueue, write: &RecordWrite) -> OngoingWrite<'_> {
        *queue.busy.entry(write.key).or_default() += 1;
        queue.bytes += write.size();
        self.bytes.set(queue.bytes as i64);
        OngoingWrite {
            writer: self,
            key: write.key,
            bytes: write.size(),
        }
    }
}

impl Drop for OngoingWrite<'_> {
    fn drop(&mut self) {
        let mut queue = self.writer.queue.lock();
        queue.bytes -= self.bytes;
        self.writer.bytes.set(queue.bytes as i64);
        if let Some(writes) = queue.busy.get_mut(&self.key) {
            *writes -= 1;
            if *writes == 0 {
                queue.busy.remove(&self.key);
            }
        }
        drop(queue);
        self.writer.ended.notify_waiters();
    }
}

impl WriteQueue {
    fn pop(&mut self) -> Option<Arc<RecordWrite>> {
        let key = self.order.pop_front()?;
        let write = self.writes.remove(&key)?;
        self.bytes -= write.size();
        Some(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(max_bytes: usize) -> WriteBehindBuffer {
        WriteBehindBuffer::new(max_bytes, &Registry::new()).unwrap()
    }

    #[tokio::test]
    async fn a_newer_value_takes_the_place_of_an_older_one() {
        let writer = writer(1 << 20);
        writer.push(RecordWrite::of(1, 10));
        writer.push(RecordWrite::of(2, 11));
        writer.push(RecordWrite::of(1, 12));
        assert_eq!(writer.next().await.0.born.order, 12.into());
        assert_eq!(writer.next().await.0.born.order, 11.into());
        writer.settled().await;
        assert_eq!(writer.queue.lock().bytes, 0);
    }

    #[tokio::test]
    async fn the_oldest_goes_when_the_bound_is_reached() {
        let size = RecordWrite::of(1, 1).size();
        let writer = writer(2 * size);
        (1..=5).for_each(|key| writer.push(RecordWrite::of(key, 1)));
        assert_eq!(writer.dropped.get(), 3);
        assert!(writer.waiting(&RecordWrite::of(3, 1).key).is_none());
        let (write, busy) = writer.next().await;
        assert_eq!(write.key, RecordWrite::of(4, 1).key);
        assert!(
            writer.begin(&RecordWrite::of(6, 1)).is_none(),
            "both still count"
        );
        drop(busy);
        assert!(writer.begin(&RecordWrite::of(6, 1)).is_some());
    }

    #[tokio::test]
    async fn a_cancelled_write_is_gone_and_one_under_way_is_waited_for() {
        let writer = writer(1 << 20);
        let key = RecordWrite::of(1, 1).key;
        writer.push(RecordWrite::of(1, 1));
        writer.cancel(&key);
        assert!(writer.waiting(&key).is_none());
        writer.push(RecordWrite::of(1, 2));
        let (_, busy) = writer.next().await;
        let ended = writer.ended(&key);
        tokio::pin!(ended);
        let early = futures_util::poll!(ended.as_mut());
        assert!(early.is_pending(), "it is under way");
        drop(busy);
        ended.await;
    }
}
