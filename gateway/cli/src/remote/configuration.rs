//! `lamina reload` and `lamina plan`: another configuration for a running gateway.

use std::fmt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{RemoteError, RemoteGateway};

/// How long the gateway may take: it compiles plugins and looks at every stored entry.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a gateway says of a configuration.
pub struct RemoteReload {
    pub outcome: RemoteReloadOutcome,
    answer: Value,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemoteReloadOutcome {
    /// It is in use, or could be.
    Good,
    /// The file is wrong, or changes what can't be changed.
    Wrong,
    /// It can't be taken up now.
    Refused,
}

impl RemoteGateway {
    /// Has the gateway take up its configuration file again.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn reload(&self) -> Result<RemoteReload, RemoteError> {
        self.config("/v1/config/reload", String::new()).await
    }

    /// Asks what the gateway would do with this file.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn plan(&self, file: &Path) -> Result<RemoteReload, RemoteError> {
        let body = json!({ "file": file }).to_string();
        self.config("/v1/config/reload?dry_run=1", body).await
    }

    async fn config(&self, path: &str, body: String) -> Result<RemoteReload, RemoteError> {
        let (status, answer) = self.answer(Method::POST, path, body, PATIENCE).await?;
        let outcome = match status {
            StatusCode::OK => RemoteReloadOutcome::Good,
            StatusCode::UNPROCESSABLE_ENTITY => RemoteReloadOutcome::Wrong,
            StatusCode::CONFLICT => RemoteReloadOutcome::Refused,
            StatusCode::SERVICE_UNAVAILABLE if answer["applied"].is_boolean() => {
                RemoteReloadOutcome::Refused
            }
            _ => return Err(RemoteError::refused(status, &answer)),
        };
        Ok(RemoteReload { outcome, answer })
    }
}

impl RemoteReload {
    /// The answer as it came.
    pub fn json(&self) -> &Value {
        &self.answer
    }

    /// How many entries no request would find any more.
    pub fn unreachable(&self) -> u64 {
        self.answer["entries"]["unreachable"]
            .as_u64()
            .unwrap_or_default()
    }

    fn write_effects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_certificates(f, &self.answer["certificates"])?;
        write_entries(f, &self.answer["entries"])?;
        write_keys(f, &self.answer["keys"])
    }

    fn show_failure(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "The configuration is not taken up; the present one goes on."
        )?;
        let problems = self.answer["problems"].as_array();
        let problems = problems.map(Vec::as_slice).unwrap_or_default();
        for problem in problems {
            let number = |key: &str| problem[key].as_u64().map(|n| format!(":{n}"));
            let key = match text(&problem["key"]) {
                "" => String::new(),
                key => format!(" {key}:"),
            };
            writeln!(
                f,
                "{}{}{}:{key} {}",
                text(&problem["file"]),
                number("line").unwrap_or_default(),
                number("column").unwrap_or_default(),
                text(&problem["message"])
            )?;
        }
        if problems.is_empty() {
            writeln!(f, "{}", text(&self.answer["error"]))?;
        }
        if self.answer["changes"].is_object() {
            writeln!(f, "This is different:")?;
            write_changes(f, &self.answer["changes"])?;
        }
        if self.answer["entries"].is_object() {
            writeln!(f, "And this is what all of it would do:")?;
            self.write_effects(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for RemoteReload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.outcome != RemoteReloadOutcome::Good {
            return self.show_failure(f);
        }
        let hash = |key: &str| text(&self.answer[key]).to_owned();
        let (before, after) = (hash("hash_before"), hash("hash_after"));
        match (self.answer["applied"].as_bool(), before == after) {
            (Some(true), true) => writeln!(f, "Taken up: nothing is different ({after}).")?,
            (Some(true), false) => writeln!(f, "Taken up: {before} -> {after}.")?,
            (_, true) => writeln!(f, "Nothing would be different ({after}).")?,
            (_, false) => writeln!(f, "It could be taken up: {before} -> {after}.")?,
        }
        write_changes(f, &self.answer["changes"])?;
        self.write_effects(f)?;
        for warning in list(&self.answer["warnings"]) {
            writeln!(f, "warning: {}", text(warning))?;
        }
        Ok(())
    }
}

