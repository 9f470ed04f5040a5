//! Secrets: read from the files that `*_file` keys name, and hidden in every dump and excerpt.
//!
//! The name of a key decides whether it is a secret, so that a plugin's own configuration is
//! covered, too. `token_file` itself is a path and may be shown.

use std::path::{Path as FilePath, PathBuf};

use super::GatewayConfig;
use super::problem::{ConfigFinding, ConfigPath, path};
use super::secret_text::{HIDDEN, arguments_without_secrets, may_be_credentials, without_secrets};
use super::text_file::read_at_most;
use crate::acme::config::AcmeConfig;
use crate::bus::config::BusConfig;
use crate::cache::config::L2Config;
use crate::proxy::config::auth::{AuthConfig, KeyLocation};

/// The most bytes of a secret. A larger file means a wrong path.
const MAX_SECRET: u64 = 64 << 10;

/// The most bytes of a file with users or keys.
const MAX_USERS: u64 = 4 << 20;

const SECRET_NAMES: [&str; 9] = [
    "token",
    "secret",
    "password",
    "passwd",
    "api_key",
    "private_key",
    "seal_key",
    "hmac",
    // A header field with credentials, which a route sets for its origin.
    "authorization",
];

/// The most bytes of a name that is compared with the names of secrets, since comparing longer ones
/// takes too long.
const MAX_MISSPELT: usize = 64;

/// Keys of the configuration whose names resemble those of secrets, but which hold no secret.
const PLAIN_NAMES: [&str; 1] = ["tokens"];

/// Whether the value of a key with this name must not be shown.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase().replace('-', "_");
    SECRET_NAMES.iter().any(|secret| name.ends_with(secret))
}

/// Whether a name is that of a secret, or a typing error away from one (`tokn`, `pasword`): a
/// message about the misspelt key must not show its value.
pub fn resembles_secret_name(name: &str) -> bool {
    let name = name.to_lowercase().replace('-', "_");
    if is_secret_name(&name) {
        return true;
    }
    let is_plain = name.ends_with("_file") || PLAIN_NAMES.contains(&name.as_str());
    if is_plain || name.len() > MAX_MISSPELT {
        return false;
    }
    let words: Vec<&str> = name.split('_').collect();
    SECRET_NAMES.iter().any(|secret| {
        let of_secret = secret.split('_').count();
        let tail = words[words.len().saturating_sub(of_secret)..].join("_");
        let slips = if secret.len() < 8 { 1 } else { 2 };
        [tail.as_str(), &name]
            .into_iter()
            .any(|given| strsim::damerau_levenshtein(given, secret) <= slips)
    })
}

/// The position where the value of the first secret on a line begins: after the key of a secret, or
/// in a URL with an `@`. The key may be misspelt, `=` may stand instead of `:`, and after the first
/// word of a line both may be missing.
pub fn find_secret_value(line: &str) -> Option<usize> {
    let in_url = line
        .find("://")
        .map(|i| i + 3)
        .filter(|i| line[*i..].contains('@'));
    [find_value_of_secret_key(line), in_url]
        .into_iter()
        .flatten()
        .min()
}

fn find_value_of_secret_key(line: &str) -> Option<usize> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut rest = line;
    let mut is_first = true;
    while let Some(start) = rest.find(part_of_name) {
        let begins = line.len() - rest.len() + start;
        let word = rest[start..].split(|c| !part_of_name(c)).next()?;
        rest = &line[begins + word.len()..];
        // The dash of a list item is not a word.
        let may_lack_colon = is_first && word != "-";
        is_first &= word == "-";
        let behind = rest.trim_start_matches(['"', '\'']).trim_start();
        let value = match behind.strip_prefix([':', '=']) {
            Some(value) => Some(value),
            None if may_lack_colon && behind.len() < rest.len() => Some(behind),
            None => None,
        };
        let is_secret = || resembles_secret_name(word) || is_secret_field(word);
        if let Some(value) = value.filter(|_| is_secret()) {
            return Some(line.len() - value.trim_start().len());
        }
    }
    None
}

