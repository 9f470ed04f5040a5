//! `if (…) { return (pass); }` as `bypass`. A condition of which only a part can be said becomes one
//! that holds more often, and what can't be said at all is left to `unsaid`.

use serde_json::{Value, json};

use super::super::draft::DraftMap;
use super::super::expression::{self, PatternList, literal_text};
use super::super::source::SourceStatement;
use super::cleaning::{KeptCookies, is_cookie_work};
use super::condition::{ReducedCondition, VclCondition};
use super::program::{
    VclProgram, assignment, branch_kind, call_arguments, quoted_text, removed_variable,
    returned_step,
};
use super::receive::{own_fields, path_patterns};
use super::routes::{RouteRestraint, VclRoutes};
use super::target::TargetPatterns;
use super::{hosts, patterns, settled};

/// Conditions that become `bypass`.
pub struct VclPasses<'b> {
    own_fields: Vec<String>,
    routes: &'b mut VclRoutes,
    differences: Vec<String>,
}

/// How much of a condition `bypass` says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum BypassExtent {
    Nothing,
    /// Some of the requests, so that others would come from the cache.
    Part,
    /// All of the requests, or more.
    All,
}

impl<'b> VclPasses<'b> {
    pub fn new(program: &VclProgram<'_>, routes: &'b mut VclRoutes) -> Self {
        Self {
            own_fields: own_fields(program),
            routes,
            differences: Vec::new(),
        }
    }

    pub fn translate(mut self, one: &SourceStatement, condition: &VclCondition) {
        let all = condition.alternatives().len();
        let unsaid = match self.all_but_paths(one, condition) {
            BypassExtent::All => 0,
            _ => self.unsaid(condition),
        };
        if unsaid == all {
            return;
        }
        for inner in one.inside() {
            if returned_step(inner).is_some() {
                inner.translated();
            }
        }
        match unsaid {
            0 => one.translated(),
            _ => one.in_part(&format!(
                "{unsaid} of its {all} conditions can't be said as a whole"
            )),
        }
        self.differences
            .iter()
            .for_each(|words| one.also_remarked(words));
    }

    /// How many alternatives are not said as a whole.
    fn unsaid(&mut self, condition: &VclCondition) -> usize {
        let alternatives = condition.alternatives();
        let unsaid = alternatives
            .into_iter()
            .filter(|one| self.alternative(one) != BypassExtent::All);
        unsaid.count()
    }

    /// `if (req.url !~ …)`: all other paths.
    fn all_but_paths(&mut self, one: &SourceStatement, condition: &VclCondition) -> BypassExtent {
        let list = path_patterns(&condition.negated());
        let Some(mut list) = list.filter(|_| self.routes.have_room()) else {
            return BypassExtent::Nothing;
        };
        list.in_both_cases();
        self.routes.of_paths(&list.paths, one);
        self.routes
            .restrain_all_but(&list.paths, RouteRestraint::Uncached);
        self.differences.extend(list.difference());
        BypassExtent::All
    }

    /// Conditions that must hold together: the first that can be said stands for all.
    fn alternative(&mut self, condition: &VclCondition) -> BypassExtent {
        let known = |leaf: &VclCondition| settled::of_method(leaf, "GET");
        let condition = match condition.reduced(&known) {
            ReducedCondition::Never => return BypassExtent::All,
            ReducedCondition::Always => {
                self.routes.restrain_rest(RouteRestraint::Uncached);
                return BypassExtent::All;
            }
            ReducedCondition::If(condition) => condition,
        };
        let together = condition.together();
        for one in &together {
            let alternatives = one.alternatives();
            let mut said = alternatives.iter().map(|one| self.leaf(one));
            if said.all(|extent| extent == BypassExtent::All) {
                if together.len() > 1 {
                    self.differs(
                        "only one of its conditions is said, so that more bypasses the cache",
                    );
                }
                return BypassExtent::All;
            }
        }
        match together.len() {
            1 => BypassExtent::Part,
            _ => BypassExtent::Nothing,
        }
    }

    fn differs(&mut self, words: &str) {
        if !self.differences.iter().any(|known| known == words) {
            self.differences.push(words.to_owned());
        }
    }

    fn leaf(&mut self, condition: &VclCondition) -> BypassExtent {
        let left = condition.left();
        let is_own = |own: &String| left.strip_prefix("be").unwrap_or(&left) == own;
        if self.own_fields.iter().any(is_own) {
            return BypassExtent::Nothing;
        }
        if let Some(hosts) = hosts::of(condition).filter(|_| self.routes.have_room()) {
            self.routes.restrain_hosts(&hosts, RouteRestraint::Uncached);
            return BypassExtent::All;
        }
        let said = match condition {
            VclCondition::Set(left) if left.starts_with("cookie.") => self.is_there(left),
            VclCondition::Set(left) => self.is_there(&left.to_lowercase()),
            _ => condition.comparison().and_then(|(left, operator, right)| {
                match (left.as_str(), operator, right) {
                    (left, "!=", "") => self.is_there(left),
                    ("req.url" | "bereq.url", operator, right) => self.url(operator, right),
                    ("req.http.cookie" | "bereq.http.cookie", "~", right) => self.cookies(right),
                    (left, operator, right) => self.field(left, operator, right),
                }
            }),
        };
        said.unwrap_or(BypassExtent::Nothing)
    }

    fn is_there(&mut self, left: &str) -> Option<BypassExtent> {
        if let Some(arguments) = call_arguments(left, "cookie.isset") {
            let name = quoted_text(arguments.first()?)?;
            self.routes.site.add("bypass.cookie", literal_text(name));
            return Some(BypassExtent::All);
        }
        let name = field_name(left)?;
        match name {
            "cookie" => self.routes.site.add("bypass.cookie", "*"),
            name => self.routes.site.add_value("bypass.header", name, "*"),
        }
        Some(BypassExtent::All)
    }

