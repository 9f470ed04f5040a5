//! `GET /v1/requests/recent`: what happened to the last requests, and why.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::proxy::record::recent::{RecentFilter, RecentRequestLog};

/// The default and the largest number of requests in one answer.
const LIMIT: usize = 20;
const LIMIT_MAX: usize = 1_000;

/// Explains the requests that `query` (`limit`, `route`, `result`, `status`, `contains`) selects,
/// newest first.
///
/// # Errors
/// What is wrong with the query.
pub fn recent(recent: &RecentRequestLog, query: &str) -> Result<Value, String> {
    if !recent.keeps_any() {
        let error = "no requests are kept (`telemetry.recent_requests.keep: 0`)";
        return Err(error.to_owned());
    }
    let (limit, filter) = read(query)?;
    let records = recent.newest(limit, &filter);
    let requests: Vec<Value> = records.iter().map(|record| record.explained()).collect();
    Ok(json!({ "requests": requests }))
}

fn read(query: &str) -> Result<(usize, RecentFilter), String> {
    let (mut limit, mut filter) = (LIMIT, RecentFilter::default());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| format!("`{name}` is not UTF-8"))?
            .into_owned();
        match name {
            "limit" => {
                limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                    .ok_or_else(|| format!("limit is {value:?}; expected 1 to {LIMIT_MAX}"))?;
            }
            "route" => filter.route = Some(value),
            "result" => filter.result = Some(value),
            "status" => filter.status = Some(value),
            "contains" => filter.contains = Some(value),
            _ => {
                return Err(format!(
                    "there is no parameter {name:?}; expected limit, route, result, status or \
                     contains"
                ));
            }
        }
    }
    Ok((limit, filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_or_told_what_is_wrong_with_it() {
        let (limit, filter) =
            read("limit=3&route=a%20b&result=miss&status=5&contains=%2Fx").unwrap();
        assert_eq!(limit, 3);
        let texts = [filter.route, filter.result, filter.status, filter.contains];
        assert_eq!(texts.map(Option::unwrap), ["a b", "miss", "5", "/x"]);
        for (query, part) in [
            ("limit=0", "expected 1 to 1000"),
            ("limit=1001", "expected 1 to 1000"),
            ("limit", "expected 1 to 1000"),
            ("path=/x", "expected limit, route"),
            ("route=%ff", "not UTF-8"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(part), "{query}: {error}");
        }
    }
}
