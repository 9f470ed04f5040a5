//! The smallest sequence that still shows a difference.
//!
//! Everything that can be left out is left out once, all these candidates are played at
//! the same time, and the first that still shows the same is gone on from, until none does.

use std::sync::Arc;

use crate::compare::{DifferenceLikeness, cases};
use crate::rules;
use crate::run::{PlayStage, PlayedSequence};
use crate::sequence::{AnswerDelivery, RequestSequence};

/// Rounds of leaving something out.
const ROUNDS: usize = 12;

/// Plays `sequence` again and makes it smaller; None when the difference does not come again.
pub async fn smallest(
    stage: &PlayStage,
    sequence: &Arc<RequestSequence>,
    likeness: DifferenceLikeness,
) -> Option<PlayedSequence> {
    let mut best = first(stage, vec![Arc::clone(sequence)], likeness).await?;
    for _ in 0..ROUNDS {
        let smaller = candidates(&best.sequence).into_iter().map(Arc::new);
        match first(stage, smaller.collect(), likeness).await {
            Some(found) => best = found,
            None => break,
        }
    }
    Some(best)
}

async fn first(
    stage: &PlayStage,
    all: Vec<Arc<RequestSequence>>,
    likeness: DifferenceLikeness,
) -> Option<PlayedSequence> {
    let played = stage.play(all).await;
    played.into_iter().find(|played| {
        let (found, _) = cases(played, likeness.0);
        found
            .iter()
            .any(|case| case.likeness() == likeness && rules::explaining(case).is_none())
    })
}

/// `sequence` with one thing less, the larger things first.
fn candidates(sequence: &RequestSequence) -> Vec<RequestSequence> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut RequestSequence)| {
        let mut smaller = sequence.clone();
        change(&mut smaller);
        all.push(smaller);
    };
    for (at, step) in sequence.steps.iter().enumerate() {
        with(&|s| drop(s.steps.remove(at)));
        if step.pause {
            with(&|s| s.steps[at].pause = false);
        }
        for field in 0..step.ask.fields.len() {
            with(&|s| {
                s.steps[at].ask.fields.remove(field);
            });
        }
        for field in 0..step.answer.fields.len() {
            with(&|s| {
                s.steps[at].answer.fields.remove(field);
            });
        }
        if step.answer.way != AnswerDelivery::Whole {
            with(&|s| s.steps[at].answer.way = AnswerDelivery::Whole);
        }
        if step.answer.status != 200 {
            with(&|s| s.steps[at].answer.status = 200);
        }
        if step.ask.method != http::Method::GET {
            with(&|s| s.steps[at].ask.method = http::Method::GET);
        }
    }
    all.retain(|smaller| !smaller.steps.is_empty());
    all
}
