//! Goes through a subroutine as Varnish does, with all that it calls, and hands its statements to a
//! translator one by one.

use super::super::source::SourceStatement;
use super::branches::{BlockCondition, SubOutcome, VclStep, steps_of};
use super::condition::{ReducedCondition, VclCondition};
use super::program::VclProgram;
use super::settled;

/// The most subroutines that call one another, or blocks that lie in one another.
const DEEPEST: usize = 8;

/// Says statements in the draft.
pub trait StatementTranslator {
    /// A statement for all requests or answers that come so far.
    fn plain(&mut self, one: &SourceStatement);

    /// A block for those for which a condition holds.
    fn block(&mut self, one: &SourceStatement, condition: &VclCondition) -> BlockReading;

    /// After a statement, whatever became of it: what it does not say has to be weighed.
    fn weigh(&mut self, one: &SourceStatement);
}

/// How a block was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum BlockReading {
    /// As a whole, as far as it can be said.
    Whole,
    /// What stands in it may be said of all others, too.
    AsIfForAll,
}

/// Hands the statements of a subroutine to a translator; how the subroutine is left.
pub fn walk(
    program: &VclProgram<'_>,
    statements: &[&SourceStatement],
    translator: &mut impl StatementTranslator,
) -> SubOutcome {
    let mut walk = SubWalk {
        program,
        translator,
        called: Vec::new(),
    };
    walk.through(statements, 0)
}

struct SubWalk<'a, 'b, T> {
    program: &'b VclProgram<'a>,
    translator: &'b mut T,
    /// Subroutines whose statements were said; saying them twice adds nothing.
    called: Vec<String>,
}

impl<T: StatementTranslator> SubWalk<'_, '_, T> {
    fn through(&mut self, statements: &[&SourceStatement], depth: usize) -> SubOutcome {
        let mut outcome = SubOutcome::GoesOn;
        for step in steps_of(statements.iter().copied()) {
            let (VclStep::Plain(one) | VclStep::Block(one, _)) = step;
            if outcome != SubOutcome::GoesOn {
                one.needs_nothing_whole();
                continue;
            }
            outcome = match step {
                VclStep::Plain(one) if one.name() == "call" => self.call(one, depth),
                VclStep::Plain(one) => {
                    self.translator.plain(one);
                    self.translator.weigh(one);
                    SubOutcome::after(one)
                }
                VclStep::Block(one, condition) => self.block(one, condition, depth),
            };
        }
        outcome
    }

    fn call(&mut self, one: &SourceStatement, depth: usize) -> SubOutcome {
        let name = one.argument().to_owned();
        let inside = self.program.sub(&name);
        if inside.is_empty() || depth >= DEEPEST {
            self.translator.weigh(one);
            return SubOutcome::GoesOn;
        }
        one.translated();
        if self.called.contains(&name) {
            return SubOutcome::GoesOn;
        }
        self.called.push(name);
        self.through(&inside, depth + 1).of_caller()
    }

    fn block(
        &mut self,
        one: &SourceStatement,
        condition: BlockCondition,
        depth: usize,
    ) -> SubOutcome {
        let inside: Vec<&SourceStatement> = one.inside().iter().collect();
        let condition = match condition {
            BlockCondition::Always => Some(ReducedCondition::Always),
            BlockCondition::If(condition) => Some(condition.reduced(&settled::of_restarts)),
            BlockCondition::Unread => None,
        };
        match condition {
            Some(ReducedCondition::Always) if depth < DEEPEST => {
                one.translated();
                return self.through(&inside, depth + 1);
            }
            Some(ReducedCondition::Always) => {}
            Some(ReducedCondition::Never) => one.needs_nothing_whole(),
            Some(ReducedCondition::If(condition)) => {
                let reading = self.translator.block(one, &condition);
                if reading == BlockReading::AsIfForAll && depth < DEEPEST {
                    one.translated();
                    // Others go on, however it is left.
                    self.through(&inside, depth + 1);
                }
            }
            None => one.remarked("the condition can't be read"),
        }
        self.translator.weigh(one);
        SubOutcome::GoesOn
    }
}
