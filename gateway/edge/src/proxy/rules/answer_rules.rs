//! What the rules of a route do to one answer when it is delivered.

use std::sync::Arc;

use http::header::VARY;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::RouteRules;
use super::auth;
use super::compress::{ClientCodings, CodingPlan, CodingUndoing, CodingVariance};
use super::cors::{BrowserOrigin, CorsRules};
use super::headers::MadeValues;
use super::lifetime_claim::LifetimeClaim;
use super::pages::PageReader;
use super::present::{PresentFields, RuledField};
use super::request_id::RequestId;
use super::security_headers;
use crate::http::body::Body;
use crate::http::forward::REQUEST_ID;
use crate::http::grpc::AnswerDialect;
use crate::http::server::Peer;
use crate::http::vary;
use crate::proxy::arrived::ArrivedRequest;
use crate::proxy::config::{OnOffSwitch, SecurityHeaders};
use crate::proxy::counted::CountedResponse;

/// Room for the fields that the rules of most routes add to an answer, so that its head grows once.
const ADDED_FIELDS: usize = 8;

/// What the rules of a route do to one answer: the rules, and what of the request they need.
pub struct AnswerRules {
    rules: Arc<RouteRules>,
    /// What the client said of codings, if the route compresses.
    codings: Option<ClientCodings>,
    /// What the rate limits tell the client.
    pub(super) limit_fields: Option<Box<HeaderMap>>,
    /// The cookies that whoever has let the client in sets at it.
    pub(super) cookies: Vec<HeaderValue>,
    browser: Option<BrowserOrigin>,
    scheme: &'static str,
    /// The values of fields that depend on the request.
    made: MadeValues,
    /// None: there are no error pages for it.
    reader: Option<PageReader>,
    request_id: Option<HeaderValue>,
}

impl AnswerRules {
    /// What becomes of the answer to this request, by what the client has sent. Gives the request its
    /// name, before anything is written about it.
    pub fn new(rules: &Arc<RouteRules>, request: &ArrivedRequest, peer: &Peer) -> Box<Self> {
        let headers = &request.parts.headers;
        let id = match rules.request_id {
            OnOffSwitch::On => Some(RequestId::of(headers, peer).0),
            OnOffSwitch::Off => None,
        };
        let reads_pages = rules.pages.is_some() && request.answer.dialect == AnswerDialect::Http;
        let made = rules.response.as_ref();
        let source = rules.source(request, id.as_ref());
        let made = made.map(|changes| changes.made(source, &rules.dropped));
        let (compress, cors) = (rules.compress.as_ref(), rules.cors.as_ref());
        Box::new(Self {
            rules: Arc::clone(rules),
            scheme: request.scheme,
            made: made.unwrap_or_default(),
            reader: reads_pages.then(|| PageReader::of(headers, id.clone())),
            request_id: id,
            codings: compress.map(|compress| compress.client(&request.parts)),
            limit_fields: None,
            cookies: Vec::new(),
            browser: cors.map(|_| BrowserOrigin::of(&request.parts)),
        })
    }

    /// The name of the request. None: its route gives none.
    pub fn request_id(&self) -> Option<&HeaderValue> {
        self.request_id.as_ref()
    }

    /// What the client said of codings. None: its route does not compress.
    pub fn codings(&self) -> Option<&ClientCodings> {
        self.codings.as_ref()
    }

    /// Applies the rules for answers. What becomes of the coding is decided first, by what the origin
    /// said; an answer is encoded last.
    pub fn apply(self: Box<Self>, mut served: CountedResponse) -> CountedResponse {
        let rules = &*self.rules;
        let undone = match &self.codings {
            Some(codings) => codings.undo_for_client(&mut served),
            None => CodingUndoing::NotNeeded,
        };
        if let (Some(pages), Some(reader)) = (&rules.pages, &self.reader) {
            served = pages.apply(served, reader);
        }
        let claim = LifetimeClaim::of(&served, rules.puts_pages_together);
        let mut present = asked_for(rules, served.response.headers());
        let plan = match &self.codings {
            Some(codings) => {
                let head = whole_head(rules, &served.response);
                codings.plan(&served, undone, (head, present))
            }
            None => CodingPlan::NONE,
        };
        let headers = served.response.headers_mut();
        headers.reserve(ADDED_FIELDS);
        if rules.security_headers == SecurityHeaders::Basic {
            security_headers::set_basic(headers, present, self.scheme);
        }
        if let Some(id) = self.request_id {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(fields) = self.limit_fields {
            headers.extend(*fields);
        }
        if let Some(changes) = &rules.response {
            match claim {
                LifetimeClaim::Free => changes.change(headers, self.made),
                LifetimeClaim::Kept | LifetimeClaim::ForOneClient => {
                    changes.change_beside_lifetimes(headers, self.made, claim);
                }
            }
            if changes.concern_other_rules() {
                present = asked_for(rules, headers);
            }
        }
        if let (Some(cors), Some(browser)) = (&rules.cors, self.browser) {
            cors.apply(browser, present, headers);
        }
        if !self.cookies.is_empty() {
            auth::give_cookies(self.cookies, headers);
        }
        if let Some(codings) = &self.codings {
            codings.deliver(&mut served, plan);
        }
        if let Some(fields) = varies_by(rules, plan.variance()) {
            let headers = served.response.headers_mut();
            match present.has(RuledField::Vary) {
                false => drop(headers.insert(VARY, HeaderValue::from_static(fields))),
                true => vary::add(headers, fields),
            }
        }
        served
    }
}

/// Which fields an answer has, of those that the rules ask for.
fn asked_for(rules: &RouteRules, headers: &HeaderMap) -> PresentFields {
    let asks = rules.security_headers == SecurityHeaders::Basic
        || rules.cors.is_some()
        || rules.compress.is_some();
    match asks {
        true => PresentFields::of(headers),
        false => PresentFields::default(),
    }
}

/// The head of the whole answer that a response stands for.
fn whole_head<'a>(rules: &'a RouteRules, response: &'a Response<Body>) -> &'a HeaderMap {
    match &rules.direct {
        Some(direct) if response.status() == StatusCode::NOT_MODIFIED => direct.headers(),
        _ => response.headers(),
    }
}

/// The fields of requests by which an answer varies because of the rules, in the form of `Vary`.
fn varies_by(rules: &RouteRules, codings: CodingVariance) -> Option<&'static str> {
    let cors = rules
        .cors
        .as_ref()
        .is_some_and(CorsRules::tells_sites_apart);
    match (cors, codings) {
        (false, CodingVariance::SameForAll) => None,
        (true, CodingVariance::SameForAll) => Some("Origin"),
        (false, CodingVariance::Varies) => Some("Accept-Encoding"),
        (true, CodingVariance::Varies) => Some("Origin, Accept-Encoding"),
    }
}