/// Whether a word is the name of a header field that may hold credentials, and hardly that of an
/// upstream, a plugin or a route.
fn is_secret_field(word: &str) -> bool {
    let word = word.to_lowercase();
    (word.starts_with("x-") || word == "set-cookie") && may_be_credentials(&word)
}

/// Replaces each secret that a `*_file` key names by the content of the file.
pub fn read_files(config: &mut GatewayConfig, base: &FilePath) -> Vec<ConfigFinding> {
    let mut reader = SecretFileReader {
        base,
        findings: Vec::new(),
    };
    let (admin, purge) = (&mut config.admin, &mut config.purge_method);
    reader.fill(
        &path(&["admin"]),
        "token",
        &mut admin.token,
        &admin.token_file,
    );
    reader.fill(
        &path(&["purge_method"]),
        "token",
        &mut purge.token,
        &purge.token_file,
    );
    second_tier(&mut config.cache.l2, &mut reader);
    for (n, token) in admin.tokens.iter_mut().enumerate() {
        let at = path(&["admin", "tokens"]).index(n);
        reader.fill(&at, "token", &mut token.token, &token.token_file);
    }
    if let Some(given) = &mut config.acme {
        acme(given, &mut reader);
    }
    if let Some(given) = &mut config.bus {
        bus(given, &mut reader);
    }
    for (n, route) in config.routes.iter_mut().enumerate() {
        if let Some(given) = &mut route.auth {
            auth(given, &path(&["routes"]).index(n).key("auth"), &mut reader);
        }
    }
    reader.findings
}

fn acme(acme: &mut AcmeConfig, reader: &mut SecretFileReader<'_>) {
    let at = path(&["acme"]);
    reader.fill(&at, "seal_key", &mut acme.seal_key, &acme.seal_key_file);
    for (name, issuer) in &mut acme.issuers {
        if let Some(eab) = &mut issuer.eab {
            let at = at.key("issuers").key(name).key("eab");
            reader.fill(&at, "hmac", &mut eab.hmac, &eab.hmac_file);
        }
    }
}

/// The files that say who may have the answers of a route.
fn auth(auth: &mut AuthConfig, at: &ConfigPath, reader: &mut SecretFileReader<'_>) {
    let is_alone = auth.forward.is_none() && auth.jwt.is_none();
    if let Some(file) = auth.basic.as_ref().filter(|_| is_alone) {
        auth.users = reader.text(at.key("basic"), file);
    }
    let Some(jwt) = &mut auth.jwt else {
        return;
    };
    let at = at.key("jwt");
    reader.fill(&at, "secret", &mut jwt.secret, &jwt.secret_file);
    if let KeyLocation::File(file) = jwt.location() {
        jwt.key_file_text = reader.text(at.key("keys"), FilePath::new(file));
    }
}

fn second_tier(l2: &mut L2Config, reader: &mut SecretFileReader<'_>) {
    let at = path(&["cache", "l2"]);
    reader.fill(&at, "seal_key", &mut l2.seal_key, &l2.seal_key_file);
    for store in l2.stores_mut() {
        let at = at.key(store.name());
        for secret in store.secrets() {
            reader.fill(&at, secret.key, secret.value, secret.file);
        }
    }
}

fn bus(bus: &mut BusConfig, reader: &mut SecretFileReader<'_>) {
    let at = path(&["bus"]);
    let file = &bus.accepted_seal_key_file;
    let accepted = &mut bus.accepted_seal_key;
    reader.fill(&at, "accepted_seal_key", accepted, file);
    let file = &bus.seal_key_file;
    reader.fill(&at, "seal_key", &mut bus.seal_key, file);
    for transport in bus.transports_mut() {
        let at = at.key(transport.name());
        for secret in transport.secrets() {
            reader.fill(&at, secret.key, secret.value, secret.file);
        }
    }
}

/// Reads the files with secrets, relative to the folder `base`.
struct SecretFileReader<'a> {
    base: &'a FilePath,
    findings: Vec<ConfigFinding>,
}

