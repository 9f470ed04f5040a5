//! From what a request asks for to the selectors of the cache: under which schemes, hosts and ports
//! a page may be stored, and whether something of it is stored here.

use std::fmt;

use http::{HeaderMap, Uri};

use super::PurgeMethod;
use crate::cache::Cache;
use crate::cache::purge::Selector;
use crate::cache::tags::content_type_tag;
use crate::dialects::answer::StoredPresence;
use crate::dialects::wish::{InvalidPurgeRequest, PurgeTarget, TargetHosts};
use crate::http::forward::RequestSender;
use crate::http::path::text;
use crate::http::reference::without_port;
use crate::proxy::Generation;
use crate::proxy::context::normal_host;

/// The address that a request to purge was sent to.
#[derive(Clone, Copy)]
pub struct PurgeAddress<'a> {
    host: &'a str,
    /// The scheme, and whether a trusted proxy tells it.
    scheme: Option<(&'static str, SchemeSource)>,
}

/// How the scheme of a request to purge is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SchemeSource {
    /// The client may not have come over it.
    Connection,
    /// A trusted proxy has told it, so it is the only one.
    TrustedProxy,
}

impl<'a> PurgeAddress<'a> {
    /// The address of a request on a listener.
    pub fn of(host: &'a str, caller: &RequestSender) -> Self {
        let source = match caller.is_scheme_told() {
            true => SchemeSource::TrustedProxy,
            false => SchemeSource::Connection,
        };
        Self {
            host,
            scheme: Some((caller.scheme(), source)),
        }
    }

    /// Nothing is known: the request came to the admin listener.
    pub fn none() -> Self {
        Self {
            host: "",
            scheme: None,
        }
    }
}

/// What a purge reaches: selectors, and descriptions of them for people.
#[derive(Default)]
pub struct PurgeReach {
    pub selectors: Vec<Selector>,
    pub names: Vec<String>,
    pub notes: Vec<String>,
}

/// The most things that a line of the log names.
const MOST_IN_A_LINE: usize = 20;

impl PurgeReach {
    /// What was reached, for the log.
    pub fn named(&self) -> String {
        listed(&self.names, ", ")
    }

    /// What may not have been reached, for the log.
    pub fn noted(&self) -> Option<String> {
        (!self.notes.is_empty()).then(|| listed(&self.notes, "; "))
    }

    /// Why nothing is reached, as the end of a sentence.
    pub fn nothing(&self) -> InvalidPurgeRequest {
        let why: String = self.notes.iter().map(|note| format!(": {note}")).collect();
        InvalidPurgeRequest::not_found(format!("no route caches this{why}"))
    }

