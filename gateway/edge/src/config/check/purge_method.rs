//! Checks in which protocols of other caches is purged, on the listeners and on the admin listener.

use super::collector::FindingCollector;
use super::form;
use crate::config::GatewayConfig;
use crate::config::problem::{ConfigPath, path};
use crate::dialects::config::PurgeDialect;
use crate::proxy::config::PurgeMethodConfig;

/// Checks who may purge, the dialects, and the routes that ids of other caches' APIs stand for.
pub(super) fn check(config: &GatewayConfig, report: &mut FindingCollector) {
    let purge = &config.purge_method;
    report.each(&path(&["purge_method", "allow"]), &purge.allow, form::cidr);
    if purge.enabled && purge.allow.is_empty() && purge.token.is_none() {
        report.add(
            path(&["purge_method", "enabled"]),
            "anybody could purge; expected `allow` (addresses) or `token` beside it",
        );
    }
    purge_dialects(&config.purge_method, &path(&["purge_method"]), report);
    purge_apis(config, report);
}

/// Checks the settings of the dialects in which is purged on the listeners.
fn purge_dialects(purge: &PurgeMethodConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let headers = &purge.drupal_headers;
    report.each(&at.key("drupal_headers"), headers, form::header_name);
    report.positive(at.key("max_selectors"), purge.max_selectors as u64);
    let prefix = &purge.nginx_prefix;
    let is_prefix = prefix.len() > 1 && prefix.starts_with('/') && prefix.ends_with('/');
    if !is_prefix || prefix.contains(['*', '?', '#', ' ']) {
        let message = format!("{prefix:?} is no prefix of paths; expected a text as /purge/");
        report.add(at.key("nginx_prefix"), message);
    }
    let refresh = purge
        .dialects
        .iter()
        .position(|name| *name == PurgeDialect::Refresh);
    if let Some(n) = refresh
        && purge.enabled
        && purge.allow.is_empty()
    {
        let message = "every browser can ask for a refresh; expected addresses in \
                       `purge_method.allow`";
        report.add(at.key("dialects").index(n), message);
    }
}

/// Checks that the routes exist that ids of other caches' APIs stand for.
fn purge_apis(config: &GatewayConfig, report: &mut FindingCollector) {
    let apis = &config.admin.purge_apis;
    for (name, ids) in [("fastly", &apis.fastly), ("cloudflare", &apis.cloudflare)] {
        for (id, routes) in ids {
            let at = path(&["admin", "purge_apis", name]).key(id);
            for route in routes.as_slice().iter().filter(|route| *route != "*") {
                if config.routes.iter().all(|known| known.name != *route) {
                    let message = format!(
                        "no route is named `{route}`; expected names of routes, or \"*\" for \
                         everything"
                    );
                    report.add(at.clone(), message);
                }
            }
        }
    }
}
