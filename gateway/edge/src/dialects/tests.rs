//! The table of wire forms, bounds, and texts of nobody in particular.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;

use super::answer::AnswerForm;
use super::config::PurgeDialect;
use super::fastly_api::FastlyPurge;
use super::wish::{InvalidPurgeRequest, PurgeTarget, PurgeWish};
use super::*;
use crate::cache::purge::PurgeKind;
use crate::http::path;

/// One request of the table of wire forms.
#[derive(Deserialize)]
struct WireForm {
    dialect: String,
    #[serde(default)]
    to: Option<String>,
    who: String,
    send: Vec<String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    means: Option<Vec<String>>,
    #[serde(default)]
    soft: bool,
    #[serde(default)]
    refused: Option<u16>,
    #[serde(default)]
    says: String,
}

/// A request in parts.
struct SentForm {
    method: String,
    uri: Uri,
    headers: HeaderMap,
    body: String,
}

fn table() -> Vec<WireForm> {
    serde_yaml::from_str(include_str!("../../../../tests/data/dialects/forms.yaml")).unwrap()
}

fn sent(form: &WireForm) -> SentForm {
    let (method, uri) = form.send[0].split_once(' ').unwrap();
    let mut headers = HeaderMap::new();
    for line in &form.send[1..] {
        let (name, value) = line.split_once(": ").unwrap();
        let name: HeaderName = name.to_ascii_lowercase().parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let mut uri: Uri = uri.parse().unwrap();
    // On the listeners the path is in its normal form before it is read.
    if form.to.is_none() {
        path::arrive(&mut uri).unwrap();
    }
    SentForm {
        method: method.to_owned(),
        uri,
        headers,
        body: form.body.clone(),
    }
}

impl SentForm {
    fn request(&self) -> ControlRequest<'_> {
        ControlRequest {
            method: &self.method,
            uri: &self.uri,
            headers: &self.headers,
            body: self.body.as_bytes(),
        }
    }
}

fn settings(enabled: &[PurgeDialect]) -> DialectSettings {
    let drupal = ["cache-tags", "x-cache-tags", "purge-cache-tags"];
    DialectSettings {
        enabled: enabled.to_vec(),
        drupal_headers: drupal.map(HeaderName::from_static).to_vec(),
        nginx_prefix: "/purge/".to_owned(),
        max_selectors: 100,
        tag_fields: vec![HeaderName::from_static("x-mine")],
    }
}

/// What the APIs of the admin listener make of a request.
fn read_api(form: &WireForm, sent: &SentForm) -> Result<PurgeWish, InvalidPurgeRequest> {
    let request = sent.request();
    let path: Vec<&str> = sent.uri.path().split('/').skip(1).collect();
    let scope = |id: &str| match id {
        "news" => vec![PurgeTarget::Route("news".to_owned())],
        _ => vec![PurgeTarget::Everything],
    };
    match (form.dialect.as_str(), &path[..]) {
        ("fastly", ["service", id, "purge", key @ ..]) if !key.is_empty() => {
            fastly_api::read(&request, FastlyPurge::Key(&key.join("/")), scope(id))
        }
        ("fastly", ["service", id, "purge"]) => {
            fastly_api::read(&request, FastlyPurge::Keys, scope(id))
        }
        ("fastly", ["service", id, "purge_all"]) => {
            fastly_api::read(&request, FastlyPurge::All, scope(id))
        }
        ("fastly", ["purge", ..]) => {
            // The query is the reader's to add.
            let url = sent.uri.path().strip_prefix("/purge/").unwrap();
            fastly_api::read(&request, FastlyPurge::Url(url), Vec::new())
        }
        ("cloudflare", ["client", "v4", "zones", id, "purge_cache"]) => {
            cloudflare_api::read(request.body, scope(id))
        }
        ("souin", ["souin-api", ..]) if sent.method == "POST" => souin::read_post(&request),
        ("souin", ["souin-api", ..]) => souin::read_purge(&request),
        other => panic!("no such API: {other:?}"),
    }
}

