//! Where two servers went different ways.
//!
//! A difference of source, body or fields leaves the caches in different states, so it
//! ends the comparison of its sequence; one of status or `Age` alone does not.

use http::Method;

use crate::observe::{ObservedAnswer, Source};
use crate::run::PlayedSequence;
use crate::sequence::{OriginAnswer, RequestSequence, SequenceRequest, SequenceStep};
use crate::servers::PeerCache;

/// What differs, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AnswerDifference {
    Source,
    Status,
    Body,
    /// The fields are those of another step's answer.
    Fields,
    /// `Age` is there or not.
    Age,
}

/// One difference and all that led to it.
pub struct ComparedCase<'a> {
    pub peer: PeerCache,
    pub difference: AnswerDifference,
    pub sequence: &'a RequestSequence,
    /// The number of the step.
    pub at: usize,
    pub seen: [&'a [ObservedAnswer]; 2],
}

/// Differences that look alike, for counting and for finding a small example.
pub type DifferenceLikeness = (PeerCache, AnswerDifference, [(Source, u16); 2]);

impl AnswerDifference {
    fn ends(self) -> bool {
        matches!(self, Self::Source | Self::Body | Self::Fields)
    }

    fn between(
        step: &SequenceStep,
        ours: &ObservedAnswer,
        theirs: &ObservedAnswer,
    ) -> Option<Self> {
        let own = ours.source == Source::Own && theirs.source == Source::Own;
        // The words of an error are its server's own.
        let bare = own || ours.status == 416 || step.ask.method == Method::HEAD;
        let fields = ours.from.zip(theirs.from);
        let aged = !matches!(ours.source, Source::Own | Source::Origin) && ours.status != 416;
        // A 416 carries nothing that tells a stale copy from the origin's answer.
        let unclear = ours.status == 416 && theirs.source == Source::StaleCopy;
        if ours.source != theirs.source && !unclear {
            Some(Self::Source)
        } else if ours.status != theirs.status {
            Some(Self::Status)
        } else if !bare && ours.body != theirs.body {
            Some(Self::Body)
        } else if fields.is_some_and(|(ours, theirs)| ours != theirs) {
            Some(Self::Fields)
        } else if aged && ours.age != theirs.age {
            Some(Self::Age)
        } else {
            None
        }
    }
}

/// The differences to one peer, up to the first that ends the comparison; and how many
/// steps were compared.
pub fn cases<'a>(played: &'a PlayedSequence, peer: PeerCache) -> (Vec<ComparedCase<'a>>, usize) {
    let ours = &played.seen[0];
    let theirs = &played.seen[1 + peer as usize];
    let mut found = Vec::new();
    for (at, step) in played.sequence.steps.iter().enumerate() {
        let Some(difference) = AnswerDifference::between(step, &ours[at], &theirs[at]) else {
            continue;
        };
        found.push(ComparedCase {
            peer,
            difference,
            sequence: &played.sequence,
            at,
            seen: [ours, theirs],
        });
        if difference.ends() {
            return (found, at + 1);
        }
    }
    (found, ours.len())
}

impl<'a> ComparedCase<'a> {
    pub fn likeness(&self) -> DifferenceLikeness {
        let side = |seen: &ObservedAnswer| (seen.source, seen.status);
        (
            self.peer,
            self.difference,
            [side(self.ours()), side(self.theirs())],
        )
    }

    pub fn ours(&self) -> &'a ObservedAnswer {
        &self.seen[0][self.at]
    }

    pub fn theirs(&self) -> &'a ObservedAnswer {
        &self.seen[1][self.at]
    }

    pub fn step(&self) -> &'a SequenceStep {
        &self.sequence.steps[self.at]
    }

    pub fn ask(&self) -> &'a SequenceRequest {
        &self.step().ask
    }

    /// What the origin says to this step.
    pub fn answer(&self) -> &'a OriginAnswer {
        &self.step().answer
    }

    /// The earlier steps about the same URL, the last one first.
    pub fn before(&self) -> impl Iterator<Item = &'a SequenceStep> {
        let path = self.ask().path;
        let earlier = self.sequence.steps[..self.at].iter().rev();
        earlier.filter(move |step| step.ask.path == path)
    }

    /// Ours reused and theirs asked.
    pub fn only_ours_reused(&self) -> bool {
        self.difference == AnswerDifference::Source
            && self.ours().is_reused()
            && !self.theirs().is_reused()
    }

    /// Theirs reused and ours asked.
    pub fn only_theirs_reused(&self) -> bool {
        self.difference == AnswerDifference::Source
            && self.theirs().is_reused()
            && !self.ours().is_reused()
    }

    /// The step whose answer was reused, where one side alone reused.
    pub fn reused(&self) -> Option<&'a SequenceStep> {
        let from = match (self.only_ours_reused(), self.only_theirs_reused()) {
            (true, _) => self.ours().from,
            (_, true) => self.theirs().from,
            _ => None,
        };
        // A 416 does not say from which.
        match from {
            Some(at) => self.sequence.steps.get(at),
            None => self.before().next(),
        }
    }
}
