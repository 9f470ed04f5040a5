//! What browsers say about where a request comes from (W3C Fetch Metadata Request Headers).

use http::HeaderMap;

/// Whether a browser sends this request for a page of another site. Tools send no such field, and no
/// page can forge it.
pub fn is_of_another_site(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    sites.any(|site| site != "same-origin" && site != "none")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_a_browser_names_another_site() {
        let says = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("sec-fetch-site", HeaderValue::from_static(line));
            }
            is_of_another_site(&headers)
        };
        for own in [&[][..], &["none"], &["same-origin"]] {
            assert!(!says(own), "{own:?}");
        }
        for other in [
            &["cross-site"][..],
            &["same-site"],
            &["none", "cross-site"],
            &[""],
        ] {
            assert!(says(other), "{other:?}");
        }
    }
}
