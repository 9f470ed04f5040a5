//! Which proxies a listener trusts, and with which fields.

use std::net::IpAddr;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names;
use crate::cidr::{Cidr, CidrError};

/// The proxies in front of a listener, and the fields that only they may set.
#[derive(Debug, Default)]
pub struct TrustedProxies {
    proxies: Box<[Cidr]>,
    headers: Box<[HeaderName]>,
    client_from: ClientField,
}

/// In which field the proxies in front of a listener name the client.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientField {
    /// In either; where both name a client and they differ, it is unknown.
    #[default]
    Both,
    /// In `X-Forwarded-For` and `X-Forwarded-Proto` alone.
    XForwardedFor,
    /// In `Forwarded` (RFC 7239) alone.
    Forwarded,
}

/// Why a field cannot be in a listener's `trusted_headers`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("{0:?} is not the name of a header field")]
    NoName(String),
    #[error(
        "`{0}` is read and then written anew by the gateway, which tells the origin the client's \
         address, scheme and host itself; expected another field, or none"
    )]
    OurOwn(HeaderName),
    #[error(
        "`{0}` is for one connection alone and never goes further; expected another field, or none"
    )]
    HopByHop(HeaderName),
    #[error("`{given}` is another spelling of `{name}`; expected `{name}`")]
    Spelling { given: HeaderName, name: String },
    #[error(
        "`{0}` is passed on from every client anyway; expected a field that is otherwise removed, \
         as x-forwarded-prefix, x-forwarded-port or x-original-url"
    )]
    NotRemoved(HeaderName),
}

/// Fields that the gateway reads for the client's address and scheme, and writes anew for the
/// origin.
const OUR_OWN: [&str; 3] = ["forwarded", "x-forwarded-for", "x-forwarded-proto"];

impl TrustedProxies {
    /// `proxies` are addresses or networks. Of `headers`, those names that [`trusted_header`]
    /// rejects are left out.
    ///
    /// # Errors
    /// When a text in `proxies` is not a network.
    pub fn new(proxies: &[String], headers: &[String]) -> Result<Self, CidrError> {
        Ok(Self {
            proxies: proxies
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
            headers: headers
                .iter()
                .filter_map(|name| trusted_header(name).ok())
                .collect(),
            client_from: ClientField::Both,
        })
    }

    /// The same, with proxies that name the client in this field.
    pub fn naming_clients_in(self, client_from: ClientField) -> Self {
        Self {
            client_from,
            ..self
        }
    }

    /// Trusts no address, but lists these fields.
    pub fn listing(headers: Vec<HeaderName>) -> Self {
        Self {
            proxies: Box::default(),
            headers: headers.into(),
            client_from: ClientField::Both,
        }
    }

    /// The fields that proxies may set.
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Whether one of the trusted proxies has this address.
    pub fn has_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }

    /// In which field its proxies name the client.
    pub(super) fn client_from(&self) -> ClientField {
        self.client_from
    }

    /// Whether trusted proxies may set this field.
    pub(super) fn lists(&self, name: &HeaderName) -> bool {
        self.headers.contains(name)
    }
}

/// Parses the name of a field that a listener may trust when its proxies send it.
///
/// # Errors
/// The reason why not, in words for the author of the configuration.
pub fn trusted_header(text: &str) -> Result<HeaderName, HeaderError> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| HeaderError::NoName(text.to_owned()))?;
    if OUR_OWN.contains(&name.as_str()) {
        return Err(HeaderError::OurOwn(name));
    }
    if names::is_hop_by_hop(&name) {
        return Err(HeaderError::HopByHop(name));
    }
    if !names::is_posing(&name) {
        return Err(HeaderError::NotRemoved(name));
    }
    match names::with_hyphens(&name) {
        hyphens if hyphens == name.as_str() => Ok(name),
        hyphens => Err(HeaderError::Spelling {
            given: name,
            name: hyphens,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_otherwise_removed_can_be_listed() {
        for name in [
            "X-Forwarded-Prefix",
            "x-forwarded-host",
            "x-original-url",
            "x-real-ip",
        ] {
            assert!(trusted_header(name).is_ok(), "{name}");
        }
        for (name, words) in [
            ("x forwarded", "not the name"),
            ("X-Forwarded-For", "written anew"),
            ("x-forwarded-proto", "written anew"),
            ("forwarded", "written anew"),
            ("connection", "one connection alone"),
            ("x_original_url", "expected `x-original-url`"),
            ("x-plan", "passed on from every client"),
        ] {
            let error = trusted_header(name).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
    }
}
