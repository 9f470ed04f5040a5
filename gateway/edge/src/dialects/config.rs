//! The names of the dialects in the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A purge protocol that is understood on the listeners.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PurgeDialect {
    /// `PURGE` of a URL, or of all paths that begin so (`*`, `.*`, `X-Purge-Method: regex`).
    Url,
    /// `PURGE` with tags in `Surrogate-Key` or `Cache-Tag`.
    Tags,
    /// `PURGE` or `PURGEKEYS` with tags in `xkey`, `xkey-purge` or `xkey-softpurge`.
    Xkey,
    /// `PURGE` with `Fastly-Key` or `Fastly-Soft-Purge`, answered in JSON.
    Fastly,
    /// `PURGE` with `X-Magento-Tags-Pattern`.
    Magento,
    /// `PURGETAGS` with `X-Cache-Tags`, and `PURGE` with `Clear-Cache: true`.
    Symfony,
    /// `BAN` with `X-Host`, `X-Url`, `X-Content-Type` and `X-Cache-Tags`, as FOSHttpCache, Neos and
    /// extensions of TYPO3 send it to Varnish.
    Varnish,
    /// `BAN` with tags in the fields of `drupal_headers`, and `URIBAN` of a path.
    Drupal,
    /// `BAN` and `PURGE` with `X-Acquia-Purge`.
    Acquia,
    /// `BAN` with `ApiPlatform-Ban-Regex`.
    ApiPlatform,
    /// `BAN` of a path, as Shopware up to 6.5 sends it.
    Shopware,
    /// Requests below `nginx_prefix`.
    Nginx,
    /// `PURGE` below `/souin-api/souin`.
    Souin,
    /// `GET` with `Cache-Control: no-cache` or `X-Refresh: 1`, from an address in `allow`: the page
    /// is loaded again for everybody.
    Refresh,
}

impl PurgeDialect {
    pub const ALL: [Self; 14] = [
        Self::Url,
        Self::Tags,
        Self::Xkey,
        Self::Fastly,
        Self::Magento,
        Self::Symfony,
        Self::Varnish,
        Self::Drupal,
        Self::Acquia,
        Self::ApiPlatform,
        Self::Shopware,
        Self::Nginx,
        Self::Souin,
        Self::Refresh,
    ];

    /// Those that are understood unless the configuration says otherwise.
    pub const USUAL: [Self; 6] = [
        Self::Url,
        Self::Tags,
        Self::Xkey,
        Self::Fastly,
        Self::Magento,
        Self::Symfony,
    ];

    /// The word in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Tags => "tags",
            Self::Xkey => "xkey",
            Self::Fastly => "fastly",
            Self::Magento => "magento",
            Self::Symfony => "symfony",
            Self::Varnish => "varnish",
            Self::Drupal => "drupal",
            Self::Acquia => "acquia",
            Self::ApiPlatform => "api_platform",
            Self::Shopware => "shopware",
            Self::Nginx => "nginx",
            Self::Souin => "souin",
            Self::Refresh => "refresh",
        }
    }
}
