//! For which requests the variables of `proxy_cache_bypass` and `proxy_no_cache` say something. What goes
//! past the cache may be more than with nginx, and never less: a condition that can't be said leaves the
//! route uncached.

use serde_json::json;

use super::super::draft::DraftMap;
use super::super::expression::{self, ExpressionCase, PatternList};
use super::super::source::SourceStatement;
use super::blocks::BlockChain;
use super::conditions::{
    ConditionOperator, RequestCondition, TextTruth, cookie_pattern, definitions_of, set_inside,
    truth_of_text, value_pattern,
};
use super::request_uri::{RequestUriPatterns, names_in_any_case, spelled_out};
use super::values::{TextPiece, text_pieces};

/// How deep variables may be made of variables.
const DEEPEST_VARIABLE: usize = 8;

/// What became of a condition.
enum BypassOutcome {
    /// `bypass` of the route has it, with more requests perhaps; how that differs.
    Said(Option<&'static str>),
    /// Lamina sends these requests past the cache by itself.
    ByItself,
    /// It holds for every request, or for all but some that are not told apart here.
    Always,
    /// Why it can't be said.
    Unsaid(String),
}

impl BypassOutcome {
    fn unsaid(variable: &str) -> Self {
        Self::Unsaid(format!("${variable} can't be said"))
    }

    /// That of two conditions of which either is enough.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always, _) | (_, Self::Always) => Self::Always,
            (Self::Unsaid(why), _) | (_, Self::Unsaid(why)) => Self::Unsaid(why),
            (Self::Said(Some(difference)), _) => Self::Said(Some(difference)),
            (_, other) => other,
        }
    }
}

/// Says in `bypass` what the directives name for which requests go past the cache.
pub fn of_route(chain: &BlockChain<'_>, route: &mut DraftMap) {
    for ending in ["cache_bypass", "no_cache"] {
        for one in chain.cache_directives(ending) {
            one.translated();
            for text in one.arguments() {
                let mut writer = BypassWriter { chain, route };
                match writer.add_text(text, 0) {
                    BypassOutcome::Said(Some(difference)) if names_the_request(text, chain) => {
                        one.also_remarked(difference);
                    }
                    BypassOutcome::Said(_) | BypassOutcome::ByItself => {}
                    BypassOutcome::Always => {
                        route.leave_uncached(
                            one,
                            &format!("{text} holds for all requests, or for all but some"),
                        );
                    }
                    BypassOutcome::Unsaid(why) => {
                        one.in_part(&why);
                        route.leave_uncached(one, &why);
                    }
                }
            }
        }
    }
}

/// Whether a text has variables of the request itself. What differs for others is told where these get
/// their values.
fn names_the_request(text: &str, chain: &BlockChain<'_>) -> bool {
    let names = super::values::variables(text);
    names
        .iter()
        .any(|name| definitions_of(chain, name).is_empty())
}

/// Writes conditions into the `bypass` of a route.
struct BypassWriter<'a, 'b> {
    chain: &'b BlockChain<'a>,
    route: &'b mut DraftMap,
}

impl BypassWriter<'_, '_> {
    /// For which requests a text says something: one of several variables is enough.
    fn add_text(&mut self, text: &str, depth: usize) -> BypassOutcome {
        match truth_of_text(text) {
            TextTruth::Never => return BypassOutcome::Said(None),
            TextTruth::Always => return BypassOutcome::Always,
            TextTruth::ByRequest => {}
        }
        let names: Vec<String> = super::values::variables(text);
        let is_zero_possible = |name: &String| self.may_be_zero(name);
        if names.len() > 1 && names.iter().any(is_zero_possible) {
            // `0` and `0` together are `00`, which is neither empty nor `0`.
            return BypassOutcome::Always;
        }
        let mut outcome = BypassOutcome::Said(None);
        for name in &names {
            outcome = outcome.or(self.add_variable(name, depth));
        }
        outcome
    }

    /// Whether a variable of the configuration may have the text `0`.
    fn may_be_zero(&self, name: &str) -> bool {
        let definitions = definitions_of(self.chain, name);
        let mut inside = definitions
            .into_iter()
            .flat_map(|one| std::iter::once(one).chain(one.inside()));
        inside.any(|one| one.words.last().is_some_and(|last| last == "0"))
    }

    fn add_variable(&mut self, name: &str, depth: usize) -> BypassOutcome {
        if depth > DEEPEST_VARIABLE {
            return BypassOutcome::unsaid(name);
        }
        let definitions = definitions_of(self.chain, name);
        if definitions.is_empty() {
            return self.add_condition(&RequestCondition::given(name), depth);
        }
        let mut outcome = BypassOutcome::Said(None);
        for one in definitions {
            outcome = match one.name() {
                "set" => {
                    one.translated();
                    self.add_text(one.words.last().map_or("", String::as_str), depth + 1)
                }
                "if" => self.add_if(one, name, outcome, depth),
                _ => outcome.or(self.add_map(one, depth)),
            };
        }
        outcome
    }

