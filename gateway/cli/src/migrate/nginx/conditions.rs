//! Conditions of nginx: what `if (…)` and the entries of a `map` ask for, what gives a variable its value,
//! and when a text says something.

use serde_json::json;

use super::super::expression::{self, ExpressionCase, PatternList};
use super::super::source::SourceStatement;
use super::blocks::BlockChain;
use super::values::{TextPiece, text_pieces};

/// How a variable is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConditionOperator {
    /// It is neither empty nor `0`.
    Given,
    Equals,
    /// As `map` compares texts: letters of any case.
    EqualsInAnyCase,
    Differs,
    Matches(ExpressionCase),
    MatchesNot(ExpressionCase),
}

/// What an `if (…)` or an entry of a `map` asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestCondition {
    /// Without the `$`.
    pub variable: String,
    pub operator: ConditionOperator,
    pub value: String,
}

impl RequestCondition {
    /// That of an `if (…)`; none where it is about files.
    pub fn of_if(block: &SourceStatement) -> Option<Self> {
        let text = block.arguments().join(" ");
        let text = text.trim().strip_prefix('(')?.strip_suffix(')')?.trim();
        let mut parts = text.splitn(3, ' ');
        let pieces = text_pieces(parts.next()?);
        let [TextPiece::Variable(variable)] = pieces.as_slice() else {
            return None;
        };
        let operator = match parts.next() {
            None => ConditionOperator::Given,
            Some("=") => ConditionOperator::Equals,
            Some("!=") => ConditionOperator::Differs,
            Some("~") => ConditionOperator::Matches(ExpressionCase::Told),
            Some("~*") => ConditionOperator::Matches(ExpressionCase::Ignored),
            Some("!~") => ConditionOperator::MatchesNot(ExpressionCase::Told),
            Some("!~*") => ConditionOperator::MatchesNot(ExpressionCase::Ignored),
            Some(_) => return None,
        };
        Some(Self {
            variable: variable.clone(),
            operator,
            value: parts.next().unwrap_or_default().trim().to_owned(),
        })
    }

    /// That of an entry of a `map` of this variable.
    pub fn of_map_entry(variable: &str, key: &str) -> Self {
        let (operator, value) = match key {
            key if key.starts_with("~*") => (
                ConditionOperator::Matches(ExpressionCase::Ignored),
                &key[2..],
            ),
            key if key.starts_with('~') => {
                (ConditionOperator::Matches(ExpressionCase::Told), &key[1..])
            }
            key => {
                let value = key.strip_prefix('\\').unwrap_or(key);
                (ConditionOperator::EqualsInAnyCase, value)
            }
        };
        Self {
            variable: variable.to_owned(),
            operator,
            value: value.to_owned(),
        }
    }

    pub fn given(variable: &str) -> Self {
        Self {
            variable: variable.to_owned(),
            operator: ConditionOperator::Given,
            value: String::new(),
        }
    }

    /// Whether it asks for a text that is there, whichever it is.
    pub fn asks_for_any_text(&self) -> bool {
        self.operator == ConditionOperator::Given
            || (self.operator == ConditionOperator::Differs && self.value.is_empty())
    }

    /// The expression that it compares with, and whether letters of any case are the same to it.
    pub fn expression(&self) -> Option<PatternList> {
        let (ConditionOperator::Matches(case) | ConditionOperator::MatchesNot(case)) =
            self.operator
        else {
            return None;
        };
        let mut list = expression::values(&self.value)?;
        if case == ExpressionCase::Ignored {
            list.case = case;
        }
        Some(list)
    }

    pub fn ignores_case(&self) -> bool {
        self.operator == ConditionOperator::Matches(ExpressionCase::Ignored)
    }
}

/// The pattern for the value of a field or a parameter that a condition asks for, with how it differs.
pub fn value_pattern(
    condition: &RequestCondition,
) -> Option<(serde_json::Value, Option<&'static str>)> {
    if condition.asks_for_any_text() {
        return Some((json!("*"), None));
    }
    let literal = expression::literal_text(&condition.value);
    match condition.operator {
        ConditionOperator::Equals if !literal.is_empty() => {
            Some((json!({ "any": [literal], "case": "exact" }), None))
        }
        ConditionOperator::EqualsInAnyCase if !literal.is_empty() => {
            Some((json!({ "any": [literal], "case": "ignore" }), None))
        }
        ConditionOperator::Matches(_) => {
            let mut list = condition.expression()?;
            let case = match list.case {
                ExpressionCase::Told => "exact",
                ExpressionCase::Ignored => "ignore",
            };
            list.case = ExpressionCase::Told;
            let difference = list.difference();
            Some((json!({ "any": list.patterns, "case": case }), difference))
        }
        _ => None,
    }
}

/// For which requests a text is neither empty nor `0`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TextTruth {
    Never,
    Always,
    /// It has variables.
    ByRequest,
}

/// When it is so.
pub fn truth_of_text(text: &str) -> TextTruth {
    let pieces = text_pieces(text);
    let has_variable = pieces
        .iter()
        .any(|piece| matches!(piece, TextPiece::Variable(_)));
    let has_literal = pieces
        .iter()
        .any(|piece| matches!(piece, TextPiece::Literal(_)));
    match (has_variable, has_literal) {
        (true, true) => TextTruth::Always,
        (true, false) => TextTruth::ByRequest,
        (false, _) if text.is_empty() || text == "0" => TextTruth::Never,
        (false, _) => TextTruth::Always,
    }
}

/// What gives a variable its value, in the order in which nginx does it.
pub fn definitions_of<'a>(chain: &BlockChain<'a>, name: &str) -> Vec<&'a SourceStatement> {
    let mut blocks: Vec<_> = chain.blocks().collect();
    blocks.reverse();
    let defines = |one: &&SourceStatement| match one.name() {
        "set" => is_variable(one.argument(), name),
        "if" => set_inside(one, name).is_some(),
        "map" => one
            .arguments()
            .get(1)
            .is_some_and(|target| is_variable(target, name)),
        _ => false,
    };
    blocks
        .into_iter()
        .flatten()
        .copied()
        .filter(defines)
        .collect()
}

/// Whether a word is this variable.
fn is_variable(word: &str, name: &str) -> bool {
    text_pieces(word) == [TextPiece::Variable(name.to_owned())]
}

/// The last `set` of a variable right inside of a block.
pub fn set_inside<'a>(block: &'a SourceStatement, name: &str) -> Option<&'a SourceStatement> {
    let mut inside = block.inside().iter().rev();
    inside.find(|one| one.name() == "set" && is_variable(one.argument(), name))
}
