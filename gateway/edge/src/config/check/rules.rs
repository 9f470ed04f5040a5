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
use crate::proxy::config::rules::headers::{self, ChangedMessage};

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
        report.form(&at.key("device"), device_field(route, name));
    }
    let bypass = at.key("bypass");
    report.each(&bypass.key("cookie"), &route.bypass.cookie, cookie_pattern);
    report.each(&bypass.key("path"), &route.bypass.path, form::path_pattern);
    for name in route.bypass.header.keys() {
        report.form_of_key(&bypass.key("header").key(name), form::header_name(name));
    }
}

/// Fields of clients that an origin needs as they are, or that other rules set.
const NOT_FOR_DEVICES: [&str; 8] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "content-type",
    "cookie",
    "user-agent",
    "x-request-id",
];

/// Checks the field that tells the kind of device: every client's own is replaced.
fn device_field(route: &RouteConfig, text: &str) -> Result<(), String> {
    form::header_name(text)?;
    headers::touchable(text, ChangedMessage::Request)?;
    let mut taken = route.auth.iter().flat_map(|auth| auth.taken());
    let is_posing = headers::is_posing(text);
    let is_other = |other: &&str| text.eq_ignore_ascii_case(other);
    if is_posing || NOT_FOR_DEVICES.iter().any(is_other) || taken.any(|name| is_other(&name)) {
        return Err(format!(
            "`{text}` says something else, which the kind of device would replace; expected a field \
             of its own, as in x-device"
        ));
    }
    Ok(())
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
