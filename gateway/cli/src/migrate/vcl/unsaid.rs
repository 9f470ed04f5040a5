//! What becomes of a draft that does not say all: every statement that no translator has said is
//! weighed, and one that bears on what is stored, or on who may see something, restrains the routes
//! that it may be about. A statement that nobody knows counts as one that does.

use super::super::draft::is_touchable;
use super::super::source::{SourceStatement, StatementFate};
use super::condition::VclCondition;
use super::delivery::may_decide;
use super::program::{VclProgram, assignment, removed_variable, returned_step};
use super::purges;
use super::routes::{RouteRestraint, VclRoutes};

/// What an unsaid statement bears on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StatementBearing {
    /// Nothing of that kind.
    Nothing,
    /// A field of requests that the origin may trust.
    RequestField(String),
    /// Which cookies, or `Authorization`, reach the origin and so what it answers for everybody.
    Credentials(RouteRestraint),
    /// What is stored, or for how long.
    Storage,
    /// Who may see something.
    Access,
    /// Perhaps both.
    Anything,
}

/// Which routes statements may be about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StatementScope {
    /// Those for which `vcl_recv` has not ended yet.
    Rest,
    All,
}

/// Whether a block around a statement is said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockState {
    Said,
    Unsaid,
}

/// Subroutines of which statements are weighed after all has been translated. `vcl_recv` and
/// `vcl_backend_response` are weighed step by step.
const WEIGHED: [&str; 8] = [
    "vcl_hash",
    "vcl_hit",
    "vcl_miss",
    "vcl_pass",
    "vcl_pipe",
    "vcl_backend_fetch",
    "vcl_deliver",
    "vcl_hit_for_pass",
];

/// Weighs them.
pub fn weigh_all(program: &VclProgram<'_>, routes: &mut VclRoutes) {
    for name in WEIGHED {
        for one in program.sub(name) {
            weigh(one, name, StatementScope::All, program, routes);
        }
    }
    for one in program.statements {
        if one.name() == "include" && one.is_untouched() {
            restrain(
                one,
                &StatementBearing::Anything,
                StatementScope::All,
                routes,
            );
        }
    }
}

/// Weighs a statement with all in its block.
pub fn weigh(
    one: &SourceStatement,
    sub: &str,
    scope: StatementScope,
    program: &VclProgram<'_>,
    routes: &mut VclRoutes,
) {
    let mut weighing = UnsaidWeighing {
        sub,
        scope,
        program,
        routes,
        called: Vec::new(),
    };
    weighing.statement(one, None, BlockState::Said);
}

struct UnsaidWeighing<'a, 'b> {
    sub: &'b str,
    scope: StatementScope,
    program: &'b VclProgram<'a>,
    routes: &'b mut VclRoutes,
    /// Subroutines that were looked at.
    called: Vec<String>,
}

impl UnsaidWeighing<'_, '_> {
    /// `outer` is the outermost block that is not said.
    fn statement(
        &mut self,
        one: &SourceStatement,
        outer: Option<&SourceStatement>,
        around: BlockState,
    ) {
        let is_unsaid = matches!(one.fate(), StatementFate::Untouched | StatementFate::InPart);
        if one.block.is_some() {
            let condition = VclCondition::of(&one.text);
            let purges = condition.is_some_and(|condition| !purges::methods(&condition).is_empty());
            if purges || (around == BlockState::Said && one.fate() == StatementFate::NeedsNothing) {
                return;
            }
            let (state, outer) = match (around, is_unsaid) {
                (BlockState::Unsaid, _) | (_, true) => (BlockState::Unsaid, outer.or(Some(one))),
                (BlockState::Said, false) => (BlockState::Said, None),
            };
            for inner in one.inside() {
                self.statement(inner, outer, state);
            }
            return;
        }
        if around == BlockState::Said && !is_unsaid {
            return;
        }
        if one.name() == "call" {
            return self.call(one, outer);
        }
        let bearing = bearing(one, self.sub, outer);
        // What stands as said belongs to a block that stands as unsaid.
        let told = outer.filter(|_| !one.is_untouched()).unwrap_or(one);
        restrain(told, &bearing, self.scope, self.routes);
    }

