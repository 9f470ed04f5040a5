//! Checks the meaning of the `admin` section: who can reach the listener, and with which token.

use super::{FindingCollector, form};
use crate::admin::config::{AdminConfig, NamedToken};
use crate::config::problem::{ConfigFinding, ConfigPath};

/// The least characters of a named token: shorter ones can be guessed over the network.
const MIN_TOKEN: usize = 8;

/// Names that audit lines use for other callers.
const RESERVED: [&str; 2] = ["admin", "anonymous"];

/// Checks the admin listener, whose configuration is at path `at`.
pub fn check(admin: &AdminConfig, at: &ConfigPath, report: &mut FindingCollector) {
    if !admin.address.is_local() && !admin.has_tokens() {
        let message = format!(
            "{} can be reached from outside; expected `admin.token` or `admin.token_file`, \
             `admin.tokens`, a loopback address, or a Unix socket",
            admin.address
        );
        report.add(at.key("address"), message);
    }
    report.each(&at.key("hosts"), &admin.hosts, host);
    for (n, token) in admin.tokens.iter().enumerate() {
        let at = at.key("tokens").index(n);
        self::token(token, &at, report);
        let earlier = &admin.tokens[..n];
        if earlier.iter().any(|other| other.name == token.name) {
            let message = format!(
                "another token is named {:?}; expected a name of its own",
                token.name
            );
            report.add(at.key("name"), message);
        }
        let others = earlier.iter().map(|other| &other.token);
        let others = others.chain([&admin.token]).flatten();
        if token.token.is_some()
            && others
                .clone()
                .any(|other| Some(other) == token.token.as_ref())
        {
            let message = "the same token is given twice, so that its owner would be unknown; \
                           expected a different token";
            report.add(at.key(given_as(token)), message);
        }
    }
}

fn token(token: &NamedToken, at: &ConfigPath, report: &mut FindingCollector) {
    report.form(&at.key("name"), form::name(&token.name));
    if RESERVED.contains(&token.name.as_str()) {
        let message = format!(
            "{:?} has another meaning in audit lines; expected another name",
            token.name
        );
        report.add(at.key("name"), message);
    }
    match &token.token {
        Some(text) if text.trim().is_empty() => {} // Said where secrets are read.
        Some(text) if text.chars().count() < MIN_TOKEN => {
            let message =
                format!("shorter than {MIN_TOKEN} characters; expected a long random text");
            report.add(at.key(given_as(token)), message);
        }
        // A file that can't be read has already been reported.
        None if token.token_file.is_none() => {
            report.push(ConfigFinding::value(
                at.clone(),
                "no token; expected `token_file` or `token` beside `name`",
            ));
        }
        Some(_) | None => {}
    }
    if token.can.is_empty() {
        let message =
            "a token without rights; expected one or more of `read`, `purge`, `plugins`, `targets`";
        report.add(at.key("can"), message);
    }
}

/// The key by which the token was given.
fn given_as(token: &NamedToken) -> &'static str {
    match token.token_file {
        Some(_) => "token_file",
        None => "token",
    }
}

/// Checks a host name, or a pattern for such names, under which the listener may be addressed.
fn host(text: &str) -> Result<(), String> {
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!(
            "{text:?} is to be written as in a URL; expected [{text}]"
        ));
    }
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()) {
        return Ok(());
    }
    form::host(text)?;
    match text.chars().all(|c| "*?.".contains(c)) {
        true => Err(format!(
            "{text:?} also matches the names of foreign web sites, which could then read the \
             listener by DNS rebinding; expected names, as in admin.example.com or *.example.com"
        )),
        false => Ok(()),
    }
}