impl SecretFileReader<'_> {
    /// The text of a file that the key at `at` names.
    fn text(&mut self, at: ConfigPath, file: &FilePath) -> Option<String> {
        match read_up_to(&self.base.join(file), MAX_USERS) {
            Ok(text) => Some(text),
            Err(reason) => {
                self.findings.push(ConfigFinding::value(at, reason));
                None
            }
        }
    }

    /// Fills in the secret `name` of the section `parent` from its file, if one is named.
    fn fill(
        &mut self,
        parent: &ConfigPath,
        name: &str,
        secret: &mut Option<String>,
        file: &Option<PathBuf>,
    ) {
        let key = parent.key(name);
        let Some(file) = file.as_ref().map(|file| self.base.join(file)) else {
            if secret.as_ref().is_some_and(|t| t.trim().is_empty()) {
                let message =
                    format!("an empty {name}; expected a long random text, or no key at all");
                self.findings.push(ConfigFinding::value(key, message));
            }
            return;
        };
        let file_key = parent.key(format!("{name}_file"));
        if secret.is_some() {
            let message = format!("given beside `{name}`; expected one of the two");
            self.findings.push(ConfigFinding::key(file_key, message));
            return;
        }
        match read(&file) {
            Ok(text) => *secret = Some(text),
            Err(reason) => self.findings.push(ConfigFinding::value(file_key, reason)),
        }
    }
}

/// The text of a file of at most so many bytes.
fn read_up_to(file: &FilePath, most: u64) -> Result<String, String> {
    let bytes =
        read_at_most(file, most).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    if bytes.len() as u64 > most {
        return Err(format!(
            "{} is larger than {} KiB; expected another file",
            file.display(),
            most >> 10
        ));
    }
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", file.display()))
}

fn read(file: &FilePath) -> Result<String, String> {
    let text = read_up_to(file, MAX_SECRET)?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.trim().is_empty() {
        return Err(format!("{} is empty; expected a secret", file.display()));
    }
    Ok(secret.to_owned())
}

/// The configuration as YAML, with every default filled in and every secret as `***`.
pub fn redacted(config: &GatewayConfig) -> String {
    let text = redacted_value(config).and_then(|value| serde_yaml::to_string(&value));
    text.unwrap_or_else(|e| format!("# cannot be shown: {e}\n"))
}

/// The same as a value.
pub fn redacted_value(config: &GatewayConfig) -> Result<serde_yaml::Value, serde_yaml::Error> {
    let serializer = serde_yaml::value::Serializer;
    let mut value = serde_yaml::with::singleton_map_recursive::serialize(config, serializer)?;
    hide(&mut value);
    Ok(value)
}

/// Sections whose keys are names that operators choose, and say nothing about what is below them.
const SECTIONS_OF_NAMES: [&[&str]; 3] = [&["upstreams"], &["plugins"], &["acme", "issuers"]];

/// A whole configuration without its secrets, as JSON.
pub fn hidden(config: &serde_json::Value) -> serde_json::Value {
    let mut shown = serde_yaml::to_value(config).unwrap_or_default();
    hide(&mut shown);
    serde_json::to_value(shown).unwrap_or_default()
}

/// Hides the secrets of a whole configuration.
pub fn hide(root: &mut serde_yaml::Value) {
    hide_below(root, &mut Vec::new());
}

fn hide_below(value: &mut serde_yaml::Value, path: &mut Vec<String>) {
    match value {
        serde_yaml::Value::Mapping(map) => {
            let is_of_names = SECTIONS_OF_NAMES.iter().any(|section| *section == *path);
            for (key, value) in map.iter_mut() {
                let name = key.as_str().unwrap_or_default();
                let is_secret = (resembles_secret_name(name) && !is_of_names)
                    || (has_names_of_others(path) && may_be_credentials(name));
                if is_secret {
                    hide_all(value);
                } else {
                    path.push(name.to_owned());
                    hide_below(value, path);
                    path.pop();
                }
            }
        }
        serde_yaml::Value::Sequence(items) if is_program(path) => {
            let given = items.iter().map(|item| item.as_str().unwrap_or_default());
            let shown = arguments_without_secrets(given);
            for (item, shown) in items.iter_mut().zip(shown) {
                if item.is_string() {
                    *item = shown.into();
                }
            }
        }
        serde_yaml::Value::Sequence(items) => {
            path.push(String::new());
            items.iter_mut().for_each(|item| hide_below(item, path));
            path.pop();
        }
        serde_yaml::Value::String(text) => {
            *text = without_secrets(text);
        }
        _ => {}
    }
}

