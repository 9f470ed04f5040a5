//! Predicates that more than one peer has rules of.

use http::Method;

use crate::compare::{AnswerDifference, ComparedCase};
use crate::observe::Source;
use crate::sequence::{AnswerDelivery, FieldLine, FieldValue, OriginAnswer, SequenceStep};

/// Ours reused an answer like this, or validated it; theirs asked as if it had none.
pub fn kept_by_us(case: &ComparedCase<'_>, like: fn(&OriginAnswer) -> bool) -> bool {
    had_nothing(case) && kept(case).is_some_and(|step| like(&step.answer))
}

/// Theirs reused an answer like this, ours asked.
pub fn kept_by_them(case: &ComparedCase<'_>, like: fn(&OriginAnswer) -> bool) -> bool {
    case.only_theirs_reused() && case.reused().is_some_and(|step| like(&step.answer))
}

/// Ours used a stored answer; theirs asked for another one, or goes on with an older one.
pub fn had_nothing(case: &ComparedCase<'_>) -> bool {
    let used = !matches!(case.ours().source, Source::Origin | Source::Own);
    case.difference == AnswerDifference::Source
        && used
        && !matches!(case.theirs().source, Source::Store | Source::Validated)
}

/// The step whose answer ours used; after a validation the one before.
fn kept<'a>(case: &ComparedCase<'a>) -> Option<&'a SequenceStep> {
    match case.ours().source {
        Source::Validated => case.before().find(|step| step.ask.reads()),
        _ => case.reused(),
    }
}

pub fn is_targeted(case: &ComparedCase<'_>) -> bool {
    let mut so_far = case.before().chain([case.step()]);
    so_far.any(|step| step.answer.has("cdn-cache-control"))
}

/// Freshness that is stated in the plain way.
pub fn is_explicit(answer: &OriginAnswer) -> bool {
    let quoted = answer.says("x=\"max-age");
    (answer.says("max-age") && !quoted) || answer.says("s-maxage") || answer.has("expires")
}

pub fn is_heuristic(answer: &OriginAnswer) -> bool {
    !is_explicit(answer) && answer.has("last-modified")
}

/// Two lifetimes that differ.
pub fn contradicts_itself(answer: &OriginAnswer) -> bool {
    let lines = answer.all("cache-control").count();
    answer.says("max-age=3600, max-age=0") || (lines > 1 && answer.says("max-age=0"))
}

pub fn has_several_expires(answer: &OriginAnswer) -> bool {
    answer.all("expires").count() > 1
}

/// Theirs goes on with what came with an age, by `Date` or by `Age`.
pub fn came_old(case: &ComparedCase<'_>) -> bool {
    let past = |field: &FieldLine| matches!(field.value, FieldValue::Date(..0));
    let old = |answer: &OriginAnswer| answer.all("date").any(past) || answer.has("age");
    goes_on_with_older(case) && case.before().any(|step| old(&step.answer))
}

/// A lifetime that is no number of seconds.
pub fn is_malformed(answer: &OriginAnswer) -> bool {
    ["max-age=3600s", "max-age=-1", "max-age =3600"]
        .iter()
        .any(|form| answer.says(form))
        || answer
            .all("cache-control")
            .any(|field| matches!(field.value, FieldValue::Text("max-age=")))
}

/// Theirs answers with an older copy than ours, or ours has none at all.
fn goes_on_with_older(case: &ComparedCase<'_>) -> bool {
    let (ours, theirs) = (case.ours(), case.theirs());
    let copy = matches!(
        theirs.source,
        Source::Store | Source::Validated | Source::StaleCopy
    );
    copy && (!ours.is_reused() || theirs.from < ours.from)
}

/// Something before was unsafe; theirs goes on with what it has.
pub fn outlived_unsafe(case: &ComparedCase<'_>) -> bool {
    let earlier = &case.sequence.steps[..case.at];
    goes_on_with_older(case) && earlier.iter().any(|step| !step.ask.reads())
}

