//! Which sealed events were said before: one that somebody recorded and plays again has no
//! effect.
//!
//! Every node numbers its events and, apart from them, its purges; each number is taken once
//! in each life (`boot`) of a source. Another life is taken for a new one only where its
//! event was made after everything that was heard of this source, by that source's own
//! clock. So no clock of one machine is compared with another's, but for two bounds that cover
//! what no memory reaches back to: what a node says of the moment must be about as old as
//! the moment, and nothing is taken that was made before this node began, `tolerance` allowed.
//!
//! Decision: a number behind the newest is taken if it was missing: reordered deliveries and
//! purges that are said again are legitimate. Those below the first that was heard of a life are
//! not: they were said before this node listened.
//!
//! Pure: both clocks are arguments. The caller has compared the seal: of events without one this
//! would believe numbers that anybody can make.

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

/// What does not change while this node runs.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRules {
    /// A durable transport delivers purges late, also those of lives that are over.
    pub guarantee: Guarantee,
    /// What clocks may differ.
    pub tolerance: Duration,
    /// Sources that are remembered at most; who was silent longest makes room.
    pub sources: usize,
    pub earlier_purges: EarlierPurges,
}

/// What purges mean here that were made before this node began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EarlierPurges {
    /// Nothing: all that is shown was loaded since, or is validated first.
    MeanNothing,
    /// The second tier has what is older, and may hear of them by the bus alone.
    Count,
}

/// Why an event is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayRefusal {
    /// Its number was heard before.
    Replayed,
    /// A later life of its source was heard.
    EarlierLife,
    /// It was made too long ago.
    TooOld,
    /// By the clock here it is yet to be made.
    Ahead,
}

/// One source.
struct SourceHistory {
    heard: Instant,
    /// When the newest of its events was made, by its own clock.
    newest: u64,
    /// The one heard last comes last.
    lives: Vec<SourceLife>,
}

/// One life of a source.
struct SourceLife {
    boot: u64,
    words: SequenceWindow,
    purges: SequenceWindow,
}

/// What a node says of the moment (values, heartbeats, answers, questions) is refused when it
/// took longer.
const MOMENT: Duration = Duration::from_secs(60);
/// Lives of a source that are told apart at most.
const LIVES: usize = 4;
/// Numbers that may be missing and still come.
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

    /// Takes the numbers of an event, which no other event will have from now on.
    ///
    /// # Errors
    /// Why it is not to be taken.
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
            life.purges.begin(ours.purges);
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

    /// The event could not be applied: it may come once more.
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

/// The number of an event that was taken.
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
            Message::Purge { .. } => Self::Purge(ours.purges),
            _ => Self::Word(ours.sequence),
        }
    }

    fn value(self) -> u64 {
        match self {
            Self::Word(value) | Self::Purge(value) => value,
        }
    }
}

/// What both clocks say.
#[derive(Clone, Copy, Debug)]
pub struct ArrivalTime {
    /// Milliseconds since 1970.
    pub clock: u64,
    pub now: Instant,
}

impl SourceHistory {
    /// The life that an event made at `made` belongs to. None: it is over, and such an event
    /// can only be a recorded one.
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
            // Purges of any life that is known are told apart by their numbers.
            Some(at) if is_purge => return self.lives.get_mut(at),
            // Two processes with one name, which are warned of elsewhere.
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
            // Never the one that was just looked up.
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