    /// A call that is not said: whatever the subroutine says.
    fn call(&mut self, one: &SourceStatement, outer: Option<&SourceStatement>) {
        let name = one.argument().to_owned();
        let inside = self.program.sub(&name);
        if inside.is_empty() {
            return restrain(one, &StatementBearing::Anything, self.scope, self.routes);
        }
        if self.called.contains(&name) {
            return;
        }
        self.called.push(name);
        for inner in inside {
            self.statement(inner, outer.or(Some(one)), BlockState::Unsaid);
        }
    }
}

/// Restrains routes, and says so at the statement.
fn restrain(
    one: &SourceStatement,
    bearing: &StatementBearing,
    scope: StatementScope,
    routes: &mut VclRoutes,
) {
    let (restraints, words): (&[RouteRestraint], &str) = match bearing {
        StatementBearing::Nothing => return,
        StatementBearing::RequestField(name) => {
            routes.site.add("headers.request.remove", name.as_str());
            let words =
                format!("what clients send as {name} is taken out of requests until you say it");
            return one.also_remarked(&words);
        }
        StatementBearing::Credentials(restraint) => (
            std::slice::from_ref(restraint),
            "so what is left of credentials bypasses the cache; see bypass",
        ),
        StatementBearing::Storage => (
            &[RouteRestraint::Uncached],
            "so cache: off stands where it may count; say it, then take that off",
        ),
        StatementBearing::Access => (
            &[RouteRestraint::Closed],
            "so maintenance closes what it may be about; say who may see what, then take that off",
        ),
        StatementBearing::Anything => (
            &[RouteRestraint::Uncached, RouteRestraint::Closed],
            "it may do anything, so cache: off and maintenance close what it may be about; say it, \
             then take them off",
        ),
    };
    for restraint in restraints {
        match scope {
            StatementScope::Rest => routes.restrain_rest(*restraint),
            StatementScope::All => routes.restrain_all(*restraint),
        }
    }
    one.also_remarked(words);
}

/// What a statement bears on that the draft does not say.
fn bearing(one: &SourceStatement, sub: &str, outer: Option<&SourceStatement>) -> StatementBearing {
    if let Some(step) = returned_step(one) {
        let is_retry = step == "restart" && outer.is_some_and(is_of_failures);
        return match is_retry {
            true => StatementBearing::Nothing,
            false => of_step(step, sub),
        };
    }
    if let Some((left, right)) = assignment(one) {
        return of_assignment(&left, right, outer);
    }
    if let Some(what) = removed_variable(one) {
        return of_removal(&what);
    }
    let text = one.text.to_lowercase();
    if text.starts_with("cookie.") && !text.starts_with("cookie.parse(") {
        return of_request_field("cookie");
    }
    if text.starts_with("c{") || text.starts_with("include ") {
        return StatementBearing::Anything;
    }
    if text == "return" {
        return StatementBearing::Nothing;
    }
    if text.starts_with("error") || text.starts_with("return") {
        return StatementBearing::Access;
    }
    let harmless = HARMLESS_CALLS.iter().any(|call| text.starts_with(call));
    match harmless {
        true => StatementBearing::Nothing,
        false => StatementBearing::Storage,
    }
}

/// Calls that bear neither on what is stored nor on who may see it.
const HARMLESS_CALLS: [&str; 12] = [
    "std.log(",
    "std.syslog(",
    "std.timestamp(",
    "std.collect(",
    "std.cache_req_body(",
    "std.late_100_continue(",
    "std.rollback(",
    "cookie.parse(",
    "synthetic(",
    "synthetic ",
    "log ",
    "import ",
];

/// Whether a block is run only where the origin failed.
fn is_of_failures(block: &SourceStatement) -> bool {
    let of_failures = |leaf: &&VclCondition| {
        leaf.comparison().is_some_and(|(left, operator, right)| {
            let is_failure = right.parse::<u16>().is_ok_and(|status| status >= 500);
            let is_status = matches!(
                left.as_str(),
                "resp.status" | "beresp.status" | "obj.status"
            );
            is_status && is_failure && matches!(operator, "==" | ">=" | ">")
        })
    };
    let condition = VclCondition::of(&block.text);
    condition.is_some_and(|condition| {
        let mut alternatives = condition.alternatives().into_iter();
        alternatives.all(|one| one.together().iter().any(of_failures))
    })
}

