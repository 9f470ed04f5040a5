//! The one check that every request must pass before anything is done.
//!
//! It checks in this order: is the request meant for this listener (`hosts`), is there such a
//! request (`table`), does a page of another site send it (`browser`), and does its sender have the
//! right (`tokens`). Health, metrics and lists are open; everything else must pass all checks.

use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};

use super::answer;
use super::browser::{self, CrossSiteProof};
use super::config::{AdminConfig, AdminRight, PurgeApisConfig};
use super::hosts::AdminHostNames;
use super::table::{
    self, AdminAccess, AdminAction, AdminMethod, AdminOperation, TABLE, TableMatch,
};
use super::tokens::{AdminCaller, AdminTokens, AuthorizationVerdict};
use crate::dialects::FASTLY_KEY;
use crate::http::bearer;
use crate::http::body::Body;
use crate::http::endpoint::Endpoint;
use crate::http::server::Peer;

/// The parts that decide who may do what.
pub struct AdminGate {
    hosts: AdminHostNames,
    tokens: AdminTokens,
    /// What ids of other caches' APIs stand for.
    pub purge_apis: PurgeApisConfig,
}

/// A request that is allowed.
#[derive(Debug)]
pub struct AdmittedAdminRequest<'a> {
    pub entry: &'static AdminOperation,
    /// The name in the path of what the request is about; empty if the entry has none.
    pub name: String,
    /// The name in the path of the target; empty if the entry has none.
    pub target: String,
    pub caller: AdminCaller<'a>,
}

/// A request that is refused.
#[derive(Debug)]
pub struct RefusedAdminRequest<'a> {
    pub caller: AdminCaller<'a>,
    pub response: Response<Body>,
    pub audit: RefusalAudit,
}

/// Whether a refusal is worth an audit line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalAudit {
    /// Somebody tried something without the right to it.
    Line,
    /// There is no such request.
    Nothing,
}

const FOREIGN_HOST: &str = "this host name is not known here; expected a loopback name, the \
    address of the listener, or one of `admin.hosts` in the configuration";

const FOREIGN_SITE: &str = "this request comes from a web page of another site (`Sec-Fetch-Site`, \
                            `Origin`), which is not allowed to make it";

const NOT_JSON: &str = "the body is not declared to be JSON; expected \
    `Content-Type: application/json`";

const BARE: &str = "a request that changes something and has no body must prove that no web page \
                    sends it; expected `X-Lamina-Admin: 1` or `Content-Type: application/json`";

const NO_TOKENS: &str = "this shows what clients requested, so it needs a token, and none is \
                         configured; set `admin.token` or `admin.tokens` in the configuration";

impl AdminGate {
    /// The gate of a listener at `endpoint`.
    pub fn new(config: &AdminConfig, endpoint: &Endpoint) -> Self {
        Self {
            hosts: AdminHostNames::new(endpoint.tcp(), &config.hosts),
            tokens: AdminTokens::new(config),
            purge_apis: config.purge_apis.clone(),
        }
    }

