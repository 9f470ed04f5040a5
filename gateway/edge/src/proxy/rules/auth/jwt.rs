//! Signed tokens (RFC 7519): who sent a request, by the word of an issuer.
//!
//! Decision: about two hundred lines on AWS-LC, and no crate for tokens. The one that there is would
//! bring a choice of providers that panics at the first token where two are built in, and fetches
//! no keys. What makes tokens unsafe is left out: an algorithm is one that is configured, a key is
//! for one algorithm, `none` is no algorithm, and fields that change what a header means (`crit`)
//! are refused (RFC 8725).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::config::{JwtAlgorithm, JwtConfig, KeyLocation};
use super::key_set::KeySet;
use super::public_keys::PublicKey;
use super::taken::TakenField;
use super::verified_tokens::VerifiedTokens;
use super::{AuthRefusal, AuthenticatedUser, realm};
use crate::http::{bearer, cookies, field_value};
use crate::proxy::cover;

/// The most octets of a token.
const MOST_BYTES: usize = 16 << 10;
/// The most seconds that a verified token is remembered.
const MOST_REMEMBERED: f64 = 300.0;

/// What tokens of a route must be.
pub struct JwtAuth {
    keys: Arc<KeySet>,
    verified: VerifiedTokens,
    secret: Option<hmac::Key>,
    issuer: String,
    audience: Vec<String>,
    algorithms: Vec<JwtAlgorithm>,
    leeway: Duration,
    take: Vec<(HeaderName, String)>,
    /// The cookie that has the token of a request without `Authorization`.
    cookie: Option<Box<[u8]>>,
    missing: HeaderValue,
    wrong: HeaderValue,
    text: String,
}

/// A token whose signature was not looked at.
struct ShownToken {
    header: TokenHeader,
    message: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Where a request shows its token.
enum TokenPlace<'a> {
    Nowhere,
    At(&'a [u8]),
    /// In several places, or in a form that is not read.
    Unclear,
}

/// What can be said of a token.
enum TokenVerdict {
    /// It is this user's, for that long.
    Good(AuthenticatedUser, Duration),
    /// Its key is not known.
    KeyUnknown,
    Bad(&'static str),
}

impl JwtAuth {
    pub fn new(config: &JwtConfig, keys: Arc<KeySet>, realm_name: Option<&str>) -> Self {
        let secret = config.secret.as_ref();
        let take = config.take.iter();
        let place = match config.location() {
            KeyLocation::Server { server, path } => format!("{server}{path}"),
            KeyLocation::Upstream { name, path } => format!("upstream {name}, {path}"),
            KeyLocation::File(file) => file.to_owned(),
            KeyLocation::Nowhere => "a shared secret".to_owned(),
        };
        Self {
            keys,
            verified: VerifiedTokens::default(),
            secret: secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            algorithms: config.algorithms.clone(),
            leeway: config.leeway.0,
            take: take
                .filter_map(|(name, claim)| Some((name.parse().ok()?, claim.clone())))
                .collect(),
            cookie: config.cookie.as_ref().map(|name| name.as_bytes().into()),
            missing: realm("Bearer", realm_name, ""),
            wrong: realm("Bearer", realm_name, ", error=\"invalid_token\""),
            text: format!("jwt of {}, keys of {place}", config.issuer),
        }
    }

    /// Whether keys must be fetched to say something about this request.
    pub fn may_wait(&self, headers: &HeaderMap) -> bool {
        if !self.keys.may_bring_more() {
            return false;
        }
        let TokenPlace::At(text) = self.find_token(headers) else {
            return false;
        };
        ShownToken::parse(text).is_some_and(|token| match self.algorithm(&token) {
            Some(JwtAlgorithm::HS256) | None => false,
            Some(algorithm) => token.fitting(&self.keys.keys(), algorithm).next().is_none(),
        })
    }

