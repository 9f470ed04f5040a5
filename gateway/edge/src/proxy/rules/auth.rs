//! Who may have a route's answers by what he knows or shows: a password ([`basic`]), the word of a
//! service of the operator's ([`forward`]), or a signed token ([`jwt`]).
//!
//! The request is judged before its key is derived and the cache is looked into. So an answer that
//! is stored is for everybody who is let in, and for nobody else.

mod basic;
pub mod config;
mod forward;
mod jwt;
mod key_set;
mod passwords;
mod public_keys;
mod taken;
mod verdicts;
mod verified_tokens;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use http::header::{AUTHORIZATION, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;

use crate::http::body::Body;
use crate::http::cache_control;
use crate::proxy::arrived::ArrivedRequest;
use crate::proxy::config::RouteConfig;
use crate::proxy::counted::CountedResponse;
use crate::proxy::metrics::{AuthCount, AuthOutcome, RequestOutcome};
use crate::proxy::respond;
use crate::proxy::route::{RouteDependencies, RouteError};
use basic::BasicAuth;
use forward::ForwardAuth;
use jwt::JwtAuth;
use key_set::KeySet;
use passwords::PasswordMemory;
use taken::{RemovedCredentials, TakenField, TakenFields};

/// What the process remembers for all generations.
#[derive(Default)]
pub struct AuthMemory {
    passwords: Arc<PasswordMemory>,
    /// Keys of tokens, by where they come from.
    key_sets: Mutex<HashMap<String, Weak<KeySet>>>,
}

/// How the requests of a route show who sends them.
pub struct RouteAuth {
    method: AuthMethod,
    taken: TakenFields,
    passes: bool,
    count: AuthCount,
}

enum AuthMethod {
    Basic(BasicAuth),
    Forward(Box<ForwardAuth>),
    Jwt(Box<JwtAuth>),
}

/// Who sends a request.
#[derive(Clone, Debug, Default)]
struct AuthenticatedUser {
    name: Option<Arc<str>>,
    /// What the origin is told of him.
    taken: Vec<TakenField>,
    /// The cookies that he gets beside his answer.
    cookies: Vec<HeaderValue>,
}

/// What somebody gets who is not let in.
struct AuthRefusal {
    response: Response<Body>,
    outcome: AuthOutcome,
}

impl RouteAuth {
    /// None: everybody is let in.
    ///
    /// # Errors
    /// If an upstream does not exist.
    pub fn new(
        route: &RouteConfig,
        label: &Arc<str>,
        parts: &RouteDependencies<'_>,
    ) -> Result<Option<Self>, RouteError> {
        let Some(config) = &route.auth else {
            return Ok(None);
        };
        let realm = config.realm.as_deref();
        let upstream = |name: &str| {
            let missing = || RouteError::NoUpstream {
                route: route.name.clone(),
                upstream: name.to_owned(),
            };
            parts.origins.get(name).ok_or_else(missing)
        };
        let method = if let Some(forward) = &config.forward {
            let origin = upstream(&forward.upstream)?;
            let cache = Arc::clone(parts.cache);
            let auth = ForwardAuth::new(forward, origin, label, cache);
            AuthMethod::Forward(Box::new(auth))
        } else if let Some(jwt) = &config.jwt {
            let keys = KeySet::of(jwt, parts.auth, upstream)?;
            AuthMethod::Jwt(Box::new(JwtAuth::new(jwt, keys, realm)))
        } else {
            let users = config.users.as_deref().unwrap_or_default();
            AuthMethod::Basic(BasicAuth::new(users, realm, &parts.auth.passwords))
        };
        Ok(Some(Self {
            method,
            taken: TakenFields::new(config.taken()),
            passes: config.passes(),
            count: parts.metrics.auth(label),
        }))
    }

    /// Whether somebody else must be asked, or a password hashed, to say something about a request.
    pub fn may_wait(&self, request: &ArrivedRequest) -> bool {
        match &self.method {
            AuthMethod::Basic(basic) => basic.may_wait(&request.parts.headers),
            AuthMethod::Forward(_) => true,
            AuthMethod::Jwt(jwt) => jwt.may_wait(&request.parts.headers),
        }
    }

    /// Lets a request in, with what the origin is to know of its sender. `before_removal` sees it as
    /// it came, but without what the client says of itself in fields that are ours to set.
    ///
    /// # Errors
    /// What its sender gets otherwise.
    pub async fn admit(
        &self,
        request: &mut ArrivedRequest,
        before_removal: impl FnOnce(&mut Parts),
    ) -> Result<(), CountedResponse> {
        let headers = &request.parts.headers;
        let judged = match &self.method {
            AuthMethod::Basic(basic) => basic.admit(headers).await,
            AuthMethod::Forward(forward) => forward.admit(forward.question(request)).await,
            AuthMethod::Jwt(jwt) => jwt.admit(headers).await,
        };
        let user = match judged {
            Ok(user) => user,
            Err(refusal) => {
                self.count.inc(refusal.outcome);
                return Err(refusal.counted());
            }
        };
        self.count.inc(AuthOutcome::Allowed);
        self.taken.delete(&mut request.parts.headers);
        before_removal(&mut request.parts);
        let removed = self.remove_credentials(request);
        self.taken.put(&mut request.parts, user.taken, removed);
        request.answer.user = user.name;
        if let Some(rules) = &mut request.answer.rules {
            rules.cookies = user.cookies;
        }
        Ok(())
    }

