//! Makes the coded forms of stored bodies: behind the answers, on a few threads of low priority
//! with a bounded queue. A job that has no room, or comes while the machine has better things to
//! do, is given up; the next request that wants the form asks again.
//!
//! Invariant: no request waits for a job, and nothing here runs on a thread that serves requests.

mod counts;
mod pressure;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use prometheus::Registry;

use crate::encodings::{EncodedForms, FormYardstick};
use crate::entry::Entry;
use crate::http::coding::decode::{MOST_RATIO, decode};
use crate::http::coding::encode::{CodingLevels, encode};
use crate::http::coding::{AppliedCoding, ContentCoding};
use crate::http::memory::stored::StoredBody;
use crate::key::EntryKey;
use crate::l1::L1;
pub use counts::{EncodingCounts, EncodingOutcome};
use pressure::CpuPressure;

/// Jobs that may wait.
const MOST_JOBS: usize = 256;
/// Bytes of the bodies that wait. Their entries may be gone, so they are counted here.
const MOST_BYTES: usize = 64 << 20;
/// Bodies above this are not made once more: the best brotli takes seconds for a megabyte.
const MOST_BETTER: usize = 4 << 20;
/// A form is kept only up to this share of what its clients would get without it.
const KEPT_PERCENT: usize = 90;

/// Makes coded forms and puts them into their entries.
pub struct BodyEncoder {
    shared: Arc<EncoderQueue>,
    pub counts: EncodingCounts,
}

struct EncoderQueue {
    l1: Arc<L1>,
    waiting: Mutex<WaitingJobs>,
    has_come: Condvar,
    counts: EncodingCounts,
    pressure: CpuPressure,
}

#[derive(Default)]
struct WaitingJobs {
    jobs: VecDeque<EncodingJob>,
    bytes: usize,
    /// Threads are started with the first job: most gateways encode nothing.
    started: bool,
    closed: bool,
}

/// A form that is to be made.
struct EncodingJob {
    key: EntryKey,
    forms: Arc<EncodedForms>,
    stored: Bytes,
    applied: AppliedCoding,
    coding: ContentCoding,
    levels: CodingLevels,
    aim: EncodingAim,
    /// The most octets that the content may have without its coding.
    most: usize,
}

/// What a form is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EncodingAim {
    /// There is none yet.
    First(FormYardstick),
    /// The one that is there is asked for a lot.
    Better,
}

impl BodyEncoder {
    /// # Errors
    /// If the registry has the counters already.
    pub(super) fn new(l1: Arc<L1>, registry: &Registry) -> prometheus::Result<Self> {
        let counts = EncodingCounts::new(registry)?;
        Ok(Self {
            shared: Arc::new(EncoderQueue {
                l1,
                waiting: Mutex::default(),
                has_come: Condvar::new(),
                counts: counts.clone(),
                pressure: CpuPressure::default(),
            }),
            counts,
        })
    }

    /// Lets a form of the entry's body be made, unless it is there, under way or not worth it.
    /// Returns whether it is on its way now.
    pub fn want(
        &self,
        entry: &Entry,
        coding: ContentCoding,
        levels: CodingLevels,
        against: FormYardstick,
        most: usize,
    ) -> bool {
        let forms = entry.forms_to_fill();
        if !forms.is_open(coding, against) || !forms.claim(coding, against) {
            return forms.is_being_made(coding);
        }
        self.push(entry, (coding, levels), EncodingAim::First(against), most);
        // Where this has no room nothing else would have any either.
        true
    }

    /// Counts an answer with a form of the entry's body. After so many of them the form is made once
    /// more at these levels, and given instead if it is smaller.
    pub fn want_better(
        &self,
        entry: &Entry,
        coding: ContentCoding,
        levels: CodingLevels,
        after: u32,
        most: usize,
    ) {
        if entry.body.len() <= MOST_BETTER && entry.forms_to_fill().is_hot(coding, after) {
            self.push(entry, (coding, levels), EncodingAim::Better, most);
        }
    }

    fn push(
        &self,
        entry: &Entry,
        (coding, levels): (ContentCoding, CodingLevels),
        aim: EncodingAim,
        most: usize,
    ) {
        let job = EncodingJob {
            key: entry.key.clone(),
            forms: Arc::clone(entry.forms_to_fill()),
            stored: entry.body.bytes(),
            applied: AppliedCoding::of(&entry.headers),
            coding,
            levels,
            aim,
            most,
        };
        if let Err((job, outcome)) = self.shared.push(job) {
            self.shared.drop_job(&job, outcome);
        }
    }
}

