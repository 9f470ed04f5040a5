//! The `PURGE` method on the listeners: off by default, allowed by address and token.
//!
//! If it is on, other methods that command caches (`BAN` and similar ones) are answered here, too.
//! A request that was not understood, or whose URL no route caches, is never answered as done. The
//! answer and the log name what was purged.

mod form;

use std::fmt;
use std::time::Instant;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use prometheus::IntCounterVec;
use tracing::field::display;

use crate::cache::Cache;
use crate::cache::purge::{PurgeKind, PurgeOrder, Selector};
use crate::http::bearer;
use crate::http::body::Body;
use crate::http::cidr::Cidr;
use crate::http::forward::RequestSender;
use crate::http::reference::without_port;
use crate::proxy::by_url::UrlPurgeSelectors;
use crate::proxy::context::normal_host;
use crate::proxy::generation::Generation;
use crate::proxy::metrics::RequestFamilies;
use crate::proxy::{config, respond};
use crate::telemetry::limit::LineLimiter;
use form::{AnswerForm, InvalidPurgeRequest, PurgeMethodScope, RequestedPurge};

/// Who may purge by method, and under which addresses the page of a URL may be stored.
pub struct PurgeMethod {
    enabled: bool,
    allow: Box<[Cidr]>,
    token: Option<Box<str>>,
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
    #[error("metrics can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The outcome of a purge request. Its words are those of the metric's label.
#[derive(Clone, Copy)]
enum PurgeMethodOutcome {
    Done,
    NothingCached,
    NotUnderstood,
    NotAllowed,
    Off,
}

impl PurgeMethodOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NothingCached => "nothing_cached",
            Self::NotUnderstood => "not_understood",
            Self::NotAllowed => "not_allowed",
            Self::Off => "off",
        }
    }
}

/// What a purge reaches: selectors, and descriptions of them for people.
#[derive(Default)]
struct PurgeMethodSelection {
    selectors: Vec<Selector>,
    names: Vec<String>,
    notes: Vec<String>,
}

impl PurgeMethodSelection {
    fn add(&mut self, name: String, selectors: impl IntoIterator<Item = Selector>) {
        self.names.push(name);
        self.selectors.extend(selectors);
    }
}

