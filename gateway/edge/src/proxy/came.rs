//! The credentials that a request arrived with, including those that its request plugin removed.
//! RFC 9111 §3.5 is about what the client sent, and what the plugin made of the credentials may
//! decide the answer just as they do.

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use crate::cache::key::KeyBuf;
use crate::cache::policy::{CameWith, CredentialPresence, Credentials};
use crate::http::cookies;
use crate::http::vary::Vary;
use crate::plugin::{HeaderChange, RequestReads, SeenField};
use crate::proxy::cover::{self, KeyCoverage};
use crate::proxy::message_hooks::PluginHeadChanges;
use crate::proxy::route::Route;

/// The credentials of a request whose key is `key`. A credential that a plugin removed does not
/// count if the key holds everything that the plugin set in its place.
pub fn with(route: &Route, parts: &Parts, key: &KeyBuf) -> CameWith {
    let mut came = CameWith::of(&parts.headers);
    let cover = KeyCoverage::of(route, key, Vary::None);
    if let Some(rules) = &route.rules {
        let is_keyed = |name: &HeaderName| cover.has(&SeenField::Header(name.clone()));
        let made = |name: &HeaderName| rules.make_of_what_is_unkeyed(name, &is_keyed);
        if made(&AUTHORIZATION) {
            came.authorization = CredentialPresence::Taken;
        }
        if made(&COOKIE) {
            came.cookies = CredentialPresence::Taken;
        }
    }
    let Some(by) = parts.extensions.get::<PluginHeadChanges>() else {
        return came;
    };
    let told = by.fields.iter().all(|field| cover.has(field));
    if by.took_authorization && (!told || by.fields.is_empty()) {
        came.authorization = CredentialPresence::Taken;
    }
    // If the plugin only removed cookies, the origin learns nothing from them.
    if by.took_cookies && !told {
        came.cookies = CredentialPresence::Taken;
    }
    came
}

/// What identifies the user in a request and is not in `key`, the request's own key.
pub fn credentials(route: &Route, parts: &Parts, key: &KeyBuf) -> Credentials {
    let came = with(route, parts, key);
    let rest = KeyCoverage::of(route, key, Vary::None).credentials(&parts.headers);
    match (came.authorization, came.cookies, rest) {
        (CredentialPresence::Taken, ..) => Credentials::Authorization,
        (_, CredentialPresence::Taken, Credentials::Keyed) => Credentials::Cookies,
        (.., rest) => rest,
    }
}

impl PluginHeadChanges {
    /// The same changes, as reads that the answer depends on.
    pub fn seen(&self) -> RequestReads {
        RequestReads {
            fields: self.fields.to_vec(),
            absent: Vec::new(),
        }
    }

    /// These changes and those before them.
    pub fn after(self, earlier: &Self) -> Self {
        let set = earlier.set.iter().chain(self.set.iter());
        let fields = earlier.fields.iter().chain(self.fields.iter());
        Self {
            set: set.cloned().collect(),
            fields: fields.cloned().collect(),
            took_authorization: earlier.took_authorization || self.took_authorization,
            took_cookies: earlier.took_cookies || self.took_cookies,
        }
    }

    /// What `change` will do to this head.
    pub fn of(change: &HeaderChange, head: &HeaderMap) -> Self {
        let touches = |name| change.remove.contains(name) || change.set.contains_key(name);
        let same = |name| {
            head.get_all(name)
                .iter()
                .eq(change.set.get_all(name).iter())
        };
        let took = |name| head.contains_key(name) && touches(name) && !same(name);
        let mut fields: Vec<SeenField> = change
            .set
            .keys()
            .filter(|name| **name != COOKIE && !same(name))
            .cloned()
            .map(SeenField::Header)
            .collect();
        let came: Vec<&[u8]> = cookies::pairs(head).collect();
        let cookies = cookies::pairs(&change.set).filter(|pair| !came.contains(pair));
        fields
            .extend(cookies.map(|pair| cover::name_of(pair).unwrap_or(SeenField::Header(COOKIE))));
        Self {
            set: change.set.keys().cloned().collect(),
            fields: fields.into(),
            took_authorization: took(&AUTHORIZATION),
            took_cookies: took(&COOKIE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&str, &str)]) -> HeaderMap {
        let lines = lines.iter();
        lines
            .map(|(name, value)| {
                (
                    name.parse::<http::HeaderName>().unwrap(),
                    value.parse().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn what_a_change_makes_another_is_known() {
        let came = head(&[
            ("authorization", "Bearer alice"),
            ("cookie", "a=1; _ga=2"),
            ("x-same", "s"),
        ]);
        let change = HeaderChange {
            remove: vec![AUTHORIZATION],
            set: head(&[("x-user", "alice"), ("x-same", "s"), ("cookie", "a=1; b=2")]),
        };
        let by = PluginHeadChanges::of(&change, &came);
        assert!(by.took_authorization && by.took_cookies);
        let wanted = [
            SeenField::Header(http::HeaderName::from_static("x-user")),
            SeenField::Cookie((*b"b").into()),
        ];
        assert_eq!(*by.fields, wanted);
        let by = PluginHeadChanges::of(&change, &HeaderMap::new());
        assert!(!by.took_authorization && !by.took_cookies);
    }
}
