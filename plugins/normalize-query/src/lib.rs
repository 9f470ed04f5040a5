//! One cache entry for URLs that differ only in tracking parameters or in the order
//! of parameters. See README.md for its configuration.

use lamina_plugin::{
    CacheKey, KeyDecision, KeyInputs, KeyNeeds, KeyPlugin, KeyRules, Manifest, Query,
};
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct NormalizeQuery {
    /// Parameters to leave out; a name may end in `*`.
    drop: Vec<String>,
    /// Whether parameters are sorted by name.
    sort: bool,
    /// Whether the gateway derives the key by itself, without calling `key`.
    declarative: bool,
}

impl KeyPlugin for NormalizeQuery {
    fn new(config: &str) -> Result<Self, String> {
        let config: Option<Self> = serde_json::from_str(config).map_err(|e| e.to_string())?;
        Ok(config.unwrap_or_default())
    }

    fn manifest(&self) -> Manifest {
        let manifest =
            Manifest::new("normalize-query", env!("CARGO_PKG_VERSION")).needs(KeyNeeds::url());
        if !self.declarative {
            return manifest;
        }
        manifest.declarative(KeyRules {
            drop: self.drop.clone(),
            sort: self.sort,
            ..KeyRules::url()
        })
    }

    fn key(&self, inputs: &KeyInputs) -> KeyDecision {
        let mut query = Query::parse(inputs.query.as_deref().unwrap_or(""));
        query.retain(|name, _| !self.drop.iter().any(|pattern| matches(pattern, name)));
        if self.sort {
            query.sort();
        }
        CacheKey::new(inputs.url_with_query(&query.to_string())).into()
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

lamina_plugin::export_key!(NormalizeQuery);

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"drop": ["utm_*", "fbclid"], "sort": true}"#;

    fn key(config: &str, query: Option<&str>) -> String {
        let inputs = KeyInputs {
            method: None,
            host: Some("shop".into()),
            path: Some("/p".into()),
            query: query.map(Into::into),
            headers: Vec::new(),
            cookies: Vec::new(),
        };
        match NormalizeQuery::new(config)
            .expect("a good config")
            .key(&inputs)
        {
            KeyDecision::Key(key) => key.text,
            other => panic!("not a key: {other:?}"),
        }
    }

    #[test]
    fn tracking_parameters_are_dropped_and_the_rest_is_sorted() {
        assert_eq!(
            key(CONFIG, Some("b=2&utm_source=x&a=1&fbclid=9&utm_medium=y")),
            "shop/p?a=1&b=2"
        );
    }

    #[test]
    fn nothing_left_means_no_question_mark() {
        assert_eq!(key(CONFIG, Some("utm_source=x")), "shop/p");
        assert_eq!(key(CONFIG, None), "shop/p");
    }

    #[test]
    fn without_a_config_the_query_stays_as_it_is() {
        assert_eq!(key("null", Some("b=2&a=1")), "shop/p?b=2&a=1");
    }

    #[test]
    fn a_misspelt_config_is_refused() {
        assert!(NormalizeQuery::new(r#"{"dorp": []}"#).is_err_and(|e| e.contains("dorp")));
    }
}
