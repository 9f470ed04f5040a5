//! Who may have an answer: `allow` and `deny`, passwords, and what else must be asked. What can't be said
//! closes the route.

use std::path::Path;

use serde_json::json;

use super::super::draft::{ConfigDraft, DraftMap};
use super::super::source::SourceStatement;
use super::blocks::BlockChain;
use super::listeners::network;

/// Everything that decides who may have an answer of a route.
pub fn of_route(chain: &BlockChain<'_>, route: &mut DraftMap, draft: &ConfigDraft) {
    addresses(chain, route, draft);
    passwords(chain, route);
    for one in chain.directives("auth_request") {
        match one.argument() {
            "off" => one.translated(),
            _ => route.close(one, "`auth: { forward: … }` asks a service"),
        }
    }
    if let Some(one) = chain.first("satisfy") {
        match one.argument() {
            "any" if route.has("access") && route.has("auth") => {
                one.translated();
                one.remarked("a client must satisfy both here");
            }
            _ => one.needs_nothing(),
        }
    }
}

/// `allow` and `deny` of the innermost block that has any. nginx takes the first of them that fits; here
/// a denied network is denied although an earlier line allows a part of it.
fn addresses(chain: &BlockChain<'_>, route: &mut DraftMap, draft: &ConfigDraft) {
    let is_rule = |one: &&&SourceStatement| matches!(one.name(), "allow" | "deny");
    let mut blocks = chain.blocks();
    let Some(block) = blocks.find(|block| block.iter().any(|one| is_rule(&one))) else {
        return;
    };
    let rules = block.iter().filter(is_rule);
    let mut allowed = Vec::new();
    let mut denied = Vec::new();
    let mut others_are_denied = None;
    for one in rules {
        one.translated();
        if others_are_denied.is_some() {
            continue;
        }
        let denies = one.name() == "deny";
        match (one.argument(), network(one.argument())) {
            ("all", _) => others_are_denied = Some(denies),
            // Clients come over addresses here.
            ("unix:", _) => {}
            (_, Some(network)) if denies => {
                if !allowed.is_empty() {
                    one.remarked(
                        "what is denied is denied here, also where a line before allows it",
                    );
                }
                denied.push(network);
            }
            (_, Some(network)) => allowed.push(network),
            (_, None) if denies => {
                one.in_part("networks are addresses");
                route.close(one, "networks are addresses");
            }
            (_, None) => one.in_part("networks are addresses; nobody is allowed by it"),
        }
        let restricts = denies || others_are_denied == Some(true);
        if let Some(why) = unknown_clients(chain, draft).filter(|_| restricts) {
            route.close(one, why);
        }
    }
    if route.is_closed() {
        return;
    }
    match (others_are_denied == Some(true), allowed.is_empty()) {
        (true, true) => return route.deny_everybody(),
        (true, false) => route.set("access.allow", allowed),
        (false, _) => {}
    }
    if !denied.is_empty() {
        route.set("access.deny", denied);
    }
}

/// Why addresses of clients are not those that nginx goes by.
fn unknown_clients(chain: &BlockChain<'_>, draft: &ConfigDraft) -> Option<&'static str> {
    let trusted: Vec<String> = chain
        .directives("set_real_ip_from")
        .iter()
        .filter_map(|one| network(one.argument()))
        .collect();
    if trusted.is_empty() {
        return None;
    }
    let header = chain.first("real_ip_header");
    let is_read = header.is_some_and(|one| one.argument().eq_ignore_ascii_case("x-forwarded-for"));
    let mut listeners = draft.listeners.iter();
    let are_trusted = listeners.all(|one| one.get("trusted_proxies") == Some(&json!(trusted)));
    match (is_read, are_trusted) {
        (true, true) => None,
        (false, _) => {
            Some("clients are known by X-Forwarded-For alone, and nginx reads another field")
        }
        (true, false) => Some("trusted_proxies of the listeners are not those of this server"),
    }
}

/// `auth_basic`.
fn passwords(chain: &BlockChain<'_>, route: &mut DraftMap) {
    let file = chain.first("auth_basic_user_file");
    let realm = chain.first("auth_basic");
    let Some(realm) = realm.filter(|realm| realm.argument() != "off") else {
        realm.into_iter().for_each(SourceStatement::translated);
        return file.into_iter().for_each(SourceStatement::needs_nothing);
    };
    let Some(file) = file else {
        return route.close(realm, "there is no auth_basic_user_file with it");
    };
    if realm.argument().contains('$') {
        return route.close(realm, "it has variables");
    }
    if !Path::new(file.argument()).is_file() {
        realm.remarked("auth: { basic: FILE }");
        file.remarked("it can't be read here");
        return route.close(file, "it can't be read here");
    }
    route.set("auth.basic", file.argument());
    route.set("auth.realm", realm.argument());
    realm.translated();
    file.translated();
    file.remarked("passwords must be bcrypt or argon2id");
}
