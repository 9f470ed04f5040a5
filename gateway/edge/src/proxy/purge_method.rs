//! Requests to purge on the listeners: off by default, allowed by address and token.
//!
//! If purging is on, every method that commands caches (`PURGE`, `BAN` and similar ones) is answered
//! here, in the dialects that are switched on. A request that was not understood, or whose URL no
//! route caches, is never answered as done. The answer and the log name what was purged.

pub mod reach;

use std::borrow::Cow;
use std::time::Instant;

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use prometheus::IntCounterVec;
use tokio::sync::oneshot;
use tracing::field::display;

use crate::cache::Cache;
use crate::cache::l2::store::LogNumber;
use crate::cache::purge::PurgeKind;
use crate::dialects::answer::{
    AnswerForm, AnswerMedia, DialectAnswer, PurgeSummary, StoredPresence,
};
use crate::dialects::config::PurgeDialect;
use crate::dialects::wish::{InvalidPurgeRequest, PurgeTarget, PurgeWish, TargetHosts};
use crate::dialects::{self, ControlRequest, DialectSettings, FASTLY_KEY, souin};
use crate::http::bearer;
use crate::http::body::Body;
use crate::http::cache_control::RequestDirectives;
use crate::http::cidr::Cidr;
use crate::http::fetch_metadata;
use crate::http::forward::{NAMED_HOST, RequestSender};
use crate::http::path::{self, PathRules};
use crate::proxy::generation::Generation;
use crate::proxy::metrics::RequestFamilies;
use crate::proxy::{config, esi, respond};
use crate::telemetry::limit::LineLimiter;
use reach::{PurgeAddress, PurgeReach};

/// Who may purge on the listeners, how that is asked for, and under which addresses the page of a
/// URL may be stored.
pub struct PurgeMethod {
    enabled: bool,
    allow: Box<[Cidr]>,
    token: Option<Box<str>>,
    dialects: DialectSettings,
    /// What paths begin with that are about purging whatever their method is.
    control_paths: Box<[String]>,
    /// The ports of the listeners.
    ports: Box<[u16]>,
    answers: IntCounterVec,
    /// Limits the warnings about refused requests, since anybody may send them.
    warnings: LineLimiter,
}

/// Why the purge method can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("purge_method.allow: {0}")]
    Address(#[from] crate::http::cidr::CidrError),
    #[error("purge_method.drupal_headers: {0}")]
    Field(#[from] http::header::InvalidHeaderName),
    #[error("metrics can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A request to purge on a listener.
pub struct PurgeMethodRequest<'a> {
    parts: &'a Parts,
    host: &'a str,
    caller: &'a RequestSender,
    /// Its fields, with those of them that are removed on arrival from what is no purge.
    headers: Cow<'a, HeaderMap>,
    body: &'a [u8],
    /// The rules for paths of the listener that it came to.
    path_rules: PathRules,
}

impl<'a> PurgeMethodRequest<'a> {
    /// `named_host` is what the request said in `X-Host`; `body` is the beginning of its body.
    pub fn new(
        (parts, body): (&'a Parts, &'a [u8]),
        host: &'a str,
        caller: &'a RequestSender,
        named_host: Option<&HeaderValue>,
        path_rules: PathRules,
    ) -> Self {
        let mut headers = Cow::Borrowed(&parts.headers);
        if let Some(named) = named_host {
            headers.to_mut().insert(NAMED_HOST, named.clone());
        }
        Self {
            parts,
            host,
            caller,
            headers,
            body,
            path_rules,
        }
    }
}

/// Marks a request that loads its page again for everybody.
#[derive(Clone, Copy, Debug)]
pub struct ReloadsForEverybody;

/// The outcome of a purge request. Its words are those of the metric's label.
#[derive(Clone, Copy)]
enum PurgeMethodOutcome {
    Done,
    NothingCached,
    NotUnderstood,
    NotAllowed,
    Off,
    Refreshed,
}

impl PurgeMethodOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NothingCached => "nothing_cached",
            Self::NotUnderstood => "not_understood",
            Self::NotAllowed => "not_allowed",
            Self::Off => "off",
            Self::Refreshed => "refreshed",
        }
    }
}

