//! Networks in CIDR notation: whom the listener believes.
//!
//! An IPv4 address inside IPv6 (`::ffff:10.1.2.3`, as a dual-stack socket shows it)
//! is the IPv4 address, in networks and in addresses alike.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network, or a single address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// A text that names no network.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{given:?} is not an address or a network, as in 10.1.2.3, 10.0.0.0/8 or 2001:db8::/32")]
pub struct CidrError {
    given: String,
}

impl Cidr {
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == self.network
            && address.to_canonical().is_ipv4() == self.network.is_ipv4()
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `10.0.0.0/8` or a plain address. Bits behind the prefix are dropped.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        parse(text.trim()).ok_or_else(|| CidrError {
            given: text.to_owned(),
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn parse(text: &str) -> Option<Cidr> {
    let (address, prefix) = text
        .split_once('/')
        .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let bits = bits(address);
    let prefix = match prefix {
        None => bits,
        Some(digits) if digits.bytes().all(|octet| octet.is_ascii_digit()) => {
            digits.parse().ok().filter(|&prefix| prefix <= bits)?
        }
        Some(_) => return None,
    };
    let canonical = address.to_canonical();
    if canonical.is_ipv4() && address.is_ipv6() && prefix < 96 {
        // Bits of the address count, and yet no address like it would be in the network.
        return None;
    }
    // A mapped network narrower than all of IPv4 is the IPv4 network.
    let (network, prefix) = match canonical {
        IpAddr::V4(_) if address.is_ipv6() && prefix >= 96 => (canonical, prefix - 96),
        _ => (address, prefix),
    };
    Some(Cidr {
        network: masked(network, prefix),
        prefix,
    })
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first `prefix` bits of an address, zeros behind them.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let dropped = u32::from(bits(address).saturating_sub(prefix));
    match address {
        IpAddr::V4(v4) => {
            IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(dropped).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(dropped).unwrap_or(0)).into())
        }
    }
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