    fn add(&mut self, name: String, selectors: impl IntoIterator<Item = Selector>) {
        self.names.push(name);
        self.selectors.extend(selectors);
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

fn listed(texts: &[String], between: &str) -> String {
    let named = texts[..texts.len().min(MOST_IN_A_LINE)].join(between);
    match texts.len() - texts.len().min(MOST_IN_A_LINE) {
        0 => named,
        more => format!("{named}{between}and {more} more"),
    }
}

impl fmt::Display for PurgeReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names
            .iter()
            .chain(&self.notes)
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Generation {
    /// What these targets are in the cache.
    ///
    /// # Errors
    /// If one of them is no URL or is refused by the rules for paths: then nothing is purged.
    pub fn reach(
        &self,
        targets: &[PurgeTarget],
        address: PurgeAddress<'_>,
    ) -> Result<PurgeReach, InvalidPurgeRequest> {
        let mut reach = PurgeReach::default();
        for target in targets {
            self.add_target(target, address, &mut reach)?;
        }
        Ok(reach)
    }

    /// Adds what one target is in the cache.
    ///
    /// # Errors
    /// As for [`Self::reach`].
    pub fn add_target(
        &self,
        target: &PurgeTarget,
        address: PurgeAddress<'_>,
        reach: &mut PurgeReach,
    ) -> Result<(), InvalidPurgeRequest> {
        match target {
            PurgeTarget::Everything => reach.add("all".to_owned(), [Selector::All]),
            PurgeTarget::Tag(tag) => {
                reach.add(format!("tag {tag}"), [Selector::Tag(tag.clone())]);
            }
            PurgeTarget::ContentType(kind) => {
                let tag = content_type_tag(kind);
                reach.add(format!("type {kind}"), [Selector::Tag(tag)]);
            }
            PurgeTarget::Route(name) => {
                reach.add(format!("route {name}"), [Selector::Route(name.clone())]);
            }
            PurgeTarget::Beginning(hosts, path) => {
                for host in self.purge_method.hosts(hosts, address) {
                    let prefix = format!("{host}{path}");
                    let selectors = Selector::prefixes(&prefix);
                    reach.add(format!("prefix {prefix}"), selectors);
                }
            }
            PurgeTarget::Pattern(hosts, path) => {
                let pattern = path.replace('\\', r"\\").replace('?', r"\?");
                for host in self.purge_method.hosts(hosts, address) {
                    let selectors = Selector::patterns(&format!("{host}{pattern}"));
                    reach.add(format!("pattern {host}{path}"), selectors);
                }
            }
            PurgeTarget::Page(TargetHosts::Every, path) => {
                // Entries are found by the address under which they were first asked for, and the
                // key may leave out parameters of that, or sort them.
                let without_query = path.split('?').next().unwrap_or_default();
                let with_any = Selector::prefixes(&format!("{without_query}?"));
                let selectors = Selector::addresses(path).into_iter().chain(with_any);
                reach.add(format!("url {path} on every host"), selectors);
            }
            PurgeTarget::Page(hosts, path) => return self.add_page(hosts, path, address, reach),
        }
        Ok(())
    }

    fn add_page(
        &self,
        hosts: &TargetHosts,
        path: &str,
        address: PurgeAddress<'_>,
        reach: &mut PurgeReach,
    ) -> Result<(), InvalidPurgeRequest> {
        let refused = |why: &dyn fmt::Display| {
            InvalidPurgeRequest::malformed(format!("{hosts}{path} is refused: {why}"))
        };
        let uri: Uri = text::whole(path).parse().map_err(|error| refused(&error))?;
        let (mut reached, mut refusal) = (reach.selectors.len(), None);
        for (scheme, host) in self.purge_method.places(hosts, address) {
            let found = self.by_url(scheme, &host, &uri);
            if !found.selectors.is_empty() {
                reach.add(format!("url {scheme}://{host}{path}"), found.selectors);
            }
            found.note.into_iter().for_each(|note| reach.note(note));
            refusal = refusal.or(found.refusal);
        }
        reached = reach.selectors.len() - reached;
        match refusal.filter(|_| reached == 0) {
            Some(why) => Err(refused(&why)),
            None => Ok(()),
        }
    }

    /// Whether something of these targets is stored on this node. Only pages are looked up.
    pub(super) fn presence(
        &self,
        cache: &Cache,
        targets: &[PurgeTarget],
        address: PurgeAddress<'_>,
    ) -> StoredPresence {
        let is_held = |target: &PurgeTarget| {
            let PurgeTarget::Page(hosts, path) = target else {
                return true;
            };
            let Ok(uri) = text::whole(path).parse() else {
                return false;
            };
            self.purge_method
                .places(hosts, address)
                .into_iter()
                .any(|(scheme, host)| {
                    let found = self.keys_of_get(scheme, &host, &uri, HeaderMap::new());
                    found.keys.iter().any(|key| cache.may_hold(key))
                })
        };
        match targets.iter().any(is_held) {
            true => StoredPresence::Assumed,
            false => StoredPresence::Absent,
        }
    }
}

impl PurgeMethod {
    /// The hosts under which entries may be stored; an empty one stands for all.
    fn hosts(&self, hosts: &TargetHosts, address: PurgeAddress<'_>) -> Vec<String> {
        if *hosts == TargetHosts::Every {
            return vec![String::new()];
        }
        let places = self.places(hosts, address).into_iter();
        let mut hosts: Vec<String> = places.map(|(_, host)| host).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// The addresses under which clients may have asked for the page: each scheme, with the host as
    /// it is written, with the default port and with the ports of the listeners. An application
    /// that purges without going through the proxy in front does not say which of them clients use.
    /// If a trusted proxy reports the scheme and host, only these count.
    fn places(
        &self,
        hosts: &TargetHosts,
        address: PurgeAddress<'_>,
    ) -> Vec<(&'static str, String)> {
        let (host, scheme) = match hosts {
            TargetHosts::One(host) => (host.as_str(), None),
            TargetHosts::OfRequest | TargetHosts::Every => (address.host, address.scheme),
        };
        let mut places: Vec<_> = scheme
            .iter()
            .map(|(scheme, _)| (*scheme, host.to_owned()))
            .collect();
        if !matches!(scheme, Some((_, SchemeSource::TrustedProxy))) {
            let name = without_port(host);
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
        places
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::proxy::config::PurgeMethodConfig;
    use crate::proxy::metrics::RequestFamilies;

    fn places(ports: [u16; 4], scheme: Option<(&'static str, SchemeSource)>) -> Vec<String> {
        let families = RequestFamilies::new(&Registry::new(), 100).unwrap();
        let config = PurgeMethodConfig::default();
        let method = PurgeMethod::new(&config, ports.into_iter(), Vec::new(), &families).unwrap();
        let host = "shop.example:8080";
        let address = PurgeAddress { host, scheme };
        let places = method.places(&TargetHosts::OfRequest, address).into_iter();
        places
            .map(|(scheme, host)| format!("{scheme}://{host}"))
            .collect()
    }

    /// PD3: the ports of the listeners, of which clients use one and the application another.
    #[test]
    fn a_page_is_looked_for_under_each_scheme_and_port_that_serves_it() {
        let by_connection = places(
            [443, 8443, 0, 8443],
            Some(("http", SchemeSource::Connection)),
        );
        let expected = [
            "http://shop.example",
            "http://shop.example:443",
            "http://shop.example:8080",
            "http://shop.example:8443",
            "https://shop.example",
            "https://shop.example:8080",
            "https://shop.example:8443",
        ];
        assert_eq!(by_connection, expected);
        let told = places(
            [443, 8443, 0, 80],
            Some(("https", SchemeSource::TrustedProxy)),
        );
        assert_eq!(
            told,
            ["https://shop.example:8080"],
            "a proxy says which one"
        );
    }
}
