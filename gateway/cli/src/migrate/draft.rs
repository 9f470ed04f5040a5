//! The draft: what translators put into it.

mod map;
mod text;
mod yaml;

use serde_json::{Value, json};

pub use map::DraftMap;

/// A configuration that is being put together.
#[derive(Default)]
pub struct ConfigDraft {
    /// `server`, `cache`, `defaults`, `limits`, `purge_method`, `telemetry`.
    pub top: DraftMap,
    pub listeners: Vec<DraftMap>,
    pub upstreams: Vec<(String, DraftMap)>,
    /// Each has its `name`.
    pub routes: Vec<DraftMap>,
}

/// The upstream of routes whose server nobody named.
pub const STAND_IN: &str = "origin";

impl ConfigDraft {
    /// A name for a route that no other has.
    pub fn route_name(&self, wanted: &str) -> String {
        let tidy = tidy_name(wanted);
        let taken = |name: &str| {
            let named = self.routes.iter().filter_map(|route| route.get("name"));
            named.into_iter().any(|known| known == name)
        };
        let numbered = (2..).map(|n| format!("{tidy}-{n}"));
        let mut names = std::iter::once(tidy.clone()).chain(numbered);
        names.find(|name| !taken(name)).unwrap_or(tidy)
    }

    /// A name for an upstream that has this target alone: over http and over https a server is two.
    pub fn upstream_name(&self, wanted: &str, target: &str) -> String {
        let is_other = |name: &str| {
            let known = self.upstreams.iter().find(|(known, _)| known == name);
            known.is_some_and(|(_, map)| map.get("targets") != Some(&json!([target])))
        };
        let numbered = (2..).map(|n| format!("{wanted}-{n}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
        let free = names.find(|name| !is_other(name));
        free.unwrap_or_else(|| wanted.to_owned())
    }

    /// The upstream of this name, new if need be.
    pub fn upstream(&mut self, name: &str) -> &mut DraftMap {
        let known = self.upstreams.iter().position(|(known, _)| known == name);
        let at = known.unwrap_or_else(|| {
            self.upstreams.push((name.to_owned(), DraftMap::default()));
            self.upstreams.len() - 1
        });
        &mut self.upstreams[at].1
    }

    /// Puts in what every configuration must have and nothing of the original says; what that was.
    fn complete(&mut self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.listeners.is_empty() {
            let mut listener = DraftMap::default();
            listener.set("address", "0.0.0.0:8080");
            self.listeners.push(listener);
            missing.push("the original names no address to listen on; put yours".to_owned());
        }
        if self.routes.is_empty() {
            let mut route = DraftMap::default();
            route.set("name", "site");
            route.set("upstream", STAND_IN);
            self.routes.push(route);
        }
        let used = self.routes.iter().filter_map(|route| route.get("upstream"));
        let used: Vec<String> = used.filter_map(Value::as_str).map(str::to_owned).collect();
        for name in &used {
            if !self.upstream(name).has("targets") {
                self.upstream(name).add("targets", "http://127.0.0.1:8081");
                missing.push(format!(
                    "the original names no HTTP server for upstream {name}; put yours"
                ));
            }
        }
        self.upstreams.retain(|(name, _)| used.contains(name));
        missing
    }
}

/// The name of a route.
pub fn name_of_route(route: &DraftMap) -> Option<String> {
    Some(route.get("name")?.as_str()?.to_owned())
}

/// A text as a name: letters, digits and dashes.
fn tidy_name(wanted: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let text: String = wanted.chars().map(kept).collect::<String>().to_lowercase();
    let parts: Vec<&str> = text.split('-').filter(|part| !part.is_empty()).collect();
    match parts.is_empty() {
        true => "site".to_owned(),
        false => {
            let name: String = parts.join("-").chars().take(LONGEST_NAME).collect();
            name.trim_matches('-').to_owned()
        }
    }
}

/// The longest name of a route that is made here; a number may follow.
const LONGEST_NAME: usize = 48;

/// Fields of requests that no rule may touch, since the gateway sets them or asks by its own.
const GATEWAYS_OWN: [&str; 24] = [
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "content-length",
    "expect",
    "age",
    "via",
    "cdn-loop",
    "cache-status",
    "proxy",
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
];

/// Whether a rule may set or remove a field of requests.
pub fn is_touchable(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.chars().all(good) && !GATEWAYS_OWN.contains(&name)
}
