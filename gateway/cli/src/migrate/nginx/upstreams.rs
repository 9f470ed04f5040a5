//! `upstream` blocks, and what `proxy_pass` names.

use serde_json::{Map, Value, json};

use super::super::draft::{ConfigDraft, DraftMap, STAND_IN};
use super::super::source::SourceStatement;
use super::values;

/// All `upstream` blocks.
pub fn translate(inside: &[SourceStatement], draft: &mut ConfigDraft) {
    for block in inside.iter().filter(|one| one.name() == "upstream") {
        let name = block.argument().to_owned();
        block.translated();
        let upstream = draft.upstream(&name);
        upstream.set("targets", Value::Null);
        for one in block.inside() {
            member(one, upstream);
        }
    }
}

fn member(one: &SourceStatement, upstream: &mut DraftMap) {
    match one.name() {
        "server" => server(one, upstream),
        "keepalive" => {
            if let Ok(most) = one.argument().parse::<u64>() {
                upstream.set("pool.max_idle", most);
                one.translated();
            }
        }
        "keepalive_timeout" => set_duration(one, upstream, "pool.idle_timeout"),
        "least_conn" => {
            upstream.set("balance.by", "least_request");
            one.translated();
        }
        "ip_hash" => hash(one, upstream, "client"),
        "hash" => match one.argument() {
            "$remote_addr" | "$binary_remote_addr" => hash(one, upstream, "client"),
            "$request_uri" | "$uri" | "$host$request_uri" => hash(one, upstream, "key"),
            _ => {}
        },
        _ => {}
    }
}

fn hash(one: &SourceStatement, upstream: &mut DraftMap, by: &str) {
    upstream.set("balance.by", "hash");
    upstream.set("balance.hash", by);
    one.translated();
}

/// Sets a duration where the text is one.
pub fn set_duration(one: &SourceStatement, map: &mut DraftMap, path: &str) {
    if let Some(time) = values::duration(one.argument()) {
        map.set(path, time);
        one.translated();
    }
}

fn server(one: &SourceStatement, upstream: &mut DraftMap) {
    let Some(url) = url("http", one.argument()) else {
        return;
    };
    let mut target = Map::new();
    let mut unsaid = Vec::new();
    for word in one.arguments().iter().skip(1) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match (key, value) {
            ("weight", n) => drop(target.insert("weight".into(), number(n))),
            ("backup", _) => drop(target.insert("priority".into(), json!(1))),
            ("max_fails", n) => upstream.set("health.passive.failures", number(n)),
            ("fail_timeout", time) => match values::duration(time) {
                Some(time) => upstream.set("health.passive.eject", time),
                None => unsaid.push(word.as_str()),
            },
            ("resolve", _) => {}
            _ => unsaid.push(word),
        }
    }
    if target.is_empty() {
        upstream.add("targets", url);
    } else {
        target.insert("url".into(), json!(url));
        upstream.add("targets", Value::Object(target));
    }
    match unsaid.is_empty() {
        true => one.translated(),
        false => one.in_part(&format!("the target is there without {}", unsaid.join(" "))),
    }
}

fn number(text: &str) -> Value {
    text.parse::<u64>().map_or(Value::Null, Value::from)
}

/// An address as nginx writes it, as a URL.
fn url(scheme: &str, address: &str) -> Option<String> {
    if let Some(path) = address.strip_prefix("unix:") {
        return Some(format!("unix:{path}"));
    }
    let plain = !address.is_empty() && !address.contains(['$', '/', '"', ' ']);
    plain.then(|| format!("{scheme}://{address}"))
}

/// Where a location sends its requests.
pub struct ProxyTarget<'a> {
    pub statement: &'a SourceStatement,
    pub upstream: String,
    /// The path in `proxy_pass`, which takes the place of the location's.
    pub path: Option<String>,
}

/// The upstream of a `proxy_pass`, new if no block has its name; none where it holds variables.
pub fn of_proxy_pass<'a>(
    one: &'a SourceStatement,
    draft: &mut ConfigDraft,
) -> Option<ProxyTarget<'a>> {
    let (scheme, rest) = one.argument().split_once("://")?;
    if rest.contains('$') || !["http", "https"].contains(&scheme) {
        return None;
    }
    let (address, path) = match rest.strip_prefix("unix:") {
        Some(socket) => {
            let (socket, path) = socket.split_once(':').unwrap_or((socket, ""));
            (format!("unix:{socket}"), path.to_owned())
        }
        None => match rest.find('/') {
            Some(at) => (rest[..at].to_owned(), rest[at..].to_owned()),
            None => (rest.to_owned(), String::new()),
        },
    };
    let known = draft.upstreams.iter().find(|(name, _)| *name == address);
    let name = match known {
        Some((_, block)) if scheme == "https" => {
            let settings = block.clone();
            let name = format!("{address}-https");
            if !draft.upstreams.iter().any(|(known, _)| *known == name) {
                draft.upstream(&name).fill_from(&settings);
                over_tls(draft.upstream(&name));
            }
            name
        }
        Some(_) => address,
        None => {
            let target = url(scheme, &address)?;
            let name = draft.upstream_name(&named_by(&address), &target);
            draft.upstream(&name).add("targets", target);
            name
        }
    };
    one.translated();
    Some(ProxyTarget {
        statement: one,
        upstream: name,
        path: Some(path).filter(|path| !path.is_empty()),
    })
}

/// Targets of a block know no scheme; `proxy_pass https://NAME` gives them one, and others may name the
/// block without it.
fn over_tls(upstream: &mut DraftMap) {
    let Some(Value::Array(targets)) = upstream.get("targets").cloned() else {
        return;
    };
    let secure = |text: &str| text.replacen("http://", "https://", 1);
    let targets: Vec<Value> = targets
        .into_iter()
        .map(|target| match target {
            Value::String(url) => json!(secure(&url)),
            mut map => {
                let url = secure(map["url"].as_str().unwrap_or_default());
                map["url"] = json!(url);
                map
            }
        })
        .collect();
    upstream.set("targets", targets);
}

/// A name for an upstream that nginx has none for.
fn named_by(address: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = address.chars().map(kept).collect();
    match name.trim_matches('-') {
        "" => STAND_IN.to_owned(),
        name => name.to_owned(),
    }
}
