//! What old processes purge on their last connections, the new one purges, too.
//!
//! The channel of a take-over stays open after it, for as long as the old process lives. A process
//! that is replaced hands on the channels of those before it: it stops reading between two
//! messages, so what waits in a channel is for the next process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lamina_base::descriptor_channel::{ChannelState, DescriptorChannel, MOST_BYTES};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::messages::{AT_ONCE, NewProcessMessage, OldProcessMessage, hear, say};
use crate::cache::Cache;
use crate::cache::purge::{PurgeInitiator, PurgeKind, PurgeStatement, Selector};
use crate::cache::successor::{PredecessorPurgeAuthor, SuccessorPurge, SuccessorPurges};

/// How often a reader sees whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How long an old process waits for the new one, which may be about to be replaced.
const PATIENCE: Duration = AT_ONCE.saturating_mul(2);

/// The room in a message besides the text of a purge.
const FORM: usize = 1_024;

/// The most bytes that JSON makes of one.
const ESCAPED: usize = 6;

/// The ways by which processes before this one say what they purge, and who reads them.
pub struct PredecessorPurges {
    reading: Mutex<Vec<PredecessorReader>>,
    paused: Mutex<Vec<Arc<DescriptorChannel>>>,
}

/// A thread that reads what one of them says.
struct PredecessorReader {
    channel: Arc<DescriptorChannel>,
    stops: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl PredecessorPurges {
    /// Nothing is read yet.
    pub fn new(channels: Vec<Arc<DescriptorChannel>>) -> Self {
        Self {
            reading: Mutex::default(),
            paused: Mutex::new(channels),
        }
    }

    /// Takes part in each of their purges from now on.
    pub fn resume(&self, cache: &Arc<Cache>, runtime: &Handle) {
        let channels = std::mem::take(&mut *self.paused.lock());
        let readers = channels
            .into_iter()
            .filter_map(|channel| PredecessorReader::start(channel, cache, runtime));
        self.reading.lock().extend(readers);
    }

    /// Reads nothing more. Returns the ways to those that have not ended.
    pub fn pause(&self) -> Vec<Arc<DescriptorChannel>> {
        let readers = std::mem::take(&mut *self.reading.lock());
        for reader in &readers {
            reader.stops.store(true, Ordering::Release);
        }
        let stopped = readers.into_iter().map(PredecessorReader::stopped);
        let mut paused = self.paused.lock();
        paused.extend(
            stopped.filter(|channel| channel.await_message(Duration::ZERO) != ChannelState::Ended),
        );
        paused.clone()
    }
}

impl PredecessorReader {
    fn start(
        channel: Arc<DescriptorChannel>,
        cache: &Arc<Cache>,
        runtime: &Handle,
    ) -> Option<Self> {
        let stops = Arc::<AtomicBool>::default();
        let work = (Arc::clone(&channel), Arc::clone(&stops));
        let (cache, runtime) = (Arc::clone(cache), runtime.clone());
        // Not of the runtime's own: those must not be waited for at the end.
        let named = thread::Builder::new().name("predecessor".to_owned());
        let started = named.spawn(move || {
            let _runtime = runtime.enter();
            let (channel, stops) = work;
            while let Some(purge) = next(&channel, &stops) {
                purge.apply(&cache);
                if say(&channel, &NewProcessMessage::Purged, &[]).is_err() {
                    return;
                }
            }
        });
        match started {
            Ok(thread) => Some(Self {
                channel,
                stops,
                thread,
            }),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "what the process before purges on its last connections is not heard here"
                );
                None
            }
        }
    }

    fn stopped(self) -> Arc<DescriptorChannel> {
        // It does not panic.
        let _ = self.thread.join();
        self.channel
    }
}

/// A purge of a process before.
pub struct PredecessorPurge {
    statement: PurgeStatement,
    kind: PurgeKind,
    author: PredecessorPurgeAuthor,
}

impl PredecessorPurge {
    /// None: the message says something else.
    pub(super) fn heard(message: OldProcessMessage) -> Option<Self> {
        let OldProcessMessage::Purged {
            statement,
            soft,
            of_peer,
        } = message
        else {
            return None;
        };
        // What only a later version knows is taken for a purge of everything.
        let all = PurgeStatement::Purged(PurgeInitiator::Operator, Selector::All);
        Some(Self {
            statement: statement.parse().unwrap_or(all),
            kind: match soft {
                true => PurgeKind::Soft,
                false => PurgeKind::Hard,
            },
            author: match of_peer {
                true => PredecessorPurgeAuthor::Peer,
                false => PredecessorPurgeAuthor::Client,
            },
        })
    }

