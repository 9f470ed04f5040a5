//! Several API answers in one JSON object, fetched at once. See README.md for its
//! configuration.

use std::collections::BTreeMap;

use lamina_plugin::fetch::{self, FetchError, FetchRequest, FetchResponse};
use lamina_plugin::{Context, LoadDecision, LoaderPlugin, Manifest, Request, Response};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiCompose {
    /// The members of the object, by name.
    parts: BTreeMap<String, Part>,
}

/// Where one member comes from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    upstream: String,
    /// `{1}` stands for the first segment of the request's path after the leading
    /// one, `{2}` for the next.
    path: String,
}

impl LoaderPlugin for ApiCompose {
    fn new(config: &str) -> Result<Self, String> {
        let plugin: Self = serde_json::from_str(config).map_err(|e| e.to_string())?;
        match plugin.parts.is_empty() {
            true => Err("`parts` is empty".into()),
            false => Ok(plugin),
        }
    }

    fn manifest(&self) -> Manifest {
        Manifest::new("api-compose", env!("CARGO_PKG_VERSION"))
    }

    fn load(&self, request: Request, _context: Context) -> LoadDecision {
        let Some(requests) = self.requests(&request) else {
            return LoadDecision::Absent;
        };
        self.compose(fetch::all(&requests))
    }
}

impl ApiCompose {
    /// One request a part; `None` when the path lacks a segment that a part names.
    fn requests(&self, request: &Request) -> Option<Vec<FetchRequest>> {
        let get = |part: &Part| {
            let path = fill(&part.path, |n| request.segment(n))?;
            Some(FetchRequest::get(&part.upstream, &path).header("accept", "application/json"))
        };
        self.parts.values().map(get).collect()
    }

    /// The object: what failed is `null` and named under `errors`. An error when all
    /// failed, so that a stale copy can step in.
    fn compose(&self, answers: Vec<Result<FetchResponse, FetchError>>) -> LoadDecision {
        let (mut object, mut errors) = (Map::new(), Map::new());
        for (name, answer) in self.parts.keys().zip(answers) {
            let member = read(answer).unwrap_or_else(|why| {
                errors.insert(name.clone(), why.into());
                Value::Null
            });
            object.insert(name.clone(), member);
        }
        if errors.len() == self.parts.len() {
            return LoadDecision::Error(format!("no part answered: {}", Value::Object(errors)));
        }
        let complete = errors.is_empty();
        if !complete {
            object.insert("errors".into(), errors.into());
        }
        let response = Response::new(200, "application/json", Value::Object(object).to_string());
        // Half an answer is better than none, but only for this one client.
        if complete {
            response.into()
        } else {
            response.header("cache-control", "no-store").into()
        }
    }
}

/// The JSON of an answer, or why there is none. What is said here reaches clients, so
/// it says nothing about addresses.
fn read(answer: Result<FetchResponse, FetchError>) -> Result<Value, String> {
    let response = answer.map_err(|error| match error {
        FetchError::Timeout => "timeout".to_owned(),
        _ => "unavailable".to_owned(),
    })?;
    if !response.is_success() {
        return Err(format!("status {}", response.status));
    }
    serde_json::from_slice(&response.body).map_err(|_| "not JSON".to_owned())
}

/// Puts the request's segments for `{1}`, `{2}` …
fn fill<'a>(template: &str, segment: impl Fn(usize) -> Option<&'a str>) -> Option<String> {
    let mut path = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (number, after) = after.split_once('}')?;
        path.push_str(before);
        path.push_str(segment(number.parse().ok()?)?);
        rest = after;
    }
    path.push_str(rest);
    Some(path)
}

lamina_plugin::export_loader!(ApiCompose);

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"parts": {
        "user":   {"upstream": "demo", "path": "/api/user/{1}"},
        "orders": {"upstream": "demo", "path": "/api/orders/{1}?all"}}}"#;

    fn plugin() -> ApiCompose {
        ApiCompose::new(CONFIG).expect("a good config")
    }

    fn request(path: &str) -> Request {
        Request {
            method: "GET".into(),
            scheme: "http".into(),
            host: "shop".into(),
            path_and_query: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    fn ok(body: &str) -> Result<FetchResponse, FetchError> {
        Ok(FetchResponse {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
        })
    }

    fn body(decision: LoadDecision) -> String {
        match decision {
            LoadDecision::Response(r) => String::from_utf8(r.body).expect("text"),
            other => panic!("not a response: {other:?}"),
        }
    }

    #[test]
    fn each_part_is_fetched_for_the_segment_of_the_request() {
        let requests = plugin()
            .requests(&request("/account/42?x=1"))
            .expect("a whole path");
        let paths: Vec<_> = requests.iter().map(|r| r.path_and_query.as_str()).collect();
        assert_eq!(paths, ["/api/orders/42?all", "/api/user/42"]);
    }

    #[test]
    fn a_path_without_the_segment_is_absent() {
        assert!(plugin().requests(&request("/account")).is_none());
    }

    #[test]
    fn both_answers_stand_in_one_object() {
        let composed = plugin().compose(vec![ok("[1]"), ok(r#"{"id":42}"#)]);
        assert_eq!(body(composed), r#"{"orders":[1],"user":{"id":42}}"#);
    }

    #[test]
    fn a_part_that_fails_is_null_and_named_and_not_stored() {
        let composed = plugin().compose(vec![Err(FetchError::Timeout), ok("1")]);
        let LoadDecision::Response(response) = &composed else {
            panic!("not a response")
        };
        assert!(response.headers.iter().any(|h| h.value == b"no-store"));
        assert_eq!(
            body(composed),
            r#"{"errors":{"orders":"timeout"},"orders":null,"user":1}"#
        );
    }

    #[test]
    fn when_all_parts_fail_the_load_fails() {
        let composed = plugin().compose(vec![Err(FetchError::Timeout), ok("<html>")]);
        assert!(matches!(composed, LoadDecision::Error(_)));
    }
}
