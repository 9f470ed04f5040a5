//! The purge protocols that plugins of content management systems speak, each read into one common
//! value ([`PurgeWish`]) or refused with a reason.
//!
//! A form is understood as a whole or not at all: no request is answered as done if only a part of
//! it was understood. Regular expressions of clients are never run ([`expression`]). Nothing here
//! knows routes, entries or connections; who may purge is checked before. The table of wire forms is
//! `tests/data/dialects/forms.yaml`, which the tests here and the end-to-end tests read.

mod acquia;
pub mod answer;
mod api_platform;
pub mod cloudflare_api;
pub mod config;
mod drupal;
mod expression;
pub mod fastly_api;
mod fields;
mod host;
mod magento;
mod nginx;
mod shopware;
pub mod souin;
mod stray;
mod symfony;
mod tags;
mod url;
mod varnish;
pub mod wish;
mod xkey;

use http::{HeaderMap, HeaderName, Uri};
use percent_encoding::percent_decode_str;

use crate::cache::purge::PurgeKind;
use answer::AnswerForm;
use config::PurgeDialect;
use expression::LONGEST_BEGINNING;
use host::is_host;
use wish::{InvalidPurgeRequest, PurgeTarget, PurgeWish, TargetHosts};

/// A request that may ask for a purge.
#[derive(Clone, Copy, Debug)]
pub struct ControlRequest<'a> {
    pub method: &'a str,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    /// No form has one on the listeners.
    pub body: &'a [u8],
}

/// Which dialects are understood, and what is configured of them.
#[derive(Clone, Debug)]
pub struct DialectSettings {
    pub enabled: Vec<PurgeDialect>,
    /// The fields with tags in requests of Drupal's purgers.
    pub drupal_headers: Vec<HeaderName>,
    /// What paths begin with that purge as nginx does; it begins and ends with a slash.
    pub nginx_prefix: String,
    /// The most targets of one request.
    pub max_selectors: usize,
    /// The fields that name tags in responses by the configuration.
    pub tag_fields: Vec<HeaderName>,
}

/// What the targets of a request are, and whether it says how they are purged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PurgeScope {
    targets: Vec<PurgeTarget>,
    kind: Option<PurgeKind>,
}

/// What a dialect makes of a request: its scope, or None if the request is not of its form.
type DialectReading = Result<Option<PurgeScope>, InvalidPurgeRequest>;

/// One dialect: the fields that it reads, the forms that it accepts, and its reader.
struct DialectEntry {
    dialect: PurgeDialect,
    fields: &'static [&'static str],
    accepts: &'static str,
    claim: DialectClaim,
    read: fn(&ControlRequest<'_>, &DialectSettings) -> DialectReading,
}

/// Which requests a dialect is asked about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DialectClaim {
    /// All: a field or a method tells.
    Any,
    /// Those that no other dialect has taken.
    Remaining,
}

