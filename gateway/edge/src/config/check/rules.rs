//! Checks the meaning of the rules of a route.

mod answers;

use super::{FindingCollector, form};
use crate::config::problem::ConfigPath;
use crate::proxy::config::RouteConfig;

pub use answers::answering_key;

/// Checks the rules of the route at `at`.
pub fn check(route: &RouteConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let access = at.key("access");
    report.each(&access.key("allow"), &route.access.allow, form::cidr);
    report.each(&access.key("deny"), &route.access.deny, form::cidr);
    answers::check(route, at, report);
}
