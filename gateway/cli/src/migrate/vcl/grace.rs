//! `vcl_hit`: the usual grace by health, with stale copies while a refresh runs, and while the backend
//! is sick.

use super::super::source::{self, SourceStatement};
use super::condition::VclCondition;
use super::program::{
    VclProgram, assignment, branch_kind, duration_seconds, returned_step, written_duration,
};
use super::routes::VclRoutes;

/// Says it where `vcl_hit` is about lifetimes and health alone.
pub fn translate(program: &VclProgram<'_>, routes: &mut VclRoutes) {
    let statements = program.sub("vcl_hit");
    let mut is_said = false;
    for one in &statements {
        let is_branch = branch_kind(one).is_some();
        // What stands in an `else` may be told by what is not said before it.
        is_said = is_branch && is_of_grace(one) && (one.name() != "else" || is_said);
        if is_said {
            one.translated_whole();
        }
    }
    let every: Vec<&SourceStatement> = statements
        .iter()
        .flat_map(|one| source::all(std::slice::from_ref(*one)))
        .collect();
    if !every.iter().any(|one| one.text.contains("std.healthy")) {
        return;
    }
    let limits = every.iter().filter(|one| !one.is_untouched());
    let limits = limits.filter_map(|one| {
        let rest = one.text.split("obj.ttl + ").nth(1)?;
        written_duration(rest.split_whitespace().next()?)
    });
    // The shortest one is that of a backend that is well.
    let shortest = limits.min_by(|a, b| {
        let (a, b) = (
            duration_seconds(a).unwrap_or(0.0),
            duration_seconds(b).unwrap_or(0.0),
        );
        a.total_cmp(&b)
    });
    if let Some(limit) = shortest {
        routes.site.set("policy.stale_while_revalidate", limit);
    }
}

/// Whether a block only decides if a stale copy is shown.
fn is_of_grace(block: &SourceStatement) -> bool {
    let of_grace = |leaf: &&VclCondition| {
        let left = leaf.left();
        let left = left.trim_start_matches('(');
        [
            "obj.ttl",
            "obj.grace",
            "obj.age",
            "std.healthy(",
            "req.http.grace",
        ]
        .iter()
        .any(|name| left.starts_with(name))
    };
    let condition = VclCondition::of(&block.text);
    let is_last = block.text == "else";
    let fits = condition.map_or(is_last, |condition| condition.leaves().iter().all(of_grace));
    fits && block.inside().iter().all(|one| match branch_kind(one) {
        Some(_) => is_of_grace(one),
        None => {
            let steps = ["deliver", "fetch", "miss", "restart", "pass"];
            let is_step = returned_step(one).is_some_and(|step| steps.contains(&step));
            let is_note = assignment(one).is_some_and(|(left, _)| left == "req.http.grace");
            is_step || is_note
        }
    })
}
