//! Statements in their order, where each block of `if`, `elseif` and `else` stands with all that must
//! hold for it. So a translator of a block need not know of its neighbours.

use super::super::source::SourceStatement;
use super::condition::VclCondition;
use super::program::{BranchKind, branch_kind};

/// The most blocks of one `if` of which the last ones can be told apart.
const LONGEST: usize = 64;

/// A statement, or a block with its condition.
pub enum VclStep<'a> {
    Plain(&'a SourceStatement),
    Block(&'a SourceStatement, BlockCondition),
}

/// When a block is run.
pub enum BlockCondition {
    /// `else`, where all blocks before it end the subroutine.
    Always,
    If(VclCondition),
    /// Nobody knows, since a condition can't be read.
    Unread,
}

/// The statements one by one. A block that ends the subroutine says of all that follows, its own
/// `else` included, no more than that its condition does not hold, which is left out here: others go on
/// as if they were the rest.
pub fn steps_of<'a>(statements: impl IntoIterator<Item = &'a SourceStatement>) -> Vec<VclStep<'a>> {
    let mut found = Vec::new();
    // What does not hold in the `else` of the blocks so far; none if it can't be said.
    let mut refused: Option<Vec<VclCondition>> = Some(Vec::new());
    for one in statements {
        let Some(kind) = branch_kind(one) else {
            refused = Some(Vec::new());
            found.push(VclStep::Plain(one));
            continue;
        };
        if kind == BranchKind::If {
            refused = Some(Vec::new());
        }
        let own = VclCondition::of(&one.text);
        let is_last = one.text == "else";
        let condition = match (&own, is_last, refused.clone()) {
            (_, _, None) | (None, false, _) => BlockCondition::Unread,
            (_, _, Some(mut all)) => {
                all.extend(own.clone().filter(|_| !is_last));
                VclCondition::all_of(all).map_or(BlockCondition::Always, BlockCondition::If)
            }
        };
        if !always_ends(one.inside()) {
            refused = match (refused, own) {
                (Some(mut all), Some(own)) if all.len() < LONGEST => {
                    all.push(own.negated());
                    Some(all)
                }
                _ => None,
            };
        }
        found.push(VclStep::Block(one, condition));
    }
    found
}

/// Whether the subroutine ends in these statements, whatever holds.
pub fn always_ends(statements: &[SourceStatement]) -> bool {
    let mut chain_ends = false;
    for one in statements {
        chain_ends = match branch_kind(one) {
            None if is_end(one) => return true,
            None => false,
            Some(BranchKind::If) => always_ends(one.inside()),
            Some(BranchKind::Else) => chain_ends && always_ends(one.inside()),
        };
        let is_last = branch_kind(one).is_some() && one.text == "else";
        if is_last && chain_ends {
            return true;
        }
    }
    false
}

/// Whether a statement ends the subroutine.
pub fn is_end(one: &SourceStatement) -> bool {
    let word = one.name().split('(').next().unwrap_or_default();
    one.block.is_none() && matches!(word, "return" | "error")
}

/// How a subroutine is left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SubOutcome {
    GoesOn,
    /// `return;`: whoever called it goes on.
    LeavesSub,
    Ended,
}

impl SubOutcome {
    /// What it is after a statement.
    pub fn after(one: &SourceStatement) -> Self {
        match (is_end(one), one.text.as_str()) {
            (true, "return") => Self::LeavesSub,
            (true, _) => Self::Ended,
            (false, _) => Self::GoesOn,
        }
    }

    /// What it is for whoever called.
    pub fn of_caller(self) -> Self {
        match self {
            Self::LeavesSub => Self::GoesOn,
            outcome => outcome,
        }
    }
}