    /// Checks a request.
    ///
    /// # Errors
    /// Returns the answer to give instead.
    pub fn check(
        &self,
        request: &Request<Body>,
        peer: Peer,
    ) -> Result<AdmittedAdminRequest<'_>, Box<RefusedAdminRequest<'_>>> {
        let headers = request.headers();
        let host = authority(request);
        if !self.hosts.are_meant_by(host.as_ref(), peer.reached) {
            let response = answer::error(StatusCode::MISDIRECTED_REQUEST, FOREIGN_HOST);
            return Err(self.refused(headers, response, RefusalAudit::Line));
        }
        let (entry, names) = match table::find(request.method(), request.uri().path()) {
            TableMatch::Entry(entry, names) => (entry, names),
            TableMatch::WrongMethod(verb) => {
                return Err(self.refused(
                    headers,
                    answer::wrong_method(verb),
                    RefusalAudit::Nothing,
                ));
            }
            TableMatch::Nothing => {
                return Err(self.refused(headers, unknown(), RefusalAudit::Nothing));
            }
        };
        let admitted = |caller| AdmittedAdminRequest {
            entry,
            name: names.name.to_owned(),
            target: names.target.to_owned(),
            caller,
        };
        let right = match entry.access {
            AdminAccess::Needs(right) | AdminAccess::NeedsToken(right) => right,
            AdminAccess::Open => {
                return Ok(admitted(AdminCaller::Anonymous));
            }
        };
        if let Some(response) = refused_to_pages(request, entry, host.as_ref()) {
            return Err(self.refused(headers, response, RefusalAudit::Line));
        }
        let (caller, verdict) = self.tokens.judge(headers, token_fields(entry), right);
        let without_tokens = !self.tokens.are_asked_for();
        let response = match verdict {
            AuthorizationVerdict::Allowed
                if without_tokens && matches!(entry.access, AdminAccess::NeedsToken(_)) =>
            {
                answer::error(StatusCode::FORBIDDEN, NO_TOKENS)
            }
            AuthorizationVerdict::Allowed => return Ok(admitted(caller)),
            AuthorizationVerdict::NoToken => answer::unauthorized(),
            AuthorizationVerdict::Lacks(right) => lacks(right),
        };
        Err(Box::new(RefusedAdminRequest {
            caller,
            response,
            audit: RefusalAudit::Line,
        }))
    }

    fn refused(
        &self,
        headers: &HeaderMap,
        response: Response<Body>,
        audit: RefusalAudit,
    ) -> Box<RefusedAdminRequest<'_>> {
        // The caller is the same whatever right is asked about.
        let (caller, _) = self.tokens.judge(headers, &[], AdminRight::Read);
        Box::new(RefusedAdminRequest {
            caller,
            response,
            audit,
        })
    }

    /// Describes in one sentence what is open to whom.
    pub fn openness(&self) -> String {
        let open = TABLE
            .iter()
            .filter(|entry| entry.access == AdminAccess::Open);
        let open: Vec<&str> = open.map(|entry| entry.path).collect();
        match self.tokens.are_asked_for() {
            true => format!(
                "{} are open to everybody who reaches the admin listener; everything else needs a \
                 token",
                open.join(", ")
            ),
            false => "no admin token is configured: everybody who reaches the admin listener can \
                      purge, change plugins and targets, and read everything except the last requests"
                .to_owned(),
        }
    }
}

/// The answer to a request that a page of another site may have sent.
fn refused_to_pages(
    request: &Request<Body>,
    entry: &AdminOperation,
    host: Option<&Authority>,
) -> Option<Response<Body>> {
    let (headers, verb) = (request.headers(), entry.verb);
    let is_link = verb == AdminMethod::Get && browser::follows_a_link(headers);
    if !is_link && browser::is_of_another_site(headers, host) {
        return Some(answer::error(StatusCode::FORBIDDEN, FOREIGN_SITE));
    }
    if verb == AdminMethod::Get {
        return None;
    }
    let proofs: &[HeaderName] = match entry.action {
        // A page can't send `PURGE` or `DELETE` either without asking first.
        AdminAction::PurgeAs(_) if *request.method() != Method::POST => return None,
        // Browsers add `Authorization` to requests of pages on their own, but never a bearer's token.
        AdminAction::PurgeAs(_) if bearer::presented(headers).is_some() => return None,
        AdminAction::PurgeAs(_) => &PROOFS_OF_APIS,
        _ => &[],
    };
    match browser::form(headers, proofs, !request.body().is_empty()) {
        CrossSiteProof::Deliberate => None,
        CrossSiteProof::NotJson => {
            Some(answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, NOT_JSON))
        }
        CrossSiteProof::Bare => Some(answer::error(StatusCode::FORBIDDEN, BARE)),
    }
}

/// Fields of other caches' purge APIs that a page can't send without asking first.
static PROOFS_OF_APIS: [HeaderName; 2] = [FASTLY_KEY, CLOUDFLARE_KEY];

/// In which clients of Cloudflare's API send a global key.
const CLOUDFLARE_KEY: HeaderName = HeaderName::from_static("x-auth-key");

/// The fields, besides `Authorization`, in which a request of this entry may bring its token.
fn token_fields(entry: &AdminOperation) -> &'static [HeaderName] {
    match entry.action {
        AdminAction::PurgeAs(_) => &PROOFS_OF_APIS,
        _ => &[],
    }
}

