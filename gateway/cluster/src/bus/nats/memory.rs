//! What this node has seen of the stream, by which it notices that the stream forgot something.
//!
//! A stream that was restored from a backup, or was deleted and made anew, lacks messages, and
//! gives their numbers to others. Its server says nothing of that. But a node that published or
//! received a later message knows that it was there.

use std::sync::Arc;

use async_nats::jetstream::stream;
use parking_lot::Mutex;

/// The newest that was seen of the stream. Clones share it; it outlives connections.
#[derive(Clone, Default)]
pub(super) struct StreamMemory(Arc<Mutex<SeenStream>>);

#[derive(Default)]
struct SeenStream {
    /// When the stream was made; empty before it was seen.
    made: String,
    last: u64,
}

impl StreamMemory {
    /// A message with this number is in the stream.
    pub(super) fn saw(&self, number: u64) {
        let mut seen = self.0.lock();
        seen.last = seen.last.max(number);
    }

    /// Compares with what the server says of the stream now, which is remembered instead. Returns
    /// what is different, if messages are missing.
    pub(super) fn compare(&self, info: &stream::Info) -> Option<String> {
        self.judge(format!("{:?}", info.created), info.state.last_sequence)
    }

    fn judge(&self, made: String, last: u64) -> Option<String> {
        let mut seen = self.0.lock();
        let what = match () {
            () if seen.made.is_empty() => None,
            () if seen.made != made => Some("it was deleted and made anew".to_owned()),
            () if seen.last > last => Some(format!(
                "its last message is number {last}, and this node has seen number {}",
                seen.last
            )),
            () => None,
        };
        *seen = SeenStream { made, last };
        what
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_lacks_what_was_seen_is_noticed_once() {
        let memory = StreamMemory::default();
        assert_eq!(memory.judge("monday".to_owned(), 3), None, "it is new here");
        memory.saw(5);
        memory.saw(4);
        assert_eq!(memory.judge("monday".to_owned(), 7), None);
        let older = memory.judge("monday".to_owned(), 6);
        assert!(older.is_some_and(|what| what.contains("number 7")));
        assert_eq!(memory.judge("monday".to_owned(), 6), None);
        let anew = memory.judge("tuesday".to_owned(), 9);
        assert!(anew.is_some_and(|what| what.contains("anew")));
    }
}
