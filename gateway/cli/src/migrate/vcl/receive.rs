//! `vcl_recv`: which requests pass, and what is made the same in the others.

use serde_json::json;

use super::super::draft::{ConfigDraft, DraftMap};
use super::super::expression::{self, PatternList};
use super::super::source::{self, SourceStatement};
use super::cleaning::{
    cookie_module, cookie_step, is_tidying, is_tracking, kept_cookies, removed_field,
    request_field, url_step,
};
use super::condition::VclCondition;
use super::program::{BranchKind, VclProgram, assigned, branch, literal, returned, unset};
use super::routes::VclRoutes;
use super::{purges, synthetic};

pub fn translate(program: &VclProgram<'_>, routes: &mut VclRoutes, draft: &mut ConfigDraft) {
    let statements = program.sub("vcl_recv");
    let every = statements
        .iter()
        .flat_map(|one| source::all(std::slice::from_ref(*one)));
    let own_fields = every.filter_map(assigned).map(|(left, _)| left);
    let mut steps = ReceiveSteps {
        program,
        own_fields: own_fields
            .filter(|left| left != "req.http.cookie")
            .collect(),
        routes,
        draft,
    };
    steps.walk(&statements, 0);
}

struct ReceiveSteps<'a, 'b> {
    program: &'b VclProgram<'a>,
    /// What the VCL sets itself: a condition about that is none about the client's request.
    own_fields: Vec<String>,
    routes: &'b mut VclRoutes,
    draft: &'b mut ConfigDraft,
}

impl ReceiveSteps<'_, '_> {
    fn walk(&mut self, statements: &[&SourceStatement], depth: usize) {
        for (n, one) in statements.iter().enumerate() {
            let otherwise = statements[n + 1..].iter().copied();
            let otherwise = otherwise.take_while(|next| branch(next) == Some(BranchKind::Else));
            let otherwise: Vec<&SourceStatement> = otherwise.collect();
            match branch(one) {
                Some(BranchKind::If) => match VclCondition::of(&one.text) {
                    Some(condition) => self.conditional(one, &condition, &otherwise, depth),
                    None => one.remarked("the condition can't be read"),
                },
                Some(BranchKind::Else) => {}
                None if one.name() == "call" && depth < 8 => {
                    let inside = self.program.sub(one.argument());
                    if !inside.is_empty() {
                        one.translated();
                        self.walk(&inside, depth + 1);
                    }
                }
                None => self.step(one),
            }
        }
    }

    /// A statement for all requests.
    fn step(&mut self, one: &SourceStatement) {
        if let Some((left, right)) = assigned(one) {
            match left.as_str() {
                "req.backend_hint" | "req.backend" => {
                    let site = self.backend(right);
                    if let Some(name) = site {
                        self.routes.site.set("upstream", name);
                        one.translated();
                    }
                }
                "req.url" => url_step(one, right, &mut self.routes.site),
                "req.http.cookie" => cookie_step(one, right, &mut self.routes.site),
                "req.http.surrogate-capability" => {
                    self.routes.site.set_default("esi", json!({}));
                    one.translated();
                    one.remarked(
                        "esi of the route sends it; take it out where no page has fragments",
                    );
                }
                _ => request_field(one, &left, right, &mut self.routes.site),
            }
        } else if let Some(what) = unset(one) {
            match what.as_str() {
                "req.http.cookie" => {
                    self.routes.site.set("cookies.keep", json!([]));
                    one.translated();
                }
                "req.http.proxy" => one.needs_nothing(),
                _ => removed_field(one, &what, &mut self.routes.site),
            }
        } else if one.text.starts_with("std.collect(") {
            one.needs_nothing();
        } else {
            cookie_module(one, &mut self.routes.site);
        }
    }

    /// The upstream of `x`, `x.backend()` or `x.backend("host")`.
    fn backend(&mut self, text: &str) -> Option<String> {
        let (name, call) = text.split_once(".backend(").unwrap_or((text, ")"));
        let known = self
            .draft
            .upstreams
            .iter()
            .position(|(known, _)| known == name)?;
        let upstream = &mut self.draft.upstreams[known].1;
        if let Some(host) = literal(call.trim_end_matches(')')).filter(|host| !host.is_empty()) {
            let port = upstream
                .get("port")
                .and_then(|port| port.as_str())
                .unwrap_or("80");
            let url = format!("http://{host}:{port}");
            upstream.add("targets", url);
        }
        upstream.remove("port");
        upstream.has("targets").then(|| name.to_owned())
    }

