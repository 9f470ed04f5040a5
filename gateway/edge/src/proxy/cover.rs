//! Which parts of a request tell stored answers apart: those that the key holds, or that a stored
//! answer varies by.

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::cache::key::KeyBuf;
use crate::cache::policy::Credentials;
use crate::http::cookies;
use crate::http::vary::Vary;
use crate::plugin::{Plugin, SeenField};
use crate::proxy::route::Route;

/// The parts of requests that tell the stored answers of one key apart.
pub struct KeyCoverage<'a> {
    route: &'a Route,
    /// The plugin that derived the key, if a plugin did.
    plugin: Option<&'a Plugin>,
    varying: Vec<HeaderName>,
}

impl<'a> KeyCoverage<'a> {
    pub fn of(route: &'a Route, key: &KeyBuf, vary: Vary) -> Self {
        let plugin = route.key_plugin.as_ref().filter(|_| key.is_text());
        Self {
            route,
            plugin: plugin.map(|(plugin, _)| &**plugin),
            varying: match vary {
                Vary::Fields(names) => names,
                Vary::None | Vary::Any => Vec::new(),
            },
        }
    }

    /// The same, with these fields added.
    pub fn and_fields(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.varying.extend(names);
        self
    }

    pub fn has(&self, field: &SeenField) -> bool {
        let native = &self.route.key;
        let varies = |name| self.varying.contains(name);
        let here = match field {
            SeenField::Header(name) => native.covers(name) || varies(name),
            SeenField::Cookie(name) => native.covers_cookie(name) || varies(&COOKIE),
            // The text of a key plugin replaces the query.
            SeenField::Parameter(piece) => self.plugin.is_none() && native.keeps(piece),
        };
        here || self.plugin.is_some_and(|plugin| plugin.keys_by(field))
    }

    /// What identifies the user in such a request and is not covered.
    pub fn credentials(&self, request: &HeaderMap) -> Credentials {
        let authorization = SeenField::Header(AUTHORIZATION);
        if request.contains_key(AUTHORIZATION) && !self.has(&authorization) {
            return Credentials::Authorization;
        }
        let whole = self.has(&SeenField::Header(COOKIE));
        let keyed = |pair| name_of(pair).is_some_and(|cookie| self.has(&cookie));
        match whole || cookies::pairs(request).all(keyed) {
            true => Credentials::Keyed,
            false => Credentials::Cookies,
        }
    }
}

/// The cookie in one piece of a `Cookie` line. None if it has no name: then it is in no key.
pub fn name_of(pair: &[u8]) -> Option<SeenField> {
    let (name, value) = cookies::name_and_value(pair);
    value.map(|_| SeenField::Cookie(name.into()))
}

/// Removes cookies from a head. Where all are kept the lines stay as they are; otherwise one line is
/// left, or none. Returns whether one was removed.
pub fn retain_pairs(headers: &mut HeaderMap, keeps: impl Fn(&[u8]) -> bool) -> bool {
    if cookies::pairs(headers).all(&keeps) {
        return false;
    }
    let mut line = SmallVec::<[u8; USUAL_LINE]>::new();
    for pair in cookies::pairs(headers).filter(|pair| keeps(pair)) {
        if !line.is_empty() {
            line.extend_from_slice(b"; ");
        }
        line.extend_from_slice(pair);
    }
    let line = (!line.is_empty()).then(|| HeaderValue::from_bytes(&line));
    match line {
        Some(Ok(line)) => drop(headers.insert(COOKIE, line)),
        Some(Err(_)) | None => drop(headers.remove(COOKIE)),
    }
    true
}

/// The octets of a `Cookie` line that is put together without an allocation but that of the field.
const USUAL_LINE: usize = 512;