    /// `if (CONDITION) { set $variable VALUE; }`, after what was known of the variable before.
    fn add_if(
        &mut self,
        block: &SourceStatement,
        name: &str,
        before: BypassOutcome,
        depth: usize,
    ) -> BypassOutcome {
        let Some(set) = set_inside(block, name) else {
            return before;
        };
        let value = set.words.last().map_or("", String::as_str);
        if truth_of_text(value) == TextTruth::Never {
            for one in [block, set] {
                one.in_part("requests for which it holds go past the cache as well");
            }
            return before;
        }
        let outcome = match RequestCondition::of_if(block) {
            Some(condition) => self.add_condition(&condition, depth + 1),
            None => BypassOutcome::Unsaid(format!("{} can't be said", block.text)),
        };
        note_outcome(block, set, &outcome);
        before.or(outcome)
    }

    fn add_map(&mut self, block: &SourceStatement, depth: usize) -> BypassOutcome {
        let pieces = text_pieces(block.argument());
        let [TextPiece::Variable(source)] = pieces.as_slice() else {
            return BypassOutcome::Unsaid(format!("{} can't be said", block.text));
        };
        block.translated();
        let mut outcome = BypassOutcome::Said(None);
        for one in block.inside() {
            let truth = truth_of_text(one.argument());
            let entry = match (one.name(), truth) {
                ("hostnames" | "volatile", _) if one.arguments().is_empty() => {
                    one.needs_nothing();
                    continue;
                }
                (_, TextTruth::Never) => {
                    one.translated();
                    continue;
                }
                ("include", _) => BypassOutcome::Unsaid("its include can't be read".to_owned()),
                ("default", TextTruth::Always) => BypassOutcome::Always,
                ("default", _) => BypassOutcome::Unsaid(format!("{} can't be said", one.text)),
                (key, _) => {
                    let condition = RequestCondition::of_map_entry(source, key);
                    self.add_condition(&condition, depth + 1)
                }
            };
            note_outcome(one, one, &entry);
            outcome = outcome.or(entry);
        }
        outcome
    }

    /// Says that requests for which this holds go past the cache.
    fn add_condition(&mut self, condition: &RequestCondition, depth: usize) -> BypassOutcome {
        let name = condition.variable.as_str();
        if !definitions_of(self.chain, name).is_empty() {
            // Equal to a text that is not empty: only where the variable says something at all.
            let is_part = condition.operator == ConditionOperator::Equals
                && truth_of_text(&condition.value) == TextTruth::Always;
            return match is_part || condition.operator == ConditionOperator::Given {
                true => self.add_variable(name, depth + 1),
                false => BypassOutcome::unsaid(name),
            };
        }
        let is_always_there =
            ["request_uri", "uri", "document_uri", "request_method"].contains(&name);
        if !is_always_there && condition.holds_for_nothing() == Some(true) {
            return BypassOutcome::Always;
        }
        if let Some(cookie) = name.strip_prefix("cookie_") {
            return self.add_cookie(cookie, condition);
        }
        if let Some(parameter) = name.strip_prefix("arg_") {
            return self.add_parameter(parameter, condition);
        }
        match name {
            "http_cookie" => self.add_cookies(condition),
            "request_uri" | "uri" | "document_uri" => self.add_path(condition),
            "args" | "query_string" | "is_args" => self.add_query(condition),
            "request_method" if condition.asks_for_any_text() => BypassOutcome::Always,
            "request_method" if leaves_cached_methods_out(condition) => BypassOutcome::ByItself,
            "host" | "scheme" | "remote_addr" | "server_name" if condition.asks_for_any_text() => {
                BypassOutcome::Always
            }
            _ => match name.strip_prefix("http_") {
                Some(field) => self.add_value("bypass.header", &field.replace('_', "-"), condition),
                None => BypassOutcome::unsaid(name),
            },
        }
    }

    /// A field or a parameter with a value.
    fn add_value(&mut self, path: &str, name: &str, condition: &RequestCondition) -> BypassOutcome {
        match value_pattern(condition) {
            Some((pattern, difference)) => {
                self.route.add_value(path, name, pattern);
                BypassOutcome::Said(difference)
            }
            None => BypassOutcome::unsaid(&condition.variable),
        }
    }

    /// A parameter, whose name nginx takes in letters of any case.
    fn add_parameter(&mut self, name: &str, condition: &RequestCondition) -> BypassOutcome {
        let (names, lost) = names_in_any_case(&expression::literal_text(name));
        let mut outcome = BypassOutcome::Said(lost);
        for name in names {
            let one = self.add_value("bypass.query", &name, condition);
            outcome = outcome.or(one);
        }
        outcome
    }

