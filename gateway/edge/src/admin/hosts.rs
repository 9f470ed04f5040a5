//! The host names that the admin listener answers to.
//!
//! For the browser, a page whose name was made to resolve to this machine (DNS rebinding) has the
//! same origin as the listener, and could read everything that needs no token. Its name in `Host`
//! or `:authority` gives it away: it is the page's name and none of ours. Addresses can't be
//! rebound, but only our own addresses are accepted. Ports don't matter, since a forwarded port has
//! another number.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;

use crate::http::server::LocalEndpoint;
use crate::pattern::Pattern;

/// The names of this listener.
pub struct AdminHostNames {
    /// The address of the listener. None if it is a Unix socket.
    listener: Option<SocketAddr>,
    /// `admin.hosts`, in lower case.
    further: Vec<Pattern>,
}

impl AdminHostNames {
    pub fn new(listener: Option<SocketAddr>, further: &[String]) -> Self {
        let further = further.iter().map(|name| name.to_ascii_lowercase());
        Self {
            listener,
            further: further.map(|name| Pattern::new(&name)).collect(),
        }
    }

    /// Whether a request for this host, which arrived at the local endpoint `reached`, is meant for
    /// us. Browsers cannot reach a Unix socket, and its clients have no host name for it.
    pub fn are_meant_by(&self, host: Option<&Authority>, reached: LocalEndpoint) -> bool {
        let LocalEndpoint::Tcp(local) = reached else {
            return true;
        };
        let Some(host) = host.map(|host| host.host().to_ascii_lowercase()) else {
            return false;
        };
        let host = host.strip_suffix('.').unwrap_or(&host);
        let is_ours = match address(host) {
            Some(address) => {
                let is = |ours: SocketAddr| ours.ip().to_canonical() == address;
                address.is_loopback() || is(local) || self.listener.is_some_and(is)
            }
            None => host == "localhost" || host.ends_with(".localhost"),
        };
        is_ours || self.further.iter().any(|name| name.matches(host))
    }
}

/// An address, written as it is in a URL.
fn address(host: &str) -> Option<IpAddr> {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let address = match inner {
        Some(inner) => inner.parse().map(IpAddr::V6),
        None => host.parse().map(IpAddr::V4),
    };
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(listener: &str, local: &str, host: &str) -> bool {
        let further = ["Admin.Example".to_owned(), "*.svc.cluster.local".to_owned()];
        let hosts = AdminHostNames::new(Some(listener.parse().unwrap()), &further);
        let host: Authority = host.parse().unwrap();
        hosts.are_meant_by(Some(&host), LocalEndpoint::Tcp(local.parse().unwrap()))
    }

    #[test]
    fn loopback_names_the_own_address_and_listed_names_are_ours() {
        for host in [
            "localhost",
            "LOCALHOST:9180",
            "localhost.:80",
            "node.localhost:1",
            "127.0.0.1",
            "127.8.9.10:9180",
            "[::1]:9180",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:1",
            "10.1.2.3:9180",
            "[::ffff:10.1.2.3]",
            "0.0.0.0:9180",
            "admin.example:443",
            "ADMIN.example.",
            "a.b.svc.cluster.local:9180",
        ] {
            assert!(ours("0.0.0.0:9180", "10.1.2.3:9180", host), "{host}");
        }
        assert!(ours("[::]:9180", "[fe80::1]:9180", "[fe80::1]"));
        assert!(ours("[::]:9180", "[::ffff:10.0.0.1]:9180", "10.0.0.1:9180"));
    }

    #[test]
    fn any_other_name_is_foreign() {
        for host in [
            "evil.example",
            "evil.example:9180",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1.nip.io",
            "notlocalhost",
            "localhost..",
            "localhost-evil",
            "10.1.2.4",
            "0.0.0.0",
            "128.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "[::2]",
            "[::]",
            "admin.example.evil",
            "xadmin.example",
            "svc.cluster.local",
        ] {
            assert!(!ours("10.1.2.3:9180", "10.1.2.3:9180", host), "{host}");
        }
    }

    #[test]
    fn a_request_without_a_host_is_for_a_unix_socket_alone() {
        let hosts = AdminHostNames::new(None, &[]);
        let local = LocalEndpoint::Tcp("127.0.0.1:1".parse().unwrap());
        assert!(!hosts.are_meant_by(None, local));
        assert!(hosts.are_meant_by(None, LocalEndpoint::Unix { user: None }));
    }
}
