//! The fields by which the origin learns who sent a request: from whoever has decided about it, and
//! never from the client.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::forward;
use crate::plugin::SeenField;
use crate::proxy::message_hooks::PluginHeadChanges;

/// Names of fields that are ours to set.
pub struct TakenFields(Box<[HeaderName]>);

/// A field with its value.
pub type TakenField = (HeaderName, HeaderValue);

impl TakenFields {
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names.into_iter().filter_map(|name| name.parse().ok());
        Self(names.collect())
    }

    pub fn names(&self) -> &[HeaderName] {
        &self.0
    }

    /// Deletes the client's own under every name that a server may read as one of these: in CGI,
    /// PHP and WSGI all that is no letter and no digit becomes `_`.
    pub fn delete(&self, headers: &mut HeaderMap) {
        for name in &self.0 {
            forward::remove_spellings(headers, name);
        }
    }

    /// Sets what was taken; the client's own were deleted. `removed` says what the request has
    /// lost here.
    pub fn put(&self, parts: &mut Parts, taken: Vec<TakenField>, removed: RemovedCredentials) {
        if self.0.is_empty() {
            return;
        }
        for (name, value) in taken {
            parts.headers.append(name, value);
        }
        let fields = self.0.iter().cloned().map(SeenField::Header);
        parts.extensions.insert(PluginHeadChanges {
            set: self.0.iter().cloned().collect(),
            fields: Arc::from_iter(fields),
            took_authorization: removed.authorization,
            took_cookies: removed.cookie,
        });
    }
}

/// Which credentials of a client the origin does not get.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RemovedCredentials {
    pub authorization: bool,
    /// Whether it has lost a cookie.
    pub cookie: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What CGI, PHP and WSGI make of a name.
    fn as_variable(name: &str) -> String {
        let upper = name.to_uppercase();
        let fold = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        format!("HTTP_{}", upper.chars().map(fold).collect::<String>())
    }

    proptest! {
        /// GHSA-x677-9fxg-v5c5 (`_`), its follow-up in Traefik v3.7.13 (`.`), and the rest.
        #[test]
        fn no_spelling_of_a_taken_field_stays(
            written in "[Xx][-_.~!#$%&'*+^`|]?[Aa][Uu][Tt][Hh][-_.~!|][Uu][Ss][Ee][Rr]",
            other in "[a-z][a-z._-]{0,14}",
        ) {
            let fields = TakenFields::new(["x-auth-user"]);
            let mut headers = HeaderMap::new();
            for name in [&written, &other] {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_static("evil"));
            }
            fields.delete(&mut headers);
            let ours = as_variable("x-auth-user");
            for name in headers.keys() {
                prop_assert_ne!(as_variable(name.as_str()), &*ours, "{}", name);
            }
            let keeps = as_variable(&other) != ours;
            prop_assert_eq!(headers.contains_key(&*other), keeps);
        }
    }
}
