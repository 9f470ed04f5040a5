//! What `explain` tells: [`Explanation`], as JSON and as text.

use std::fmt;

use serde::Serialize;

/// What would be done with a request.
#[derive(Default, Debug, Serialize)]
pub struct Explanation {
    pub url: String,
    /// The normal form of the URL that routes, key, purges, log and origin use, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// The fingerprint of the client's software that the request was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja4: Option<String>,
    /// The route. None: the request would get 404.
    pub route: Option<String>,
    /// The steps that the rules of the route take before the request plugin and the key, and what
    /// they do to answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// What the route's request plugin changes in the request. Everything below is about the
    /// changed request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// `cache`, `pass (…)` or `refuse (…)`.
    pub decision: String,
    pub key: Option<ExplainedKey>,
    /// The rules that may give the lifetime, in their order.
    pub lifetime: Vec<String>,
    pub stale: Vec<String>,
    /// Where a missing value comes from.
    pub source: Option<String>,
    /// The upstream's targets: which of them a request may go to now, and why not to the others. Empty
    /// if there is only one, and nothing is wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// What the loader or the response plugin sees, or the request plugin sets, and the key does
    /// not cover. The response's `Vary` may still cover it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unkeyed: Vec<String>,
    /// What each tier holds. Only a running gateway can tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<String>,
}

/// The key and its parts.
#[derive(Debug, Serialize)]
pub struct ExplainedKey {
    /// The short name, for `POST /v1/purge {"key": …}`.
    pub id: String,
    pub parts: String,
    /// The plugin that derived the key.
    pub plugin: Option<String>,
    /// The path and query that the origin gets, if the key leaves out part of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_gets: Option<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "url       {}", self.url)?;
        if let Some(form) = &self.form {
            writeln!(f, "form      {form}")?;
        }
        if let Some(ja4) = &self.ja4 {
            writeln!(f, "ja4       {ja4}")?;
        }
        writeln!(f, "route     {}", self.route.as_deref().unwrap_or("none"))?;
        self.rules
            .iter()
            .try_for_each(|rule| writeln!(f, "rule      {rule}"))?;
        if let Some(request) = &self.request {
            writeln!(f, "request   {request}")?;
        }
        writeln!(f, "decision  {}", self.decision)?;
        if let Some(key) = &self.key {
            writeln!(f, "key       {}", key.id)?;
            writeln!(f, "  of      {}", key.parts)?;
            writeln!(
                f,
                "  by      {}",
                key.plugin
                    .as_deref()
                    .map_or_else(|| "the route's key rules".into(), |p| format!("plugin {p}"))
            )?;
            if let Some(target) = &key.origin_gets {
                writeln!(f, "  origin  {target}")?;
            }
        }
        self.lifetime
            .iter()
            .try_for_each(|rule| writeln!(f, "lifetime  {rule}"))?;
        self.stale
            .iter()
            .try_for_each(|rule| writeln!(f, "stale     {rule}"))?;
        self.source
            .iter()
            .try_for_each(|source| writeln!(f, "source    {source}"))?;
        self.targets
            .iter()
            .try_for_each(|target| writeln!(f, "target    {target}"))?;
        self.unkeyed
            .iter()
            .try_for_each(|field| writeln!(f, "unkeyed   {field}"))?;
        self.tiers
            .iter()
            .try_for_each(|tier| writeln!(f, "tier      {tier}"))
    }
}
