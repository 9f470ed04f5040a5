//! Recognizes sealed events that were published before: an event that somebody recorded and sends
//! again has no effect.
//!
//! Every node numbers its events and, separately, its purges; each number is accepted once in each
//! life (`boot`) of a source. Another life is accepted as a new one only if its event was made
//! after everything that was heard of this source, by that source's own clock. So the clocks of two
//! machines are not compared, except for two limits that cover what no memory reaches back to: a
//! transient event must have been made at most [`MOMENT`] ago, and nothing is accepted that was
//! made before this node began. Both limits allow for `tolerance`.
//!
//! Decision: a number behind the newest is accepted if it was missing: reordered deliveries and
//! purges that are published again are legitimate. Numbers below the first one that was heard of a
//! life are not accepted: they were published before this node listened.
//!
//! Pure: both clocks are arguments. The caller has checked the seal: for events without one, this
//! module would trust numbers that any program can make.

mod numbers;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::event::{BusEvent, Message, NodePayload};
use super::transport::Guarantee;
use numbers::SequenceWindow;

/// What was heard of each source.
pub struct ReplayGuard {
    rules: ReplayRules,
    /// When this node began, in milliseconds since 1970.
    began: u64,
    sources: HashMap<String, SourceHistory>,
}

/// The settings; they do not change while this node runs.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRules {
    /// Durable transports deliver purges late, also purges of earlier lives.
    pub guarantee: Guarantee,
    /// How much the clocks of nodes may differ.
    pub tolerance: Duration,
    /// The most sources that are remembered; the one that was silent for longest is dropped first.
    pub sources: usize,
    pub earlier_purges: EarlierPurges,
}

/// What purges mean here that were made before this node began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EarlierPurges {
    /// Nothing: all that is shown was loaded since, or is validated first. What a process inherits
    /// is not, so none does over a bus with seals.
    MeanNothing,
    /// They count: the second tier holds older entries, and this node may learn of those purges
    /// only from the bus.
    Count,
}

/// Why an event is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayRefusal {
    /// Its number was received before.
    Replayed,
    /// A later life of its source was heard.
    EarlierLife,
    /// It was made too long ago.
    TooOld,
    /// By the clock of this node it was made in the future.
    Ahead,
}

/// What was heard of one source.
struct SourceHistory {
    heard: Instant,
    /// When its newest event was made, by its own clock.
    newest: u64,
    /// The life that was heard last comes last.
    lives: Vec<SourceLife>,
}

/// One life of a source.
struct SourceLife {
    boot: u64,
    words: SequenceWindow,
    purges: SequenceWindow,
}

/// The greatest age of a transient event (a value, a heartbeat, an answer, a question); an older
/// one is refused.
const MOMENT: Duration = Duration::from_secs(60);
/// The most lives of one source that are told apart.
const LIVES: usize = 4;
/// How many numbers may be missing and can still come.
const MISSING_WORDS: usize = 64;
const MISSING_PURGES: usize = 10_000;

impl ReplayGuard {
    pub fn new(rules: ReplayRules, began: u64) -> Self {
        Self {
            rules,
            began,
            sources: HashMap::new(),
        }
    }

    /// Takes the number of an event; no other event can have it from now on.
    ///
    /// # Errors
    /// When the event is to be refused; the error says why.
    pub fn admit(
        &mut self,
        event: &BusEvent,
        ours: &NodePayload,
        at: ArrivalTime,
    ) -> Result<TakenNumber, ReplayRefusal> {
        let is_purge = matches!(ours.message, Message::Purge { .. });
        self.timely(event.ts, is_purge, at.clock)?;
        let guarantee = self.rules.guarantee;
        let source = self.source(&event.source, at.now);
        let Some(life) = source.life(ours.boot, event.ts, is_purge, guarantee) else {
            return Err(ReplayRefusal::EarlierLife);
        };
        if !is_purge && guarantee == Guarantee::AtMostOnce {
            life.purges.begin(ours.purges.value());
        }
        let number = EventNumber::of(ours);
        if !life.numbers(number).take(number.value()) {
            return Err(ReplayRefusal::Replayed);
        }
        source.newest = source.newest.max(event.ts);
        source.heard = at.now;
        Ok(TakenNumber {
            source: event.source.clone(),
            boot: ours.boot,
            number,
        })
    }