const X_REFRESH: HeaderName = HeaderName::from_static("x-refresh");

impl PurgeMethod {
    /// Creates the method for listeners on these ports. `tag_fields` are those in which responses name
    /// tags by the configuration.
    pub fn new(
        config: &config::PurgeMethodConfig,
        ports: impl Iterator<Item = u16>,
        tag_fields: Vec<HeaderName>,
        families: &RequestFamilies,
    ) -> Result<Self, TokenError> {
        let mut ports: Vec<u16> = ports.filter(|port| *port != 0).collect();
        ports.sort_unstable();
        ports.dedup();
        let drupal_headers = config.drupal_headers.iter();
        let drupal_headers = drupal_headers.map(|name| name.to_ascii_lowercase().parse());
        let dialects = DialectSettings {
            enabled: config.dialects.clone(),
            drupal_headers: drupal_headers.collect::<Result<_, _>>()?,
            nginx_prefix: config.nginx_prefix.clone(),
            max_selectors: config.max_selectors,
            tag_fields,
        };
        let control_paths = match config.enabled {
            true => dialects.control_paths(),
            false => Vec::new(),
        };
        Ok(Self {
            enabled: config.enabled,
            allow: config
                .allow
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
            token: config.token.as_deref().map(Into::into),
            dialects,
            control_paths: control_paths.into(),
            ports: ports.into(),
            answers: families.purges(),
            warnings: LineLimiter::new(Instant::now()),
        })
    }

    /// The most targets of one request, here and on the admin listener.
    pub fn max_selectors(&self) -> usize {
        self.dialects.max_selectors
    }

    /// Whether entries must be found by their content type.
    pub fn purges_by_content_type(&self) -> bool {
        self.enabled && self.dialects.has(PurgeDialect::Varnish)
    }

    /// Whether this is a request to purge. Such a request never reaches an origin.
    pub fn takes(&self, parts: &Parts) -> bool {
        let is_method = match parts.method {
            Method::GET | Method::HEAD | Method::POST => false,
            _ if self.enabled => dialects::is_control(parts.method.as_str()),
            _ => parts.method.as_str() == "PURGE",
        };
        is_method || (!self.control_paths.is_empty() && self.is_control_path(parts.uri.path()))
    }

    /// Whether a path is about purging, as it is or in a form in which an origin may read it: no
    /// application gets such a path.
    fn is_control_path(&self, path: &str) -> bool {
        let others = || path::readings(path).unwrap_or_default();
        self.is_below_control_path(path)
            || others()
                .iter()
                .any(|other| self.is_below_control_path(other))
    }

    fn is_below_control_path(&self, path: &str) -> bool {
        let begins = |known: &String| match known.as_str() {
            souin::PLACE => souin::is_its_path(path),
            prefix => path.starts_with(prefix),
        };
        self.control_paths.iter().any(begins)
    }

