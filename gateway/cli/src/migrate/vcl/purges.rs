//! Requests that purge.

use serde_json::json;

use super::super::draft::ConfigDraft;
use super::super::source::{self, SourceStatement};
use super::branches::{self, BlockCondition, VclStep, steps_of};
use super::condition::VclCondition;
use super::program::{VclProgram, branch_kind, call_arguments, returned_step};
use super::settled::{address_list, is_uncacheable_method};

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

/// The networks that may purge where the original names none, or where what it asks for besides can't
/// be said.
const NOBODY_ELSE: &str = "127.0.0.1/32";

/// Whether a condition holds for nothing but methods that purge; which ones.
pub fn methods(condition: &VclCondition) -> Vec<&'static str> {
    if !is_uncacheable_method(condition) {
        return Vec::new();
    }
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
    condition: &VclCondition,
    program: &VclProgram<'_>,
    draft: &mut ConfigDraft,
) {
    let methods = methods(condition);
    match methods.as_slice() {
        ["PURGE"] => block.translated(),
        list if list.contains(&"PURGE") => {
            block.in_part("PURGE alone; for other methods see docs/purging.md");
        }
        _ => return block.remarked("see docs/purging.md for what is understood of other methods"),
    }
    draft.top.set("purge_method.enabled", true);
    let lists = allowing_lists(block, condition);
    for one in source::all(block.inside()) {
        purge_step(one, methods.contains(&"PURGE"));
    }
    let is_of_list = |one: &SourceStatement| {
        let mut known = lists.iter().filter_map(|list| list.block);
        known.any(|known| std::ptr::eq(known, one))
    };
    let asks_more = steps_of(block.inside()).iter().any(|step| match step {
        VclStep::Block(one, _) => one.is_untouched() && refuses(one) && !is_of_list(one),
        VclStep::Plain(_) => false,
    });
    let is_one = lists.windows(2).all(|two| two[0].name == two[1].name);
    let networks = match lists.first() {
        Some(list) if is_one && !asks_more => program.networks(&list.name).plain().to_vec(),
        _ => Vec::new(),
    };
    if !networks.is_empty() {
        for one in lists.iter().filter_map(|list| list.block) {
            one.translated();
            one.inside().iter().for_each(SourceStatement::translated);
        }
    }
    let known = draft.top.get("purge_method.allow").cloned();
    let agrees = match &known {
        // What another block says counts, if this one says no more.
        Some(known) => !asks_more && (lists.is_empty() || *known == json!(networks)),
        None => !networks.is_empty(),
    };
    if known.is_none() {
        draft.top.set("purge_method.allow", networks);
    }
    if !agrees {
        draft.top.set("purge_method.allow", json!([NOBODY_ELSE]));
        block.also_remarked(
            "who may purge can't be said, or the original names nobody; put your networks, or a token",
        );
    }
}

/// A list of those who may purge.
struct PurgeList<'a> {
    name: String,
    /// The block that refuses all others; none if the condition around names the list.
    block: Option<&'a SourceStatement>,
}

/// The lists of those who may purge: `if (client.ip !~ purgers) { return (synth(405)); }`, or a
/// condition of the block itself.
fn allowing_lists<'a>(block: &'a SourceStatement, condition: &VclCondition) -> Vec<PurgeList<'a>> {
    let around = match refuses(block) {
        true => "!~",
        false => "~",
    };
    let named = list_of(condition, around).map(|name| PurgeList { name, block: None });
    let mut found: Vec<PurgeList<'a>> = named.into_iter().collect();
    for step in steps_of(block.inside()) {
        let VclStep::Block(one, BlockCondition::If(condition)) = step else {
            continue;
        };
        let wanted = match (refuses(one), branches::always_ends(one.inside())) {
            (true, _) => "!~",
            (false, true) => "~",
            (false, false) => continue,
        };
        let listed = list_of(&condition, wanted);
        found.extend(listed.map(|name| PurgeList {
            name,
            block: Some(one),
        }));
    }
    found
}

/// The list that a client's address must be in, or not in.
fn list_of(condition: &VclCondition, wanted: &str) -> Option<String> {
    let together = condition.together();
    let mut lists = together.into_iter().filter_map(address_list);
    let (_, list) = lists.find(|(operator, _)| *operator == wanted)?;
    Some(list.to_owned())
}

/// Whether a block ends with an answer instead of a purge.
fn refuses(block: &SourceStatement) -> bool {
    let is_refusal = |one: &SourceStatement| {
        let status = one
            .text
            .split(|c: char| !c.is_ascii_digit())
            .find(|text| text.len() == 3);
        let is_answer = returned_step(one).is_some_and(|step| step.starts_with("synth"));
        let refused = status.is_some_and(|status| status.starts_with(['4', '5']));
        (is_answer || one.name() == "error") && refused
    };
    block.inside().last().is_some_and(is_refusal)
}

/// What else stands inside.
fn purge_step(one: &SourceStatement, is_purge: bool) {
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
    if branch_kind(one).is_some() {
        let known = ["x-magento-tags-pattern", "xkey"];
        if known.iter().any(|name| text.contains(name)) {
            one.translated();
            if text.contains("x-pool") {
                one.in_part("there is no X-Pool; purge a route or a tag");
            }
        }
        return;
    }
    let next = returned_step(one).unwrap_or_default();
    if is_purge && matches!(next, "purge" | "hash" | "lookup") {
        one.translated();
    } else if next.starts_with("synth") {
        one.needs_nothing();
    }
}

/// `vcl_purge` only answers.
pub fn mark_purge_answers(program: &VclProgram<'_>) {
    for one in program.sub("vcl_purge") {
        if returned_step(one).is_some_and(|step| step.starts_with("synth")) {
            one.needs_nothing();
        }
    }
}
