//! A key plugin: one cache entry a path and currency, whatever the query says.

use lamina_plugin::{CacheKey, KeyDecision, KeyInputs, KeyNeeds, KeyPlugin, Manifest};

struct Plugin;

impl KeyPlugin for Plugin {
    /// Reads `config` of the YAML, as JSON text.
    fn new(_config: &str) -> Result<Self, String> {
        Ok(Self)
    }

    /// What the key depends on: exactly this is passed to `key`.
    fn manifest(&self) -> Manifest {
        let needs = KeyNeeds::url().without_query().cookie("currency");
        Manifest::new("{{name}}", env!("CARGO_PKG_VERSION")).needs(needs)
    }

    /// Must be pure: equal inputs are answered from memory, without a call.
    fn key(&self, inputs: &KeyInputs) -> KeyDecision {
        let currency = inputs.cookie("currency").unwrap_or("EUR");
        CacheKey::new(inputs.url()).part(currency).into()
    }
}

lamina_plugin::export_key!(Plugin);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cookies: &[(&str, &str)]) -> CacheKey {
        let field = |&(name, value): &(&str, &str)| lamina_plugin::Field {
            name: name.into(),
            value: value.into(),
        };
        let inputs = KeyInputs {
            method: None,
            host: Some("shop.example".into()),
            path: Some("/tea".into()),
            query: None,
            headers: vec![],
            cookies: cookies.iter().map(field).collect(),
        };
        match Plugin.key(&inputs) {
            KeyDecision::Key(key) => key,
            _ => panic!("not a key"),
        }
    }

    #[test]
    fn the_currency_is_a_part_of_the_key() {
        let key = key(&[("currency", "USD")]);
        assert_eq!((key.text.as_str(), key.parts), ("shop.example/tea", vec!["USD".to_owned()]));
    }

    #[test]
    fn without_a_cookie_it_is_euros() {
        assert_eq!(key(&[]).parts, ["EUR"]);
    }
}
