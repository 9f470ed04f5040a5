//! Plays sequences against the three servers, many at once, each server on its own.
//!
//! All first halves come before the one pause, all second halves after it, so that short
//! lifetimes cost the run a few seconds and not each sequence. A first half that took
//! long is left out: its short lifetimes may have ended too early.

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::client::{Answer, Failure};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;

use crate::observe::ObservedAnswer;
use crate::script::{RunScript, STEP};
use crate::sequence::{RequestSequence, SHORT, SequenceStep};
use crate::servers::{ComparedCache, ComparedServers};

/// Sequences under way at once.
const AT_ONCE: usize = 16;
/// A first half with a pause behind it may take this long.
const QUICK: Duration = Duration::from_millis(900);
/// nginx counts whole seconds, so that its lifetimes end up to one late.
const PAUSE: Duration = Duration::from_millis(SHORT * 1_000 + 1_600);
/// How long a request that goes on behind an answer is given before the next step.
const BEHIND: Duration = Duration::from_millis(60);

/// A sequence and what the servers made of it, ours first.
pub struct PlayedSequence {
    pub sequence: Arc<RequestSequence>,
    pub seen: [Vec<ObservedAnswer>; 3],
    /// Its short lifetimes can't be relied on.
    pub slow: bool,
}

/// What is needed to play.
pub struct PlayStage {
    pub script: Arc<RunScript>,
    pub servers: ComparedServers,
}

impl PlayStage {
    /// Plays all of them, each under a URL of its own.
    pub async fn play(&self, sequences: Vec<Arc<RequestSequence>>) -> Vec<PlayedSequence> {
        let first = stream::iter(sequences).map(|sequence| self.first_half(sequence));
        let mut played: Vec<(usize, PlayedSequence)> = first.buffered(AT_ONCE).collect().await;
        if played.iter().any(|(_, played)| played.is_halved()) {
            tokio::time::sleep(PAUSE).await;
        }
        let second = played.iter_mut().map(|(number, played)| async {
            let rest = played.sequence.half()..played.sequence.steps.len();
            let more = self.steps(*number, &played.sequence, rest).await;
            for (seen, more) in played.seen.iter_mut().zip(more) {
                seen.extend(more);
            }
        });
        stream::iter(second)
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<()>>()
            .await;
        played.into_iter().map(|(_, played)| played).collect()
    }

    async fn first_half(&self, sequence: Arc<RequestSequence>) -> (usize, PlayedSequence) {
        let number = self.script.add(Arc::clone(&sequence));
        let began = Instant::now();
        let seen = self.steps(number, &sequence, 0..sequence.half()).await;
        let mut played = PlayedSequence {
            sequence,
            seen,
            slow: false,
        };
        played.slow = played.is_halved() && began.elapsed() > QUICK;
        (number, played)
    }

    async fn steps(
        &self,
        number: usize,
        sequence: &RequestSequence,
        range: std::ops::Range<usize>,
    ) -> [Vec<ObservedAnswer>; 3] {
        let mut seen: [Vec<ObservedAnswer>; 3] = Default::default();
        for at in range {
            let step = &sequence.steps[at];
            self.script.play_step(number, at);
            let subjects = self.servers.subjects.iter();
            let answers =
                join_all(subjects.map(|subject| self.ask(subject, number, at, step))).await;
            if sequence.refreshes_behind() {
                // There is no sign of a refresh that will not come.
                tokio::time::sleep(BEHIND).await;
            }
            let answered = self.servers.subjects.iter().zip(answers);
            for (all, (subject, answer)) in seen.iter_mut().zip(answered) {
                let asked = subject.record.of(number, at);
                all.push(ObservedAnswer::new(at, step, answer, asked));
            }
        }
        seen
    }

    async fn ask(
        &self,
        subject: &ComparedCache,
        number: usize,
        at: usize,
        step: &SequenceStep,
    ) -> Result<Answer, Failure> {
        let first = self.ask_once(subject, number, at, step).await;
        match first {
            // A kept connection that the server closed at the same moment.
            Err(Failure::NoAnswer(_)) if subject.record.of(number, at).is_empty() => {
                self.ask_once(subject, number, at, step).await
            }
            answer => answer,
        }
    }

    async fn ask_once(
        &self,
        subject: &ComparedCache,
        number: usize,
        at: usize,
        step: &SequenceStep,
    ) -> Result<Answer, Failure> {
        let url = format!("/{number}");
        let target = format!("{url}{}", step.ask.path);
        let ask = subject.client.ask(step.ask.method.clone(), &target);
        let ask = ask
            .header("host", "site.example")
            .header(STEP, &at.to_string());
        let ask = step.ask.fields.iter().fold(ask, |ask, field| {
            ask.header(field.name, &field.value.on_wire(self.script.start, &url))
        });
        ask.try_send().await
    }
}

impl PlayedSequence {
    fn is_halved(&self) -> bool {
        self.sequence.half() < self.sequence.steps.len()
    }
}