impl fmt::Display for PurgeMethodSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names
            .iter()
            .chain(&self.notes)
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl PurgeMethod {
    /// Creates the method for listeners on these ports.
    pub fn new(
        config: &config::PurgeMethodConfig,
        ports: impl Iterator<Item = u16>,
        families: &RequestFamilies,
    ) -> Result<Self, TokenError> {
        let mut ports: Vec<u16> = ports.filter(|port| *port != 0).collect();
        ports.sort_unstable();
        ports.dedup();
        Ok(Self {
            enabled: config.enabled,
            allow: config
                .allow
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
            token: config.token.as_deref().map(Into::into),
            ports: ports.into(),
            answers: families.purges(),
            warnings: LineLimiter::new(Instant::now()),
        })
    }

    /// Whether this is a purge request. Such a request never reaches an origin.
    pub fn takes(&self, parts: &Parts) -> bool {
        match parts.method {
            Method::GET | Method::HEAD | Method::POST => false,
            _ if self.enabled => form::is_control(parts.method.as_str()),
            _ => parts.method.as_str() == "PURGE",
        }
    }

    /// Purges what the request asks for.
    pub fn answer(
        &self,
        generation: &Generation,
        cache: &Cache,
        parts: &Parts,
        host: &str,
        caller: &RequestSender,
    ) -> Response<Body> {
        let (outcome, answer) = self.outcome(generation, cache, parts, host, caller);
        self.answers.with_label_values(&[outcome.as_str()]).inc();
        answer
    }

    fn outcome(
        &self,
        generation: &Generation,
        cache: &Cache,
        parts: &Parts,
        host: &str,
        caller: &RequestSender,
    ) -> (PurgeMethodOutcome, Response<Body>) {
        if !self.enabled {
            let off = respond::method_not_allowed("405 PURGE is off\n");
            return (PurgeMethodOutcome::Off, off);
        }
        if !self.allows(parts, caller) {
            if let Some(dropped) = self.warnings.admit(Instant::now()) {
                let (client, peer) = (caller.client().map(display), caller.connected());
                tracing::warn!(client, %peer, dropped, "a PURGE was refused");
            }
            let refused = respond::plain(StatusCode::FORBIDDEN, "403 not allowed to purge\n");
            return (PurgeMethodOutcome::NotAllowed, refused);
        }
        let wanted = match form::read(parts) {
            Ok(wanted) => wanted,
            Err(refused) => {
                return (
                    PurgeMethodOutcome::NotUnderstood,
                    self.refuse(&refused, caller),
                );
            }
        };
        let reached = self.reached(generation, parts, host, caller, &wanted);
        if reached.selectors.is_empty() {
            let why: String = reached.notes.iter().map(|n| format!(": {n}")).collect();
            let text = format!("404 no route caches this{why}\n");
            let nothing = respond::plain(StatusCode::NOT_FOUND, text);
            return (PurgeMethodOutcome::NothingCached, nothing);
        }
        let orders = reached.selectors.iter();
        let order = orders
            .map(|selector| cache.purge(selector, wanted.kind))
            .max();
        tracing::info!(
            client = caller.client().map(display),
            kind = ?wanted.kind,
            reached = reached.names.join(", "),
            "purged by the PURGE method"
        );
        let answer = done(
            wanted.answer,
            wanted.kind,
            order.unwrap_or_default(),
            &reached,
        );
        (PurgeMethodOutcome::Done, answer)
    }

    fn refuse(&self, refused: &InvalidPurgeRequest, caller: &RequestSender) -> Response<Body> {
        if let Some(dropped) = self.warnings.admit(Instant::now()) {
            let client = caller.client().map(display);
            tracing::warn!(client, reason = %refused, dropped, "a request to purge was not understood");
        }
        respond::plain(refused.status, refused.to_string())
    }

    fn reached(
        &self,
        generation: &Generation,
        parts: &Parts,
        host: &str,
        caller: &RequestSender,
        wanted: &RequestedPurge,
    ) -> PurgeMethodSelection {
        let mut reached = PurgeMethodSelection::default();
        match &wanted.reach {
            PurgeMethodScope::Everything => reached.add("all".to_owned(), [Selector::All]),
            PurgeMethodScope::Tags(tags) => {
                for tag in tags {
                    reached.add(format!("tag {tag}"), [Selector::Tag(tag.clone())]);
                }
            }
            PurgeMethodScope::Beginning(path) => {
                let mut hosts: Vec<String> = self.places(host, caller).map(|(_, h)| h).collect();
                hosts.sort_unstable();
                hosts.dedup();
                for host in hosts {
                    let prefix = format!("{host}{path}");
                    let selectors = Selector::prefixes(&prefix);
                    reached.add(format!("prefix {prefix}"), selectors);
                }
            }
            PurgeMethodScope::Url => {
                let target = parts
                    .uri
                    .path_and_query()
                    .map_or("/", |target| target.as_str());
                for (scheme, host) in self.places(host, caller) {
                    let UrlPurgeSelectors { selectors, note } =
                        generation.by_url(scheme, &host, &parts.uri);
                    if !selectors.is_empty() {
                        reached.add(format!("url {scheme}://{host}{target}"), selectors);
                    }
                    let new = note.filter(|note| !reached.notes.contains(note));
                    reached.notes.extend(new);
                }
            }
        }
        reached
    }

    /// The addresses under which clients may have asked for the page: each scheme, with the host as
    /// it is written, with the default port and with the ports of the listeners. An application
    /// that purges without going through the proxy in front does not say which of them clients use.
    /// If a trusted proxy reports the scheme and host, only these count.
    fn places(
        &self,
        host: &str,
        caller: &RequestSender,
    ) -> impl Iterator<Item = (&'static str, String)> {
        let name = without_port(host);
        let mut places = vec![(caller.scheme(), host.to_owned())];
        if !caller.is_scheme_told() {
            let at_ports = self.ports.iter().map(|port| format!("{name}:{port}"));
            let hosts = [host.to_owned(), name.to_owned()];
            let hosts: Vec<String> = hosts.into_iter().chain(at_ports).collect();
            for scheme in ["http", "https"] {
                let hosts = hosts.iter().map(|host| normal_host(host, scheme));
                places.extend(hosts.map(|host| (scheme, host.into_owned())));
            }
        }
        places.sort_unstable();
        places.dedup();
        places.into_iter()
    }

    /// Whether the client may purge. Its address is the one that trusted proxies report; an unknown
    /// address is on no list.
    fn allows(&self, parts: &Parts, caller: &RequestSender) -> bool {
        let listed = |client| self.allow.iter().any(|network| network.contains(client));
        let address = self.allow.is_empty() || caller.client().is_some_and(listed);
        let token = self.token.as_ref();
        let token = token.is_none_or(|token| bearer::brings(&parts.headers, token));
        address && token && (!self.allow.is_empty() || self.token.is_some())
    }
}

fn done(
    form: AnswerForm,
    kind: PurgeKind,
    order: PurgeOrder,
    reached: &PurgeMethodSelection,
) -> Response<Body> {
    if form == AnswerForm::Fastly {
        let body = serde_json::json!({"status": "ok", "id": order.to_string()});
        let mut answer = respond::plain(StatusCode::OK, body.to_string());
        let json = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(CONTENT_TYPE, json);
        return answer;
    }
    let word = match kind {
        PurgeKind::Hard => "purged",
        PurgeKind::Soft => "purged softly",
    };
    respond::plain(StatusCode::OK, format!("{word}\n{reached}"))
}
