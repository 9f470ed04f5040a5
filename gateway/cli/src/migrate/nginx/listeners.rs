//! `listen`, certificates, and what is said of connections.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Value, json};

use super::super::draft::{ConfigDraft, DraftMap};
use super::super::source::{self, SourceStatement};
use super::upstreams::set_duration;
use super::values;

/// `worker_processes`.
pub fn threads(one: &SourceStatement, draft: &mut ConfigDraft) {
    match one.argument().parse::<u64>() {
        Ok(threads) if threads > 0 => {
            draft.top.set("server.threads", threads);
            one.translated();
        }
        _ => one.needs_nothing(),
    }
}

/// The block `events`. Its number of connections is for each worker, and none of a listener.
pub fn events(block: &SourceStatement) {
    block.needs_nothing();
    for one in block.inside() {
        if one.name() == "worker_connections" {
            one.remarked("the limit of a listener is limits.max_connections");
        }
    }
}

/// The listeners of all servers, each address once.
pub fn translate(inside: &[SourceStatement], draft: &mut ConfigDraft) {
    let with_tls = addresses_with_tls(inside);
    for server in inside.iter().filter(|one| one.name() == "server") {
        for one in server.inside().iter().filter(|one| one.name() == "listen") {
            listen(one, server, &with_tls, draft);
        }
    }
    let common = common(inside);
    for listener in &mut draft.listeners {
        listener.fill_from(&common);
    }
    if !draft.listeners.is_empty() {
        return;
    }
    for one in source::all(inside) {
        if matches!(one.name(), "set_real_ip_from" | "client_header_timeout") && !one.is_untouched()
        {
            one.in_part("there is no listener in the draft that it could be put to");
        }
    }
}

/// What is said for all of them.
fn common(inside: &[SourceStatement]) -> DraftMap {
    let mut map = DraftMap::default();
    trusted_proxies(inside, &mut map);
    let servers = inside.iter().filter(|one| one.name() == "server");
    let of_servers = servers.flat_map(SourceStatement::inside);
    for one in inside.iter().chain(of_servers) {
        match one.name() {
            "real_ip_header" => match one.argument().to_ascii_lowercase().as_str() {
                "x-forwarded-for" | "forwarded" => one.needs_nothing(),
                "proxy_protocol" => one.needs_nothing(),
                _ => one.remarked("only X-Forwarded-For and Forwarded are read"),
            },
            "client_header_timeout" => set_duration(one, &mut map, "limits.header_timeout"),
            "keepalive_timeout" => set_duration(one, &mut map, "limits.idle_timeout"),
            _ => {}
        }
    }
    // nginx merges slashes unless it is told otherwise.
    let keeps = inside
        .iter()
        .any(|one| one.name() == "merge_slashes" && one.argument() == "off");
    if !keeps {
        map.set("path.slashes", "merge");
    }
    map
}

/// `set_real_ip_from`, where all servers trust the same networks and read the field that is read here:
/// who is trusted may name any client.
fn trusted_proxies(inside: &[SourceStatement], map: &mut DraftMap) {
    let of = |block: &[SourceStatement], name: &str| -> Vec<String> {
        let all = block.iter().filter(|one| one.name() == name);
        all.map(|one| one.argument().to_ascii_lowercase()).collect()
    };
    let held = |server: &SourceStatement, name: &str| {
        let own = of(server.inside(), name);
        if own.is_empty() {
            of(inside, name)
        } else {
            own
        }
    };
    let servers = inside.iter().filter(|one| one.name() == "server");
    let servers: Vec<&SourceStatement> = servers.collect();
    let mut each = servers.iter().map(|one| held(one, "set_real_ip_from"));
    let networks = each
        .next()
        .unwrap_or_else(|| of(inside, "set_real_ip_from"));
    let are_same = each.all(|other| other == networks);
    let is_read = servers
        .iter()
        .all(|one| held(one, "real_ip_header") == ["x-forwarded-for"]);
    let every = inside
        .iter()
        .chain(servers.iter().flat_map(|one| one.inside()));
    for one in every.filter(|one| one.name() == "set_real_ip_from") {
        match network(one.argument()) {
            _ if !is_read => one
                .remarked("trusted_proxies trusts X-Forwarded-For, and nginx reads another field"),
            _ if !are_same => {
                one.remarked("trusted_proxies is one list for all servers of a listener")
            }
            Some(network) => {
                map.add("trusted_proxies", network);
                map.set("client_from", "x-forwarded-for");
                one.translated();
            }
            None => {}
        }
    }
}

