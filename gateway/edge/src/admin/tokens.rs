//! Who a token belongs to, and which rights it has.
//!
//! Decision: digests are compared, and always all of them, so that the time of an answer reveals
//! neither the length of a token nor which of them was nearly right.

use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::config::{AdminConfig, AdminRight};
use crate::http::bearer;

/// All tokens. If there are none, everything is open to everybody who reaches the listener.
pub struct AdminTokens(Vec<AdminToken>);

struct AdminToken {
    name: String,
    digest: [u8; 32],
    can: Vec<AdminRight>,
}

/// The sender of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminCaller<'a> {
    /// The owner of the token with this name.
    Named(&'a str),
    /// Somebody without a token.
    Anonymous,
    /// Somebody with an unknown token.
    Unknown,
}

/// Whether a caller may do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthorizationVerdict {
    Allowed,
    /// A token is needed, and it is missing or unknown.
    NoToken,
    /// The token does not have this right.
    Lacks(AdminRight),
}

/// The name of `admin.token` in the audit lines.
pub const ALMIGHTY: &str = "admin";

impl AdminTokens {
    pub fn new(config: &AdminConfig) -> Self {
        let almighty = config.token.iter().map(|token| AdminToken {
            name: ALMIGHTY.to_owned(),
            digest: digest(token.as_bytes()),
            can: AdminRight::ALL.to_vec(),
        });
        let named = config.tokens.iter().filter_map(|named| {
            Some(AdminToken {
                name: named.name.clone(),
                digest: digest(named.token.as_ref()?.as_bytes()),
                can: named.can.clone(),
            })
        });
        Self(almighty.chain(named).collect())
    }

    /// Whether any tokens are configured.
    pub fn are_asked_for(&self) -> bool {
        !self.0.is_empty()
    }

    /// Returns who sends the request, and whether they have this right. The token comes as
    /// `Authorization: Bearer`, or in one of these fields.
    pub fn judge(
        &self,
        headers: &HeaderMap,
        fields: &[HeaderName],
        right: AdminRight,
    ) -> (AdminCaller<'_>, AuthorizationVerdict) {
        let in_field = || fields.iter().find_map(|name| headers.get(name));
        let given = bearer::presented(headers).or_else(|| in_field().map(|value| value.as_bytes()));
        let Some(token) = given.and_then(|given| self.owner(given)) else {
            let caller = given.map_or(AdminCaller::Anonymous, |_| AdminCaller::Unknown);
            return match self.are_asked_for() {
                true => (caller, AuthorizationVerdict::NoToken),
                false => (AdminCaller::Anonymous, AuthorizationVerdict::Allowed),
            };
        };
        let verdict = match token.can.contains(&right) {
            true => AuthorizationVerdict::Allowed,
            false => AuthorizationVerdict::Lacks(right),
        };
        (AdminCaller::Named(&token.name), verdict)
    }

    fn owner(&self, given: &[u8]) -> Option<&AdminToken> {
        let given = digest(given);
        let mut found = u32::MAX;
        for (number, token) in (0..).zip(&self.0) {
            found.conditional_assign(&number, token.digest.ct_eq(&given));
        }
        self.0.get(found as usize)
    }
}

impl AdminCaller<'_> {
    /// The name in the audit lines.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Anonymous => "anonymous",
            Self::Unknown => "unknown token",
        }
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::admin::config::NamedToken;

    fn tokens(almighty: Option<&str>, named: &[(&str, &[AdminRight])]) -> AdminTokens {
        let named = named.iter().map(|(name, can)| NamedToken {
            name: (*name).to_owned(),
            token: Some(format!("token of {name}")),
            token_file: None,
            can: can.to_vec(),
        });
        AdminTokens::new(&AdminConfig {
            token: almighty.map(str::to_owned),
            tokens: named.collect(),
            ..AdminConfig::default()
        })
    }

    fn with(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    #[test]
    fn without_tokens_everybody_is_anonymous_and_allowed() {
        let none = tokens(None, &[]);
        let allowed = (AdminCaller::Anonymous, AuthorizationVerdict::Allowed);
        assert_eq!(
            none.judge(&HeaderMap::new(), &[], AdminRight::Purge),
            allowed
        );
        assert_eq!(
            none.judge(&with("whatever"), &[], AdminRight::Purge),
            allowed
        );
    }

    #[test]
    fn each_token_is_its_owners_and_has_its_rights_alone() {
        let all = tokens(
            Some("the one"),
            &[
                ("reader", &[AdminRight::Read]),
                ("ci", &[AdminRight::Purge, AdminRight::Plugins]),
            ],
        );
        for right in AdminRight::ALL {
            assert_eq!(
                all.judge(&with("the one"), &[], right),
                (AdminCaller::Named(ALMIGHTY), AuthorizationVerdict::Allowed)
            );
            let verdict = |is: bool| {
                if is {
                    AuthorizationVerdict::Allowed
                } else {
                    AuthorizationVerdict::Lacks(right)
                }
            };
            assert_eq!(
                all.judge(&with("token of reader"), &[], right),
                (
                    AdminCaller::Named("reader"),
                    verdict(right == AdminRight::Read)
                )
            );
            let changes = matches!(right, AdminRight::Purge | AdminRight::Plugins);
            assert_eq!(
                all.judge(&with("token of ci"), &[], right),
                (AdminCaller::Named("ci"), verdict(changes))
            );
            assert_eq!(
                all.judge(&HeaderMap::new(), &[], right),
                (AdminCaller::Anonymous, AuthorizationVerdict::NoToken)
            );
            for wrong in ["", "token of", "token of reader ", "TOKEN OF READER"] {
                let judged = all.judge(&with(wrong), &[], right);
                assert_eq!(
                    judged,
                    (AdminCaller::Unknown, AuthorizationVerdict::NoToken),
                    "{wrong:?}"
                );
            }
        }
    }
}
