//! Checks which sites may read the answers of a route.

use crate::config::check::{FindingCollector, form};
use crate::config::problem::ConfigPath;
use crate::proxy::config::cors::CorsConfig;
use crate::proxy::config::cors::origins::OriginPattern;

/// Checks the section at `at`.
pub fn check(cors: &CorsConfig, at: &ConfigPath, report: &mut FindingCollector) {
    if cors.origins.is_empty() {
        let message = "no origins; expected those of the sites that may read the answers, as in \
                       [https://app.example.com]";
        report.add(at.key("origins"), message);
    }
    report.each(&at.key("origins"), &cors.origins, origin);
    report.each(&at.key("methods"), &cors.methods, |text| match text {
        "*" => Ok(()),
        method => form::method(method),
    });
    report.each(&at.key("headers"), &cors.headers, name);
    report.each(&at.key("expose"), &cors.expose, name);
    if cors.credentials && cors.origins.iter().any(|origin| origin == "*") {
        let message = "with `origins: [\"*\"]` every site could read what its visitors may see here; \
                       expected the origins that may, or no `credentials`";
        report.add(at.key("credentials"), message);
    }
}

fn origin(text: &str) -> Result<(), String> {
    match text {
        "*" => Ok(()),
        origin => OriginPattern::parse(origin).map(drop),
    }
}

fn name(text: &str) -> Result<(), String> {
    match text {
        "*" => Ok(()),
        name => form::header_name(name),
    }
}