    /// The URI of a request, with its path as the listener reads it if that is about purging.
    ///
    /// # Errors
    /// If only others read the path so.
    fn read_path<'a>(
        &self,
        uri: &'a Uri,
        rules: PathRules,
    ) -> Result<Cow<'a, Uri>, InvalidPurgeRequest> {
        let path = uri.path();
        if self.is_below_control_path(path) || !self.is_control_path(path) {
            return Ok(Cow::Borrowed(uri));
        }
        let shaped = rules.shape(path);
        let target = match shaped.fault {
            None if self.is_below_control_path(&shaped.path) => {
                path::with_query(&shaped.path, uri).ok()
            }
            _ => None,
        };
        let target = target.ok_or_else(|| {
            let why = "the path can be read as one that is about purging; it is expected without \
                       repeated slashes and escapes";
            InvalidPurgeRequest::malformed(why)
        })?;
        let mut shaped = uri.clone();
        path::set(&mut shaped, target);
        Ok(Cow::Owned(shaped))
    }

    /// Purges what the request asks for.
    pub fn answer(
        &self,
        generation: &Generation,
        cache: &Cache,
        asked: &PurgeMethodRequest<'_>,
    ) -> Response<Body> {
        let (outcome, answer) = self.outcome(generation, cache, asked);
        self.count(outcome);
        answer
    }

    fn count(&self, outcome: PurgeMethodOutcome) {
        self.answers.with_label_values(&[outcome.as_str()]).inc();
    }

    fn outcome(
        &self,
        generation: &Generation,
        cache: &Cache,
        asked: &PurgeMethodRequest<'_>,
    ) -> (PurgeMethodOutcome, Response<Body>) {
        let PurgeMethodRequest {
            parts,
            host,
            caller,
            ref headers,
            body,
            path_rules,
        } = *asked;
        if !self.enabled {
            let off = respond::method_not_allowed("405 PURGE is off\n");
            return (PurgeMethodOutcome::Off, off);
        }
        let uri = self.read_path(&parts.uri, path_rules);
        let request = ControlRequest {
            method: parts.method.as_str(),
            uri: uri.as_deref().unwrap_or(&parts.uri),
            headers,
            body,
        };
        let form = self.dialects.answer_form(&request);
        if !self.allows(&parts.headers, caller) || is_asked_by_a_page(parts) {
            if let Some(dropped) = self.warnings.admit(Instant::now()) {
                let (client, peer) = (caller.client().map(display), caller.connected());
                tracing::warn!(client, %peer, dropped, "a PURGE was refused");
            }
            let refused = InvalidPurgeRequest {
                status: StatusCode::FORBIDDEN,
                why: "not allowed to purge".to_owned(),
            };
            let refused = purge_response(form.refused(&refused, ""));
            return (PurgeMethodOutcome::NotAllowed, refused);
        }
        let address = PurgeAddress::of(host, caller);
        let read = uri.as_ref().map_err(Clone::clone).and_then(|_| {
            let wanted = self.dialects.read(&request)?;
            let reach = generation.reach(&wanted.targets, address)?;
            Ok((wanted, reach))
        });
        let (wanted, reach) = match read {
            Ok(read) => read,
            Err(refused) => {
                let answer = self.refuse(&form, &refused, caller);
                return (PurgeMethodOutcome::NotUnderstood, answer);
            }
        };
        if reach.selectors.is_empty() {
            let nothing = purge_response(wanted.answer.refused(&reach.nothing(), ""));
            return (PurgeMethodOutcome::NothingCached, nothing);
        }
        let presence = match wanted.answer {
            AnswerForm::Nginx => generation.presence(cache, &wanted.targets, address),
            _ => StoredPresence::Assumed,
        };
        let answer = carry_out(cache, &wanted, &reach, presence, request.method);
        tracing::info!(
            client = caller.client().map(display),
            kind = ?wanted.kind,
            reached = reach.named(),
            notes = reach.noted(),
            "purged by the PURGE method"
        );
        (PurgeMethodOutcome::Done, answer)
    }

    fn refuse(
        &self,
        form: &AnswerForm,
        refused: &InvalidPurgeRequest,
        caller: &RequestSender,
    ) -> Response<Body> {
        if let Some(dropped) = self.warnings.admit(Instant::now()) {
            let client = caller.client().map(display);
            let reason = &refused.why;
            tracing::warn!(
                client,
                reason,
                dropped,
                "a request to purge was not understood"
            );
        }
        purge_response(form.refused(refused, &self.dialects.accepted()))
    }

    /// Whether this request loads its page again for everybody: its sender is on the list, and says
    /// so. Anybody else's request with these fields is an ordinary one.
    pub fn is_refresh(&self, parts: &Parts, caller: &RequestSender) -> bool {
        if !self.enabled || !self.dialects.has(PurgeDialect::Refresh) || parts.method != Method::GET
        {
            return false;
        }
        let says_one = || {
            parts
                .headers
                .get(X_REFRESH)
                .is_some_and(|value| value == "1")
        };
        let says_no_cache = || {
            parts.headers.contains_key(CACHE_CONTROL)
                && RequestDirectives::parse(&parts.headers).no_cache
        };
        (says_one() || says_no_cache())
            && !fetch_metadata::is_of_another_site(&parts.headers)
            && self.allows(&parts.headers, caller)
    }

    /// Makes the page of a refresh stale on every node. What is loaded before the second tier's log
    /// has taken that would be stale as well; the receivers are told when it has.
    pub fn begin_refresh(
        &self,
        generation: &Generation,
        cache: &Cache,
        parts: &Parts,
        host: &str,
        caller: &RequestSender,
    ) -> Vec<oneshot::Receiver<LogNumber>> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let page = PurgeTarget::Page(TargetHosts::OfRequest, path.to_owned());
        // The page of a URL that is refused is not stored anywhere.
        let reach = generation.reach(&[page], PurgeAddress::of(host, caller));
        let selectors = reach.iter().flat_map(|reach| &reach.selectors);
        let logged = selectors.filter_map(|selector| {
            let (_, logged) = cache.purge_everywhere(selector, PurgeKind::Soft);
            logged
        });
        let logged = logged.collect();
        self.count(PurgeMethodOutcome::Refreshed);
        logged
    }

    /// Marks a refresh, so that nothing that is stored answers it. The origin does not get the token.
    pub fn mark_refresh(&self, parts: &mut Parts) {
        if let Some(token) = self.token.as_deref() {
            if bearer::brings(&parts.headers, token) {
                parts.headers.remove(AUTHORIZATION);
            }
            if self.brings_as_fastly_key(&parts.headers, token) {
                parts.headers.remove(FASTLY_KEY);
            }
        }
        parts.headers.remove(X_REFRESH);
        parts.extensions.insert(ReloadsForEverybody);
    }

    /// Whether the client may purge. Its address is the one that trusted proxies report; an unknown
    /// address is on no list.
    fn allows(&self, headers: &HeaderMap, caller: &RequestSender) -> bool {
        let listed = |client| self.allow.iter().any(|network| network.contains(client));
        let address = self.allow.is_empty() || caller.client().is_some_and(listed);
        let token = self.token.as_deref();
        let token = token.is_none_or(|token| self.brings(headers, token));
        address && token && (!self.allow.is_empty() || self.token.is_some())
    }

    /// Whether the request has the token, in the field of one of the dialects.
    fn brings(&self, headers: &HeaderMap, token: &str) -> bool {
        bearer::brings(headers, token) | self.brings_as_fastly_key(headers, token)
    }

    fn brings_as_fastly_key(&self, headers: &HeaderMap, token: &str) -> bool {
        let key = headers.get(FASTLY_KEY);
        let key = key.filter(|_| self.dialects.has(PurgeDialect::Fastly));
        key.is_some_and(|key| bearer::is_same(key.as_bytes(), token))
    }
}

