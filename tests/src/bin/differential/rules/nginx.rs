//! nginx 1.22.

use super::shared::{
    asks_by_head, came_old, cannot_validate, contradicts_itself, covers_an_error,
    has_several_expires, is_cut, is_heuristic, is_targeted, keeps_a_refusal, kept_by_them,
    kept_by_us, loaded_by_head, outlived_unsafe, outlives_a_failed_refresh, refused_304,
    renewed_by_head,
};
use super::{ExplanationRule, rule};
use crate::compare::AnswerDifference;
use crate::observe::{ObservedAnswer, Source};
use crate::sequence::SequenceStep;

pub const RULES: &[ExplanationRule] = &[
    rule("nginx-no-age", |case| {
        case.difference == AnswerDifference::Age
    }),
    rule("nginx-no-heuristics", |case| kept_by_us(case, is_heuristic)),
    rule("nginx-quoted-argument", |case| {
        kept_by_us(case, |answer| answer.says("max-age=\""))
    }),
    rule("nginx-field-form", |case| {
        kept_by_us(case, |answer| answer.says("=\"x-a\""))
    }),
    rule("nginx-word-anywhere", |case| {
        kept_by_us(case, |answer| answer.says("x=\"no-store\""))
    }),
    rule("nginx-must-understand", |case| {
        kept_by_us(case, |answer| answer.says("must-understand"))
    }),
    rule("nginx-targeted", is_targeted),
    rule("nginx-validates-what-was-fresh", |case| {
        (case.ours().source, case.theirs().source) == (Source::Validated, Source::Origin)
    }),
    rule("nginx-contradiction", |case| {
        kept_by_them(case, |answer| {
            contradicts_itself(answer) || has_several_expires(answer)
        })
    }),
    rule("nginx-age-of-the-response", came_old),
    rule("nginx-no-invalidation", outlived_unsafe),
    rule("nginx-authorization", |case| {
        case.only_theirs_reused()
            && case
                .reused()
                .is_some_and(|step| step.ask.has("authorization"))
    }),
    rule("nginx-failed-refresh", outlives_a_failed_refresh),
    rule("nginx-must-validate", cannot_validate),
    rule("nginx-cut", is_cut),
    rule("nginx-head-validates", asks_by_head),
    rule("nginx-head-renews", renewed_by_head),
    rule("nginx-head-loads", loaded_by_head),
    rule("nginx-304-for-another", refused_304),
    rule("nginx-304-updates-nothing", |case| {
        let validated = |seen: &ObservedAnswer| seen.source == Source::Validated;
        case.difference == AnswerDifference::Fields
            && case.seen[1][..=case.at].iter().any(validated)
    }),
    rule("nginx-validates-what-was-replaced", |case| {
        case.ours().source == Source::Origin && case.theirs().source == Source::Validated
    }),
    rule("nginx-validates-200-alone", |case| {
        case.ours().source == Source::Validated && case.theirs().source == Source::StaleCopy
    }),
    rule("nginx-conditions-unstored", |case| {
        case.difference == AnswerDifference::Status
            && case.ours().source == Source::Origin
            && (case.ours().status, case.theirs().status) == (200, 304)
    }),
    rule("nginx-newest-variant", |case| {
        let varied = |step: &SequenceStep| step.answer.has("vary");
        let sources = (case.ours().source, case.theirs().source);
        (case.difference != AnswerDifference::Source
            || sources == (Source::Validated, Source::Store))
            && case.theirs().from < case.ours().from
            && case.before().any(varied)
    }),
    rule("nginx-vary-lines", |case| {
        kept_by_them(case, |answer| answer.all("vary").count() > 1)
    }),
    rule("nginx-conditions", |case| {
        case.difference == AnswerDifference::Status
            && (case.ours().status, case.theirs().status) == (304, 200)
    }),
    rule("nginx-strange-request", keeps_a_refusal),
    rule("nginx-stale-if-error", covers_an_error),
    rule("nginx-refresh-that-is-not-stored", |case| {
        case.theirs().source == Source::StaleCopy && case.ours().source == Source::Origin
    }),
    rule("nginx-ranges", |case| {
        case.difference == AnswerDifference::Status
            && case.ask().has("range")
            && matches!(case.ours().status, 206 | 416)
            && case.theirs().status == 200
    }),
];
