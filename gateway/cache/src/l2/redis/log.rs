//! The purge log in Redis: a stream, and a head that tells whether the stream is all there.
//!
//! The head holds `generation` (a greater number than every one before) and its `seal`,
//! `counter` (the newest number) and `floor` (what came up to it may be missing). Decision:
//! the log counts as lost, and gets another generation, when the head is gone, when the
//! stream doesn't end with the counter, and when
//! a part of it is nothing that we write: another type, a number that no order can hold, an
//! id that no append leads to. The new one begins above every number that is believable, or
//! at 0 where there is no room above.
//!
//! Each purge bears a random token. A node tells the newest number that it has read and the
//! token of that entry, each time that it reads or appends; where the log ends before that, or
//! another entry has the number, Redis came back with an older state (a crash, a failover to
//! a replica that lagged, a backup that was restored), and numbers were given out for a
//! second time. Such a log is replaced by a new generation as well, and so is one of an
//! earlier generation than a node has read. `run_id` and replication ids are not asked for:
//! they tell that a server was restarted, and not that it lost anything, proxies and users with few rights
//! don't get them, and a token is there whatever brought the old state back.
//!
//! Decision: a purge that reaches nothing, which asks for a number alone, replaces one that is
//! the last of the stream, and says for which numbers it stands (`since`): those who ask often
//! push nobody's purges out, and no number is missing. It keeps the token of the one that it
//! replaces, so that whoever has read that one finds it again.
//!
//! With a secret ([`super::seals`]) a purge is sealed for its number and generation before it is
//! appended: for a few numbers, of which it gets one; when other nodes took them all, it is
//! sealed again. So a purge can't be changed, moved to another number, or come back in a
//! later generation. Who sees all commands (`MONITOR`) sees seals for numbers that others got,
//! and can put such a purge in the place of theirs. One whose seal does not hold counts as a purge of everything, since
//! what it was is unknown. What generation is believed, [`generation`] says.

mod generation;
mod script;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::StreamsInterface;
use fred::types::Value;
use tokio::time::timeout;

use super::RedisStore;
use super::fault::unexpected;
use super::seals::PurgeNumberRange;
use crate::l2::store::{
    LogFault, LoggedPurge, PurgeLogEntry, PurgeLogRange, StoreError, StoreRefusal, nothing,
};
use crate::purge::MAX_NUMBER;
use script::{LOG, LogScriptAnswer, LogStreamEntry};

pub(super) use generation::KnownGeneration;
use generation::PurgeLogEnd;

/// Purges fetched at once; whoever is further behind is told so instead.
const STRETCH: usize = 20_000;
/// Octets of a selector at most; a longer one is not fetched, and counts as everything.
const LONGEST_SELECTOR: usize = 64 << 10;
/// Numbers that a purge is sealed for: others may append meanwhile.
const SEALS: u64 = 128;
/// Attempts to append a purge before the caller is told to come again.
const ATTEMPTS: u32 = 4;
/// On top of what a caller waits for purges, before the connection counts as dead.
const GRACE: Duration = Duration::from_secs(2);

impl RedisStore {
    pub(super) async fn append_purge(
        &self,
        purge: &LoggedPurge,
        last: u64,
    ) -> Result<PurgeLogRange, StoreError> {
        self.ask_until_believed(last, Some(purge)).await
    }

    pub(super) async fn read_purges(&self, after: u64) -> Result<PurgeLogRange, StoreError> {
        self.ask_until_believed(after, None).await
    }

    /// Reads what came after `known`, which was read of the generation that was told last,
    /// and appends a purge where there is one.
    async fn ask_until_believed(
        &self,
        known: u64,
        append: Option<&LoggedPurge>,
    ) -> Result<PurgeLogRange, StoreError> {
        let (told, _) = self.generation.read();
        let mut fault = None;
        for _ in 0..ATTEMPTS {
            // Nothing is known of another generation.
            let is_same = self.generation.generation() == told;
            let known = if is_same { known } else { 0 };
            let append_to = append.map_or(Vec::new(), |purge| self.to_append(purge));
            let answer = self.ask(known, &append_to).await?;
            fault = fault.or(answer.fault);
            if answer.generation < self.generation.least() {
                // It was on its way while the next generation was read.
                continue;
            }
            if !self.is_genuine(&answer) {
                self.generation.refuse(answer.generation)?;
                continue;
            }
            self.generation
                .take(answer.generation, self.end_of(&answer));
            if append.is_none() || answer.appended {
                return Ok(self.log_of(answer, fault));
            }
        }
        let why = "the purge log changes faster than this node can follow".to_owned();
        Err(StoreError::Refused(StoreRefusal::Other, why))
    }

