//! A service of the operator's decides about each request.
//!
//! It gets what is listed, and what is made here: nothing that a client can write leads it to
//! another decision (CVE-2026-35051). What it says goes on only as 2xx; a redirect to a login and a
//! refusal are the client's answer. All else, and silence, is 503.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, SET_COOKIE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use tokio::time::timeout;

use super::config::{AuthQuestionMethod, ForwardAuthConfig};
use super::verdicts::{VerdictCache, VerdictKey, VerdictTurn};
use super::{AuthRefusal, AuthenticatedUser, not_stored};
use crate::cache::Cache;
use crate::http::body::{self, Body};
use crate::http::grpc::AnswerDialect;
use crate::http::{field_value, forward};
use crate::origin::{Origin, SendTerms};
use crate::pattern::Pattern;
use crate::proxy::arrived::ArrivedRequest;
use crate::proxy::context::CDN_ID;
use crate::proxy::metrics::AuthOutcome;
use crate::proxy::respond;

/// The most octets of a yes that are read, so that its connection can be used again.
const MOST_OF_A_YES: usize = 64 << 10;

/// The service, and what is asked and taken of it.
pub struct ForwardAuth {
    origin: Arc<Origin>,
    uri: Uri,
    method: Method,
    send: Box<[HeaderName]>,
    set: HeaderMap,
    take: Box<[HeaderName]>,
    cookies: Box<[Pattern]>,
    timeout: Duration,
    verdicts: Option<VerdictCache>,
}

/// What is asked about one request.
pub struct AuthQuestion {
    headers: HeaderMap,
    key: Option<VerdictKey>,
    method: Method,
    dialect: AnswerDialect,
    /// Whether the request is a question of ours.
    is_loop: bool,
}

/// A field of the configuration, whose form has been checked.
fn field((name, value): (&String, &String)) -> Option<(HeaderName, HeaderValue)> {
    Some((
        name.parse().ok()?,
        field_value::of_text(value.as_bytes()).ok()?,
    ))
}

impl ForwardAuth {
    pub fn new(
        config: &ForwardAuthConfig,
        origin: Arc<Origin>,
        route: &Arc<str>,
        cache: Arc<Cache>,
    ) -> Self {
        let names = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        let verdicts = config.cache.as_ref();
        Self {
            origin,
            uri: config.path.parse().unwrap_or_default(),
            method: match config.method {
                AuthQuestionMethod::Get => Method::GET,
                AuthQuestionMethod::Head => Method::HEAD,
            },
            send: names(&config.send),
            set: config.set.iter().filter_map(field).collect(),
            take: names(&config.take),
            cookies: config
                .cookies
                .iter()
                .map(|text| Pattern::new(text))
                .collect(),
            timeout: config.timeout.0,
            verdicts: verdicts.map(|config| VerdictCache::new(config, route, cache)),
        }
    }

    /// What is to be asked about a request: the service's list, and what is made here.
    pub fn question(&self, request: &ArrivedRequest) -> AuthQuestion {
        let parts = &request.parts;
        let verdicts = self.verdicts.as_ref();
        AuthQuestion {
            headers: self.headers(request),
            key: verdicts.and_then(|verdicts| verdicts.key(request, &self.send)),
            method: parts.method.clone(),
            dialect: request.answer.dialect,
            is_loop: forward::loops(&parts.headers, &CDN_ID),
        }
    }

    fn headers(&self, request: &ArrivedRequest) -> HeaderMap {
        let parts = &request.parts;
        let mut headers = HeaderMap::new();
        for name in self
            .send
            .iter()
            .filter(|name| !self.set.contains_key(*name))
        {
            for line in parts.headers.get_all(name) {
                headers.append(name.clone(), line.clone());
            }
        }
        headers.extend(self.set.clone());
        let uri = parts.uri.path_and_query().map_or("/", |uri| uri.as_str());
        let client = request.client().map(|client| client.to_string());
        let told = [
            ("x-forwarded-method", Some(parts.method.as_str())),
            ("x-forwarded-proto", Some(request.scheme)),
            ("x-forwarded-host", Some(&*request.host)),
            ("x-forwarded-uri", Some(uri)),
            ("x-forwarded-for", client.as_deref()),
        ];
        for (name, value) in told {
            let value = value.and_then(|value| HeaderValue::from_str(value).ok());
            headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
        }
        forward::append_cdn_loop(&mut headers, &CDN_ID);
        headers
    }

