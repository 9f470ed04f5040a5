//! A request plugin that uses all that is granted by name: the path says what.

use std::hint::black_box;
use std::time::{Duration, UNIX_EPOCH};

use lamina_plugin::{Manifest, RequestDecision, RequestHead, RequestPlugin, Response, granted};

/// See `asker`.
static VERSION: &str = "version-one";

struct Counter;

impl RequestPlugin for Counter {
    fn new(_: &str) -> Result<Self, String> {
        Ok(Self)
    }

    fn manifest(&self) -> Manifest {
        Manifest::new("counter", black_box(VERSION))
    }

    fn on_request(&self, request: RequestHead) -> RequestDecision {
        let answer = match request.path() {
            "/count" => count().to_string(),
            "/clock" => {
                let (first, then) = (granted::monotonic_ns(), granted::monotonic_ns());
                let since = granted::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                format!("{} {}", since.as_secs(), then >= first)
            }
            "/random" => format!("{:x?}", granted::random(16)),
            "/random/much" => granted::random(65_537).len().to_string(),
            "/fill" => (0..1_000)
                .filter(|n| granted::kv_set(&format!("k{n}"), &[0; 4_000], None))
                .count()
                .to_string(),
            "/held" => (0..1_000)
                .filter(|n| granted::kv_get(&format!("k{n}")).is_some())
                .count()
                .to_string(),
            "/large" => granted::kv_set("large", &[0; 32 << 10], None).to_string(),
            "/for-ever" => {
                granted::kv_set("ever", b"1", Some(Duration::from_millis(u64::MAX))).to_string()
            }
            _ => return RequestDecision::Next,
        };
        Response::new(200, "text/plain", answer).into()
    }
}

fn count() -> u64 {
    let held = granted::kv_get("count").and_then(|bytes| bytes.try_into().ok());
    let count = held.map_or(0, u64::from_le_bytes) + 1;
    granted::kv_set("count", &count.to_le_bytes(), None);
    count
}

lamina_plugin::export_request!(Counter);
