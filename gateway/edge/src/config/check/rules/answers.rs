//! Checks rules about what a route answers, and what it asks its origin for: header fields, rewrites,
//! redirects, direct answers, error pages.

use std::collections::BTreeSet;

use serde::Serialize;

use super::super::{FindingCollector, form};
use crate::config::problem::{ConfigFinding, ConfigPath, one_of};
use crate::proxy::config::rules::common::MOST_OF_A_FILE;
use crate::proxy::config::rules::headers::{self, ChangedMessage, HeaderChangesConfig};
use crate::proxy::config::rules::redirect::{self, TargetHost};
use crate::proxy::config::rules::{TextTemplate, rewrite};
use crate::proxy::config::{OnOffSwitch, OneOrMany, RouteConfig};

/// Checks these rules of the route at `at`.
pub fn check(route: &RouteConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let headers = at.key("headers");
    let (request, response) = (&route.headers.request, &route.headers.response);
    changes(
        request,
        ChangedMessage::Request,
        &headers.key("request"),
        report,
    );
    changes(
        response,
        ChangedMessage::Response,
        &headers.key("response"),
        report,
    );
    rewrites(route, &at.key("rewrite"), report);
    let closed = at.key("maintenance");
    report.each(&closed.key("allow"), &route.maintenance.allow, form::cidr);
    redirects(route, &at.key("redirect"), report);
    direct(route, &at.key("respond"), report);
    pages(route, &at.key("errors"), report);
    if route.request_id == OnOffSwitch::Off {
        unnamed(route, at, report);
    }
    if let Some(by) = answering_key(route) {
        beside_an_answer(route, by, at, report);
    }
}

/// The key by which a route answers by itself, without an upstream.
pub fn answering_key(route: &RouteConfig) -> Option<&'static str> {
    match (&route.redirect, &route.respond) {
        (Some(_), _) => Some("redirect"),
        (None, Some(_)) => Some("respond"),
        (None, None) => None,
    }
}

fn changes(
    given: &HeaderChangesConfig,
    of: ChangedMessage,
    at: &ConfigPath,
    report: &mut FindingCollector,
) {
    report.each(&at.key("remove"), &given.remove, |name| {
        headers::touchable(name, of)
    });
    let mut seen = BTreeSet::new();
    for (name, value) in &given.set {
        let at = at.key("set").key(name);
        if !seen.insert(name.to_ascii_lowercase()) {
            let message =
                format!("`{name}` is set twice; expected each field once, in one spelling");
            report.push(ConfigFinding::key(at.clone(), message));
        }
        report.form_of_key(&at, headers::touchable(name, of));
        report.form(&at, headers::value(value));
    }
    for (name, values) in &given.add {
        let at = at.key("add").key(name);
        report.form_of_key(&at, headers::touchable(name, of));
        match values {
            OneOrMany::One(value) => report.form(&at, headers::value(value)),
            OneOrMany::Many(values) => report.each(&at, values, headers::value),
        }
    }
}

fn rewrites(route: &RouteConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let given = &route.rewrite;
    for (key, text) in [
        ("strip_prefix", &given.strip_prefix),
        ("add_prefix", &given.add_prefix),
    ] {
        let Some(text) = text else { continue };
        report.form(&at.key(key), rewrite::prefix(text));
        if given.path.is_some() {
            let message = "given beside `path`, which is the whole path; expected one of the two";
            report.push(ConfigFinding::key(at.key(key), message));
        }
    }
    if let Some(text) = &given.path {
        report.form(&at.key("path"), rewrite::template(text));
    }
}

fn redirects(route: &RouteConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let Some(given) = &route.redirect else {
        return;
    };
    if !redirect::STATUSES.contains(&given.status) {
        let statuses = redirect::STATUSES.map(|status| status.to_string());
        let message = format!(
            "{} is no redirect; expected {}",
            given.status,
            one_of(&statuses)
        );
        report.add(at.key("status"), message);
    }
    report.each(
        &at.key("allow_hosts"),
        &given.allow_hosts,
        |host| match host.trim_matches(['*', '.', '?']).is_empty() {
            true => Err(format!(
                "{host:?} allows every host, so that anybody can aim the redirect; expected hosts, \
                 as in *.example.com"
            )),
            false => form::host(host),
        },
    );
    let host = TextTemplate::parse(&given.to).and_then(|to| redirect::target_host(&to));
    match host {
        Err(message) => report.add(at.key("to"), message),
        Ok(TargetHost::OfTheRequest) if given.allow_hosts.is_empty() => {
            let message = "its host comes from the request, so that anybody can aim the redirect; \
                           expected a host that is written here, or `allow_hosts` with those that \
                           it may lead to";
            report.add(at.key("to"), message);
        }
        Ok(TargetHost::Own | TargetHost::Written(_)) if !given.allow_hosts.is_empty() => {
            let message = "has no effect: the host of `to` does not come from the request; \
                           expected `{host}` in `to`, or no `allow_hosts`";
            report.push(ConfigFinding::key(at.key("allow_hosts"), message));
        }
        Ok(_) => {}
    }
}

