//! Write-behind: what L1 has admitted goes to the store by and by.
//!
//! A queue with a bound in bytes. A newer value of a key takes the older one's place in
//! it, and what doesn't fit pushes out the oldest: a response that isn't shared is a
//! load elsewhere, never a wrong answer. What waits can be read ([`Writer::waiting`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::sync::Notify;

use super::Write;
use super::store::StoreKey;

/// What waits to be written.
pub(super) struct Writer {
    queue: Mutex<Queue>,
    wake: Notify,
    max_bytes: usize,
    dropped: IntCounter,
    bytes: IntGauge,
}

#[derive(Default)]
struct Queue {
    /// In the order of arrival; a key stands here once.
    order: VecDeque<StoreKey>,
    writes: HashMap<StoreKey, Arc<Write>>,
    bytes: usize,
}

impl Writer {
    pub(super) fn new(max_bytes: usize, registry: &Registry) -> prometheus::Result<Self> {
        let dropped = IntCounter::new(
            "lamina_l2_writes_dropped_total",
            "Responses that were not written to the second tier since its queue was full.",
        )?;
        let bytes = IntGauge::new(
            "lamina_l2_write_queue_bytes",
            "Bytes of responses that wait to be written to the second tier.",
        )?;
        registry.register(Box::new(dropped.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        Ok(Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            max_bytes,
            dropped,
            bytes,
        })
    }

    /// Takes a write in, in the place of an older one of the key.
    pub(super) fn push(&self, write: Write) {
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
    pub(super) async fn next(&self) -> Arc<Write> {
        loop {
            let write = {
                let mut queue = self.queue.lock();
                let write = queue.pop();
                self.bytes.set(queue.bytes as i64);
                write
            };
            match write {
                Some(write) => {
                    // Another worker may take the next one meanwhile.
                    self.wake.notify_one();
                    return write;
                }
                None => self.wake.notified().await,
            }
        }
    }

    /// What waits under `key`.
    pub(super) fn waiting(&self, key: &StoreKey) -> Option<Arc<Write>> {
        self.queue.lock().writes.get(key).cloned()
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Arc<Write>> {
        let key = self.order.pop_front()?;
        let write = self.writes.remove(&key)?;
        self.bytes -= write.size();
        Some(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::record::Record;

    fn writer(max_bytes: usize) -> Writer {
        Writer::new(max_bytes, &Registry::new()).unwrap()
    }

    fn write(key: u8, born: u64) -> Write {
        Write {
            key: StoreKey([key; 16]),
            whole_key: Arc::from([key].as_slice()),
            record: Record::Varies(Vec::new()),
            life: std::time::Duration::from_secs(1),
            born,
        }
    }

    #[tokio::test]
    async fn a_newer_value_takes_the_place_of_an_older_one() {
        let writer = writer(1 << 20);
        writer.push(write(1, 10));
        writer.push(write(2, 11));
        writer.push(write(1, 12));
        assert_eq!(writer.next().await.born, 12);
        assert_eq!(writer.next().await.born, 11);
        assert!(writer.queue.lock().order.is_empty());
        assert_eq!(writer.queue.lock().bytes, 0);
    }

    #[tokio::test]
    async fn the_oldest_goes_when_the_bound_is_reached() {
        let size = write(1, 1).size();
        let writer = writer(2 * size);
        (1..=5).for_each(|key| writer.push(write(key, 1)));
        assert_eq!(writer.dropped.get(), 3);
        assert!(writer.waiting(&StoreKey([3; 16])).is_none());
        assert_eq!(writer.next().await.key, StoreKey([4; 16]));
    }
}
