//! Header fields, compression, limits: everything of a route that is no matter of the cache.

use serde_json::{Value, json};

use super::super::draft::{ConfigDraft, DraftMap, is_touchable};
use super::super::source::SourceStatement;
use super::blocks::BlockChain;
use super::values;

/// Says them in a route.
pub fn of_route(chain: &BlockChain<'_>, route: &mut DraftMap, draft: &mut ConfigDraft) {
    for one in chain.directives("proxy_set_header") {
        request_field(one, route);
    }
    let added = chain.directives("add_header");
    for one in &added {
        let is_same =
            |other: &&&SourceStatement| other.argument().eq_ignore_ascii_case(one.argument());
        let is_repeated = added.iter().filter(is_same).count() > 1;
        response_field(one, is_repeated, route);
    }
    for one in chain.cache_directives("hide_header") {
        let name = one.argument().to_ascii_lowercase();
        route.add("headers.response.remove", name);
        one.translated();
    }
    for one in chain.directives("expires") {
        expires(one, route);
    }
    compress(chain, route, draft);
    for one in chain.directives("limit_req") {
        limit(one, route, draft);
    }
    for one in chain.directives("access_log") {
        match one.argument() {
            "off" => one.remarked("telemetry.access_log is on or off for all routes"),
            _ => one.remarked("the log goes to stdout; telemetry.log_format is text or json"),
        }
    }
}

/// Fields that Lamina sends by itself.
const SENT: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "upgrade",
    "connection",
    "accept-encoding",
];

fn request_field(one: &SourceStatement, route: &mut DraftMap) {
    let [name, value @ ..] = one.arguments() else {
        return;
    };
    let (name, value) = (name.to_ascii_lowercase(), value.join(" "));
    match (name.as_str(), value.as_str()) {
        ("host", "$host" | "$http_host" | "$proxy_host") => one.needs_nothing(),
        ("host", _) => one.remarked(
            "the upstream gets its own host (host_header: upstream), or the client's (preserve)",
        ),
        (name, _) if SENT.contains(&name) => one.needs_nothing(),
        ("range", "$slice_range") => one.needs_nothing(),
        (name, _) if !is_touchable(name) => one.remarked("the gateway sets this field itself"),
        (name, "") => {
            route.add("headers.request.remove", name);
            one.translated();
        }
        (name, value) => match values::field_with_places(value) {
            Some(place) => {
                route.set_in("headers.request.set", name, place);
                one.translated();
                if values::variables(value).contains(&"request_uri".to_owned()) {
                    one.remarked("the ? stands there without a query, too");
                }
            }
            None => {
                // nginx sends a field of its own in place of the client's, which must not pass as that.
                route.add("headers.request.remove", name);
                one.in_part(
                    "its value can't be said; what a client sends under this name is taken out",
                );
            }
        },
    }
}

/// Fields of which there may be several, or of which what the origin says must not be lost: nginx adds
/// a line.
const ADDED_FIELDS: [&str; 6] = [
    "cache-control",
    "content-security-policy",
    "link",
    "set-cookie",
    "vary",
    "www-authenticate",
];

/// Fields that nobody but the gateway sets.
const ITS_OWN: [&str; 6] = [
    "age",
    "via",
    "date",
    "content-length",
    "connection",
    "cache-status",
];

fn response_field(one: &SourceStatement, is_repeated: bool, route: &mut DraftMap) {
    let [name, value @ ..] = one.arguments() else {
        return;
    };
    let value: Vec<&str> = value.iter().map(String::as_str).collect();
    let value = match value.as_slice() {
        [rest @ .., "always"] => rest.join(" "),
        all => all.join(" "),
    };
    if value.contains("$upstream_cache_status") {
        return one.needs_nothing();
    }
    let name = name.to_ascii_lowercase();
    let set = values::field_with_places(&value).filter(|_| !ITS_OWN.contains(&name.as_str()));
    let Some(value) = set.filter(|value| !value.is_empty()) else {
        return;
    };
    one.translated();
    if is_repeated || ADDED_FIELDS.contains(&name.as_str()) {
        let known = route
            .get("headers.response.add")
            .and_then(|all| all.get(&name));
        let mut lines = known.and_then(Value::as_array).cloned().unwrap_or_default();
        lines.push(json!(value));
        route.set_in("headers.response.add", &name, lines);
    } else {
        route.set_in("headers.response.set", &name, value);
    }
    if name == "cache-control" && one.arguments().last().is_some_and(|last| last != "always") {
        one.remarked(ON_ERRORS);
    }
}

/// What is said of a lifetime for browsers.
const ON_ERRORS: &str = "it stands on errors as well";

fn expires(one: &SourceStatement, route: &mut DraftMap) {
    let words = one.arguments();
    let value = match words.first().map(String::as_str) {
        Some("off") => return one.needs_nothing(),
        Some("max") => Some("max-age=315360000".to_owned()),
        Some("epoch" | "-1") => Some("no-cache".to_owned()),
        Some(time) if words.len() == 1 => values::seconds(time).map(|n| format!("max-age={n}")),
        _ => None,
    };
    if let Some(value) = value {
        route.set_in("headers.response.set", "cache-control", value);
        one.translated();
        one.remarked(ON_ERRORS);
    }
}

fn compress(chain: &BlockChain<'_>, route: &mut DraftMap, draft: &mut ConfigDraft) {
    let Some(on) = chain.first("gzip") else {
        return;
    };
    let http = chain.blocks().last().unwrap_or_default();
    let of_all = http.iter().any(|one| std::ptr::eq(*one, on));
    let path = if of_all {
        "defaults.compress"
    } else {
        "compress"
    };
    let target = if of_all { &mut draft.top } else { route };
    on.translated();
    if on.argument() != "on" {
        target.set(&format!("{path}.encodings"), json!([]));
        return;
    }
    target.set_default(path, json!({}));
    for one in chain.directives("gzip_types") {
        let mut types = vec!["text/html".to_owned()];
        types.extend(
            one.arguments()
                .iter()
                .filter(|name| *name != "text/html")
                .cloned(),
        );
        if types.iter().any(|name| name == "*") {
            one.remarked("types are listed");
            continue;
        }
        target.set(&format!("{path}.types"), types);
        one.translated();
    }
    for one in chain.directives("gzip_min_length") {
        if let Some(size) = values::size(one.argument()) {
            target.set(&format!("{path}.min_bytes"), size);
            one.translated();
        }
    }
    for one in chain.directives("gzip_comp_level") {
        if let Ok(level) = one.argument().parse::<u8>() {
            target.set(&format!("{path}.levels.gzip"), level);
            one.translated();
        }
    }
}

fn limit(one: &SourceStatement, route: &mut DraftMap, draft: &mut ConfigDraft) {
    let value = |key: &str| {
        one.arguments()
            .iter()
            .find_map(|word| word.strip_prefix(key))
    };
    let Some(zone) = value("zone=").filter(|zone| draft.top.has(&format!("limits.{zone}"))) else {
        return;
    };
    route.add("limit", zone);
    if let Some(burst) = value("burst=").and_then(|n| n.parse::<u64>().ok()) {
        draft.top.set(&format!("limits.{zone}.burst"), burst.max(1));
    }
    one.translated();
}