const ENTRIES: [DialectEntry; 10] = [
    DialectEntry {
        dialect: PurgeDialect::Tags,
        fields: tags::FIELDS,
        accepts: tags::ACCEPTS,
        claim: DialectClaim::Any,
        read: |request, _| tags::read(request),
    },
    DialectEntry {
        dialect: PurgeDialect::Xkey,
        fields: xkey::FIELDS,
        accepts: xkey::ACCEPTS,
        claim: DialectClaim::Any,
        read: |request, _| xkey::read(request),
    },
    DialectEntry {
        dialect: PurgeDialect::Magento,
        fields: magento::FIELDS,
        accepts: magento::ACCEPTS,
        claim: DialectClaim::Any,
        read: |request, _| magento::read(request),
    },
    DialectEntry {
        dialect: PurgeDialect::Symfony,
        fields: symfony::FIELDS,
        accepts: symfony::ACCEPTS,
        claim: DialectClaim::Any,
        read: |request, _| symfony::read(request),
    },
    DialectEntry {
        dialect: PurgeDialect::Varnish,
        fields: varnish::FIELDS,
        accepts: varnish::ACCEPTS,
        claim: DialectClaim::Any,
        read: |request, _| varnish::read(request),
    },
    DialectEntry {
        dialect: PurgeDialect::Drupal,
        fields: &[],
        accepts: drupal::ACCEPTS,
        claim: DialectClaim::Any,
        read: drupal::read,
    },
    DialectEntry {
        dialect: PurgeDialect::Acquia,
        fields: acquia::FIELDS,
        accepts: acquia::ACCEPTS,
        claim: DialectClaim::Any,
        read: |request, _| acquia::read(request),
    },
    DialectEntry {
        dialect: PurgeDialect::ApiPlatform,
        fields: api_platform::FIELDS,
        accepts: api_platform::ACCEPTS,
        claim: DialectClaim::Any,
        read: |request, _| api_platform::read(request),
    },
    DialectEntry {
        dialect: PurgeDialect::Url,
        fields: url::FIELDS,
        accepts: url::ACCEPTS,
        claim: DialectClaim::Remaining,
        read: |request, _| url::read(request),
    },
    DialectEntry {
        dialect: PurgeDialect::Shopware,
        fields: &[],
        accepts: shopware::ACCEPTS,
        claim: DialectClaim::Remaining,
        read: |request, _| shopware::read(request),
    },
];

/// In which clients of Fastly send their token.
pub const FASTLY_KEY: HeaderName = HeaderName::from_static("fastly-key");

/// Fields of Fastly's `PURGE`. They may stand beside the form of any dialect.
const FASTLY_FIELDS: [&str; 2] = ["fastly-key", "fastly-soft-purge"];

const FASTLY_ACCEPTS: &str = "Fastly-Key and `Fastly-Soft-Purge: 1` beside these";

/// What the names of methods that command caches have in them. If purging is on, no application gets
/// them: one that answers 200 to an unknown method has purged nothing. No method of the IANA registry
/// or of UPnP has one of these in it.
const PARTS_OF_METHODS: [&str; 10] = [
    "BAN",
    "CLEAR",
    "EVICT",
    "EXPIRE",
    "FLUSH",
    "INVALIDAT",
    "NUKE",
    "PURGE",
    "REFRESH",
    "XKEY",
];

/// Whether this method commands a cache, in upper or lower case.
pub fn is_control(method: &str) -> bool {
    let has = |part: &&str| {
        let mut places = method.as_bytes().windows(part.len());
        places.any(|place| place.eq_ignore_ascii_case(part.as_bytes()))
    };
    PARTS_OF_METHODS.iter().any(has)
}

impl PurgeScope {
    /// The request does not say how these targets are purged.
    fn of(targets: Vec<PurgeTarget>) -> Self {
        Self {
            targets,
            kind: None,
        }
    }
}

impl ControlRequest<'_> {
    /// Path and query.
    fn target(&self) -> String {
        self.uri
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .to_owned()
    }
}

impl DialectSettings {
    /// Whether a dialect is switched on.
    pub fn has(&self, dialect: PurgeDialect) -> bool {
        self.enabled.contains(&dialect)
    }

    /// The beginnings of paths that are about purging, whatever the method is.
    pub fn control_paths(&self) -> Vec<String> {
        let nginx = self
            .has(PurgeDialect::Nginx)
            .then(|| self.nginx_prefix.clone());
        let souin = self
            .has(PurgeDialect::Souin)
            .then(|| souin::PLACE.to_owned());
        nginx.into_iter().chain(souin).collect()
    }

    /// The forms that are accepted, as a sentence for refusals.
    pub fn accepted(&self) -> String {
        let entries = ENTRIES.iter().filter(|entry| self.has(entry.dialect));
        let others = [
            (PurgeDialect::Fastly, FASTLY_ACCEPTS),
            (PurgeDialect::Nginx, nginx::ACCEPTS),
            (PurgeDialect::Souin, souin::ACCEPTS),
        ];
        let others = others.into_iter().filter(|(dialect, _)| self.has(*dialect));
        let mut forms: Vec<&str> = entries.map(|entry| entry.accepts).collect();
        forms.extend(others.map(|(_, accepts)| accepts));
        forms.push("softly with `X-Purge: soft`");
        forms.push("all else over the admin API");
        forms.join("; ")
    }

