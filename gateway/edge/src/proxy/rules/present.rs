//! Which fields an answer has, of those that its rules ask for.

use http::{HeaderMap, HeaderName};

/// A field that the rules ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuledField {
    ContentEncoding,
    ContentType,
    ContentTypeOptions,
    /// Any of those by which an origin lets sites in.
    Cors,
    FrameOptions,
    ReferrerPolicy,
    /// What names the software of an origin.
    Software,
    TransportSecurity,
    Vary,
}

/// The fields that are there. One pass over the names of a head costs less than a look-up for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PresentFields(u16);

impl PresentFields {
    pub fn of(headers: &HeaderMap) -> Self {
        let fields = headers.keys().filter_map(RuledField::named);
        Self(fields.fold(0, |found, field| found | field.bit()))
    }

    pub fn has(self, field: RuledField) -> bool {
        self.0 & field.bit() != 0
    }
}

impl RuledField {
    /// The field of this name. None: no rule asks for it.
    pub fn named(name: &HeaderName) -> Option<Self> {
        Some(match name.as_str() {
            "content-encoding" => Self::ContentEncoding,
            "content-type" => Self::ContentType,
            "x-content-type-options" => Self::ContentTypeOptions,
            "x-frame-options" => Self::FrameOptions,
            "referrer-policy" => Self::ReferrerPolicy,
            "server" | "x-powered-by" => Self::Software,
            "strict-transport-security" => Self::TransportSecurity,
            "vary" => Self::Vary,
            other if other.starts_with("access-control-") => Self::Cors,
            _ => return None,
        })
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_there_is_seen_and_nothing_else() {
        let of = |names: &[&'static str]| {
            let field = |name: &&'static str| {
                let value = HeaderValue::from_static("x");
                (HeaderName::from_static(name), value)
            };
            PresentFields::of(&names.iter().map(field).collect())
        };
        for (name, field) in [
            ("content-encoding", RuledField::ContentEncoding),
            ("content-type", RuledField::ContentType),
            ("x-content-type-options", RuledField::ContentTypeOptions),
            ("access-control-allow-origin", RuledField::Cors),
            ("access-control-max-age", RuledField::Cors),
            ("x-frame-options", RuledField::FrameOptions),
            ("referrer-policy", RuledField::ReferrerPolicy),
            ("server", RuledField::Software),
            ("x-powered-by", RuledField::Software),
            ("strict-transport-security", RuledField::TransportSecurity),
            ("vary", RuledField::Vary),
        ] {
            let present = of(&["etag", name, "x-app"]);
            assert_eq!(present, PresentFields(field.bit()), "{name}");
            assert!(present.has(field), "{name}");
        }
        let all = of(&["vary", "server"]);
        assert!(all.has(RuledField::Vary) && all.has(RuledField::Software));
        assert_eq!(
            of(&["etag", "x-server", "content-length"]),
            PresentFields(0)
        );
    }
}
