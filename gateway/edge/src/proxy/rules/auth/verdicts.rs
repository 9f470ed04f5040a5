//! What an auth service has said yes to, remembered for a short time.
//!
//! Bounded in number and time, and ended by purges: a verdict has the tag `auth:ROUTE`, and those
//! tags of the service's answer that begin with `auth:`. It is compared with the purge log as
//! entries are, so that a purge on another node ends it as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ACCEPT, COOKIE};
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::AuthenticatedUser;
use super::config::VerdictCacheConfig;
use crate::cache::Cache;
use crate::cache::entry::PurgeAttributes;
use crate::cache::key::hash64;
use crate::cache::purge::PurgeOrder;
use crate::http::cache_control::ResponseDirectives;
use crate::http::cookies;
use crate::proxy::arrived::ArrivedRequest;

/// The most verdicts of a route that are remembered.
const MOST: usize = 10_000;

/// The fields in which services name tags.
const TAG_FIELDS: [&str; 2] = ["surrogate-key", "cache-tag"];

/// The verdicts of a route.
pub struct VerdictCache {
    key: Box<[VerdictKeyPart]>,
    max: Duration,
    route: Arc<str>,
    cache: Arc<Cache>,
    held: Mutex<HashMap<VerdictKey, HeldVerdict>>,
    asked: Mutex<HashMap<VerdictKey, watch::Receiver<()>>>,
}

/// A digest of what must be the same.
pub type VerdictKey = [u8; 32];

enum VerdictKeyPart {
    Header(HeaderName),
    Cookie(Box<[u8]>),
    Uri,
    Client,
}

struct HeldVerdict {
    user: AuthenticatedUser,
    until: Instant,
    born: PurgeOrder,
    marks: PurgeAttributes,
}

/// Who is to ask the service.
pub enum VerdictTurn<'a> {
    /// The caller; others wait for him until this is dropped.
    Ask(VerdictAsker<'a>),
    /// Somebody else does; it ends when he has his answer.
    Wait(watch::Receiver<()>),
}

/// The one who asks for all that have the same key.
pub struct VerdictAsker<'a> {
    cache: &'a VerdictCache,
    key: VerdictKey,
    _ends: watch::Sender<()>,
}

impl Drop for VerdictAsker<'_> {
    fn drop(&mut self) {
        self.cache.asked.lock().remove(&self.key);
    }
}