    /// Asks about a request, unless it is known what the service says.
    ///
    /// # Errors
    /// What the client gets if it is not let in.
    pub async fn admit(&self, question: AuthQuestion) -> Result<AuthenticatedUser, AuthRefusal> {
        if question.is_loop {
            return Err(AuthRefusal::looped());
        }
        let (Some(verdicts), Some(key)) = (&self.verdicts, question.key) else {
            let answer = self.ask(question).await?;
            return Ok(self.user(answer.headers()));
        };
        if let Some(user) = verdicts.find(&key) {
            return Ok(user);
        }
        let _asker = match verdicts.ask_or_wait(key) {
            VerdictTurn::Ask(asker) => Some(asker),
            VerdictTurn::Wait(mut ends) => {
                // It ends with an error, when the sender is dropped, or by our own limit.
                let _ = timeout(self.timeout, ends.changed()).await;
                if let Some(user) = verdicts.find(&key) {
                    return Ok(user);
                }
                None
            }
        };
        let born = verdicts.order();
        let answer = self.ask(question).await?;
        let user = self.user(answer.headers());
        verdicts.keep(key, &user, answer.headers(), born);
        Ok(user)
    }

    /// The yes of the service.
    async fn ask(&self, question: AuthQuestion) -> Result<Response<()>, AuthRefusal> {
        let AuthQuestion {
            headers,
            method,
            dialect,
            ..
        } = question;
        let mut asked = Request::new(Body::empty());
        *asked.method_mut() = self.method.clone();
        *asked.uri_mut() = self.uri.clone();
        *asked.headers_mut() = headers;
        SendTerms::of(&mut asked).deadline = Some(Instant::now() + self.timeout);
        let sent = timeout(self.timeout, self.origin.send(asked)).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let upstream = self.origin.name();
                tracing::debug!(upstream, %error, "an auth service did not answer");
                return Err(AuthRefusal::unable());
            }
            Err(_) => return Err(AuthRefusal::unable()),
        };
        let status = answer.status();
        if status.is_success() {
            let (parts, body) = answer.into_parts();
            let _ = timeout(self.timeout, body::collect(body, MOST_OF_A_YES)).await;
            return Ok(Response::from_parts(parts, ()));
        }
        let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let is_refusal = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        match is_redirect || is_refusal {
            true => Err(self.refusal((&method, dialect), answer)),
            false => Err(AuthRefusal::unable()),
        }
    }

    /// The service's no, for the client.
    fn refusal(
        &self,
        (asked, dialect): (&Method, AnswerDialect),
        mut answer: Response<Body>,
    ) -> AuthRefusal {
        not_stored(&mut answer);
        if self.method == Method::HEAD {
            // Its length is that of a body that nobody has.
            answer.headers_mut().remove(CONTENT_LENGTH);
            answer.headers_mut().remove(TRANSFER_ENCODING);
            answer = answer.map(|_| Body::empty());
        } else if *asked == Method::HEAD {
            answer = respond::head_of(answer);
        }
        let outcome = match dialect {
            AnswerDialect::Grpc => AuthOutcome::Refused,
            AnswerDialect::Http => AuthOutcome::Answered,
        };
        AuthRefusal {
            response: answer,
            outcome,
        }
    }

    /// Whom the service names.
    fn user(&self, answer: &HeaderMap) -> AuthenticatedUser {
        let lines = self.take.iter().flat_map(|name| {
            let lines = answer.get_all(name).into_iter();
            lines.map(|line| (name.clone(), line.clone()))
        });
        let taken: Vec<_> = lines.collect();
        let name = self
            .take
            .first()
            .and_then(|name| answer.get(name)?.to_str().ok());
        let lines = answer.get_all(SET_COOKIE).into_iter();
        AuthenticatedUser {
            name: name.map(Arc::from),
            taken,
            cookies: lines.filter(|line| self.gives(line)).cloned().collect(),
        }
    }

    /// Whether the client gets this cookie beside its answer.
    fn gives(&self, line: &HeaderValue) -> bool {
        let name = line.as_bytes().split(|octet| *octet == b'=').next();
        let name = std::str::from_utf8(name.unwrap_or_default().trim_ascii());
        name.is_ok_and(|name| self.cookies.iter().any(|pattern| pattern.matches(name)))
    }

    /// The rule in words.
    pub fn describe(&self) -> String {
        let cached = match &self.verdicts {
            Some(_) => ", whose yes is remembered",
            None => "",
        };
        format!(
            "upstream {} is asked for {}{cached}",
            self.origin.name(),
            self.uri
        )
    }
}
