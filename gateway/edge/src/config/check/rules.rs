//! Checks the meaning of the rules of a route.

mod auth;
mod cors;

use super::{FindingCollector, form};
use crate::config::GatewayConfig;
use crate::config::problem::ConfigPath;
use crate::proxy::config::RouteConfig;

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
    if let Some(given) = &route.cors {
        cors::check(given, &at.key("cors"), report);
    }
    if let Some(given) = &route.auth {
        auth::check(config, route, given, (&at.key("auth"), report));
    }
}