    /// Purges it here, too. Needs a tokio runtime.
    pub fn apply(self, cache: &Cache) {
        cache.purge_as_predecessor(self.statement, self.kind, self.author);
    }

    /// The same for one of before this process serves: the process before has told other nodes of it.
    pub fn apply_here_alone(self, cache: &Cache) {
        cache.purge_as_predecessor(self.statement, self.kind, PredecessorPurgeAuthor::Peer);
    }
}

/// The next purge of a process before. None: it has ended, or this is to stop.
fn next(channel: &DescriptorChannel, stops: &AtomicBool) -> Option<PredecessorPurge> {
    loop {
        if stops.load(Ordering::Acquire) {
            return None;
        }
        match channel.await_message(LOOK) {
            ChannelState::Silent => {}
            ChannelState::Message => break,
            ChannelState::Ended => return None,
        }
    }
    let heard = hear::<OldProcessMessage>(channel, AT_ONCE).ok();
    let purge = heard.and_then(|(message, _)| PredecessorPurge::heard(message));
    if purge.is_none() {
        channel.close();
    }
    purge
}

/// Tells the process at the other end of each purge, until this process or the other one ends.
pub(super) fn tell(channel: &DescriptorChannel, purges: &SuccessorPurges) {
    while let Some(purge) = purges.next() {
        if let Err(error) = tell_one(channel, &purge) {
            tracing::warn!(
                %error,
                "the process that has taken over does not hear what is purged on the last \
                 connections of this one"
            );
            break;
        }
        purges.confirm(purge.number);
    }
    purges.close();
}

fn tell_one(channel: &DescriptorChannel, purge: &SuccessorPurge) -> io::Result<()> {
    say(channel, &said(purge), &[])?;
    match hear::<NewProcessMessage>(channel, PATIENCE)?.0 {
        NewProcessMessage::Purged => Ok(()),
        _ => Err(io::Error::other("it answered something else")),
    }
}

/// A purge as the new process hears it.
pub(super) fn said(purge: &SuccessorPurge) -> OldProcessMessage {
    let mut statement = purge.statement.to_string();
    if ESCAPED * statement.len() + FORM > MOST_BYTES {
        statement = PurgeStatement::Doubt.to_string();
    }
    OldProcessMessage::Purged {
        statement,
        soft: purge.kind == PurgeKind::Soft,
        of_peer: purge.author == PredecessorPurgeAuthor::Peer,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::cache::config::CacheConfig;

    fn purge(text: &str) -> OldProcessMessage {
        OldProcessMessage::Purged {
            statement: text.to_owned(),
            soft: false,
            of_peer: false,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_said_while_nobody_reads_is_for_whoever_reads_next() {
        let cache = Cache::new(&CacheConfig::default(), &prometheus::Registry::new()).unwrap();
        let cache = Arc::new(cache);
        let (old, new) = UnixStream::pair().unwrap();
        let over = |stream| DescriptorChannel::over(stream).unwrap();
        let (old, new) = (over(old), Arc::new(over(new)));
        let is_heard = || matches!(hear(&old, AT_ONCE), Ok((NewProcessMessage::Purged, _)));
        let predecessors = PredecessorPurges::new(vec![new]);
        let before = cache.order();
        say(&old, &purge("tag:x"), &[]).unwrap();
        assert_eq!(old.await_message(LOOK), ChannelState::Silent);
        predecessors.resume(&cache, &Handle::current());
        assert!(is_heard());
        let first = cache.order();
        assert!(first > before);
        assert_eq!(predecessors.pause().len(), 1);
        say(&old, &purge("a word of a later version"), &[]).unwrap();
        assert_eq!(old.await_message(LOOK), ChannelState::Silent);
        assert_eq!(cache.order(), first);
        predecessors.resume(&cache, &Handle::current());
        assert!(is_heard());
        assert!(cache.order() > first);
        drop(old);
        assert!(predecessors.pause().is_empty(), "it has ended");
    }
}
