//! `POST /v1/explain`: what this gateway would do with a request now.

use http::Request;
use serde_json::Value;

use crate::proxy::Proxy;

/// Explains the request that `body` describes.
///
/// # Errors
/// What is wrong with the description.
pub async fn explain(proxy: &Proxy, body: &Value) -> Result<Value, String> {
    let url = body
        .get("url")
        .and_then(Value::as_str)
        .ok_or("expected {\"url\": \"http://host/path\", \"method\": \"GET\", \"headers\": {…}}")?;
    let method = body.get("method").and_then(Value::as_str).unwrap_or("GET");
    let headers = body.get("headers").and_then(Value::as_object);
    let request = headers.into_iter().flatten().fold(
        Request::builder().method(method).uri(url),
        |request, (name, value)| request.header(name, value.as_str().unwrap_or_default()),
    );
    let request = request
        .body(())
        .map_err(|error| format!("not a request: {error}"))?;
    let explanation = proxy.explain_here(request).await;
    serde_json::to_value(explanation).map_err(|error| error.to_string())
}