/// Theirs made a GET of a HEAD and kept the answer.
pub fn loaded_by_head(case: &ComparedCase<'_>) -> bool {
    let by_head = |at: usize| case.sequence.steps[at].ask.method == Method::HEAD;
    let theirs = case.theirs();
    (theirs.is_reused() && theirs.from.is_some_and(by_head))
        || (goes_on_with_older(case) && case.before().any(|step| step.ask.method == Method::HEAD))
}

/// Theirs passed such a request by, ours stored the answer or used what it had.
pub fn passed_by(case: &ComparedCase<'_>, field: &str) -> bool {
    let so_far = &case.sequence.steps[..=case.at];
    let has_more = case.theirs().is_reused() && case.difference == AnswerDifference::Source;
    !matches!(
        case.difference,
        AnswerDifference::Status | AnswerDifference::Age
    ) && !has_more
        && so_far.iter().any(|step| step.ask.has(field))
}

/// Ours sends a HEAD on as it is, theirs validates its copy with it.
pub fn asks_by_head(case: &ComparedCase<'_>) -> bool {
    case.ask().method == Method::HEAD
        && matches!(case.ours().source, Source::Origin | Source::Validated)
        && case.theirs().asked.iter().any(|asked| asked.conditional)
}

/// Ours goes on with its copy after a refresh behind a reader failed.
pub fn outlives_a_failed_refresh(case: &ComparedCase<'_>) -> bool {
    let fails = |step: &SequenceStep| {
        step.answer.status >= 500 || is_refusal(step) || step.answer.way != AnswerDelivery::Whole
    };
    case.ours().source == Source::StaleCopy
        && case.sequence.refreshes_behind()
        && case.before().any(fails)
}

/// Theirs kept what the origin said of a request that it could not take.
pub fn keeps_a_refusal(case: &ComparedCase<'_>) -> bool {
    goes_on_with_older(case) && case.before().any(is_refusal)
}

/// The origin could not take the request.
fn is_refusal(step: &SequenceStep) -> bool {
    matches!(step.answer.status, 400 | 405 | 413 | 414 | 431)
}

/// Ours tells that a copy that must be validated could not be, theirs that the origin failed.
pub fn cannot_validate(case: &ComparedCase<'_>) -> bool {
    let must = |step: &SequenceStep| {
        let says = |directive| step.answer.says(directive);
        says("must-revalidate") || says("proxy-revalidate") || says("s-maxage") || says("no-cache")
    };
    case.difference == AnswerDifference::Status
        && (case.ours().source, case.theirs().source) == (Source::Own, Source::Own)
        && case.ours().status == 504
        && matches!(case.theirs().status, 502 | 503)
        && case.answer().way == AnswerDelivery::HangUp
        && case.before().any(must)
}

/// Ours answers with a copy whose window for errors is open.
pub fn covers_an_error(case: &ComparedCase<'_>) -> bool {
    case.ours().source == Source::StaleCopy
        && case.theirs().source != Source::StaleCopy
        && case.before().any(|step| step.answer.says("stale-if-error"))
}

/// Ours goes on with a stored GET that the answer to a HEAD renewed.
pub fn renewed_by_head(case: &ComparedCase<'_>) -> bool {
    let by_head = |at: usize| case.sequence.steps[at].ask.method == Method::HEAD;
    case.ours().is_reused() && case.ours().from.is_some_and(by_head)
}

/// Ours took no 304 that names another strong validator.
pub fn refused_304(case: &ComparedCase<'_>) -> bool {
    let ours = case.ours();
    ours.source != Source::Validated
        && case.theirs().source == Source::Validated
        && ours.asked.first().is_some_and(|asked| asked.not_modified)
}

/// Theirs keeps what a 304 makes private, ours passes it to the client alone.
pub fn became_private(case: &ComparedCase<'_>) -> bool {
    case.difference == AnswerDifference::Age
        && (case.ours().source, case.theirs().source) == (Source::Validated, Source::Validated)
        && !case.ours().age
        && (case.answer().says("private") || case.answer().says("no-store"))
}

pub fn is_cut(case: &ComparedCase<'_>) -> bool {
    case.answer().way == AnswerDelivery::Cut
        && matches!(case.ours().source, Source::Own | Source::Origin)
}
