//! `if (…) { return (synth(…)); }`: routes with an answer of their own, and networks that may ask.

use serde_json::{Value, json};

use super::super::draft::DraftMap;
use super::super::source::SourceStatement;
use super::branches::is_end;
use super::condition::{ReducedCondition, VclCondition};
use super::passes::{field_name, field_pattern};
use super::program::{VclProgram, returned_step};
use super::receive::{own_fields, path_patterns};
use super::routes::{ServedRequests, VclRoutes};
use super::synthetic::SyntheticAnswer;
use super::target::{TargetDifference, TargetPatterns};
use super::{hosts, settled};

/// The most routes with one answer.
const MOST: usize = 32;

/// The lowest status that refuses.
const REFUSALS: u64 = 400;

/// Whether a block ends with an answer of Varnish's own.
pub fn is_refusal_or_answer(one: &SourceStatement) -> bool {
    let last = one.inside().last();
    last.is_some_and(|last| is_end(last) && (last.name() == "error" || is_synth(last)))
}

fn is_synth(one: &SourceStatement) -> bool {
    returned_step(one).is_some_and(|step| step.starts_with("synth"))
}

/// What an answer that stands for all requests of a condition may become.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AnswerReach {
    /// It refuses: more requests may be refused.
    MayBeWider,
    Exact,
}

/// Says the answer, or which networks may ask.
pub fn translate(
    one: &SourceStatement,
    condition: &VclCondition,
    program: &VclProgram<'_>,
    routes: &mut VclRoutes,
) {
    let Some(last) = one.inside().last() else {
        return;
    };
    let Some(answer) = SyntheticAnswer::of(last, program) else {
        return;
    };
    let status = answer.route.get("respond.status").and_then(Value::as_u64);
    let reach = match status {
        Some(status) if status >= REFUSALS => AnswerReach::MayBeWider,
        _ => AnswerReach::Exact,
    };
    if reach == AnswerReach::MayBeWider && guarded(condition, program, routes) {
        one.translated();
        answer.said(last);
        return one.remarked("whoever may not ask gets 403");
    }
    let methods = served_methods(condition).map(|list| ("match.method", list));
    let served = methods.or_else(|| Some(("match.host", hosts::of(&condition.negated())?)));
    if let Some((kind, list)) = served
        && routes.serve_only(ServedRequests {
            kind,
            list,
            answer: answer.route.clone(),
        })
    {
        one.translated();
        return answer.said(last);
    }
    if condition.is_about("req.http.x-forwarded-proto") {
        one.remarked("see redirect_to_https of a listener");
    }
    let mut matches = AnswerMatches {
        own_fields: own_fields(program),
        reach,
        differences: Vec::new(),
    };
    let alternatives = condition.alternatives();
    let all = alternatives.len();
    let mut unsaid = 0;
    let mut found: Vec<DraftMap> = Vec::new();
    for alternative in alternatives {
        let (list, is_whole) = matches.of(alternative);
        unsaid += usize::from(!is_whole);
        found.extend(list);
    }
    let found = joined(found);
    if found.is_empty() || found.len() > MOST {
        return;
    }
    for mut route in found {
        route.fill_from(&answer.route);
        routes.answer(route);
    }
    answer.said(last);
    match unsaid {
        0 => one.translated(),
        _ => one.in_part(&format!(
            "{unsaid} of its {all} conditions can't be said as a whole"
        )),
    }
    matches
        .differences
        .iter()
        .for_each(|words| one.also_remarked(words));
}

/// Routes that are told apart by their paths alone are one.
fn joined(list: Vec<DraftMap>) -> Vec<DraftMap> {
    let only_paths = |one: &DraftMap| {
        let kinds = ["host", "header", "query", "method"];
        kinds.iter().all(|kind| !one.has(&format!("match.{kind}")))
    };
    let mut found: Vec<DraftMap> = Vec::new();
    for one in list {
        let known = found
            .iter_mut()
            .find(|known| only_paths(known) && only_paths(&one));
        match known {
            Some(known) => known.fill_from(&one),
            None => found.push(one),
        }
    }
    found
}

