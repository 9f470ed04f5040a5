//! Names of hosts that clients write in requests to purge.

use http::uri::Authority;

/// Whether a request may be for this host: a name in ASCII or an address, with or without a port. No
/// entry is stored for anything else, so a purge of it would reach nothing.
pub fn is_host(text: &str) -> bool {
    let is_known = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    let Ok(authority) = text.parse::<Authority>() else {
        return false;
    };
    let port = &text[authority.host().len()..];
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    text.bytes().all(is_known)
        && !authority.host().is_empty()
        && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_request_is_for_is_no_host() {
        for host in [
            "shop.example",
            "SHOP.example.",
            "a_b.example:8080",
            "10.0.0.1",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_host(host), "{host}");
        }
        for other in [
            "",
            ":80",
            "müller.example",
            "shop.example:abc",
            "shop.example:",
            "shop.example:70000",
            "shop.example\\a",
            "u@shop.example",
            "*.example",
            "a,b",
            "a b",
            "a/b",
            "::1",
            "[::1",
        ] {
            assert!(!is_host(other), "{other}");
        }
    }
}