    /// Makes of a request that nobody has sent what would go on of it.
    pub fn pretend(&self, parts: &mut Parts, before_removal: impl FnOnce(&mut Parts)) {
        self.taken.delete(&mut parts.headers);
        before_removal(parts);
        if !self.passes {
            parts.headers.remove(AUTHORIZATION);
            self.remove_cookie(&mut parts.headers);
        }
    }

    /// Takes out of a request what has shown who sends it, unless the origin gets that.
    fn remove_credentials(&self, request: &mut ArrivedRequest) -> RemovedCredentials {
        let headers = &mut request.parts.headers;
        if self.passes {
            return RemovedCredentials::default();
        }
        RemovedCredentials {
            authorization: headers.remove(AUTHORIZATION).is_some(),
            cookie: self.remove_cookie(headers),
        }
    }

    fn remove_cookie(&self, headers: &mut HeaderMap) -> bool {
        match &self.method {
            AuthMethod::Jwt(jwt) => jwt.remove_cookie(headers),
            AuthMethod::Basic(_) | AuthMethod::Forward(_) => false,
        }
    }

    /// Whether the origin learns something of the sender from us.
    pub fn tells_origin(&self) -> bool {
        !self.taken.names().is_empty()
    }

    /// Begins what is done from time to time.
    pub fn begin_work(&self) {
        if let AuthMethod::Jwt(jwt) = &self.method {
            jwt.begin_work();
        }
    }

    /// The rule in words.
    pub fn describe(&self) -> String {
        let method = match &self.method {
            AuthMethod::Basic(basic) => basic.describe(),
            AuthMethod::Forward(forward) => forward.describe(),
            AuthMethod::Jwt(jwt) => jwt.describe(),
        };
        let passes = match self.passes {
            true => "Authorization goes on to the origin",
            false => "Authorization ends here",
        };
        let names: Vec<_> = self
            .taken
            .names()
            .iter()
            .map(|name| name.as_str())
            .collect();
        match names.is_empty() {
            true => format!("auth: {method}; {passes}"),
            false => format!(
                "auth: {method}; {passes}; the origin gets {}",
                names.join(", ")
            ),
        }
    }
}

impl AuthenticatedUser {
    fn named(name: &str) -> Self {
        Self {
            name: (!name.is_empty()).then(|| name.into()),
            ..Self::default()
        }
    }
}

impl AuthRefusal {
    /// 401 for a request that shows nothing.
    fn missing(challenge: &HeaderValue) -> Self {
        Self::challenge(challenge, AuthOutcome::Missing)
    }

    /// 401 for one that shows something wrong.
    fn wrong(challenge: &HeaderValue) -> Self {
        Self::challenge(challenge, AuthOutcome::Refused)
    }

    fn challenge(challenge: &HeaderValue, outcome: AuthOutcome) -> Self {
        let mut response = respond::plain(StatusCode::UNAUTHORIZED, "401 unauthorized\n");
        let headers = response.headers_mut();
        headers.insert(WWW_AUTHENTICATE, challenge.clone());
        not_stored(&mut response);
        Self { response, outcome }
    }

    /// 503: nothing can be said of a request, so it is not let in.
    fn unable() -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut response = respond::plain(status, "503 nobody can say who may ask\n");
        let soon = HeaderValue::from_static("1");
        response.headers_mut().insert(RETRY_AFTER, soon);
        not_stored(&mut response);
        let outcome = AuthOutcome::Unable;
        Self { response, outcome }
    }

    /// 508: the question about a request is a question about that question.
    fn looped() -> Self {
        let mut response = respond::plain(StatusCode::LOOP_DETECTED, "508 loop detected\n");
        not_stored(&mut response);
        let outcome = AuthOutcome::Unable;
        Self { response, outcome }
    }

    fn counted(self) -> CountedResponse {
        let outcome = match self.outcome {
            AuthOutcome::Answered => RequestOutcome::Pass,
            _ => RequestOutcome::Error,
        };
        CountedResponse::new(self.response, outcome)
    }
}

/// Gives a client its cookies beside an answer, which may be one for everybody: from here on it is
/// for this client alone.
pub fn give_cookies(cookies: Vec<HeaderValue>, headers: &mut HeaderMap) {
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
    cache_control::make_private(headers);
}

fn not_stored(response: &mut Response<Body>) {
    cache_control::forbid_storing(response.headers_mut());
}

/// A challenge (RFC 9110 §11.6.1). The realm was checked.
fn realm(scheme: &str, name: Option<&str>, more: &str) -> HeaderValue {
    let name = name.unwrap_or("restricted");
    let text = format!("{scheme} realm=\"{name}\"{more}");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Basic realm=\"restricted\""))
}
