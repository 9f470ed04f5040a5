//! Answers that Varnish makes itself: `synth` with what `vcl_synth` makes of its status.

use super::super::draft::DraftMap;
use super::super::source::SourceStatement;
use super::condition::VclCondition;
use super::program::{VclProgram, assignment, call_arguments, quoted_text, returned_step};

/// The lowest status of errors, and the first that is none of HTTP's.
const ERRORS: std::ops::Range<u16> = 400..600;

/// An answer that a statement stands for.
pub struct SyntheticAnswer<'a> {
    /// `respond` or `redirect`.
    pub route: DraftMap,
    /// What `vcl_synth` says of it.
    block: Option<&'a SourceStatement>,
}

impl<'a> SyntheticAnswer<'a> {
    /// That of `return (synth(STATUS, "text"))` and `error STATUS "text"`. A refusal is one whatever
    /// page `vcl_synth` makes of it.
    pub fn of(one: &SourceStatement, program: &VclProgram<'a>) -> Option<Self> {
        let (status, text) = status_and_text(one)?;
        let mut route = DraftMap::default();
        let block = block_for_status(program, status);
        if block.is_some_and(|block| answer_of_block(block, (status, &text), &mut route)) {
            return Some(Self { route, block });
        }
        let is_plain = (200..300).contains(&status) && block.is_none();
        if !is_plain && !ERRORS.contains(&status) {
            return None;
        }
        route.set("respond.status", status);
        if !text.is_empty() {
            route.set("respond.body", text);
        }
        Some(Self { route, block: None })
    }

    /// Marks what is said.
    pub fn said(&self, one: &SourceStatement) {
        one.translated();
        if let Some(block) = self.block {
            block.translated_whole();
        }
    }
}

fn status_and_text(one: &SourceStatement) -> Option<(u16, String)> {
    if let Some(rest) = one.text.strip_prefix("error ") {
        let (status, text) = rest.split_once(' ').unwrap_or((rest, "\"\""));
        return Some((status.parse().ok()?, quoted_text(text)?.to_owned()));
    }
    let arguments = returned_step(one).and_then(|call| call_arguments(call, "synth"))?;
    let status = arguments.first()?.parse::<u16>().ok()?;
    let text = arguments.get(1).and_then(|text| quoted_text(text));
    Some((status, text.unwrap_or_default().to_owned()))
}

/// `if (resp.status == STATUS) { … }` in `vcl_synth`.
fn block_for_status<'a>(program: &VclProgram<'a>, status: u16) -> Option<&'a SourceStatement> {
    let status = status.to_string();
    program.sub("vcl_synth").into_iter().find(|one| {
        let condition = VclCondition::of(&one.text);
        let found = condition.as_ref().and_then(VclCondition::comparison);
        one.block.is_some()
            && found.is_some_and(|(left, operator, right)| {
                left == "resp.status" && operator == "==" && right == status
            })
    })
}

fn answer_of_block(
    block: &SourceStatement,
    (status, reason): (u16, &str),
    route: &mut DraftMap,
) -> bool {
    let mut status = Some(status);
    let mut location = None;
    let mut body = None;
    let mut fields = Vec::new();
    if block.inside().is_empty() {
        return false;
    }
    for one in block.inside() {
        if let Some((left, right)) = assignment(one) {
            match left.as_str() {
                "resp.status" => status = right.parse::<u16>().ok(),
                "resp.http.location" if right == "resp.reason" => {
                    location = Some(reason.to_owned())
                }
                "resp.http.location" => match redirect_target(right) {
                    Some(to) => location = Some(to),
                    None => return false,
                },
                "resp.reason" => {}
                _ => match (left.strip_prefix("resp.http."), quoted_text(right)) {
                    (Some(name), Some(value)) => fields.push((name.to_owned(), value.to_owned())),
                    _ => return false,
                },
            }
        } else if let Some(arguments) = call_arguments(&one.text, "synthetic") {
            match arguments.first().and_then(|text| quoted_text(text)) {
                Some(text) => body = Some(text.to_owned()),
                None => return false,
            }
        } else if returned_step(one) != Some("deliver") {
            return false;
        }
    }
    let is_redirect = status.is_some_and(|status| [301, 302, 303, 307, 308].contains(&status));
    match (location, status) {
        (Some(to), Some(status)) if is_redirect && is_target(&to) => {
            route.set("redirect.to", to);
            route.set("redirect.status", status);
        }
        (None, Some(status)) if (200..600).contains(&status) && !is_redirect => {
            route.set("respond.status", status);
            route.set("respond.body", body.unwrap_or_else(|| reason.to_owned()));
            for (name, value) in fields {
                route.set_in("respond.headers", &name, value);
            }
        }
        _ => return false,
    }
    true
}

fn is_target(to: &str) -> bool {
    to.starts_with('/') || to.starts_with("http://") || to.starts_with("https://")
}

/// `"https://www.example.com" + req.url` as a target. One that takes the client's host is not said,
/// since nothing tells which hosts there are.
fn redirect_target(text: &str) -> Option<String> {
    let mut found = String::new();
    for part in text.split('+').map(str::trim) {
        match part {
            "req.url" => found.push_str("{path}"),
            part => found.push_str(quoted_text(part)?),
        }
    }
    Some(found)
}