#[test]
fn each_wire_form_is_read_as_the_table_says_or_refused_with_words() {
    let all = settings(&PurgeDialect::ALL);
    let mut counts = [0, 0];
    for form in table() {
        let sent = sent(&form);
        let name = format!(
            "{} {} {:?} {}",
            form.dialect, form.who, form.send, form.body
        );
        // Ids that are not known are not a matter of the form.
        if form.refused == Some(404) {
            continue;
        }
        let read = match form.to.as_deref() {
            None => all.read(&sent.request()),
            Some("admin") => read_api(&form, &sent),
            Some(other) => panic!("{other}"),
        };
        match (read, form.refused) {
            (Ok(wish), None) => {
                let means: Vec<String> = wish.targets.iter().map(ToString::to_string).collect();
                assert_eq!(Some(means), form.means, "{name}");
                let kind = if form.soft {
                    PurgeKind::Soft
                } else {
                    PurgeKind::Hard
                };
                assert_eq!(wish.kind, kind, "{name}");
                counts[0] += 1;
            }
            (Err(refused), Some(status)) => {
                assert_eq!(refused.status.as_u16(), status, "{name}: {refused:?}");
                let form_of_answer = match (form.to.is_some(), form.dialect.as_str()) {
                    (true, "fastly") => AnswerForm::Fastly,
                    (true, "cloudflare") => AnswerForm::Cloudflare,
                    (true, _) => AnswerForm::Text,
                    (false, _) => all.answer_form(&sent.request()),
                };
                let answer = form_of_answer.refused(&refused, &all.accepted());
                assert!(answer.body.contains(&form.says), "{name}: {}", answer.body);
                assert!(answer.body.contains("nothing was purged"), "{name}");
                counts[1] += 1;
            }
            (read, refused) => panic!("{name}: {read:?}, expected {refused:?}"),
        }
    }
    assert!(counts[0] >= 70 && counts[1] >= 35, "{counts:?}");
}

/// A form whose dialect is not listed is never done, and the refusal names the dialect.
#[test]
fn what_is_switched_off_is_refused_by_name() {
    let mut judged = 0;
    for form in table()
        .iter()
        .filter(|form| form.to.is_none() && form.refused.is_none())
    {
        let only_others: Vec<PurgeDialect> = match form.dialect.as_str() {
            "fastly" => vec![PurgeDialect::Url],
            "url" => Vec::new(),
            _ => vec![PurgeDialect::Url, PurgeDialect::Tags],
        };
        let own = |dialect: &PurgeDialect| dialect.as_str() == form.dialect;
        let others = settings(
            &only_others
                .into_iter()
                .filter(|d| !own(d))
                .collect::<Vec<_>>(),
        );
        let sent = sent(form);
        let name = format!("{} {:?}", form.dialect, form.send);
        let refused = others.read(&sent.request()).expect_err(&name);
        assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED, "{name}");
        assert!(
            refused.why.contains(&form.dialect),
            "{name}: {}",
            refused.why
        );
        judged += 1;
    }
    assert!(judged >= 45, "{judged}");
}

fn purge_of_tags(count: usize) -> Result<PurgeWish, InvalidPurgeRequest> {
    let tags: Vec<String> = (0..count).map(|n| format!("t{n}")).collect();
    let mut headers = HeaderMap::new();
    headers.insert("xkey", tags.join(" ").parse().unwrap());
    let uri = Uri::from_static("/");
    settings(&PurgeDialect::USUAL).read(&ControlRequest {
        method: "PURGE",
        uri: &uri,
        headers: &headers,
        body: &[],
    })
}

#[test]
fn a_request_may_name_so_many_things_and_no_more() {
    assert_eq!(purge_of_tags(100).unwrap().targets.len(), 100);
    let refused = purge_of_tags(101).unwrap_err();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.why.contains("max_selectors"), "{}", refused.why);
}

#[test]
fn the_apis_take_as_many_entries_as_their_owners_do() {
    let list = |n: usize| {
        (0..n)
            .map(|n| format!("\"t{n}\""))
            .collect::<Vec<_>>()
            .join(",")
    };
    let fastly = |n: usize| {
        let body = format!("{{\"surrogate_keys\": [{}]}}", list(n));
        let (uri, headers) = (Uri::from_static("/"), HeaderMap::new());
        let request = ControlRequest {
            method: "POST",
            uri: &uri,
            headers: &headers,
            body: body.as_bytes(),
        };
        fastly_api::read(&request, FastlyPurge::Keys, Vec::new()).is_ok()
    };
    assert!(fastly(fastly_api::MAX_KEYS) && !fastly(fastly_api::MAX_KEYS + 1));
    let cloudflare = |n: usize| {
        let body = format!("{{\"tags\": [{}]}}", list(n));
        cloudflare_api::read(body.as_bytes(), Vec::new()).is_ok()
    };
    let most = cloudflare_api::MAX_ENTRIES;
    assert!(cloudflare(most) && !cloudflare(most + 1));
}

