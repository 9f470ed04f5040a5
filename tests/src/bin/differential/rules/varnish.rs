//! Varnish 7.1.

use super::shared::{
    asks_by_head, became_private, came_old, cannot_validate, contradicts_itself, covers_an_error,
    had_nothing, has_several_expires, is_cut, is_heuristic, is_malformed, is_targeted,
    keeps_a_refusal, kept_by_them, kept_by_us, loaded_by_head, outlived_unsafe,
    outlives_a_failed_refresh, passed_by, refused_304, renewed_by_head,
};
use super::{ExplanationRule, rule};
use crate::compare::AnswerDifference;
use crate::observe::Source;

/// Without the ones that `vcl_backend_response` and the built-in lifetimes know.
const UNSTORED: [u16; 8] = [299, 303, 308, 500, 501, 502, 503, 504];

pub const RULES: &[ExplanationRule] = &[
    rule("varnish-no-heuristics", |case| {
        kept_by_us(case, is_heuristic)
    }),
    rule("varnish-quoted-argument", |case| {
        kept_by_us(case, |answer| answer.says("max-age=\""))
    }),
    rule("varnish-field-form", |case| {
        kept_by_us(case, |answer| answer.says("=\"x-a\""))
    }),
    rule("varnish-word-anywhere", |case| {
        kept_by_us(case, |answer| answer.says("x=\"no-store\""))
    }),
    rule("varnish-must-understand", |case| {
        kept_by_us(case, |answer| answer.says("must-understand"))
    }),
    rule("varnish-status", |case| {
        kept_by_us(case, |answer| UNSTORED.contains(&answer.status))
    }),
    rule("varnish-cookie", |case| passed_by(case, "cookie")),
    rule("varnish-authorization", |case| {
        passed_by(case, "authorization")
    }),
    rule("varnish-targeted", is_targeted),
    rule("varnish-validates-what-was-fresh", |case| {
        had_nothing(case) && case.ours().source == Source::Validated
    }),
    rule("varnish-contradiction", |case| {
        kept_by_them(case, |answer| {
            contradicts_itself(answer) || has_several_expires(answer)
        })
    }),
    rule("varnish-malformed", |case| kept_by_them(case, is_malformed)),
    rule("varnish-age-by-date", came_old),
    rule("varnish-no-invalidation", outlived_unsafe),
    rule("varnish-head-renews", renewed_by_head),
    rule("varnish-head-loads", loaded_by_head),
    rule("varnish-304-for-another", refused_304),
    rule("varnish-failed-refresh", outlives_a_failed_refresh),
    rule("varnish-503", |case| {
        case.difference == AnswerDifference::Status
            && (case.ours().status, case.theirs().status) == (502, 503)
    }),
    rule("varnish-validated-for-one", became_private),
    rule("varnish-must-validate", cannot_validate),
    rule("varnish-cut", is_cut),
    rule("varnish-none-match-forms", |case| {
        let form = |form| {
            case.ask()
                .fields
                .iter()
                .any(|field| field.to_string() == form)
        };
        case.difference == AnswerDifference::Status
            && (form("if-none-match: *") || form("if-none-match: \"x\", \"v1\""))
            && (case.ours().status, case.theirs().status) == (304, 200)
    }),
    rule("varnish-conditions-unstored", |case| {
        case.difference == AnswerDifference::Status
            && case.ours().source == Source::Origin
            && (case.ours().status, case.theirs().status) == (200, 304)
    }),
    rule("varnish-head-validates", asks_by_head),
    rule("varnish-range-of-unsafe", |case| {
        !case.ask().reads() && case.ask().has("range") && case.theirs().status == 503
    }),
    rule("varnish-strange-request", keeps_a_refusal),
    rule("varnish-stale-if-error", covers_an_error),
    rule("varnish-old-on-arrival", |case| {
        case.before().any(|step| step.answer.has("age"))
            && case.ours().source == Source::StaleCopy
            && case.theirs().source == Source::Origin
    }),
    rule("varnish-ranges", |case| {
        let multipart = (206, 416);
        let unstored = (200, 206);
        let beyond = (200, 416);
        case.difference == AnswerDifference::Status
            && case.ask().has("range")
            && [multipart, unstored, beyond].contains(&(case.ours().status, case.theirs().status))
    }),
];
