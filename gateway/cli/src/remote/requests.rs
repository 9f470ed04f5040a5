//! `lamina requests`: the last requests of a gateway, each with the events on its way.

use std::fmt;
use std::time::Duration;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{RemoteError, RemoteGateway};

/// Which of the last requests are asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct RequestsFilter {
    /// The largest number of requests to print.
    #[arg(short = 'n', long, default_value_t = 20)]
    limit: usize,
    /// Only requests of this route.
    #[arg(long)]
    route: Option<String>,
    /// Only requests with this result, for example `miss`, `pass`, `stale`, `error` or `left`.
    #[arg(long)]
    result: Option<String>,
    /// Only requests whose status begins with these digits, as `404` or `5`.
    #[arg(long)]
    status: Option<String>,
    /// Only requests with this text in the host, path or query.
    #[arg(long)]
    contains: Option<String>,
}

/// The last requests.
pub struct RemoteRequestList(Value);

impl RequestsFilter {
    fn path(&self) -> String {
        let mut path = format!("/v1/requests/recent?limit={}", self.limit);
        for (name, value) in [
            ("route", &self.route),
            ("result", &self.result),
            ("status", &self.status),
            ("contains", &self.contains),
        ] {
            if let Some(value) = value {
                let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
                path.push_str(&format!("&{name}={value}"));
            }
        }
        path
    }
}

impl RemoteGateway {
    /// Asks the gateway about its last requests.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn requests(
        &self,
        filter: &RequestsFilter,
    ) -> Result<RemoteRequestList, RemoteError> {
        let path = filter.path();
        let answer = self.ask(Method::GET, &path, String::new(), Duration::ZERO);
        answer.await.map(RemoteRequestList)
    }
}

impl RemoteRequestList {
    /// The gateway's answer.
    pub fn json(&self) -> &Value {
        &self.0
    }
}

impl fmt::Display for RemoteRequestList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.0["requests"].as_array();
        let requests = requests.map(Vec::as_slice).unwrap_or_default();
        requests.iter().try_for_each(|request| one(f, request))?;
        writeln!(f, "{} requests", requests.len())
    }
}

fn one(f: &mut fmt::Formatter<'_>, request: &Value) -> fmt::Result {
    // Text from clients may contain any characters.
    let text = |name: &str| {
        request[name]
            .as_str()
            .unwrap_or("-")
            .escape_debug()
            .to_string()
    };
    let milliseconds = |value: &Value| value.as_u64().unwrap_or_default() as f64 / 1_000.0;
    writeln!(
        f,
        "{} {}  {}, {}, {:.1} ms, {:.1} s ago, route {}, from {}",
        text("method"),
        text("url"),
        request["status"],
        text("result"),
        milliseconds(&request["total_us"]),
        milliseconds(&request["began_ms_ago"]),
        text("route"),
        request["client"].as_str().unwrap_or("a hidden client"),
    )?;
    let steps = request["steps"].as_array();
    for step in steps.map(Vec::as_slice).unwrap_or_default() {
        let what = printable(step["what"].as_str().unwrap_or_default());
        match step["after_us"].as_u64() {
            Some(_) => writeln!(f, "  {:>9.1} ms  {what}", milliseconds(&step["after_us"]))?,
            None => writeln!(f, "  {:>9}     {what}", "")?,
        }
    }
    writeln!(f, "  {:>9}     {}\n", "end", text("end"))
}

/// A text without control characters, which clients may send.
fn printable(text: &str) -> String {
    let escaped = text.chars().map(|letter| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    });
    escaped.collect()
}