/// The methods that are served where a condition is about nothing else, and holds for all that it does
/// not name.
fn served_methods(condition: &VclCondition) -> Option<Vec<String>> {
    let holds = |method: &str| {
        let known = |leaf: &VclCondition| settled::of_method(leaf, method);
        condition.reduced(&known)
    };
    let mut named: Vec<String> = Vec::new();
    for leaf in condition.leaves() {
        let (_, _, right) = leaf.comparison()?;
        let words = right.split(|c: char| !c.is_ascii_uppercase());
        named.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    let served: Vec<String> = named
        .into_iter()
        .filter(|method| holds(method) == ReducedCondition::Never)
        .collect();
    let is_others = holds("X-NONE-OF-THESE") == ReducedCondition::Always;
    (is_others && !served.is_empty()).then_some(served)
}

/// `if (client.ip !~ list)`, for all paths or for some.
fn guarded(condition: &VclCondition, program: &VclProgram<'_>, routes: &mut VclRoutes) -> bool {
    let together = condition.together();
    let (addresses, others): (Vec<&VclCondition>, Vec<&VclCondition>) = together
        .iter()
        .copied()
        .partition(|one| settled::address_list(one).is_some());
    let [(operator, list)] = addresses
        .iter()
        .filter_map(|one| settled::address_list(one))
        .collect::<Vec<_>>()[..]
    else {
        return false;
    };
    let networks = program.networks(list);
    let access = match operator {
        "!~" => networks.allowing(),
        _ => networks.denying(),
    };
    let Some(access) = access else { return false };
    if others.is_empty() {
        return routes.guard_all(access);
    }
    let paths = VclCondition::all_of(others.into_iter().cloned().collect())
        .and_then(|one| path_patterns(&one));
    paths
        .filter(|list| !list.has(TargetDifference::Case))
        .is_some_and(|list| routes.guard(&list.paths, &access))
}

struct AnswerMatches {
    own_fields: Vec<String>,
    reach: AnswerReach,
    differences: Vec<String>,
}

impl AnswerMatches {
    fn differs(&mut self, words: &str) {
        if !self.differences.iter().any(|known| known == words) {
            self.differences.push(words.to_owned());
        }
    }

    /// The matches of which one must hold, and whether they are for all requests of the condition.
    fn of(&mut self, condition: &VclCondition) -> (Vec<DraftMap>, bool) {
        let mut all = vec![DraftMap::default()];
        let (mut said, mut is_whole) = (0, true);
        for one in condition.together() {
            let alternatives = one.alternatives();
            let parts: Option<Vec<_>> = alternatives.iter().map(|one| self.leaf(one)).collect();
            let Some(parts) = parts else {
                if self.reach == AnswerReach::Exact {
                    return (Vec::new(), false);
                }
                self.differs("not all of its conditions are said, so that more is refused");
                continue;
            };
            is_whole &= parts.iter().all(|(_, is_whole)| *is_whole);
            let parts: Vec<DraftMap> = parts.into_iter().flat_map(|(list, _)| list).collect();
            if all.len() * parts.len() > MOST {
                return (Vec::new(), false);
            }
            let both = |one: &DraftMap, more: &DraftMap| {
                let mut both = one.clone();
                both.fill_from(more);
                both
            };
            all = all
                .iter()
                .flat_map(|one| parts.iter().map(move |more| both(one, more)))
                .collect();
            said += 1;
        }
        match said {
            0 => (Vec::new(), false),
            _ => (all, is_whole),
        }
    }

    fn leaf(&mut self, condition: &VclCondition) -> Option<(Vec<DraftMap>, bool)> {
        if self.own_fields.contains(&condition.left()) {
            return None;
        }
        let mut found = DraftMap::default();
        if let Some(hosts) = hosts::of(condition) {
            found.set("match.host", hosts);
            return Some((vec![found], true));
        }
        if let VclCondition::Set(left) = condition {
            found.set_in("match.header", field_name(&left.to_lowercase())?, "*");
            return Some((vec![found], true));
        }
        let (left, operator, right) = condition.comparison()?;
        match left.as_str() {
            "req.url" => return self.url(operator, right),
            "req.method" | "req.request" if operator == "==" => {
                found.set("match.method", json!([right]));
            }
            left => {
                let pattern = field_pattern(operator, right)?;
                found.set_in("match.header", field_name(left)?, pattern);
            }
        }
        Some((vec![found], true))
    }

    fn url(&mut self, operator: &str, right: &str) -> Option<(Vec<DraftMap>, bool)> {
        let mut list = TargetPatterns::of(operator, right)?;
        let is_whole = list.unsaid == 0 && !list.in_both_cases();
        if let Some(words) = list.difference() {
            self.differs(&words);
        }
        let mut found = Vec::new();
        if !list.paths.is_empty() {
            let mut one = DraftMap::default();
            one.set("match.path", list.paths.clone());
            found.push(one);
        }
        for name in list.parameters.iter().chain(&list.words) {
            let mut one = DraftMap::default();
            one.set_in("match.query", name, "*");
            found.push(one);
        }
        Some((found, is_whole))
    }
}