/// What is different.
fn write_changes(f: &mut fmt::Formatter<'_>, changes: &Value) -> fmt::Result {
    for (one, what) in [
        ("route", "routes"),
        ("upstream", "upstreams"),
        ("plugin", "plugins"),
        ("listener", "listeners"),
    ] {
        for (word, names) in [("+", "added"), ("-", "removed")] {
            for name in list(&changes[what][names]) {
                writeln!(f, "{word} {one} {}", text(name))?;
            }
        }
        let changed = changes[what]["changed"].as_object().into_iter().flatten();
        for (name, values) in changed {
            writeln!(f, "~ {one} {name}")?;
            for value in list(values) {
                write_value(f, "    ", value)?;
            }
        }
    }
    for name in list(&changes["moved_routes"]) {
        writeln!(f, "~ route {} has another place in the order", text(name))?;
    }
    for value in list(&changes["settings"]) {
        write_value(f, "~ ", value)?;
    }
    Ok(())
}

fn write_value(f: &mut fmt::Formatter<'_>, before: &str, value: &Value) -> fmt::Result {
    let key = text(&value["key"]);
    writeln!(
        f,
        "{before}{key}: {} -> {}",
        value["before"], value["after"]
    )
}

/// Which names get or lose a certificate, and which files hold another one.
fn write_certificates(f: &mut fmt::Formatter<'_>, certificates: &Value) -> fmt::Result {
    for (word, names) in [("+", "added_names"), ("-", "removed_names")] {
        for name in list(&certificates[names]) {
            writeln!(f, "{word} certificate for {}", text(name))?;
        }
    }
    for exchanged in list(&certificates["exchanged"]) {
        let ends = |key: &str| {
            let seconds = exchanged[key].as_u64().unwrap_or_default();
            httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
        };
        writeln!(
            f,
            "~ certificate of {}: another one, valid until {} (was {})",
            text(&exchanged["file"]),
            ends("not_after"),
            ends("not_after_before")
        )?;
    }
    Ok(())
}

fn write_entries(f: &mut fmt::Formatter<'_>, entries: &Value) -> fmt::Result {
    let number = |key: &str| entries[key].as_u64().unwrap_or_default();
    let unknown = number("unknown");
    let at_least = if unknown > 0 { "at least " } else { "" };
    writeln!(
        f,
        "Of {} stored entries, {at_least}{} become unreachable ({} bytes).",
        number("entries"),
        number("unreachable"),
        number("unreachable_bytes")
    )?;
    if unknown > 0 {
        writeln!(
            f,
            "Of {unknown} it can't be known: a plugin or a header decides about them."
        )?;
    }
    let by_route = entries["unreachable_by_route"].as_object();
    for (route, count) in by_route.into_iter().flatten() {
        writeln!(f, "    {count} of route {route}")?;
    }
    for (route, forecast) in entries["lifetimes"].as_object().into_iter().flatten() {
        let kinds = [
            ("shorter", "would live shorter"),
            ("longer", "would live longer"),
            ("not_stored", "would not be stored"),
        ];
        for (key, what) in kinds {
            let count = forecast[key].as_u64().unwrap_or_default();
            if count > 0 {
                writeln!(f, "    {count} of route {route} {what}, loaded again")?;
            }
        }
    }
    for url in list(&entries["rerouted"]) {
        let after = url["after"].as_str().unwrap_or("no route");
        let (url, before) = (text(&url["url"]), text(&url["before"]));
        writeln!(f, "    {url}: {before} -> {after}")?;
    }
    Ok(())
}

/// What new versions of key plugins make of the last requests.
fn write_keys(f: &mut fmt::Formatter<'_>, keys: &Value) -> fmt::Result {
    for (plugin, forecast) in keys.as_object().into_iter().flatten() {
        let number = |key: &str| forecast[key].as_u64().unwrap_or_default();
        write!(
            f,
            "Of the last {} recorded requests of plugin {plugin}, {} would get another key",
            number("requests"),
            number("other_key")
        )?;
        match number("failed") {
            0 => writeln!(f, ".")?,
            failed => writeln!(f, "; for {failed} more the plugin failed.")?,
        }
        if number("left_out") > 0 {
            let left_out = number("left_out");
            writeln!(f, "    {left_out} more were not tried.")?;
        }
        for url in list(&forecast["examples"]) {
            writeln!(f, "    {}", text(url))?;
        }
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
