//! What nginx says of its cache, as a policy and a key.

use serde_json::{Value, json};

use super::super::draft::{ConfigDraft, DraftMap};
use super::super::source::SourceStatement;
use super::blocks::BlockChain;
use super::bypass;
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
    let Some(zone) = zones.iter().find(|one| one.argument() != "off") else {
        route.set("cache", "off");
        return;
    };
    zone.remarked("X-Accel-Expires of the origin is not read; it must say Cache-Control");
    if zone.argument().contains('$') {
        route.leave_uncached(zone, "its zone has variables");
    }
    route.set("policy.cookies", "ignore");
    bypass::of_route(chain, route);
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

/// `proxy_cache_valid`, of which nginx takes the first that has a status: the first list with 200 is
/// the `ttl`, the first with errors alone is `negative_cache`, all others are `lifetimes`.
fn lifetimes(lists: &[&SourceStatement], route: &mut DraftMap) {
    let mut known: Vec<u16> = Vec::new();
    let mut is_any_known = false;
    for one in lists {
        let Some((time, codes)) = one.arguments().split_last() else {
            continue;
        };
        let Some(time) = values::duration(time) else {
            continue;
        };
        if is_any_known {
            one.remarked("`any` stands before it, so nginx never reads it");
            continue;
        }
        if codes.iter().any(|code| code == "any") {
            is_any_known = true;
            one.remarked("list the statuses in policy.lifetimes");
            continue;
        }
        let codes: Vec<u16> = match codes.is_empty() {
            true => vec![200, 301, 302],
            false => codes.iter().filter_map(|code| code.parse().ok()).collect(),
        };
        one.translated();
        let codes: Vec<u16> = codes
            .into_iter()
            .filter(|code| !known.contains(code))
            .collect();
        if codes.is_empty() {
            continue;
        }
        known.extend(&codes);
        let errors = codes.iter().all(|code| *code >= 400);
        if codes.contains(&200) {
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
    }
    no_guesses(&known, route);
}

/// Statuses of answers for which Lamina guesses a lifetime by `Last-Modified`.
const GUESSED: [u16; 9] = [200, 203, 204, 300, 301, 308, 404, 410, 501];

/// nginx stores an answer without a lifetime only where `proxy_cache_valid` names its status.
fn no_guesses(known: &[u16], route: &mut DraftMap) {
    let others = GUESSED.into_iter().filter(|status| !known.contains(status));
    let others: Vec<u16> = others.collect();
    if !others.is_empty() {
        let lifetime = json!({ "statuses": others, "ttl": "0s" });
        route.add("policy.lifetimes", lifetime);
    }
}

/// `proxy_ignore_headers`. Only where nginx reads neither `Cache-Control` nor `Expires`, the answer has
/// no say; where it reads one of both, it may shorten what is stored.
fn ignored_fields(chain: &BlockChain<'_>, route: &mut DraftMap) {
    let hides_cookies = chain
        .cache_directives("hide_header")
        .iter()
        .any(|one| one.argument().eq_ignore_ascii_case("set-cookie"));
    for one in chain.cache_directives("ignore_headers") {
        let has = |wanted: &str| {
            let mut names = one.arguments().iter();
            names.any(|name| name.eq_ignore_ascii_case(wanted))
        };
        one.translated();
        match (has("cache-control"), has("expires")) {
            (false, false) => {}
            _ if !route.has("policy.ttl") => route.leave_uncached(
                one,
                "without them nginx stores what has a lifetime in proxy_cache_valid alone, and no list of it has 200",
            ),
            (true, true) => route.set("policy.mode", "override"),
            _ => {
                route.set("policy.mode", "cap");
                one.remarked("both fields are read here, and policy.ttl is the most");
            }
        }
        if has("set-cookie") {
            let kept = if hides_cookies { "strip" } else { "keep" };
            route.set("policy.set_cookie", kept);
        }
        let said = ["cache-control", "expires", "set-cookie", "x-accel-"];
        let is_said = |name: &&String| {
            let name = name.to_ascii_lowercase();
            said.iter().any(|one| name.starts_with(one))
        };
        let names = one.arguments().iter();
        let unsaid: Vec<&str> = names
            .filter(|name| !is_said(name))
            .map(String::as_str)
            .collect();
        if !unsaid.is_empty() {
            one.in_part(&format!("{} can't be ignored", unsaid.join(" ")));
        } else if route
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
const ALWAYS_IN_KEY: [&str; 11] = [
    "scheme",
    "request_method",
    "proxy_host",
    "http_host",
    "host",
    "server_name",
    "server_port",
    "hostname",
    "proxy_port",
    "uri",
    "document_uri",
];

/// Variables with all of the query.
const WHOLE_QUERY: [&str; 3] = ["request_uri", "args", "query_string"];

/// `proxy_cache_key`. What it tells apart and the draft can't must not be stored as one.
fn key(chain: &BlockChain<'_>, route: &mut DraftMap) {
    for one in chain.cache_directives("cache_key") {
        let names = values::variables(&one.arguments().join(" "));
        let mut unsaid = Vec::new();
        let mut parameters = Vec::new();
        for name in &names {
            let name = name.as_str();
            if ALWAYS_IN_KEY.contains(&name) || WHOLE_QUERY.contains(&name) || name == "is_args" {
                continue;
            }
            if let Some(cookie) = name.strip_prefix("cookie_") {
                route.add("key.cookies", cookie);
            } else if let Some(parameter) = name.strip_prefix("arg_") {
                parameters.push(parameter.to_owned());
            } else if let Some(field) = name.strip_prefix("http_") {
                route.add("key.headers", field.replace('_', "-"));
            } else {
                unsaid.push(format!("${name}"));
            }
        }
        one.translated();
        if !names
            .iter()
            .any(|name| WHOLE_QUERY.contains(&name.as_str()))
        {
            route.set("key.query.include", parameters);
            one.remarked("the origin gets these parameters alone; key.query.origin_query: as_sent gives it all of them");
        }
        if !unsaid.is_empty() {
            let why = format!("{} is not in the key", unsaid.join(" "));
            one.in_part(&why);
            route.leave_uncached(one, &why);
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
        Some(one) => {
            let names = values::variables(&one.text);
            let is_of_client = names
                .iter()
                .any(|name| name == "host" || name == "http_host");
            (!is_of_client).then_some("upstream")
        }
        None => proxied.then_some("upstream"),
    }
}