/// Purges, and makes the answer.
fn carry_out(
    cache: &Cache,
    wanted: &PurgeWish,
    reach: &PurgeReach,
    presence: StoredPresence,
    method: &str,
) -> Response<Body> {
    let orders = reach.selectors.iter();
    let order = orders.map(|selector| cache.purge(selector, wanted.kind));
    purge_response(wanted.answer.done(&PurgeSummary {
        kind: wanted.kind,
        id: order.max().unwrap_or_default().to_string(),
        lines: &reach.to_string(),
        notes: &reach.notes,
        method,
        presence,
    }))
}

/// Whether a GET that purges is not one of a tool: a browser sends it for a page of another site,
/// or a page is put together of it. No page can have a browser send another method unasked.
fn is_asked_by_a_page(parts: &Parts) -> bool {
    let is_of_another_site = || fetch_metadata::is_of_another_site(&parts.headers);
    parts.method == Method::GET && (esi::is_fragment(parts) || is_of_another_site())
}

/// A response with this answer.
pub fn purge_response(answer: DialectAnswer) -> Response<Body> {
    if answer.status == StatusCode::NO_CONTENT {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status;
        return response;
    }
    let mut response = respond::plain(answer.status, answer.body);
    if answer.media == AnswerMedia::Json {
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
    }
    response
}
