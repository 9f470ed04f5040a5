//! Networks in CIDR notation, for the peers that a listener trusts.
//!
//! An IPv4 address inside IPv6 (`::ffff:10.1.2.3`, as a dual-stack socket shows it) is treated as
//! the IPv4 address, in networks and in addresses alike.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// A network, or a single address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr(IpNet);

/// A text that is not a network.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{given:?} is not an address or a network, as in 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32")]
pub struct CidrError {
    given: String,
}

impl Cidr {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Parses `10.0.0.0/8` or a plain address. Bits behind the prefix are dropped.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        parse(text.trim()).ok_or_else(|| CidrError {
            given: text.to_owned(),
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn parse(text: &str) -> Option<Cidr> {
    // `ipnet` reads octets with leading zeros, which others take for octal numbers.
    let address: IpAddr = text.split('/').next()?.parse().ok()?;
    let given = match text.contains('/') {
        true => text.parse::<IpNet>().ok()?,
        false => IpNet::from(address),
    };
    let mapped = match given {
        IpNet::V4(_) => None,
        IpNet::V6(network) => network.addr().to_ipv4_mapped(),
    };
    let network = match mapped {
        None => given,
        // A network of mapped addresses whose prefix has at least 96 bits is an IPv4 network. A
        // wider one is refused: no address would match it, since mapped addresses are compared as
        // IPv4.
        Some(address) => {
            let prefix = given.prefix_len().checked_sub(96)?;
            IpNet::V4(Ipv4Net::new(address, prefix).ok()?)
        }
    };
    Some(Cidr(network.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn contains(network: &str, address: &str) -> bool {
        network
            .parse::<Cidr>()
            .unwrap()
            .contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_its_addresses() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.0.0.1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::1", "::1", true),
        ] {
            assert_eq!(contains(network, address), inside, "{network} {address}");
        }
    }

    #[test]
    fn what_is_no_network_says_what_is_expected() {
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "example.org",
            "10.0.0.0/8/8",
            "::ffff:10.0.0.0/8",
            "010.0.0.0/8",
            "::ffff:00.0.0.0/104",
        ] {
            assert!(
                bad.parse::<Cidr>()
                    .is_err_and(|error| error.to_string().contains("10.0.0.0/8")),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn an_address_is_in_each_of_its_networks(v4 in any::<u32>(), v6 in any::<u128>(), short in 0u8..=32, long in 0u8..=128) {
            for (address, prefix) in [(IpAddr::V4(Ipv4Addr::from(v4)), short), (IpAddr::V6(Ipv6Addr::from(v6)), long)] {
                let network: Cidr = format!("{address}/{prefix}").parse().unwrap();
                prop_assert!(network.contains(address));
                prop_assert_eq!(network.to_string().parse(), Ok(network));
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,30}") {
            let _ = text.parse::<Cidr>();
        }
    }
}
