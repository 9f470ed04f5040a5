//! `lamina maintenance`: a route of a running gateway is closed, or opened again.

use std::time::Duration;

use http::Method;
use lamina_base::units::ConfigDuration;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{RemoteError, RemoteGateway};

/// Names of routes have these as they are.
const OF_A_NAME: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

impl RemoteGateway {
    /// Switches the maintenance of a route to `on`, `off` or `configured`, and tells what holds.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn switch_maintenance(
        &self,
        route: &str,
        (state, lasts): (&str, Option<ConfigDuration>),
        allow: &[String],
    ) -> Result<String, RemoteError> {
        let name = utf8_percent_encode(route, &OF_A_NAME);
        let path = format!("/v1/routes/{name}/maintenance");
        let mut body = json!({"state": state});
        if let Some(lasts) = lasts {
            body["for"] = json!(lasts.to_string());
        }
        if !allow.is_empty() {
            body["allow"] = json!(allow);
        }
        let answer = self.ask(Method::POST, &path, body.to_string(), Duration::ZERO);
        let answer = answer.await?;
        let (state, by) = (&answer["maintenance"], &answer["by"]);
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let left = answer["for_s"].as_u64();
        let left = left.map_or(String::new(), |seconds| format!(" for {seconds} s"));
        let (state, by) = (word(state), word(by));
        Ok(format!(
            "route {route}: maintenance is {state}{left}, by the {by}"
        ))
    }
}
