//! Backends, probes and directors as upstreams.

use serde_json::{Value, json};

use super::super::draft::{ConfigDraft, DraftMap};
use super::super::source::SourceStatement;
use super::program::{VclProgram, call_arguments, quoted_text, written_duration};

/// All of them.
pub fn translate(program: &VclProgram<'_>, draft: &mut ConfigDraft) {
    for block in program
        .statements
        .iter()
        .filter(|one| one.name() == "backend")
    {
        let name = block.argument().trim_end_matches(';').to_owned();
        if block.block.is_none() {
            // `backend default none;`
            block.needs_nothing();
            continue;
        }
        let mut upstream = DraftMap::default();
        backend_settings(program, block, &mut upstream);
        block.translated();
        draft.upstreams.push((name, upstream));
    }
    directors(program, draft);
}

/// The value of `.name = value`.
fn attribute<'a>(one: &'a SourceStatement, name: &str) -> Option<&'a str> {
    let rest = one.text.strip_prefix(name)?.trim();
    Some(rest.strip_prefix('=')?.trim())
}

/// The name of an attribute, whatever stands behind it.
fn attribute_name(one: &SourceStatement) -> &str {
    let end = one.text.find(['=', ' ']).unwrap_or(one.text.len());
    &one.text[..end]
}

fn backend_settings(program: &VclProgram<'_>, block: &SourceStatement, upstream: &mut DraftMap) {
    let inside = block.inside();
    let text = |name: &str| {
        inside
            .iter()
            .find_map(|one| Some(quoted_text(attribute(one, name)?)?.to_owned()))
    };
    let is_tls = inside
        .iter()
        .any(|one| attribute(one, ".ssl").is_some_and(|on| on == "1"));
    let scheme = if is_tls { "https" } else { "http" };
    let usable = |host: &String| !host.is_empty() && !host.contains([' ', '/', '*']);
    if let Some(path) = text(".path") {
        upstream.add("targets", format!("unix:{path}"));
    } else if let Some(host) = text(".host").filter(usable) {
        let port = text(".port").filter(usable);
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        upstream.add("targets", format!("{scheme}://{host}{port}"));
    }
    let has_target = upstream.has("targets");
    for one in inside {
        match attribute_name(one) {
            ".host" | ".port" | ".path" | ".ssl" if has_target => one.translated(),
            ".host" | ".port" => one.remarked("it names no server"),
            ".probe" => named_probe(program, one, upstream),
            ".max_connections" => {
                if let Some(most) =
                    attribute(one, ".max_connections").and_then(|n| n.parse::<u64>().ok())
                {
                    upstream.set("load.max_concurrent", most);
                    one.translated();
                }
            }
            _ => backend_timeout(one, upstream),
        }
    }
}

fn backend_timeout(one: &SourceStatement, upstream: &mut DraftMap) {
    for (name, path) in [
        (".connect_timeout", "timeouts.connect"),
        (".first_byte_timeout", "timeouts.first_byte"),
        (".between_bytes_timeout", "timeouts.idle"),
    ] {
        if let Some(time) = attribute(one, name).and_then(written_duration) {
            upstream.set(path, time);
            one.translated();
        }
    }
}

/// A probe, here or declared by its name.
fn named_probe(program: &VclProgram<'_>, one: &SourceStatement, upstream: &mut DraftMap) {
    one.translated();
    if one.block.is_some() {
        return probe_settings(one.inside(), upstream);
    }
    let name = attribute(one, ".probe").unwrap_or_default();
    for block in program.declared("probe", name) {
        block.translated();
        probe_settings(block.inside(), upstream);
    }
}

fn probe_settings(inside: &[SourceStatement], upstream: &mut DraftMap) {
    let number = |name: &str| {
        inside
            .iter()
            .find_map(|one| attribute(one, name)?.parse::<u64>().ok())
    };
    let window = number(".window").unwrap_or(8);
    let threshold = number(".threshold").unwrap_or(3).min(window);
    upstream.set("health.active.path", "/");
    for one in inside {
        match attribute_name(one) {
            ".url" => {
                if let Some(path) = attribute(one, ".url").and_then(quoted_text) {
                    upstream.set("health.active.path", path);
                    one.translated();
                }
            }
            ".request" => probe_request(one, upstream),
            ".interval" | ".timeout" => {
                let name = attribute_name(one);
                if let Some(time) = attribute(one, name).and_then(written_duration) {
                    upstream.set(&format!("health.active.{}", &name[1..]), time);
                    one.translated();
                }
            }
            ".window" => {
                upstream.set(
                    "health.active.fall",
                    window.saturating_sub(threshold).saturating_add(1),
                );
                one.translated();
            }
            ".threshold" => {
                upstream.set("health.active.rise", threshold.max(1));
                one.translated();
            }
            ".initial" => one.needs_nothing(),
            ".expected_response" => {
                if let Some(status) =
                    attribute(one, ".expected_response").and_then(|n| n.parse::<u64>().ok())
                {
                    upstream.set("health.active.statuses", json!([status]));
                    one.translated();
                }
            }
            _ => {}
        }
    }
}

