//! Which cases an explanation of the table is about: small predicates, the first that holds.

mod nginx;
mod shared;
mod varnish;

use crate::compare::ComparedCase;
use crate::servers::PeerCache;

/// A named predicate.
pub struct ExplanationRule {
    /// Its name in the table.
    pub id: &'static str,
    pub holds: fn(&ComparedCase<'_>) -> bool,
}

const fn rule(id: &'static str, holds: fn(&ComparedCase<'_>) -> bool) -> ExplanationRule {
    ExplanationRule { id, holds }
}

/// Those of one peer, in the order in which they are asked.
pub const fn of(peer: PeerCache) -> &'static [ExplanationRule] {
    match peer {
        PeerCache::Nginx => nginx::RULES,
        PeerCache::Varnish => varnish::RULES,
    }
}

/// The rule that explains this case.
pub fn explaining(case: &ComparedCase<'_>) -> Option<&'static ExplanationRule> {
    of(case.peer).iter().find(|rule| (rule.holds)(case))
}
