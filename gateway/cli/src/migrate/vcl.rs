//! A VCL in Lamina's words: one route for the site, one for each set of paths that is treated in a
//! way of its own, and one for each answer that Varnish makes itself.
//!
//! Decision: the draft stores no more and lets nobody see more than the VCL does. What no translator
//! has said is weighed in `unsaid`, which closes routes or takes them off the cache.

mod answers;
mod backends;
mod branches;
mod cleaning;
mod condition;
mod delivery;
mod grace;
mod hashing;
mod hosts;
mod passes;
mod patterns;
mod program;
mod purges;
mod receive;
mod responses;
mod routes;
mod settled;
pub mod syntax;
mod synthetic;
mod target;
#[cfg(test)]
mod tests;
mod unsaid;
mod walk;

use super::draft::ConfigDraft;
use super::source::{self, SourceStatement};
use program::{VclProgram, branch_kind, returned_step};
use routes::VclRoutes;

/// Says as much of the configuration as can be said.
pub fn translate(statements: &[SourceStatement], draft: &mut ConfigDraft) {
    let program = VclProgram { statements };
    backends::translate(&program, draft);
    let mut routes = VclRoutes::new(&program, draft);
    receive::translate(&program, &mut routes, draft);
    purges::mark_purge_answers(&program);
    hashing::translate(&program, &mut routes);
    grace::translate(&program, &mut routes);
    responses::translate(&program, &mut routes);
    delivery::translate(&program, &mut routes);
    for one in statements {
        declaration(one);
    }
    unsaid::weigh_all(&program, &mut routes);
    routes.finish(draft);
}

/// Subroutines that are known, and steps that are taken anyhow.
fn declaration(one: &SourceStatement) {
    match one.name() {
        "vcl" | "import" => one.needs_nothing(),
        "sub" => {
            one.needs_nothing();
            one.inside().iter().for_each(by_itself);
            if one.argument() == "vcl_pipe" {
                source::all(one.inside()).into_iter().for_each(upgraded);
            }
        }
        _ => {}
    }
}

/// `return (…)` with the usual next step. One inside of an `if` that is not said belongs to it.
fn by_itself(one: &SourceStatement) {
    let usual = ["hash", "lookup", "deliver", "fetch", "ok", "miss"];
    let is_usual =
        one.text == "return" || returned_step(one).is_some_and(|step| usual.contains(&step));
    if is_usual && branch_kind(one).is_none() {
        one.needs_nothing();
    }
}

/// `set bereq.http.upgrade = …` in `vcl_pipe`.
fn upgraded(one: &SourceStatement) {
    let text = one.text.to_lowercase();
    let of_upgrade = ["upgrade", "connection"];
    let concerns = of_upgrade
        .iter()
        .any(|name| text.contains(&format!("http.{name}")));
    if concerns || returned_step(one) == Some("pipe") {
        one.needs_nothing();
    }
}
