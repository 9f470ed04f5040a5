//! Keys that plugins declare or derive: what a manifest names is what tells requests apart.
//!
//! Input: the manifest (`method`, `host`, `path`, `query`, `param NAME`, `header NAME`,
//! `cookie NAME` for what the key needs; `rules`, `keep NAME`, `drop NAME`, `sort` for a declared
//! one, with the same headers and cookies), then two requests.

use http::header::COOKIE;
use http::request::Parts;
use lamina_plugin_host::types::{KeyNeeds, KeyRules, Manifest as Given, QueryNeed, Reads};
use lamina_plugin_host::{KeyDecision, Manifest};

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let [manifest, one, other] = input::blocks(data);
    let given = read(manifest);
    let Ok(manifest) = Manifest::read(given.clone()) else {
        return;
    };
    let (Some(one), Some(other)) = (input::request(one), input::request(other)) else {
        return;
    };
    gathered(&given.inputs, &manifest, &one, &other);
    if let (Some(rules), Some(given)) = (&manifest.declarative, &given.declarative) {
        let [a, b] = [&one, &other].map(|parts| rules.derive(parts, "shop"));
        let same = declared(given, &one) == declared(given, &other);
        assert_eq!(a == b, same, "{a:?} {b:?}");
        if let KeyDecision::Key { text, .. } = a {
            assert!(text.starts_with(&format!("shop{}", one.uri.path())));
        }
    }
}

fn read(block: &[u8]) -> Given {
    let mut needs = KeyNeeds {
        method: false,
        host: false,
        path: false,
        query: QueryNeed::None,
        headers: vec![],
        cookies: vec![],
    };
    let mut rules = KeyRules {
        keep: None,
        drop: vec![],
        sort: false,
        headers: vec![],
        cookies: vec![],
    };
    let (mut declares, mut parameters) = (false, vec![]);
    for line in input::texts(block).take(12) {
        let (word, name) = line.split_once(' ').unwrap_or((line, ""));
        let name = name.to_owned();
        match word {
            "method" => needs.method = true,
            "host" => needs.host = true,
            "path" => needs.path = true,
            "query" => needs.query = QueryNeed::Whole,
            "param" => parameters.push(name),
            "header" => needs.headers.push(name),
            "cookie" => needs.cookies.push(name),
            "rules" => declares = true,
            "keep" => rules.keep.get_or_insert_default().push(name),
            "drop" => rules.drop.push(name),
            "sort" => rules.sort = true,
            _ => {}
        }
    }
    if !parameters.is_empty() {
        needs.query = QueryNeed::Parameters(parameters);
    }
    (rules.headers, rules.cookies) = (needs.headers.clone(), needs.cookies.clone());
    let declarative = declares.then_some(rules);
    Given {
        name: "p".into(),
        version: "1".into(),
        inputs: needs,
        declarative,
        reads: Reads {
            headers: Vec::new(),
            cookies: Vec::new(),
        },
    }
}

/// What a guest gets is decoded from the bytes that its answer is remembered under.
fn gathered(given: &KeyNeeds, manifest: &Manifest, one: &Parts, other: &Parts) {
    let bytes = |parts| {
        let mut bytes = Vec::new();
        manifest.needs.gather(parts, "shop", &mut bytes);
        bytes
    };
    let (a, b) = (bytes(one), bytes(other));
    let (seen, also) = (manifest.needs.decode(&a), manifest.needs.decode(&b));
    assert!(a != b || seen == also);
    let same = |parts: &Parts| {
        let query = parts.uri.query();
        let query = match &given.query {
            QueryNeed::None => None,
            QueryNeed::Whole => query.map(str::to_owned),
            QueryNeed::Parameters(names) => {
                query.map(|query| pieces(query, |name| any(names, name)).join("&"))
            }
        };
        let method = given.method.then(|| parts.method.clone());
        let path = given.path.then(|| parts.uri.path().to_owned());
        (
            method,
            path,
            query,
            headers(&given.headers, parts),
            cookies(&given.cookies, parts),
        )
    };
    assert_eq!(a == b, same(one) == same(other), "{seen:?} {also:?}");
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn declared(given: &KeyRules, parts: &Parts) -> (String, Vec<String>, Pairs, Pairs) {
    let wanted = |name: &[u8]| {
        given.keep.as_ref().is_none_or(|keep| any(keep, name)) && !any(&given.drop, name)
    };
    let mut kept = pieces(parts.uri.query().unwrap_or(""), wanted);
    if given.sort {
        kept.sort_by_key(|piece| piece.split('=').next().map(str::to_owned));
    }
    // A name that two patterns reach is one part.
    let lines = parts
        .headers
        .iter()
        .filter(|(name, _)| given.headers.iter().any(|want| named(want, name.as_str())));
    let lines = lines.map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec()));
    (
        parts.uri.path().to_owned(),
        kept,
        lines.collect(),
        cookies(&given.cookies, parts),
    )
}

fn pieces(query: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<String> {
    let name = |piece: &str| {
        percent_encoding::percent_decode_str(piece.split('=').next().unwrap_or(""))
            .collect::<Vec<u8>>()
    };
    query
        .split('&')
        .filter(|piece| !piece.is_empty() && (piece.contains(';') || wanted(&name(piece))))
        .map(str::to_owned)
        .collect()
}

fn any(names: &[String], name: &[u8]) -> bool {
    names.iter().any(|want| match want.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == want.as_bytes(),
    })
}

fn named(want: &str, name: &str) -> bool {
    any(&[want.to_ascii_lowercase()], name.as_bytes())
}

/// As `gather` goes: by the manifest's order, then by the request's.
fn headers(wanted: &[String], parts: &Parts) -> Pairs {
    let of = |want: &String| {
        let lines = parts
            .headers
            .iter()
            .filter(|(name, _)| named(want, name.as_str()));
        lines
            .map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec()))
            .collect::<Pairs>()
    };
    wanted.iter().flat_map(of).collect()
}

fn cookies(wanted: &[String], parts: &Parts) -> Pairs {
    let lines = parts.headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|&octet| octet == b';'));
    pairs
        .filter_map(|pair| {
            let at = pair.iter().position(|&octet| octet == b'=')?;
            let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii_end());
            any(wanted, name).then(|| (name.to_vec(), value.to_vec()))
        })
        .collect()
}
