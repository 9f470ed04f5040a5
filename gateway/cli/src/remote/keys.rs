//! `lamina l2 keys`: reads the list of the second tier's keys from a gateway, to its end or to the
//! limit.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{RemoteError, RemoteGateway};

/// The keys that were found.
pub struct RemoteKeyList {
    keys: Vec<Value>,
    there_are_more: bool,
}

/// About the most keys in one answer.
const STEP: usize = 1_000;

impl RemoteGateway {
    /// Lists records of the second tier whose URL matches `pattern` (or all if there is none), up
    /// to `limit`.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn keys(
        &self,
        pattern: Option<&str>,
        limit: usize,
    ) -> Result<RemoteKeyList, RemoteError> {
        let mut found = RemoteKeyList {
            keys: Vec::new(),
            there_are_more: true,
        };
        // The list may contain a record twice.
        let mut known = HashSet::new();
        let mut cursor = "0-0".to_owned();
        while found.there_are_more && found.keys.len() < limit {
            let step = (limit - found.keys.len()).min(STEP);
            let path = path(pattern, step, &cursor);
            let answer = self.ask(Method::GET, &path, String::new(), Duration::ZERO);
            let mut answer = answer.await?;
            let keys = answer["keys"].as_array_mut().map(std::mem::take);
            let new = |key: &Value| known.insert(key["record"].to_string());
            found.keys.extend(keys.into_iter().flatten().filter(new));
            match answer["cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => found.there_are_more = false,
            }
        }
        found.there_are_more |= found.keys.len() > limit;
        found.keys.truncate(limit);
        Ok(found)
    }
}

fn path(pattern: Option<&str>, limit: usize, cursor: &str) -> String {
    let pattern = pattern.map_or(String::new(), |pattern| {
        format!(
            "&pattern={}",
            utf8_percent_encode(pattern, NON_ALPHANUMERIC)
        )
    });
    format!("/v1/l2/keys?limit={limit}&cursor={cursor}{pattern}")
}

impl fmt::Display for RemoteKeyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for key in &self.keys {
            // The text that a key plugin gives instead of a URL may contain any characters.
            let url = key["url"].as_str().unwrap_or_default().escape_debug();
            let more = if key["url_is_cut"] == true { "…" } else { "" };
            writeln!(
                f,
                "{}: {url}{more}, expires in {} s, {}",
                key["key"].as_str().unwrap_or_default(),
                key["expires_in_ms"].as_u64().unwrap_or_default() / 1_000,
                key["record"].as_str().unwrap_or_default(),
            )?;
        }
        let more = if self.there_are_more {
            "; there are more (raise --limit)"
        } else {
            ""
        };
        writeln!(f, "{} keys{more}", self.keys.len())
    }
}