/// Which of the draft's listeners a server has with nginx.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerListeners {
    /// All that serve something.
    All,
    /// Only some, for clients on this machine alone.
    ThisMachine,
    /// Only some, with addresses that not everybody reaches.
    Inner,
    /// Only some, at other ports or addresses.
    Some,
}

impl ServerListeners {
    /// Those of a server, and the first `listen` of it.
    pub fn of<'a>(
        server: &'a SourceStatement,
        draft: &ConfigDraft,
    ) -> (Self, Option<&'a SourceStatement>) {
        let listens = server.inside().iter().filter(|one| one.name() == "listen");
        let listens: Vec<&SourceStatement> = listens.collect();
        let own: Vec<Option<String>> = listens.iter().map(|one| address(one.argument())).collect();
        let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_owned();
        let has = |wanted: &str| {
            own.iter().flatten().any(|one| {
                let is_any = one.starts_with("0.0.0.0:") || one.starts_with("[::]:");
                *one == wanted || (is_any && port(one) == port(wanted))
            })
        };
        let serving = draft.listeners.iter();
        let serving = serving.filter(|one| !one.has("redirect_to_https.status"));
        let mut serving = serving.filter_map(|one| one.get("address").and_then(Value::as_str));
        if own.is_empty() || serving.all(has) {
            return (Self::All, None);
        }
        let ip = |one: &Option<String>| {
            let address = one.as_deref()?.parse::<std::net::SocketAddr>().ok()?;
            Some(address.ip())
        };
        let addresses: Vec<Option<std::net::IpAddr>> = own.iter().map(ip).collect();
        let all = |is: fn(&std::net::IpAddr) -> bool| {
            addresses.iter().all(|one| one.as_ref().is_none_or(is))
        };
        let kind = if addresses.iter().all(Option::is_none) {
            Self::Inner
        } else if all(std::net::IpAddr::is_loopback) {
            Self::ThisMachine
        } else if all(is_inner) {
            Self::Inner
        } else {
            Self::Some
        };
        (kind, listens.first().copied())
    }
}

/// Whether an address is of a network that is not the internet.
fn is_inner(address: &std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(four) => {
            four.is_loopback() || four.is_private() || four.is_link_local()
        }
        std::net::IpAddr::V6(six) => {
            six.is_loopback() || six.is_unique_local() || six.is_unicast_link_local()
        }
    }
}

/// A network in CIDR notation.
pub fn network(text: &str) -> Option<String> {
    let address = text.split('/').next().unwrap_or_default();
    let address: std::net::IpAddr = address.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    match text.contains('/') {
        true => Some(text.to_owned()),
        false => Some(format!("{text}/{bits}")),
    }
}

fn listen(
    one: &SourceStatement,
    server: &SourceStatement,
    with_tls: &HashSet<String>,
    draft: &mut ConfigDraft,
) {
    let has = |flag: &str| one.arguments().iter().any(|word| word == flag);
    if has("quic") {
        return quic(one, draft);
    }
    let Some(address) = address(one.argument()) else {
        return one.remarked("expected an address and a port");
    };
    let is_tls = with_tls.contains(&address);
    let certificates = if is_tls {
        certificates(server)
    } else {
        Vec::new()
    };
    if is_tls && certificates.is_empty() {
        return one
            .remarked("a listener with TLS needs certificates, and these can't be read here");
    }
    let other = |draft: &ConfigDraft| {
        let port = address.rsplit(':').next().unwrap_or_default().to_owned();
        let both = [format!("0.0.0.0:{port}"), format!("[::]:{port}")];
        let known = draft.listeners.iter().filter_map(|one| one.get("address"));
        let known: Vec<&str> = known.filter_map(Value::as_str).collect();
        both.iter().any(|one| known.contains(&one.as_str())) && both.contains(&address)
    };
    let known = draft
        .listeners
        .iter()
        .position(|one| one.get("address").is_some_and(|known| *known == address));
    if known.is_none() && other(draft) {
        // `[::]` and `0.0.0.0` of one port.
        return match address.starts_with('[') {
            true => one.in_part("0.0.0.0 of that port is there; put [::] in its place for both"),
            false => one.in_part("[::] of that port is there, and takes both"),
        };
    }
    let at = known.unwrap_or_else(|| {
        let mut listener = DraftMap::default();
        listener.set("address", address.clone());
        draft.listeners.push(listener);
        draft.listeners.len() - 1
    });
    for (certificate, key) in certificates {
        let pair = json!({ "cert": certificate, "key": key });
        draft.listeners[at].add("tls.certificates", pair);
    }
    tls_versions(server, &mut draft.listeners[at]);
    match has("proxy_protocol") {
        true => one.in_part("proxy_protocol: true needs trusted_proxies"),
        false => one.translated(),
    }
}

