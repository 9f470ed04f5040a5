//! `return`, `rewrite`, header fields, compression, access: what nginx does to requests and answers.

use serde_json::{Value, json};

use super::super::draft::{ConfigDraft, DraftMap};
use super::super::expression::{self, ExpressionCase, PatternList};
use super::super::source::SourceStatement;
use super::blocks::BlockChain;
use super::conditions::{ConditionOperator, RequestCondition};
use super::listeners::network;
use super::request_uri::spelled_out;
use super::values;

/// Statuses of redirects.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Says a `return` in a route.
pub fn returned(one: &SourceStatement, hosts: &[String], route: &mut DraftMap) -> bool {
    let words = one.arguments();
    let (status, text) = match words {
        [url] if url.parse::<u16>().is_err() => (302, url.clone()),
        [status] => (status.parse().unwrap_or(0), String::new()),
        [status, text @ ..] => (status.parse().unwrap_or(0), text.join(" ")),
        [] => return false,
    };
    match status {
        status if REDIRECTS.contains(&status) => {
            let is_said = set_redirect(&text, status, hosts, route);
            if is_said {
                one.translated();
            }
            is_said
        }
        200..=599 => {
            route.set("respond.status", status);
            one.translated();
            match text.contains('$') {
                true => one.in_part("its text has variables"),
                false if text.is_empty() => {}
                false => route.set("respond.body", text),
            }
            true
        }
        _ => false,
    }
}

/// Sets `redirect` where the target can be said.
pub fn set_redirect(to: &str, status: u16, hosts: &[String], route: &mut DraftMap) -> bool {
    let server_name = hosts.first().map_or("", String::as_str);
    let Some(target) = values::target(&to.replace("$server_name", server_name)) else {
        return false;
    };
    let named_by_client = target.contains("{host}") && !target.starts_with('/');
    if named_by_client && hosts.is_empty() {
        return false;
    }
    route.set("redirect.to", target);
    route.set("redirect.status", status);
    if named_by_client {
        route.set("redirect.allow_hosts", hosts);
    }
    true
}

/// Whether a redirect leads to the page that was asked for, over https.
pub fn is_same_page_over_https(target: &str) -> bool {
    let host = target
        .strip_prefix("https://")
        .and_then(|rest| rest.strip_suffix("$request_uri"));
    host.is_some_and(|host| ["$host", "$http_host", "$server_name"].contains(&host))
}

/// A server that sends everybody to https is a matter of the listener, if all servers of its ports do
/// so: routes know no ports.
pub fn redirect_whole_listener(
    server: &SourceStatement,
    http: &[SourceStatement],
    draft: &mut ConfigDraft,
) -> bool {
    let Some((one, status)) = to_https(server) else {
        return false;
    };
    let ports = listens(server);
    let others = http.iter().filter(|one| one.name() == "server");
    let mut sharing = others.filter(|one| listens(one).iter().any(|port| ports.contains(port)));
    if !sharing.all(|one| to_https(one).is_some()) {
        return false;
    }
    let mut said = false;
    for listener in &mut draft.listeners {
        let address = listener
            .get("address")
            .and_then(|one| one.as_str())
            .unwrap_or_default();
        if ports
            .iter()
            .any(|port| address.ends_with(&format!(":{port}")))
            && !listener.has("tls")
        {
            listener.set("redirect_to_https.status", status);
            said = true;
        }
    }
    if said {
        one.translated();
        let blocks = server.inside().iter().filter(|block| block.name() == "if");
        blocks
            .filter(|block| block.inside().iter().any(|inner| std::ptr::eq(inner, one)))
            .for_each(SourceStatement::translated);
        if !one.text.contains("https://$") {
            one.remarked("the host stays as the client asked for it");
        }
    }
    said
}

/// The `return` with which a server sends everybody to the same page over https, and its status. It is
/// that of the server, or of its location for all paths, or, as certbot writes it, one for each name.
fn to_https(server: &SourceStatement) -> Option<(&SourceStatement, u16)> {
    let is_return = |one: &&SourceStatement| one.name() == "return";
    let inside = server.inside();
    let of_root = inside
        .iter()
        .find(|one| one.name() == "location" && one.arguments() == ["/"]);
    let of_root = of_root.and_then(|root| root.inside().iter().find(is_return));
    let one = return_of_each_name(server)
        .or_else(|| inside.iter().find(is_return))
        .or(of_root)?;
    let [status, to] = one.arguments() else {
        return None;
    };
    let host = to.strip_prefix("https://")?.strip_suffix("$request_uri")?;
    let names = inside.iter().filter(|one| one.name() == "server_name");
    let is_own = names
        .flat_map(|one| one.arguments())
        .any(|name| name == host);
    let status = status.parse().ok();
    let status = status.filter(|status| matches!(status, 301 | 308))?;
    (is_own || is_same_page_over_https(to)).then_some((one, status))
}

/// `if ($host = NAME) { return 301 https://$host$request_uri; }`, if there is one for each name.
fn return_of_each_name(server: &SourceStatement) -> Option<&SourceStatement> {
    let names = server
        .inside()
        .iter()
        .filter(|one| one.name() == "server_name");
    let names: Vec<&String> = names.flat_map(|one| one.arguments()).collect();
    let of_name = |name: &&String| {
        let mut blocks = server.inside().iter().filter(|one| one.name() == "if");
        let block = blocks.find(|one| {
            RequestCondition::of_if(one).is_some_and(|condition| {
                condition.variable == "host"
                    && condition.operator == ConditionOperator::Equals
                    && condition.value == **name
            })
        })?;
        let one = block.inside().iter().find(|one| one.name() == "return")?;
        let target = one.arguments().last()?;
        is_same_page_over_https(target).then_some(one)
    };
    let found: Option<Vec<&SourceStatement>> = names.iter().map(of_name).collect();
    found?.first().copied()
}

