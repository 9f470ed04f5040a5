//! Blocks of `vcl_recv` of which nothing has to be said, since Lamina does the same by itself.

use super::super::source::{self, SourceStatement};
use super::condition::{ReducedCondition, VclCondition};
use super::patterns;
use super::program::{assignment, branch_kind, removed_variable, returned_step};

/// Whether all that a block sets and removes is this field.
pub fn only_touches(block: &SourceStatement, field: &str) -> bool {
    source::all(block.inside()).into_iter().all(|one| {
        let touched = assignment(one)
            .map(|(left, _)| left)
            .or_else(|| removed_variable(one));
        match touched {
            Some(what) => what == format!("req.http.{field}"),
            None => branch_kind(one).is_some(),
        }
    })
}

/// What is known of a comparison since nothing is ever restarted, and all requests name a host.
pub fn of_restarts(leaf: &VclCondition) -> Option<bool> {
    match leaf {
        VclCondition::Set(word) => match word.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            "req.restarts" => Some(false),
            // A request without a host gets 400.
            "req.http.host" | "req.http.Host" => Some(true),
            _ => None,
        },
        VclCondition::Unset(word) => of_restarts(&VclCondition::Set(word.clone())).map(|is| !is),
        _ => {
            let (left, operator, right) = leaf.comparison()?;
            let most: u32 = right.parse().ok().filter(|_| left == "req.restarts")?;
            match operator {
                "==" => Some(most == 0),
                "!=" => Some(most != 0),
                "<" => Some(most > 0),
                ">=" => Some(most == 0),
                "<=" => Some(true),
                ">" => Some(false),
                _ => None,
            }
        }
    }
}

/// What is known of a comparison in a request with this method.
pub fn of_method(leaf: &VclCondition, method: &str) -> Option<bool> {
    let (left, operator, right) = leaf.comparison()?;
    if !matches!(left.as_str(), "req.method" | "req.request" | "bereq.method") {
        return None;
    }
    match operator {
        "==" => Some(right == method),
        "!=" => Some(right != method),
        "~" => names_method(right, method),
        "!~" => names_method(right, method).map(|names| !names),
        _ => None,
    }
}

/// Whether an expression matches a method; none if that can't be told.
fn names_method(expression: &str, method: &str) -> Option<bool> {
    let list = patterns::values(expression)?;
    let matches = |pattern: &String| {
        let (text, before) = match pattern.strip_prefix('*') {
            Some(rest) => (rest, true),
            None => (pattern.as_str(), false),
        };
        let (text, after) = match text.strip_suffix('*') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let is_plain = text.chars().all(|c| c.is_ascii_alphabetic());
        is_plain.then(|| match (before, after) {
            (true, true) => method.contains(text),
            (true, false) => method.ends_with(text),
            (false, true) => method.starts_with(text),
            (false, false) => method == text,
        })
    };
    let found: Option<Vec<bool>> = list.patterns.iter().map(matches).collect();
    found.map(|found| found.contains(&true))
}

/// Whether a condition can't hold for what may come from the cache.
pub fn is_uncacheable_method(condition: &VclCondition) -> bool {
    let known = |leaf: &VclCondition| of_method(leaf, "GET");
    condition.reduced(&known) == ReducedCondition::Never
}

/// Whether Lamina does by itself what a block says.
pub fn is_by_itself(one: &SourceStatement, condition: &VclCondition) -> bool {
    let steps: Vec<&str> = one.inside().iter().filter_map(returned_step).collect();
    let only_steps = steps.len() == one.inside().len() && !steps.is_empty();
    let passes = only_steps && steps.iter().all(|step| matches!(*step, "pass" | "pipe"));
    if passes && (is_uncacheable_method(condition) || is_upgrade(condition)) {
        return true;
    }
    let is_empty = condition.leaves().iter().all(|leaf| {
        leaf.comparison().is_some_and(|(left, operator, right)| {
            left == "req.http.cookie" && matches!(operator, "==" | "~") && is_blank(right)
        })
    });
    let forwarded = only_touches(one, "x-forwarded-for");
    let removes = |inner: &SourceStatement| {
        removed_variable(inner).is_some_and(|what| what == "req.http.cookie")
    };
    (is_empty && one.inside().iter().all(removes)) || forwarded
}

/// Whether a text, or an expression, is that of an empty field.
pub fn is_blank(right: &str) -> bool {
    matches!(right, "" | "^\\s*$" | "^ *$" | "^\\s+$" | "^$")
}

/// Whether a condition holds for upgrades alone.
fn is_upgrade(condition: &VclCondition) -> bool {
    condition.leaves().iter().all(|leaf| {
        let asks = match leaf {
            VclCondition::Set(_) => true,
            one => one.comparison().is_some_and(|(_, operator, right)| {
                matches!(operator, "==" | "~") && !matches!(right, "" | ".*")
            }),
        };
        asks && leaf.left() == "req.http.upgrade"
    })
}

/// The operator and the list of a comparison of the client's address with an `acl`.
pub fn address_list(leaf: &VclCondition) -> Option<(&str, &str)> {
    let VclCondition::Compared {
        left,
        operator,
        right,
    } = leaf
    else {
        return None;
    };
    let is_address = left.eq_ignore_ascii_case("client.ip");
    let is_list = matches!(operator.as_str(), "~" | "!~");
    (is_address && is_list).then_some((operator, right))
}
