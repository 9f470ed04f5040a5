//! What nginx says of its cache, as a policy and a key.

use serde_json::{Value, json};

use super::super::draft::{ConfigDraft, DraftMap};
use super::super::source::SourceStatement;
use super::conditions;
use super::locations::BlockChain;
use super::values;

/// `proxy_cache_path`: how much is kept, and where.
pub fn storage(inside: &[SourceStatement], draft: &mut ConfigDraft) {
    for one in inside
        .iter()
        .filter(|one| one.name().ends_with("_cache_path"))
    {
        let words = one.arguments().iter().skip(1);
        let size = words.filter_map(|word| word.strip_prefix("max_size="));
        let size = size.filter_map(values::size).next();
        match size {
            Some(size) if !draft.top.has("cache.l2") => {
                let file = json!({ "path": "lamina.l2", "max_bytes": size });
                draft.top.set_in("cache.l2", "disk", file);
                one.translated();
                one.remarked("one file beside the configuration, for all zones; cache.l1.max_bytes is the memory before it");
            }
            _ => one.remarked(
                "there is one cache for all routes: cache.l1 in memory, cache.l2 on disk",
            ),
        }
    }
}

/// `limit_req_zone`.
pub fn limit_zones(inside: &[SourceStatement], draft: &mut ConfigDraft) {
    for one in inside.iter().filter(|one| one.name() == "limit_req_zone") {
        let value = |key: &str| {
            let mut words = one.arguments().iter();
            words.find_map(|word| word.strip_prefix(key))
        };
        let by_client = matches!(one.argument(), "$binary_remote_addr" | "$remote_addr");
        let name = value("zone=").and_then(|zone| zone.split(':').next());
        let rate = value("rate=").and_then(rate);
        if let (true, Some(name), Some(rate)) = (by_client, name, rate) {
            draft
                .top
                .set_in("limits", name, json!({ "rate": rate, "key": "client" }));
            one.translated();
        }
    }
}

/// `10r/s` as `10/s`.
fn rate(text: &str) -> Option<String> {
    let (count, unit) = text.split_once("r/")?;
    Some(format!("{count}/{unit}"))
}

/// Whether the route caches, what, and for how long.
pub fn of_route(chain: &BlockChain<'_>, route: &mut DraftMap, draft: &mut ConfigDraft) {
    let zones = chain.cache_directives("cache");
    zones.iter().for_each(|one| one.translated());
    if !zones.iter().any(|one| one.argument() != "off") {
        route.set("cache", "off");
        return;
    }
    route.set("policy.cookies", "ignore");
    conditions::bypass(chain, route);
    let lists = chain.cache_directives("cache_valid");
    lifetimes(&lists, route);
    ignored_fields(chain, route);
    stale(chain, route);
    key(chain, route);
    for one in chain.cache_directives("cache_lock_timeout") {
        if let Some(time) = values::duration(one.argument()) {
            draft.top.set("cache.inflight.wait_timeout", time);
            one.translated();
        }
    }
    for one in chain.cache_directives("cache_methods") {
        match one
            .arguments()
            .iter()
            .all(|word| word == "GET" || word == "HEAD")
        {
            true => one.needs_nothing(),
            false => one.remarked("answers to GET and HEAD are stored"),
        }
    }
    for one in chain.cache_directives("cache_min_uses") {
        match one.argument() {
            "1" => one.needs_nothing(),
            _ => one.remarked("the first request stores"),
        }
    }
}

/// `proxy_cache_valid`: the first list with 200 is the `ttl`, the first with errors alone is
/// `negative_cache`, all others are `lifetimes`.
fn lifetimes(lists: &[&SourceStatement], route: &mut DraftMap) {
    for one in lists {
        let Some((time, codes)) = one.arguments().split_last() else {
            continue;
        };
        let Some(time) = values::duration(time) else {
            continue;
        };
        if codes.iter().any(|code| code == "any") {
            one.remarked("list the statuses in policy.lifetimes");
            continue;
        }
        let codes: Vec<u16> = match codes.is_empty() {
            true => vec![200, 301, 302],
            false => codes.iter().filter_map(|code| code.parse().ok()).collect(),
        };
        let errors = codes.iter().all(|code| *code >= 400);
        if codes.contains(&200) && !route.has("policy.ttl") {
            route.set("policy.ttl", time);
            route.set("policy.statuses", codes);
        } else if errors && !route.has("policy.negative_cache") {
            route.set(
                "policy.negative_cache",
                json!({ "ttl": time, "statuses": codes }),
            );
        } else {
            let lifetime = json!({ "statuses": codes, "ttl": time });
            route.add("policy.lifetimes", lifetime);
        }
        one.translated();
    }
}

