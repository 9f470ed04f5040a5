//! Texts of the configuration and the admin API that stand for one value: printed, they read back.
//!
//! Input: lines.

use std::net::IpAddr;

use lamina_base::units::{ByteSize, ConfigDuration};
use lamina_cache::key::KeyId;
use lamina_http::cidr::Cidr;

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    for text in input::texts(data) {
        match text.parse::<ConfigDuration>() {
            Ok(length) => {
                assert_eq!(length.to_string().parse(), Ok(length));
                assert!(
                    text.trim()
                        .starts_with(|c: char| c.is_ascii_digit() || c == '.')
                );
            }
            Err(error) => assert!(error.to_string().contains("250ms")),
        }
        match text.parse::<ByteSize>() {
            Ok(size) => assert_eq!(size.to_string().parse(), Ok(size)),
            Err(error) => assert!(error.to_string().contains("64KiB")),
        }
        if let Ok(network) = text.parse::<Cidr>() {
            assert_eq!(network.to_string().parse(), Ok(network));
            let address = text.split('/').next().unwrap_or_default().trim();
            let address: IpAddr = address.parse().expect("a network begins with an address");
            assert!(network.contains(address) && network.contains(address.to_canonical()));
        }
        if let Some(id) = KeyId::parse(text) {
            assert_eq!(
                id.to_string(),
                text.to_ascii_lowercase(),
                "one name, one spelling"
            );
        }
    }
}
