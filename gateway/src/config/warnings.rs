//! What works as it is written and is still risky: `validate` prints it, `run` logs it.
//!
//! Unlike [`check`](super::check) nothing here keeps a gateway from starting.

use super::Config;
use super::problem::{Finding, Path, path};
use crate::proxy::config::PurgeRule;

/// Everything in a sound configuration that its author should know the risk of.
pub fn warnings(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    purges_by_client_data(config, &mut found);
    found.extend(super::seal_warnings::warnings(config));
    found
}

/// An `invalidate` rule that takes a selector from what a client chooses freely lets every
/// client choose what is purged.
fn purges_by_client_data(config: &Config, found: &mut Vec<Finding>) {
    for (n, route) in config.routes.iter().enumerate() {
        for (m, rule) in route.invalidate.iter().enumerate() {
            for (k, purge) in rule.purge.iter().enumerate() {
                let at = path(&["routes"]).index(n).key("invalidate").index(m);
                let at = at.key("purge").index(k);
                found.extend(chosen_by_clients(purge, &at));
            }
        }
    }
}

fn chosen_by_clients(purge: &PurgeRule, at: &Path) -> Option<Finding> {
    let (selector, template) = match purge {
        PurgeRule::Url(template) => ("url", template),
        PurgeRule::Prefix(template) => ("prefix", template),
        PurgeRule::Pattern(template) => ("pattern", template),
        PurgeRule::Tag(template) => ("tag", template),
        PurgeRule::Route(template) => ("route", template),
    };
    let placeholder = ["{header.", "{query."]
        .into_iter()
        .find(|placeholder| template.contains(placeholder))?;
    let source = placeholder.trim_matches(['{', '.']);
    let message = format!(
        "the {selector} is taken from a {source} that every client chooses, so whoever gets a \
         successful answer here decides what is purged; use `{{path}}` or `{{path.N}}`, or a \
         tag that the origin names in its answers"
    );
    Some(Finding::value(at.key(selector), message))
}