fn ignored_fields(chain: &BlockChain<'_>, route: &mut DraftMap) {
    let hides = chain.cache_directives("hide_header");
    let hides_cookies = hides
        .iter()
        .any(|one| one.argument().eq_ignore_ascii_case("set-cookie"));
    for one in chain.cache_directives("ignore_headers") {
        let mut unsaid = Vec::new();
        for name in one.arguments() {
            match name.to_ascii_lowercase().as_str() {
                "cache-control" | "expires" if route.has("policy.ttl") => {
                    route.set("policy.mode", "override");
                }
                "set-cookie" => {
                    let kept = if hides_cookies { "strip" } else { "keep" };
                    route.set("policy.set_cookie", kept);
                }
                "x-accel-expires" | "x-accel-buffering" | "x-accel-redirect" => {}
                _ => unsaid.push(name.as_str()),
            }
        }
        match unsaid.is_empty() {
            true => one.translated(),
            false => one.in_part(&format!("{} can't be ignored", unsaid.join(" "))),
        }
        if route
            .get("policy.set_cookie")
            .is_some_and(|kept| kept == "keep")
        {
            one.remarked("set_cookie: keep gives everybody the stored cookie; strip is most often what is meant");
        }
    }
}

/// nginx bounds stale copies by `inactive` alone.
fn stale(chain: &BlockChain<'_>, route: &mut DraftMap) {
    for one in chain.cache_directives("cache_use_stale") {
        let has = |word: &str| one.arguments().iter().any(|one| one == word);
        if has("off") {
            one.translated();
            continue;
        }
        if has("updating") {
            route.set_default("policy.stale_while_revalidate", "1m");
        }
        if [
            "error", "timeout", "http_500", "http_502", "http_503", "http_504",
        ]
        .iter()
        .any(|word| has(word))
        {
            route.set_default("policy.stale_if_error", "1h");
        }
        one.translated();
        one.remarked("stale copies have a bound in time here; put yours");
    }
}

/// Variables that are in the key by themselves.
const ALWAYS: [&str; 14] = [
    "$scheme",
    "$request_method",
    "$proxy_host",
    "$http_host",
    "$host",
    "$server_name",
    "$server_port",
    "$request_uri",
    "$uri",
    "$is_args",
    "$args",
    "$query_string",
    "$hostname",
    "$proxy_port",
];

fn key(chain: &BlockChain<'_>, route: &mut DraftMap) {
    for one in chain.cache_directives("cache_key") {
        let text = one.arguments().join("");
        let mut unsaid = Vec::new();
        let parts: Vec<String> = text
            .split('$')
            .skip(1)
            .map(|part| format!("${part}"))
            .collect();
        for part in &parts {
            let name = part.trim_matches(['{', '}', '|', ':', '/', '?', '-', '_', ' ']);
            let name: String = name.replace(['{', '}'], "");
            if ALWAYS.contains(&name.as_str()) {
                continue;
            }
            if let Some(cookie) = name.strip_prefix("$cookie_") {
                route.add("key.cookies", cookie);
            } else if let Some(field) = name.strip_prefix("$http_") {
                route.add("key.headers", field.replace('_', "-"));
            } else {
                unsaid.push(name);
            }
        }
        let has_query = ["$request_uri", "$args", "$query_string"]
            .iter()
            .any(|name| text.contains(name));
        if !has_query {
            route.set("key.query.include", Value::Array(Vec::new()));
        }
        match unsaid.is_empty() {
            true => one.translated(),
            false => one.in_part(&format!("{} is not in the key", unsaid.join(" "))),
        }
    }
}

/// Times and retries, which belong to the upstream.
pub fn of_upstream(chain: &BlockChain<'_>, name: &str, draft: &mut ConfigDraft) {
    let host = host_header(chain);
    let upstream = draft.upstream(name);
    if let Some(host) = host {
        upstream.set_default("host_header", host);
    }
    for (ending, path) in [
        ("connect_timeout", "timeouts.connect"),
        ("read_timeout", "timeouts.first_byte"),
        ("send_timeout", "timeouts.stream_idle"),
    ] {
        for one in chain.cache_directives(ending) {
            if let Some(time) = values::duration(one.argument()) {
                upstream.set_default(path, time);
                one.translated();
            }
        }
    }
    for one in chain.cache_directives("next_upstream") {
        let on = one
            .arguments()
            .iter()
            .filter_map(|word| match word.as_str() {
                "error" => Some(vec![json!("connect"), json!("reset")]),
                "timeout" => Some(vec![json!("timeout")]),
                word => Some(vec![json!(
                    word.strip_prefix("http_")?
                        .parse::<u16>()
                        .ok()
                        .filter(|code| *code >= 500)?
                )]),
            });
        let on: Vec<Value> = on.flatten().collect();
        if !on.is_empty() {
            upstream.set_default("retry.on", on);
            one.translated();
        }
    }
    for one in chain.cache_directives("next_upstream_tries") {
        if let Ok(tries) = one.argument().parse::<u64>() {
            upstream.set_default("retry.attempts", tries.max(1));
            one.translated();
        }
    }
}

/// nginx sends the name in `proxy_pass` as `Host` unless it is told otherwise.
fn host_header(chain: &BlockChain<'_>) -> Option<&'static str> {
    let proxied = chain.first("proxy_pass").is_some();
    let fields = chain.directives("proxy_set_header");
    let host = fields
        .iter()
        .find(|one| one.argument().eq_ignore_ascii_case("host"));
    match host {
        Some(one) if one.text.contains("$proxy_host") => Some("upstream"),
        None if proxied => Some("upstream"),
        _ => None,
    }
}