/// `.request`: the path of its first line. Checks are always GET.
fn probe_request(one: &SourceStatement, upstream: &mut DraftMap) {
    let line = one.text.split('"').nth(1).unwrap_or_default();
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default();
    if let Some(path) = words.next().filter(|path| path.starts_with('/')) {
        upstream.set("health.active.path", path);
        match method {
            "GET" => one.in_part("further header fields are not sent"),
            _ => one.in_part("checks are GET, without further header fields"),
        }
    }
}

/// Directors of `vcl_init`: one upstream with the targets of several backends.
fn directors(program: &VclProgram<'_>, draft: &mut ConfigDraft) {
    let init = program.sub("vcl_init");
    for one in &init {
        let Some((name, made)) = one
            .text
            .strip_prefix("new ")
            .and_then(|rest| rest.split_once('='))
        else {
            continue;
        };
        let (name, made) = (name.trim(), made.trim());
        let mut upstream = DraftMap::default();
        let is_known = match made.split('(').next().unwrap_or_default() {
            "directors.round_robin" => {
                upstream.set("balance.by", "round_robin");
                true
            }
            "directors.random" | "directors.fallback" => true,
            "directors.hash" | "directors.shard" => {
                upstream.set("balance.by", "hash");
                upstream.set("balance.hash", "key");
                true
            }
            "dynamic.director" => {
                dynamic_director(made, &mut upstream);
                draft.upstreams.push((name.to_owned(), upstream));
                one.translated();
                continue;
            }
            _ => false,
        };
        if !is_known {
            continue;
        }
        one.translated();
        let falls_back = made.starts_with("directors.fallback");
        director_members(name, falls_back, &init, &mut upstream, draft);
        draft.upstreams.push((name.to_owned(), upstream));
    }
}

/// Attributes of `dynamic.director(port = …, ttl = …)`; its hosts are said where it is used.
fn dynamic_director(made: &str, upstream: &mut DraftMap) {
    for argument in call_arguments(made, "dynamic.director").unwrap_or_default() {
        let Some((name, value)) = argument.split_once('=') else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        let path = match name {
            "connect_timeout" => "timeouts.connect",
            "first_byte_timeout" => "timeouts.first_byte",
            "between_bytes_timeout" => "timeouts.idle",
            "ttl" => "resolver.ceiling",
            "port" => {
                upstream.set("port", quoted_text(value).unwrap_or("80"));
                continue;
            }
            _ => continue,
        };
        if let Some(time) = written_duration(value) {
            upstream.set(path, time);
        }
    }
}

fn director_members(
    director: &str,
    falls_back: bool,
    init: &[&SourceStatement],
    upstream: &mut DraftMap,
    draft: &ConfigDraft,
) {
    let call = format!("{director}.add_backend");
    let mut priority = 0;
    for one in init {
        let Some(arguments) = call_arguments(&one.text, &call) else {
            continue;
        };
        let name = arguments.first().copied().unwrap_or_default();
        let Some((_, backend)) = draft.upstreams.iter().find(|(known, _)| known == name) else {
            continue;
        };
        let weight = arguments
            .get(1)
            .and_then(|weight| weight.parse::<f64>().ok());
        for url in backend
            .get("targets")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let target = match (falls_back, weight) {
                (true, _) => json!({ "url": url, "priority": priority }),
                (false, Some(weight)) => {
                    json!({ "url": url, "weight": weight.round().max(1.0) as u64 })
                }
                (false, None) => url.clone(),
            };
            upstream.add("targets", target);
        }
        priority += 1;
        let mut settings = backend.clone();
        settings.remove("targets");
        upstream.fill_from(&settings);
        one.translated();
    }
}
