//! Cloudflare's purge API: `POST /client/v4/zones/ZONE/purge_cache`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::answer::AnswerForm;
use super::fields::tagged;
use super::host::is_host;
use super::wish::{InvalidPurgeRequest, PurgeTarget, PurgeWish, TargetHosts};
use crate::cache::purge::PurgeKind;

/// The most entries of each list of a request, which is Cloudflare's own limit for large plans.
pub const MAX_ENTRIES: usize = 500;

/// What a body may hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloudflarePurge {
    #[serde(default)]
    files: Vec<CloudflareFile>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    purge_everything: bool,
}

/// A URL, or an object of it and the fields of the requests whose variant is meant. Here all variants
/// go.
#[derive(Deserialize)]
#[serde(untagged)]
enum CloudflareFile {
    Url(String),
    WithHeaders(Map<String, Value>),
}

impl CloudflareFile {
    fn url(&self) -> Result<&str, InvalidPurgeRequest> {
        let url = match self {
            Self::Url(url) => Some(url.as_str()),
            Self::WithHeaders(members) => {
                let is_known = |name: &String| name == "url" || name == "headers";
                let url = members.get("url").and_then(Value::as_str);
                url.filter(|_| members.keys().all(is_known))
            }
        };
        let url = url.ok_or_else(|| {
            let why = "files: expected a URL or {\"url\": URL, \"headers\": {}}";
            InvalidPurgeRequest::malformed(why)
        })?;
        match url.ends_with('*') {
            false => Ok(url),
            true => Err(InvalidPurgeRequest::malformed(format!(
                "files: {url:?} has a wildcard; `prefixes` are expected for that"
            ))),
        }
    }
}

/// Reads a request. `all` is what the zone's id stands for.
///
/// # Errors
/// If it is not of that form.
pub fn read(body: &[u8], all: Vec<PurgeTarget>) -> Result<PurgeWish, InvalidPurgeRequest> {
    let asked: CloudflarePurge = super::object(body).map_err(|error| {
        InvalidPurgeRequest::malformed(format!(
            "the body is not of the form {{\"files\": [], \"tags\": [], \"hosts\": [], \
             \"prefixes\": []}} or {{\"purge_everything\": true}}: {error}"
        ))
    })?;
    let counts = [
        ("files", asked.files.len()),
        ("tags", asked.tags.len()),
        ("hosts", asked.hosts.len()),
        ("prefixes", asked.prefixes.len()),
    ];
    if let Some((name, count)) = counts.into_iter().find(|(_, count)| *count > MAX_ENTRIES) {
        return Err(InvalidPurgeRequest::malformed(format!(
            "{name}: {count} entries; at most {MAX_ENTRIES} are taken at once"
        )));
    }
    let is_named = counts.iter().any(|(_, count)| *count > 0);
    let targets = match (asked.purge_everything, is_named) {
        (true, false) => all,
        (false, true) => named(asked)?,
        (true, true) => {
            let why = "purge_everything stands beside other selectors";
            return Err(InvalidPurgeRequest::malformed(why));
        }
        (false, false) => {
            let why = "there is nothing to purge: files, tags, hosts, prefixes or \
                       \"purge_everything\": true are expected";
            return Err(InvalidPurgeRequest::malformed(why));
        }
    };
    Ok(PurgeWish {
        targets,
        kind: PurgeKind::Hard,
        answer: AnswerForm::Cloudflare,
    })
}

fn named(asked: CloudflarePurge) -> Result<Vec<PurgeTarget>, InvalidPurgeRequest> {
    let mut targets = Vec::new();
    for file in asked.files {
        targets.push(super::page_of_url(file.url()?)?);
    }
    if !asked.tags.is_empty() {
        targets.extend(tagged(asked.tags, "tags")?);
    }
    for host in asked.hosts {
        if !is_host(&host) {
            let why = format!("hosts: {host:?} is not the name of a host in ASCII");
            return Err(InvalidPurgeRequest::malformed(why));
        }
        let hosts = TargetHosts::One(host);
        targets.push(PurgeTarget::Beginning(hosts, "/".to_owned()));
    }
    for prefix in asked.prefixes {
        targets.push(super::prefix_of_url(&prefix)?);
    }
    Ok(targets)
}
