//! `return`: what nginx answers itself, and which path the origin gets by `proxy_pass`.

use super::super::draft::{ConfigDraft, DraftMap};
use super::super::source::SourceStatement;
use super::conditions::{ConditionOperator, RequestCondition};
use super::listeners::network;
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

/// `proxy_pass http://app/new/` in `location /old/`; false where one of both is none that the gateway
/// could take away or put before a path.
#[must_use]
pub fn replaced_path(location: &str, path: &str, route: &mut DraftMap) -> bool {
    let prefix = location.trim_end_matches('/');
    let added = path.trim_end_matches('/');
    if prefix == added {
        return true;
    }
    let is_good = |prefix: &str| {
        let is_step = |part: &str| matches!(part, "." | "..");
        let has_signs = prefix.contains(['?', '#', '%', ';', '\\', '{', '}', ' ']);
        let is_path = prefix.is_empty() || prefix.starts_with('/');
        is_path && !has_signs && !prefix.contains("//") && !prefix.split('/').any(is_step)
    };
    if !is_good(prefix) || !is_good(added) {
        return false;
    }
    if !prefix.is_empty() {
        route.set("rewrite.strip_prefix", prefix);
    }
    if !added.is_empty() {
        route.set("rewrite.add_prefix", added);
    }
    true
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
