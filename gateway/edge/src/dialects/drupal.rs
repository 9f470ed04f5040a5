//! `BAN` with a list of tags, as Drupal's purgers send it, and `URIBAN` of a path.

use super::config::PurgeDialect;
use super::fields::{self, malformed, tagged};
use super::wish::PurgeTarget;
use super::{ControlRequest, DialectReading, DialectSettings, PurgeScope, expression, url};

pub const ACCEPTS: &str = "BAN with tags in one of `drupal_headers`, with `|` in between; URIBAN with \
                           the beginning of a path";

/// Reads such a request.
pub fn read(request: &ControlRequest<'_>, settings: &DialectSettings) -> DialectReading {
    match request.method {
        "URIBAN" => Ok(Some(PurgeScope::of(vec![url::beginning(request)?]))),
        "BAN" => ban(request, settings),
        _ => Ok(None),
    }
}

fn ban(request: &ControlRequest<'_>, settings: &DialectSettings) -> DialectReading {
    let mut targets = Vec::new();
    for name in &settings.drupal_headers {
        let name = name.as_str();
        // With these fields it is a ban of FOSHttpCache.
        if name == "x-cache-tags" && settings.has(PurgeDialect::Varnish) {
            continue;
        }
        for line in fields::lines(request.headers, name)? {
            if line == ".*" {
                targets.push(PurgeTarget::Everything);
                continue;
            }
            let lists = line.split([',', ' ']).filter(|list| !list.is_empty());
            let tags: Option<Vec<_>> = lists.map(expression::alternatives).collect();
            match tags {
                Some(tags) => targets.extend(tagged(tags.concat(), name)?),
                None => return Err(malformed(name, "is neither `.*` nor a list of tags")),
            }
        }
    }
    Ok((!targets.is_empty()).then(|| PurgeScope::of(targets)))
}