#[test]
fn methods_that_command_caches_are_known_in_any_spelling() {
    for method in [
        "BAN",
        "ban",
        "PurgeKeys",
        "URIBAN",
        "purge",
        "PURGETAGS",
        "refresh",
        "SoftBan",
        "BANREGEX",
        "DOMAINPURGE",
        "INVALIDATE",
        "PURGE-ALL",
        "XKEYPURGE",
        "flush",
    ] {
        assert!(is_control(method), "{method}");
    }
    for method in [
        "POST",
        "PROPFIND",
        "BIND",
        "UNBIND",
        "REBIND",
        "M-SEARCH",
        "BASELINE-CONTROL",
    ] {
        assert!(!is_control(method), "{method}");
    }
}

proptest::proptest! {
    /// Whatever stands in the fields that the dialects read: it is understood or refused, and each
    /// target is something that the cache can be told.
    #[test]
    fn no_text_of_a_client_breaks_a_reader(
        method in "PURGE|BAN|PURGEKEYS|PURGETAGS|URIBAN",
        path in "/[a-z.*()|^$?-]{0,12}",
        name in "xkey|x-url|x-host|x-content-type|x-cache-tags|cache-tags|x-magento-tags-pattern|\
                 apiplatform-ban-regex|surrogate-key|x-acquia-purge-tags|clear-cache",
        value in "[ -~]{0,40}",
        body in "[ -~]{0,60}",
    ) {
        let headers = HeaderMap::from_iter([(
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::from_str(&value).unwrap(),
        )]);
        let Ok(uri) = path.parse::<Uri>() else {
            return Ok(());
        };
        let request = ControlRequest {
            method: &method,
            uri: &uri,
            headers: &headers,
            body: body.as_bytes(),
        };
        let alone = ControlRequest { body: &[], ..request };
        if let Ok(wish) = settings(&PurgeDialect::ALL).read(&alone) {
            proptest::prop_assert!(!wish.targets.is_empty());
            let is_empty = |target: &PurgeTarget| matches!(target, PurgeTarget::Tag(tag) if tag.is_empty());
            proptest::prop_assert!(!wish.targets.iter().any(is_empty));
        }
        let _ = cloudflare_api::read(request.body, Vec::new());
        let _ = souin::read_post(&request);
        let _ = fastly_api::read(&request, FastlyPurge::Keys, Vec::new());
    }

    /// The lists of the APIs are taken as they are, or refused as a whole.
    #[test]
    fn no_list_of_an_api_has_a_tag_that_no_response_can_name(
        tags in proptest::collection::vec("[ ,a-b]{0,3}", 0..4),
    ) {
        let (uri, headers) = (Uri::from_static(souin::PLACE), HeaderMap::new());
        let body = |body: serde_json::Value| body.to_string();
        let fastly = body(json!({"surrogate_keys": tags}));
        let cloudflare = body(json!({"tags": tags}));
        let souin = body(json!({"type": "group", "groups": tags}));
        let request = |body| ControlRequest { method: "POST", uri: &uri, headers: &headers, body };
        let read = [
            fastly_api::read(&request(fastly.as_bytes()), FastlyPurge::Keys, Vec::new()),
            cloudflare_api::read(cloudflare.as_bytes(), Vec::new()),
            souin::read_post(&request(souin.as_bytes())),
        ];
        let can_be_named = |tag: &String| !tag.is_empty() && tag.trim() == tag;
        let all_can = !tags.is_empty() && tags.iter().all(can_be_named);
        for wish in read {
            proptest::prop_assert_eq!(wish.is_ok(), all_can, "{:?}", wish);
            if let Ok(wish) = wish {
                let named: BTreeSet<_> = tags.iter().cloned().collect();
                let read = wish.targets.into_iter().map(|target| target.to_string());
                let expected = named.into_iter().map(|tag| PurgeTarget::Tag(tag).to_string());
                proptest::prop_assert_eq!(read.collect::<BTreeSet<_>>(), expected.collect());
            }
        }
    }
}
