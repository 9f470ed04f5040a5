//! Who a token belongs to, and what it is good for.
//!
//! Decision: digests are compared, and always all of them, so that how long the answer
//! takes tells neither how long a token is nor which of them was nearly right.

use http::HeaderMap;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::config::{Config, Right};
use crate::http::bearer;

/// All tokens; none where everything is open to who reaches the listener.
pub struct Tokens(Vec<Token>);

struct Token {
    name: String,
    digest: [u8; 32],
    can: Vec<Right>,
}

/// Who sends a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller<'a> {
    /// The owner of the token with this name.
    Named(&'a str),
    /// Somebody without a token.
    Anonymous,
    /// Somebody with a token that is none of ours.
    Unknown,
}

/// Whether a caller may do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Allowed,
    /// A token is needed, and there is none or a wrong one.
    NoToken,
    /// The token does not have this right.
    Lacks(Right),
}

/// The name of `admin.token` in the audit lines.
pub const ALMIGHTY: &str = "admin";

impl Tokens {
    pub fn new(config: &Config) -> Self {
        let almighty = config.token.iter().map(|token| Token {
            name: ALMIGHTY.to_owned(),
            digest: digest(token.as_bytes()),
            can: Right::ALL.to_vec(),
        });
        let named = config.tokens.iter().filter_map(|named| {
            Some(Token {
                name: named.name.clone(),
                digest: digest(named.token.as_ref()?.as_bytes()),
                can: named.can.clone(),
            })
        });
        Self(almighty.chain(named).collect())
    }

    /// Whether there are any.
    pub fn are_asked_for(&self) -> bool {
        !self.0.is_empty()
    }

    /// Who sends the request, and whether they have this right.
    pub fn judge(&self, headers: &HeaderMap, right: Right) -> (Caller<'_>, Verdict) {
        let given = bearer::given(headers);
        let Some(token) = given.and_then(|given| self.owner(given)) else {
            let caller = given.map_or(Caller::Anonymous, |_| Caller::Unknown);
            return match self.are_asked_for() {
                true => (caller, Verdict::NoToken),
                false => (Caller::Anonymous, Verdict::Allowed),
            };
        };
        let verdict = match token.can.contains(&right) {
            true => Verdict::Allowed,
            false => Verdict::Lacks(right),
        };
        (Caller::Named(&token.name), verdict)
    }

    fn owner(&self, given: &[u8]) -> Option<&Token> {
        let given = digest(given);
        let mut found = u32::MAX;
        for (number, token) in (0..).zip(&self.0) {
            found.conditional_assign(&number, token.digest.ct_eq(&given));
        }
        self.0.get(found as usize)
    }
}

impl Caller<'_> {
    /// As the audit lines have it.
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

    fn tokens(almighty: Option<&str>, named: &[(&str, &[Right])]) -> Tokens {
        let named = named.iter().map(|(name, can)| NamedToken {
            name: (*name).to_owned(),
            token: Some(format!("token of {name}")),
            token_file: None,
            can: can.to_vec(),
        });
        Tokens::new(&Config {
            token: almighty.map(str::to_owned),
            tokens: named.collect(),
            ..Config::default()
        })
    }

    fn with(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    #[test]
    fn without_tokens_everybody_is_anonymous_and_allowed() {
        let none = tokens(None, &[]);
        let allowed = (Caller::Anonymous, Verdict::Allowed);
        assert_eq!(none.judge(&HeaderMap::new(), Right::Purge), allowed);
        assert_eq!(none.judge(&with("whatever"), Right::Purge), allowed);
    }

    #[test]
    fn each_token_is_its_owners_and_has_its_rights_alone() {
        let all = tokens(
            Some("the one"),
            &[
                ("reader", &[Right::Read]),
                ("ci", &[Right::Purge, Right::Plugins]),
            ],
        );
        for right in Right::ALL {
            assert_eq!(
                all.judge(&with("the one"), right),
                (Caller::Named(ALMIGHTY), Verdict::Allowed)
            );
            let verdict = |is: bool| {
                if is {
                    Verdict::Allowed
                } else {
                    Verdict::Lacks(right)
                }
            };
            assert_eq!(
                all.judge(&with("token of reader"), right),
                (Caller::Named("reader"), verdict(right == Right::Read))
            );
            let changes = matches!(right, Right::Purge | Right::Plugins);
            assert_eq!(
                all.judge(&with("token of ci"), right),
                (Caller::Named("ci"), verdict(changes))
            );
            assert_eq!(
                all.judge(&HeaderMap::new(), right),
                (Caller::Anonymous, Verdict::NoToken)
            );
            for wrong in ["", "token of", "token of reader ", "TOKEN OF READER"] {
                let judged = all.judge(&with(wrong), right);
                assert_eq!(judged, (Caller::Unknown, Verdict::NoToken), "{wrong:?}");
            }
        }
    }
}
