//! Clients that stay with their target, by a cookie that the gateway sets (`balance.sticky`).
//!
//! The value is a name of the target that tells nobody its address, and that chooses nothing but a
//! target of this upstream: whoever makes one up is treated as a client without the cookie. It is
//! the same in each process with the same configuration.
//!
//! Decision: the cookie is between the client and the gateway, as with `cookie … insert indirect`
//! of HAProxy: it is taken out of the request before anything looks at it, so that neither keys,
//! `Vary: Cookie` and the rules about credentials nor plugins and origins see a cookie that no
//! answer depends on.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use super::config::StickyConfig;
use super::control::AdministrativeState;
use super::health::ObservedState;
use super::target::OriginTarget;
use super::targets::OriginTargets;
use crate::http::cookies;

/// The name of a target in a cookie. As an extension of a request it is the one that the client
/// has brought, and as one of a response the one that the client is to get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StickyPin(u64);

/// The cookie of an upstream.
pub struct StickyCookie {
    name: Box<str>,
    max_age: Option<Duration>,
}

impl StickyPin {
    /// The name of this target of this upstream.
    pub(super) fn of(upstream: &str, target: &str) -> Self {
        let digest = Sha256::digest([upstream, target].join("\0"));
        Self(u64::from_be_bytes(std::array::from_fn(|i| digest[i])))
    }

    /// Reads what [`fmt::Display`] writes.
    fn parse(text: &[u8]) -> Option<Self> {
        // `from_str_radix` would accept a sign as well.
        let is_hex = text.len() == 16 && text.iter().all(u8::is_ascii_hexdigit);
        let text = std::str::from_utf8(text).ok().filter(|_| is_hex)?;
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for StickyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl StickyCookie {
    pub(super) fn new(config: &StickyConfig) -> Self {
        Self {
            name: config.cookie.as_str().into(),
            max_age: config.max_age.map(|age| age.0),
        }
    }

    /// Takes the cookie out of a request. Returns the first value that names a target.
    pub fn take(&self, headers: &mut HeaderMap) -> Option<StickyPin> {
        let lines = headers.get_all(COOKIE);
        if !lines.iter().any(|line| self.is_in(line)) {
            return None;
        }
        let mut pin = None;
        let mut kept = Vec::new();
        for line in lines {
            if !self.is_in(line) {
                kept.push(line.clone());
                continue;
            }
            let (ours, others): (Vec<_>, Vec<_>) =
                pairs(line).partition(|pair| self.value(pair).is_some());
            let values = ours.iter().filter_map(|pair| self.value(pair));
            pin = pin.or(values.filter_map(StickyPin::parse).next());
            if !others.is_empty() {
                kept.extend(HeaderValue::from_bytes(&others.join(&b"; "[..])));
            }
        }
        headers.remove(COOKIE);
        for line in kept {
            headers.append(COOKIE, line);
        }
        pin
    }

    /// The field that makes a client stay with this target.
    pub fn set(&self, pin: StickyPin, scheme: &str) -> Option<HeaderValue> {
        let age = self.max_age;
        let age = age.map_or_else(String::new, |age| format!("; Max-Age={}", age.as_secs()));
        let secure = if scheme == "https" { "; Secure" } else { "" };
        let name = &self.name;
        let field = format!("{name}={pin}; Path=/; HttpOnly; SameSite=Lax{age}{secure}");
        HeaderValue::try_from(field).ok()
    }

    fn is_in(&self, line: &HeaderValue) -> bool {
        pairs(line).any(|pair| self.value(pair).is_some())
    }

    fn value<'a>(&self, pair: &'a [u8]) -> Option<&'a [u8]> {
        let (name, value) = cookies::name_and_value(pair);
        value
            .filter(|_| name == self.name.as_bytes())
            .map(<[u8]>::trim_ascii)
    }
}

fn pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let pairs = line.as_bytes().split(|octet| *octet == b';');
    pairs
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
}

impl OriginTargets {
    /// The target that a client stays with, if it can. One that is drained keeps its clients.
    pub(super) fn pinned(&self, pin: StickyPin, now: Instant) -> Option<Arc<OriginTarget>> {
        let all = self.all();
        let mut targets = all.iter();
        let pinned = targets.find(|target| target.pin == pin && target.keeps_clients(now));
        pinned.cloned()
    }
}

impl OriginTarget {
    fn keeps_clients(&self, now: Instant) -> bool {
        let is_in_service = match self.control.state() {
            AdministrativeState::Ready | AdministrativeState::Drain => true,
            AdministrativeState::Out => false,
        };
        let is_well = match self.health.observed(now) {
            ObservedState::Usable | ObservedState::Rests => true,
            ObservedState::Ejected | ObservedState::Down => false,
        };
        is_in_service && is_well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(max_age: Option<u64>) -> StickyCookie {
        StickyCookie {
            name: "stay".into(),
            max_age: max_age.map(Duration::from_secs),
        }
    }

    /// What is taken of these lines, and what is left.
    fn taken(lines: &[&str]) -> (Option<String>, Vec<String>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, line.parse().unwrap());
        }
        let pin = cookie(None).take(&mut headers);
        let left = headers.get_all(COOKIE).iter();
        let left = left.map(|line| line.to_str().unwrap().to_owned());
        (pin.map(|pin| pin.to_string()), left.collect())
    }

    #[test]
    fn the_cookie_is_taken_out_and_the_others_stay() {
        let one = "0123456789abcdef";
        let all = format!("a=1; stay={one};b=2");
        assert_eq!(
            taken(&[&all, "c=3;d=4"]),
            (Some(one.into()), vec!["a=1; b=2".into(), "c=3;d=4".into()])
        );
        let alone = format!("stay={one}");
        assert_eq!(taken(&[&alone]), (Some(one.into()), vec![]));
        assert_eq!(taken(&["a=stay; stay2=b"]).1, ["a=stay; stay2=b"]);
        let second = format!("stay=no; stay={one}; x");
        assert_eq!(taken(&[&second]), (Some(one.into()), vec!["x".into()]));
    }

    #[test]
    fn what_names_no_target_is_taken_out_and_chooses_nothing() {
        let longer = "stay=0123456789abcdef0";
        for forged in [
            "stay=",
            "stay=1",
            "stay=+123456789abcdef",
            longer,
            "stay=10.0.0.1:90",
        ] {
            assert_eq!(taken(&[forged]), (None, vec![]), "{forged}");
        }
    }

    #[test]
    fn the_field_says_what_browsers_must_know_and_nothing_of_the_address() {
        let pin = StickyPin::of("shop", "10.0.0.1:9000");
        let set = |max_age, scheme| {
            let field = cookie(max_age).set(pin, scheme).unwrap();
            field.to_str().unwrap().to_owned()
        };
        let plain = format!("stay={pin}; Path=/; HttpOnly; SameSite=Lax");
        assert_eq!(set(None, "http"), plain);
        assert_eq!(
            set(Some(3_600), "https"),
            format!("{plain}; Max-Age=3600; Secure")
        );
        assert_eq!(pin.to_string(), "fc372382a5ad8364", "in each process");
        assert_ne!(pin, StickyPin::of("other", "10.0.0.1:9000"));
    }
}
