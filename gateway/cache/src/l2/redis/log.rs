//! The purge log in Redis: a stream, and a head that tells whether the stream is complete.
//!
//! The head holds `generation` (a greater number than every one before) and its `seal`, `counter`
//! (the newest number) and `floor` (purges up to this number may be missing). Decision: the log
//! counts as lost, and gets another generation, when the head is gone, when the stream doesn't end
//! with the counter, or when a part of it is something that we never write: another type, a number
//! that no order can hold, an id that no append leads to. The new log begins above every number
//! that is plausible, or at 0 if there is no room above.
//!
//! Each purge has a random token. With each read or append, a node sends the newest number that it
//! has read and the token of that entry. If the log ends before that number, or another entry has
//! it, Redis came back with an older state (a crash, a failover to a replica that lagged, a backup
//! that was restored), and numbers were given out a second time. Such a log is also replaced by a
//! new generation, and so is a log of an earlier generation than a node has read. `run_id` and
//! replication ids are not used: they tell that a server was restarted, but not that it lost
//! anything, and proxies and users with few rights don't get them. A token works whatever brought
//! the old state back.
//!
//! Decision: a purge that reaches nothing, which only asks for a number, replaces another such
//! purge if that is the last of the stream, and says for which numbers it stands (`since`). So
//! nodes that ask often push out no other purges, and no number is missing. It keeps the token of
//! the purge that it replaces, so that a node which has read that one finds it again.
//!
//! With a secret ([`super::seals`]), a purge is sealed for its number and generation before it is
//! appended. It is sealed for several numbers and gets one of them; if other nodes took them all,
//! it is sealed again. So a purge can't be changed, moved to another number, or come back in a
//! later generation. Whoever sees all commands (`MONITOR`) also sees seals for numbers that other
//! purges got, and can put such a purge in their place. A purge with a wrong seal counts as a purge
//! of everything, because it is unknown what it was. Which generation is trusted is described in
//! [`generation`].

mod generation;
mod script;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lamina_base::redis::driver::StreamsInterface;
use lamina_base::redis::driver::Value;
use tokio::time::timeout;

use super::RedisStore;
use super::fault::unexpected;
use super::seals::PurgeNumberRange;
use crate::l2::store::{
    LogFault, LogNumber, LoggedPurge, PurgeLogEntry, PurgeLogRange, StoreError, StoreRefusal,
    nothing,
};
use crate::purge::MAX_NUMBER;
use script::{LOG, LogScriptAnswer, LogStreamEntry};

pub(super) use generation::KnownGeneration;
use generation::PurgeLogEnd;

/// The largest number of purges that are fetched at once. A node that is further behind is told
/// that instead.
const STRETCH: usize = 20_000;
/// The largest size of a selector in octets. A longer one is not fetched and counts as everything.
const LONGEST_SELECTOR: usize = 64 << 10;
/// For how many numbers a purge is sealed, because others may append in the meantime.
const SEALS: u64 = 128;
/// The number of attempts to append a purge before the caller must try again.
const ATTEMPTS: u32 = 4;
/// Added to the time for which a caller waits for purges. After that the connection counts as dead.
const GRACE: Duration = Duration::from_secs(2);

impl RedisStore {
    pub(super) async fn append_purge(
        &self,
        purge: &LoggedPurge,
        last: LogNumber,
    ) -> Result<PurgeLogRange, StoreError> {
        self.ask_until_believed(last, Some(purge)).await
    }

    pub(super) async fn read_purges(&self, after: LogNumber) -> Result<PurgeLogRange, StoreError> {
        self.ask_until_believed(after, None).await
    }

    /// Reads what came after `known`, a number of the generation that was returned last, and
    /// appends a purge if one is given.
    async fn ask_until_believed(
        &self,
        known: LogNumber,
        append: Option<&LoggedPurge>,
    ) -> Result<PurgeLogRange, StoreError> {
        let (told, _) = self.generation.read();
        let mut fault = None;
        for _ in 0..ATTEMPTS {
            // Nothing is known of another generation.
            let is_same = self.generation.generation() == told;
            let known = if is_same { known } else { LogNumber::ZERO };
            let append_to = append.map_or(Vec::new(), |purge| self.to_append(purge));
            let answer = self.ask(known, &append_to).await?;
            fault = fault.or(answer.fault);
            if answer.generation < self.generation.least() {
                // The answer was under way while the next generation was read.
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
        after: LogNumber,
        patience: Duration,
    ) -> Result<PurgeLogRange, StoreError> {
        let ended = self.waiting.ended();
        let client = self.waiting.client()?;
        // 0 would mean to wait for ever.
        let block = u64::try_from(patience.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let (stream, id) = (self.names.log(), format!("{after}-0"));
        let news = client.xread::<Value, _, _>(Some(1), Some(block), stream, id);
        let news = timeout(patience.saturating_add(GRACE), news);
        let news = tokio::select! {
            biased;
            news = news => news,
            () = ended => {
                let why = "the connection ended while it waited for purges".to_owned();
                return Err(StoreError::Down(why));
            }
        };
        match news {
            Ok(Ok(_)) => self.read_purges(after).await,
            Ok(Err(error)) => match self.failed(&error) {
                // Reading the log repairs this.
                StoreError::Foreign(_) => self.read_purges(after).await,
                // It became a replica, or a master: nobody waits on it any more, and it may take no
                // writes now.
                StoreError::Refused(_, said) if said.starts_with("UNBLOCKED") => {
                    self.writing.look();
                    self.read_purges(after).await
                }
                failed => Err(failed),
            },
            Err(_) => {
                self.waiting.reset();
                Err(StoreError::Timeout)
            }
        }
    }

    /// The script's arguments for a purge to append.
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
        let numbers = (1..=SEALS).map(|n| newest.plus(n));
        let seals: Vec<u8> = numbers.filter_map(|n| sealed(n, n)).flatten().collect();
        let since = end.nothing_since.filter(|_| *purge == nothing());
        let spanning = since.and_then(|since| sealed(since, newest.plus(1)));
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

    async fn ask(&self, known: LogNumber, append: &[Value]) -> Result<LogScriptAnswer, StoreError> {
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
        // A replica accepts a script that only reads, unless the script declares that it writes.
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
            // An entry that can't be read stands only for its own number.
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

/// Distinguishes a purge from every other one that ever had its number: 16 digits.
fn token() -> String {
    static TURN: AtomicU64 = AtomicU64::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}", RandomState::new().hash_one(turn))
}

/// Replaces a purge that can't be read.
fn everything() -> LoggedPurge {
    LoggedPurge {
        selector: "all".to_owned(),
        soft: false,
    }
}