    fn url(&mut self, operator: &str, right: &str) -> Option<BypassExtent> {
        let mut list = TargetPatterns::of(operator, right)?;
        let is_whole = list.unsaid == 0 && !list.in_both_cases();
        for pattern in &list.paths {
            self.routes.site.add("bypass.path", pattern.clone());
        }
        for name in list.parameters.iter().chain(&list.words) {
            self.routes.site.add_value("bypass.query", name, "*");
        }
        if let Some(words) = list.difference() {
            self.differs(&words);
        }
        Some(match is_whole {
            true => BypassExtent::All,
            false => BypassExtent::Part,
        })
    }

    fn cookies(&mut self, right: &str) -> Option<BypassExtent> {
        let is_name = |pattern: &String| {
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.*?".contains(c);
            pattern.chars().all(good)
        };
        // A text that may run from a name into a value, or into another cookie, is one of the field.
        let names = patterns::cookie_names(right)
            .filter(|list| list.patterns.iter().all(is_name))
            .filter(|_| !expression::may_hold(right, "=;"))
            .filter(|_| !patterns::takes_both_cases(right));
        let Some(list) = names else {
            return self.field("req.http.cookie", "~", right);
        };
        for pattern in &list.patterns {
            self.routes.site.add("bypass.cookie", pattern.clone());
        }
        let value = right.split_once('=').map(|(_, value)| value);
        let is_of_names =
            value.is_some_and(|value| !value.contains(|c: char| c.is_ascii_alphanumeric()));
        if !is_of_names {
            self.differs("the names of cookies count alone");
        }
        self.wider(&list);
        Some(BypassExtent::All)
    }

    fn field(&mut self, left: &str, operator: &str, right: &str) -> Option<BypassExtent> {
        let name = field_name(left)?;
        let pattern = field_pattern(operator, right)?;
        if operator == "~" {
            self.wider(&patterns::values(right)?);
        }
        self.routes.site.add_value("bypass.header", name, pattern);
        Some(BypassExtent::All)
    }

    fn wider(&mut self, list: &PatternList) {
        if let Some(words) = list.difference() {
            self.differs(words);
        }
    }
}

/// The name of a field of the request that a pattern can be for.
pub fn field_name(left: &str) -> Option<&str> {
    let name = left
        .strip_prefix("req.http.")
        .or_else(|| left.strip_prefix("bereq.http."))?;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (name != "host" && !name.is_empty() && name.chars().all(good)).then_some(name)
}

/// What the value of a field must be like.
pub fn field_pattern(operator: &str, right: &str) -> Option<Value> {
    match operator {
        "==" if !right.is_empty() => Some(json!(literal_text(right))),
        "~" => {
            let list = patterns::values(right)?;
            let case = match patterns::takes_both_cases(right) {
                true => "ignore",
                false => "exact",
            };
            Some(json!({ "any": list.patterns, "case": case }))
        }
        _ => None,
    }
}

/// The usual VCL of Drupal: all cookies are cut out but a few, and who has one of these passes.
pub fn only_kept_cookies(one: &SourceStatement, kept: &KeptCookies, site: &mut DraftMap) {
    let is_pass = |step: &SourceStatement| returned_step(step) == Some("pass");
    let work = one.inside().iter();
    let work: Vec<&SourceStatement> = work
        .filter(|inner| is_cookie_work(inner, &kept.field))
        .collect();
    let passes = work
        .iter()
        .any(|inner| branch_kind(inner).is_some() && inner.inside().iter().any(is_pass));
    if !passes && kept.field != "req.http.cookie" {
        return;
    }
    for inner in work {
        inner.translated();
        for step in inner.inside() {
            let touched = assignment(step).map(|(left, _)| left);
            let touched = touched.or_else(|| removed_variable(step));
            let is_cookie = |what: String| what == "req.http.cookie" || what == kept.field;
            if is_pass(step) || touched.is_some_and(is_cookie) {
                step.translated();
            }
        }
    }
    if passes {
        site.set("cookies.keep", json!([]));
        for name in &kept.names.patterns {
            site.add("bypass.cookie", name.clone());
        }
    } else {
        site.set("cookies.keep", kept.names.patterns.clone());
    }
    one.translated();
    if let Some(difference) = kept.names.difference() {
        one.remarked(difference);
    }
}

/// `if (req.http.Cookie !~ "session") { unset req.http.Cookie; }`: whoever keeps cookies bypasses the
/// cache, and keeps them so; for all others there are none.
pub fn without_cookies(
    one: &SourceStatement,
    condition: &VclCondition,
    program: &VclProgram<'_>,
    routes: &mut VclRoutes,
) -> bool {
    let is_removal = |inner: &SourceStatement| {
        removed_variable(inner).is_some_and(|what| what == "req.http.cookie")
    };
    let is_step = |inner: &SourceStatement| matches!(returned_step(inner), Some("hash" | "lookup"));
    let inside = one.inside();
    let fits = inside
        .iter()
        .all(|inner| is_removal(inner) || is_step(inner));
    if !fits || !inside.iter().any(is_removal) {
        return false;
    }
    let mut passes = VclPasses::new(program, routes);
    if passes.unsaid(&condition.negated()) > 0 {
        return false;
    }
    let differences = std::mem::take(&mut passes.differences);
    routes.site.set("cookies.keep", json!([]));
    one.translated_whole();
    one.remarked("whoever keeps cookies bypasses the cache");
    differences
        .iter()
        .for_each(|words| one.also_remarked(words));
    true
}
