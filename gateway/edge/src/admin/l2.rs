//! `GET /v1/l2/keys`: lists what the second tier holds, by its index.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::cache::l2::{L2, RecordListingCursor, RecordListingError, RecordListingItem};
use crate::cache::purge::UrlSelector;
use crate::http::path;
use crate::pattern::Pattern;

/// What is asked for.
#[derive(Debug)]
struct KeysRequest {
    urls: Option<UrlSelector>,
    limit: usize,
    from: RecordListingCursor,
}

/// The default and the largest number of keys in one answer; the last page may have some more.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// Lists the keys that `query` (`pattern`, `limit`, `cursor`) selects, and returns where to
/// continue.
pub async fn keys(tier: Option<&L2>, query: &str) -> (StatusCode, Value) {
    let Some(tier) = tier else {
        let error = "there is no second tier (`cache.l2` in the configuration)";
        return (StatusCode::NOT_FOUND, json!({"error": error}));
    };
    let asked = match read(query) {
        Ok(asked) => asked,
        Err(error) => return (StatusCode::BAD_REQUEST, json!({"error": error})),
    };
    match tier
        .list(asked.urls.as_ref(), asked.limit, asked.from)
        .await
    {
        Ok(listing) => {
            let keys: Vec<Value> = listing.keys.iter().map(listed_key).collect();
            let next = listing.next.map(|next| next.to_string());
            (StatusCode::OK, json!({"keys": keys, "cursor": next}))
        }
        Err(error) => {
            let status = match error {
                RecordListingError::NoIndex { .. } => StatusCode::NOT_FOUND,
                RecordListingError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, json!({"error": error.to_string()}))
        }
    }
}

fn listed_key(listed: &RecordListingItem) -> Value {
    let mut key = json!({
        "key": listed.key.home.to_string(),
        "url": listed.text.url,
        "expires_in_ms": u64::try_from(listed.left.as_millis()).unwrap_or(u64::MAX),
        "record": listed.name,
    });
    if listed.text.is_cut {
        key["url_is_cut"] = json!(true);
    }
    key
}

/// Reads the query. A `+` stands for itself, as it does in the listed URLs.
fn read(query: &str) -> Result<KeysRequest, String> {
    let mut asked = KeysRequest {
        urls: None,
        limit: LIMIT,
        from: RecordListingCursor::default(),
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| format!("{name}: not UTF-8"))?;
        match name {
            "pattern" => {
                asked.urls = Some(UrlSelector::like(&Pattern::new(&path::text::pattern(
                    &value,
                ))))
            }
            "limit" => {
                let limit = value.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n));
                asked.limit =
                    limit.ok_or_else(|| format!("limit: {value:?}; expected 1 to {LIMIT_MAX}"))?;
            }
            "cursor" => {
                let cursor = value.parse();
                asked.from = cursor.map_err(|why| format!("cursor: {value:?}; {why}"))?;
            }
            _ => {
                return Err(format!("{name:?}; expected pattern, limit or cursor"));
            }
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_what_is_none_is_named() {
        let asked = read("pattern=/a%26b+c*&limit=7&cursor=3-12").unwrap();
        let urls = asked.urls.unwrap();
        assert!(urls.matches("any.example/a&b+c/d") && !urls.matches("any.example/b"));
        assert_eq!((asked.limit, asked.from.to_string()), (7, "3-12".into()));
        assert_eq!(read("").unwrap().limit, LIMIT);
        for (query, named) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("cursor=3", "cursor"),
            ("cursor=-1-2", "cursor"),
            ("pattern=%ff", "pattern"),
            ("pattren=/a", "pattren"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(named), "{query}: {error}");
        }
    }
}
