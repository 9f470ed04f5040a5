//! `lamina upstreams`: the targets of a running gateway's upstreams, and taking one out by hand.

use std::fmt;
use std::time::Duration;

use http::Method;
use lamina_base::units::ConfigDuration;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{RemoteError, RemoteGateway, span};

/// Upstreams with their targets.
pub struct RemoteUpstreamList(Value);

/// What is to become of a target.
pub struct TargetChange<'a> {
    /// `ready`, `drain` or `out`.
    pub state: &'a str,
    /// For how long; None: until the next change.
    pub lasts: Option<ConfigDuration>,
    /// Whether the next process shall know it, too.
    pub outlives_process: bool,
}

const HEAD: [&str; 8] = [
    "UPSTREAM",
    "TARGET",
    "STATE",
    "OBSERVED",
    "WEIGHT",
    "PRIORITY",
    "IN FLIGHT",
    "LATENCY",
];

impl RemoteGateway {
    /// Lists the upstreams.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn upstreams(&self) -> Result<RemoteUpstreamList, RemoteError> {
        let path = "/v1/upstreams";
        let answer = self.ask(Method::GET, path, String::new(), Duration::ZERO);
        answer.await.map(RemoteUpstreamList)
    }

    /// Changes the state of a target.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn change_target(
        &self,
        (upstream, target): (&str, &str),
        change: TargetChange<'_>,
    ) -> Result<RemoteUpstreamList, RemoteError> {
        let encoded = |name| utf8_percent_encode(name, NON_ALPHANUMERIC);
        let (upstream, target) = (encoded(upstream), encoded(target));
        let path = format!("/v1/upstreams/{upstream}/targets/{target}");
        let mut body = json!({"state": change.state});
        if let Some(lasts) = change.lasts {
            body["for"] = json!(lasts.to_string());
        }
        if change.outlives_process {
            body["keep"] = json!(true);
        }
        let answer = self.ask(Method::POST, &path, body.to_string(), Duration::ZERO);
        answer.await.map(RemoteUpstreamList)
    }
}

impl RemoteUpstreamList {
    /// The gateway's answer.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// The columns of each target, and what is to be said below it.
    fn rows(&self) -> Vec<([String; 8], Option<String>)> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut rows = Vec::new();
        for upstream in list(&self.0["upstreams"]) {
            for target in list(&upstream["targets"]) {
                rows.push((columns(&upstream, &target), remark(&target)));
            }
        }
        rows
    }
}

impl fmt::Display for RemoteUpstreamList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let mut widths = HEAD.map(str::len);
        for (columns, _) in &rows {
            for (width, column) in widths.iter_mut().zip(columns) {
                *width = column.len().max(*width);
            }
        }
        line(f, &HEAD.map(str::to_owned), &widths)?;
        for (columns, remark) in &rows {
            line(f, columns, &widths)?;
            if let Some(remark) = remark {
                writeln!(f, "  {remark}")?;
            }
        }
        for upstream in self.0["upstreams"].as_array().into_iter().flatten() {
            for problem in problems(upstream) {
                writeln!(f, "{problem}")?;
            }
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, columns: &[String; 8], widths: &[usize; 8]) -> fmt::Result {
    let padded = columns.iter().zip(widths);
    let padded: Vec<_> = padded
        .map(|(column, width)| format!("{column:width$}"))
        .collect();
    writeln!(f, "{}", padded.join("  ").trim_end())
}

fn columns(upstream: &Value, target: &Value) -> [String; 8] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let for_some_time = |state: &Value, span_left: &Value| match span_left.as_u64() {
        Some(left) => format!("{} for {}", text(state), span(left)),
        None => text(state),
    };
    let latency = target["latency_us"].as_u64().unwrap_or_default() as f64 / 1_000.0;
    [
        text(&upstream["upstream"]),
        text(&target["target"]),
        for_some_time(&target["administrative"], &target["ready_in_ms"]),
        for_some_time(&target["observed"], &target["ejected_for_ms"]),
        target["weight"].as_f64().unwrap_or_default().to_string(),
        target["priority"].to_string(),
        target["in_flight"].to_string(),
        format!("{latency:.1} ms"),
    ]
}

/// What was last wrong with a target.
fn remark(target: &Value) -> Option<String> {
    let ago = |of: &Value| span(of["ms_ago"].as_u64().unwrap_or_default());
    let mut remarks = Vec::new();
    let failure = &target["last_failure"];
    if let Some(kind) = failure["kind"].as_str() {
        let in_a_row = &target["failures_in_a_row"];
        let ejections = &target["ejections"];
        remarks.push(format!(
            "last failure: {kind}, {} ago ({in_a_row} in a row, {ejections} ejections)",
            ago(failure)
        ));
    }
    let check = &target["last_check"];
    if let Some(result) = check["result"].as_str() {
        remarks.push(format!("last check: {result}, {} ago", ago(check)));
    }
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

/// What is wrong with the names and the file that the targets come from.
fn problems(upstream: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = text(&upstream["upstream"]);
    let mut problems = Vec::new();
    for name in upstream["names"].as_array().into_iter().flatten() {
        if let Some(failing) = name["failing_for_ms"].as_u64() {
            let (name, why) = (text(&name["name"]), text(&name["reason"]));
            let since = span(failing);
            problems.push(format!(
                "{about}: no new answer about {name} for {since}: {why}"
            ));
        }
    }
    if let Some(problem) = upstream["targets_file_problem"].as_str() {
        problems.push(format!(
            "{about}: the file of targets can't be used, and the targets stay as they were: {problem}"
        ));
    }
    problems
}