impl Drop for BodyEncoder {
    fn drop(&mut self) {
        self.shared.waiting.lock().closed = true;
        self.shared.has_come.notify_all();
    }
}

impl EncoderQueue {
    fn push(self: &Arc<Self>, job: EncodingJob) -> Result<(), (EncodingJob, EncodingOutcome)> {
        if self.pressure.is_high(Instant::now()) {
            return Err((job, EncodingOutcome::Busy));
        }
        let mut waiting = self.waiting.lock();
        let bytes = waiting.bytes + job.stored.len();
        if waiting.jobs.len() >= MOST_JOBS || (bytes > MOST_BYTES && !waiting.jobs.is_empty()) {
            return Err((job, EncodingOutcome::Skipped));
        }
        waiting.bytes = bytes;
        waiting.jobs.push_back(job);
        if !std::mem::replace(&mut waiting.started, true) {
            self.start();
        }
        drop(waiting);
        self.has_come.notify_one();
        Ok(())
    }

    fn start(self: &Arc<Self>) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..(cores / 2).max(1) {
            let queue = Arc::clone(self);
            let thread = std::thread::Builder::new().name("encoder".to_owned());
            let started = thread.spawn(move || {
                // Of this thread alone.
                _ = rustix::process::nice(5);
                while let Some(job) = queue.next() {
                    queue.run(&job);
                }
            });
            if let Err(error) = started {
                tracing::warn!(%error, "a thread that encodes bodies could not be started");
            }
        }
    }

    /// The next job. None: the cache is gone.
    fn next(&self) -> Option<EncodingJob> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(job) = waiting.jobs.pop_front() {
                waiting.bytes -= job.stored.len();
                return Some(job);
            }
            self.has_come.wait(&mut waiting);
        }
    }

    fn run(&self, job: &EncodingJob) {
        if self.pressure.is_high(Instant::now()) {
            return self.drop_job(job, EncodingOutcome::Busy);
        }
        let watch = self.pressure.measure();
        let made = job.make();
        let took = watch.end(Instant::now());
        match made {
            Ok((coded, instead_of)) => {
                let saved = instead_of - coded.len();
                let body = StoredBody::new(coded.into());
                match job.aim {
                    EncodingAim::First(_) => job.forms.set(job.coding, body),
                    EncodingAim::Better => job.forms.set_better(job.coding, body),
                }
                self.l1.weigh_again(&job.key, &job.forms);
                self.counts.made(job.coding, took, saved);
            }
            Err(outcome) => {
                match (job.aim, outcome) {
                    // The one that is there stays.
                    (EncodingAim::Better, _) => {}
                    (EncodingAim::First(against), EncodingOutcome::TooLittle) => {
                        job.forms.saves_too_little(job.coding, against);
                    }
                    (EncodingAim::First(_), _) => job.forms.is_impossible(job.coding),
                }
                self.counts.count(job.coding, outcome);
            }
        }
    }

    fn drop_job(&self, job: &EncodingJob, outcome: EncodingOutcome) {
        match job.aim {
            EncodingAim::First(_) => job.forms.give_up(job.coding),
            EncodingAim::Better => job.forms.cool_down(job.coding),
        }
        self.counts.count(job.coding, outcome);
    }
}

impl EncodingJob {
    /// The coded form, and the length of what its clients would get without it.
    fn make(&self) -> Result<(Vec<u8>, usize), EncodingOutcome> {
        let decoded;
        let plain = match self.applied {
            AppliedCoding::Identity => &self.stored[..],
            AppliedCoding::One(coding) => {
                let ratio = self.stored.len().saturating_mul(MOST_RATIO as usize);
                let most = self.most.min(ratio.max(64 << 10));
                decoded =
                    decode(coding, &self.stored, most).map_err(|_| EncodingOutcome::Failed)?;
                &decoded
            }
            AppliedCoding::Other => return Err(EncodingOutcome::Failed),
        };
        let instead_of = match self.aim {
            EncodingAim::First(FormYardstick::Stored) => self.stored.len(),
            EncodingAim::First(FormYardstick::Decoded) => plain.len(),
            EncodingAim::Better => self.forms.get(self.coding).map_or(0, |first| first.len()),
        };
        let most = match self.aim {
            EncodingAim::First(_) => {
                instead_of / 100 * KEPT_PERCENT + instead_of % 100 * KEPT_PERCENT / 100
            }
            EncodingAim::Better => instead_of.saturating_sub(1),
        };
        encode(self.coding, &self.levels, plain, most)
            .map(|coded| (coded, instead_of))
            .ok_or(EncodingOutcome::TooLittle)
    }
}

#[cfg(test)]
mod tests;