    fn conditional(
        &mut self,
        one: &SourceStatement,
        condition: &VclCondition,
        otherwise: &[&SourceStatement],
        depth: usize,
    ) {
        let methods = purges::methods(condition);
        if !methods.is_empty() {
            return purges::translate(one, &methods, self.program, self.draft);
        }
        if is_by_itself(one, condition) {
            one.needs_nothing_whole();
            return otherwise.iter().for_each(|one| one.needs_nothing_whole());
        }
        if is_about(condition, "req.http.accept-encoding") && only_touches(one, "accept-encoding") {
            self.routes.site.set_default("compress", json!({}));
            return one.translated_whole();
        }
        if let Some(names) = kept_cookies(one) {
            return self.only_kept_cookies(one, &names);
        }
        let inside: Vec<&SourceStatement> = one.inside().iter().collect();
        if inside.iter().any(|inner| is_synthetic(inner)) && otherwise.is_empty() {
            return self.answered(one, condition);
        }
        if otherwise.is_empty() && inside.iter().all(|inner| is_tidying(inner)) {
            return one.needs_nothing_whole();
        }
        if otherwise.is_empty() && is_tracking(&inside) {
            one.translated();
            for inner in inside {
                if let Some((_, right)) = assigned(inner) {
                    url_step(inner, right, &mut self.routes.site);
                }
            }
            return;
        }
        let passes = inside.last().and_then(|last| returned(last));
        if matches!(passes, Some("pass" | "pipe")) && otherwise.is_empty() {
            return self.passed(one, condition);
        }
        if let (Some(list), true) = (url_patterns(condition), otherwise.is_empty()) {
            return self.of_paths(one, &list);
        }
        if let (Some(hosts), true) = (host_patterns(condition), otherwise.is_empty()) {
            return self.of_hosts(one, &hosts);
        }
        if is_about(condition, "req.http.cookie") && otherwise.is_empty() && depth < 8 {
            one.translated();
            self.walk(&inside, depth + 1);
        }
    }

    /// `if (…) { return (pass); }`: each alternative is a condition of `bypass`.
    fn passed(&mut self, one: &SourceStatement, condition: &VclCondition) {
        let mut difference = None;
        let mut unsaid = 0;
        for alternative in condition.alternatives() {
            let left = alternative.left();
            let is_own = left.starts_with("req.http.") && self.own_fields.contains(&left);
            let said = (!is_own).then(|| bypass(alternative, &mut self.routes.site));
            match said.flatten() {
                Some(differs) => difference = difference.or(differs),
                None => unsaid += 1,
            }
        }
        let others = one.inside().len() > 1;
        let all = condition.alternatives().len();
        if unsaid == all {
            return;
        }
        for inner in one.inside() {
            if returned(inner).is_some() {
                inner.translated();
            }
        }
        match (unsaid, others) {
            (0, _) => one.translated(),
            _ => one.in_part(&format!("{unsaid} of its {all} conditions can't be said")),
        }
        if let Some(difference) = difference.filter(|_| unsaid == 0) {
            one.remarked(difference);
        }
    }

    /// `if (req.url ~ …) { unset req.http.Cookie; … }`: a route for these paths.
    fn of_paths(&mut self, one: &SourceStatement, list: &PatternList) {
        let inside = one.inside();
        let upstream = inside.iter().find_map(|inner| {
            let (left, right) = assigned(inner)?;
            (left == "req.backend_hint").then(|| right.to_owned())
        });
        let upstream = upstream.and_then(|name| self.backend(&name));
        let route = self.routes.of_paths(list, one);
        one.translated();
        if let Some(upstream) = upstream {
            route.set("upstream", upstream);
        }
        for inner in inside {
            if unset(inner).is_some_and(|what| what == "req.http.cookie") {
                route.set("cookies.keep", json!([]));
                inner.translated();
            } else if matches!(returned(inner), Some("hash" | "lookup")) {
                inner.needs_nothing();
            } else if let Some((left, right)) = assigned(inner) {
                match left.as_str() {
                    "req.url" => url_step(inner, right, route),
                    "req.backend_hint" if route.has("upstream") => inner.translated(),
                    "req.http.cookie" => cookie_step(inner, right, route),
                    _ => request_field(inner, &left, right, route),
                }
            }
        }
    }