impl VerdictCache {
    pub fn new(config: &VerdictCacheConfig, route: &Arc<str>, cache: Arc<Cache>) -> Self {
        let key = config
            .key
            .iter()
            .filter_map(|part| VerdictKeyPart::parse(part));
        Self {
            key: key.collect(),
            max: config.max.0,
            route: Arc::clone(route),
            cache,
            held: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// The key of a request of which the service gets these fields. Method, scheme and host are in
    /// each: the service is told them, and may decide by them. None: it gets something that the key
    /// knows nothing of, so that its yes may be about that, and is for this request alone.
    pub fn key(&self, request: &ArrivedRequest, sent: &[HeaderName]) -> Option<VerdictKey> {
        let headers = &request.parts.headers;
        let mut sent = sent.iter().filter(|name| headers.contains_key(*name));
        sent.all(|name| self.knows(name, headers))
            .then(|| self.digest(request))
    }

    /// Whether the key has a part of this request that stands for the field `name`.
    fn knows(&self, name: &HeaderName, headers: &HeaderMap) -> bool {
        *name == ACCEPT
            || self.key.iter().any(|part| match part {
                VerdictKeyPart::Header(keyed) => keyed == name,
                VerdictKeyPart::Cookie(cookie) if *name == COOKIE => {
                    let mut values = cookies::values(headers, cookie);
                    values.any(|value| !value.trim_ascii().is_empty())
                }
                _ => false,
            })
    }

    fn digest(&self, request: &ArrivedRequest) -> VerdictKey {
        let mut digest = Sha256::new();
        let mut put = |value: Option<&[u8]>| {
            let length = value.map_or(u64::MAX, |value| value.len() as u64);
            digest.update(length.to_le_bytes());
            digest.update(value.unwrap_or_default());
        };
        let headers = &request.parts.headers;
        let method = request.parts.method.as_str();
        for told in [method, request.scheme, &*request.host] {
            put(Some(told.as_bytes()));
        }
        for part in &self.key {
            match part {
                VerdictKeyPart::Header(name) => {
                    headers
                        .get_all(name)
                        .iter()
                        .for_each(|line| put(Some(line.as_bytes())));
                    put(None);
                }
                VerdictKeyPart::Cookie(name) => {
                    cookies::values(headers, name).for_each(|value| put(Some(value)));
                    put(None);
                }
                VerdictKeyPart::Uri => {
                    let uri = request.parts.uri.path_and_query();
                    put(uri.map(|uri| uri.as_str().as_bytes()));
                }
                VerdictKeyPart::Client => {
                    let client = request.client().map(|client| client.to_string());
                    put(client.as_ref().map(String::as_bytes));
                }
            }
        }
        digest.finalize().into()
    }

    /// What was said about such a request.
    pub fn find(&self, key: &VerdictKey) -> Option<AuthenticatedUser> {
        let mut held = self.held.lock();
        let verdict = held.get(key)?;
        if verdict.until <= Instant::now() || self.cache.hides(&verdict.marks, verdict.born) {
            held.remove(key);
            return None;
        }
        Some(verdict.user.clone())
    }

    /// Whose turn it is to ask.
    pub fn ask_or_wait(&self, key: VerdictKey) -> VerdictTurn<'_> {
        let mut asked = self.asked.lock();
        if let Some(ends) = asked.get(&key) {
            return VerdictTurn::Wait(ends.clone());
        }
        let (sender, ends) = watch::channel(());
        asked.insert(key, ends);
        VerdictTurn::Ask(VerdictAsker {
            cache: self,
            key,
            _ends: sender,
        })
    }

    /// The place in the order of purges at which a question begins.
    pub fn order(&self) -> PurgeOrder {
        self.cache.order()
    }

    /// Remembers a yes, for as long as the service allows. Its cookies are for the one who asked.
    pub fn keep(
        &self,
        key: VerdictKey,
        user: &AuthenticatedUser,
        answer: &HeaderMap,
        born: PurgeOrder,
    ) {
        let life = self.max.min(allowed(answer));
        let now = Instant::now();
        let mut held = self.held.lock();
        if held.len() >= MOST {
            held.retain(|_, verdict| verdict.until > now);
        }
        if life.is_zero() || held.len() >= MOST {
            return;
        }
        let own = hash64(format!("auth:{}", self.route).as_bytes());
        let verdict = HeldVerdict {
            user: AuthenticatedUser {
                cookies: Vec::new(),
                ..user.clone()
            },
            until: now + life,
            born,
            marks: PurgeAttributes {
                id: 0,
                identity: 0,
                route: hash64(self.route.as_bytes()),
                tags: std::iter::once(own).chain(tags(answer)).collect(),
                groups: Box::default(),
                url: "".into(),
            },
        };
        held.insert(key, verdict);
    }
}

impl VerdictKeyPart {
    /// None: it is in every key.
    fn parse(text: &str) -> Option<Self> {
        Some(match text.split_once('.') {
            Some(("header", name)) => Self::Header(name.parse().ok()?),
            Some(("cookie", name)) => Self::Cookie(name.as_bytes().into()),
            _ => match text {
                "uri" => Self::Uri,
                "client" => Self::Client,
                _ => return None,
            },
        })
    }
}

/// For how long an answer may be used again.
fn allowed(answer: &HeaderMap) -> Duration {
    let said = ResponseDirectives::parse(answer);
    if said.no_store || said.no_cache.is_present() || said.private.is_present() {
        return Duration::ZERO;
    }
    let seconds = said.s_maxage.or(said.max_age);
    seconds.map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.into()))
}

/// The tags of the answer that are for verdicts.
fn tags(answer: &HeaderMap) -> impl Iterator<Item = u64> {
    let lines = TAG_FIELDS.iter().flat_map(|name| answer.get_all(*name));
    let texts = lines.filter_map(|line| line.to_str().ok());
    let words = texts.flat_map(|text| text.split([' ', ',']));
    let ours = words.filter(|word| word.starts_with("auth:"));
    ours.map(|word| hash64(word.as_bytes()))
}
