//! One variant a device class and language, instead of one a `User-Agent`. See
//! README.md for its configuration.

use lamina_plugin::{CacheKey, KeyDecision, KeyInputs, KeyNeeds, KeyPlugin, Manifest};
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct DeviceClass {
    /// Languages that the site has, the first being its default. None: language is
    /// no part of the key.
    languages: Vec<String>,
}

impl KeyPlugin for DeviceClass {
    fn new(config: &str) -> Result<Self, String> {
        let config: Option<Self> = serde_json::from_str(config).map_err(|e| e.to_string())?;
        let mut plugin = config.unwrap_or_default();
        plugin
            .languages
            .iter_mut()
            .for_each(|l| l.make_ascii_lowercase());
        Ok(plugin)
    }

    fn manifest(&self) -> Manifest {
        let mut needs = KeyNeeds::url().header("user-agent");
        if !self.languages.is_empty() {
            needs = needs.header("accept-language");
        }
        Manifest::new("device-class", env!("CARGO_PKG_VERSION")).needs(needs)
    }

    fn key(&self, inputs: &KeyInputs) -> KeyDecision {
        let key =
            CacheKey::new(inputs.url()).part(device(inputs.header("user-agent").unwrap_or("")));
        match self.language(inputs.header("accept-language").unwrap_or("")) {
            Some(language) => key.part(language).into(),
            None => key.into(),
        }
    }
}

impl DeviceClass {
    /// The first language of the header that the site has, in the client's order of
    /// preference; else the site's default.
    fn language(&self, accept: &str) -> Option<&str> {
        let mut wanted: Vec<_> = accept.split(',').filter_map(language_range).collect();
        wanted.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        let chosen = wanted
            .iter()
            .find_map(|(range, _)| self.languages.iter().find(|has| covers(range, has)));
        chosen.or(self.languages.first()).map(String::as_str)
    }
}

/// `mobile`, `tablet` or `desktop`.
fn device(agent: &str) -> &'static str {
    let has = |word: &str| agent.contains(word);
    if has("iPad")
        || has("Tablet")
        || has("Kindle")
        || has("Silk/")
        || (has("Android") && !has("Mobile"))
    {
        "tablet"
    } else if has("Mobi") || has("iPhone") || has("iPod") {
        "mobile"
    } else {
        "desktop"
    }
}

/// One element of `Accept-Language`: the range in lower case and its weight in
/// thousandths. `None` when it is refused (`q=0`) or empty.
fn language_range(element: &str) -> Option<(String, u16)> {
    let mut pieces = element.split(';').map(str::trim);
    let range = pieces
        .next()
        .filter(|r| !r.is_empty())?
        .to_ascii_lowercase();
    let weight = pieces.find_map(|p| p.strip_prefix("q=").or(p.strip_prefix("Q=")));
    let weight = weight
        .map_or(Some(1.0), |w| w.parse::<f32>().ok())?
        .clamp(0.0, 1.0);
    (weight > 0.0).then_some((range, (weight * 1_000.0) as u16))
}

/// `de-AT` is served by `de`, and `de` by `de-at`.
fn covers(range: &str, has: &str) -> bool {
    let primary = |tag: &str| tag.split('-').next().unwrap_or("").to_owned();
    range == has || (primary(range) == primary(has) && (!range.contains('-') || !has.contains('-')))
}

lamina_plugin::export_key!(DeviceClass);

#[cfg(test)]
mod tests {
    use super::*;

    const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148";
    const PIXEL: &str =
        "Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/120.0 Mobile Safari/537.36";
    const GALAXY_TAB: &str = "Mozilla/5.0 (Linux; Android 13; SM-X700) Chrome/120.0 Safari/537.36";
    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0";

    #[test]
    fn agents_fall_into_three_classes() {
        assert_eq!([device(IPHONE), device(PIXEL)], ["mobile", "mobile"]);
        assert_eq!(
            [
                device(GALAXY_TAB),
                device("Mozilla/5.0 (iPad; CPU OS 16_0)")
            ],
            ["tablet", "tablet"]
        );
        assert_eq!(
            [device(FIREFOX), device("curl/8.0"), device("")],
            ["desktop", "desktop", "desktop"]
        );
    }

    #[test]
    fn the_language_is_one_that_the_site_has() {
        let plugin =
            DeviceClass::new(r#"{"languages": ["en", "de", "pt-BR"]}"#).expect("a good config");
        let cases = [
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("fr;q=1.0, en;q=0.3, de;q=0.7", "de"),
            ("pt", "pt-br"),
            ("de;q=0, en;q=0.1", "en"),
            ("ja", "en"),
            ("", "en"),
            (";q=x,,de;q=nonsense", "en"),
        ];
        for (accept, language) in cases {
            assert_eq!(plugin.language(accept), Some(language), "{accept}");
        }
    }

    #[test]
    fn without_languages_the_key_does_not_depend_on_the_header() {
        let plugin = DeviceClass::new("null").expect("a good config");
        assert_eq!(plugin.manifest().inputs.headers, ["user-agent"]);
        assert_eq!(plugin.language("de"), None);
    }
}
