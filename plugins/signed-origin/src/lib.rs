//! Origin requests signed as S3 and its likes want them (AWS Signature Version 4, with the
//! header `Authorization`). The body never passes through here: the signed request is
//! handed back, and the gateway streams what comes. See README.md for the configuration.

mod sign;

use std::time::UNIX_EPOCH;

use lamina_plugin::{Context, Header, LoadDecision, LoaderPlugin, Manifest, Request, granted};
use serde::Deserialize;

use sign::{Scope, Stamp};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedOrigin {
    /// The host that is signed for, which must be the upstream's.
    host: String,
    region: String,
    #[serde(default = "s3")]
    service: String,
    access_key: String,
    secret_key: String,
    /// Put before the path, as `/bucket`.
    #[serde(default)]
    prefix: String,
}

fn s3() -> String {
    "s3".into()
}

/// SHA-256 of no body, in hex: a load is a GET.
const NO_BODY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl LoaderPlugin for SignedOrigin {
    fn new(config: &str) -> Result<Self, String> {
        let plugin: Self = serde_json::from_str(config).map_err(|e| e.to_string())?;
        let bad_prefix = !plugin.prefix.is_empty() && !plugin.prefix.starts_with('/');
        match (plugin.secret_key.is_empty(), bad_prefix) {
            (true, _) => Err("`secret_key` is empty".into()),
            (_, true) => Err("`prefix` does not begin with `/`".into()),
            _ => Ok(plugin),
        }
    }

    /// It reads these so that no client's own reach the origin beside the signature's.
    fn manifest(&self) -> Manifest {
        Manifest::new("signed-origin", env!("CARGO_PKG_VERSION"))
            .reads_headers(&["authorization", "x-amz-*"])
    }

    fn load(&self, request: Request, _context: Context) -> LoadDecision {
        let now = granted::now().duration_since(UNIX_EPOCH);
        let stamp = Stamp::at(now.map_or(0, |now| now.as_secs()));
        LoadDecision::Pass(self.signed(request, &stamp))
    }
}

impl SignedOrigin {
    fn signed(&self, request: Request, stamp: &Stamp) -> Request {
        let path_and_query = format!("{}{}", self.prefix, request.path_and_query);
        let (path, query) = path_and_query
            .split_once('?')
            .unwrap_or((&path_and_query, ""));
        let scope = Scope {
            region: &self.region,
            service: &self.service,
            access_key: &self.access_key,
            secret_key: &self.secret_key,
        };
        let fields = [
            ("host", self.host.as_str()),
            ("x-amz-content-sha256", NO_BODY),
            ("x-amz-date", &stamp.time),
        ];
        let authorization = scope.authorization("GET", path, query, &fields, NO_BODY, stamp);
        let header = |name: &str, value: &str| Header {
            name: name.into(),
            value: value.into(),
        };
        Request {
            method: "GET".into(),
            headers: vec![
                header("authorization", &authorization),
                header("x-amz-content-sha256", NO_BODY),
                header("x-amz-date", &stamp.time),
            ],
            host: self.host.clone(),
            path_and_query: path_and_query.clone(),
            ..request
        }
    }
}

lamina_plugin::export_loader!(SignedOrigin);

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> SignedOrigin {
        let config = r#"{"host": "files.example", "region": "eu-1", "prefix": "/bucket",
                         "access_key": "AK", "secret_key": "SK"}"#;
        SignedOrigin::new(config).expect("a good configuration")
    }

    #[test]
    fn a_request_goes_to_the_bucket_and_carries_the_signature_alone() {
        let request = Request {
            method: "GET".into(),
            scheme: "https".into(),
            host: "www.example".into(),
            path_and_query: "/a.txt?v=1".into(),
            headers: vec![Header {
                name: "authorization".into(),
                value: b"a client's".to_vec(),
            }],
            body: Vec::new(),
        };
        let signed = plugin().signed(request, &Stamp::at(0));
        assert_eq!(signed.host, "files.example");
        assert_eq!(signed.path_and_query, "/bucket/a.txt?v=1");
        let authorizations = signed.headers.iter().filter(|h| h.name == "authorization");
        let values: Vec<_> = authorizations.map(|h| h.value.clone()).collect();
        assert_eq!(values.len(), 1);
        assert!(
            values[0].starts_with(b"AWS4-HMAC-SHA256 Credential=AK/19700101/eu-1/s3/aws4_request")
        );
    }

    #[test]
    fn a_configuration_without_secret_is_refused() {
        let config = r#"{"host": "h", "region": "r", "access_key": "a", "secret_key": ""}"#;
        assert!(SignedOrigin::new(config).is_err_and(|e| e.contains("secret_key")));
    }
}
