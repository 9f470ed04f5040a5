//! Checks the meaning of the rules of a route.

mod answers;
mod auth;
pub mod compress;
mod cors;
pub mod limits;

use super::{FindingCollector, form};
use crate::config::GatewayConfig;
use crate::config::problem::ConfigPath;
use crate::proxy::config::RouteConfig;

pub use answers::answering_key;

/// Checks the rules of the route at `at`.
pub fn check(
    config: &GatewayConfig,
    route: &RouteConfig,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    let access = at.key("access");
    report.each(&access.key("allow"), &route.access.allow, form::cidr);
    report.each(&access.key("deny"), &route.access.deny, form::cidr);
    answers::check(route, at, report);
    if let Some(given) = &route.cors {
        cors::check(given, &at.key("cors"), report);
    }
    if let Some(given) = &route.auth {
        auth::check(config, route, given, (&at.key("auth"), report));
    }
    cleaning(route, at, report);
    if let Some(given) = &route.compress {
        compress::check(given, &at.key("compress"), report);
    }
}

fn cleaning(route: &RouteConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let cookies = at.key("cookies");
    let keep = route.cookies.keep.as_deref().unwrap_or_default();
    report.each(&cookies.key("keep"), keep, cookie_pattern);
    report.each(&cookies.key("drop"), &route.cookies.drop, cookie_pattern);
    let languages = &route.accept_language;
    report.each(&at.key("accept_language"), languages, form::language);
    if let Some(name) = &route.device {
        report.form(&at.key("device"), form::header_name(name));
    }
    let bypass = at.key("bypass");
    report.each(&bypass.key("cookie"), &route.bypass.cookie, cookie_pattern);
    report.each(&bypass.key("path"), &route.bypass.path, form::path_pattern);
    for name in route.bypass.header.keys() {
        report.form_of_key(&bypass.key("header").key(name), form::header_name(name));
    }
}

/// Checks the name of a cookie.
fn cookie_name(text: &str) -> Result<(), String> {
    match form::header_name(text) {
        Ok(()) => Ok(()),
        Err(_) => Err(format!(
            "{text:?} is no name of a cookie; expected one, as in session"
        )),
    }
}

/// Checks a pattern for names of cookies.
fn cookie_pattern(text: &str) -> Result<(), String> {
    let is_odd = |c: char| c.is_whitespace() || matches!(c, ';' | '=' | ',');
    match text.is_empty() || text.contains(is_odd) {
        true => Err(format!(
            "{text:?} matches no name of a cookie; expected one, as in session*"
        )),
        false => Ok(()),
    }
}
