//! `POST /v1/config/reload`: takes up the configuration, or says what that would do (`?dry_run=1`,
//! with `{"file": …}` for another file than the gateway's own).

use http::{Request, Response, StatusCode};
use serde_json::Value;

use super::audit::AuditLine;
use super::{AdminReload, AdminReloadAnswer, answer, asked};
use crate::http::body::Body;

/// What a request wants.
///
/// # Errors
/// Returns the answer to a request that can't be understood.
pub async fn wanted(
    request: Request<Body>,
    line: Option<&mut AuditLine>,
) -> Result<AdminReload, Response<Body>> {
    let plans = match request.uri().query() {
        None | Some("" | "dry_run=0") => false,
        Some("dry_run=1") => true,
        Some(other) => {
            let message = format!("{other:?} is not known; expected `dry_run=1` or nothing");
            return Err(answer::error(StatusCode::BAD_REQUEST, &message));
        }
    };
    let body = match request.body().is_empty() {
        true => Value::Null,
        false => asked(request, line).await?,
    };
    let file = match (&body, &body["file"]) {
        (_, Value::String(file)) => Some(file.into()),
        (Value::Null, _) => None,
        (Value::Object(keys), _) if keys.is_empty() => None,
        _ => {
            let message = "expected no body, or `{\"file\": \"/path/of/another/file.yaml\"}`";
            return Err(answer::error(StatusCode::BAD_REQUEST, message));
        }
    };
    match (plans, file) {
        (true, file) => Ok(AdminReload::Plan(file)),
        (false, None) => Ok(AdminReload::Apply),
        (false, Some(_)) => {
            let message = "another file can only be planned (`?dry_run=1`): the gateway goes on with \
                           the file that it was started with";
            Err(answer::error(StatusCode::BAD_REQUEST, message))
        }
    }
}

/// The answer with its status.
pub fn answer(outcome: AdminReloadAnswer) -> Response<Body> {
    match outcome {
        Ok(report) => answer::json(StatusCode::OK, &report),
        Err((word, report)) => {
            let status = match word {
                "busy" => StatusCode::CONFLICT,
                "invalid" | "not_live" => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            answer::json(status, &report)
        }
    }
}
