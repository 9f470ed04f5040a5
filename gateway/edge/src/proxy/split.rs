//! A route whose requests are divided among several upstreams by weight, as for a canary.
//!
//! Each upstream is a route of its own, which is the same in all else. Which one a request goes to
//! is a field of its head, which clients can't set and origins don't get, and that field is in the
//! key. So answers of different upstreams are different entries, and no step after this one knows
//! of it. A purge by URL reaches all of them.

pub mod config;

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue};

use config::{SplitBy, SplitConfig};

use super::esi;
use super::route::Route;
use crate::http::cookies;
use crate::http::forward::CHOSEN_UPSTREAM;
use crate::origin::stable_hash;
use crate::random;

/// The upstreams of a route, and their shares.
pub struct UpstreamSplit {
    by: SplitBy,
    shares: Box<[UpstreamShare]>,
    total: u64,
}

struct UpstreamShare {
    upstream: HeaderValue,
    route: Arc<Route>,
    weight: u64,
}

impl UpstreamSplit {
    /// Creates it from the routes that it chooses from, one for each upstream of `config`.
    pub fn new(config: &SplitConfig, routes: Vec<Arc<Route>>) -> Self {
        let shares = config.to.iter().zip(routes).filter_map(|(share, route)| {
            Some(UpstreamShare {
                upstream: share.upstream.parse().ok()?,
                route,
                weight: share.weight.into(),
            })
        });
        let shares: Box<[UpstreamShare]> = shares.collect();
        Self {
            by: config.by.clone(),
            total: shares.iter().map(|share| share.weight).sum(),
            shares,
        }
    }

    /// The field in which a request says which upstream it goes to.
    pub fn keyed_field(config: Option<&SplitConfig>) -> Option<HeaderName> {
        config.map(|_| CHOSEN_UPSTREAM)
    }

    /// The route for a request of this client: always the same one for the same text that the
    /// split goes by, and any one for a request without it, but that of its page for a fragment.
    pub fn choose(&self, parts: &mut Parts, client: Option<IpAddr>) -> Option<&Arc<Route>> {
        let place = match self.number_of(parts, client) {
            Some(place) => place,
            None => match self.of_its_page(parts) {
                Some(share) => return Some(&share.route),
                None => random::number().into(),
            },
        };
        self.at(place, parts)
    }

    /// The same for a request that is only explained: the first upstream where nothing of the
    /// request decides.
    pub fn explain(&self, parts: &mut Parts, client: Option<IpAddr>) -> Option<&Arc<Route>> {
        let place = self.number_of(parts, client).unwrap_or(0);
        self.at(place, parts)
    }

    fn at(&self, place: u64, parts: &mut Parts) -> Option<&Arc<Route>> {
        let mut left = place % self.total.max(1);
        let chosen = self.shares.iter().find(|share| {
            let is_here = left < share.weight;
            left = left.saturating_sub(share.weight);
            is_here
        })?;
        parts
            .headers
            .insert(CHOSEN_UPSTREAM, chosen.upstream.clone());
        Some(&chosen.route)
    }

    /// The share of the page that a request is for a fragment of, which its head names: a page is not
    /// put together from two versions. None: it is for none, or that upstream gets nothing here.
    fn of_its_page(&self, parts: &Parts) -> Option<&UpstreamShare> {
        let chosen = parts.headers.get(CHOSEN_UPSTREAM);
        let chosen = chosen.filter(|_| esi::is_fragment(parts))?;
        self.usable().find(|share| share.upstream == *chosen)
    }

    /// What decides about a request. A weight that grows takes nobody away from its upstream, as
    /// long as the sum of the weights stays the same and the order, too.
    fn number_of(&self, parts: &Parts, client: Option<IpAddr>) -> Option<u64> {
        match &self.by {
            SplitBy::Random => None,
            SplitBy::Client => client.map(|client| stable_hash(&network(client))),
            SplitBy::Header(name) => {
                let value = parts.headers.get(name)?;
                Some(stable_hash(value.as_bytes()))
            }
            SplitBy::Cookie(name) => {
                let mut values = cookies::values(&parts.headers, name.as_bytes());
                values.next().map(stable_hash)
            }
        }
    }

    /// Whether a head with this field may come about.
    pub fn has(&self, chosen: Option<&HeaderValue>) -> bool {
        chosen.is_some_and(|chosen| self.usable().any(|share| share.upstream == *chosen))
    }

    fn usable(&self) -> impl Iterator<Item = &UpstreamShare> {
        self.shares.iter().filter(|share| share.weight > 0)
    }

    /// The shares in words.
    pub fn describe(&self) -> String {
        let shares = self.shares.iter().map(|share| {
            let name = String::from_utf8_lossy(share.upstream.as_bytes());
            format!("{name} {} of {}", share.weight, self.total)
        });
        let shares: Vec<String> = shares.collect();
        format!("split: {}, by {}", shares.join(", "), self.by)
    }
}

/// What of an address stands for one client: an IPv6 network of 64 bits has one household.
fn network(client: IpAddr) -> Vec<u8> {
    match client.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets()[..8].to_vec(),
    }
}