/// The addresses at which some server has `ssl`; then all of them have it there.
fn addresses_with_tls(http: &[SourceStatement]) -> HashSet<String> {
    let servers = http.iter().filter(|one| one.name() == "server");
    let listens = servers
        .flat_map(SourceStatement::inside)
        .filter(|one| one.name() == "listen");
    let with_tls = listens.filter(|one| one.arguments().iter().any(|word| word == "ssl"));
    with_tls.filter_map(|one| address(one.argument())).collect()
}

/// HTTP/3 is a protocol of the listener with TLS on the same port.
fn quic(one: &SourceStatement, draft: &mut ConfigDraft) {
    let Some(address) = address(one.argument()) else {
        return;
    };
    let same = |listener: &&mut DraftMap| {
        listener
            .get("address")
            .is_some_and(|known| *known == address)
            && listener.has("tls")
    };
    match draft.listeners.iter_mut().find(same) {
        Some(listener) => {
            listener.set("protocols", json!(["http1", "http2", "http3"]));
            one.translated();
        }
        None => one.remarked("http3 needs a listener with TLS on this port"),
    }
}

/// Address and port.
fn address(text: &str) -> Option<String> {
    if let Ok(port) = text.parse::<u16>() {
        return Some(format!("0.0.0.0:{port}"));
    }
    let text = text
        .strip_prefix('*')
        .map_or(text.to_owned(), |rest| format!("0.0.0.0{rest}"));
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) => Some(address.to_string()),
        Err(_) => {
            let host: std::net::IpAddr = text.parse().ok()?;
            Some(std::net::SocketAddr::new(host, 80).to_string())
        }
    }
}

/// The certificates of a server that are there.
fn certificates(server: &SourceStatement) -> Vec<(String, String)> {
    let of = |name: &str| -> Vec<&SourceStatement> {
        let all = server.inside().iter();
        all.filter(|one| one.name() == name).collect()
    };
    let mut found = Vec::new();
    for (certificate, key) in of("ssl_certificate")
        .into_iter()
        .zip(of("ssl_certificate_key"))
    {
        let readable = |one: &SourceStatement| Path::new(one.argument()).is_file();
        if readable(certificate) && readable(key) {
            certificate.translated();
            key.translated();
            let path = |one: &SourceStatement| one.argument().to_owned();
            found.push((path(certificate), path(key)));
        } else {
            for one in [certificate, key] {
                one.remarked("it can't be read here; tls.certificates takes it");
            }
        }
    }
    found
}

fn tls_versions(server: &SourceStatement, listener: &mut DraftMap) {
    if !listener.has("tls") {
        return;
    }
    for one in server
        .inside()
        .iter()
        .filter(|one| one.name() == "ssl_protocols")
    {
        let only_13 = one.arguments() == ["TLSv1.3"];
        listener.set("tls.min_version", if only_13 { "1.3" } else { "1.2" });
        match one
            .arguments()
            .iter()
            .any(|word| word == "TLSv1" || word == "TLSv1.1")
        {
            true => one.in_part("1.2 is the lowest"),
            false => one.translated(),
        }
    }
}

/// `client_max_body_size` and its kin, as limits of a route.
pub fn body_limits(one: &SourceStatement, route: &mut DraftMap) {
    match one.name() {
        "client_max_body_size" => match values::size(one.argument()) {
            Some(size) => {
                route.set("limits.max_body_bytes", size);
                one.translated();
            }
            None => one.remarked("there is always a limit"),
        },
        "client_body_timeout" => set_duration(one, route, "limits.body_timeout"),
        _ => {}
    }
}
