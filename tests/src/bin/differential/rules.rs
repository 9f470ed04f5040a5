//! Which cases an explanation of the table is about: small predicates, the first that holds.

mod nginx;
mod shared;
mod varnish;

use crate::compare::Case;
use crate::servers::Peer;

/// A named predicate.
pub struct Rule {
    /// Its name in the table.
    pub id: &'static str,
    pub holds: fn(&Case<'_>) -> bool,
}

const fn rule(id: &'static str, holds: fn(&Case<'_>) -> bool) -> Rule {
    Rule { id, holds }
}

/// Those of one peer, in the order in which they are asked.
pub const fn of(peer: Peer) -> &'static [Rule] {
    match peer {
        Peer::Nginx => nginx::RULES,
        Peer::Varnish => varnish::RULES,
    }
}

/// The rule that explains this case.
pub fn explaining(case: &Case<'_>) -> Option<&'static Rule> {
    of(case.peer).iter().find(|rule| (rule.holds)(case))
}
