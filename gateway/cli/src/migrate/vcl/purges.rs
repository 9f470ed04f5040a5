//! Requests that purge.

use super::super::draft::ConfigDraft;
use super::super::source::{self, SourceStatement};
use super::condition::VclCondition;
use super::program::{VclProgram, branch, call_arguments, returned};

/// Methods that purge somewhere.
const METHODS: [&str; 7] = [
    "PURGE",
    "BAN",
    "URIBAN",
    "REFRESH",
    "PURGEKEYS",
    "PURGETAGS",
    "FULLBAN",
];

/// Whether this asks for a method that purges; which ones.
pub fn methods(condition: &VclCondition) -> Vec<&'static str> {
    let mut found = Vec::new();
    for leaf in condition.leaves() {
        if let Some((left, operator, right)) = leaf.comparison() {
            let is_method = matches!(left.as_str(), "req.method" | "req.request");
            if is_method && matches!(operator, "==" | "~") {
                found.extend(METHODS.iter().copied().filter(|name| {
                    right
                        .split(|c: char| !c.is_ascii_alphabetic())
                        .any(|word| word == *name)
                }));
            }
        }
    }
    found
}

/// `if (req.method == "PURGE") { … }`.
pub fn translate(
    block: &SourceStatement,
    methods: &[&str],
    program: &VclProgram<'_>,
    draft: &mut ConfigDraft,
) {
    match methods {
        ["PURGE"] => block.translated(),
        list if list.contains(&"PURGE") => {
            block.in_part("PURGE alone; for other methods see docs/purging.md");
        }
        _ => return block.remarked("see docs/purging.md for what is understood of other methods"),
    }
    draft.top.set("purge_method.enabled", true);
    for one in source::all(block.inside()) {
        access(one, program, draft);
    }
    if !draft.top.has("purge_method.allow") {
        draft.top.add("purge_method.allow", "127.0.0.1/32");
        block.remarked("the original names nobody who may purge; put your networks");
    }
    for one in source::all(block.inside()) {
        step(one, methods.contains(&"PURGE"));
    }
}

/// `if (client.ip !~ purgers) { return (synth(405)); }`.
fn access(one: &SourceStatement, program: &VclProgram<'_>, draft: &mut ConfigDraft) {
    if branch(one).is_none() {
        return;
    }
    let condition = VclCondition::of(&one.text);
    for leaf in condition.iter().flat_map(VclCondition::leaves) {
        let Some((left, operator, list)) = leaf.comparison() else {
            continue;
        };
        let is_address = left == "client.ip" || left.starts_with("std.ip(");
        if is_address && matches!(operator, "~" | "!~") {
            let networks = program.networks(list);
            for network in &networks {
                draft.top.add("purge_method.allow", network.clone());
            }
            if !networks.is_empty() {
                one.translated();
                let refused = one.inside().iter();
                refused.for_each(SourceStatement::translated);
            }
        }
    }
}

/// What else stands inside.
fn step(one: &SourceStatement, is_purge: bool) {
    if !one.is_untouched() {
        return;
    }
    let text = one.text.to_lowercase();
    let by_tags = [
        "xkey.purge",
        "xkey.softpurge",
        "ykey.purge",
        "purge.soft",
        "purge.hard",
    ];
    if by_tags.iter().any(|call| text.contains(call)) {
        return one.translated();
    }
    if let Some(arguments) = call_arguments(&text, "ban") {
        let of_magento = arguments
            .first()
            .is_some_and(|ban| ban.contains("x-magento-tags"));
        match of_magento {
            true => one.translated(),
            false => {
                one.remarked("expressions are never run; purge by tag, prefix, pattern or URL")
            }
        }
        return;
    }
    if branch(one).is_some() {
        let known = ["x-magento-tags-pattern", "xkey"];
        if known.iter().any(|name| text.contains(name)) {
            one.translated();
            if text.contains("x-pool") {
                one.in_part("there is no X-Pool; purge a route or a tag");
            }
        }
        return;
    }
    let next = returned(one).unwrap_or_default();
    if is_purge && matches!(next, "purge" | "hash" | "lookup") {
        one.translated();
    } else if next.starts_with("synth") {
        one.needs_nothing();
    }
}

/// `vcl_purge` only answers.
pub fn answered(program: &VclProgram<'_>) {
    for one in program.sub("vcl_purge") {
        if returned(one).is_some_and(|step| step.starts_with("synth")) {
            one.needs_nothing();
        }
    }
}