    /// `if (req.http.host ~ …) { set req.backend_hint = …; }`.
    fn of_hosts(&mut self, one: &SourceStatement, hosts: &[String]) {
        let [inner] = one.inside() else { return };
        let Some((left, right)) = assigned(inner) else {
            return;
        };
        if left != "req.backend_hint" {
            return;
        }
        if let Some(upstream) = self.backend(right) {
            let mut route = DraftMap::default();
            route.set("name", self.routes.name(&format!("host-{upstream}")));
            route.set("match.host", hosts);
            route.set("upstream", upstream);
            self.routes.others.push(route);
            one.translated_whole();
            one.remarked("what the VCL says of all hosts is not repeated on this route");
        }
    }

    /// `if (…) { return (synth(…)); }`.
    fn answered(&mut self, one: &SourceStatement, condition: &VclCondition) {
        let paths = url_patterns(condition);
        let hosts = host_patterns(condition);
        let [inner] = one.inside() else { return };
        let mut route = DraftMap::default();
        route.set("name", self.routes.name("answer"));
        match (&paths, hosts) {
            (Some(list), _) => route.set("match.path", list.patterns.clone()),
            (None, Some(hosts)) => route.set("match.host", hosts),
            (None, None) => return,
        }
        if synthetic::translate(inner, self.program, &mut route) {
            one.translated();
            if let Some(difference) = paths.and_then(|list| list.difference()) {
                one.remarked(difference);
            }
            self.routes.others.push(route);
        }
    }

    /// The usual VCL of Drupal: all cookies are cut out but a few, and who has one of these passes.
    fn only_kept_cookies(&mut self, one: &SourceStatement, names: &PatternList) {
        let passes = source::all(one.inside())
            .into_iter()
            .any(|inner| returned(inner) == Some("pass"));
        let site = &mut self.routes.site;
        if passes {
            site.set("cookies.keep", json!([]));
            for name in &names.patterns {
                site.add("bypass.cookie", name.clone());
            }
        } else {
            site.set("cookies.keep", names.patterns.clone());
        }
        one.translated_whole();
        if let Some(difference) = names.difference() {
            one.remarked(difference);
        }
    }
}

fn is_synthetic(one: &SourceStatement) -> bool {
    returned(one).is_some_and(|step| step.starts_with("synth"))
}

fn is_about(condition: &VclCondition, what: &str) -> bool {
    condition.leaves().iter().all(|leaf| leaf.left() == what)
}

/// Whether all that a block sets and removes is this field.
fn only_touches(block: &SourceStatement, field: &str) -> bool {
    source::all(block.inside()).into_iter().all(|one| {
        let touched = assigned(one).map(|(left, _)| left).or_else(|| unset(one));
        match touched {
            Some(what) => what == format!("req.http.{field}"),
            None => branch(one).is_some(),
        }
    })
}

