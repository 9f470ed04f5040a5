//! The smallest sequence that still shows a difference.
//!
//! Everything that can be left out is left out once, all these candidates are played at
//! the same time, and the first that still shows the same is gone on from, until none does.

use std::sync::Arc;

use crate::compare::{Likeness, cases};
use crate::rules;
use crate::run::{Played, Stage};
use crate::sequence::{Sequence, Way};

/// Rounds of leaving something out.
const ROUNDS: usize = 12;

/// Plays `sequence` again and makes it smaller; None when the difference does not come again.
pub async fn smallest(
    stage: &Stage,
    sequence: &Arc<Sequence>,
    likeness: Likeness,
) -> Option<Played> {
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

async fn first(stage: &Stage, all: Vec<Arc<Sequence>>, likeness: Likeness) -> Option<Played> {
    let played = stage.play(all).await;
    played.into_iter().find(|played| {
        let (found, _) = cases(played, likeness.0);
        found
            .iter()
            .any(|case| case.likeness() == likeness && rules::explaining(case).is_none())
    })
}

/// `sequence` with one thing less, the larger things first.
fn candidates(sequence: &Sequence) -> Vec<Sequence> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Sequence)| {
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
        if step.answer.way != Way::Whole {
            with(&|s| s.steps[at].answer.way = Way::Whole);
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
