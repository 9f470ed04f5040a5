//! Requests of other caches' purge APIs: Fastly's, Cloudflare's and Souin's. They are read by
//! [`crate::dialects`] and purge as our own requests do, in every tier and on every node.

use http::{Request, Response, StatusCode};
use serde_json::Value;

use super::answer;
use super::audit::AuditLine;
use super::config::PurgeApisConfig;
use super::gate::AdmittedAdminRequest;
use super::purge::purge_in_dialect;
use super::table::{self, AdminAction, PurgeApi, TableMatch};
use crate::dialects::answer::{AnswerForm, DialectAnswer, PurgeSummary, StoredPresence};
use crate::dialects::fastly_api::{self, FastlyPurge};
use crate::dialects::wish::{InvalidPurgeRequest, PurgeTarget, PurgeWish};
use crate::dialects::{ControlRequest, cloudflare_api, souin};
use crate::http::body::{Body, collect};
use crate::proxy::config::{OnOffSwitch, OneOrMany};
use crate::proxy::{Proxy, PurgeAddress, PurgeReach, purge_response};

/// The most bytes of a request's body: 256 keys of the longest kind.
const MAX_BODY: usize = 272 << 10;

/// The API that a request is of, if it is of one.
pub fn asked(request: &Request<Body>) -> Option<PurgeApi> {
    match table::find(request.method(), request.uri().path()) {
        TableMatch::Entry(entry, _) => match entry.action {
            AdminAction::PurgeAs(api) => Some(api),
            _ => None,
        },
        TableMatch::WrongMethod(_) | TableMatch::Nothing => None,
    }
}

/// An error of the admin listener in the form of the API: its clients read no other one.
pub fn told_by(api: Option<PurgeApi>, response: Response<Body>) -> Response<Body> {
    let (Some(api), Body::Full(Some(body))) = (api, response.body()) else {
        return response;
    };
    let told: Option<Value> = serde_json::from_slice(body).ok();
    let Some(why) = told.as_ref().and_then(|told| told["error"].as_str()) else {
        return response;
    };
    let refused = InvalidPurgeRequest {
        status: response.status(),
        why: why.to_owned(),
    };
    let mut told = purge_response(form(api).refused(&refused, ""));
    for (name, value) in response.headers() {
        if !told.headers().contains_key(name) {
            told.headers_mut().append(name, value.clone());
        }
    }
    told
}

/// Answers a request of such an API.
pub async fn answer(
    api: PurgeApi,
    admitted: &AdmittedAdminRequest<'_>,
    request: Request<Body>,
    apis: &PurgeApisConfig,
    proxy: &Proxy,
    line: Option<&mut AuditLine>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = collect(body, MAX_BODY).await else {
        let message = "the body is larger than 272 KiB or broke off";
        return answer::error(StatusCode::PAYLOAD_TOO_LARGE, message);
    };
    if let Some(line) = line {
        line.asked(&body);
    }
    let asked = ControlRequest {
        method: parts.method.as_str(),
        uri: &parts.uri,
        headers: &parts.headers,
        body: &body,
    };
    match purge(api, admitted, &asked, apis, proxy).await {
        Ok(done) => purge_response(done),
        Err(refused) => purge_response(form(api).refused(&refused, "")),
    }
}

async fn purge(
    api: PurgeApi,
    admitted: &AdmittedAdminRequest<'_>,
    asked: &ControlRequest<'_>,
    apis: &PurgeApisConfig,
    proxy: &Proxy,
) -> Result<DialectAnswer, InvalidPurgeRequest> {
    let wish = read(api, admitted, asked, apis)?;
    let generation = proxy.generation();
    let wish = wish.bounded(generation.max_selectors())?;
    let mut reach = PurgeReach::default();
    for target in &wish.targets {
        generation.add_target(target, PurgeAddress::none(), &mut reach)?;
        // Plugins may be asked about each URL, and the listener's other requests wait meanwhile.
        tokio::task::yield_now().await;
    }
    if reach.selectors.is_empty() {
        return Err(reach.nothing());
    }
    let order = purge_in_dialect(&reach.selectors, wish.kind, proxy)
        .await
        .map_err(InvalidPurgeRequest::malformed)?;
    tracing::info!(
        kind = ?wish.kind,
        reached = reach.named(),
        notes = reach.noted(),
        "purged by the API of another cache"
    );
    Ok(wish.answer.done(&PurgeSummary {
        kind: wish.kind,
        id: order.to_string(),
        lines: &reach.to_string(),
        notes: &reach.notes,
        method: asked.method,
        presence: StoredPresence::Assumed,
    }))
}

fn read(
    api: PurgeApi,
    admitted: &AdmittedAdminRequest<'_>,
    asked: &ControlRequest<'_>,
    apis: &PurgeApisConfig,
) -> Result<PurgeWish, InvalidPurgeRequest> {
    let (id, target) = (admitted.name.as_str(), admitted.target.as_str());
    let fastly = |what| {
        let all = match what {
            FastlyPurge::Url(_) if apis.fastly.is_empty() => None,
            FastlyPurge::Url(_) => Some(Vec::new()),
            _ => scope(&apis.fastly, id),
        };
        let all = all.ok_or_else(|| unknown_id("fastly", id))?;
        fastly_api::read(asked, what, all)
    };
    match api {
        PurgeApi::FastlyKey => fastly(FastlyPurge::Key(target)),
        PurgeApi::FastlyKeys => fastly(FastlyPurge::Keys),
        PurgeApi::FastlyAll => fastly(FastlyPurge::All),
        PurgeApi::FastlyUrl => fastly(FastlyPurge::Url(target)),
        PurgeApi::Cloudflare => {
            let all = scope(&apis.cloudflare, id).ok_or_else(|| unknown_id("cloudflare", id))?;
            cloudflare_api::read(asked.body, all)
        }
        PurgeApi::Souin if apis.souin == OnOffSwitch::Off => Err(InvalidPurgeRequest::not_found(
            "the API of Souin is off (admin.purge_apis.souin)",
        )),
        PurgeApi::Souin if asked.method == "POST" => souin::read_post(asked),
        PurgeApi::Souin => souin::read_purge(asked),
    }
}

/// What the id of a service or a zone stands for. None if it is not configured.
fn scope(
    ids: &std::collections::BTreeMap<String, OneOrMany>,
    id: &str,
) -> Option<Vec<PurgeTarget>> {
    let routes = ids.get(id).or_else(|| ids.get("*"))?.as_slice();
    let target = |route: &String| match route.as_str() {
        "*" => PurgeTarget::Everything,
        name => PurgeTarget::Route(name.to_owned()),
    };
    Some(routes.iter().map(target).collect())
}

fn unknown_id(api: &str, id: &str) -> InvalidPurgeRequest {
    InvalidPurgeRequest::not_found(format!(
        "the id {id:?} is not known here (admin.purge_apis.{api})"
    ))
}

/// The form of refusals.
fn form(api: PurgeApi) -> AnswerForm {
    match api {
        PurgeApi::FastlyKey | PurgeApi::FastlyKeys | PurgeApi::FastlyAll | PurgeApi::FastlyUrl => {
            AnswerForm::Fastly
        }
        PurgeApi::Cloudflare => AnswerForm::Cloudflare,
        PurgeApi::Souin => AnswerForm::Souin,
    }
}
