//! A list of addresses and networks (CIDR): whose forwarding headers are believed.

use std::net::IpAddr;

/// Networks as `trusted_proxies` lists them.
#[derive(Default, Debug)]
pub(super) struct Networks(Vec<Network>);

#[derive(Debug)]
struct Network {
    address: IpAddr,
    /// Leading bits that must agree.
    prefix: u32,
}

impl Networks {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or a single address.
    ///
    /// # Errors
    /// The text that is none of these.
    pub(super) fn parse(texts: &[String]) -> Result<Self, String> {
        let networks = texts
            .iter()
            .map(|text| parse(text).ok_or_else(|| text.clone()));
        networks.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        // A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = u32::from(own) ^ u32::from(other);
                differing.leading_zeros() >= self.prefix
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = u128::from(own) ^ u128::from(other);
                differing.leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }
}

fn parse(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(bits);
    (prefix <= bits).then_some(Network { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::Networks;

    fn networks(texts: &[&str]) -> Result<Networks, String> {
        Networks::parse(
            &texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn addresses_are_in_their_networks() {
        let list =
            networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/33", "203.0.113.0/32"]).unwrap();
        for inside in [
            "10.255.1.2",
            "192.0.2.7",
            "::ffff:10.0.0.1",
            "2001:db8:7fff::1",
        ] {
            assert!(list.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "11.0.0.0",
            "192.0.2.8",
            "2001:db8:8000::1",
            "::1",
            "203.0.113.1",
        ] {
            assert!(!list.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(
            networks(&["0.0.0.0/0"])
                .unwrap()
                .contains("8.8.8.8".parse().unwrap())
        );
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in [
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0",
            "::/129",
            "example.com",
            "",
        ] {
            assert_eq!(networks(&[text]).unwrap_err(), text);
        }
    }
}