/// The ports of a server.
fn listens(server: &SourceStatement) -> Vec<String> {
    let all = server.inside().iter().filter(|one| one.name() == "listen");
    all.filter_map(|one| one.argument().rsplit(':').next().map(str::to_owned))
        .collect()
}

/// A `rewrite` that redirects.
pub struct RedirectingRewrite {
    /// The paths; none: all of them.
    pub patterns: Vec<String>,
    pub to: String,
    pub status: u16,
    /// How the patterns differ from the expression.
    pub difference: Option<&'static str>,
}

/// `rewrite EXPRESSION TO permanent|redirect` without captures, or with all of the path as the capture.
pub fn redirecting_rewrite(one: &SourceStatement) -> Option<RedirectingRewrite> {
    let [expression, to, rest @ ..] = one.arguments() else {
        return None;
    };
    let status = match rest.first().map(String::as_str) {
        Some("permanent") => 301,
        Some("redirect") => 302,
        None if to.starts_with("http") => 302,
        _ => return None,
    };
    let whole = ["^(.*)$", "^/(.*)$", "^", "^(.*)", "^/(.*)", "(.*)"];
    if whole.contains(&expression.as_str()) {
        let slash = if expression.starts_with("^/(") {
            "/$1"
        } else {
            "$1"
        };
        let to = to.replace(slash, "$uri");
        return (!to.contains("$1")).then_some(RedirectingRewrite {
            patterns: Vec::new(),
            to,
            status,
            difference: None,
        });
    }
    if to.contains("$1") {
        return None;
    }
    let list = expression::paths(expression)?;
    let (patterns, lost) = spelled_out(&list.patterns, list.case);
    let told = PatternList {
        case: ExpressionCase::Told,
        ..list
    };
    Some(RedirectingRewrite {
        patterns,
        to: to.trim_end_matches('?').to_owned(),
        status,
        difference: lost.or(told.difference()),
    })
}

/// `proxy_pass http://app/new/` in `location /old/`.
pub fn replaced_path(location: &str, path: &str, route: &mut DraftMap) {
    let prefix = location.trim_end_matches('/');
    let added = path.trim_end_matches('/');
    if prefix == added {
        return;
    }
    if !prefix.is_empty() {
        route.set("rewrite.strip_prefix", prefix);
    }
    if !added.is_empty() {
        route.set("rewrite.add_prefix", added);
    }
}

/// `rewrite ^/api/(.*)$ /$1 break` in a location.
fn stripping_rewrite(one: &SourceStatement, route: &mut DraftMap) {
    let [expression, to, ..] = one.arguments() else {
        return;
    };
    let prefix = expression.strip_prefix('^').and_then(|rest| {
        let rest = rest.strip_suffix('$').unwrap_or(rest);
        rest.strip_suffix("/(.*)")
            .or_else(|| rest.strip_suffix("/?(.*)"))
    });
    let literal = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || "/_-".contains(c))
    };
    let Some(prefix) = prefix.filter(|prefix| literal(prefix) && !prefix.is_empty()) else {
        return;
    };
    let Some(added) = to.strip_suffix("/$1").filter(|added| literal(added)) else {
        return;
    };
    route.set("rewrite.strip_prefix", prefix);
    if !added.is_empty() {
        route.set("rewrite.add_prefix", added);
    }
    one.translated();
}

/// Whether a location only says `deny all`.
pub fn is_closed(block: &SourceStatement) -> bool {
    let denies = |one: &SourceStatement| one.name() == "deny" && one.argument() == "all";
    let quiet =
        |one: &SourceStatement| matches!(one.name(), "access_log" | "log_not_found") || denies(one);
    block.inside().iter().any(denies) && block.inside().iter().all(quiet)
}

/// Whether a location is for purging alone: its directive names a zone and a key. With one variable it
/// says for which requests an ordinary location purges, and with `from` for which clients.
pub fn purges_by_path(one: &SourceStatement) -> bool {
    let words = one.arguments();
    one.name().ends_with("_cache_purge")
        && words.len() > 1
        && words.get(1).is_none_or(|word| word != "from")
}

/// `location ~ /purge(/.*)` with a module that purges.
pub fn purging(block: &SourceStatement, draft: &mut ConfigDraft) {
    draft.top.set("purge_method.enabled", true);
    for one in block.inside() {
        match one.name() {
            "allow" => {
                if let Some(network) = network(one.argument()) {
                    draft.top.add("purge_method.allow", network);
                    one.translated();
                }
            }
            "deny" => one.translated(),
            name if name.ends_with("_cache_purge") => {
                one.translated();
                one.remarked("PURGE with the URL itself");
            }
            _ => {}
        }
    }
    if !draft.top.has("purge_method.allow") {
        draft.top.add("purge_method.allow", "127.0.0.1/32");
        block.remarked("it names nobody who may purge; put your networks");
    }
    block.translated();
}

/// Everything of a route that is no matter of the cache.
pub fn of_route(chain: &BlockChain<'_>, route: &mut DraftMap, draft: &mut ConfigDraft) {
    for one in chain.directives("rewrite") {
        stripping_rewrite(one, route);
    }
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