    pub(super) async fn watch_purges(
        &self,
        after: u64,
        patience: Duration,
    ) -> Result<PurgeLogRange, StoreError> {
        let client = self.waiting.client()?;
        // 0 would mean for ever.
        let block = u64::try_from(patience.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let (stream, id) = (self.names.log(), format!("{after}-0"));
        let news = client.xread::<Value, _, _>(Some(1), Some(block), stream, id);
        match timeout(patience.saturating_add(GRACE), news).await {
            Ok(Ok(_)) => self.read_purges(after).await,
            Ok(Err(error)) => match self.failed(&error) {
                // Reading the log puts it right.
                StoreError::Foreign(_) => self.read_purges(after).await,
                failed => Err(failed),
            },
            Err(_) => {
                self.waiting.reset();
                Err(StoreError::Timeout)
            }
        }
    }

    /// What the script is told of a purge to append.
    fn to_append(&self, purge: &LoggedPurge) -> Vec<Value> {
        let soft = if purge.soft { "1" } else { "0" };
        let (generation, end) = self.generation.read();
        let newest = end.newest;
        let sealed = |since, number| {
            let seals = self.seals.as_ref()?;
            let place = PurgeNumberRange {
                generation,
                since,
                number,
            };
            Some(seals.of_purge(place, purge))
        };
        let numbers = (1..=SEALS).map(|n| newest.saturating_add(n));
        let seals: Vec<u8> = numbers.filter_map(|n| sealed(n, n)).flatten().collect();
        let since = end.nothing_since.filter(|_| *purge == nothing());
        let spanning = since.and_then(|since| sealed(since, newest.saturating_add(1)));
        vec![
            self.purge_log_length.to_string().into(),
            purge.selector.as_str().into(),
            soft.into(),
            newest.to_string().into(),
            seals.as_slice().into(),
            since
                .map_or(String::new(), |since| since.to_string())
                .into(),
            spanning
                .map_or(Vec::new(), |seal| seal.to_vec())
                .as_slice()
                .into(),
            token().into(),
        ]
    }

    async fn ask(&self, known: u64, append: &[Value]) -> Result<LogScriptAnswer, StoreError> {
        let (told, end) = self.generation.read();
        let next = self.generation.next();
        let seal = self.seals.as_ref().map(|seals| seals.of_generation(next));
        let mut arguments: Vec<Value> = vec![
            told.to_string().into(),
            known.to_string().into(),
            next.to_string().into(),
            seal.as_ref().map_or(&[][..], |seal| &seal[..]).into(),
            self.generation.refused().to_string().into(),
            MAX_NUMBER.to_string().into(),
            STRETCH.to_string().into(),
            LONGEST_SELECTOR.to_string().into(),
            self.generation.least().to_string().into(),
            end.newest.to_string().into(),
            Value::Bytes(end.token),
        ];
        arguments.extend_from_slice(append);
        let keys = vec![self.names.log(), self.names.log_head()];
        // A replica lets a script read that is not said to write.
        let answer = match append.is_empty() {
            true => self.run(&LOG.plain, keys, arguments).await?,
            false => self.carry(&LOG, keys, arguments).await?,
        };
        LogScriptAnswer::read(answer).ok_or_else(|| unexpected("the purge log's script"))
    }

    /// Whether the generation was made by a node that knows the secret.
    fn is_genuine(&self, answer: &LogScriptAnswer) -> bool {
        self.seals
            .as_ref()
            .is_none_or(|seals| seals.holds_for_generation(answer.generation, &answer.seal))
    }

    fn log_of(&self, answer: LogScriptAnswer, fault: Option<LogFault>) -> PurgeLogRange {
        let generation = answer.generation;
        let read = |entry: &LogStreamEntry| self.purge_of(generation, entry);
        let read: Vec<_> = answer.entries.iter().map(read).collect();
        let is_unsealed = read.iter().any(Option::is_none);
        let purges = answer.entries.iter().zip(read);
        let purges = purges.map(|(entry, purge)| PurgeLogEntry {
            // What can't be read stands for its own number.
            since: if purge.is_some() {
                entry.since
            } else {
                entry.number
            },
            number: entry.number,
            purge: purge.unwrap_or_else(everything),
        });
        PurgeLogRange {
            generation,
            newest: answer.newest,
            whole: answer.whole,
            purges: purges.collect(),
            fault: fault.or(is_unsealed.then_some(LogFault::Unsealed)),
        }
    }

    /// None: nobody can tell what it was.
    fn purge_of(&self, generation: u64, entry: &LogStreamEntry) -> Option<LoggedPurge> {
        let purge = entry.purge.as_ref()?;
        let place = PurgeNumberRange {
            generation,
            since: entry.since,
            number: entry.number,
        };
        let is_ours = self
            .seals
            .as_ref()
            .is_none_or(|seals| seals.holds_for_purge(place, purge, &entry.seal));
        is_ours.then(|| purge.clone())
    }

    fn end_of(&self, answer: &LogScriptAnswer) -> PurgeLogEnd {
        let newest = answer.newest;
        let last = answer.last.as_ref().filter(|last| last.number == newest);
        let nothing_since = last.and_then(|last| {
            let purge = self.purge_of(answer.generation, last)?;
            (purge == nothing()).then_some(last.since)
        });
        PurgeLogEnd {
            newest,
            nothing_since,
            token: last.map_or_else(Bytes::new, |last| last.token.clone()),
        }
    }
}

/// What tells a purge from every other one that ever had its number, as 16 digits.
fn token() -> String {
    static TURN: AtomicU64 = AtomicU64::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}", RandomState::new().hash_one(turn))
}

/// What stands for a purge that can't be read.
fn everything() -> LoggedPurge {
    LoggedPurge {
        selector: "all".to_owned(),
        soft: false,
    }
}
