//! Expressions of a VCL as patterns: what is too long or too deep is not looked at, and whoever asks
//! learns whether capital and small letters are the same in the expression.

use super::super::expression::{self, PatternList};

/// The longest expression that is looked at, in octets.
const LONGEST: usize = 8 * 1024;

/// The most groups in an expression, so that they are not nested too deep either.
const MOST_GROUPS: usize = 128;

/// Patterns for a path.
pub fn paths(expression: &str) -> Option<PatternList> {
    expression::paths(readable(expression)?)
}

/// Patterns for the value of a field.
pub fn values(expression: &str) -> Option<PatternList> {
    expression::values(readable(expression)?)
}

/// Patterns for names of cookies.
pub fn cookie_names(expression: &str) -> Option<PatternList> {
    expression::cookie_names(readable(expression)?)
}

/// Patterns for names of parameters.
pub fn parameter_names(expression: &str) -> Option<PatternList> {
    expression::parameter_names(readable(expression)?)
}

/// Whether capital and small letters are the same somewhere in an expression.
pub fn takes_both_cases(expression: &str) -> bool {
    expression.contains("(?i")
}

/// An expression of a length and with groups that can be read, without the mark for both cases.
pub fn readable(expression: &str) -> Option<&str> {
    if expression.len() > LONGEST {
        return None;
    }
    let inside = expression.strip_prefix("(?i)").unwrap_or(expression);
    (expression.matches('(').count() <= MOST_GROUPS).then_some(inside)
}