fn of_step(step: &str, sub: &str) -> StatementBearing {
    let word: String = step
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    match word.as_str() {
        "hash" | "lookup" | "deliver" | "fetch" | "ok" | "miss" | "retry" | "purge" => {
            StatementBearing::Nothing
        }
        "pipe" if sub == "vcl_pipe" => StatementBearing::Nothing,
        "pass" if sub == "vcl_pass" => StatementBearing::Nothing,
        "restart" if matches!(sub, "vcl_hit" | "vcl_miss") => StatementBearing::Storage,
        "pass" | "pipe" | "hit_for_pass" | "hash_for_pass" => StatementBearing::Storage,
        "synth" | "error" | "fail" | "abandon" | "restart" => StatementBearing::Access,
        _ => StatementBearing::Anything,
    }
}

/// Fields of requests by which clients tell what they like, or which the gateway makes itself.
const HARMLESS_FIELDS: [&str; 15] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "pragma",
    "user-agent",
    "referer",
    "surrogate-capability",
    "grace",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
];

fn of_request_field(name: &str) -> StatementBearing {
    match name {
        "cookie" => StatementBearing::Credentials(RouteRestraint::CookiesPass),
        "authorization" => StatementBearing::Credentials(RouteRestraint::AuthorizationPasses),
        name if HARMLESS_FIELDS.contains(&name) => StatementBearing::Nothing,
        name if is_touchable(name) => StatementBearing::RequestField(name.to_owned()),
        _ => StatementBearing::Nothing,
    }
}

fn request_field(left: &str) -> Option<&str> {
    left.strip_prefix("req.http.")
        .or_else(|| left.strip_prefix("bereq.http."))
}

/// Variables without any bearing on who sees what.
const HARMLESS: [&str; 21] = [
    "req.grace",
    "req.esi",
    "req.ttl",
    "req.trace",
    "req.hash_ignore_busy",
    "req.hash_ignore_vary",
    "bereq.connect_timeout",
    "bereq.first_byte_timeout",
    "bereq.between_bytes_timeout",
    "bereq.task_deadline",
    "beresp.grace",
    "beresp.keep",
    "beresp.saintmode",
    "beresp.do_stream",
    "beresp.do_gzip",
    "beresp.do_gunzip",
    "beresp.do_esi",
    "beresp.storage",
    "beresp.storage_hint",
    "beresp.reason",
    "beresp.proto",
];

fn of_assignment(left: &str, right: &str, outer: Option<&SourceStatement>) -> StatementBearing {
    if let Some(name) = request_field(left) {
        return of_request_field(name);
    }
    match left {
        "req.url" | "bereq.url" => of_url(right),
        "req.backend_hint" | "req.backend" | "bereq.backend" => of_backend(outer),
        left if left.starts_with("resp.") || HARMLESS.contains(&left) => StatementBearing::Nothing,
        left => match left.strip_prefix("beresp.http.") {
            Some(name) if !may_decide(name) => StatementBearing::Nothing,
            _ => StatementBearing::Storage,
        },
    }
}

/// What is cut out of the query makes fewer keys; another path may be one that nobody should reach.
fn of_url(right: &str) -> StatementBearing {
    let is_cut = ["regsub(", "regsuball(", "std.querysort(", "querystring."]
        .iter()
        .any(|call| right.starts_with(call));
    let of_query = ["\\?", "&", "=", "?|", "querysort", "querystring."];
    match is_cut && of_query.iter().any(|mark| right.contains(mark)) {
        true => StatementBearing::Nothing,
        false => StatementBearing::Access,
    }
}

/// Who gets which backend may be a matter of who may see what, unless health alone decides.
fn of_backend(outer: Option<&SourceStatement>) -> StatementBearing {
    let condition = outer.and_then(|one| VclCondition::of(&one.text));
    let of_health = condition.is_some_and(|condition| {
        let leaves = condition.leaves();
        leaves
            .iter()
            .all(|leaf| leaf.left().starts_with("std.healthy(") || leaf.left() == "req.restarts")
    });
    match of_health {
        true => StatementBearing::Nothing,
        false => StatementBearing::Access,
    }
}

fn of_removal(what: &str) -> StatementBearing {
    match request_field(what) {
        Some(name) => of_request_field(name),
        None if what.starts_with("beresp.http.") || what.starts_with("resp.") => {
            StatementBearing::Nothing
        }
        None => StatementBearing::Storage,
    }
}
