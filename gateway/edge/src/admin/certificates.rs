//! Automatic certificates over the admin listener: the state of each, and what an operator can do
//! with it.

use http::StatusCode;
use serde_json::{Value, json};

use crate::acme::{AcmeManager, ObtainedStatus};

/// Every certificate.
pub fn list(acme: Option<&AcmeManager>) -> (StatusCode, Value) {
    let Some(acme) = acme else {
        return none();
    };
    let certificates: Vec<Value> = acme.statuses().into_iter().map(status_of).collect();
    (StatusCode::OK, json!({"certificates": certificates}))
}

/// Has the certificates for a name renewed.
pub fn renew(acme: Option<&AcmeManager>, name: &str) -> (StatusCode, Value) {
    let Some(acme) = acme else {
        return none();
    };
    match acme.renew(name) {
        0 => unknown(name),
        count => (StatusCode::OK, json!({"renewing": count})),
    }
}

/// Has the certificates for a name revoked, and others obtained.
pub async fn revoke(acme: Option<&AcmeManager>, name: &str) -> (StatusCode, Value) {
    let Some(acme) = acme else {
        return none();
    };
    match acme.revoke(name).await {
        Ok(0) => unknown(name),
        Ok(count) => (StatusCode::OK, json!({"revoked": count})),
        Err(failure) => {
            let body = json!({"error": failure.to_string()});
            (StatusCode::BAD_GATEWAY, body)
        }
    }
}

fn status_of(status: ObtainedStatus) -> Value {
    json!({
        "certificate": status.id,
        "names": status.names,
        "issuer": status.issuer,
        "not_after": status.not_after,
        "next": status.next,
        "failures": status.failures,
        "last_error": status.last_error,
    })
}

fn none() -> (StatusCode, Value) {
    let message = "no certificates are obtained (`acme` in the configuration)";
    (StatusCode::NOT_FOUND, json!({"error": message}))
}

fn unknown(name: &str) -> (StatusCode, Value) {
    let message = format!("there is no automatic certificate for {name:?}");
    (StatusCode::NOT_FOUND, json!({"error": message}))
}
