//! What is made the same in requests before their key is derived, so that differences that mean
//! nothing to the origin do not split the cache: cookies, the language, the kind of device. And
//! which requests are not for the cache at all.
//!
//! Cookies and the language are cleaned only in requests whose answer may come from the cache;
//! others go to the origin with the client's own fields.

mod bypass;
pub mod config;
mod cookies;
mod device;

use http::header::ACCEPT_LANGUAGE;
use http::request::Parts;
use http::{HeaderName, Method};

use crate::http::accept_language::OfferedLanguages;
use crate::proxy::config::RouteConfig;
use bypass::BypassConditions;
use cookies::CookieFilter;
use device::DeviceClass;

/// Marks a request that a rule of its route keeps away from the cache, as an extension of the
/// request.
#[derive(Clone, Copy, Debug)]
pub struct BypassesCache;

/// What is cleaned in the requests of a route.
pub struct RequestCleaning {
    bypass: Option<BypassConditions>,
    cookies: Option<CookieFilter>,
    languages: OfferedLanguages,
    device: Option<HeaderName>,
}

impl RequestCleaning {
    /// None: nothing is cleaned.
    pub fn new(config: &RouteConfig) -> Option<Self> {
        let cleaning = Self {
            bypass: BypassConditions::new(&config.bypass),
            cookies: CookieFilter::new(&config.cookies),
            languages: OfferedLanguages::new(&config.accept_language),
            device: config.device.as_ref().and_then(|name| name.parse().ok()),
        };
        let does_nothing = cleaning.bypass.is_none()
            && cleaning.cookies.is_none()
            && cleaning.languages.is_empty()
            && cleaning.device.is_none();
        (!does_nothing).then_some(cleaning)
    }

    /// The fields that tell answers apart because they are cleaned, so that each key holds them.
    pub fn keyed_fields(config: &RouteConfig) -> impl Iterator<Item = HeaderName> {
        let language = (!config.accept_language.is_empty()).then_some(ACCEPT_LANGUAGE);
        let device = config.device.as_ref().and_then(|name| name.parse().ok());
        language.into_iter().chain(device)
    }

    /// Whether requests get a field that tells the kind of device.
    pub fn tells_device(&self) -> bool {
        self.device.is_some()
    }

    /// Cleans the head of a request. `upgrades` says that it wants another protocol, so that its
    /// answer can't come from the cache.
    pub fn clean(&self, parts: &mut Parts, upgrades: bool) {
        if let Some(name) = &self.device {
            let class = DeviceClass::of(&parts.headers);
            parts.headers.insert(name, class.to_value());
        }
        self.clean_known(parts, upgrades);
    }

    /// Marks a request that is not for the cache. It is looked at twice: with what it shows of its
    /// sender, which may end here, and with what the origin gets.
    pub fn mark_bypass(&self, parts: &mut Parts) {
        if self.bypass.as_ref().is_some_and(|any| any.hold(parts)) {
            parts.extensions.insert(BypassesCache);
        }
    }

    /// The same for a head of which no more is known than what its key held: the kind of device
    /// stays what it is. Doing it twice changes nothing.
    pub fn clean_known(&self, parts: &mut Parts, upgrades: bool) {
        self.mark_bypass(parts);
        if parts.extensions.get::<BypassesCache>().is_some() {
            return;
        }
        if upgrades || !matches!(parts.method, Method::GET | Method::HEAD) {
            return;
        }
        if let Some(cookies) = &self.cookies {
            cookies.apply(&mut parts.headers);
        }
        if !self.languages.is_empty() {
            self.languages.replace(&mut parts.headers);
        }
    }

    /// What is cleaned, in words.
    pub fn describe(&self) -> Vec<String> {
        let device = self.device.as_ref().map(|name| {
            format!("device: {name} says mobile, tablet or desktop, by User-Agent and Sec-CH-UA-Mobile; in the key")
        });
        let bypass = self.bypass.as_ref().map(BypassConditions::describe);
        let cookies = self.cookies.as_ref().map(CookieFilter::describe);
        let tags: Vec<&str> = self.languages.tags().collect();
        let languages = (!tags.is_empty()).then(|| {
            let tags = tags.join(", ");
            format!("accept_language: one of {tags}, by what the client prefers; in the key")
        });
        let all = [device, bypass, cookies, languages];
        all.into_iter().flatten().collect()
    }
}