/// Conditions about what Lamina does by itself.
fn is_by_itself(one: &SourceStatement, condition: &VclCondition) -> bool {
    let steps: Vec<&str> = one.inside().iter().filter_map(returned).collect();
    let only_steps = steps.len() == one.inside().len() && !steps.is_empty();
    let passes = only_steps && steps.iter().all(|step| matches!(*step, "pass" | "pipe"));
    let leaves = condition.leaves();
    let of_method = leaves.iter().all(|leaf| {
        leaf.comparison().is_some_and(|(left, operator, right)| {
            let unsafe_one = !matches!(right, "GET" | "HEAD");
            let is_method = matches!(left.as_str(), "req.method" | "req.request");
            is_method && (operator == "!=" || (operator == "==" && unsafe_one))
        })
    });
    let names_get = leaves.iter().any(|leaf| {
        leaf.comparison()
            .is_some_and(|(_, _, right)| right == "GET")
    });
    let all_methods =
        of_method && (names_get || matches!(condition, VclCondition::Compared { .. }));
    let of_upgrade = is_about(condition, "req.http.upgrade");
    if passes && (all_methods || of_upgrade) {
        return true;
    }
    let empty = leaves.iter().all(|leaf| {
        leaf.comparison().is_some_and(|(left, operator, right)| {
            let blank = matches!(right, "" | "^\\s*$" | "^ *$" | "^\\s+$");
            left == "req.http.cookie" && matches!(operator, "==" | "~") && blank
        })
    });
    let forwarded = only_touches(one, "x-forwarded-for");
    (empty && only_touches(one, "cookie")) || forwarded
}

/// `bypass` for one condition; how it differs, if it can be said.
fn bypass(condition: &VclCondition, site: &mut DraftMap) -> Option<Option<&'static str>> {
    match condition {
        VclCondition::Set(left) => {
            let left = left.to_lowercase();
            let name = left.strip_prefix("req.http.")?;
            match name {
                "cookie" => site.add("bypass.cookie", "*"),
                name => site.add_value("bypass.header", name, "*"),
            }
            Some(None)
        }
        VclCondition::Compared { .. } => {
            let (left, operator, right) = condition.comparison()?;
            match (left.as_str(), operator) {
                ("req.url", "==") => {
                    site.add("bypass.path", right);
                    Some(None)
                }
                ("req.url", "~") => {
                    // Something of the query, or of the path.
                    if let Some(list) = expression::paths(right) {
                        return add_all(site, "bypass.path", &list);
                    }
                    let list = expression::parameter_names(right)?;
                    for name in &list.patterns {
                        site.add_value("bypass.query", name, "*");
                    }
                    Some(list.difference())
                }
                ("req.http.cookie", "~") => {
                    add_all(site, "bypass.cookie", &expression::cookie_names(right)?)
                }
                (left, "==") => {
                    site.add_value("bypass.header", left.strip_prefix("req.http.")?, right);
                    Some(None)
                }
                (left, "~") => {
                    let name = left
                        .strip_prefix("req.http.")
                        .filter(|name| *name != "host")?;
                    let list = expression::values(right)?;
                    let case = if right.starts_with("(?i)") {
                        "ignore"
                    } else {
                        "exact"
                    };
                    site.add_value(
                        "bypass.header",
                        name,
                        json!({ "any": list.patterns, "case": case }),
                    );
                    Some(list.difference())
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn add_all(site: &mut DraftMap, path: &str, list: &PatternList) -> Option<Option<&'static str>> {
    for pattern in &list.patterns {
        site.add(path, pattern.clone());
    }
    Some(list.difference())
}

/// The paths of a condition that is about nothing else.
pub fn url_patterns(condition: &VclCondition) -> Option<PatternList> {
    let mut found: Option<PatternList> = None;
    for alternative in condition.alternatives() {
        let (left, operator, right) = alternative.comparison()?;
        if !matches!(left.as_str(), "req.url" | "bereq.url") {
            return None;
        }
        let list = match operator {
            "~" => expression::paths(right)?,
            _ => return None,
        };
        match &mut found {
            Some(all) => {
                all.patterns.extend(list.patterns);
                if list.meaning == expression::PatternMeaning::Wider {
                    all.meaning = list.meaning;
                }
            }
            None => found = Some(list),
        }
    }
    // What fits every path says something of the query.
    found.filter(|list| !list.patterns.iter().any(|pattern| pattern == "*"))
}

fn host_patterns(condition: &VclCondition) -> Option<Vec<String>> {
    let mut hosts = Vec::new();
    for alternative in condition.alternatives() {
        match alternative.comparison()? {
            (left, "==", host) if left == "req.http.host" => hosts.push(host.to_owned()),
            (left, "~", host) if left == "req.http.host" => {
                hosts.extend(expression::values(host)?.patterns);
            }
            _ => return None,
        }
    }
    Some(hosts)
}