    /// The event could not be applied: its number may come once more.
    pub fn retract(&mut self, taken: &TakenNumber) {
        let source = self.sources.get_mut(&taken.source);
        let mut lives = source.into_iter().flat_map(|source| &mut source.lives);
        if let Some(life) = lives.find(|life| life.boot == taken.boot) {
            life.numbers(taken.number).give_back(taken.number.value());
        }
    }

    fn timely(&self, made: u64, is_purge: bool, clock: u64) -> Result<(), ReplayRefusal> {
        let tolerance = self.rules.tolerance.as_millis() as u64;
        if made > clock.saturating_add(tolerance) {
            return Err(ReplayRefusal::Ahead);
        }
        let oldest = match (is_purge, self.rules.earlier_purges) {
            (true, EarlierPurges::Count) => return Ok(()),
            (true, EarlierPurges::MeanNothing) => self.began,
            (false, _) => self
                .began
                .max(clock.saturating_sub(MOMENT.as_millis() as u64)),
        };
        match made < oldest.saturating_sub(tolerance) {
            true => Err(ReplayRefusal::TooOld),
            false => Ok(()),
        }
    }

    fn source(&mut self, name: &str, now: Instant) -> &mut SourceHistory {
        if !self.sources.contains_key(name) && self.sources.len() >= self.rules.sources.max(1) {
            let silent = self.sources.iter().min_by_key(|(_, source)| source.heard);
            let silent = silent.map(|(name, _)| name.clone());
            silent.and_then(|name| self.sources.remove(&name));
        }
        self.sources
            .entry(name.to_owned())
            .or_insert(SourceHistory {
                heard: now,
                newest: 0,
                lives: Vec::new(),
            })
    }
}

/// The number that an accepted event has taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenNumber {
    source: String,
    boot: u64,
    number: EventNumber,
}

/// In which of its node's counts an event has its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EventNumber {
    Word(u64),
    Purge(u64),
}

impl EventNumber {
    fn of(ours: &NodePayload) -> Self {
        match ours.message {
            Message::Purge { .. } => Self::Purge(ours.purges.value()),
            _ => Self::Word(ours.sequence),
        }
    }

    fn value(self) -> u64 {
        match self {
            Self::Word(value) | Self::Purge(value) => value,
        }
    }
}

/// The time of arrival, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct ArrivalTime {
    /// Milliseconds since 1970.
    pub clock: u64,
    pub now: Instant,
}

impl SourceHistory {
    /// The life that an event made at `made` belongs to. None: that life is over, and the event can
    /// only be a recorded one.
    fn life(
        &mut self,
        boot: u64,
        made: u64,
        is_purge: bool,
        guarantee: Guarantee,
    ) -> Option<&mut SourceLife> {
        let is_newest = made > self.newest || self.lives.is_empty();
        let late_purge = is_purge && guarantee == Guarantee::Durable;
        match self.lives.iter().position(|life| life.boot == boot) {
            Some(at) if at + 1 == self.lives.len() => {}
            // Purges of a life that is known are recognized by their numbers.
            Some(at) if is_purge => return self.lives.get_mut(at),
            // Two processes with one name; this is logged elsewhere.
            Some(at) if is_newest => {
                let life = self.lives.remove(at);
                self.lives.push(life);
            }
            Some(_) => return None,
            None if is_newest => self.lives.push(SourceLife::new(boot)),
            None if late_purge => self.lives.insert(0, SourceLife::new(boot)),
            None => return None,
        }
        if self.lives.len() > LIVES {
            // Never removes the life that was just looked up.
            let at = usize::from(self.lives[0].boot == boot);
            self.lives.remove(at);
        }
        self.lives.iter_mut().find(|life| life.boot == boot)
    }
}

impl SourceLife {
    fn new(boot: u64) -> Self {
        Self {
            boot,
            words: SequenceWindow::new(MISSING_WORDS),
            purges: SequenceWindow::new(MISSING_PURGES),
        }
    }

    fn numbers(&mut self, of: EventNumber) -> &mut SequenceWindow {
        match of {
            EventNumber::Word(_) => &mut self.words,
            EventNumber::Purge(_) => &mut self.purges,
        }
    }
}

#[cfg(test)]
mod tests;
