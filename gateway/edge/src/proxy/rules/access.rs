//! Which addresses may send requests to a route.

pub mod config;

use std::net::IpAddr;

use http::StatusCode;

use crate::http::cidr::Cidr;
use crate::proxy::counted::CountedResponse;
use crate::proxy::metrics::RequestOutcome;
use crate::proxy::respond;
use config::AccessConfig;

/// The networks that may ask, and those that may not.
pub struct AccessList {
    allow: Box<[Cidr]>,
    deny: Box<[Cidr]>,
}

impl AccessList {
    /// None: everybody may ask.
    pub fn new(config: &AccessConfig) -> Option<Self> {
        let list = Self {
            allow: networks(&config.allow),
            deny: networks(&config.deny),
        };
        (!list.allow.is_empty() || !list.deny.is_empty()).then_some(list)
    }

    /// The answer to a client that may not ask. One whose address is unknown may not: it could be in
    /// any network, and a client may make its own address unknown.
    pub fn refuse(&self, client: Option<IpAddr>) -> Option<CountedResponse> {
        if self.allows(client) {
            return None;
        }
        let answer = respond::plain(StatusCode::FORBIDDEN, "403 forbidden\n");
        Some(CountedResponse::new(answer, RequestOutcome::Error))
    }

    fn allows(&self, client: Option<IpAddr>) -> bool {
        let Some(client) = client else {
            return false;
        };
        let holds = |list: &[Cidr]| list.iter().any(|network| network.contains(client));
        !holds(&self.deny) && (self.allow.is_empty() || holds(&self.allow))
    }

    /// The list in words.
    pub fn describe(&self) -> String {
        let words = |list: &[Cidr]| {
            let texts: Vec<_> = list.iter().map(Cidr::to_string).collect();
            texts.join(", ")
        };
        match (self.deny.is_empty(), self.allow.is_empty()) {
            (true, _) => format!("access: only {}", words(&self.allow)),
            (false, true) => format!("access: all but {}", words(&self.deny)),
            (false, false) => {
                let (allow, deny) = (words(&self.allow), words(&self.deny));
                format!("access: only {allow}, and not {deny}")
            }
        }
    }
}

fn networks(texts: &[String]) -> Box<[Cidr]> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(allow: &[&str], deny: &[&str], client: Option<&str>) -> bool {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let config = AccessConfig {
            allow: texts(allow),
            deny: texts(deny),
        };
        let list = AccessList::new(&config);
        let client = client.map(|client| client.parse().unwrap());
        list.is_none_or(|list| list.allows(client))
    }

    #[test]
    fn what_is_denied_is_denied_also_where_it_is_allowed() {
        let cases = [
            (&[][..], &[][..], Some("192.0.2.1"), true),
            (&["10.0.0.0/8"][..], &[][..], Some("10.1.2.3"), true),
            (&["10.0.0.0/8"][..], &[][..], Some("::ffff:10.1.2.3"), true),
            (&["10.0.0.0/8"][..], &[][..], Some("192.0.2.1"), false),
            (&[][..], &["192.0.2.0/24"][..], Some("192.0.2.1"), false),
            (&[][..], &["192.0.2.0/24"][..], Some("2001:db8::1"), true),
            (
                &["10.0.0.0/8"][..],
                &["10.6.6.6"][..],
                Some("10.6.6.6"),
                false,
            ),
            (&["10.0.0.0/8"][..], &[][..], None, false),
            (&[][..], &["10.0.0.0/8"][..], None, false),
        ];
        for (allow, deny, client, expected) in cases {
            assert_eq!(
                allows(allow, deny, client),
                expected,
                "{allow:?} {deny:?} {client:?}"
            );
        }
    }
}