fn direct(route: &RouteConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let Some(given) = &route.respond else { return };
    if !(200..=599).contains(&given.status) || given.status == 304 {
        let message = format!(
            "{} is no status of an answer; expected 200 to 599",
            given.status
        );
        report.add(at.key("status"), message);
    }
    match (&given.body, &given.file) {
        (Some(_), Some(_)) => {
            let message = "given beside `body`; expected one of the two";
            report.push(ConfigFinding::key(at.key("file"), message));
        }
        (Some(body), None) if body.len() as u64 > MOST_OF_A_FILE => {
            report.add(
                at.key("body"),
                "larger than 1 MiB; expected an upstream for it",
            );
        }
        _ => {}
    }
    let has_content = given.file.is_some() || given.body.as_ref().is_some_and(|b| !b.is_empty());
    if has_content && matches!(given.status, 204 | 205) {
        let message = format!("{} has no content; expected no `body`", given.status);
        report.add(at.key("status"), message);
    }
    for (name, value) in &given.headers {
        let at = at.key("headers").key(name);
        report.form_of_key(&at, headers::touchable(name, ChangedMessage::Response));
        if headers::value_of_a_line(value).is_none() {
            report.add(
                at,
                "a line break or another control character; expected one line",
            );
        }
    }
}

fn pages(route: &RouteConfig, at: &ConfigPath, report: &mut FindingCollector) {
    for (n, page) in route.errors.iter().enumerate() {
        for (number, status) in page.statuses.iter().enumerate() {
            if !(400..=599).contains(status) {
                let message = format!("{status} is no error; expected 400 to 599");
                report.add(at.index(n).key("statuses").index(number), message);
            }
        }
    }
}

/// Templates that name an id which the route does not give.
fn unnamed(route: &RouteConfig, at: &ConfigPath, report: &mut FindingCollector) {
    let names =
        |text: &str| TextTemplate::parse(text).is_ok_and(|template| template.names_request_id());
    let message = "`{request_id}` is empty without an id; expected `request_id: on` in this route";
    for (key, changes) in [
        ("request", &route.headers.request),
        ("response", &route.headers.response),
    ] {
        let at = at.key("headers").key(key);
        for (name, _) in changes.set.iter().filter(|(_, value)| names(value)) {
            report.add(at.key("set").key(name), message);
        }
        let add = changes.add.iter();
        for (name, _) in add.filter(|(_, values)| values.as_slice().iter().any(|v| names(v))) {
            report.add(at.key("add").key(name), message);
        }
    }
    if route
        .redirect
        .as_ref()
        .is_some_and(|redirect| names(&redirect.to))
    {
        report.add(at.key("redirect").key("to"), message);
    }
}

/// A route that answers by itself asks nobody and stores nothing.
fn beside_an_answer(route: &RouteConfig, by: &str, at: &ConfigPath, report: &mut FindingCollector) {
    let given = [
        ("upstream", route.upstream.is_some()),
        ("loader", route.loader.is_some()),
        ("request", route.request.is_some()),
        ("response", route.response.is_some()),
        ("respond", by == "redirect" && route.respond.is_some()),
        (
            "trailing_slash",
            by == "redirect" && route.trailing_slash != Default::default(),
        ),
        ("rewrite", route.rewrite != Default::default()),
        ("policy", is_set(&route.policy)),
        ("key", is_set(&route.key)),
        ("invalidate", !route.invalidate.is_empty()),
        ("tags", !route.tags.is_empty()),
        ("split", route.split.is_some()),
        ("mirror", route.mirror.is_some()),
        ("esi", route.esi.is_some()),
        ("limit", !route.limit.is_empty()),
        ("bypass", route.bypass != Default::default()),
        ("cookies", route.cookies != Default::default()),
        ("accept_language", !route.accept_language.is_empty()),
        ("device", route.device.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
        let message = format!(
            "given beside `{by}`, which answers all requests of the route before the cache, so that \
             it has no effect; expected one of the two"
        );
        report.push(ConfigFinding::key(at.key(key), message));
    }
    if route.auth.is_some() {
        let message = format!(
            "given beside `{by}`, which answers everybody before anybody is asked who they are; \
             expected `access`, which comes before it, or an upstream behind `auth`"
        );
        report.push(ConfigFinding::key(at.key("auth"), message));
    }
    if route.headers.request != Default::default() {
        let message =
            format!("given beside `{by}`, so that no origin gets it; expected `response` alone");
        report.push(ConfigFinding::key(
            at.key("headers").key("request"),
            message,
        ));
    }
}

/// Whether a section says something else than its defaults.
fn is_set<T: Serialize + Default>(section: &T) -> bool {
    let value = |section: &T| serde_json::to_value(section).ok();
    value(section) != value(&T::default())
}