    /// Where a request shows its token. The cookie counts only without `Authorization`: a browser
    /// adds it by itself, and what a client has chosen to show goes before that.
    fn find_token<'h>(&self, headers: &'h HeaderMap) -> TokenPlace<'h> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        if lines.next().is_some() {
            let token = bearer::presented(headers).filter(|_| lines.next().is_none());
            return token.map_or(TokenPlace::Unclear, TokenPlace::At);
        }
        let Some(name) = &self.cookie else {
            return TokenPlace::Nowhere;
        };
        let mut values = cookies::values(headers, name).map(<[u8]>::trim_ascii_start);
        match (values.next(), values.next()) {
            (None, _) => TokenPlace::Nowhere,
            (Some(token), None) => TokenPlace::At(token),
            // Another site of the domain may have set one of them.
            (Some(_), Some(_)) => TokenPlace::Unclear,
        }
    }

    /// Takes the cookie with the token out of a request. Returns whether there was one.
    pub fn remove_cookie(&self, headers: &mut HeaderMap) -> bool {
        let is_it = |pair: &[u8], name: &[u8]| {
            let (own, value) = cookies::name_and_value(pair);
            own == name && value.is_some()
        };
        self.cookie
            .as_ref()
            .is_some_and(|name| cover::retain_pairs(headers, |pair| !is_it(pair, name)))
    }

    /// Finds out who sends a request.
    ///
    /// # Errors
    /// What he gets if that is nobody.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<AuthenticatedUser, AuthRefusal> {
        let text = match self.find_token(headers) {
            TokenPlace::At(text) => text,
            TokenPlace::Nowhere => return Err(AuthRefusal::missing(&self.missing)),
            TokenPlace::Unclear => return Err(AuthRefusal::wrong(&self.wrong)),
        };
        let mut keys = self.keys.keys();
        if let Some(user) = self.verified.find(text, &keys) {
            return Ok(user);
        }
        let Some(token) = ShownToken::parse(text) else {
            return Err(AuthRefusal::wrong(&self.wrong));
        };
        let mut verdict = self.judge(&token, &keys, SystemTime::now());
        if matches!(verdict, TokenVerdict::KeyUnknown) && self.keys.may_bring_more() {
            self.keys.fetch().await;
            keys = self.keys.keys();
            verdict = self.judge(&token, &keys, SystemTime::now());
        }
        match verdict {
            TokenVerdict::Good(user, holds) => {
                let until = Instant::now() + holds;
                self.verified.keep(text, &keys, (&user, until));
                Ok(user)
            }
            TokenVerdict::KeyUnknown if self.lacks_keys() => Err(AuthRefusal::unable()),
            TokenVerdict::KeyUnknown => Err(AuthRefusal::wrong(&self.wrong)),
            TokenVerdict::Bad(reason) => {
                tracing::debug!(reason, "a token was refused");
                Err(AuthRefusal::wrong(&self.wrong))
            }
        }
    }

    fn lacks_keys(&self) -> bool {
        self.keys.may_bring_more() && self.keys.keys().is_empty()
    }

    fn algorithm(&self, token: &ShownToken) -> Option<JwtAlgorithm> {
        let mut accepted = self.algorithms.iter().copied();
        accepted.find(|algorithm| algorithm.as_str() == token.header.alg)
    }

    fn judge(&self, token: &ShownToken, keys: &[PublicKey], now: SystemTime) -> TokenVerdict {
        let Some(algorithm) = self.algorithm(token) else {
            return TokenVerdict::Bad("its algorithm is not accepted");
        };
        if token.header.crit.is_some() {
            return TokenVerdict::Bad("it has extensions that must be understood");
        }
        let is_signed = match (algorithm, &self.secret) {
            (JwtAlgorithm::HS256, Some(secret)) => {
                hmac::verify(secret, &token.message, &token.signature).is_ok()
            }
            (JwtAlgorithm::HS256, None) => false,
            _ => {
                let mut fitting = token.fitting(keys, algorithm).peekable();
                if fitting.peek().is_none() {
                    return TokenVerdict::KeyUnknown;
                }
                fitting.any(|key| key.verifies(&token.message, &token.signature))
            }
        };
        if !is_signed {
            return TokenVerdict::Bad("its signature is wrong");
        }
        let Ok(claims) = serde_json::from_slice::<Map<String, Value>>(&token.claims) else {
            return TokenVerdict::Bad("its claims are no JSON object");
        };
        match self.check(&claims, now) {
            Ok(holds) => self.user(&claims, holds),
            Err(reason) => TokenVerdict::Bad(reason),
        }
    }

    /// For how long the claims hold and may be remembered.
    fn check(
        &self,
        claims: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<Duration, &'static str> {
        let now = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        let leeway = self.leeway.as_secs_f64();
        let number = |name: &str| claims.get(name).map(|value| value.as_f64().ok_or(()));
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err("its issuer is another one");
        }
        let is_ours = |value: &Value| {
            let text = value.as_str();
            text.is_some_and(|text| self.audience.iter().any(|ours| ours == text))
        };
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        if !is_for_us {
            return Err("it is for somebody else");
        }
        let holds = match number("exp") {
            Some(Ok(end)) if now < end + leeway => end + leeway - now,
            Some(Ok(_)) => return Err("it has expired"),
            _ => return Err("it says not when it expires"),
        };
        let holds = Duration::from_secs_f64(holds.min(MOST_REMEMBERED));
        match number("nbf") {
            None => Ok(holds),
            Some(Ok(begin)) if now + leeway >= begin => Ok(holds),
            Some(_) => Err("it does not hold yet"),
        }
    }

    fn user(&self, claims: &Map<String, Value>, holds: Duration) -> TokenVerdict {
        let mut taken: Vec<TakenField> = Vec::new();
        for (name, claim) in &self.take {
            let Some(text) = claims.get(claim).and_then(text) else {
                continue;
            };
            // What origins make of other letters differs.
            let value = Some(&text).filter(|text| text.is_ascii());
            match value.map(|text| field_value::of_text(text.as_bytes())) {
                Some(Ok(value)) => taken.push((name.clone(), value)),
                Some(Err(_)) | None => {
                    return TokenVerdict::Bad("a claim can't be the value of a field");
                }
            }
        }
        let name = claims.get("sub").and_then(Value::as_str);
        let user = AuthenticatedUser {
            name: name.map(Arc::from),
            taken,
            ..AuthenticatedUser::default()
        };
        TokenVerdict::Good(user, holds)
    }

    /// Begins to fetch the keys.
    pub fn begin_work(&self) {
        self.keys.begin_work();
    }

    /// The rule in words.
    pub fn describe(&self) -> String {
        self.text.clone()
    }
}