/// Whether the keys of a section are names that others have given: of header fields that are set,
/// added or compared, of parameters, and of a plugin's own settings.
fn has_names_of_others(path: &[String]) -> bool {
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    match path[..] {
        ["plugins", _, "config", ..] => true,
        [.., "respond", "headers"] | [.., "match" | "bypass", "header" | "query"] => true,
        [.., section] => section == "set" || section == "add",
        [] => false,
    }
}

/// Whether a list is a program with its arguments.
fn is_program(path: &[String]) -> bool {
    path.last().is_some_and(|section| section == "exec")
}

/// Hides everything in the value of a secret, and keeps its form.
fn hide_all(value: &mut serde_yaml::Value) {
    match value {
        serde_yaml::Value::Mapping(map) => map.iter_mut().for_each(|(_, value)| hide_all(value)),
        serde_yaml::Value::Sequence(items) => items.iter_mut().for_each(hide_all),
        serde_yaml::Value::Null => {}
        _ => *value = HIDDEN.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_secret_is_found_on_its_line() {
        assert_eq!(find_secret_value("  token: abc"), Some(9));
        assert_eq!(find_secret_value("x: {\"api-key\": abc}"), Some(15));
        assert_eq!(find_secret_value("  token_file: /run/t"), None);
        assert_eq!(find_secret_value("  o: http://me:pw@h"), Some(12));
        assert_eq!(find_secret_value("é—token: x"), Some(12));
        assert_eq!(find_secret_value("note: the token that we use"), None);
    }

    #[test]
    fn credentials_that_a_route_sets_are_hidden() {
        let text =
            "{routes: [{headers: {request: {set: {x-origin-auth: s, Cookie: s, x-plain: p}}}}]}";
        let mut config: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
        hide(&mut config);
        let set = &config["routes"][0]["headers"]["request"]["set"];
        assert_eq!(set["x-origin-auth"], "***");
        assert_eq!(set["Cookie"], "***");
        assert_eq!(set["x-plain"], "p");
    }

    /// Guards against a message about a misspelt key that shows the secret beside it.
    #[test]
    fn the_value_of_a_misspelt_secret_is_found_as_well() {
        for line in [
            "tokn: s3cret",
            "toekn: s3cret",
            "admin: { Tokken: s3cret }",
            "  pasword: s3cret",
            "  pass_word: s3cret",
            "  sentinel_pasword: s3cret",
            "seal_kei: s3cret",
            "sealkey: s3cret",
            "api_keys: s3cret",
            "apikey = s3cret",
            "token=s3cret",
            "  - token s3cret",
            "\"secrt\" : s3cret",
        ] {
            let start = find_secret_value(line).unwrap_or_else(|| panic!("{line}"));
            assert!(!line[..start].contains("s3cret"), "{line}");
        }
    }

    /// Every key of the schema that is not a secret keeps its value in messages.
    #[test]
    fn no_other_key_of_the_configuration_is_taken_for_a_secret() {
        let mut judged = 0;
        let schema = crate::config::schema();
        let mut open = vec![&schema];
        while let Some(value) = open.pop() {
            for (name, member) in value.as_object().into_iter().flatten() {
                if name == "properties" {
                    for key in member.as_object().into_iter().flatten().map(|(key, _)| key) {
                        judged += 1;
                        assert_eq!(resembles_secret_name(key), is_secret_name(key), "{key}");
                    }
                }
                open.push(member);
            }
            open.extend(value.as_array().into_iter().flatten());
        }
        assert!(judged > 150, "only {judged} keys were judged");
    }
}