    /// The form in which this request's sender expects an answer, even a refusal.
    pub fn answer_form(&self, request: &ControlRequest<'_>) -> AnswerForm {
        let path = request.uri.path();
        if self.has(PurgeDialect::Souin) && souin::is_its_path(path) {
            return AnswerForm::Souin;
        }
        let is_fastly = FASTLY_FIELDS
            .iter()
            .any(|name| request.headers.contains_key(*name));
        match self.has(PurgeDialect::Fastly) && is_fastly {
            true => AnswerForm::Fastly,
            false => AnswerForm::Text,
        }
    }

    /// Reads a request on a listener.
    ///
    /// # Errors
    /// If its form is not known, is switched off, is not whole, or asks for too much at once.
    pub fn read(&self, request: &ControlRequest<'_>) -> Result<PurgeWish, InvalidPurgeRequest> {
        let (scope, answer) = self.scope(request)?;
        if !request.body.is_empty() {
            let why = "it has a body, and none of these forms says anything in one; JSON goes to the \
                       admin listener";
            return Err(InvalidPurgeRequest::unknown(why));
        }
        let said = fields::softly(request.headers)?;
        let wish = PurgeWish {
            targets: scope.targets,
            kind: said.or(scope.kind).unwrap_or(PurgeKind::Hard),
            answer,
        };
        wish.bounded(self.max_selectors)
    }

    fn scope(
        &self,
        request: &ControlRequest<'_>,
    ) -> Result<(PurgeScope, AnswerForm), InvalidPurgeRequest> {
        if let Some(read) = nginx::read(request, self) {
            if self.has(PurgeDialect::Nginx) {
                self.no_stray_field(request, &[])?;
                return Ok((read?, AnswerForm::Nginx));
            }
            // Other methods are not of this dialect, and may be of one that is listed.
            if read.is_ok() {
                return Err(switched_off(PurgeDialect::Nginx, "this path"));
            }
        }
        if let Some(read) = souin::read(request) {
            if !self.has(PurgeDialect::Souin) {
                return Err(switched_off(PurgeDialect::Souin, "this path"));
            }
            self.no_stray_field(request, souin::FIELDS)?;
            return Ok((read?, AnswerForm::Souin));
        }
        let mut taken: Option<(&DialectEntry, PurgeScope)> = None;
        for claim in [DialectClaim::Any, DialectClaim::Remaining] {
            if taken.is_some() {
                break;
            }
            for entry in ENTRIES.iter().filter(|entry| entry.claim == claim) {
                if !self.has(entry.dialect) {
                    continue;
                }
                let Some(scope) = (entry.read)(request, self)? else {
                    continue;
                };
                if taken.is_some() {
                    let why = "it asks for several things at once";
                    return Err(InvalidPurgeRequest::malformed(why));
                }
                taken = Some((entry, scope));
            }
        }
        let Some((entry, scope)) = taken else {
            return Err(self.not_taken(request));
        };
        let own: Vec<&str> = match entry.dialect {
            PurgeDialect::Drupal => self.drupal_headers.iter().map(HeaderName::as_str).collect(),
            _ => entry.fields.to_vec(),
        };
        self.no_stray_field(request, &own)?;
        Ok((scope, self.answer_form(request)))
    }