impl ShownToken {
    fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MOST_BYTES {
            return None;
        }
        let mut parts = text.split(|octet| *octet == b'.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).ok();
        Some(Self {
            header: serde_json::from_slice(&decode(header)?).ok()?,
            message: text[..header.len() + 1 + claims.len()].to_vec(),
            claims: decode(claims)?,
            signature: decode(signature)?,
        })
    }

    /// The keys that may have signed it.
    fn fitting<'a>(
        &'a self,
        keys: &'a [PublicKey],
        algorithm: JwtAlgorithm,
    ) -> impl Iterator<Item = &'a PublicKey> {
        let of_algorithm = keys.iter().filter(move |key| key.algorithm == algorithm);
        of_algorithm.filter(|key| self.may_be_of(key.id.as_deref()))
    }

    /// Whether a key of this name may have signed it.
    fn may_be_of(&self, id: Option<&str>) -> bool {
        match (self.header.kid.as_deref(), id) {
            (Some(kid), Some(id)) => kid == id,
            (Some(_), None) => false,
            (None, _) => true,
        }
    }
}

/// A claim as the value of a field: a text, a number, yes or no, or a list of them. A list whose
/// members have commas could be read as another one.
fn text(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Array(all) => {
            let texts: Option<Vec<_>> = all.iter().map(text).collect();
            let texts = texts.filter(|texts| !texts.iter().any(|text| text.contains(',')));
            texts.map(|texts| texts.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}
