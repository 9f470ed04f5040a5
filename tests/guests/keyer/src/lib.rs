//! A key plugin whose key has its version as a part; on two paths it asks for what a pure
//! function must not.

use std::hint::black_box;

use lamina_plugin::{CacheKey, KeyDecision, KeyInputs, KeyNeeds, KeyPlugin, Manifest, granted};

/// See `asker`.
static VERSION: &str = "version-one";

struct Keyer;

impl KeyPlugin for Keyer {
    fn new(_: &str) -> Result<Self, String> {
        Ok(Self)
    }

    fn manifest(&self) -> Manifest {
        Manifest::new("keyer", black_box(VERSION)).needs(KeyNeeds::url())
    }

    fn key(&self, inputs: &KeyInputs) -> KeyDecision {
        let url = inputs.url();
        if url.ends_with("/kv") {
            granted::kv_get("x");
        }
        if url.ends_with("/clock") {
            granted::now();
        }
        CacheKey::new(url).part(black_box(VERSION)).into()
    }
}

lamina_plugin::export_key!(Keyer);
