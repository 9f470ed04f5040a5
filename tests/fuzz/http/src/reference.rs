//! References in `Location` and `Content-Location`: resolved once is resolved for good.
//!
//! Input: lines, the URI of the request first, then references.

use http::Uri;
use lamina_http::reference::resolve;

use fuzz_harness::input;

pub fn check(data: &[u8]) {
    let mut lines = input::texts(data);
    let http = |base: &Uri| matches!(base.scheme_str(), None | Some("http" | "https"));
    let base = lines.next().and_then(|text| text.parse::<Uri>().ok());
    let Some(base) = base.filter(http) else {
        return;
    };
    for reference in lines {
        let Some(uri) = resolve(&base, "https", reference) else {
            continue;
        };
        assert!(!uri.to_string().contains('#'), "{uri}");
        assert!(uri.path().starts_with('/') || uri.path() == "*" || uri.path().is_empty());
        let named = uri.authority().map(|named| named.as_str());
        assert!(
            named.is_none_or(|named| reference.contains(named)),
            "nobody named {named:?}"
        );
        let dots = uri
            .path()
            .split('/')
            .any(|segment| matches!(segment, "." | ".."));
        let own = reference.is_empty() || reference.starts_with(['?', '#']);
        assert!(own || !dots, "{uri}");
        let again = resolve(&base, "https", &uri.to_string());
        if uri.authority().is_some() || !uri.path().starts_with("//") {
            assert!(own || again.as_ref() == Some(&uri), "{uri} {again:?}");
        }
    }
}