/// The requested host. The listener has made sure that the target and `Host` agree.
fn authority(request: &Request<Body>) -> Option<Authority> {
    let host = request.headers().get(http::header::HOST);
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    request.uri().authority().cloned().or(host)
}

fn lacks(right: AdminRight) -> Response<Body> {
    let message = format!("the token lacks the right `{}`", right.as_str());
    answer::error(StatusCode::FORBIDDEN, &message)
}

fn unknown() -> Response<Body> {
    let all: Vec<&str> = TABLE.iter().map(|entry| entry.path).collect();
    let message = format!("there is no such path; expected one of {}", all.join(", "));
    answer::error(StatusCode::NOT_FOUND, &message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::path::PathRules;
    use crate::http::server::LocalEndpoint;

    fn peer() -> Peer {
        Peer {
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 40_000)),
            trusted: false,
            reached: LocalEndpoint::Unix { user: None },
            path_rules: PathRules::default(),
            redirect: None,
        }
    }

    fn gate(token: Option<&str>) -> AdminGate {
        let config = AdminConfig {
            token: token.map(str::to_owned),
            ..AdminConfig::default()
        };
        AdminGate::new(&config, &"unix:/a".parse().unwrap())
    }

    fn status(gate: &AdminGate, method: Method, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        match gate.check(&request, peer()) {
            Ok(_) => 200,
            Err(refusal) => refusal.response.status().as_u16(),
        }
    }

    /// For every entry in the table that is not open: a token is needed, and a request of another
    /// site's page is refused, with a token or without.
    #[test]
    fn every_entry_that_is_not_open_is_closed() {
        let (open, closed) = (gate(None), gate(Some("a long random text")));
        let token = ("authorization", "Bearer a long random text");
        let json = ("content-type", "application/json");
        let foreign = ("sec-fetch-site", "cross-site");
        let mut judged = 0;
        for entry in TABLE
            .iter()
            .filter(|entry| entry.access != AdminAccess::Open)
        {
            let path = entry.path.replace("{name}", "p");
            let methods = match entry.verb {
                AdminMethod::Get => vec![Method::GET, Method::HEAD],
                AdminMethod::Post | AdminMethod::PostOrPurge => vec![Method::POST],
                AdminMethod::PostOrDelete => vec![Method::POST],
            };
            let is_api = matches!(entry.action, AdminAction::PurgeAs(_));
            for method in methods {
                let status = |gate: &AdminGate, headers: &[(&str, &str)]| {
                    status(gate, method.clone(), &path, headers)
                };
                let without_tokens = match entry.access {
                    AdminAccess::NeedsToken(_) => 403,
                    AdminAccess::Needs(_) | AdminAccess::Open => 200,
                };
                assert_eq!(status(&open, &[json]), without_tokens, "{path}");
                assert_eq!(status(&closed, &[json, token]), 200, "{path}");
                assert_eq!(status(&closed, &[json]), 401, "{path}");
                assert_eq!(status(&open, &[json, foreign]), 403, "{path}");
                assert_eq!(status(&closed, &[json, foreign, token]), 403, "{path}");
                if entry.verb != AdminMethod::Get {
                    assert_eq!(status(&open, &[]), 403, "{path}");
                    // A browser may send this for a page of any site.
                    let basic = ("authorization", "Basic dTpw");
                    assert_eq!(status(&open, &[basic]), 403, "{path}");
                    let by_token_alone = if is_api { 200 } else { 403 };
                    assert_eq!(status(&closed, &[token]), by_token_alone, "{path}");
                }
                for name in [FASTLY_KEY, CLOUDFLARE_KEY] {
                    let name = name.as_str();
                    let key = (name, "a long random text");
                    let by_key = if is_api { 200 } else { 401 };
                    assert_eq!(status(&closed, &[json, key]), by_key, "{path} {name}");
                    assert_eq!(status(&closed, &[json, (name, "another")]), 401, "{path}");
                    assert_eq!(status(&closed, &[key, foreign]), 403, "{path}");
                }
                judged += 1;
            }
        }
        assert!(judged >= 9, "{judged}");
    }
}