    /// One cookie, whatever its value.
    fn add_cookie(&mut self, name: &str, condition: &RequestCondition) -> BypassOutcome {
        let asks_for_value = match condition.operator {
            ConditionOperator::Equals | ConditionOperator::EqualsInAnyCase => {
                !condition.value.is_empty()
            }
            ConditionOperator::Matches(_) => condition.holds_for_nothing().is_some(),
            _ => false,
        };
        if !asks_for_value && !condition.asks_for_any_text() {
            return BypassOutcome::unsaid(&condition.variable);
        }
        self.route
            .add_value("bypass.header", "cookie", cookie_pattern(name));
        let difference = "all requests with this cookie go past the cache, whatever its value";
        BypassOutcome::Said(asks_for_value.then_some(difference))
    }

    /// All cookies in one text, which an expression may look for in names, in values and across both.
    fn add_cookies(&mut self, condition: &RequestCondition) -> BypassOutcome {
        if condition.asks_for_any_text() {
            self.route.add("bypass.cookie", "*");
            return BypassOutcome::Said(None);
        }
        self.add_value("bypass.header", "cookie", condition)
    }

    fn add_path(&mut self, condition: &RequestCondition) -> BypassOutcome {
        let value = condition.value.as_str();
        match condition.operator {
            ConditionOperator::Given => BypassOutcome::Always,
            ConditionOperator::Equals | ConditionOperator::EqualsInAnyCase
                if value.starts_with('/') =>
            {
                let path = value.split('?').next().unwrap_or_default();
                let case = match condition.operator {
                    ConditionOperator::Equals => ExpressionCase::Told,
                    _ => ExpressionCase::Ignored,
                };
                let (paths, difference) = spelled_out(&[expression::literal_text(path)], case);
                for path in paths {
                    self.route.add("bypass.path", path);
                }
                BypassOutcome::Said(difference)
            }
            ConditionOperator::Matches(_) if condition.variable == "request_uri" => {
                self.add_patterns(condition, RequestUriPatterns::of_whole(value))
            }
            ConditionOperator::Matches(_) => {
                let list = expression::paths(value);
                let Some(list) = list else {
                    return BypassOutcome::unsaid(&condition.variable);
                };
                let case = match condition.ignores_case() {
                    true => ExpressionCase::Ignored,
                    false => list.case,
                };
                let (paths, lost) = spelled_out(&list.patterns, case);
                for path in paths {
                    self.route.add("bypass.path", path);
                }
                let wider = PatternList {
                    case: ExpressionCase::Told,
                    ..list
                };
                BypassOutcome::Said(lost.or(wider.difference()))
            }
            _ => BypassOutcome::unsaid(&condition.variable),
        }
    }

    fn add_query(&mut self, condition: &RequestCondition) -> BypassOutcome {
        if condition.asks_for_any_text() {
            self.route.set("bypass.query", json!({ "*": "*" }));
            return BypassOutcome::Said(None);
        }
        match condition.operator {
            ConditionOperator::Matches(_) => {
                self.add_patterns(condition, RequestUriPatterns::of_query(&condition.value))
            }
            _ => BypassOutcome::unsaid(&condition.variable),
        }
    }

    fn add_patterns(
        &mut self,
        condition: &RequestCondition,
        patterns: Option<RequestUriPatterns>,
    ) -> BypassOutcome {
        let Some(patterns) = patterns else {
            return BypassOutcome::unsaid(&condition.variable);
        };
        let patterns = match condition.ignores_case() {
            true => patterns.ignoring_case(),
            false => patterns,
        };
        BypassOutcome::Said(patterns.add_to_bypass(self.route))
    }
}

/// Whether `GET` and `HEAD` are none of the methods that a condition asks for: all others go past the
/// cache by themselves.
fn leaves_cached_methods_out(condition: &RequestCondition) -> bool {
    let is_cached = |method: &str| method == "GET" || method == "HEAD";
    match condition.operator {
        ConditionOperator::Equals => !is_cached(&condition.value),
        ConditionOperator::Differs => condition.value == "GET",
        ConditionOperator::Matches(_) => condition.expression().is_some_and(|list| {
            let mut patterns = list.patterns.iter();
            patterns.all(|one| {
                let pattern = lamina_base::pattern::Pattern::new(&one.to_ascii_uppercase());
                !pattern.matches("GET") && !pattern.matches("HEAD")
            })
        }),
        ConditionOperator::MatchesNot(_) => condition.expression().is_some_and(|list| {
            let mut patterns = list.patterns.iter();
            patterns.any(|one| {
                lamina_base::pattern::Pattern::new(&one.to_ascii_uppercase()).matches("GET")
            })
        }),
        _ => false,
    }
}

/// Marks a block with the `set` in it that was read. All else in the block is not said by this.
fn note_outcome(block: &SourceStatement, set: &SourceStatement, outcome: &BypassOutcome) {
    match outcome {
        BypassOutcome::Said(difference) => {
            block.translated();
            set.translated();
            if let Some(difference) = difference {
                block.remarked(difference);
            }
        }
        BypassOutcome::ByItself => {
            block.needs_nothing();
            set.needs_nothing();
        }
        BypassOutcome::Always => block.in_part("it holds for all requests, or for all but some"),
        BypassOutcome::Unsaid(why) => block.remarked(why),
    }
}