    /// Refuses a request with a field that commands caches and that was not read.
    fn no_stray_field(
        &self,
        request: &ControlRequest<'_>,
        read: &[&str],
    ) -> Result<(), InvalidPurgeRequest> {
        let of_dialects = ENTRIES
            .iter()
            .flat_map(|entry| entry.fields.iter().map(|name| (*name, Some(entry.dialect))));
        let of_drupal = self
            .drupal_headers
            .iter()
            .map(|name| (name.as_str(), Some(PurgeDialect::Drupal)));
        let of_fastly = FASTLY_FIELDS
            .into_iter()
            .filter(|_| !self.has(PurgeDialect::Fastly))
            .map(|name| (name, Some(PurgeDialect::Fastly)));
        let of_responses = self.tag_fields.iter().map(|name| (name.as_str(), None));
        let of_others = request.headers.keys().map(HeaderName::as_str);
        let of_others = of_others.filter(|name| stray::is_about_purging(name));
        let mut known = of_dialects
            .chain(of_fastly)
            .chain(of_drupal)
            .chain(of_responses)
            .chain(of_others.map(|name| (name, None)))
            .filter(|(name, _)| !read.contains(name) && request.headers.contains_key(*name));
        match known.next() {
            None => Ok(()),
            Some((name, Some(dialect))) if !self.has(dialect) => {
                Err(switched_off(dialect, &format!("the field {name}")))
            }
            Some((name, _)) => Err(InvalidPurgeRequest::unknown(format!(
                "the field {name} is not known in this request"
            ))),
        }
    }

    /// Why no dialect that is switched on has taken a request.
    fn not_taken(&self, request: &ControlRequest<'_>) -> InvalidPurgeRequest {
        let off = ENTRIES.iter().find(|entry| {
            let read = || (entry.read)(request, self);
            !self.has(entry.dialect) && !matches!(read(), Ok(None))
        });
        let method = request.method;
        match off {
            Some(entry) => switched_off(entry.dialect, &format!("this {method}")),
            None => InvalidPurgeRequest::unknown(format!("the method {method} is not known here")),
        }
    }
}

fn switched_off(dialect: PurgeDialect, what: &str) -> InvalidPurgeRequest {
    let name = dialect.as_str();
    InvalidPurgeRequest::unknown(format!(
        "{what} is of the dialect `{name}`, which `purge_method.dialects` does not list"
    ))
}

/// A body that is a JSON object. The readers of serde would take the values of its members as an array,
/// too, in the order in which they are declared here.
fn object<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    match is_object {
        true => serde_json::from_slice(body),
        false => Err(serde::de::Error::custom("it is no object")),
    }
}

/// The page of an absolute URL; without a scheme, its host comes first.
fn page_of_url(url: &str) -> Result<PurgeTarget, InvalidPurgeRequest> {
    let (host, path) = parts_of_url(url)?;
    Ok(PurgeTarget::Page(TargetHosts::One(host), path))
}

/// All paths that begin as this URL.
fn prefix_of_url(url: &str) -> Result<PurgeTarget, InvalidPurgeRequest> {
    let (host, path) = parts_of_url(url)?;
    let path = path.strip_suffix('*').unwrap_or(&path).to_owned();
    if path.contains('*') || path.len() > LONGEST_BEGINNING {
        let why = format!("{url:?} is not the beginning of URLs, or is too long");
        return Err(InvalidPurgeRequest::malformed(why));
    }
    Ok(PurgeTarget::Beginning(TargetHosts::One(host), path))
}

/// The host of a URL, and its path with its query.
fn parts_of_url(url: &str) -> Result<(String, String), InvalidPurgeRequest> {
    let wrong = || {
        let why = format!("{url:?} is not a URL; expected https://host/path, in ASCII");
        InvalidPurgeRequest::malformed(why)
    };
    let rest = match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        Some(_) => return Err(wrong()),
        None => url,
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if !is_host(host) {
        return Err(wrong());
    }
    let path = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    };
    Ok((host.to_owned(), path))
}

/// Schemes have no case.
fn is_scheme(text: &str) -> bool {
    ["http", "https"]
        .iter()
        .any(|scheme| scheme.eq_ignore_ascii_case(text))
}

/// A segment of a path without its percent-encoding.
fn decoded(segment: &str) -> Result<String, InvalidPurgeRequest> {
    let text = percent_decode_str(segment).decode_utf8();
    text.map(|text| text.into_owned())
        .map_err(|_| InvalidPurgeRequest::malformed("the path is not UTF-8"))
}

#[cfg(test)]
mod tests;
